"""Upkeep: one thread of the process looks after what needs it, and keeps nothing alive."""

from __future__ import annotations

import gc
import io
import os
import threading
import weakref

import pytest

from daramjwee.buffers import AdaptiveBufferPool, AlertRule, BufferPool, BufferPoolConfig
from daramjwee.buffers.upkeep import Upkeep, upkeep
from daramjwee.errors import Overloaded
from daramjwee.testing import ManualClock

KIB = 1024
SOON = BufferPoolConfig(max_idle_age=0.05, metrics_interval=0.05)
PATIENCE = 30.0


class Thing:
    """Counts how often it is looked after; `answers` are what it says, then None for ever."""

    def __init__(self, *answers: float | BaseException | None) -> None:
        self.kept = False
        self.answers = list(answers)
        self.looks = 0
        self.done = threading.Event()

    def look_after(self) -> float | None:
        self.looks += 1
        answer = self.answers.pop(0) if self.answers else None
        if not self.answers:
            self.done.set()
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Watched(BufferPool):
    """Tells when nothing is left to look after."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.rest = threading.Event()

    def look_after(self) -> float | None:
        seconds = super().look_after()
        if seconds is None:
            self.rest.set()
        return seconds


def thread_of(keeper: Upkeep) -> None:
    """Wait until its thread has ended."""
    assert keeper._running.acquire(timeout=PATIENCE)
    keeper._running.release()


def test_what_is_kept_is_looked_after_until_it_needs_that_no_more_and_the_thread_ends():
    keeper, thing = Upkeep(), Thing(0.0, 0.0, None)
    keeper.keep(thing)
    assert thing.done.wait(PATIENCE)
    thread_of(keeper)
    assert thing.looks == 3 and not thing.kept and not keeper._refs


def test_what_comes_back_is_looked_after_again_by_a_new_thread():
    keeper, thing = Upkeep(), Thing(None)
    for times in (1, 2, 3):
        thing.done.clear()
        keeper.keep(thing)
        assert thing.done.wait(PATIENCE)
        thread_of(keeper)
        assert thing.looks == times


def test_a_newcomer_does_not_wait_for_the_sleep_of_the_others():
    keeper, slow, quick = Upkeep(), Thing(3600.0, None), Thing(None)
    looked = threading.Event()
    slow.look_after, look = (lambda: (looked.set(), look())[1]), slow.look_after
    keeper.keep(slow)
    assert looked.wait(PATIENCE)
    keeper.keep(quick)
    assert quick.done.wait(PATIENCE)
    thread_of(keeper)


def test_one_that_fails_is_told_and_the_others_are_looked_after_as_before(caplog, monkeypatch):
    """SystemExit too: it ends this look, not the thread."""
    monkeypatch.setattr("daramjwee.buffers.upkeep.AGAIN_SECONDS", 0.0)
    keeper = Upkeep()
    bad, worse, good = Thing(ValueError("no")), Thing(SystemExit(3)), Thing(0.0, 0.0, None)
    for thing in (bad, worse, good):
        keeper.keep(thing)
    assert good.done.wait(PATIENCE)
    thread_of(keeper)
    assert good.looks == 3
    assert [record.message for record in caplog.records] == ["the upkeep of Thing failed"] * 2


def test_whoever_uses_it_while_it_is_being_given_up_is_looked_after():
    """The narrow place: it needs nothing any more, somebody begins to use it again, and only then it is let go."""
    keeper = Upkeep()

    class Busy(Thing):
        def look_after(self) -> float | None:
            seconds = super().look_after()
            if self.looks == 1:
                assert not self.kept
                keeper.keep(self)  # as another thread would, which has found it not kept
            return seconds

    thing = Busy(None, None)
    keeper.keep(thing)
    assert thing.done.wait(PATIENCE)
    thread_of(keeper)
    assert thing.looks == 2 and not keeper._refs


def test_no_thread_to_be_had_is_no_failure_and_the_next_user_tries_again(monkeypatch):
    keeper, thing = Upkeep(), Thing(None)

    def refuse(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        keeper.keep(thing)
        assert not thing.kept
    keeper.keep(thing)
    assert thing.done.wait(PATIENCE)
    thread_of(keeper)


def test_looking_after_keeps_nothing_alive():
    keeper, thing = Upkeep(), Thing()
    thing.look_after = lambda: None
    keeper._refs[id(thing)] = weakref.ref(thing)
    gone = weakref.ref(thing)
    del thing
    gc.collect()
    assert gone() is None and keeper.look() is None and not keeper._refs


@pytest.mark.parametrize("size", [4 * KIB, 300 * KIB, 3 << 20])
def test_idle_memory_of_a_pool_that_nobody_uses_goes_back_by_itself(size):
    """Nobody calls maintain, nobody leases again."""
    with Watched(SOON) as pool:
        pool.acquire(size).release()
        assert pool.rest.wait(PATIENCE)
        assert pool.stats().arena_bytes == pool.ledger.held == 0


def test_lost_leases_are_taken_up_by_themselves():
    with Watched(SOON) as pool:
        with pytest.warns(ResourceWarning, match="lost without release"):
            pool.acquire(4 * KIB)
        assert pool.rest.wait(PATIENCE)
        assert pool._chunks.leases_lost == 1 and pool.ledger.held == 0


def test_a_pool_that_is_dropped_is_not_kept_alive_by_the_thread():
    pool = AdaptiveBufferPool()
    pool.acquire(4 * KIB).release()
    ledger, gone = pool.ledger, weakref.ref(pool)
    del pool
    with upkeep._looking:  # between two looks
        gc.collect()
    assert gone() is None and ledger.held == 0


def test_a_closed_pool_is_left_alone():
    pool = AdaptiveBufferPool()
    lease = pool.acquire(4 * KIB)
    pool.close()
    assert pool.look_after() is None
    lease.release()


def test_a_forked_child_looks_after_what_it_uses_itself():
    """The thread is not there; the first use in the child starts another."""
    with AdaptiveBufferPool(SOON) as pool:
        pool.acquire(4 * KIB).release()
        child = os.fork()
        if not child:
            status = 1
            try:
                rest = threading.Event()
                look = pool._care.look_after
                pool._care.look_after = lambda now: (seconds := look(now), seconds is None and rest.set())[0]
                assert not upkeep.alive
                pool.acquire(4 * KIB).release()
                status = 0 if rest.wait(PATIENCE) and pool.stats().arena_bytes == 0 else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


def test_an_alert_that_nothing_clears_does_not_keep_the_thread_for_ever(unkept):
    """A latency that was too long: nothing is timed any more, so nothing is known of it, and two looks are enough."""
    clock = ManualClock()
    with BufferPool(SOON.replace(enable_detailed_metrics=True), clock=clock) as pool:
        pool.monitor.watch(AlertRule("average_latency_ns", 0))
        pool.acquire(4 * KIB).release()
        answers = []
        while not answers or answers[-1] is not None:
            clock.advance(1)
            answers.append(pool.look_after())
        assert pool.monitor.active and len(answers) <= 6


def test_counters_of_what_went_wrong_clear_before_the_thread_ends(unkept):
    clock = ManualClock()
    with AdaptiveBufferPool(SOON.replace(max_pool_bytes="1MiB"), clock=clock) as pool:
        with pool.acquire("1MiB"), pytest.raises(Overloaded):
            pool.acquire("1MiB", timeout=0)
        clock.advance(1)
        assert pool.look_after() is not None and pool.monitor.active
        while pool.look_after() is not None:
            clock.advance(1)
        assert not pool.monitor.active


def test_what_failed_is_looked_after_again_as_it_may_hold_memory(monkeypatch):
    monkeypatch.setattr("daramjwee.buffers.upkeep.AGAIN_SECONDS", 0.0)
    keeper, thing = Upkeep(), Thing(SystemExit(3), ValueError("no"), None)
    keeper.keep(thing)
    assert thing.done.wait(PATIENCE)
    thread_of(keeper)
    assert thing.looks == 3 and not keeper._refs


def test_copies_that_need_no_memory_start_no_thread_each(unkept):
    """A thread for each copy by the kernel takes more than the copy: who holds nothing is looked after a while longer."""
    clock = ManualClock()
    with BufferPool(SOON, clock=clock) as pool:
        pool.copy(io.BytesIO(bytes(100)), io.BytesIO())
        assert pool.kept
        assert pool.look_after() is not None
        clock.advance(SOON.metrics_interval / 2)
        assert pool.look_after() is not None
        clock.advance(SOON.metrics_interval)
        assert pool.look_after() is None
        assert pool.look_after() is not None, "used again: looked after as long"
