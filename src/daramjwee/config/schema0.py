"""Schema 0, the names of the Go library: its fields and defaults, and what each is called today.

Invariant: every field of the Go library's `BufferPoolConfig` and `Config` has a place in `BUFFERS`, `SETTINGS` or
`DROPPED`; what is not in the file has the Go library's default, never today's.
Threads: any; pure.
Design: docs/migration.md
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.buffers.config import LARGEST_SIZE, BufferPoolConfig
from daramjwee.config.change import NOT_GIVEN, Change, Kind, duration_text, size_text, written
from daramjwee.config.secret import shown
from daramjwee.errors import ConfigError, Problem
from daramjwee.model import MOST_WORKERS
from daramjwee.units import KIB, MIB, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The table of the Go library's `Config` that holds its `BufferPoolConfig`.
POOL = "BufferPool"


class Field(NamedTuple):
    """`new`: its name today. `default`: the Go library's. `zero`: 0 and less stand for the default."""

    new: str
    default: Any
    zero: bool = False


BUFFERS: dict[str, Field] = {
    "Enabled": Field("enabled", True),
    "DefaultBufferSize": Field("default_buffer_size", 32 * KIB),
    "MinBufferSize": Field("min_buffer_size", 4 * KIB),
    "MaxBufferSize": Field("max_buffer_size", 64 * KIB),
    "LargeObjectThreshold": Field("large_object_threshold", 256 * KIB, zero=True),
    "VeryLargeObjectThreshold": Field("very_large_object_threshold", MIB, zero=True),
    "LargeObjectStrategy": Field("large_object_strategy", "adaptive"),
    "ChunkSize": Field("chunk_size", 64 * KIB, zero=True),
    "MaxConcurrentLargeOps": Field("max_concurrent_large_ops", 4, zero=True),
    "EnableDetailedMetrics": Field("enable_detailed_metrics", False),
}
_BOUNDS = ("MinBufferSize", "DefaultBufferSize", "MaxBufferSize")
_RULED = (*_BOUNDS, "LargeObjectThreshold", "VeryLargeObjectThreshold", "ChunkSize", "MaxConcurrentLargeOps")
# The two that became one: how often the figures are looked at.
LOGGING, INTERVAL = "EnableLogging", "LoggingInterval"
# In the order of the Go library's constants.
STRATEGIES = ("pooled", "chunked", "direct", "adaptive")

# Fields of the Go library's `Config`; where a later release of it says another name for the same, both are known.
WORKERS = ("WorkerPoolSize", "Workers")
FRESH = ("PositiveFreshFor", "PositiveFreshness")
NEGATIVE = ("NegativeFreshFor", "NegativeFreshness")
SETTINGS = {**dict.fromkeys(WORKERS, "workers"), **dict.fromkeys(FRESH, "freshness.fresh")}
SETTINGS |= dict.fromkeys(NEGATIVE, "freshness.negative")
_TIERS = "tiers are described in the list `tiers` now; without it there is one, of 256MiB in memory"
_BOUNDED = "background work is bounded by `workers` and the pool's gate alone"
DROPPED: dict[str, str] = {
    "HotStore": _TIERS,
    "ColdStore": _TIERS,
    "Tiers": _TIERS,
    "TierFreshnessOverrides": "freshness is one for all tiers; `open(freshness=...)` is for one read",
    "WorkerStrategy": "there is one strategy, a bounded pool of `workers` threads",
    "WorkerQueueSize": _BOUNDED,
    "WorkerQueue": _BOUNDED,
    "WorkerJobTimeout": "a background fetch has the time limits of its origin (`origin.timeout`)",
    "WorkerTimeout": "a background fetch has the time limits of its origin (`origin.timeout`)",
    "DefaultTimeout": "give `timeout=` to the call, or `origin.timeout`",
    "OpTimeout": "give `timeout=` to the call, or `origin.timeout`",
    "ShutdownTimeout": "say it where the cache is closed",
    "CloseTimeout": "say it where the cache is closed",
}
BUFFER_NAMES = frozenset((*BUFFERS, LOGGING, INTERVAL))
CONFIG_NAMES = frozenset((POOL, *SETTINGS, *DROPPED))

# The Go library serves what is stale as long as it has it, and renews it in the background. Freshness wants a number.
FOR_EVER = "3650d"
DEFAULT_WORKERS = 1
DEFAULT_POOL_BYTES = 64 * MIB

_GO_DURATION = re.compile(r"(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+")
_GO_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
# In nanoseconds, and in the characters that Go itself may write for one.
LARGEST_GO_DURATION = (1 << 63) - 1
LONGEST_GO_DURATION = 100
# In nanoseconds, so that "1.5h" and what the library prints come out exact.
_GO_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
DURATION_MEND = 'give nanoseconds as a whole number, or text such as "5m0s"'


class Upgrade:
    """One file on its way: what was found in it, and what is made of it."""

    def __init__(self) -> None:
        self.mapping: dict[str, Any] = {"schema": 3}
        self.changes: list[Change] = []
        self.problems: list[Problem] = []

    def put(self, kind: Kind, old: str, given: object, new: str, value: object, reason: str = "") -> None:
        """`old` is `new` from now on, with `value`."""
        *tables, name = new.split(".")
        table = self.mapping
        for each in tables:
            table = table.setdefault(each, {})
        table[name] = value
        self.changes.append(Change(kind=kind, old=old, given=given, new=new, value=value, reason=reason))

    def drop(self, old: str, given: object, reason: str) -> None:
        """`old` has no place any more."""
        # A description of a store may have its password in it.
        self.changes.append(Change(kind=Kind.DROPPED, old=old, given=shown(given, old), reason=reason))


def upgrade(mapping: Mapping[str, Any]) -> Upgrade:
    """What a file of the Go library's names says today. `mapping` has known names only."""
    found = Upgrade()
    if CONFIG_NAMES.isdisjoint(mapping):
        _buffers(mapping, "", found)
        return found
    pool = mapping.get(POOL)
    if pool is None or hasattr(pool, "items"):
        _buffers(pool or {}, f"{POOL}.", found)
    else:
        found.problems.append(Problem(POOL, pool, "must be a table of the pool's fields"))
    _workers(mapping, found)
    _freshness(mapping, found)
    for name, reason in DROPPED.items():
        if name in mapping:
            found.drop(name, mapping[name], reason)
    return found


def _buffers(table: Mapping[str, Any], prefix: str, found: Upgrade) -> None:
    fields: dict[str, Any] = {}
    for old, field in BUFFERS.items():
        kind, value, reason = _value(old, field, table, prefix, found.problems)
        fields[field.new] = value
        found.put(
            kind, prefix + old, table.get(old, NOT_GIVEN), f"buffers.{field.new}", written(field.new, value), reason
        )
    _widen(table, prefix, fields, found)
    _logging(table, prefix, fields, found)
    _check(table, prefix, fields, found.problems)


def _value(
    old: str, field: Field, table: Mapping[str, Any], prefix: str, problems: list[Problem]
) -> tuple[Kind, Any, str]:
    """What a field becomes: how, the value, and why."""
    if old not in table:
        return Kind.DEFAULT, field.default, "the Go library's default, written out"
    given = table[old]
    if old == "LargeObjectStrategy":
        return _strategy(given, prefix + old, problems)
    number = type(given) is int
    if field.zero and number and given <= 0:
        return Kind.DEFAULT, field.default, f"{given} stood for the Go library's default"
    if old in _BOUNDS and number and given == 0 and table.get("Enabled") is False:
        # What the Go library writes of a pool that was only switched off.
        return Kind.DEFAULT, field.default, "0 in a pool that is switched off; the Go library's default"
    return Kind.RENAMED, given, ""


def _strategy(given: Any, old: str, problems: list[Problem]) -> tuple[Kind, Any, str]:
    if type(given) is int:
        if 0 <= given < len(STRATEGIES):
            return Kind.RENAMED, STRATEGIES[given], ""
        return Kind.CHANGED, "adaptive", "the Go library takes an unknown number for StrategyAdaptive"
    name = given.removeprefix("Strategy").lower() if isinstance(given, str) else ""
    if name not in STRATEGIES:
        mend = f"must be 0 to {len(STRATEGIES) - 1}, or one of {', '.join(map(repr, STRATEGIES))}"
        problems.append(Problem(old, given, mend))
        return Kind.DEFAULT, "adaptive", ""
    return Kind.RENAMED, name, ""


def _widen(table: Mapping[str, Any], prefix: str, fields: dict[str, Any], found: Upgrade) -> None:
    """Make legal what was so in the Go library: chunks outside the bounds of what is pooled, and a pool without a bound.

    A chunk size that was chosen is obeyed, so the bounds follow it; one that was left out follows the bounds.
    """
    low, default, high = (_bytes(fields[BUFFERS[name].new]) for name in _BOUNDS)
    if not low or not default or not high or not low <= default <= high:
        return  # refused by the Go library, too
    chunk = _bytes(fields["chunk_size"])
    if chunk is not None and not _given(table, "ChunkSize") and not low <= chunk <= high:
        chunk = fields["chunk_size"] = min(max(chunk, low), high)
        why = f"the Go library's default, {size_text(BUFFERS['ChunkSize'].default)}, brought within the bounds given"
        _again(found, prefix + "ChunkSize", chunk, why)
    elif chunk is not None and chunk > high:
        high = fields["max_buffer_size"] = chunk
        _again(found, prefix + "MaxBufferSize", high, "raised to ChunkSize: chunks are pooled memory now")
    elif chunk is not None and chunk < low:
        fields["min_buffer_size"] = chunk
        _again(found, prefix + "MinBufferSize", chunk, "lowered to ChunkSize: chunks are pooled memory now")
    if DEFAULT_POOL_BYTES < high <= LARGEST_SIZE:
        fields["max_pool_bytes"] = high
        why = "the Go library bounds no pool, and here it must have room for the largest buffer"
        given = table.get("MaxBufferSize", NOT_GIVEN)
        found.put(Kind.CHANGED, f"{prefix}MaxBufferSize", given, "buffers.max_pool_bytes", size_text(high), why)


def _given(table: Mapping[str, Any], old: str) -> bool:
    """Whether the file chose a value; 0 and less choose nothing."""
    value = table.get(old)
    return old in table and not (type(value) is int and value <= 0)


def _again(found: Upgrade, old: str, count: int, reason: str) -> None:
    """Another value for a field that was put already."""
    at, before = next((i, c) for i, c in enumerate(found.changes) if c.old == old)
    kind = before.kind if before.kind is Kind.DEFAULT and old.endswith("ChunkSize") else Kind.CHANGED
    del found.changes[at]
    found.put(kind, old, before.given, str(before.new), size_text(count), reason)
    found.changes.insert(at, found.changes.pop())


def _logging(table: Mapping[str, Any], prefix: str, fields: dict[str, Any], found: Upgrade) -> None:
    """A line of figures each interval became a look at the figures each interval."""
    wanted, interval = table.get(LOGGING, False), table.get(INTERVAL, 0)
    seconds = _seconds(interval, prefix + INTERVAL, found.problems)
    if not isinstance(wanted, bool):
        found.problems.append(Problem(prefix + LOGGING, wanted, "must be True or False"))
    if wanted is True and seconds:
        fields["metrics_interval"] = seconds
        why = "the figures are looked at as often; alerts are logged, and no line each time"
        found.put(Kind.RENAMED, prefix + INTERVAL, interval, "buffers.metrics_interval", duration_text(seconds), why)
        found.drop(prefix + LOGGING, wanted, "`metrics_interval` is enough")
        return
    if LOGGING in table:
        why = "alerts are always logged, figures are asked for: `daramjwee stats`"
        found.drop(prefix + LOGGING, wanted, why)
    if INTERVAL in table:
        off = "nothing was logged" if wanted is not True else "0 meant no line each time"
        found.drop(prefix + INTERVAL, interval, f"{off}; see `metrics_interval`")


def _check(table: Mapping[str, Any], prefix: str, fields: dict[str, Any], problems: list[Problem]) -> None:
    """The rules of today, told in the names of the file."""
    try:
        BufferPoolConfig(**fields)
    except ConfigError as error:
        names = {field.new: old for old, field in BUFFERS.items()}
        names |= {"metrics_interval": INTERVAL, "max_pool_bytes": "MaxBufferSize"}
        problems += [_renamed(problem, table, prefix, names) for problem in error.problems]


def _renamed(problem: Problem, table: Mapping[str, Any], prefix: str, names: dict[str, str]) -> Problem:
    old = names[problem.field]
    pattern = re.compile("|".join(rf"\b{new}\b" for new in names))
    mentioned = dict.fromkeys([old, *(names[new] for new in pattern.findall(problem.mend))])
    mend = pattern.sub(lambda match: prefix + names[match[0]], problem.mend)
    defaults = [_default_text(name) for name in mentioned if name in _RULED and not _given(table, name)]
    if defaults:
        mend += f" (left out, and so the Go library's default: {', '.join(defaults)})"
    return Problem(prefix + old, table[old] if _given(table, old) else problem.value, mend)


def _default_text(old: str) -> str:
    return f"{old} = {written(BUFFERS[old].new, BUFFERS[old].default)}"


def _workers(mapping: Mapping[str, Any], found: Upgrade) -> None:
    old, given = _one_of(WORKERS, mapping, found.problems)
    if given is NOT_GIVEN:
        found.put(Kind.DEFAULT, old, given, "workers", DEFAULT_WORKERS, "the Go library's default, written out")
    elif type(given) is not int or not 1 <= given <= MOST_WORKERS:
        found.problems.append(Problem(old, given, f"must be a whole number from 1 to {MOST_WORKERS}"))
    else:
        found.put(Kind.RENAMED, old, given, "workers", given)


def _freshness(mapping: Mapping[str, Any], found: Upgrade) -> None:
    old, given = _one_of(FRESH, mapping, found.problems)
    seconds = 0.0 if given is NOT_GIVEN else _seconds(given, old, found.problems)
    kind, why = (Kind.DEFAULT, "the Go library's default, written out") if given is NOT_GIVEN else (Kind.RENAMED, "")
    found.put(kind, old, given, "freshness.fresh", duration_text(seconds or 0.0), why)
    why = "the Go library serves what is stale at once, and renews it in the background"
    found.put(Kind.CHANGED, old, given, "freshness.stale_while_revalidate", FOR_EVER, why)
    why = "the Go library goes on serving what is stale when the origin fails"
    found.put(Kind.CHANGED, old, given, "freshness.stale_if_error", FOR_EVER, why)
    old, given = _one_of(NEGATIVE, mapping, found.problems)
    seconds = 0.0 if given is NOT_GIVEN else _seconds(given, old, found.problems)
    if seconds:
        found.put(Kind.RENAMED, old, given, "freshness.negative", duration_text(seconds))
    elif seconds == 0:
        found.drop(old, given, "0 asks the origin each time; here an absence without a lifetime is not remembered")


def _one_of(names: Iterable[str], mapping: Mapping[str, Any], problems: list[Problem]) -> tuple[str, Any]:
    """(name, value) of whichever of two names for one thing is there; the first when none is."""
    first, *others = names
    there = [name for name in (first, *others) if name in mapping]
    if len(there) > 1:
        problems.append(Problem(there[1], mapping[there[1]], f"is another name of {there[0]}; leave one of them out"))
    return (there[0], mapping[there[0]]) if there else (first, NOT_GIVEN)


def _seconds(value: Any, old: str, problems: list[Problem]) -> float | None:
    """A duration as the Go library writes it: nanoseconds, or text such as "5m0s"."""
    nanoseconds: float | None = None
    if type(value) is int:
        nanoseconds = value
    elif isinstance(value, str) and value.strip() == "0":
        nanoseconds = 0
    elif isinstance(value, str) and len(value) <= LONGEST_GO_DURATION and _GO_DURATION.fullmatch(value.strip()):
        nanoseconds = sum(float(number) * _GO_UNITS[unit] for number, unit in _GO_PART.findall(value))
    if nanoseconds is None or not 0 <= nanoseconds <= LARGEST_GO_DURATION:
        mend = DURATION_MEND
        if nanoseconds is not None:
            mend = f"must {'not be negative' if nanoseconds < 0 else 'be at most 292 years'}; {DURATION_MEND}"
        problems.append(Problem(old, value, mend))
        return None
    return nanoseconds / 1e9


def _bytes(value: Any) -> int | None:
    try:
        return parse_size(value)
    except ValueError:
        return None
