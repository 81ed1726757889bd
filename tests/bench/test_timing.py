"""Turns, threads, page faults and child processes, with contenders whose time is made up."""

from __future__ import annotations

import mmap
import os
import threading

import pytest

from daramjwee.bench import timing
from daramjwee.bench.timing import (
    ChildFailed,
    in_child,
    in_turns,
    loops_for,
    operations,
    page_faults,
    resident_bytes,
    threaded,
)


def made_up(name, seconds, log):
    """A contender whose every operation takes `seconds`, by its own word."""

    def run(loops):
        log.append((name, loops))
        return loops * seconds

    return run


def test_every_contender_runs_once_in_every_round_in_changing_order():
    """What the machine does to one round it does to all of them."""
    log = []
    contenders = {name: made_up(name, 0.5, log) for name in "abc"}
    figures = in_turns(contenders, rounds=20, seconds=0.01)
    rounds = [[name for name, _ in log[-60:]][start : start + 3] for start in range(0, 60, 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 1
    assert {name: len(values) for name, values in figures.items()} == {"a": 20, "b": 20, "c": 20}


def test_figures_are_seconds_for_each_operation_whatever_the_number_of_loops():
    """A quick contender runs more often in its turn; the figure is for one operation."""
    log = []
    figures = in_turns({"slow": made_up("slow", 0.5, log), "quick": made_up("quick", 1e-6, log)}, rounds=3, seconds=0.1)
    assert figures["slow"] == pytest.approx([0.5] * 3)
    assert figures["quick"] == pytest.approx([1e-6] * 3)
    assert log[-1][1] != log[-2][1]


def test_loops_fill_the_time_of_a_turn():
    """About as many operations as take the time, and never none."""
    assert loops_for(made_up("a", 1e-6, []), 0.1) == pytest.approx(100_000, rel=0.01)
    assert loops_for(made_up("a", 5.0, []), 0.1) == 1


def test_what_only_the_first_operation_costs_does_not_shorten_the_turns():
    """An import or memory that is mapped would leave turns of a few operations, whose figures say little."""
    first = iter([1.0])
    assert loops_for(lambda loops: next(first, loops * 1e-6), 0.1) == pytest.approx(100_000, rel=0.01)


def test_a_loop_calls_the_operation_as_often_as_asked():
    """And says how long that took."""
    calls = []
    assert operations(lambda: calls.append(1))(7) >= 0
    assert len(calls) == 7


def test_threads_run_all_at_once_and_share_the_wall_time():
    """Each contender waits for all the others: only threads that really run together get through."""
    together = threading.Barrier(4, timeout=30)
    seen = set()

    def contender(loops):
        together.wait()
        seen.add((threading.get_ident(), loops))
        return 1000.0  # what a contender says itself does not count here

    assert threaded([contender] * 4)(3) < 100
    assert len(seen) == 4
    assert {loops for _, loops in seen} == {3}


def test_a_failing_thread_fails_the_measurement():
    """A figure from a run that failed would be a lie."""

    def broken(loops):
        raise OSError("no such luck")

    with pytest.raises(OSError, match="no such luck"):
        threaded([broken, lambda loops: 0.0])(1)


def test_page_faults_are_counted_for_each_operation():
    """A fresh mapping of 64 pages costs a fault for each page; memory that is there costs none."""
    page = mmap.PAGESIZE

    def touch():
        with mmap.mmap(-1, 64 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            if hasattr(mmap, "MADV_NOHUGEPAGE"):
                memory.madvise(mmap.MADV_NOHUGEPAGE)
            memory[::page] = b"x" * 64

    assert 60 <= page_faults(touch, 20) <= 80
    ready = bytearray(page)
    assert page_faults(lambda: ready.__setitem__(0, 1), 200) < 0.5


def test_resident_memory_grows_by_what_is_touched():
    """The reading is the system's own."""
    before = resident_bytes()
    if before is None:
        assert not os.path.exists("/proc/self/status")
        return
    held = bytearray(os.urandom(1 << 20)) * 64
    after = resident_bytes()
    assert after - before > len(held) // 2
    assert resident_bytes("VmHWM") >= after


def test_a_child_gets_arguments_and_gives_back_what_the_function_returned():
    """Plain data both ways, from a process of its own."""
    assert in_child("daramjwee.units:parse_size", value="2KiB") == 2048
    assert in_child("os:getpid") != os.getpid()


def test_a_child_that_fails_says_why():
    """The last words of the child are in the error."""
    with pytest.raises(ChildFailed, match=r"(?s)timing:no_such_function.*AttributeError"):
        in_child("daramjwee.bench.timing:no_such_function")


def test_a_child_that_hangs_is_ended_and_is_a_failure_like_any_other(monkeypatch):
    """One scenario that hangs must not take the figures of all others with it."""
    monkeypatch.setattr(timing, "CHILD_SECONDS", 0.01)
    with pytest.raises(ChildFailed, match=r"signal:pause: did not end within 0 s, and was ended"):
        in_child("signal:pause")
