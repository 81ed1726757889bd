"""The crowd of a flight: who is woken by what, and what the window keeps for whom. In one thread: no test here sleeps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daramjwee.buffers import BufferPool, MemoryLedger, PressureLevel
from daramjwee.fills.crowd import Crowd
from daramjwee.fills.waiter import NEVER, Waiter
from daramjwee.fills.window import PIECE_BYTES


@pytest.fixture
def pool() -> Iterator[BufferPool]:
    with BufferPool(ledger=MemoryLedger("16MiB")) as pool:
        yield pool
        assert pool.ledger.held == 0


@pytest.fixture
def crowd(pool: BufferPool) -> Crowd:
    """Of a flight with a staging, whose size is not known."""
    crowd = Crowd(pool)
    crowd.kernel.started(None, spool=True)
    return crowd


@pytest.fixture
def windowed(pool: BufferPool) -> Iterator[Crowd]:
    """Of a flight that no tier has room for."""
    crowd = Crowd(pool)
    crowd.kernel.started(None, spool=False)
    yield crowd
    crowd.window.drop(NEVER)


def enlist(crowd: Crowd, target: int) -> Waiter:
    waiter = Waiter()
    with crowd.lock:
        crowd.enlist_locked(waiter, target)
    return waiter


def awake(*waiters: Waiter) -> list[bool]:
    """Which were woken since they were asked last."""
    return [waiter.wait(0) for waiter in waiters]


def pass_on(crowd: Crowd, piece: bytes) -> None:
    crowd.passed(crowd.window.admit(crowd.kernel.head, piece))


def fill_window(crowd: Crowd) -> None:
    while not crowd.kernel.window_full:
        pass_on(crowd, bytes(PIECE_BYTES))


def test_each_is_woken_by_the_byte_that_it_waits_for_and_once(crowd: Crowd) -> None:
    """Not by the one before it; who is still asleep stays enlisted, who was woken does not."""
    third, fourth, outcome = enlist(crowd, 3), enlist(crowd, 4), enlist(crowd, NEVER)
    crowd.staged(2)
    assert awake(third, fourth, outcome) == [False, False, False]
    crowd.staged(1)
    assert awake(third, fourth, outcome) == [True, False, False]
    crowd.staged(5)
    assert awake(third, fourth, outcome) == [False, True, False]
    assert crowd.waiters == [outcome]
    assert crowd.kernel.head == 8


def test_a_change_that_all_must_see_wakes_all_and_once(crowd: Crowd) -> None:
    """Whatever they wait for."""
    waiters = enlist(crowd, 1), enlist(crowd, NEVER)
    with crowd.lock:
        crowd.wake_all_locked()
    assert awake(*waiters) == [True, True]
    crowd.staged(1)
    assert awake(*waiters) == [False, False]
    assert crowd.waiters == []


def test_the_last_byte_that_was_announced_wakes_nobody_before_the_outcome(pool: BufferPool) -> None:
    """Nobody may read it before it is checked: waking for it would be for nothing."""
    crowd = Crowd(pool)
    crowd.kernel.started(4, spool=True)
    waiter = enlist(crowd, 3)
    crowd.staged(4)
    assert awake(waiter) == [False]
    with crowd.lock:
        crowd.kernel.done()
        crowd.wake_all_locked()
    assert awake(waiter) == [True]


def test_who_is_dismissed_is_woken_no_more_and_may_have_been_woken_before(crowd: Crowd) -> None:
    """Its time limit was over, perhaps at the moment at which the byte came."""
    gone, stays = enlist(crowd, 1), enlist(crowd, 1)
    crowd.dismiss(gone)
    crowd.dismiss(gone)
    crowd.staged(1)
    assert awake(gone, stays) == [False, True]


def test_bytes_are_found_where_they_lie(crowd: Crowd) -> None:
    """Those below the point at which the staging failed in the staging, the others in the window."""
    with crowd.lock:
        crowd.kernel.join(1, 0)
    crowd.staged(10)
    assert crowd.segment_locked(9) is None
    with crowd.lock:
        crowd.kernel.spool_lost()
    pass_on(crowd, b"abc")
    assert crowd.segment_locked(9) is None
    for offset in (10, 12):
        segment = crowd.segment_locked(offset)
        assert segment is not None
        assert (segment.start, bytes(segment.data)) == (10, b"abc")
    crowd.moved(1, 13)


def test_a_piece_in_the_window_wakes_who_waits_for_it(windowed: Crowd) -> None:
    """As one in the staging does; and nothing is kept when nobody reads."""
    waiter, next_one = enlist(windowed, 1), enlist(windowed, PIECE_BYTES + 1)
    pass_on(windowed, bytes(PIECE_BYTES))
    assert awake(waiter, next_one) == [True, False]
    assert len(windowed.window) == 0


def test_the_window_keeps_what_the_slowest_reader_has_not_read(windowed: Crowd) -> None:
    """Pieces go as soon as all are past them."""
    with windowed.lock:
        windowed.kernel.join(1, 0)
        windowed.kernel.join(2, 0)
    fill_window(windowed)
    held = len(windowed.window)
    windowed.moved(1, held)
    assert len(windowed.window) == held
    windowed.moved(2, PIECE_BYTES)
    assert len(windowed.window) == held - PIECE_BYTES
    windowed.moved(2, held)
    assert len(windowed.window) == 0


def test_room_in_a_full_window_wakes_the_filler_that_waits_for_it(windowed: Crowd) -> None:
    """And nobody else: readers wait for bytes. A move that makes no room wakes nobody."""
    with windowed.lock:
        windowed.kernel.join(1, 0)
    fill_window(windowed)
    reader = enlist(windowed, NEVER)
    windowed.moved(1, 0)
    assert awake(windowed.room, reader) == [False, False]
    windowed.moved(1, PIECE_BYTES)
    assert awake(windowed.room, reader) == [True, False]
    windowed.moved(1, PIECE_BYTES + 1)
    assert awake(windowed.room, reader) == [False, False]


def test_without_a_filler_room_in_a_full_window_wakes_the_readers(windowed: Crowd) -> None:
    """One of them has to pump now."""
    with windowed.lock:
        windowed.kernel.join(1, 0)
        windowed.kernel.stop_pumping()
    fill_window(windowed)
    reader = enlist(windowed, NEVER)
    windowed.moved(1, PIECE_BYTES)
    assert awake(reader) == [True]


def test_who_holds_up_the_others_is_detached_and_told(windowed: Crowd) -> None:
    """What was kept for it goes, and the others are woken to go on."""
    with windowed.lock:
        windowed.kernel.join(1, 0)
        windowed.kernel.join(2, 0)
    fill_window(windowed)
    waiter = enlist(windowed, NEVER)
    assert windowed.detach_slowest() == ()
    assert awake(waiter) == [False]
    windowed.moved(2, windowed.kernel.head)
    assert windowed.detach_slowest() == (1,)
    assert awake(waiter) == [True]
    assert len(windowed.window) == 0


def test_how_far_a_window_runs_ahead_follows_what_memory_is_left(pool: BufferPool, windowed: Crowd) -> None:
    """A piece that finds none stays in the lease, and the window is full with it alone."""
    with windowed.lock:
        windowed.kernel.join(1, 0)
    pass_on(windowed, b"a")
    assert windowed.kernel.window > 1
    assert not windowed.kernel.window_full
    pool.relieve(PressureLevel.CRITICAL)
    pass_on(windowed, b"b")
    assert windowed.kernel.window == 1
    assert windowed.kernel.window_full
    windowed.moved(1, 2)


def test_a_piece_that_comes_after_the_end_is_given_back(pool: BufferPool, windowed: Crowd) -> None:
    """The flight was aborted while it was pulled: nothing of it stays charged."""
    segment = windowed.window.admit(0, b"late")
    assert pool.ledger.held == 4
    with windowed.lock:
        windowed.kernel.failed()
    windowed.passed(segment)
    del segment
    assert (pool.ledger.held, len(windowed.window), windowed.kernel.head) == (0, 0, 0)
