"""Sizes of chunks: the configured ones, and those learned from what is asked for.

Invariant: the configured sizes are always there; learned ones lie strictly between them, are whole pages and few.
Threads: everything is pure but `SizeHistogram`, which one thread uses at a time.
Design: docs/design/memory.md
"""

from __future__ import annotations

import mmap
from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from daramjwee.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daramjwee.buffers.config import BufferPoolConfig

PAGE_BYTES = mmap.PAGESIZE
PAGE_SHIFT = PAGE_BYTES.bit_length() - 1
# A class's first arena is small and without huge pages: one touched byte of a huge page is 2 MiB resident.
FIRST_ARENA_BYTES = 256 * KIB
# From the second on, one huge page: growing costs 75 us/MiB instead of 780 in small pages (MADV_HUGEPAGE).
ARENA_BYTES = 2 * MIB
# Classes up to this size never need so much that a huge page is worth its 2 MiB.
SMALL_CHUNK_BYTES = 16 * KIB
# The classes within the configured bounds; those bounds and the configured sizes are classes too.
CLASS_SIZES = (4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 512 * KIB, MIB)

# A learned size is a class more that keeps memory idle: only a few may.
MOST_LEARNED = 4
# Nothing is concluded from fewer requests than this, and no size learned that fewer than this asked for.
ENOUGH_REQUESTS = 128.0
POPULAR_REQUESTS = 16.0
# A size is learned when that saves so much of the memory handed out, and kept until it saves less than a quarter of
# that: between the two nothing changes, or a load near the bound would map and unmap for ever.
LEARN_GAIN = 0.05
KEEP_GAIN = 0.0125
# Far more steps than there ever are: each gains at least the difference of the two shares above.
MOST_ROUNDS = 64
# What a histogram forgets: half of everything at each step, and what is left of less than one request.
DECAY = 0.5
FORGOTTEN = 1.0
MOST_SIZES = 256


def page_round(size: int) -> int:
    """The least number of whole pages, in bytes, that holds `size` bytes; at least one page."""
    return max(1, -(-size // PAGE_BYTES)) * PAGE_BYTES


def class_sizes(config: BufferPoolConfig) -> tuple[int, ...]:
    """The configured sizes of chunks of a pool, ascending, whole pages."""
    least, most = config.min_buffer_size, config.max_buffer_size
    sizes = {page_round(size) for size in CLASS_SIZES if least <= size <= most}
    sizes |= {page_round(size) for size in (least, config.default_buffer_size, config.chunk_size or most, most)}
    return tuple(sorted(sizes))


def arena_plans(chunk_bytes: int, arenas: int) -> tuple[int, ...]:
    """How large the next arena of a class should be that has `arenas` already: the best first, then smaller ones for
    when there is no room."""
    plans = [chunk_bytes]
    if chunk_bytes < FIRST_ARENA_BYTES:
        plans.append(FIRST_ARENA_BYTES // chunk_bytes * chunk_bytes)
    if arenas and SMALL_CHUNK_BYTES < chunk_bytes < ARENA_BYTES:
        plans.append(ARENA_BYTES // chunk_bytes * chunk_bytes)
    return tuple(dict.fromkeys(reversed(plans)))


class SizeHistogram:
    """How often which size was asked for, recent requests weighing more. Sizes are rounded up: to pages, and where
    they are large to 1/64 of themselves, so that there are never many."""

    __slots__ = ("weights",)

    def __init__(self) -> None:
        self.weights: dict[int, float] = {}

    def add(self, size: int, weight: float) -> None:
        step = max(PAGE_BYTES, 1 << max(0, size.bit_length() - 7))
        rounded = max(step, -(-size // step) * step)
        self.weights[rounded] = self.weights.get(rounded, 0.0) + weight

    def decay(self) -> None:
        """Forget half of everything, and the least popular sizes beyond `MOST_SIZES`."""
        kept = [(weight * DECAY, size) for size, weight in self.weights.items() if weight * DECAY >= FORGOTTEN]
        kept.sort(reverse=True)
        self.weights = {size: weight for weight, size in kept[:MOST_SIZES]}


def recalibrate(weights: Mapping[int, float], sizes: tuple[int, ...], config: BufferPoolConfig) -> tuple[int, ...]:
    """The sizes a pool with `sizes` should have, given how often each size was asked for. Pure.

    Given twice the same, it changes nothing the second time. Sizes no longer allowed by `config` are dropped.
    """
    return _Calibration(weights, class_sizes(config)).run(sizes)


class _Calibration:
    """One recalibration: what was asked for, summed up, and the gains of classes."""

    def __init__(self, weights: Mapping[int, float], configured: tuple[int, ...]) -> None:
        self.configured = configured
        top = configured[-1]
        popular = sorted((size, weight) for size, weight in weights.items() if 0 < size <= top)
        self.asked = [size for size, _ in popular]
        self.sums = [0.0, *accumulate(weight for _, weight in popular)]
        # What would have been handed out without any learned size: all gains are shares of it. It does not depend on
        # the sizes at hand, so each step below gains for good, and they come to an end.
        self.handed = sum(weight * configured[bisect_left(configured, size)] for size, weight in popular)

    def run(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        learned = {size for size in sizes if self._learnable(size)}
        for _ in range(MOST_ROUNDS):
            self._drop(learned)
            if self.sums[-1] < ENOUGH_REQUESTS or not self._learn(learned):
                break
        return tuple(sorted(learned.union(self.configured)))

    def _learnable(self, size: int) -> bool:
        inside = self.configured[0] < size < self.configured[-1]
        return inside and size % PAGE_BYTES == 0 and size not in self.configured

    def _drop(self, learned: set[int]) -> None:
        """Drop, one after another, what is not worth keeping; the least first."""
        enough = self.sums[-1] >= ENOUGH_REQUESTS
        while learned:
            gains = [(*self._gain(learned, size), size) for size in learned]
            poor = [g for g in gains if g[1] < FORGOTTEN or (enough and g[0] < KEEP_GAIN * self.handed)]
            if not poor and len(learned) <= MOST_LEARNED:
                break
            learned.remove(min(poor or gains)[2])

    def _learn(self, learned: set[int]) -> bool:
        """Learn the size that gains most, in place of the least where there are many already; whether one did."""
        replaced: set[int] = set()
        lost = 0.0
        if len(learned) >= MOST_LEARNED:
            lost, least = min((self._gain(learned, size)[0], size) for size in learned)
            replaced = {least}
        rest = learned - replaced
        known = rest | replaced
        candidates = (size for size in self.asked if self._learnable(size) and size not in known)
        best = max(((*self._gain(rest, size), size) for size in candidates), default=None)
        if best is None or best[1] < POPULAR_REQUESTS or best[0] - lost < LEARN_GAIN * self.handed:
            return False
        learned -= replaced
        learned.add(best[2])
        return True

    def _gain(self, learned: set[int], size: int) -> tuple[float, float]:
        """The bytes that `size` saves beside the configured and the other `learned` sizes, and how many it serves."""
        others = sorted((learned - {size}).union(self.configured))
        at = bisect_left(others, size)
        if at == len(others):
            return 0.0, 0.0
        below = others[at - 1] if at else 0
        count = self.sums[bisect_right(self.asked, size)] - self.sums[bisect_right(self.asked, below)]
        return count * (others[at] - size), count
