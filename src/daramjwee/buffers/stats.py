"""What a pool has done and holds: one immutable snapshot.

Invariant: exact when nothing runs; while something runs, counters only grow and `total_puts <= total_gets`. Operations
by size class, by strategy and in all are three sums over the same cells.
Threads: any.
Design: docs/monitoring.md
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from daramjwee.buffers.gate_stats import GateStats
from daramjwee.buffers.latency import LatencyHistogram
from daramjwee.buffers.pressure import NORMAL, PressureLevel
from daramjwee.buffers.strategy import CHUNKED, DIRECT, POOLED, SizeClass, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["AllocationStats", "BufferPoolStats", "ChunkClassStats", "GateStats", "OperationStats", "SizeShare"]

_Row = TypeVar("_Row")

SIZE_CLASSES = tuple(SizeClass)
# In the order in which tallies count them. (ADAPTIVE chooses one of these.)
STRATEGIES = (POOLED, CHUNKED, DIRECT)


class ChunkClassStats(msgspec.Struct, frozen=True):
    """What the chunks of one size have done since the pool was made, and hold now.

    `size`: bytes of a chunk, 0 for all memory that was mapped for one lease. `hits`, `misses`, `puts`: leases served
    from a free chunk, served otherwise, and given back. `active`: on loan; `free`: ready to be leased; `arena_bytes`:
    mapped. `kept`: whether chunks of this size are kept for reuse now (sizes come and go with what is asked for).
    """

    size: int = 0
    hits: int = 0
    misses: int = 0
    puts: int = 0
    active: int = 0
    free: int = 0
    arena_bytes: int = 0
    kept: bool = False

    @property
    def reuse_rate(self) -> float:
        """The share of leases, 0 to 1, that were served from a free chunk."""
        return _share(self.hits, self.hits + self.misses)


class OperationStats(msgspec.Struct, frozen=True):
    """Operations of one `size_class` by one `strategy`: leases taken by callers, copies and tees.

    `count`: all that ended. `bytes`: what copies and tees have moved. `timed`: operations that were timed, which took
    `nanoseconds` together: every copy and tee, and with `enable_detailed_metrics` one lease in 61 of those served at once
    (standing for all 61) and every other. `latency`: their histogram, with `enable_detailed_metrics`; of a copy until its
    end, of a lease until it is had.
    """

    size_class: SizeClass
    strategy: Strategy
    count: int = 0
    bytes: int = 0
    timed: int = 0
    nanoseconds: int = 0
    latency: LatencyHistogram = LatencyHistogram()

    @property
    def mean_ns(self) -> float:
        """The mean latency of those timed, 0 where none was."""
        return _share(self.nanoseconds, self.timed)

    def __add__(self, other: OperationStats) -> OperationStats:
        return OperationStats(
            self.size_class, self.strategy, self.count + other.count, self.bytes + other.bytes,
            self.timed + other.timed, self.nanoseconds + other.nanoseconds, self.latency + other.latency,
        )  # fmt: skip

    def since(self, base: OperationStats) -> OperationStats:
        """The same with its counters taken from `base` on."""
        return OperationStats(
            self.size_class, self.strategy, self.count - base.count, self.bytes - base.bytes,
            self.timed - base.timed, self.nanoseconds - base.nanoseconds, self.latency.since(base.latency),
        )  # fmt: skip


class SizeShare(msgspec.Struct, frozen=True):
    """How much was asked for: about `weight` leases of late were for at most `size` bytes and more than the size before.
    Sampled, the older ones weighing less."""

    size: int
    weight: float


class AllocationStats(msgspec.Struct, frozen=True):
    """What memory cost this process while the pool was at work, whoever caused it: `page_faults` (minor, without a read of
    the disk), `collections` of Python's collector, and with `enable_detailed_metrics` how long they stopped everything,
    `collector_seconds`."""

    page_faults: int = 0
    collections: int = 0
    collector_seconds: float = 0.0

    def since(self, base: AllocationStats) -> AllocationStats:
        """The same with its counters taken from `base` on."""
        return AllocationStats(
            self.page_faults - base.page_faults,
            self.collections - base.collections,
            self.collector_seconds - base.collector_seconds,
        )

    def largest(self, other: AllocationStats) -> AllocationStats:
        """This or `other`, of two pools of one process: both tell of the same process."""
        return AllocationStats(
            max(self.page_faults, other.page_faults),
            max(self.collections, other.collections),
            max(self.collector_seconds, other.collector_seconds),
        )


class BufferPoolStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters since the pool was made or `reset_stats` was called, and what it holds now (not reset).

    `a + b` is the statistics of two pools together, `.report()` a table for people.

    Leases: `total_gets`, `total_puts`: made and given back, those inside of copies included. `pool_hits`: served from a
    free chunk; `pool_misses`: had to map memory or wait. `lost_leases`: garbage collected without release. `overloads`:
    requests that waited in vain. `waits`: requests that stood in line for memory, `wait_seconds` together.

    Operations: a lease that a caller took, a copy, or a tee, that ended. `operations`: counts, bytes and latency for each
    size class and strategy, those that occurred; of these, `small_object_ops` and so on, `pooled_operations` and so on, and `total_operations`
    are sums. `copies`, `copied_bytes`, `moved_chunks`: copies and tees that ended, what they moved, in how many pieces.
    `fallbacks`: copies that the configured strategy could not serve.

    Memory: `maps`: arenas and private mappings made, of `mapped_bytes` together. `refusals`: the system gave no memory.
    `reserve_uses`: copies that had to go through the emergency chunk. `active_buffers`: on loan now. `quarantined`: given
    back while a view of it lives. `arena_bytes`: mapped for the pool, `idle_bytes` of them in free chunks;
    `private_bytes`: mapped for one lease each; `peak_bytes`: the most of both together. `waiting`: requests in line.
    `ledger_held` of `ledger_limit`: bytes charged by all who share the pool's ledger.

    `pressure`: the level now; `system_pressure`: the same without what the ledger asks for; `seconds`: what the counters cover. `sizes`: what was asked for of late. `allocation`: of
    the whole process. `chunks`: one row for each size of chunk, since the pool was made; their sums are the totals of the
    pool. `gate`: large operations under way, waiting and sent away; all zero on a pool without a gate.
    """

    total_gets: int = 0
    total_puts: int = 0
    pool_hits: int = 0
    pool_misses: int = 0
    lost_leases: int = 0
    overloads: int = 0
    waits: int = 0
    wait_seconds: float = 0.0
    copies: int = 0
    copied_bytes: int = 0
    moved_chunks: int = 0
    fallbacks: int = 0
    maps: int = 0
    mapped_bytes: int = 0
    refusals: int = 0
    reserve_uses: int = 0
    active_buffers: int = 0
    quarantined: int = 0
    arena_bytes: int = 0
    idle_bytes: int = 0
    private_bytes: int = 0
    peak_bytes: int = 0
    waiting: int = 0
    ledger_held: int = 0
    ledger_limit: int = 0
    pressure: PressureLevel = NORMAL
    system_pressure: PressureLevel = NORMAL
    seconds: float = 0.0
    operations: tuple[OperationStats, ...] = ()
    sizes: tuple[SizeShare, ...] = ()
    allocation: AllocationStats = AllocationStats()
    chunks: tuple[ChunkClassStats, ...] = ()
    gate: GateStats = GateStats()

    # -- operations --------------------------------------------------------------------------------------

    @property
    def total_operations(self) -> int:
        """Leases taken by callers, copies and tees."""
        return sum(cell.count for cell in self.operations)

    @property
    def small_object_ops(self) -> int:
        """Operations of less than 32 KiB."""
        return self.of(size_class=SizeClass.SMALL).count

    @property
    def medium_object_ops(self) -> int:
        """Operations from 32 KiB to below `large_object_threshold`."""
        return self.of(size_class=SizeClass.MEDIUM).count

    @property
    def large_object_ops(self) -> int:
        """Operations from `large_object_threshold` to below `very_large_object_threshold`."""
        return self.of(size_class=SizeClass.LARGE).count

    @property
    def very_large_object_ops(self) -> int:
        """Operations of `very_large_object_threshold` or more."""
        return self.of(size_class=SizeClass.VERY_LARGE).count

    @property
    def pooled_operations(self) -> int:
        """Operations in one pooled buffer."""
        return self.of(strategy=POOLED).count

    @property
    def chunked_operations(self) -> int:
        """Operations by a loop over one chunk."""
        return self.of(strategy=CHUNKED).count

    @property
    def direct_operations(self) -> int:
        """Operations by the kernel's own copy, or in private memory."""
        return self.of(strategy=DIRECT).count

    def of(self, *, size_class: SizeClass | None = None, strategy: Strategy | None = None) -> Operations:
        """The sum of the operations of one `size_class`, one `strategy`, both, or (None) all. `ValueError` for a name of
        neither."""
        size_class = None if size_class is None else SizeClass(size_class)
        strategy = None if strategy is None else Strategy(strategy)
        return sum_of(
            cell
            for cell in self.operations
            if size_class in (None, cell.size_class) and strategy in (None, cell.strategy)
        )

    @property
    def average_latency_ns(self) -> dict[SizeClass, float]:
        """The mean latency of each size class in nanoseconds, of the operations that were timed; 0 where none was. A
        class may be named by its value: `["large"]`."""
        return {size_class: self.of(size_class=size_class).mean_ns for size_class in SIZE_CLASSES}

    # -- memory ------------------------------------------------------------------------------------------

    @property
    def memory_efficiency(self) -> float:
        """Bytes moved by copies and tees for each byte of memory that was mapped at the peak; 0 when none was."""
        return _share(self.copied_bytes, self.peak_bytes)

    @property
    def reuse_rate(self) -> float:
        """The share of leases, 0 to 1, that were served from a free chunk; 0 when there was none."""
        return _share(self.pool_hits, self.pool_hits + self.pool_misses)

    def per_gib(self, count: float) -> float:
        """`count` for each GiB that copies and tees have moved; 0 when nothing was moved. For what `allocation` counts:
        `stats.per_gib(stats.allocation.page_faults)`."""
        return _share(count * (1 << 30), self.copied_bytes)

    # -- sums, differences, and what people read ---------------------------------------------------------

    def __add__(self, other: BufferPoolStats) -> BufferPoolStats:
        """Both pools together. `peak_bytes` is then a bound, as the peaks may have come at different times; a ledger that
        both share is counted twice; `seconds`, `pressure` and `allocation` are the larger of the two."""
        if not isinstance(other, BufferPoolStats):
            return NotImplemented
        changes: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in SUMS}
        return msgspec.structs.replace(
            self,
            **changes,
            pressure=max(self.pressure, other.pressure),
            system_pressure=max(self.system_pressure, other.system_pressure),
            seconds=max(self.seconds, other.seconds),
            operations=_merged(self.operations, other.operations, _cell_key, OperationStats.__add__),
            sizes=_merged(self.sizes, other.sizes, _size_key, _add_shares),
            allocation=self.allocation.largest(other.allocation),
            chunks=_merged(self.chunks, other.chunks, _size_key, _add_rows),
            gate=self.gate + other.gate,
        )

    def __radd__(self, other: object) -> BufferPoolStats:
        # `sum(pool.stats() for pool in pools)` begins with 0.
        return self if other == 0 else NotImplemented

    def since(self, base: BufferPoolStats) -> BufferPoolStats:
        """The same with its counters taken from `base` on, an earlier snapshot of the same pool. Leases that were out at
        `base` count as made since then, so that puts never exceed gets. What is held now, and the peak, stay."""
        changes: dict[str, Any] = {name: getattr(self, name) - getattr(base, name) for name in COUNTERS}
        changes["total_gets"] += base.active_buffers
        before = {_cell_key(cell): cell for cell in base.operations}
        return msgspec.structs.replace(
            self,
            **changes,
            seconds=self.seconds - base.seconds,
            operations=tuple(
                cell.since(before[key]) if (key := _cell_key(cell)) in before else cell for cell in self.operations
            ),
            allocation=self.allocation.since(base.allocation),
            gate=self.gate.since(base.gate),
        )

    def report(self) -> str:
        """What people want to see, in some lines of text."""
        from daramjwee.buffers.report import report

        return report(self)


class Operations(msgspec.Struct, frozen=True):
    """Operations of several size classes and strategies together. `count`, `bytes`, `timed`, `nanoseconds` and `latency` are
    those of `OperationStats`, added up."""

    count: int
    bytes: int
    timed: int
    nanoseconds: int
    latency: LatencyHistogram

    @property
    def mean_ns(self) -> float:
        """The mean latency of those timed, 0 where none was."""
        return _share(self.nanoseconds, self.timed)


def sum_of(cells: Iterable[OperationStats]) -> Operations:
    """Cells together."""
    count = size = timed = nanoseconds = 0
    latency = LatencyHistogram()
    for cell in cells:
        count += cell.count
        size += cell.bytes
        timed += cell.timed
        nanoseconds += cell.nanoseconds
        latency += cell.latency
    return Operations(count, size, timed, nanoseconds, latency)


# Fields that count events; of the others, those that are sums over pools.
COUNTERS = BufferPoolStats.__struct_fields__[: BufferPoolStats.__struct_fields__.index("active_buffers")]
SUMS = BufferPoolStats.__struct_fields__[: BufferPoolStats.__struct_fields__.index("pressure")]

_cell_key = attrgetter("size_class", "strategy")
_size_key = attrgetter("size")


def _add_rows(one: ChunkClassStats, other: ChunkClassStats) -> ChunkClassStats:
    sums = {
        name: getattr(one, name) + getattr(other, name)
        for name in ("hits", "misses", "puts", "active", "free", "arena_bytes")
    }
    return ChunkClassStats(one.size, **sums, kept=one.kept or other.kept)


def _add_shares(one: SizeShare, other: SizeShare) -> SizeShare:
    return SizeShare(one.size, one.weight + other.weight)


def _merged(
    ours: tuple[_Row, ...], theirs: tuple[_Row, ...], key: Callable[[_Row], Any], add: Callable[[_Row, _Row], _Row]
) -> tuple[_Row, ...]:
    """The rows of both, those with the same key added up, in the order of the first that has them."""
    rows = {key(row): row for row in ours}
    for row in theirs:
        mine = rows.get(key(row))
        rows[key(row)] = row if mine is None else add(mine, row)
    return tuple(rows.values())


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
