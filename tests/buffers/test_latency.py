"""Latency histograms: a known error, sums and differences that are those of what was recorded."""

from __future__ import annotations

import math
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.buffers.latency import (
    BUCKETS,
    MOST_NS,
    STEPS,
    LatencyHistogram,
    LatencyRecorder,
    bucket_bounds,
    bucket_of,
)
from daramjwee.buffers.pool import TIME_EVERY

# Some of each power of two, as real latencies have.
latencies = st.one_of(
    st.integers(0, 3 * STEPS), st.integers(0, 44).map(lambda power: 1 << power), st.integers(0, 1 << 46)
)
series = st.lists(latencies, max_size=60)


def recorded(values):
    recorder = LatencyRecorder()
    for value in values:
        recorder.add(value)
    return recorder.snapshot()


def true_percentile(values, percent):
    """The least value that so many of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def test_buckets_cover_all_latencies_without_a_gap():
    """Each bucket begins where the one before ends, and counts what its bounds say."""
    following = 0
    for bucket in range(BUCKETS):
        low, high = bucket_bounds(bucket)
        assert low == following
        assert low <= high
        assert bucket_of(low) == bucket_of(high) == bucket
        following = high + 1
    assert following == MOST_NS + 1


@given(latencies)
def test_a_bucket_is_at_most_a_sixteenth_wide(nanoseconds):
    """So that its middle is at most 1/32 beside the truth."""
    low, high = bucket_bounds(bucket_of(nanoseconds))
    if nanoseconds <= MOST_NS:
        assert low <= nanoseconds <= high
        assert abs((low + high) / 2 - nanoseconds) <= nanoseconds / 32
    else:
        assert bucket_of(nanoseconds) == BUCKETS - 1


@pytest.mark.parametrize("nanoseconds", [-1, -(10**9)])
def test_less_than_nothing_counts_as_nothing(nanoseconds):
    """A clock that goes back a little makes no odd bucket."""
    histogram = recorded([nanoseconds])
    assert (histogram.buckets, histogram.longest) == (((0, 1),), 0)


def test_years_are_counted_in_the_last_bucket():
    histogram = recorded([1 << 60])
    assert histogram.buckets == ((BUCKETS - 1, 1),)
    assert histogram.longest == 1 << 60


@given(st.lists(st.integers(0, MOST_NS), min_size=1, max_size=60), st.sampled_from([0, 1, 25, 50, 90, 99, 99.9, 100]))
def test_percentiles_are_those_of_the_values_within_the_known_error(values, percent):
    """At most 1/32 off, and never above the longest."""
    histogram = recorded(values)
    truth = true_percentile(values, percent)
    assert abs(histogram.percentile(percent) - truth) <= truth / 32 + 1
    assert histogram.percentile(percent) <= histogram.longest == max(values)
    assert histogram.p50 <= histogram.p90 <= histogram.p99


@given(series, series, series)
def test_sums_are_those_of_all_recorded_together(one, two, three):
    """In whatever order."""
    a, b, c = map(recorded, (one, two, three))
    assert a + b == b + a == recorded(one + two)
    assert (a + b) + c == a + (b + c)
    assert a + LatencyHistogram() == a
    assert (a + b).count == len(one) + len(two)


@given(series, series)
def test_a_difference_is_what_came_in_between(early, late):
    """Its counts exactly; its longest exactly where it is the longest of all, else that of its bucket."""
    recorder = LatencyRecorder()
    for value in early:
        recorder.add(value)
    before = recorder.snapshot()
    for value in late:
        recorder.add(value)
    between = recorder.snapshot().since(before)
    assert between.buckets == recorded(late).buckets
    assert (between + before).buckets == recorder.snapshot().buckets
    longest = max(late, default=0)
    if longest > before.longest:
        assert between.longest == longest
    elif longest <= MOST_NS:
        assert longest <= between.longest <= longest + longest // STEPS
    assert before.since(before) == LatencyHistogram()


@given(st.lists(st.tuples(latencies, st.integers(1, 64)), max_size=30))
def test_a_latency_that_stands_for_several_counts_so_often(weighted):
    """Of leases, one of many is timed, and stands for all."""
    recorder = LatencyRecorder()
    for value, weight in weighted:
        recorder.add(value, weight)
    assert recorder.snapshot() == recorded([value for value, weight in weighted for _ in range(weight)])


@pytest.mark.parametrize("percent", [-0.1, 100.1, math.nan, math.inf])
def test_a_percentile_is_from_0_to_100(percent):
    with pytest.raises(ValueError, match="0 to 100"):
        LatencyHistogram().percentile(percent)


def test_nothing_timed_is_0():
    empty = LatencyHistogram()
    assert (empty.count, empty.p50, empty.p90, empty.p99, empty.percentile(0), empty.longest) == (0, 0, 0, 0, 0, 0)


def test_a_histogram_is_immutable_and_travels_as_json():
    """A snapshot that is sent is the one that is received."""
    histogram = recorded([5, 500, 50_000])
    with pytest.raises(AttributeError):
        histogram.longest = 0
    assert msgspec.json.decode(msgspec.json.encode(histogram), type=LatencyHistogram) == histogram
    assert hash(histogram) == hash(recorded([50_000, 5, 500]))


def test_a_recorder_takes_the_same_memory_whatever_it_counts():
    """656 counters."""
    recorder = LatencyRecorder()
    held = sys.getsizeof(recorder._counts)
    for power in range(50):
        recorder.add(1 << power)
    assert sys.getsizeof(recorder._counts) == held < 6000


def test_a_recorder_may_be_read_while_one_thread_writes():
    """Counts only grow, and no percentile exceeds the longest."""
    recorder = LatencyRecorder()
    stop = threading.Event()
    wrong = []

    def read():
        before = 0
        while not stop.is_set():
            histogram = recorder.snapshot()
            if histogram.count < before or (
                histogram.count and bucket_of(histogram.longest) < histogram.buckets[-1][0]
            ):
                wrong.append(histogram)
            before = histogram.count

    reader = threading.Thread(target=read)
    reader.start()
    for value in range(30_000):
        recorder.add(value)
    stop.set()
    reader.join()
    assert not wrong
    assert recorder.snapshot().count == 30_000


def test_the_page_says_how_many_leases_one_timed_lease_stands_for():
    """docs/monitoring.md, compared with the code; and the known error."""
    page = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text(encoding="utf-8")
    section = page.partition("\n## Latency\n")[2].partition("\n## ")[0]
    assert f"one in {TIME_EVERY} of" in section
    assert f"(it stands for all {TIME_EVERY})" in section
    assert f"{STEPS} steps for each power of two" in section
    assert f"at most 1/{2 * STEPS} " in section
