"""Pauses of the collector: measured while somebody watches who is alive, whatever stops that in the midst."""

from __future__ import annotations

import gc
import os
import sys
import threading

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPool, BufferPoolConfig
from daramjwee.buffers.allocation import CollectorWatch, collector

PLAIN = BufferPoolConfig()
DETAILED = BufferPoolConfig(enable_detailed_metrics=True)


class Watcher:
    pass


@pytest.fixture
def watch():
    made = CollectorWatch()
    yield made
    while made._note in gc.callbacks:
        gc.callbacks.remove(made._note)


def test_pauses_are_measured_while_somebody_watches(watch):
    one, other = Watcher(), Watcher()
    watch.watch(one)
    watch.watch(other)
    watch.unwatch(one)
    gc.collect()
    before = watch.seconds
    assert before > 0
    watch.unwatch(other)
    gc.collect()
    assert watch.seconds == before and watch._note not in gc.callbacks


def test_to_begin_or_end_twice_changes_nothing(watch):
    one, other = Watcher(), Watcher()
    watch.unwatch(one)
    for _ in range(2):
        watch.watch(one)
    watch.watch(other)
    for _ in range(2):
        watch.unwatch(one)
    assert watch._note in gc.callbacks
    watch.unwatch(other)
    assert watch._note not in gc.callbacks


def test_who_was_dropped_watches_no_more(watch):
    """A pool that nobody closed: it would be measured for as long as the process lives."""
    watch.watch(Watcher())
    gc.collect()
    before = watch.seconds
    gc.collect()
    assert watch.seconds == before


def test_a_pause_that_began_before_anybody_watched_is_left_out(watch):
    """A finalizer begins to watch: the last start that was seen may be an hour ago."""
    watch.watch(one := Watcher())
    gc.collect()
    before = watch.seconds
    watch._note("stop", {})
    assert watch.seconds == before
    watch.unwatch(one)


def test_a_child_forked_while_another_thread_changes_what_is_watched_goes_on():
    """No lock that the other thread holds is waited for, and what it had half done is undone."""
    with BufferPool(DETAILED) as pool:
        inside, go = threading.Event(), threading.Event()
        watch = collector.watch

        def stand_still(watcher: object) -> None:
            watch(watcher)
            inside.set()
            assert go.wait(30)

        collector.watch = stand_still
        try:
            other = BufferPool(PLAIN)
            thread = threading.Thread(target=other.reconfigure, args=(DETAILED,))
            thread.start()
            assert inside.wait(30)
        finally:
            del collector.watch
        child = os.fork()
        if not child:
            status = 1
            try:
                for one in (pool, other):
                    one.acquire(5000).release()
                    one.stats()
                    one.close()
                status = 0 if collector._note not in gc.callbacks else 2
            finally:
                os._exit(status)
        go.set()
        thread.join()
        assert os.waitpid(child, 0)[1] == 0
        other.close()


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("kind", [BufferPool, AdaptiveBufferPool])
def test_an_interrupt_in_a_change_of_detail_spoils_neither_the_next_change_nor_the_end(kind):
    class Interrupt:
        def __init__(self, left: int) -> None:
            self.left = left

        def __call__(self, frame: object, event: str, argument: object) -> None:
            if event in ("call", "c_return"):
                self.left -= 1
                if self.left < 0:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

    for nth in range(10_000):
        pool = kind(PLAIN)
        interrupt = Interrupt(nth)
        sys.setprofile(interrupt)
        try:
            pool._time_leases(wanted=True)
            pool._time_leases(wanted=False)
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        pool.reconfigure(DETAILED)
        with pool.acquire(5000):
            assert pool.stats().operations[0].timed == 1
        pool.close()
        assert not collector._watchers and collector._note not in gc.callbacks
        assert "acquire" not in vars(pool) and not pool._tallies.detailed
        if interrupt.left >= 0:
            break
    assert nth > 10
