"""Latencies as log-linear histograms: mergeable, of bounded size, with a known error.

Source of the form: HdrHistogram (Gil Tene), here with 16 linear steps for each power of two, so that a percentile is
at most 1/32 (3.2 %) beside the truth.
Invariant: the sum of two histograms is the histogram of both together; a histogram less an earlier one of the same
recorder is that of what came between.
Threads: `LatencyHistogram` is immutable; a `LatencyRecorder` is written by one thread at a time, and may be read meanwhile.
Design: docs/monitoring.md
"""

from __future__ import annotations

import msgspec

# Steps for each power of two: 2 ** SUB_BITS.
SUB_BITS = 4
STEPS = 1 << SUB_BITS
# Longer ones are counted in the last bucket: 2 ** 44 ns are 4.9 hours.
MOST_BITS = 44
BUCKETS = (MOST_BITS - SUB_BITS + 1) * STEPS
MOST_NS = (1 << MOST_BITS) - 1


def bucket_of(nanoseconds: int) -> int:
    """The bucket that counts a latency."""
    if nanoseconds < STEPS:
        return max(nanoseconds, 0)
    if nanoseconds > MOST_NS:
        return BUCKETS - 1
    shift = nanoseconds.bit_length() - SUB_BITS - 1
    return (shift << SUB_BITS) + (nanoseconds >> shift)


def bucket_bounds(bucket: int) -> tuple[int, int]:
    """The least and the largest latency that a bucket counts, in nanoseconds."""
    if bucket < STEPS:
        return bucket, bucket
    shift = (bucket >> SUB_BITS) - 1
    low = (bucket - (shift << SUB_BITS)) << shift
    return low, low + (1 << shift) - 1


class LatencyHistogram(msgspec.Struct, frozen=True):
    """How long operations took, in nanoseconds. `buckets`: (bucket, count) of every bucket that is not empty, in order;
    `longest`: the longest of all. `h.percentile(99)`, `h.p50`, `h.p90`, `h.p99` are 0 when nothing was timed."""

    buckets: tuple[tuple[int, int], ...] = ()
    longest: int = 0

    @property
    def count(self) -> int:
        return sum(count for _, count in self.buckets)

    @property
    def p50(self) -> int:
        return self.percentile(50)

    @property
    def p90(self) -> int:
        return self.percentile(90)

    @property
    def p99(self) -> int:
        return self.percentile(99)

    def percentile(self, percent: float) -> int:
        """The latency in nanoseconds that `percent` (0 to 100, else `ValueError`) of the operations did not exceed, at most
        3.2 % off."""
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentile is from 0 to 100, not {percent}")
        wanted = self.count * percent / 100
        seen = 0
        for bucket, count in self.buckets:
            seen += count
            if seen >= wanted:
                low, high = bucket_bounds(bucket)
                return min((low + high) // 2, self.longest)
        return 0

    def __add__(self, other: LatencyHistogram) -> LatencyHistogram:
        if not isinstance(other, LatencyHistogram):
            return NotImplemented
        counts = dict(self.buckets)
        for bucket, count in other.buckets:
            counts[bucket] = counts.get(bucket, 0) + count
        return LatencyHistogram(tuple(sorted(counts.items())), max(self.longest, other.longest))

    def since(self, base: LatencyHistogram) -> LatencyHistogram:
        """What came after `base`, an earlier snapshot of the same. Its `longest` is exact where it is longer than all
        before, else that of its bucket."""
        before = dict(base.buckets)
        buckets = tuple((bucket, more) for bucket, count in self.buckets if (more := count - before.get(bucket, 0)) > 0)
        longest = self.longest
        if not buckets:
            longest = 0
        elif longest == base.longest:
            longest = min(longest, bucket_bounds(buckets[-1][0])[1])
        return LatencyHistogram(buckets, longest)


class LatencyRecorder:
    """Counts latencies for one writer."""

    __slots__ = ("_counts", "longest")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self.longest = 0

    def add(self, nanoseconds: int, weight: int = 1) -> None:
        """Count a latency, which stands for `weight` operations."""
        if nanoseconds > self.longest:
            self.longest = nanoseconds
        if nanoseconds < STEPS or nanoseconds > MOST_NS:
            self._counts[bucket_of(nanoseconds)] += weight
            return
        shift = nanoseconds.bit_length() - SUB_BITS - 1  # as in bucket_of, without the call
        self._counts[(shift << SUB_BITS) + (nanoseconds >> shift)] += weight

    def snapshot(self) -> LatencyHistogram:
        buckets = tuple((bucket, count) for bucket, count in enumerate(self._counts) if count)
        return LatencyHistogram(buckets, self.longest)
