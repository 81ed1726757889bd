"""Care: what the pressure on memory changes in a pool, step by step through the levels and back."""

from __future__ import annotations

import itertools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPool, BufferPoolConfig, Strategy
from daramjwee.buffers.insight.monitor import Monitor
from daramjwee.buffers.pressure import EFFECTS, MemoryPressure, PressureLevel, Thresholds
from daramjwee.errors import Overloaded
from daramjwee.testing import ManualClock

pytestmark = pytest.mark.usefixtures("unkept")

KIB, MIB = 1024, 1024 * 1024
NORMAL, ELEVATED, HIGH, CRITICAL = PressureLevel
LIMIT = 1000 * MIB
# Of the limit of the control group, what each level stands for here.
SHARES = {NORMAL: 0.50, ELEVATED: 0.85, HIGH: 0.92, CRITICAL: 0.97}
MOST = 8


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def root(fake_root):
    return fake_root()


@pytest.fixture
def pool(root, clock):
    root.v2(current=0, max=LIMIT)
    pressure = MemoryPressure(root=root.path, thresholds=Thresholds(calm_seconds=5), clock=clock)
    config = BufferPoolConfig(max_concurrent_large_ops=MOST, max_queued_large_ops=1)
    with AdaptiveBufferPool(config, pressure=pressure, clock=clock) as made:
        yield made


def step(pool, root, clock, level, seconds=2.0) -> None:
    """The control group uses so much now; the pool has its look."""
    root.v2(current=int(SHARES[level] * LIMIT), max=LIMIT)
    clock.advance(seconds)
    pool.maintain()


def calm_down(pool, root, clock) -> list[PressureLevel]:
    """Back to little use: the levels on the way."""
    seen = []
    for _ in range(30):
        step(pool, root, clock, NORMAL)
        if not seen or pool.pressure is not seen[-1]:
            seen.append(pool.pressure)
    return seen


def places(pool) -> int:
    """How many large leases run at once before one must wait."""
    count = 0
    with ExitStack() as stack, suppress(Overloaded):
        while True:
            stack.enter_context(pool.acquire(256 * KIB, timeout=0))
            count += 1
    return count


def check_effects(pool, level, tmp_path, endpoints) -> None:
    """The pool does at this level what the table says."""
    effect = EFFECTS[level]
    most = min(256 * KIB, effect.most_chunk or 256 * KIB)
    assert pool.copy(endpoints.zeros(MIB), endpoints.nowhere()).chunks == MIB // most
    pool.acquire(100 * KIB).release()
    pool.look_after()
    assert (pool.stats().idle_bytes > 0) is effect.keeps_idle
    with (tmp_path / "from").open("wb+") as src, (tmp_path / "to").open("wb") as dst:
        src.write(bytes(300 * KIB))
        src.seek(0)
        assert (pool.copy(src, dst).strategy is Strategy.DIRECT) is effect.kernel_first
    assert places(pool) == max(1, int(MOST * effect.large_operations))
    assert pool.stats().pressure is level


@pytest.mark.parametrize("level", list(PressureLevel))
def test_each_level_changes_what_the_table_says_and_all_of_it_passes(pool, root, clock, tmp_path, level, endpoints):
    check_effects(pool, NORMAL, tmp_path, endpoints)
    step(pool, root, clock, level)
    assert pool.pressure is level
    check_effects(pool, level, tmp_path, endpoints)
    assert calm_down(pool, root, clock)[-1] is NORMAL
    check_effects(pool, NORMAL, tmp_path, endpoints)


def test_the_levels_one_after_the_other_up_and_down(pool, root, clock, tmp_path, endpoints):
    for level in (*PressureLevel, HIGH, CRITICAL):
        step(pool, root, clock, level)
        assert pool.pressure is max(level, pool.pressure)
        check_effects(pool, pool.pressure, tmp_path, endpoints)
    assert calm_down(pool, root, clock) == [CRITICAL, HIGH, ELEVATED, NORMAL]


def test_noise_around_a_threshold_does_not_make_it_flap(pool, root, clock):
    """Use swings by 2 % around the threshold of HIGH, a thousand times: the level rises once and stays."""
    changes = 0
    before = pool.pressure
    for share in itertools.islice(itertools.cycle((0.89, 0.91, 0.895, 0.905, 0.888)), 1000):
        root.v2(current=int(share * LIMIT), max=LIMIT)
        clock.advance(1.0)
        pool.maintain()
        changes += pool.pressure is not before
        before = pool.pressure
    assert changes == 1 + (pool.monitor.alerts[0].value == ELEVATED) and pool.pressure is HIGH


def test_each_change_is_an_alert_to_the_log_and_to_who_listens(pool, root, clock, caplog):
    heard = []
    pool.monitor.listen(heard.append)
    with caplog.at_level(logging.INFO, logger="daramjwee"):
        step(pool, root, clock, HIGH)
        step(pool, root, clock, CRITICAL)
        calm_down(pool, root, clock)
    assert [int(alert.value) for alert in heard] == [HIGH, CRITICAL, HIGH, ELEVATED, NORMAL]
    assert [alert.state.value for alert in heard] == ["raised"] * 4 + ["cleared"]
    assert "NORMAL to HIGH" in heard[0].message and "memory" in heard[0].message
    records = [record for record in caplog.records if getattr(record, "event", "") == "pool.alert"]
    assert [record.levelno for record in records[:2]] == [logging.WARNING, logging.ERROR]
    assert records[-1].levelno == logging.INFO and not pool.monitor.active


def test_what_the_pool_is_told_holds_until_another_level_is_told(pool, root, clock):
    """For what no source shows: `relieve` is the least there is."""
    assert pool.relieve(ELEVATED) == 0
    step(pool, root, clock, NORMAL)
    assert pool.pressure is ELEVATED
    step(pool, root, clock, HIGH)
    assert pool.pressure is HIGH
    calm_down(pool, root, clock)
    assert pool.pressure is ELEVATED
    pool.relieve(NORMAL)
    assert pool.pressure is NORMAL


def test_a_callback_may_use_the_pool_and_its_failure_is_its_own(pool, root, clock):
    def use(alert) -> None:
        pool.maintain()
        with pool.acquire(4 * KIB):
            raise ValueError("a slip of the program")

    pool.monitor.listen(use)
    step(pool, root, clock, CRITICAL)
    assert pool.pressure is CRITICAL and pool.monitor.callback_failures == 1
    assert pool.stats().active_buffers == 0


def test_who_maintains_while_another_looks_has_looked_itself(pool, root, clock, announced):
    """That thread, or the one that looks after all pools, has read what was so before: after the call the pool feels what
    is so now, and its alerts are out."""
    told, go, heard = threading.Event(), threading.Event(), []

    def tell(alert) -> None:
        heard.append(int(alert.value))
        told.set()
        assert go.wait(30)

    pool.monitor.listen(tell)
    pool._care._looking = announced(pool._care._looking)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(step, pool, root, clock, ELEVATED)
        assert told.wait(30) and pool.pressure is ELEVATED
        second = threads.submit(step, pool, root, clock, CRITICAL)
        assert pool._care._looking.found_taken.wait(30)
        go.set()
        first.result(30)
        second.result(30)
    assert pool.pressure is CRITICAL and heard == [ELEVATED, CRITICAL]


def test_a_callback_that_takes_long_holds_up_nobody_for_long(pool, root, clock, monkeypatch):
    monkeypatch.setattr("daramjwee.buffers.care.PATIENCE_SECONDS", 0.01)
    with ThreadPoolExecutor(1) as other:

        def maintain_elsewhere(alert) -> None:
            other.submit(pool.maintain).result(30)

        pool.monitor.listen(maintain_elsewhere)
        step(pool, root, clock, CRITICAL)
    assert pool.pressure is CRITICAL and pool.monitor.callback_failures == 0


def test_operations_under_way_end_as_they_began_when_pressure_comes(pool, root, clock):
    """Eight large leases are out; four places are left; none is given before four have come back."""
    held = [pool.acquire(256 * KIB) for _ in range(MOST)]
    step(pool, root, clock, HIGH)
    for number, lease in enumerate(held):
        lease.view[0] = number
    for lease in held[:4]:
        with pytest.raises(Overloaded):
            pool.acquire(256 * KIB, timeout=0)
        lease.release()
    with pytest.raises(Overloaded):
        pool.acquire(256 * KIB, timeout=0)
    held[4].release()
    pool.acquire(256 * KIB, timeout=0).release()
    assert [lease.view[0] for lease in held[5:]] == [5, 6, 7]
    for lease in held[5:]:
        lease.release()


def test_a_plain_pool_feels_pressure_too(root, clock):
    root.v2(current=int(0.97 * LIMIT), max=LIMIT)
    with BufferPool(pressure=MemoryPressure(root=root.path, clock=clock), clock=clock) as pool:
        pool.maintain()
        assert pool.pressure is CRITICAL
        pool.acquire(4 * KIB).release()
        pool.look_after()
        assert pool.stats().arena_bytes == 0


def test_where_pressure_is_read_must_be_what_reads_it():
    with pytest.raises(TypeError, match="pressure of a buffer pool is a MemoryPressure, not 3"):
        BufferPool(pressure=3)


def test_a_reconfigured_pool_keeps_the_part_of_the_gate_that_pressure_leaves(pool, root, clock):
    step(pool, root, clock, HIGH)
    pool.reconfigure(pool.config.replace(max_concurrent_large_ops=6))
    assert places(pool) == 3
    calm_down(pool, root, clock)
    assert places(pool) == 6


class Overtaken:
    """Calls `meanwhile` at the first call of `call`, once that is decided and before it is done."""

    def __init__(self, call, meanwhile) -> None:
        self.call, self.meanwhile = call, meanwhile

    def __call__(self, *args, **kwargs):
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return self.call(*args, **kwargs)


@pytest.mark.parametrize("where", ["chunks", "gate", "alert"])
def test_of_two_who_tell_a_pool_of_pressure_at_once_the_last_one_holds(pool, monkeypatch, where):
    """What one had decided before the other came is not done after it: the memory that is kept, the places in the gate,
    and the alert that is told are those of the level that the pool has."""
    heard = []
    pool.monitor.listen(lambda alert: heard.append(int(alert.value)))
    of, name = {
        "chunks": (pool._chunks, "relieve"), "gate": (pool.gate, "reconfigure"), "alert": (pool.monitor, "note_pressure"),
    }[where]  # fmt: skip
    monkeypatch.setattr(of, name, Overtaken(getattr(of, name), lambda: pool.relieve(NORMAL)))
    pool.relieve(CRITICAL)
    assert pool.pressure is NORMAL and pool._chunks.keeps_idle and places(pool) == MOST
    assert not pool.monitor.active and heard[-1:] in ([], [NORMAL])


def test_an_interrupt_while_pressure_is_felt_leaves_all_of_it_to_the_next_look(pool, monkeypatch):
    def interrupt(*limits) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(pool.gate, "reconfigure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pool.relieve(CRITICAL)
    pool.maintain()
    assert pool.pressure is CRITICAL and places(pool) == MOST // 4 and not pool._chunks.keeps_idle


def test_a_finalizer_that_asks_while_the_monitor_is_made_gets_the_same(root, clock, monkeypatch):
    """The collector may run in the making of it, which takes no lock meanwhile."""
    with BufferPool(clock=clock) as pool:
        monkeypatch.setattr(
            "daramjwee.buffers.insight.monitor.Monitor", Overtaken(Monitor, lambda: asked.append(pool.monitor))
        )
        asked = []
        assert pool.monitor is asked[0]
