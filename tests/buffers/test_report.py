"""The report: what a person reads, aligned, also when nothing happened."""

from __future__ import annotations

import io

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPool, BufferPoolConfig, BufferPoolStats, GateStats, SizeClass
from daramjwee.buffers.latency import LatencyRecorder
from daramjwee.buffers.pressure import PressureLevel
from daramjwee.buffers.report import report
from daramjwee.buffers.stats import AllocationStats, OperationStats
from daramjwee.buffers.strategy import CHUNKED, POOLED

MIB = 1 << 20


def histogram(*latencies):
    recorder = LatencyRecorder()
    for latency in latencies:
        recorder.add(latency)
    return recorder.snapshot()


BUSY = BufferPoolStats(
    total_gets=1234, total_puts=1230, pool_hits=1200, pool_misses=34, lost_leases=2, overloads=1, waits=7, wait_seconds=0.35,
    copies=45, copied_bytes=3 << 30, moved_chunks=9000, fallbacks=3, maps=12, mapped_bytes=24 * MIB, refusals=1,
    reserve_uses=1, active_buffers=4, quarantined=1, arena_bytes=16 * MIB, idle_bytes=15 * MIB, private_bytes=2 * MIB,
    peak_bytes=24 * MIB, waiting=2, ledger_held=18 * MIB, ledger_limit=64 * MIB, pressure=PressureLevel.ELEVATED,
    seconds=90.0,
    operations=(
        OperationStats(SizeClass.SMALL, POOLED, 1200, 0, 1200, 480_000, histogram(*[400] * 99, 12_345)),
        OperationStats(SizeClass.VERY_LARGE, CHUNKED, 45, 3 << 30, 45, 90_000_000),
    ),
    allocation=AllocationStats(3000, 6, 0.012),
    gate=GateStats(active=1, waiting=2, entered=45, waited=5, refused=3, timed_out=1, cancelled=1, lost=1,
                   wait_seconds=1.5, longest_wait=0.8),
)  # fmt: skip


def test_a_busy_pool_is_told_in_some_twenty_lines():
    """Every figure in the unit that suits it, in columns."""
    assert (
        report(BUSY)
        == """\
operations  strategy  count  moved    mean    p50    p99
small       pooled    1,200      -   400ns  407ns  407ns
very large  chunked      45   3GiB     2ms      -      -
all                   1,245   3GiB  72.7us  407ns  407ns
in all      1,245 operations in 90.00s (13.8/s), 3GiB moved (34.1MiB/s) in 9,000 pieces
leases      1,234 made, 1,230 given back, 4 out, 97.2% reused
waits       7 waited for memory, 350.0ms together; 1 in vain; 2 wait now
memory      18MiB mapped (15MiB idle, 2MiB private), 24MiB at the peak; 12 mappings of 24MiB
efficiency  128.0 bytes moved for each byte at the peak
ledger      18MiB of 64MiB (28.1%)
gate        1 under way, 2 waiting; 45 entered
            5 waited, 1.50s together, 800.0ms at most; 3 refused, 1 timed out, 1 cancelled
pressure    ELEVATED
process     3,000 page faults (1,000.0 per GiB), 6 collector runs (2.0 per GiB), paused for 12.0ms
troubles    lost leases 2, chunks in quarantine 1, refused by the system 1, fallbacks 3, uses of the reserve 1, \
lost places in the gate 1"""
    )


def test_a_pool_that_did_nothing_has_a_report_too():
    """It says so, and divides by nothing."""
    assert (
        report(BufferPoolStats())
        == """\
operations  none
leases      0 made, 0 given back, 0 out
memory      0B mapped (0B idle, 0B private), 0B at the peak; 0 mappings of 0B
pressure    NORMAL
process     0 page faults, 0 collector runs"""
    )


@pytest.mark.parametrize("kind", [BufferPool, AdaptiveBufferPool])
@pytest.mark.parametrize("detailed", [False, True])
def test_the_report_of_a_pool_is_that_of_its_statistics(kind, detailed):
    """Real figures: aligned columns, plain text, no space at the end of a line."""
    with kind(BufferPoolConfig(enable_detailed_metrics=detailed)) as pool:
        for size in (100, 100_000, 500_000, 3_000_000):
            pool.copy(io.BytesIO(b"x" * size), io.BytesIO(), size)
            with pool.acquire(size):
                pass
        stats = pool.stats()
        lines = stats.report().splitlines()
    assert lines[0].split() == ["operations", "strategy", "count", "moved", "mean", "p50", "p99"]
    table = lines[: 1 + len(stats.operations) + 1]
    assert len({len(line) for line in table}) == 1
    assert table[-1].startswith("all")
    assert f"{stats.total_operations}" in table[-1]
    assert all(line == line.rstrip() and line.isascii() and line.isprintable() for line in lines)
    assert all(line[10:12] == "  " for line in lines)
    assert len(lines) <= 24


def test_every_figure_of_trouble_is_shown_and_only_when_there_is_one():
    """So that a sound pool's report has no line about it."""
    for name, words in (
        ("lost_leases", "lost leases"),
        ("quarantined", "quarantine"),
        ("refusals", "refused by the system"),
        ("fallbacks", "fallbacks"),
        ("reserve_uses", "reserve"),
    ):
        last = report(BufferPoolStats(**{name: 1234})).splitlines()[-1]
        assert last.startswith("troubles    ")
        assert last.endswith(" 1,234")
        assert words in last
    assert "lost places in the gate 1" in report(BufferPoolStats(gate=GateStats(lost=1)))
