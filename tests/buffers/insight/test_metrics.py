"""Metrics: each is provoked by snapshots made by hand, and is what it says."""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec
import pytest

from daramjwee.buffers import BufferPoolStats, ChunkClassStats, SizeClass
from daramjwee.buffers.gate_stats import GateStats
from daramjwee.buffers.insight.metrics import METRICS, format_metric, format_ns, operations_between, start_of
from daramjwee.buffers.latency import LatencyRecorder
from daramjwee.buffers.pressure import PressureLevel
from daramjwee.buffers.stats import COUNTERS, SIZE_CLASSES, AllocationStats, OperationStats, SizeShare
from daramjwee.buffers.strategy import CHUNKED, DIRECT, POOLED

GIB = 1 << 30
PAGE = Path(__file__).parents[3] / "docs" / "monitoring.md"


def histogram(*latencies):
    recorder = LatencyRecorder()
    for latency in latencies:
        recorder.add(latency)
    return recorder.snapshot()


def cell(size_class, strategy, *latencies, count=None, moved=0):
    return OperationStats(
        size_class,
        strategy,
        count=len(latencies) if count is None else count,
        bytes=moved,
        timed=len(latencies),
        nanoseconds=sum(latencies),
        latency=histogram(*latencies),
    )


EARLY = {SizeClass.SMALL: (POOLED, (100,)), SizeClass.VERY_LARGE: (DIRECT, (5000, 7000))}
BEFORE = BufferPoolStats(
    **{name: 1000 + at for at, name in enumerate(COUNTERS)},
    active_buffers=50,
    peak_bytes=99,
    seconds=100.0,
    operations=tuple(cell(size_class, way, *took) for size_class, (way, took) in EARLY.items()),
    allocation=AllocationStats(500, 50, 5.0),
    gate=GateStats(entered=11, waited=12, refused=13, timed_out=14, cancelled=15, lost=16, wait_seconds=17.0),
)
NOW = BufferPoolStats(
    total_gets=1000 + 30,
    total_puts=1001 + 29,
    pool_hits=1002 + 24,
    pool_misses=1003 + 8,
    lost_leases=1004 + 1,
    overloads=1005 + 2,
    waits=1006 + 4,
    wait_seconds=1007 + 6.0,
    copies=1008 + 7,
    copied_bytes=1009 + 2 * GIB,
    moved_chunks=1010 + 9,
    fallbacks=1011 + 3,
    maps=1012 + 5,
    mapped_bytes=1013 + 4096,
    refusals=1014 + 6,
    reserve_uses=1015 + 10,
    active_buffers=3,
    quarantined=2,
    arena_bytes=400,
    idle_bytes=100,
    private_bytes=100,
    peak_bytes=GIB,
    waiting=5,
    ledger_held=600,
    ledger_limit=2000,
    pressure=PressureLevel.HIGH,
    seconds=110.0,
    operations=(
        cell(SizeClass.SMALL, POOLED, 100, 8, 12),
        cell(SizeClass.VERY_LARGE, DIRECT, 5000, 7000, count=2),
        cell(SizeClass.MEDIUM, POOLED, *[10] * 9, 14),
        cell(SizeClass.LARGE, CHUNKED, 4, 6, 8),
        cell(SizeClass.LARGE, DIRECT, 10),
    ),
    allocation=AllocationStats(500 + 30, 50 + 8, 5.0 + 0.5),
    gate=GateStats(
        active=1, active_bytes=2, waiting=6, waiting_high=1, waiting_normal=2, waiting_low=3, entered=11 + 21,
        waited=12 + 8, refused=13 + 23, timed_out=14 + 24, cancelled=15 + 25, lost=16 + 26, wait_seconds=17.0 + 4.0,
        longest_wait=2.5,
    ),
)  # fmt: skip

EXPECTED = {
    # what was added
    "total_gets": 30, "total_puts": 29, "pool_hits": 24, "pool_misses": 8, "lost_leases": 1, "overloads": 2, "waits": 4,
    "wait_seconds": 6, "copies": 7, "copied_bytes": 2 * GIB, "moved_chunks": 9, "fallbacks": 3, "maps": 5,
    "mapped_bytes": 4096, "refusals": 6, "reserve_uses": 10,
    "total_operations": 16, "small_object_ops": 2, "medium_object_ops": 10, "large_object_ops": 4,
    "very_large_object_ops": 0, "pooled_operations": 12, "chunked_operations": 3, "direct_operations": 1,
    "page_faults": 30, "collections": 8, "collector_seconds": 0.5,
    "gate_entered": 21, "gate_waited": 8, "gate_refused": 23, "gate_timed_out": 24, "gate_cancelled": 25, "gate_lost": 26,
    "gate_wait_seconds": 4,
    # what is now
    "active_buffers": 3, "quarantined": 2, "arena_bytes": 400, "idle_bytes": 100, "private_bytes": 100, "peak_bytes": GIB,
    "waiting": 5, "ledger_held": 600, "ledger_limit": 2000, "pressure": 2, "system_pressure": 0, "seconds": 110,
    "gate_active": 1, "gate_active_bytes": 2, "gate_waiting": 6, "gate_waiting_high": 1, "gate_waiting_normal": 2,
    "gate_waiting_low": 3, "gate_longest_wait": 2.5,
    # made of what was added
    "reuse_rate": 0.75, "memory_efficiency": 2, "ledger_share": 0.3, "pool_share": 0.25, "idle_share": 0.25,
    "mean_wait_seconds": 1.5, "gate_mean_wait_seconds": 0.5,
    "operations_per_second": 1.6, "leases_per_second": 3, "copied_bytes_per_second": 2 * GIB / 10,
    "page_faults_per_gib": 15, "collections_per_gib": 4, "collector_share": 0.05,
    # latencies: 8 and 12; ten of 10 but one of 14; 4, 6, 8 and 10; none
    "average_latency_ns": 152 / 16, "p50_latency_ns": 10, "p90_latency_ns": 12, "p99_latency_ns": 14,
    "average_latency_ns.small": 10, "p50_latency_ns.small": 8, "p90_latency_ns.small": 12, "p99_latency_ns.small": 12,
    "average_latency_ns.medium": 10.4, "p50_latency_ns.medium": 10, "p90_latency_ns.medium": 10,
    "p99_latency_ns.medium": 14,
    "average_latency_ns.large": 7, "p50_latency_ns.large": 6, "p90_latency_ns.large": 10, "p99_latency_ns.large": 10,
    "average_latency_ns.very_large": math.nan, "p50_latency_ns.very_large": math.nan,
    "p90_latency_ns.very_large": math.nan, "p99_latency_ns.very_large": math.nan,
}  # fmt: skip


def test_every_metric_is_provoked_here():
    """A new metric needs its line above."""
    assert list(EXPECTED) == sorted(EXPECTED, key=list(METRICS).index)
    assert set(EXPECTED) == set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_reads_what_it_says(name):
    """Of two snapshots: a counter what was added, a gauge what is, the rest what both make."""
    assert METRICS[name].read(NOW, BEFORE) == pytest.approx(EXPECTED[name], nan_ok=True)


def test_every_numeric_field_of_the_statistics_has_a_metric():
    """By its own name; those of `gate` with "gate_" before it."""
    numbers = {name for name in BufferPoolStats.__struct_fields__ if isinstance(getattr(BEFORE, name), int | float)}
    sums = {
        name for name, kind in vars(BufferPoolStats).items()
        if isinstance(kind, property) and isinstance(getattr(BEFORE, name), int | float)
    }  # fmt: skip
    gate = {f"gate_{name}" for name in GateStats.__struct_fields__}
    assert numbers | sums | gate | set(AllocationStats.__struct_fields__) <= set(METRICS)


def test_counters_and_gauges_are_told_apart_as_the_statistics_do():
    """What `since` takes off is a counter, the rest is not."""
    later = NOW.since(BEFORE)
    for name, metric in METRICS.items():
        if name in BufferPoolStats.__struct_fields__ and name not in ("total_gets", "seconds"):
            assert metric.kind in ("counter", "gauge"), name
            assert metric.read(NOW, BEFORE) == getattr(later, name), name
        if name in COUNTERS:
            assert metric.kind == "counter", name


@pytest.mark.parametrize("name", METRICS)
def test_where_nothing_happened_nothing_is_made_up(name):
    """Counters and rates are 0; shares of nothing and latencies of no operation are nan."""
    value = METRICS[name].read(NOW, NOW)
    kind, unit = METRICS[name].kind, METRICS[name].unit
    if kind == "counter" or unit in ("count/s", "bytes/s") or name == "collector_share":
        assert value == 0
    elif kind == "gauge" or name in ("ledger_share", "pool_share", "idle_share"):
        assert value == METRICS[name].read(NOW, BEFORE)
    elif name == "memory_efficiency":
        assert value == 0
    else:
        assert math.isnan(value)


@pytest.mark.parametrize("name", METRICS)
def test_an_empty_pool_divides_by_nothing(name):
    """No metric raises, whatever is 0."""
    value = METRICS[name].read(BufferPoolStats(), BufferPoolStats())
    assert value == 0 or math.isnan(value)


@pytest.mark.parametrize("name", METRICS)
def test_counters_that_were_set_back_never_make_a_negative_figure(name):
    """A snapshot of less than before: as if nothing, or all of it, had happened since."""
    value = METRICS[name].read(BEFORE, NOW)
    assert value >= 0 or math.isnan(value)


def test_operations_that_were_set_back_count_as_all_of_late():
    """Less than before: what went before the reset is not known, what came after it is."""
    assert operations_between(BEFORE, NOW, SizeClass.SMALL).count == 1
    assert METRICS["average_latency_ns.small"].read(BEFORE, NOW) == 100.0
    assert METRICS["p99_latency_ns.small"].read(BEFORE, NOW) == 100.0


def test_the_first_interval_is_all_since_the_pool_was_made():
    """But not what its process had done before."""
    start = start_of(NOW)
    assert METRICS["overloads"].read(NOW, start) == 1007
    assert METRICS["page_faults"].read(NOW, start) == 0
    assert METRICS["operations_per_second"].read(NOW, start) == 19 / 110


def test_operations_between_are_those_that_ended_since():
    """Of a cell that is new, all; of one class or of all."""
    assert operations_between(NOW, BEFORE).count == 16
    large = operations_between(NOW, BEFORE, SizeClass.LARGE)
    assert (large.count, large.nanoseconds, large.latency) == (4, 28, histogram(4, 6, 8, 10))


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_unit_and_a_line_of_words(name):
    metric = METRICS[name]
    assert metric.unit
    assert 5 < len(metric.description) < 100
    assert "|" not in metric.description
    assert format_metric(name, 0.0)


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        METRICS["overloads"] = None


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0ns"), (850, "850ns"), (1000, "1us"), (12_345, "12.3us"), (999_600, "1ms"), (4_560_000, "4.56ms"),
        (999_600_000, "1s"), (1.5e9, "1.50s"), (180e9, "3.0m"),
    ],
)  # fmt: skip
def test_latencies_are_shown_in_the_unit_that_suits_them(nanoseconds, text):
    assert format_ns(nanoseconds) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("overloads", 1234567.0, "1,234,567"),
        ("ledger_held", 1536.0, "1.5KiB"),
        ("copied_bytes_per_second", 2.0 * 1024 * 1024, "2MiB/s"),
        ("operations_per_second", 12.5, "12.50/s"),
        ("page_faults_per_gib", 300.0, "300/GiB"),
        ("reuse_rate", 0.975, "97.5 %"),
        ("wait_seconds", 0.0125, "12.5ms"),
        ("p99_latency_ns", 850.0, "850ns"),
        ("pressure", 2.0, "2"),
        ("memory_efficiency", 25.04, "25.04"),
    ],
)
def test_a_value_is_shown_in_its_unit(name, value, text):
    assert format_metric(name, value) == text


def test_snapshots_are_not_changed_by_reading_them():
    """Metrics are pure."""
    copy = msgspec.structs.replace(NOW)
    for metric in METRICS.values():
        metric.read(NOW, BEFORE)
    assert copy == NOW


def documented():
    """The rows of the page's tables: the first cell's name, and the other cells."""
    text = PAGE.read_text(encoding="utf-8").partition("## Statistics")[2].partition("\n## ")[0]
    return {name: cells.split(" | ") for name, cells in re.findall(r"^\| `([^`]+)` \| (.*) \|$", text, re.MULTILINE)}


def expected_rows():
    """Of each metric; the metrics of single classes in one row."""
    rows = {}
    for name, metric in METRICS.items():
        head, dot, size_class = name.partition(".")
        what = (
            metric.description.replace(f"of {size_class.replace('_', ' ')} op", "of CLASS op")
            if dot
            else metric.description
        )
        rows[f"{head}.CLASS" if dot else name] = [metric.unit, metric.kind, what]
    return rows


def test_the_page_has_every_metric_with_its_unit_and_words():
    """docs/monitoring.md, compared with the code."""
    rows = documented()
    wanted = expected_rows()
    assert {name: cells for name, cells in rows.items() if name in wanted} == wanted
    assert [name for name in rows if name in wanted] == list(wanted)
    assert set(rows) - set(wanted) == {"operations", "chunks", "sizes"}


@pytest.mark.parametrize(
    ("name", "kind"), [("operations", OperationStats), ("chunks", ChunkClassStats), ("sizes", SizeShare)]
)
def test_the_page_has_every_field_of_the_rows(name, kind):
    fields = re.findall(r"`(\w+)`", documented()[name][-1])
    assert fields == list(kind.__struct_fields__)


def test_every_field_of_a_snapshot_is_on_the_page():
    """As a metric, as rows, or as a part that the text names."""
    text = PAGE.read_text(encoding="utf-8")
    known = set(documented())
    for name in BufferPoolStats.__struct_fields__:
        assert name in known or f"`stats.{name}`" in text, name
    assert all(size_class.value in text for size_class in SIZE_CLASSES)
