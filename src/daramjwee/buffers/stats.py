"""What a pool has done and holds: one immutable snapshot.

Invariant: exact when nothing runs; while something runs, counters only grow and `total_puts <= total_gets`.
Threads: any.
Design: docs/design/memory.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from daramjwee.buffers.gate_stats import GateStats
from daramjwee.buffers.strategy import CHUNKED, POOLED

if TYPE_CHECKING:
    from daramjwee.buffers.holdings import Counts
    from daramjwee.buffers.strategy import Strategy


class ChunkClassStats(NamedTuple):
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


class BufferPoolStats(NamedTuple):
    """Counters since the pool was made or `reset_stats` was called, and what it holds now (not reset).

    `total_gets`, `total_puts`: leases made and given back. `pool_hits`: served from a free chunk; `pool_misses`:
    had to map memory or wait. `lost_leases`: garbage collected without release. `overloads`: requests that waited
    in vain. `copies`, `copied_bytes` and `..._operations`: copies that ended, by strategy. `fallbacks`: copies that
    the configured strategy could not serve.

    `active_buffers`: on loan now. `quarantined`: given back while a view of it lives. `arena_bytes`: mapped for
    the pool, `private_bytes`: mapped for one lease each, `peak_bytes`: the most of both together. `waiting`:
    requests in line. `chunks`: the same for each size of chunk, since the pool was made; their sums are the totals of
    the pool, and `arena_bytes` and `private_bytes` together. `gate`: large operations under way, waiting and sent away;
    all zero on a pool without a gate.
    """

    total_gets: int = 0
    total_puts: int = 0
    pool_hits: int = 0
    pool_misses: int = 0
    lost_leases: int = 0
    overloads: int = 0
    copies: int = 0
    copied_bytes: int = 0
    pooled_operations: int = 0
    chunked_operations: int = 0
    direct_operations: int = 0
    fallbacks: int = 0
    active_buffers: int = 0
    quarantined: int = 0
    arena_bytes: int = 0
    private_bytes: int = 0
    peak_bytes: int = 0
    waiting: int = 0
    chunks: tuple[ChunkClassStats, ...] = ()
    gate: GateStats = GateStats()

    @property
    def memory_efficiency(self) -> float:
        """Bytes copied for each byte of memory that was mapped at the peak; 0 when nothing was mapped."""
        return self.copied_bytes / self.peak_bytes if self.peak_bytes else 0.0


# Fields that count events; the others say what is held now.
COUNTERS = BufferPoolStats._fields[:12]


class CopyTally:
    """What the copies of one pool add up to. Written with the pool's tally lock held."""

    __slots__ = ("bytes", "chunked", "direct", "fallbacks", "pooled")

    def __init__(self) -> None:
        self.bytes = self.pooled = self.chunked = self.direct = self.fallbacks = 0

    def add(self, strategy: Strategy, count: int) -> None:
        self.bytes += count
        if strategy is POOLED:
            self.pooled += 1
        elif strategy is CHUNKED:
            self.chunked += 1
        else:
            self.direct += 1


def snapshot(counts: Counts, tally: CopyTally) -> BufferPoolStats:
    """The statistics since the pool was made."""
    gets = counts.hits + counts.misses
    return BufferPoolStats(
        total_gets=gets,
        total_puts=counts.puts,
        pool_hits=counts.hits,
        pool_misses=counts.misses,
        lost_leases=counts.lost,
        overloads=counts.overloads,
        copies=tally.pooled + tally.chunked + tally.direct,
        copied_bytes=tally.bytes,
        pooled_operations=tally.pooled,
        chunked_operations=tally.chunked,
        direct_operations=tally.direct,
        fallbacks=tally.fallbacks,
        active_buffers=gets - counts.puts,
        quarantined=counts.suspects,
        arena_bytes=counts.mapped,
        private_bytes=counts.private,
        peak_bytes=counts.peak,
        waiting=counts.waiting,
        chunks=counts.chunks,
    )


def since(now: BufferPoolStats, base: BufferPoolStats) -> BufferPoolStats:
    """`now` with its counters taken from `base` on. Leases that were out at `base` count as made since then, so
    that puts never exceed gets."""
    changes = {name: getattr(now, name) - getattr(base, name) for name in COUNTERS}
    changes["total_gets"] += base.active_buffers
    return now._replace(**changes, gate=now.gate.since(base.gate))
