"""health(): what is wrong, the worst first."""

from __future__ import annotations

from daramjwee.buffers import BufferPoolConfig, PressureLevel
from daramjwee.buffers.insight.health import health
from daramjwee.buffers.stats import BufferPoolStats, GateStats

CONFIG = BufferPoolConfig()


def test_a_pool_that_is_well_has_no_finding():
    assert health(BufferPoolStats(), CONFIG) == ()


def test_lost_leases_name_the_places_most_frequent_first():
    (finding,) = health(BufferPoolStats(lost_leases=3), CONFIG, places=[("a.py:1", 1), ("b.py:2", 2)])
    assert finding.code == "lost_leases" and "2 at b.py:2, 1 at a.py:1" in finding.seen


def test_every_trouble_is_found_and_the_worst_comes_first():
    stats = BufferPoolStats(
        overloads=1, lost_leases=1, quarantined=1, active_buffers=1, refusals=1, reserve_uses=1, waiting=1, fallbacks=1,
        ledger_held=95, ledger_limit=100, pressure=PressureLevel.HIGH,
        gate=GateStats(refused=1, timed_out=1, lost=1),
    )  # fmt: skip
    found = health(stats, CONFIG.replace(enabled=False), closed=True, pressure_reason="machine 91 %")
    assert {finding.code for finding in found} == {
        "overloads", "lost_leases", "quarantined", "closed_with_leases", "refusals", "reserve_used", "waiting",
        "fallbacks", "ledger_full", "pressure", "gate_full", "gate_timeouts", "gate_lost", "disabled",
    }  # fmt: skip
    order = [finding.severity.value for finding in found]
    assert order == sorted(order, key=["critical", "warning", "info"].index)
