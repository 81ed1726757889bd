"""Metrics: every figure of a pool by its name, with its unit and what it says, for trends, alerts and docs.

Invariant: a metric is read from two snapshots of one pool and from nothing else; where nothing happened that it could be
taken from (a share of no leases, a latency of no operations) it is nan, never a made-up 0.
Pure: values in, values out.
Design: docs/monitoring.md
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from daramjwee.buffers.stats import SIZE_CLASSES, BufferPoolStats, sum_of
from daramjwee.errors import Problem
from daramjwee.units import GIB, format_duration, format_size

if TYPE_CHECKING:
    from daramjwee.buffers.stats import Operations
    from daramjwee.buffers.strategy import SizeClass

Read: TypeAlias = Callable[[BufferPoolStats, BufferPoolStats], float]
Unit: TypeAlias = Literal[
    "count", "bytes", "seconds", "nanoseconds", "share", "level", "count/s", "bytes/s", "count/GiB", "bytes/byte"
]
# GAUGE: how it is now. COUNTER: what was added between the two looks. INTERVAL: made of what was added between them.
Kind: TypeAlias = Literal["gauge", "counter", "interval"]

NOTHING = math.nan


class Metric(NamedTuple):
    """One figure. `read(now, before)`: its value from two snapshots of one pool, the later one first; nan where there is
    nothing to say."""

    unit: Unit
    description: str
    read: Read
    kind: Kind


def _gauge(field: str) -> Read:
    get = attrgetter(field)

    def read(now: BufferPoolStats, _before: BufferPoolStats) -> float:
        return float(get(now))

    return read


def _added(field: str) -> Read:
    get = attrgetter(field)

    def read(now: BufferPoolStats, before: BufferPoolStats) -> float:
        # Less than before: the counters were set back in between, and what went before that is not known.
        return float(max(0, get(now) - get(before)))

    return read


def _share(part: Read, whole: Read, scale: float = 1.0) -> Read:
    def read(now: BufferPoolStats, before: BufferPoolStats) -> float:
        of = whole(now, before)
        return part(now, before) / of * scale if of else NOTHING

    return read


def _per_second(field: str) -> Read:
    """What was added of `field` in a second; 0 where no time has passed."""
    part, whole = _added(field), _added("seconds")

    def read(now: BufferPoolStats, before: BufferPoolStats) -> float:
        seconds = whole(now, before)
        return part(now, before) / seconds if seconds else 0.0

    return read


def _per_gib(field: str) -> Read:
    return _share(_added(field), _added("copied_bytes"), GIB)


def _leases(now: BufferPoolStats, before: BufferPoolStats) -> float:
    return _added("pool_hits")(now, before) + _added("pool_misses")(now, before)


def _mapped(now: BufferPoolStats, _before: BufferPoolStats) -> float:
    return float(now.arena_bytes + now.private_bytes)


def operations_between(
    now: BufferPoolStats, before: BufferPoolStats, size_class: SizeClass | None = None
) -> Operations:
    """The operations that ended between two snapshots, of one size class or (None) all."""
    earlier = {(cell.size_class, cell.strategy): cell for cell in before.operations}
    cells = []
    for cell in now.operations:
        if size_class in (None, cell.size_class):
            base = earlier.get((cell.size_class, cell.strategy))
            cells.append(cell if base is None or base.count > cell.count else cell.since(base))
    return sum_of(cells)


def _mean_latency(size_class: SizeClass | None) -> Read:
    def read(now: BufferPoolStats, before: BufferPoolStats) -> float:
        of = operations_between(now, before, size_class)
        return of.nanoseconds / of.timed if of.timed else NOTHING

    return read


def _percentile(size_class: SizeClass | None, percent: float) -> Read:
    def read(now: BufferPoolStats, before: BufferPoolStats) -> float:
        latency = operations_between(now, before, size_class).latency
        return float(latency.percentile(percent)) if latency.count else NOTHING

    return read


# (name, unit, description, as said in the snapshot if that is elsewhere). A share, rate or latency comes further down.
_COUNTERS: tuple[tuple[str, Unit, str, str], ...] = (
    ("total_gets", "count", "leases made, those inside of copies included", ""),
    ("total_puts", "count", "leases given back", ""),
    ("pool_hits", "count", "leases served from a free chunk", ""),
    ("pool_misses", "count", "leases that had to map memory or wait", ""),
    ("lost_leases", "count", "leases garbage collected without release", ""),
    ("overloads", "count", "requests for memory that waited in vain", ""),
    ("waits", "count", "requests that stood in line for memory", ""),
    ("wait_seconds", "seconds", "time they stood there, together", ""),
    ("copies", "count", "copies and tees that ended", ""),
    ("copied_bytes", "bytes", "what copies and tees moved", ""),
    ("moved_chunks", "count", "pieces they moved it in", ""),
    ("fallbacks", "count", "copies that the configured strategy could not serve", ""),
    ("maps", "count", "arenas and private mappings made", ""),
    ("mapped_bytes", "bytes", "their size, together", ""),
    ("refusals", "count", "times the system gave no memory", ""),
    ("reserve_uses", "count", "copies that had to go through the emergency chunk", ""),
    ("total_operations", "count", "leases taken by callers, copies and tees, that ended", ""),
    ("small_object_ops", "count", "operations of less than 32 KiB", ""),
    ("medium_object_ops", "count", "operations from there to below `large_object_threshold`", ""),
    ("large_object_ops", "count", "operations from there to below `very_large_object_threshold`", ""),
    ("very_large_object_ops", "count", "operations from there on", ""),
    ("pooled_operations", "count", "operations in one pooled buffer", ""),
    ("chunked_operations", "count", "operations by a loop over one chunk", ""),
    ("direct_operations", "count", "operations by the kernel's own copy, or in private memory", ""),
    ("page_faults", "count", "minor page faults of the process", "allocation.page_faults"),
    ("collections", "count", "runs of Python's collector in the process", "allocation.collections"),
    ("collector_seconds", "seconds", "how long they stopped everything (detailed metrics)", "allocation.collector_seconds"),
    ("gate_entered", "count", "large operations that got a place", "gate.entered"),
    ("gate_waited", "count", "those of them that stood in line", "gate.waited"),
    ("gate_refused", "count", "large operations sent away: the line was full", "gate.refused"),
    ("gate_timed_out", "count", "large operations that waited in vain", "gate.timed_out"),
    ("gate_cancelled", "count", "waits given up by a cancelled task or an interrupt", "gate.cancelled"),
    ("gate_lost", "count", "places garbage collected without release", "gate.lost"),
    ("gate_wait_seconds", "seconds", "time in line of those that got a place, together", "gate.wait_seconds"),
)  # fmt: skip
_GAUGES: tuple[tuple[str, Unit, str, str], ...] = (
    ("active_buffers", "count", "leases that are out", ""),
    ("quarantined", "count", "chunks given back while a view of them lives", ""),
    ("arena_bytes", "bytes", "memory mapped for the pool", ""),
    ("idle_bytes", "bytes", "of that, in free chunks", ""),
    ("private_bytes", "bytes", "memory mapped for one lease each", ""),
    ("peak_bytes", "bytes", "the most of arenas and private memory together", ""),
    ("waiting", "count", "requests in line for memory", ""),
    ("ledger_held", "bytes", "charged by all who share the pool's ledger", ""),
    ("ledger_limit", "bytes", "the ledger's bound", ""),
    ("pressure", "level", "memory pressure: 0 NORMAL, 1 ELEVATED, 2 HIGH, 3 CRITICAL", ""),
    ("system_pressure", "level", "the same without what the ledger asks for", ""),
    ("seconds", "seconds", "what the counters cover", ""),
    ("gate_active", "count", "large operations under way", "gate.active"),
    ("gate_active_bytes", "bytes", "memory reserved for them", "gate.active_bytes"),
    ("gate_waiting", "count", "large operations in line", "gate.waiting"),
    ("gate_waiting_high", "count", "of those, of high priority", "gate.waiting_high"),
    ("gate_waiting_normal", "count", "of normal priority", "gate.waiting_normal"),
    ("gate_waiting_low", "count", "of low priority", "gate.waiting_low"),
    ("gate_longest_wait", "seconds", "the longest wait for a place, ever", "gate.longest_wait"),
)  # fmt: skip
_INTERVALS: tuple[tuple[str, Unit, str, Read], ...] = (
    ("reuse_rate", "share", "leases served from a free chunk", _share(_added("pool_hits"), _leases)),
    (
        "memory_efficiency", "bytes/byte", "bytes moved for each byte of memory mapped at the peak",
        _share(_added("copied_bytes"), _gauge("peak_bytes")),
    ),
    (
        "ledger_share", "share", "of the ledger's bound, what is charged",
        _share(_gauge("ledger_held"), _gauge("ledger_limit")),
    ),
    ("pool_share", "share", "of the ledger's bound, what this pool has mapped", _share(_mapped, _gauge("ledger_limit"))),
    ("idle_share", "share", "of the pool's arenas, what is free", _share(_gauge("idle_bytes"), _gauge("arena_bytes"))),
    ("mean_wait_seconds", "seconds", "mean wait for memory of those that waited", _share(_added("wait_seconds"), _added("waits"))),
    (
        "gate_mean_wait_seconds", "seconds", "mean wait for a place of those that waited and got one",
        _share(_added("gate.wait_seconds"), _added("gate.waited")),
    ),
    ("operations_per_second", "count/s", "operations that ended", _per_second("total_operations")),
    ("leases_per_second", "count/s", "leases made, those inside of copies included", _per_second("total_gets")),
    ("copied_bytes_per_second", "bytes/s", "what copies and tees moved", _per_second("copied_bytes")),
    (
        "page_faults_per_gib", "count/GiB", "minor page faults for each GiB moved",
        _per_gib("allocation.page_faults"),
    ),
    (
        "collections_per_gib", "count/GiB", "runs of Python's collector for each GiB moved",
        _per_gib("allocation.collections"),
    ),
    (
        "collector_share", "share", "of all time, what the collector stopped everything for (detailed metrics)",
        _per_second("allocation.collector_seconds"),
    ),
)  # fmt: skip
_PERCENTILES = (50, 90, 99)


def _latencies() -> dict[str, Metric]:
    made = {}
    for size_class in (None, *SIZE_CLASSES):
        end = "" if size_class is None else f".{size_class.value}"
        of = "" if size_class is None else f" {size_class.value.replace('_', ' ')}"
        made[f"average_latency_ns{end}"] = Metric(
            "nanoseconds", f"mean latency of{of} operations that were timed", _mean_latency(size_class), "interval"
        )
        for percent in _PERCENTILES:
            made[f"p{percent}_latency_ns{end}"] = Metric(
                "nanoseconds",
                f"latency that {percent} % of{of} operations did not exceed (detailed metrics)",
                _percentile(size_class, percent),
                "interval",
            )
    return made


METRICS: Mapping[str, Metric] = MappingProxyType(
    {name: Metric(unit, what, _added(path or name), "counter") for name, unit, what, path in _COUNTERS}
    | {name: Metric(unit, what, _gauge(path or name), "gauge") for name, unit, what, path in _GAUGES}
    | {name: Metric(unit, what, read, "interval") for name, unit, what, read in _INTERVALS}
    | _latencies()
)


def unknown_metric(name: object, field: str = "metric") -> Problem | None:
    """What is wrong with a metric's name; None when there is one of that name."""
    if isinstance(name, str) and name in METRICS:
        return None
    near = _near(name) if isinstance(name, str) and name else []
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return Problem(field, name, f"is no metric; {meant}the metrics are {', '.join(sorted(METRICS))}")


def _near(name: str) -> list[str]:
    """Names that may have been meant: those alike, else those that have it in them."""
    from difflib import get_close_matches  # for a message only

    return get_close_matches(name, METRICS, n=3) or [known for known in METRICS if name in known][:3]


def start_of(stats: BufferPoolStats) -> BufferPoolStats:
    """The snapshot before the first one: nothing had happened in the pool, while its process had a past."""
    return BufferPoolStats(allocation=stats.allocation)


def format_ns(nanoseconds: float) -> str:
    """`nanoseconds` for people: "850ns", "12.3us", "4.56ms", "1.50s"."""
    if nanoseconds < 1e3:
        return f"{nanoseconds:.0f}ns"
    if nanoseconds < 1e6:
        return f"{nanoseconds / 1e3:.3g}us" if nanoseconds < 999.5e3 else "1ms"
    if nanoseconds < 1e9:
        return f"{nanoseconds / 1e6:.3g}ms" if nanoseconds < 999.5e6 else "1s"
    return format_duration(nanoseconds / 1e9)


def format_metric(name: str, value: float) -> str:
    """The value of a metric for people, in its unit."""
    unit = METRICS[name].unit
    if unit == "level":
        return f"{value:g}"
    if unit in ("bytes", "bytes/s"):
        return format_size(value) + unit.removeprefix("bytes")
    if unit == "seconds":
        return format_ns(value * 1e9)
    if unit == "nanoseconds":
        return format_ns(value)
    if unit == "share":
        return f"{value * 100:.3g} %"
    number = f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
    return number if unit == "bytes/byte" else number + unit.removeprefix("count")
