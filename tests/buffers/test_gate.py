"""LargeOperationGate: the limits, the line, and that nothing is ever left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import sys
import threading
import warnings
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.buffers import gate as gate_module
from daramjwee.buffers.gate import GateStats, LargeOperationGate, Priority, Slot
from daramjwee.errors import Closed, ConfigError, LimitExceeded, Overloaded
from daramjwee.testing import ManualClock

HIGH, NORMAL, LOW = Priority


@pytest.fixture
def second_look():
    """This test needs waiters that look again by themselves."""


@pytest.fixture(autouse=True)
def news_alone_wake(request, monkeypatch):
    """Waiters look again after a while, in case of an interrupt; that would hide a wake-up that is lost otherwise."""
    if "second_look" not in request.fixturenames:
        monkeypatch.setattr(gate_module, "LOOK_AGAIN_SECONDS", 1e5)
        monkeypatch.setattr(gate_module, "LOOK_AGAIN_ASYNC_SECONDS", 1e5)


def until(condition) -> None:
    """Wait for what another thread is about to do."""
    pause = threading.Event()
    for _ in range(20_000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it never came")


def at_rest(gate: LargeOperationGate) -> GateStats:
    """Nothing is left behind: all places can be had at once, without the lock; the counters."""
    stats = gate.stats()
    assert (stats.active, stats.active_bytes, stats.waiting) == (0, 0, 0)
    assert not gate.alert and not gate._kernel.line and not gate._news and not gate.ended and not gate.lost
    assert len(gate.free) == gate._kernel.max_operations
    return stats


async def until_waiting(gate: LargeOperationGate, count: int) -> None:
    """Let the tasks of this loop go on until so many stand in line."""
    for _ in range(20_000):
        if gate.stats().waiting >= count:
            return
        await asyncio.sleep(0)
    raise AssertionError("they never came")


class Line:
    """Waiters in threads, each of whom notes its name when it is let in and goes at once."""

    def __init__(self, gate: LargeOperationGate) -> None:
        self.gate = gate
        self.entered: list[str] = []
        self.failed: dict[str, BaseException] = {}
        self.threads: list[threading.Thread] = []

    def join(self, name: str, priority: Priority = NORMAL, need: int = 0, timeout: float = 1e6) -> None:
        """Comes back when it stands in the line."""
        before = self.gate.stats().waiting

        def wait() -> None:
            try:
                with self.gate.acquire(need, priority=priority, timeout=timeout):
                    self.entered.append(name)
            except Exception as error:
                self.failed[name] = error

        thread = threading.Thread(target=wait)
        thread.start()
        self.threads.append(thread)
        until(lambda: self.gate.stats().waiting > before)

    def end(self) -> list[str]:
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()
        return self.entered


# -- what it is asked and says ----------------------------------------------------------------------------------


def test_operations_and_bytes_are_reserved_in_one_request():
    """One more of either is refused; given back, it fits again."""
    gate = LargeOperationGate(2, "1MiB")
    first = gate.acquire("600KiB")
    assert repr(gate) == "<LargeOperationGate 1/2 busy (600KiB of 1MiB), 0 waiting>"
    assert gate.try_acquire(425 * 1024) is None, "too many bytes"
    second = gate.acquire(424 * 1024)
    assert gate.try_acquire() is None, "a third operation"
    assert gate.stats().active_bytes == 1024 * 1024
    second.release()
    first.release()
    with gate.acquire(1024 * 1024) as whole:
        assert repr(whole) == "<Slot>" and not whole.released
        assert gate.try_acquire(1) is None
        with gate.acquire(timeout=0):  # no bytes, but a place
            assert gate.stats().active == 2
    assert repr(whole) == "<Slot released>" and whole.released
    assert repr(LargeOperationGate(3)) == "<LargeOperationGate 0/3 busy, 0 waiting>"
    at_rest(gate)


def test_the_example_of_the_page_holds():
    """An operation that comes while nobody waits has an equal share reserved for it."""
    gate = LargeOperationGate(4, "1MiB")
    with gate.acquire(5):
        assert repr(gate) == "<LargeOperationGate 1/4 busy (256KiB of 1MiB), 0 waiting>"
    at_rest(gate)


def test_what_can_never_fit_is_told_at_once():
    """`LimitExceeded`, in whichever way it is asked, and nothing is left behind."""
    gate = LargeOperationGate(4, 1000)
    for ask in (gate.acquire, gate.try_acquire, lambda need: asyncio.run(gate.acquire_async(need))):
        with pytest.raises(LimitExceeded, match=r"operation of 1001B can never begin.*1000B together.*memory_limit"):
            ask(1001)
    at_rest(gate)


@pytest.mark.parametrize("need", [-1, "much", 1.5, True])
def test_a_need_that_cannot_be_is_refused(need):
    """`ConfigError` names it, on the quick way too."""
    gate = LargeOperationGate(4, 1000)
    for ask in (gate.acquire, gate.try_acquire, lambda need: asyncio.run(gate.acquire_async(need))):
        with pytest.raises(ConfigError, match="need"):
            ask(need)
    at_rest(gate)


def test_a_priority_and_a_timeout_that_cannot_be_are_refused():
    """Not only under load, when it is too late to notice."""
    gate = LargeOperationGate(4)
    with pytest.raises(ConfigError, match=r"priority = 'high': must be one of Priority.HIGH, Priority.NORMAL"):
        gate.acquire(priority="high")
    with pytest.raises(ConfigError, match="timeout"):
        gate.acquire(timeout=-1)
    with pytest.raises(ConfigError, match="timeout"):
        asyncio.run(gate.acquire_async(timeout="soon"))
    at_rest(gate)


def test_limits_that_cannot_be_are_refused_all_at_once():
    """Field, value and mend of each."""
    with pytest.raises(ConfigError) as caught:
        LargeOperationGate(0, "many", max_queued=-1, ageing="soon")
    assert [problem.field for problem in caught.value.problems] == [
        "max_operations", "max_queued", "max_bytes", "ageing",
    ]  # fmt: skip
    gate = LargeOperationGate(2)
    with pytest.raises(ConfigError, match="max_operations = True"):
        gate.reconfigure(True, None, 5)
    assert repr(gate) == "<LargeOperationGate 0/2 busy, 0 waiting>"


def test_no_wait_means_now_or_overloaded():
    """`timeout=0`: the message has the figures and what to change."""
    gate = LargeOperationGate(1, "1MiB")
    with gate.acquire():
        with pytest.raises(
            Overloaded, match=r"within .*us, 0 were ahead.*1/1 busy.*max_concurrent_large_ops"
        ) as caught:
            gate.acquire(timeout=0)
        with pytest.raises(Overloaded):
            asyncio.run(gate.acquire_async(timeout=0))
    assert caught.value.retry_after == pytest.approx(0.1)
    stats = at_rest(gate)
    assert (stats.entered, stats.timed_out, stats.waited, stats.refused) == (1, 2, 0, 0)


def test_a_full_line_refuses_at_once_with_a_time_to_retry():
    """The estimate: the mean time a place is held, by the places ahead, over the places there are."""
    clock = ManualClock()
    gate = LargeOperationGate(1, max_queued=0, clock=clock)
    with gate.acquire(), pytest.raises(Overloaded, match=r"0 large operations are waiting already \(limit 0\)"):
        gate.acquire()
    gate = LargeOperationGate(2, 100, max_queued=2, clock=clock)
    big = gate.acquire(60)  # more than a share: its hold is measured
    clock.advance(8)
    big.release()
    slots = [gate.acquire(), gate.acquire()]
    line = Line(gate)
    line.join("a")
    line.join("b")
    with pytest.raises(Overloaded, match=r"2 large operations are waiting already \(limit 2\) and 2 are") as caught:
        gate.acquire()
    assert caught.value.retry_after == pytest.approx(8 * 3 / 2)
    for slot in slots:
        slot.release()
    assert sorted(line.end()) == ["a", "b"] and at_rest(gate).refused == 1


# -- the line ---------------------------------------------------------------------------------------------------


def test_the_higher_priority_goes_first_and_equals_in_order_of_arrival():
    """All came at the same moment."""
    gate = LargeOperationGate(1, clock=ManualClock())
    line = Line(gate)
    slot = gate.acquire()
    for name, priority in (("low", LOW), ("normal", NORMAL), ("n2", NORMAL), ("high", HIGH), ("l2", LOW), ("h2", HIGH)):
        line.join(name, priority)
    stats = gate.stats()
    assert (stats.waiting, stats.waiting_high, stats.waiting_normal, stats.waiting_low) == (6, 2, 2, 2)
    slot.release()
    assert line.end() == ["high", "h2", "normal", "n2", "low", "l2"]
    at_rest(gate)


def test_who_waits_long_enough_goes_before_a_higher_priority():
    """A LOW that came more than twice `ageing` before a HIGH: nobody starves."""
    clock = ManualClock()
    gate = LargeOperationGate(1, ageing=10, clock=clock)
    line = Line(gate)
    slot = gate.acquire()
    line.join("low at 0", LOW)
    line.join("normal at 0", NORMAL)
    clock.advance(9)
    line.join("high at 9", HIGH)
    clock.advance(2)
    line.join("high at 11", HIGH)
    clock.advance(8)
    line.join("high at 19", HIGH)
    clock.advance(2)
    line.join("high at 21", HIGH)
    slot.release()
    assert line.end() == ["high at 9", "normal at 0", "high at 11", "high at 19", "low at 0", "high at 21"]
    stats = at_rest(gate)
    assert (stats.entered, stats.waited) == (7, 6)
    assert stats.wait_seconds == pytest.approx(21 + 21 + 12 + 10 + 2) and stats.longest_wait == pytest.approx(21)


def test_the_head_of_the_line_is_not_overtaken_by_what_is_smaller():
    """A big one would starve. A newcomer of higher priority that fits is the head, and does not wait."""
    gate = LargeOperationGate(3, 100, clock=ManualClock())
    slot = gate.acquire(80)
    line = Line(gate)
    line.join("big", NORMAL, 90)
    line.join("small", NORMAL, 1)
    assert gate.try_acquire(1) is None
    with gate.acquire(20, priority=HIGH, timeout=0):
        assert gate.stats().active == 2
    slot.release()
    assert sorted(line.end()) == ["big", "small"]
    at_rest(gate)


def test_a_deadline_passes_by_the_clock_handed_in(second_look):
    """`Overloaded` names the wait and the place in line; who stood behind moves up."""
    clock = ManualClock()
    gate = LargeOperationGate(1, 100, clock=clock)
    slot = gate.acquire(1)
    line = Line(gate)
    line.join("patient", NORMAL, 1)
    line.join("hasty", NORMAL, 1, timeout=5)
    clock.advance(4.9)
    gate.attend()
    assert gate.stats().waiting == 2
    clock.advance(0.2)
    until(lambda: "hasty" in line.failed)
    assert isinstance(line.failed["hasty"], Overloaded)
    assert "within 5.10s, 1 were ahead in line" in str(line.failed["hasty"])
    slot.release()
    assert line.end() == ["patient"] and at_rest(gate).timed_out == 1


def test_threads_and_tasks_stand_in_one_line():
    """Each is let in at its turn, whichever kind it is."""
    gate = LargeOperationGate(1, clock=ManualClock())
    line = Line(gate)
    slot = gate.acquire()

    async def task(name: str, priority: Priority) -> None:
        with await gate.acquire_async(priority=priority, timeout=1e6):
            line.entered.append(name)

    async def main() -> None:
        tasks = []
        for number in range(8):
            priority = (HIGH, NORMAL)[number // 4]
            if number % 2:
                line.join(f"thread {number}", priority)
            else:
                before = gate.stats().waiting
                tasks.append(asyncio.create_task(task(f"task {number}", priority)))
                await until_waiting(gate, before + 1)
        slot.release()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert line.end() == [f"{'thread' if number % 2 else 'task'} {number}" for number in range(8)]
    at_rest(gate)


# -- limits that change, and the end ------------------------------------------------------------------------------


def test_lower_limits_only_delay_new_operations():
    """Four under way go on; the next comes in when fewer than the new limit run."""
    gate = LargeOperationGate(4, 400)
    slots = [gate.acquire(100) for _ in range(4)]
    gate.reconfigure(2, 200, 10)
    assert repr(gate) == "<LargeOperationGate 4/2 busy (400B of 200B), 0 waiting>"
    for _ in range(2):
        slots.pop().release()
        assert gate.try_acquire() is None
    slots.pop().release()
    slots.append(gate.acquire(100, timeout=0))
    assert gate.try_acquire() is None
    for slot in slots:
        slot.release()
    at_rest(gate)


def test_higher_limits_let_in_who_waits():
    """At once, in order, with nobody giving anything back."""
    gate = LargeOperationGate(1, 100)
    line = Line(gate)
    with gate.acquire(100):
        line.join("second", NORMAL, 50)
        line.join("third", NORMAL, 50)
        gate.reconfigure(3, 200, 10)
        assert sorted(line.end()) == ["second", "third"]
    at_rest(gate)
    gate.reconfigure(3, None, 10)
    with gate.acquire(10**15):
        assert gate.stats().active_bytes == 0
    at_rest(gate)


def test_who_can_never_fit_any_more_is_told():
    """Lower bytes: a waiter that needs more gets `LimitExceeded`, and does not hold up the line."""
    gate = LargeOperationGate(2, 100)
    line = Line(gate)
    slot = gate.acquire(100)
    line.join("big", NORMAL, 80)
    line.join("small", NORMAL, 40)
    gate.reconfigure(2, 50, 10)
    until(lambda: "big" in line.failed)
    assert isinstance(line.failed["big"], LimitExceeded)
    slot.release()
    assert line.end() == ["small"]
    at_rest(gate)


def test_a_closed_gate_lets_nobody_in_and_takes_back_what_is_out():
    """Waiters of both kinds and newcomers get `Closed`; slots out are given back harmlessly."""
    gate = LargeOperationGate(1)
    line = Line(gate)
    slot = gate.acquire()
    line.join("thread")

    async def main() -> None:
        task = asyncio.create_task(gate.acquire_async())
        await until_waiting(gate, 2)
        gate.close()
        with pytest.raises(Closed, match="gate for large operations was closed"):
            await task

    asyncio.run(main())
    line.end()
    assert isinstance(line.failed["thread"], Closed)
    gate.close()
    for ask in (gate.acquire, gate.try_acquire):
        with pytest.raises(Closed):
            ask()
    assert repr(gate) == "<LargeOperationGate closed, 1/1 busy, 0 waiting>"
    slot.release()
    stats = gate.stats()
    assert (stats.active, stats.waiting, stats.entered) == (0, 0, 1)


# -- slots in unusual endings ---------------------------------------------------------------------------------------


def test_a_slot_counts_once_however_often_it_is_released():
    """Again, at the end of a `with` after an early release, and by many threads at once."""
    gate = LargeOperationGate(2)
    with gate.acquire() as slot:
        slot.release()
        slot.release()
    start = threading.Barrier(4)

    def release(slot: Slot) -> None:
        start.wait()
        slot.release()

    for _ in range(50):
        slot = gate.acquire()
        threads = [threading.Thread(target=release, args=(slot,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert gate.stats().active == 0 and len(gate.free) == 2
    at_rest(gate)


def test_the_quick_way_takes_no_lock_and_giving_back_never_waits():
    """With the lock taken: a place is had and given back; what needs the lock's holder is left to it."""
    gate = LargeOperationGate(2, 100)
    big = gate.acquire(80)
    with gate._lock:  # what a finalizer finds that interrupts the gate's own work
        big.release()
    assert gate.stats().active == 0
    with gate._lock:
        with gate.acquire(50):
            pass
        slot = gate.try_acquire(50)
        assert slot is not None
        slot.release()
    at_rest(gate)


def test_nobody_slips_in_between_a_give_back_and_who_waits():
    """What came back, and has not been attended to yet, belongs to the line; both quick ways see that."""
    gate = LargeOperationGate(1)
    line = Line(gate)
    slot = gate.acquire()
    line.join("waiter")
    entered = []
    with gate._lock:
        slot.release()
        assert gate.take_free(0) is None and len(gate.free) == 1
        newcomer = threading.Thread(target=lambda: gate.acquire(timeout=30).release() or entered.append(None))
        newcomer.start()
        newcomer.join(0.05)
        assert not entered and len(gate.free) == 1
    gate.attend()
    assert line.end() == ["waiter"]
    newcomer.join(30)
    assert entered and at_rest(gate).waited >= 1


def test_a_lost_slot_gives_its_place_back():
    """With a `ResourceWarning`; who waits is let in without anybody's help. Slots of both ways."""
    gate = LargeOperationGate(1, 100)
    for ask in (gate.acquire, lambda: asyncio.run(gate.acquire_async())):
        box: list[Slot] = [ask()]
        line = Line(gate)
        line.join("waiter", timeout=30)
        with pytest.warns(ResourceWarning, match="a slot of a LargeOperationGate was lost without release"):
            box.clear()
        assert line.end() == ["waiter"]
    gate = LargeOperationGate(2, 100)
    with pytest.warns(ResourceWarning, match="lost"):
        gate.acquire(100)
    assert at_rest(gate).lost == 1


def test_a_gate_that_is_dropped_says_nothing():
    """Free places end with their gate."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gate = LargeOperationGate(3)
        gate.acquire().release()
        del gate
        for _ in range(3):
            gc.collect()


def test_a_forked_child_begins_with_an_empty_gate():
    """The lock is free, nobody waits, all places are there; inherited slots do nothing on release."""
    gate = LargeOperationGate(2, 100)
    slots = [gate.acquire(50)]
    inherited = gate.acquire(20)
    line = Line(gate)
    line.join("waiter")
    with gate._lock:  # as if another thread were inside at the moment of the fork
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads is what is tested
            pid = os.fork()
    if pid == 0:
        status = 1
        try:
            at_rest(gate)
            taken = [gate.acquire(50, timeout=0), gate.acquire(50, timeout=0)]
            for slot in slots:
                slot.release()
            assert gate.stats().active == 2 and gate.try_acquire() is None
            del inherited
            gc.collect()
            assert gate.stats().active == 2 and gate.stats().lost == 0
            for slot in taken:
                slot.release()
            assert at_rest(gate).entered == 2
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert gate.stats().active == 2 and gate.stats().waiting == 1
    for slot in (*slots, inherited):
        slot.release()
    assert line.end() == ["waiter"]
    at_rest(gate)


# -- tasks ------------------------------------------------------------------------------------------------------


def test_a_cancelled_task_leaves_the_line():
    """The next one is served, and the count is exact."""

    async def main() -> None:
        gate = LargeOperationGate(1, 100)
        slot = await gate.acquire_async(100)
        tasks = [asyncio.create_task(gate.acquire_async(60)) for _ in range(5)]
        await until_waiting(gate, 5)
        for task in tasks[:4]:
            task.cancel()
        await asyncio.wait(tasks[:4])
        assert gate.stats().waiting == 1 and gate.stats().cancelled == 4
        slot.release()
        (await tasks[4]).release()
        at_rest(gate)

    asyncio.run(main())


def test_a_task_cancelled_in_the_moment_of_its_grant_hands_it_on():
    """Granted and cancelled before it runs again: the next in line has the place."""

    async def main() -> None:
        gate = LargeOperationGate(1)
        slot = await gate.acquire_async()
        first, second = (asyncio.create_task(gate.acquire_async()) for _ in range(2))
        await until_waiting(gate, 2)
        slot.release()  # the first is granted, and will see it when the loop goes on
        assert gate.stats().waiting == 1
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        (await second).release()
        stats = at_rest(gate)
        assert (stats.entered, stats.cancelled) == (3, 0)

    asyncio.run(main())


@pytest.mark.parametrize("granted_before", [False, True])
def test_a_waiter_of_a_closed_loop_swallows_no_grant(granted_before):
    """Whether its loop is closed before the grant or between the grant and its news: the next one is let in."""
    gate = LargeOperationGate(1)
    slot = gate.acquire()
    loop = asyncio.new_event_loop()
    task = loop.create_task(gate.acquire_async(timeout=1e6))
    task._log_destroy_pending = False  # it is meant to be left alone
    while gate.stats().waiting == 0:
        loop.call_soon(loop.stop)
        loop.run_forever()
    if granted_before:
        slot.release()
        loop.close()
        with gate.acquire(timeout=30):
            pass
    else:
        line = Line(gate)
        line.join("next")
        loop.close()
        slot.release()
        assert line.end() == ["next"]
    at_rest(gate)
    del task
    gc.collect()
    at_rest(gate)


def test_a_storm_of_cancellations_leaves_nothing_behind():
    """Tasks of two loops and threads, many of them cancelled or out of time, some again and again."""
    gate = LargeOperationGate(3, 300)
    wrong: list[object] = []
    running = [0, 0]
    lock = threading.Lock()

    @contextmanager
    def inside(need: int):
        with lock:
            running[0] += 1
            running[1] += need
            if running[0] > 3 or running[1] > 300:
                wrong.append(tuple(running))
        try:
            yield
        finally:
            with lock:
                running[0] -= 1
                running[1] -= need

    async def operate(rng: random.Random) -> None:
        need = rng.choice((0, 50, 150, 300))
        with await gate.acquire_async(need, priority=rng.choice(list(Priority)), timeout=60):
            with inside(need):
                await asyncio.sleep(0)

    async def main(seed: int) -> None:
        rng = random.Random(seed)
        tasks = []
        for _ in range(300):
            tasks.append(asyncio.create_task(operate(rng)))
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            if rng.random() < 0.6:
                rng.choice(tasks).cancel()
        await asyncio.wait(tasks)
        wrong.extend(t.exception() for t in tasks if not t.cancelled() and t.exception())

    def hasty(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(100):
            need = rng.choice((0, 100, 200))
            try:
                with gate.acquire(need, timeout=rng.choice((0, 0.0005, 60))), inside(need):
                    pass
            except Overloaded:
                continue

    threads = [threading.Thread(target=lambda seed=seed: asyncio.run(main(seed))) for seed in range(2)]
    threads += [threading.Thread(target=hasty, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and running == [0, 0]
    assert at_rest(gate).cancelled > 0


# -- threads ------------------------------------------------------------------------------------------------------


def test_sixty_four_threads_leave_exact_counts():
    """Never over a limit, checked inside; every operation is counted once, with and without a wait."""
    gate = LargeOperationGate(5, 1000)
    lock, running, worst, wrong = threading.Lock(), [0, 0], [0, 0], []
    start = threading.Barrier(64)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        start.wait()
        for _ in range(150):
            need = rng.choice((0, 10, 200, 201, 500, 1000))
            try:
                with gate.acquire(need, priority=rng.choice(list(Priority)), timeout=60):
                    os.sched_yield()  # lets others come while this one is inside
                    with lock:
                        running[0] += 1
                        running[1] += need
                        worst[0], worst[1] = max(worst[0], running[0]), max(worst[1], running[1])
                    with lock:
                        running[0] -= 1
                        running[1] -= need
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and running == [0, 0] and worst[0] <= 5 and worst[1] <= 1000
    stats = at_rest(gate)
    assert stats.entered == 64 * 150 and 0 < stats.waited <= stats.entered
    assert stats.refused == stats.timed_out == stats.cancelled == stats.lost == 0
    assert stats.longest_wait <= stats.wait_seconds


def test_a_thousand_in_line_leave_from_the_middle():
    """As many as the line has room for, and one more is refused; all are cancelled, in any order."""

    async def main() -> None:
        gate = LargeOperationGate(1)
        slot = gate.acquire()
        tasks = [asyncio.create_task(gate.acquire_async(timeout=1e6)) for _ in range(1024)]
        await until_waiting(gate, 1024)
        with pytest.raises(Overloaded, match=r"1024 large operations are waiting already \(limit 1024\)"):
            await gate.acquire_async()
        random.Random(5).shuffle(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        slot.release()
        stats = at_rest(gate)
        assert (stats.cancelled, stats.refused, stats.entered) == (1024, 1, 1)

    asyncio.run(main())


# -- interrupts ------------------------------------------------------------------------------------------------------


class Interrupts:
    """`KeyboardInterrupt` in this thread, by a timer's signal: as many as were asked for, then no more."""

    def __init__(self, monkeypatch) -> None:
        self.left = 0
        monkeypatch.setattr(sys, "unraisablehook", lambda report: None)  # one inside of a finalizer ends there

    def __enter__(self):
        self.before = signal.signal(signal.SIGALRM, self.interrupt)
        return self

    def __exit__(self, *error):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)

    def interrupt(self, number, frame):
        if self.left <= 0:
            return  # it was on its way already when the timer was stopped
        if "coverage" in frame.f_code.co_filename:
            # In the tracer, which would never let go of its own lock: again in a moment.
            signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0003)
            return
        self.left -= 1
        if not self.left:
            signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt

    def arm(self, count: int, first: float, then: float) -> None:
        # The timer first: an interrupt between the two lines would leave the rest of them waiting for no timer.
        signal.setitimer(signal.ITIMER_REAL, first, then)
        self.left = count


def test_an_interrupt_while_waiting_leaves_nothing_behind(monkeypatch):
    """The waiter is out of the line, and counted as cancelled."""
    gate = LargeOperationGate(1)

    def interrupt() -> None:
        until(lambda: gate.stats().waiting)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    with gate.acquire():
        with Interrupts(monkeypatch) as interrupts, pytest.raises(KeyboardInterrupt):
            interrupts.left = 1
            other = threading.Thread(target=interrupt)
            other.start()
            gate.acquire(timeout=30)
        other.join()
        assert gate.stats().waiting == 0 and gate.stats().cancelled == 1
    at_rest(gate)


@pytest.mark.filterwarnings("ignore")  # slots lost to an interrupt say so; here, that is what is meant to happen
def test_interrupts_at_any_moment_lose_no_place(monkeypatch, second_look):
    """Hundreds of them, into all that the gate does, with other threads in line: in the end all places are free."""
    gate = LargeOperationGate(2, 100)
    stop = threading.Event()
    wrong: list[BaseException] = []

    def others() -> None:
        try:
            while not stop.is_set():
                with gate.acquire(60, timeout=30):
                    pass
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=others) for _ in range(2)]
    for thread in threads:
        thread.start()
    rng = random.Random(1)

    def operate() -> None:
        while interrupts.left > 0:
            with gate.acquire(rng.choice((0, 50, 100)), timeout=30):
                pass
            gate.stats()

    with Interrupts(monkeypatch) as interrupts:
        for _ in range(300):
            try:
                try:  # the first may come before `arm` is back
                    interrupts.arm(rng.choice((1, 2)), rng.uniform(0.0001, 0.0008), rng.uniform(0.00001, 0.0003))
                    operate()
                except KeyboardInterrupt:
                    operate()  # the second, if there is one, comes here at the latest
            except KeyboardInterrupt:
                pass
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not wrong
    gc.collect()
    gate.stats()
    at_rest(gate)


# -- any order of calls ----------------------------------------------------------------------------------------------


@given(
    st.integers(1, 4),
    st.integers(1, 12),
    st.lists(st.tuples(st.sampled_from(("enter", "leave", "limits")), st.integers(0, 12), st.integers(1, 4))),
)
def test_any_sequence_of_calls_keeps_the_limits_and_refuses_only_what_does_not_fit(operations, most, calls):
    """Against a plain model: what runs fits the limits it entered under; what fits beside the shares is let in."""
    gate = LargeOperationGate(operations, most)
    running: list[tuple[int, int, Slot]] = []  # need, the most that may be reserved for it, slot
    share = most // operations  # the largest so far: a token that was out under it comes back with it
    for call, number, other in calls:
        if call == "enter" and number <= most:
            slot = gate.try_acquire(number)
            count, needed = len(running), sum(need for need, _, _ in running)
            reserved = sum(bound for _, bound, _ in running)
            if slot is None:
                assert count >= operations or reserved + number > most
            else:
                assert count < operations and needed + number <= most
                running.append((number, max(number, share), slot))
        elif call == "leave" and running:
            running.pop(number % len(running))[2].release()
        elif call == "limits":
            operations, most = other, max(1, number)
            gate.reconfigure(operations, most, 5)
            share = max(share, most // operations)
        stats = gate.stats()
        assert stats.active == len(running)
        assert sum(need for need, _, _ in running) <= stats.active_bytes <= sum(bound for _, bound, _ in running)
    for _, _, slot in running:
        slot.release()
    at_rest(gate)
