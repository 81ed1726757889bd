"""health(): what is wrong, the worst first. Each finding is provoked in a real pool; the words in snapshots by hand."""

from __future__ import annotations

import asyncio
import errno
import io
import re
from contextlib import suppress
from pathlib import Path

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig, MemoryPressure, PressureLevel, arenas
from daramjwee.buffers.insight.health import health
from daramjwee.buffers.reserve import reserve
from daramjwee.buffers.stats import BufferPoolStats, GateStats
from daramjwee.errors import Overloaded
from daramjwee.testing import ManualClock

pytestmark = [
    pytest.mark.usefixtures("unkept"),
    pytest.mark.filterwarnings("ignore:.*lost without release:ResourceWarning"),
]

KIB, MIB = 1024, 1024 * 1024
CONFIG = BufferPoolConfig()


def codes(findings) -> list[str]:
    return [finding.code for finding in findings]


def ask(pool, size, **given) -> None:
    """For what may be refused."""
    with suppress(Overloaded):
        pool.acquire(size, **given).release()


# -- a real pool -----------------------------------------------------------------------------------------


def test_a_pool_that_works_well_has_no_finding(endpoints):
    """Also while leases are out and copies have run, whose idle memory fills the ledger."""
    with AdaptiveBufferPool(BufferPoolConfig(max_pool_bytes="2MiB")) as pool:
        assert pool.health() == ()
        for size in (MIB, 100, 64 * KIB, 512 * KIB):
            pool.acquire(size).release()
        pool.copy(endpoints.source(bytes(MIB)), endpoints.sink())
        with pool.acquire(100_000):
            assert pool.health() == ()
        assert pool.health() == ()


def test_requests_that_waited_in_vain_and_a_full_ledger():
    with AdaptiveBufferPool(BufferPoolConfig(max_pool_bytes="1MiB")) as pool:
        with pool.acquire(MIB, priority=None):
            ask(pool, 64 * KIB, timeout=0)
            assert codes(pool.health()) == ["overloads", "ledger_full"]
        (finding,) = pool.health()
        assert finding.code == "overloads" and finding.figures == {"overloads": 1}
        pool.reset_stats()
        assert pool.health() == ()


def test_requests_that_wait_now():
    async def look(pool) -> tuple:
        with pool.acquire(MIB, priority=None):
            waiting = asyncio.create_task(pool.acquire_async(64 * KIB))
            await asyncio.sleep(0)
            found = pool.health()
        (await waiting).release()
        return found

    with AdaptiveBufferPool(BufferPoolConfig(max_pool_bytes="1MiB")) as pool:
        assert set(codes(asyncio.run(look(pool)))) == {"waiting", "ledger_full"}
        assert pool.health() == ()


def test_large_operations_that_are_sent_away_or_wait_in_vain():
    async def crowd(pool) -> None:
        with pool.acquire(MIB):
            waiting = asyncio.create_task(pool.acquire_async(MIB))
            await asyncio.sleep(0)
            ask(pool, MIB)
        (await waiting).release()

    config = BufferPoolConfig(max_concurrent_large_ops=1, max_queued_large_ops=1)
    with AdaptiveBufferPool(config) as pool:
        asyncio.run(crowd(pool))
        assert codes(pool.health()) == ["gate_full"]
        pool.reset_stats()
        with pool.acquire(MIB):
            ask(pool, MIB, timeout=0)
        assert codes(pool.health()) == ["gate_timeouts"]


@pytest.mark.filterwarnings("ignore:a slot of a LargeOperationGate was lost:ResourceWarning")
def test_places_in_the_gate_that_are_lost():
    with AdaptiveBufferPool() as pool:
        pool.gate.acquire()
        pool.acquire(64 * KIB).release()
        assert codes(pool.health()) == ["gate_lost"]


def test_leases_that_are_lost_name_the_line_that_took_them():
    with AdaptiveBufferPool(BufferPoolConfig(leak_detection="full")) as pool:
        for _ in range(3):
            pool.acquire(64 * KIB)
        (finding,) = pool.health()
    assert finding.code == "lost_leases" and "3 leases" in finding.seen
    line = test_leases_that_are_lost_name_the_line_that_took_them.__code__.co_firstlineno + 3
    assert f"3 at {__file__}:{line}" in finding.seen
    assert finding.remedy == "release each lease, best with `with`"


def test_leases_whose_places_are_not_recorded_ask_for_it():
    with AdaptiveBufferPool(BufferPoolConfig(leak_detection="off")) as pool:
        pool.acquire(64 * KIB)
        (finding,) = pool.health()
    assert finding.code == "lost_leases" and " at " not in finding.seen
    assert finding.remedy.endswith("leak_detection full names every place")


def test_views_that_outlive_their_lease():
    with AdaptiveBufferPool() as pool:
        lease = pool.acquire(64 * KIB)
        kept = lease.view[:10]
        lease.release()
        assert codes(pool.health()) == ["quarantined"]
        kept.release()
        del kept
        assert pool.health() == ()


def test_leases_that_are_out_of_a_closed_pool():
    pool = AdaptiveBufferPool()
    lease = pool.acquire(64 * KIB)
    pool.close()
    assert codes(pool.health()) == ["closed_with_leases"]
    lease.release()
    assert pool.health() == ()


def test_copies_that_could_not_go_the_configured_way(endpoints):
    with AdaptiveBufferPool(BufferPoolConfig(large_object_strategy="pooled")) as pool:
        pool.copy(endpoints.source(bytes(MIB)), io.BytesIO())
        assert codes(pool.health()) == ["fallbacks"]


@pytest.mark.parametrize(
    ("used", "level", "severity"), [(85, "ELEVATED", "info"), (92, "HIGH", "warning"), (97, "CRITICAL", "critical")]
)
def test_memory_pressure_with_the_reading_that_shows_it(fake_root, used, level, severity):
    root, clock = fake_root(), ManualClock()
    root.v2(current=used * MIB, max=100 * MIB)
    with AdaptiveBufferPool(pressure=MemoryPressure(root=root.path, clock=clock), clock=clock) as pool:
        pool.maintain()
        (finding,) = pool.health()
        assert (finding.code, finding.severity.value) == ("pressure", severity)
        assert (
            finding.seen == f"memory pressure is {level}: {pool.memory_pressure.reason}" and f"{used}" in finding.seen
        )
        root.v2(current=MIB, max=100 * MIB)
        for _ in range(40):
            clock.advance(10)
            pool.maintain()
        assert pool.health() == ()


def test_memory_that_the_system_refuses():
    """No address space holds so much, whatever the system promises."""
    with AdaptiveBufferPool(BufferPoolConfig(max_pool_bytes="512TiB")) as pool:
        ask(pool, 1 << 48, timeout=0)
        assert "refusals" in codes(pool.health())


def test_copies_through_the_reserve(monkeypatch, endpoints):
    def refuse(size: int) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    reserve.lay_by()
    monkeypatch.setattr(arenas, "_map", refuse)
    with AdaptiveBufferPool() as pool:
        pool.copy(endpoints.source(bytes(MIB)), endpoints.sink())
        assert set(codes(pool.health())) == {"reserve_used", "refusals", "fallbacks", "pressure"}


def test_a_disabled_pool_says_so():
    with AdaptiveBufferPool(BufferPoolConfig(enabled=False)) as pool:
        assert codes(pool.health()) == ["disabled"]


# -- the words -------------------------------------------------------------------------------------------


def test_lost_leases_name_the_places_most_frequent_first_and_count_the_others():
    places = [("a.py:1", 1), ("b.py:2", 2), ("not recorded", 9)]
    (finding,) = health(BufferPoolStats(lost_leases=12), CONFIG, places=places)
    assert "2 at b.py:2, 1 at a.py:1" in finding.seen and "not recorded" not in finding.seen
    assert finding.remedy.endswith("leak_detection full names every place")
    many = [(f"c.py:{line}", line) for line in range(1, 9)]
    (finding,) = health(BufferPoolStats(lost_leases=36), CONFIG, places=many)
    assert finding.seen.endswith("8 at c.py:8, 7 at c.py:7, 6 at c.py:6, 5 at c.py:5, 4 at c.py:4, and 3 more places")


def test_what_was_counted_says_for_how_long():
    (finding,) = health(BufferPoolStats(overloads=2, seconds=7200), CONFIG)
    assert finding.seen.endswith("counted since the start or reset_stats, 2.0h ago")


def test_a_nearly_full_ledger_is_found_unless_what_fills_it_is_idle():
    full = {"ledger_held": 95, "ledger_limit": 100}
    assert codes(health(BufferPoolStats(**full), CONFIG)) == ["ledger_full"]
    assert health(BufferPoolStats(**full, idle_bytes=1), CONFIG) == ()
    assert health(BufferPoolStats(ledger_held=94, ledger_limit=100), CONFIG) == ()


def test_every_trouble_is_found_and_the_worst_comes_first():
    stats = BufferPoolStats(
        overloads=1, lost_leases=1, quarantined=1, active_buffers=1, refusals=1, reserve_uses=1, waiting=1, fallbacks=1,
        ledger_held=95, ledger_limit=100, pressure=PressureLevel.HIGH,
        gate=GateStats(refused=1, timed_out=1, lost=1),
    )  # fmt: skip
    found = health(stats, CONFIG.replace(enabled=False), closed=True, pressure_reason="machine 91 %")
    assert sorted(codes(found)) == [
        "closed_with_leases", "disabled", "fallbacks", "gate_full", "gate_lost", "gate_timeouts", "ledger_full",
        "lost_leases", "overloads", "pressure", "quarantined", "refusals", "reserve_used", "waiting",
    ]  # fmt: skip
    page = (Path(__file__).parents[3] / "docs" / "monitoring.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (?:by level: )?((?:critical|warning|info)[a-z, ]*) \|", page, re.MULTILINE)
    assert sorted(code for code, _ in rows) == sorted(codes(found))
    assert all(finding.severity.value in dict(rows)[finding.code] for finding in found)
    order = [finding.severity.value for finding in found]
    assert order == sorted(order, key=["critical", "warning", "info"].index)
    assert all(finding.field is None and finding.remedy for finding in found)


def test_one_is_said_as_one_and_two_as_two():
    """Of everything that is counted."""

    def seen(count) -> str:
        gate = GateStats(refused=count, timed_out=count, lost=count)
        stats = BufferPoolStats(
            gate=gate, overloads=count, fallbacks=count, copies=count, lost_leases=count, quarantined=count,
            active_buffers=count, refusals=count, reserve_uses=count, waiting=count,
        )  # fmt: skip
        return " / ".join(finding.seen for finding in health(stats, CONFIG, closed=True))

    one, two = seen(1), seen(2)
    assert one.count("1 ") == two.count("2 ") >= 9
    assert not re.search(r"\b1 (requests|large operations|places|leases|buffers|times|copies)", one)
    for said in ("1 request waited in vain", "1 large operation was sent away", "1 lease is still out", "1 of 1 copy "):
        assert said in one
    for said in (
        "2 requests waited in vain",
        "2 large operations were sent",
        "2 leases are still out",
        "2 of 2 copies ",
    ):
        assert said in two
    assert "ago" not in one  # a snapshot of no time
