"""A flight, step by step: its fillers run when the test says so, so that every order can be had without threads."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daramjwee.buffers import BufferPool, MemoryLedger
from daramjwee.errors import Closed, FetchError, FillAborted, StoreError
from daramjwee.fills.body import open_body
from daramjwee.fills.crowd import Crowd
from daramjwee.fills.flight import Flight
from daramjwee.fills.intake import Fill
from daramjwee.fills.reader import FlightReader
from daramjwee.fills.waiter import Waiter
from daramjwee.fills.window import PIECE_BYTES, Segment
from daramjwee.model import Event, Metadata


class Spool:
    """A staging that takes so many pieces, and then fails."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces
        self.data = bytearray()
        self.aborts = 0

    def write(self, view: Any) -> None:
        if self._pieces == 0:
            raise StoreError("the disk is gone")
        self._pieces -= 1
        self.data += view

    def readinto_at(self, offset: int, view: memoryview) -> int:
        piece = self.data[offset : offset + len(view)]
        view[: len(piece)] = piece
        return len(piece)

    def commit(self, metadata: Metadata, *, guard: Callable[[], bool] | None = None) -> None:
        return None

    def abort(self) -> None:
        self.aborts += 1


class Bench:
    """Makes flights of one body; what they spawn waits in `fillers`."""

    def __init__(self, pool: BufferPool) -> None:
        self.pool = pool
        self.fillers: list[Callable[[], object]] = []
        self.events: list[Event] = []
        self.ended: list[Flight] = []
        self.forsaken: deque[Flight] = deque()

    def notice(self, event: Event) -> None:
        self.events.append(event)

    def spawn(self, run: Callable[[], object]) -> bool:
        self.fillers.append(run)
        return True

    def flight(self) -> Flight:
        return Flight(
            "key",
            pool=self.pool,
            spawn=self.spawn,
            observer=self,
            on_over=self.ended.append,
            forsaken=self.forsaken,
        )

    def start(self, flight: Flight, body: Any, *, size: int | None = None, spool: Spool | None = None) -> None:
        fill = Fill(open_body(body), Metadata(size=size), spool)  # type: ignore[arg-type]  # enough of one
        flight.start(lambda: fill)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with BufferPool(ledger=MemoryLedger("16MiB")) as pool:
        yield Bench(pool)
        stats = pool.stats()
        assert (stats.active_buffers, stats.quarantined) == (0, 0)
        assert stats.ledger_held == stats.arena_bytes


def enlist(flight: Flight, target: int) -> Waiter:
    waiter = Waiter()
    with flight.lock:
        flight.crowd.enlist_locked(waiter, target)
    return waiter


def join(flight: Flight, *, timeout: float | None = None) -> FlightReader:
    reader = flight.join(timeout=timeout)
    assert reader is not None
    return reader


def fill_window(bench: Bench, flight: Flight) -> None:
    """Start it with more than a window holds, and pump until it is full."""
    bench.start(flight, iter([bytes(PIECE_BYTES)] * 9), size=9 * PIECE_BYTES)
    while not flight.kernel.window_full:
        flight.pump_piece()


def read(reader: FlightReader, offset: int, count: int) -> bytes:
    data = bytearray(count)
    return bytes(data[: reader.readinto_at(offset, memoryview(data), 1)])


def test_who_waits_for_more_than_a_window_holds_is_woken_when_the_staging_fails(bench: Bench) -> None:
    """It would never have so much, and the pump would wait for it."""
    flight = bench.flight()
    reader = join(flight)
    woken: list[bool] = []

    def body() -> Iterator[bytes]:
        yield b"ab"
        yield b"cd"
        woken.append(waiter.wait(0))
        yield b"ef"

    bench.start(flight, body(), size=6, spool=Spool(pieces=1))
    waiter = enlist(flight, 6)
    bench.fillers.pop()()
    assert woken == [True]
    assert [read(reader, offset, 9) for offset in (0, 2, 4, 6)] == [b"ab", b"cd", b"ef", b""]
    assert [(event.kind, event.detail) for event in bench.events] == [("fill_not_kept", "the disk is gone")]
    assert bench.ended == [flight]
    reader.close()


def test_a_wait_for_the_end_that_was_in_vain_leaves_no_waiter(bench: Bench) -> None:
    """Nor one for more bytes, whose time limit was over: a fill that stands still for long may be asked for often."""
    flight = bench.flight()
    reader = join(flight, timeout=0.0)
    bench.start(flight, iter([b"ab"]), size=6, spool=Spool(pieces=9))
    assert not flight.finish(0.0)
    assert flight.crowd.waiters == []
    with pytest.raises(FetchError, match=r"no bytes of 'key' for 0 s \(timeout\)"):
        read(reader, 2, 9)
    assert flight.crowd.waiters == []
    bench.fillers.pop()()
    assert flight.finish(0.0)
    with pytest.raises(FetchError, match="after 2 of the 6 bytes"):
        read(reader, 0, 9)
    reader.close()


def test_an_interrupt_while_the_outcome_is_told_leaves_nothing_open(bench: Bench) -> None:
    """The staging was being dropped: body and memory go all the same."""

    class Interrupted(Spool):
        def abort(self) -> None:
            super().abort()
            if self.aborts == 1:
                raise KeyboardInterrupt

    class Source(io.BytesIO):
        def readinto1(self, view: Any, /) -> int:
            raise OSError("gone")

    flight, source, spool = bench.flight(), Source(), Interrupted(pieces=1)
    reader = join(flight)
    with pytest.raises(KeyboardInterrupt):
        bench.start(flight, source, spool=spool)
    assert flight.over
    assert source.closed
    with pytest.raises(FetchError, match="OSError: gone"):
        read(reader, 0, 9)
    reader.close()
    assert spool.aborts > 1


def test_a_reader_that_leaves_makes_room_for_the_others(bench: Bench) -> None:
    """What was kept for it goes, and a filler that waited for room goes on."""
    flight = bench.flight()
    slow, quick = join(flight), join(flight)
    fill_window(bench, flight)
    for offset in range(0, flight.kernel.head, PIECE_BYTES):
        read(quick, offset, PIECE_BYTES)
    assert len(flight.window) == flight.kernel.head
    assert not flight.crowd.room.wait(0)
    slow.close()
    assert len(flight.window) == 0
    assert flight.crowd.room.wait(0)
    quick.close()  # the last one ends it: the filler that is on its way never comes
    assert isinstance(flight.aborting, FillAborted)
    assert flight.over


def test_who_waits_for_room_is_woken_by_an_abort(bench: Bench) -> None:
    """Else it would see it only when a reader moves, or at its next look around."""
    flight = bench.flight()
    reader = join(flight)
    woken: list[bool] = []

    def body() -> Iterator[bytes]:
        flight.abort(Closed("the cache was closed"))
        woken.append(flight.crowd.room.wait(0))
        yield b"ab"

    bench.start(flight, body())
    assert woken == [True]
    flight.pump_piece()
    with pytest.raises(Closed, match="the cache was closed"):
        read(reader, 0, 9)
    reader.close()


def test_a_reader_that_is_detached_while_it_copies_is_told_and_given_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it copied may be the next piece already: one that found no memory of its own lies where the pump reads to."""
    flight = bench.flight()
    slow, quick = join(flight), join(flight)
    fill_window(bench, flight)
    flight.crowd.moved(2, flight.kernel.head)
    find = Crowd.segment_locked

    def found_and_detached(crowd: Crowd, offset: int) -> Segment | None:
        segment = find(crowd, offset)
        assert crowd.kernel.detach_slowest() == (1,)
        return segment

    monkeypatch.setattr(Crowd, "segment_locked", found_and_detached)
    with pytest.raises(FillAborted, match="this reader was too slow"):
        read(slow, 0, 9)
    slow.close()
    quick.close()


def test_a_reader_whose_close_was_interrupted_has_left_by_the_next_piece(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have come no further than the call."""
    flight = bench.flight()
    reader = join(flight)
    bench.start(flight, iter([b"ab", b"cd"]), size=4, spool=Spool(pieces=9))

    def interrupted(flight: Flight, reader: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Flight, "leave", interrupted)
        reader.close()
    assert flight.has_readers
    bench.fillers.pop()()
    assert not flight.has_readers
    assert flight.over
