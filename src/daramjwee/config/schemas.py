"""The schemas of a configuration: which one a mapping is of, and what it says in today's, schema 3.

    0  names of the Go library (`Enabled`, `DefaultBufferSize`, ..., also below `BufferPool` beside its other settings)
    1  the plain pool's four fields: `enabled`, `default_buffer_size`, `min_buffer_size`, `max_buffer_size`
    2  the fields of `BufferPoolConfig`, as they are or as the only table, `buffers`
    3  the tables of `CacheConfig`

Invariant: what is left out has the default of its own schema, also when today's is another. A mapping whose names are
of two schemas is refused, not guessed at.
Threads: any; pure, the mapping given is not changed.
Design: docs/migration.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from daramjwee.buffers.config import BufferPoolConfig
from daramjwee.config import schema0
from daramjwee.config.change import Change, Kind, written
from daramjwee.config.secret import shown
from daramjwee.config.words import name_of, unknown_field
from daramjwee.errors import ConfigError, Problem
from daramjwee.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterable

LATEST = 3
SCHEMA = "schema"
BUFFERS = "buffers"
# What `BufferPoolConfig` had in release 0.1.0, which schemas 1 and 2 are of: a later release with other defaults
# writes these out, so that an old file goes on meaning the same.
DEFAULTS: dict[str, Any] = {
    "enabled": True,
    "default_buffer_size": 256 * KIB,
    "min_buffer_size": 4 * KIB,
    "max_buffer_size": MIB,
    "large_object_threshold": 256 * KIB,
    "very_large_object_threshold": MIB,
    "large_object_strategy": "adaptive",
    "chunk_size": None,
    "max_concurrent_large_ops": 16,
    "max_queued_large_ops": 1024,
    "acquire_timeout": 30.0,
    "max_idle_age": 60.0,
    "max_pool_bytes": 64 * MIB,
    "metrics_interval": 10.0,
    "leak_detection": "sampled",
    "enable_detailed_metrics": False,
}
PLAIN = ("enabled", "default_buffer_size", "min_buffer_size", "max_buffer_size")
TABLES = ("tiers", "origin", "freshness", BUFFERS, "memory_limit", "workers")
_WORDS = {
    0: "schema 0 (the Go library)",
    1: "schema 1 (the plain pool)",
    2: "schema 2 (BufferPoolConfig)",
    3: "schema 3 (CacheConfig)",
}


class Upgraded(NamedTuple):
    """`mapping`: schema 3, with its number. `notes`: what became of each field; none for a mapping that was of it."""

    mapping: dict[str, Any]
    notes: tuple[Change, ...]


def schema_of(mapping: Mapping[str, Any]) -> int:
    """The schema that `mapping` is of: what it says, else what its names say. `ConfigError` when they contradict."""
    if SCHEMA in mapping:
        return _stated(mapping[SCHEMA])
    ages = _ages(mapping)
    if len(ages) > 1:
        raise ConfigError(_mixed(mapping, ages))
    if 2 in ages and ages[2] <= set(PLAIN):
        return 1
    if ages:
        return next(iter(ages))
    # Tables alone. One of buffers is what `daramjwee bench --calibrate` writes, and means the same in schema 3.
    alone = set(mapping) == {BUFFERS} and isinstance(mapping[BUFFERS], Mapping)
    return 2 if alone else LATEST


def upgraded(mapping: Mapping[str, Any]) -> Upgraded:
    """What `mapping` says, in schema 3. `ConfigError` lists every problem of an older one, by the names it has there."""
    schema = schema_of(mapping)
    fields = {name: value for name, value in mapping.items() if name != SCHEMA}
    if schema == LATEST:
        return Upgraded({SCHEMA: LATEST, **fields}, ())
    if schema == 0:
        return _from_go(fields)
    return _from_pool(fields, schema)


def _stated(value: Any) -> int:
    if type(value) is int and 0 <= value <= LATEST:
        return value
    later = type(value) is int and value > LATEST
    mend = (
        f"is a later one, this release knows 0 to {LATEST}: upgrade daramjwee"
        if later
        else f"must be a whole number, 0 to {LATEST}"
    )
    raise ConfigError([Problem(SCHEMA, value, mend)])


def _ages(mapping: Mapping[str, Any]) -> dict[int, set[str]]:
    """Which schemas names at the top tell of; tables that could be of schema 2 or 3 only beside older names."""
    names: set[str] = set(mapping)
    found = {0: names & (schema0.CONFIG_NAMES | schema0.BUFFER_NAMES), 2: names & set(DEFAULTS)}
    ages = {age: there for age, there in found.items() if there}
    if ages and not names.isdisjoint(TABLES):
        ages[LATEST] = names & set(TABLES)
    return ages


def _mixed(mapping: Mapping[str, Any], ages: dict[int, set[str]]) -> list[Problem]:
    """A problem for each name that is not of the latest of these schemas."""
    latest = max(ages)
    beside = min(ages[latest])
    mend = f"beside {beside}, which is of {_WORDS[latest]}: use the names of one schema"
    if ages.keys() == {2, LATEST}:
        mend += "; fields of the pool belong into the table buffers"
    return [
        Problem(name, mapping[name], f"is a name of {_WORDS[age]} {mend}")
        for age, names in ages.items()
        if age != latest
        for name in mapping
        if name in names
    ]


def _from_go(fields: Mapping[str, Any]) -> Upgraded:
    whole = not schema0.CONFIG_NAMES.isdisjoint(fields)
    problems = [
        Problem(name, value, f"is a field of the pool: put it into the table {schema0.POOL}")
        for name, value in fields.items()
        if whole and name in schema0.BUFFER_NAMES
    ]
    known = schema0.CONFIG_NAMES if whole else schema0.BUFFER_NAMES
    problems += _unknown([pair for pair in fields.items() if pair[0] not in schema0.BUFFER_NAMES], known)
    pool = fields.get(schema0.POOL)
    if isinstance(pool, Mapping):
        problems += _unknown(pool.items(), schema0.BUFFER_NAMES, f"{schema0.POOL}.")
    found = schema0.upgrade(fields)
    problems += found.problems
    if problems:
        raise ConfigError(problems)
    return Upgraded(found.mapping, tuple(found.changes))


def _from_pool(fields: Mapping[str, Any], schema: int) -> Upgraded:
    """Schemas 1 and 2: the fields as they are, or in a table of their own."""
    table = fields.get(BUFFERS)
    others = [pair for pair in fields.items() if pair[0] != BUFFERS]
    if isinstance(table, Mapping) and DEFAULTS.keys().isdisjoint(fields):
        # Its fields are checked where those of schema 3 are: the environment and arguments may have a say before.
        problems = _unknown(others, (BUFFERS,))
        kind, prefix, given = Kind.KEPT, f"{BUFFERS}.", dict(table)
    else:
        problems = _unknown(others, DEFAULTS)
        if BUFFERS in fields:
            mend = "must be a table of the pool's fields, with none of them beside it"
            problems.append(Problem(BUFFERS, shown(table), mend))
        kind, prefix, given = Kind.RENAMED, "", {name: fields[name] for name in fields if name in DEFAULTS}
        problems += _broken_rules({name: given[name] for name in given if schema == 2 or name in PLAIN})
    if schema == 1:
        later = f"is a field of {_WORDS[2]}: say schema = 2, or leave it out"
        problems += [Problem(prefix + n, v, later) for n, v in given.items() if n in DEFAULTS and n not in PLAIN]
    if problems:
        raise ConfigError(problems)
    changes = [
        Change(kind=kind, old=f"{prefix}{n}", given=value, new=f"{BUFFERS}.{n}", value=value)
        for n, value in given.items()
    ]
    today = msgspec.to_builtins(BufferPoolConfig())
    why = f"the default of {_WORDS[schema]}, written out"
    for name, default in DEFAULTS.items():
        if name not in given and ((schema == 1 and name in PLAIN) or today[name] != default):
            given[name] = written(name, default)
            changes.append(
                Change(kind=Kind.DEFAULT, old=prefix + name, new=f"{BUFFERS}.{name}", value=given[name], reason=why)
            )
    return Upgraded({SCHEMA: LATEST, BUFFERS: given}, tuple(changes))


def _broken_rules(fields: dict[str, Any]) -> tuple[Problem, ...]:
    try:
        BufferPoolConfig(**fields)
    except ConfigError as error:
        return error.problems
    return ()


def _unknown(fields: Iterable[tuple[str, Any]], known: Iterable[str], prefix: str = "") -> list[Problem]:
    """A problem for each name that is none, with the nearest that is one."""
    names = sorted(known)
    return [
        Problem(prefix + name_of(name), shown(value, name), unknown_field(name, names))
        for name, value in fields
        if name not in names
    ]
