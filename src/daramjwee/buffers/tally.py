"""Tallies: what copies, tees and timed leases add up to, counted without a lock.

Invariant: a tally is written by whoever has taken it from the free ones, and by nobody else; none is ever forgotten, so
the sum of all is exact when nothing runs and only grows while something does.
Threads: any.
Design: docs/monitoring.md
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.buffers.latency import LatencyHistogram, LatencyRecorder
from daramjwee.buffers.stats import SIZE_CLASSES, STRATEGIES, BufferPoolStats, OperationStats
from daramjwee.buffers.strategy import CHUNKED, POOLED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daramjwee.buffers.holdings import Counts
    from daramjwee.buffers.strategy import Strategy

CELLS = len(SIZE_CLASSES) * len(STRATEGIES)


class Tallied(NamedTuple):
    """What a pool's tallies add up to. `copies`: and tees."""

    cells: tuple[OperationStats, ...]
    copies: int
    chunks: int
    fallbacks: int
    reserve_uses: int


class Tally:
    """Counts by cell: `rank * 3 +` the place of the strategy."""

    __slots__ = ("bytes", "chunks", "counts", "fallbacks", "latencies", "nanoseconds", "reserve_uses", "timed")

    def __init__(self) -> None:
        self.counts = [0] * CELLS
        self.bytes = [0] * CELLS
        self.timed = [0] * CELLS
        self.nanoseconds = [0] * CELLS
        self.latencies: list[LatencyRecorder | None] = [None] * CELLS
        self.chunks = 0
        self.fallbacks = 0
        self.reserve_uses = 0

    def time(self, cell: int, nanoseconds: int, weight: int) -> None:
        """Note a latency, which stands for `weight` operations."""
        recorder = self.latencies[cell]
        if recorder is None:
            recorder = self.latencies[cell] = LatencyRecorder()
        recorder.add(nanoseconds, weight)


class Tallies:
    """All tallies of one pool. `detailed`: latencies are kept as histograms, too."""

    def __init__(self) -> None:
        self.detailed = False
        self._free: deque[Tally] = deque()
        self._all: list[Tally] = []

    def _take(self) -> Tally:
        try:
            return self._free.pop()
        except IndexError:
            tally = Tally()
            self._all.append(tally)
            return tally

    def count(
        self, done: int, chunks: int, strategy: Strategy, bounds: tuple[int, ...], nanoseconds: int, *, fallback: bool
    ) -> None:
        """Count a copy that ended, after `done` bytes."""
        cell = bisect_right(bounds, done) * 3
        if strategy is not POOLED:
            cell += 1 if strategy is CHUNKED else 2
        try:
            tally = self._free.pop()
        except IndexError:
            tally = self._take()
        tally.counts[cell] += 1
        tally.bytes[cell] += done
        tally.nanoseconds[cell] += nanoseconds
        tally.chunks += chunks
        if fallback:
            tally.fallbacks += 1
        if self.detailed:
            tally.time(cell, nanoseconds, 1)
        self._free.append(tally)

    def count_reserve_use(self) -> None:
        """Count a copy, or a read of a tee, that goes through the reserve."""
        tally = self._take()
        tally.reserve_uses += 1
        self._free.append(tally)

    def count_tee(
        self, given: int, chunks: int, bounds: tuple[int, ...], seconds: float, *, fallback: bool = False
    ) -> None:
        """Count a tee that ended."""
        cell = bisect_right(bounds, given) * 3 + 1
        nanoseconds = int(seconds * 1e9)
        tally = self._take()
        tally.counts[cell] += 1
        tally.bytes[cell] += given
        tally.nanoseconds[cell] += nanoseconds
        tally.chunks += chunks
        if fallback:
            tally.fallbacks += 1
        if self.detailed:
            tally.time(cell, nanoseconds, 1)
        self._free.append(tally)

    def time_lease(self, rank: int, *, direct: bool, nanoseconds: int, weight: int) -> None:
        """Note how long it took to get a lease, which stands for `weight` leases."""
        cell = rank * 3 + 2 * direct
        tally = self._take()
        tally.timed[cell] += weight
        tally.nanoseconds[cell] += nanoseconds * weight
        tally.time(cell, nanoseconds, weight)
        self._free.append(tally)

    def snapshot(self, pooled: Sequence[int], direct: Sequence[int]) -> Tallied:
        """All together, with the leases that were taken in pooled and in private memory, by rank."""
        tallies = tuple(self._all)
        cells = []
        copies = 0
        for at in range(CELLS):
            rank, way = divmod(at, 3)
            count = sum(tally.counts[at] for tally in tallies)
            copies += count
            latency = LatencyHistogram()
            for tally in tallies:
                recorder = tally.latencies[at]
                if recorder is not None:
                    latency += recorder.snapshot()
            leases = (pooled[rank], 0, direct[rank])[way]
            if count or leases:
                timed = count + sum(tally.timed[at] for tally in tallies)
                nanoseconds = sum(tally.nanoseconds[at] for tally in tallies)
                moved = sum(tally.bytes[at] for tally in tallies)
                kinds = SIZE_CLASSES[rank], STRATEGIES[way]
                cells.append(OperationStats(*kinds, count + leases, moved, timed, nanoseconds, latency))
        chunks = sum(tally.chunks for tally in tallies)
        fallbacks = sum(tally.fallbacks for tally in tallies)
        return Tallied(tuple(cells), copies, chunks, fallbacks, sum(tally.reserve_uses for tally in tallies))


def stats_of(counts: Counts, tallies: Tallies, **now: Any) -> BufferPoolStats:
    """The statistics of a pool since it was made, from what its memory and its tallies have counted. `now`: fields that
    neither of them knows."""
    tallied = tallies.snapshot(counts.pooled, counts.direct)
    gets = counts.hits + counts.misses
    return BufferPoolStats(
        total_gets=gets,
        total_puts=counts.puts,
        pool_hits=counts.hits,
        pool_misses=counts.misses,
        lost_leases=counts.lost,
        overloads=counts.overloads,
        waits=counts.waits,
        wait_seconds=counts.wait_seconds,
        copies=tallied.copies,
        copied_bytes=sum(cell.bytes for cell in tallied.cells),
        moved_chunks=tallied.chunks,
        fallbacks=tallied.fallbacks,
        reserve_uses=tallied.reserve_uses,
        maps=counts.maps,
        mapped_bytes=counts.mapped_in_all,
        refusals=counts.refusals,
        active_buffers=gets - counts.puts,
        quarantined=counts.suspects,
        arena_bytes=counts.mapped,
        idle_bytes=counts.idle,
        private_bytes=counts.private,
        peak_bytes=counts.peak,
        waiting=counts.waiting,
        operations=tallied.cells,
        chunks=counts.chunks,
        **now,
    )
