"""Statistics: sums of pools, differences of snapshots, and the sums over operations."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.buffers import BufferPoolStats, ChunkClassStats, GateStats, SizeClass, Strategy
from daramjwee.buffers.latency import LatencyHistogram, LatencyRecorder
from daramjwee.buffers.pressure import PressureLevel
from daramjwee.buffers.stats import (
    COUNTERS,
    SIZE_CLASSES,
    STRATEGIES,
    SUMS,
    AllocationStats,
    OperationStats,
    SizeShare,
    sum_of,
)

counts = st.integers(0, 10**12)
# Binary fractions, so that a sum is the same in any order.
seconds = st.integers(0, 10**9).map(lambda eighths: eighths / 8)


@st.composite
def histograms(draw):
    recorder = LatencyRecorder()
    for value in draw(st.lists(st.integers(0, 10**9), max_size=5)):
        recorder.add(value)
    return recorder.snapshot()


def cells():
    kinds = [(size_class, strategy) for size_class in SIZE_CLASSES for strategy in STRATEGIES]
    cell = st.tuples(counts, counts, counts, counts, histograms())
    return st.dictionaries(st.sampled_from(kinds), cell, max_size=5).map(
        lambda rows: tuple(OperationStats(*kind, *row) for kind, row in rows.items())
    )


def rows(kind, *fields):
    return st.dictionaries(counts, st.tuples(*fields), max_size=3).map(
        lambda found: tuple(kind(size, *values) for size, values in found.items())
    )


def drawn(kind, **others):
    """Any snapshot, field by field after what the field's default is."""
    fields = {}
    for name, default in zip(kind.__struct_fields__, kind.__struct_defaults__, strict=True):
        fields[name] = others.get(name, counts if type(default) is int else seconds)
    return st.builds(kind, **fields)


snapshots = drawn(
    BufferPoolStats,
    pressure=st.sampled_from(list(PressureLevel)),
    system_pressure=st.sampled_from(list(PressureLevel)),
    operations=cells(),
    sizes=rows(SizeShare, seconds),
    allocation=drawn(AllocationStats),
    chunks=rows(ChunkClassStats, *[counts] * 6, st.booleans()),
    gate=drawn(GateStats),
)


def in_order(stats):
    """The same with its rows in a fixed order: that of a sum is that of the first who has them."""
    return msgspec.structs.replace(
        stats,
        operations=tuple(sorted(stats.operations, key=lambda cell: (cell.size_class, cell.strategy))),
        sizes=tuple(sorted(stats.sizes, key=lambda row: row.size)),
        chunks=tuple(sorted(stats.chunks, key=lambda row: row.size)),
    )


@given(snapshots, snapshots)
def test_two_pools_together_are_the_same_in_either_order(one, two):
    """Sums of all that counts, the larger of what is of the process or of time."""
    both = one + two
    assert in_order(both) == in_order(two + one)
    for name in SUMS:
        assert getattr(both, name) == getattr(one, name) + getattr(two, name), name
    assert both.pressure == max(one.pressure, two.pressure)
    assert both.seconds == max(one.seconds, two.seconds)
    assert both.total_operations == one.total_operations + two.total_operations
    assert both.allocation.page_faults == max(one.allocation.page_faults, two.allocation.page_faults)
    assert both.gate.entered == one.gate.entered + two.gate.entered
    assert both.gate.longest_wait == max(one.gate.longest_wait, two.gate.longest_wait)


@given(snapshots, snapshots, snapshots)
def test_three_pools_together_are_the_same_however_paired(one, two, three):
    assert (one + two) + three == one + (two + three)


@given(snapshots)
def test_a_pool_that_did_nothing_adds_nothing(stats):
    assert stats + BufferPoolStats() == stats
    assert in_order(BufferPoolStats() + stats) == in_order(stats)


@given(snapshots)
def test_since_itself_every_counter_is_zero(stats):
    """What is held stays; leases that are out count as made, so that puts never exceed gets."""
    none = stats.since(stats)
    for name in COUNTERS:
        assert getattr(none, name) == (stats.active_buffers if name == "total_gets" else 0), name
    for name in set(BufferPoolStats.__struct_fields__) - {*COUNTERS, "operations", "allocation", "gate", "seconds"}:
        assert getattr(none, name) == getattr(stats, name), name
    assert none.total_operations == none.seconds == 0
    assert all(cell.timed == cell.nanoseconds == cell.bytes == 0 for cell in none.operations)
    assert all(cell.latency == LatencyHistogram() for cell in none.operations)
    assert none.allocation == AllocationStats()
    assert none.gate == msgspec.structs.replace(
        stats.gate, entered=0, waited=0, refused=0, timed_out=0, cancelled=0, lost=0, wait_seconds=0.0
    )


@given(snapshots, snapshots)
def test_since_takes_off_what_addition_put_on(base, more):
    """A snapshot that grew out of another: what came since is what was added."""
    later = (base + more).since(base)
    for name in COUNTERS:
        if name != "total_gets":
            assert getattr(later, name) == getattr(more, name), name
    for size_class in SIZE_CLASSES:
        for strategy in STRATEGIES:
            ours = later.of(size_class=size_class, strategy=strategy)
            theirs = more.of(size_class=size_class, strategy=strategy)
            assert (ours.count, ours.bytes, ours.timed, ours.nanoseconds) == (
                theirs.count, theirs.bytes, theirs.timed, theirs.nanoseconds,
            )  # fmt: skip
            assert ours.latency.buckets == theirs.latency.buckets


@given(snapshots)
def test_sums_by_class_by_strategy_and_in_all_are_the_same(stats):
    """Three sums over the same cells."""
    classes = stats.small_object_ops + stats.medium_object_ops + stats.large_object_ops + stats.very_large_object_ops
    strategies = stats.pooled_operations + stats.chunked_operations + stats.direct_operations
    assert classes == strategies == stats.total_operations == stats.of().count == sum_of(stats.operations).count
    assert stats.of().bytes == sum(cell.bytes for cell in stats.operations)


@given(snapshots)
def test_a_snapshot_survives_json(stats):
    """The dashboard sends it so."""
    assert msgspec.json.decode(msgspec.json.encode(stats), type=BufferPoolStats) == stats


CELLS = (
    OperationStats(SizeClass.SMALL, Strategy.POOLED, count=10, bytes=100, timed=4, nanoseconds=400),
    OperationStats(SizeClass.LARGE, Strategy.CHUNKED, count=3, bytes=300, timed=3, nanoseconds=900),
    OperationStats(SizeClass.LARGE, Strategy.DIRECT, count=1, bytes=500, timed=1, nanoseconds=500),
)


def test_operations_are_summed_over_what_is_asked_for():
    stats = BufferPoolStats(operations=CELLS)
    assert stats.of(size_class=SizeClass.LARGE).count == 4
    assert stats.of(strategy=Strategy.DIRECT).bytes == 500
    assert stats.of(size_class=SizeClass.LARGE, strategy=Strategy.CHUNKED).mean_ns == 300.0
    assert stats.of(size_class=SizeClass.MEDIUM).count == 0
    assert stats.of().mean_ns == 1800 / 8


def test_average_latency_is_of_those_timed_by_class():
    """A class may be named by its value; one without operations has 0."""
    average = BufferPoolStats(operations=CELLS).average_latency_ns
    assert average == {"small": 100.0, "medium": 0.0, "large": 350.0, "very_large": 0.0}
    assert average[SizeClass.LARGE] == average["large"]
    assert list(average) == list(SIZE_CLASSES)


def test_shares_of_nothing_are_nothing():
    empty = BufferPoolStats()
    assert (empty.reuse_rate, empty.memory_efficiency, empty.per_gib(5), empty.total_operations) == (0, 0, 0, 0)
    assert ChunkClassStats().reuse_rate == 0.0
    assert sum_of(()).mean_ns == 0.0


def test_shares_are_what_they_say():
    stats = BufferPoolStats(pool_hits=3, pool_misses=1, copied_bytes=1 << 31, peak_bytes=1 << 30)
    assert (stats.reuse_rate, stats.memory_efficiency, stats.per_gib(6)) == (0.75, 2.0, 3.0)
    assert ChunkClassStats(hits=1, misses=3).reuse_rate == 0.25


@pytest.mark.parametrize(
    "made",
    [BufferPoolStats(), CELLS[0], AllocationStats(), ChunkClassStats(), SizeShare(1, 2.0), GateStats(), sum_of(())],
)
def test_a_snapshot_cannot_be_changed(made):
    """Nor can its parts."""
    for field in made.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(made, field, getattr(made, field))
    assert hash(made) == hash(msgspec.structs.replace(made))


@pytest.mark.parametrize("wrong", [None, 5, GateStats()])
def test_statistics_add_to_statistics_only(wrong):
    with pytest.raises(TypeError, match="unsupported operand"):
        BufferPoolStats() + wrong
    with pytest.raises(TypeError, match="unsupported operand"):
        wrong + BufferPoolStats()


def test_statistics_of_many_pools_are_their_sum():
    one, two, three = (BufferPoolStats(total_gets=count) for count in (1, 2, 4))
    assert sum([one, two, three]) == one + two + three and sum([one, two, three]).total_gets == 7
