"""The dashboard document: what it is made of, and that it only ever gains fields."""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec
import pytest

from daramjwee.buffers.insight.finding import Finding, Severity
from daramjwee.buffers.insight.trend import Trend
from daramjwee.buffers.latency import LatencyHistogram
from daramjwee.buffers.stats import BufferPoolStats, OperationStats
from daramjwee.buffers.strategy import SizeClass, Strategy
from daramjwee.errors import FetchError
from daramjwee.observe import decode
from daramjwee.observe.document import (
    MOST_POINTS,
    Document,
    Point,
    Rates,
    Sample,
    finding_rows,
    operation_rows,
    rates_between,
    schema,
    trend_section,
)

FIELDS = Path(__file__).with_name("document_fields.txt")
CELL = OperationStats(
    SizeClass.LARGE, Strategy.CHUNKED, count=4, bytes=4 << 20, timed=4, nanoseconds=4000,
    latency=LatencyHistogram(((10, 4),), 10),
)  # fmt: skip
OTHER = OperationStats(SizeClass.SMALL, Strategy.POOLED, count=6)


def fields_of(schema):
    """Every field that the document has, with the struct it is in: `Document.pid`."""
    return {
        f"{name}.{field}" for name, struct in schema["$defs"].items() for field in struct.get("properties", {})
    }  # fmt: skip


def test_the_document_only_ever_gains_fields():
    """What programs read today is there tomorrow. A new field is added to the list: it stays."""
    listed = set(FIELDS.read_text(encoding="utf-8").split())
    now = fields_of(schema())
    assert listed == now, f"gone: {sorted(listed - now)}; new (append to {FIELDS.name}): {sorted(now - listed)}"


def test_the_schema_says_what_is_needed_and_of_which_kind():
    """A few by hand; the whole is what the encoder itself goes by."""
    whole = schema()
    document = whole["$defs"]["Document"]
    assert whole["$ref"] == "#/$defs/Document"
    assert set(document["required"]) == {"version", "python", "pid", "at", "uptime_seconds", "pools"}
    assert document["properties"]["format"] == {"type": "integer", "default": 1}
    assert document["properties"]["pools"] == {"type": "array", "items": {"$ref": "#/$defs/PoolSection"}}
    assert whole["$defs"]["LedgerSection"]["properties"]["share"] == {"type": "number"}
    assert whole["$defs"]["OperationRow"]["properties"]["p99"] == {"type": "integer"}
    assert {"const": None} not in document["properties"].values()
    assert "BufferPoolStats" in whole["$defs"]


def sample(at, **counts):
    return Sample(at, BufferPoolStats(**counts))


def test_rates_are_of_what_came_in_between():
    """Two seconds, so half of each difference."""
    before = sample(10.0, total_gets=5, pool_hits=4, pool_misses=1, copied_bytes=1000, operations=(OTHER,))
    now = sample(
        12.0,
        total_gets=15,
        pool_hits=12,
        pool_misses=3,
        copied_bytes=5000,
        waits=2,
        overloads=1,
        operations=(OTHER, CELL),
    )
    assert rates_between(before, now) == Rates(
        seconds=2.0, operations=2.0, bytes=2000.0, gets=5.0, hits=4.0, waits=1.0, overloads=0.5, reuse_rate=0.8
    )


@pytest.mark.parametrize("at", [10.0, 9.0])
def test_no_time_gives_no_rates(at):
    """Not a division by zero."""
    assert rates_between(sample(10.0), sample(at, total_gets=5)) == Rates()


def test_counters_that_were_reset_give_no_negative_rates():
    """Somebody called `reset_stats` in between."""
    assert rates_between(sample(1.0, total_gets=500, copied_bytes=9), sample(2.0, total_gets=3)) == Rates(seconds=1.0)


def test_operations_come_by_class_and_strategy_after_their_sum():
    """Cells in which there was nothing are left out."""
    rows = operation_rows((CELL, OTHER, OperationStats(SizeClass.MEDIUM, Strategy.DIRECT)))
    assert [(row.size_class, row.strategy, row.count) for row in rows] == [
        ("all", "all", 10), ("large", "chunked", 4), ("small", "pooled", 6),
    ]  # fmt: skip
    assert (rows[1].bytes, rows[1].mean, rows[1].p50, rows[1].p99, rows[1].max) == (4 << 20, 1000.0, 10, 10, 10)
    assert rows[0].p90 == 10
    assert operation_rows(())[0].count == 0


def test_a_finding_of_both_sources_is_told_once():
    """`health` may say what `advise` says."""
    one = Finding(
        code="chunk_too_small", severity=Severity.WARNING, seen="9 of 10", remedy="raise it", field="chunk_size",
        current=4096, proposed=65536, gain="half the time", figures={"share": 0.9, "none": math.nan},
    )  # fmt: skip
    other = Finding(code="leak", severity=Severity.CRITICAL, seen="3 lost", remedy="use with")
    rows = finding_rows([other, one], [one])
    assert [(row.source, row.code, row.direction) for row in rows] == [
        ("health", "leak", None), ("health", "chunk_too_small", "raise"),
    ]  # fmt: skip
    assert rows[1].figures == {"share": 0.9, "none": None}
    assert (rows[1].current, rows[1].proposed, rows[1].gain) == (4096, 65536, "half the time")
    msgspec.json.decode(msgspec.json.encode(rows[1]), type=type(rows[1]))


def test_a_trend_is_told_by_the_age_of_its_points():
    """The last half hour of them; what is no finite number is none."""
    trend = Trend(interval=10.0)
    for step in range(300):
        trend.add(float(step), 1000.0 + 10 * step)
    told = trend_section("waits", trend, 1000.0 + 10 * 300)
    assert (told.metric, told.interval, len(told.points)) == ("waits", 10.0, MOST_POINTS)
    assert told.slope == pytest.approx(0.1)
    assert told.points[-1] == Point(at=-10.0, count=1, mean=299.0, low=299.0, high=299.0)
    assert told.points[0].at == -10.0 * MOST_POINTS
    assert trend_section("waits", Trend(), 0.0).points == ()


def test_a_reader_leaves_alone_what_a_later_release_adds():
    """Fields come; format 1 stays."""
    body = b'{"format":1,"version":"9","python":"4","pid":1,"at":0,"uptime_seconds":2,"pools":[],"mood":"good"}'
    assert decode(body) == Document(version="9", python="4", pid=1, at=0.0, uptime_seconds=2.0, pools=())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"format":2,"whatever":1}', "has format 2, this release knows 1: upgrade daramjwee"),
        (b"[]", "no dashboard document"),
        (b"", "no dashboard document"),
        (b"\xff\xfe", "no dashboard document"),
        (b"[" * 100_000, "no dashboard document"),
        (b'{"format":1,"version":1}', "no dashboard document"),
    ],
)
def test_what_is_no_document_is_refused(body, message):
    """In words, whatever was sent."""
    with pytest.raises(FetchError, match=re.escape(message)):
        decode(body)
