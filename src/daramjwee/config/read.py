"""Tables as they stand in a file, made into settings: names checked, every problem of every part found.

Invariant: what is read is right or has a problem, whose field is dotted; nothing else is raised, whatever was given.
Threads: any; pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from daramjwee.buffers.config import BufferPoolConfig
from daramjwee.config.origin import ORIGIN_KINDS, AnyOrigin
from daramjwee.config.secret import Secret, shown
from daramjwee.config.tiers import LARGEST_NUMBER, TIER_KINDS, AnyTier, MemoryTier
from daramjwee.config.words import name_of, unknown_field, unknown_kind
from daramjwee.errors import HIDDEN, ConfigError, Problem
from daramjwee.model import Freshness

if TYPE_CHECKING:
    from collections.abc import Iterable


_Part = TypeVar("_Part")

FRESHNESS_FIELDS = ("fresh", "stale_while_revalidate", "stale_if_error", "negative")
# The fields without a default: what stands in for one that is missing while the others are checked: nothing can contradict it. And what to say.
_MISSING: dict[str, tuple[Any, str]] = {
    "capacity": (LARGEST_NUMBER, 'give the bytes it may hold, such as capacity = "20GiB"'),
    "folder": ("/", 'give the path of a folder, such as folder = "cache"'),
    "base": ("", 'give the URL that keys are paths below, or base = "" where keys are whole URLs'),
    "name": ("missing", "give the name of what was given"),
}


def read_tiers(value: Any, problems: list[Problem]) -> tuple[AnyTier, ...]:
    """The tiers of a list of tables (or of settings that are made already)."""
    if not isinstance(value, list | tuple):
        mend = (
            'must be a list of tables ([[tiers]] in a file), or text such as "memory:256MiB;file:cache?capacity=20GiB"'
        )
        problems.append(Problem("tiers", shown(value), mend))
        return ()
    if not value:
        problems.append(Problem("tiers", value, 'give at least one, such as "memory:256MiB"'))
    found = [read_kind(f"tiers[{index}]", tier, TIER_KINDS, "tier", problems) for index, tier in enumerate(value)]
    return tuple(tier for tier in found if tier is not None)


def read_origin(value: Any, problems: list[Problem]) -> AnyOrigin | None:
    """The origin of a table; None is none."""
    return None if value is None else read_kind("origin", value, ORIGIN_KINDS, "origin", problems)


def read_freshness(value: Any, problems: list[Problem]) -> Freshness:
    """The lifetimes of a table."""
    if isinstance(value, Freshness):
        return value
    if not isinstance(value, Mapping):
        problems.append(Problem("freshness", shown(value), 'must be a table of durations, such as fresh = "5m"'))
        return Freshness()
    fields = known_fields("freshness", value, FRESHNESS_FIELDS, problems)
    for name in list(fields):
        try:
            Freshness(**{name: fields[name]})
        except ConfigError as error:
            problems += _inside("freshness", error)
            del fields[name]
    return Freshness(**fields)


def read_buffers(value: Any, problems: list[Problem]) -> BufferPoolConfig:
    """The settings of the pool of a table; None switches it off."""
    if value is None:
        return BufferPoolConfig(enabled=False)
    if isinstance(value, BufferPoolConfig):
        return value
    if not isinstance(value, Mapping):
        problems.append(
            Problem("buffers", shown(value), "must be a table of fields; for no pool, one with enabled = false")
        )
        return BufferPoolConfig()
    fields = known_fields("buffers", value, BufferPoolConfig.__struct_fields__, problems)
    try:
        return BufferPoolConfig(**fields)
    except ConfigError as error:
        problems += _inside("buffers", error)
        return BufferPoolConfig()


def read_kind(
    field: str, value: Any, kinds: Mapping[str, type[_Part]], what: str, problems: list[Problem]
) -> _Part | None:
    """Settings of the kind that the `type` of a table names; None after their problems were appended."""
    # What a program made is not for anyone to write down.
    described = [name for name in kinds if name != "given"]
    for made in kinds.values():
        if isinstance(value, made):
            return value
    if not isinstance(value, Mapping):
        mend = f"must be a table with type = {' or '.join(repr(kind) for kind in described)}"
        problems.append(Problem(field, HIDDEN if field == "origin" else shown(value), mend))
        return None
    kind = value.get("type")
    chosen = kinds.get(kind) if isinstance(kind, str) else None
    if chosen is None:
        mend = f"is missing; give {' or '.join(described)}" if kind is None else unknown_kind(kind, described, what)
        problems.append(Problem(f"{field}.type", shown(kind), mend))
        # What every kind of tier has can be checked all the same.
        common = {name: value[name] for name in MemoryTier.__struct_fields__ if name in value}
        if what == "tier":
            _make(field, MemoryTier, {"capacity": LARGEST_NUMBER, **common}, problems)
        return None
    known: tuple[str, ...] = chosen.__struct_fields__  # type: ignore[attr-defined]  # each kind is a struct
    fields = known_fields(field, {k: v for k, v in value.items() if k != "type"}, known, problems, kind=str(kind))
    missing = [name for name in known if name in _MISSING and name not in fields]
    for name in missing:
        fields[name], mend = _MISSING[name]
        problems.append(Problem(f"{field}.{name}", None, f"is missing; {mend}"))
    part = _make(field, chosen, fields, problems)
    return None if missing else part


def known_fields(
    field: str, value: Mapping[Any, Any], known: Iterable[str], problems: list[Problem], *, kind: str = ""
) -> dict[str, Any]:
    """The fields of a table that there are; the others are problems."""
    known = tuple(known)
    for name, given in value.items():
        if name not in known:
            # What is meant for an origin may be a secret, whatever it was called.
            hidden = HIDDEN if field.partition(".")[0] == "origin" else shown(given, name)
            mend = unknown_field(name, known)
            mend = mend.replace("is no field", f"is no field of type {kind}", 1) if kind else mend
            problems.append(Problem(join(field, name_of(name)), hidden, mend))
    return {name: given for name, given in value.items() if name in known}


def table_of(part: Any) -> dict[str, Any]:
    """A part as plain data, secrets by reference."""
    if isinstance(part, Freshness):
        return {name: getattr(part, name) for name in FRESHNESS_FIELDS}
    plain: dict[str, Any] = msgspec.to_builtins(part)
    if "headers" in plain:
        pairs = part.headers.items()
        plain["headers"] = {name: v.to_mapping() if isinstance(v, Secret) else v for name, v in pairs}
    return plain


def join(field: str, name: str) -> str:
    """A dotted name."""
    return f"{field}.{name}" if field else name


def _make(field: str, kind: type[_Part], fields: dict[str, Any], problems: list[Problem]) -> _Part | None:
    try:
        return kind(**fields)
    except ConfigError as error:
        problems += _inside(field, error)
        return None


def _inside(field: str, error: ConfigError) -> list[Problem]:
    return [problem._replace(field=f"{field}.{problem.field}") for problem in error.problems]
