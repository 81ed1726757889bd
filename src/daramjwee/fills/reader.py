"""Readers of a flight: read by offset, sleep for what has not arrived, pump when nobody else does.

Invariant: a reader that is told to pump pulls one piece and then sees to it that somebody goes on.
Threads: one thread uses a reader at a time; `lost` may be called from a finalizer.
Design: docs/design/fills.md
"""

from __future__ import annotations

from io import UnsupportedOperation
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any

from daramjwee.errors import Closed, FetchError, FillAborted, StoreError, shorten
from daramjwee.fills.kernel import Do, Phase
from daramjwee.fills.waiter import NEVER, Waiter

# How often a reader looks around that waits at a window which nobody pumps.
LOOK_SECONDS = 1.0

if TYPE_CHECKING:
    from daramjwee.fills.flight import Flight
    from daramjwee.fills.window import Segment
    from daramjwee.model import Metadata
    from daramjwee.stores.protocol import Entry


class FlightReader:
    """One reader of a flight: reads by offset, waits for what has not arrived. Used by one thread at a time."""

    __slots__ = ("_closed", "_crowd", "_id", "_waiter", "flight", "timeout")

    def __init__(self, flight: Flight, reader: int, timeout: float | None) -> None:
        self.flight = flight
        self.timeout = timeout
        self._crowd = flight.crowd
        self._id = reader
        self._waiter = Waiter()
        self._closed = False

    @property
    def size(self) -> int | None:
        return self.flight.size

    @property
    def seekable(self) -> bool:
        return self.flight.size is not None and not self.flight.windowed

    def wait_started(self) -> Metadata:
        """Metadata of the object, once the origin has answered. Raises the outcome if the fill failed first."""
        flight = self.flight
        deadline = None if self.timeout is None else monotonic() + self.timeout
        while flight.error is None:
            with self._crowd.lock:
                if flight.metadata is not None and self._crowd.kernel.phase is not Phase.STARTING:
                    return flight.metadata
                if flight.error is not None:
                    break
                if flight.aborting is not None:
                    raise copied(flight.aborting)
                self._crowd.enlist_locked(self._waiter, NEVER)
            self._sleep(deadline)
        raise copied(flight.error) from flight.error

    def wait_entry(self) -> Entry | None:
        """The published entry, once the fill is over; None when it was not published. The flight closes it."""
        flight = self.flight
        if not flight.finish(1e6 if self.timeout is None else self.timeout):
            if flight.aborting is not None:
                raise copied(flight.aborting)
            if flight.windowed:
                raise _passed_through(flight.key)
            if self.timeout is None:
                raise FetchError(f"the fetcher of {shorten(flight.key)} waits for {shorten(flight.key)} itself")
            raise FetchError(
                f"{shorten(flight.key)} was not complete after {self.timeout:g} s (timeout); the fill goes on"
            )
        if flight.error is not None:
            raise copied(flight.error) from flight.error
        if flight.entry is None and flight.windowed:
            raise _passed_through(flight.key)  # it was over before anybody asked
        return flight.entry

    def wait_arrived(self, offset: int) -> bool:
        """Wait until the byte at `offset` has arrived, and read nothing. False where it never does, or is not kept."""
        flight, crowd, kernel = self.flight, self._crowd, self._crowd.kernel
        deadline = None if self.timeout is None else monotonic() + self.timeout
        try:
            while True:
                with crowd.lock:
                    do, amount = kernel.turn(self._id, offset, 1, 1)
                    if kernel.windowed or flight.aborting is not None or do not in (Do.PUMP, Do.WAIT):
                        return do is Do.READ and not kernel.windowed
                    if do is Do.PUMP:
                        flight.try_pump_locked()
                    else:
                        crowd.enlist_locked(self._waiter, amount)
                if do is Do.PUMP:
                    self._pump()
                else:
                    self._sleep(deadline)
        except Exception:
            raise
        except BaseException:
            flight.surrender()
            raise

    def readinto_at(self, offset: int, view: memoryview, least: int | None = None) -> int:
        """See `_readinto_at`."""
        try:
            return self._readinto_at(offset, view, least)
        except Exception:
            raise
        except BaseException:
            self.flight.surrender()
            raise

    def _readinto_at(self, offset: int, view: memoryview, least: int | None = None) -> int:
        """Fill `view` from `offset` on: at least `least` bytes (default: all that fit), fewer at the end or from
        a windowed flight; 0 only at the end. Raises the flight's outcome if it failed."""
        most = len(view)
        if self._closed:
            raise Closed("read from a stream that was closed")
        if most == 0:
            return 0
        least = most if least is None else min(max(1, least), most)
        flight = self.flight
        deadline = None if self.timeout is None else monotonic() + self.timeout
        while True:
            do, amount, segment = self._take_turn(offset, least, most, deadline)
            if do is Do.READ:
                count = self._copy(segment, offset, view[:amount])
                if count:
                    return count
            elif do is Do.END:
                return 0
            elif do is Do.DETACHED:
                raise FillAborted(
                    f"bytes from {offset:,} on of {shorten(flight.key)} are no longer held: this reader was too slow "
                    "or went back in a stream that no tier has room for; open it again"
                )
            elif do is Do.FAIL:
                assert flight.error is not None
                raise copied(flight.error) from flight.error

    def _take_turn(self, offset: int, least: int, most: int, deadline: float | None) -> tuple[Do, int, Segment | None]:
        """What the kernel says, and where the bytes are that may be read. Told to wait or to pump, it has done so."""
        crowd = self._crowd
        segment = None
        with crowd.lock:
            do, amount = crowd.kernel.turn(self._id, offset, least, most)
            if do is Do.READ:
                segment = crowd.segment_locked(offset)
            elif do is Do.PUMP:
                self.flight.try_pump_locked()
            elif do is Do.WAIT:
                if self.flight.aborting is not None:
                    raise copied(self.flight.aborting)
                crowd.enlist_locked(self._waiter, amount)
        if do is Do.WAIT:
            self._sleep(deadline)
        elif do is Do.PUMP:
            self._pump()
        return do, amount, segment

    def take_rest(self, offset: int, most: int | None) -> bytes | None:
        """All bytes from `offset` on, once the fill is over: as the staging keeps them, or with a single copy. None: there
        are more than `most`, it failed, or it has no such staging: what `readinto_at` gives or raises holds."""
        if self._closed or getattr(self.flight.staging, "peek_at", None) is None:
            return None
        try:
            end = self._wait_over(offset, NEVER if most is None else most + 1)
        except Exception:
            raise
        except BaseException:
            self.flight.surrender()
            raise
        if end is None:
            return None
        staging: Any = self.flight.staging
        try:
            data: bytes = staging.peek_at(offset, end - offset)
        except (Closed, StoreError):
            return None
        return data if len(data) == end - offset else None

    def _wait_over(self, offset: int, enough: int) -> int | None:
        """Wait for the end of the fill, and give it; None when there are `enough` bytes from `offset` on, or the fill fails
        or goes through a window."""
        at = offset
        while True:
            # With a time limit every piece is waited for, else the outcome only.
            deadline = None if self.timeout is None else monotonic() + self.timeout
            do, amount, _ = self._take_turn(at, enough if deadline is None else 1, NEVER, deadline)
            if do is Do.READ:
                at += amount
            if do is Do.END and not self.flight.windowed:
                return max(at, offset)
            if do in {Do.END, Do.FAIL, Do.DETACHED} or at - offset >= enough or self.flight.windowed:
                return None

    def _copy(self, segment: Segment | None, offset: int, view: memoryview) -> int:
        flight, crowd = self.flight, self._crowd
        if segment is None:
            assert flight.staging is not None
            try:
                count = flight.staging.readinto_at(offset, view)
            except Closed:
                if flight.error is None:
                    raise
                return 0  # it failed while we read: the next turn says how
        else:
            inside = offset - segment.start
            piece = memoryview(segment.data)[inside : inside + len(view)]
            count = len(piece)
            view[:count] = piece
            if self._id in crowd.kernel.detached:
                return 0  # the piece may have been replaced meanwhile: the next turn says it
        if crowd.kernel.windowed:
            crowd.moved(self._id, offset + count)
        return count

    def _pump(self) -> None:
        flight = self.flight
        # With a time limit of its own a reader does not sit in the origin's read, if a filler can do it.
        if self.timeout is not None and flight.spawn_filler():
            return
        flight.pump_piece()
        flight.hand_over()

    def _sleep(self, deadline: float | None) -> None:
        waiter, flight, crowd = self._waiter, self.flight, self._crowd
        if flight.intake.asking == get_ident():
            crowd.dismiss(waiter)
            raise FetchError(
                f"the fetcher of {shorten(flight.key)} reads {shorten(flight.key)} from the cache itself: "
                "it would wait for itself for ever"
            )
        try:
            woken = self._rest(deadline)
        except BaseException:
            crowd.dismiss(waiter)
            raise
        if not woken:
            crowd.dismiss(waiter)
            raise FetchError(
                f"no bytes of {shorten(flight.key)} for {self.timeout:g} s (timeout); the fill goes on, open it again"
            )

    def _rest(self, deadline: float | None) -> bool:
        """Whether it was woken in time."""
        # Not in the `try` of who calls this: an interrupt at the jump back of such a loop could be outside of it (see
        # `MemoryLedger._wait`).
        still_since = monotonic()
        waiter, flight, kernel = self._waiter, self.flight, self._crowd.kernel
        while flight.windowed and not kernel.pumping:
            # Nobody pumps a full window: see to readers that are lost or stand still, as a filler would.
            woken = waiter.wait(LOOK_SECONDS if deadline is None else min(LOOK_SECONDS, deadline - monotonic()))
            if woken or (deadline is not None and monotonic() >= deadline):
                return woken
            flight.look_after(monotonic() - still_since)
        return waiter.wait(None if deadline is None else deadline - monotonic())

    def close(self) -> None:
        if not self._closed:
            try:
                self._closed = True
                self.flight.leave(self._id)
            except BaseException:
                self._closed = False
                self.lost()  # should it be attached still
                self.flight.surrender()
                raise

    def __del__(self) -> None:
        self.lost()

    def lost(self) -> None:
        """As `close`, from a finalizer: no lock is taken; the flight sees to it at its next step, or whoever looks after the
        flights, as there may be none."""
        if not getattr(self, "_closed", True):
            self._closed = True
            self._crowd.lost.append(self._id)
            if not self._crowd.kernel.over:  # else there is nothing to end, and its memory goes with it
                self.flight.forsaken.append(self.flight)


def _passed_through(key: str) -> UnsupportedOperation:
    return UnsupportedOperation(f"no tier has room for {shorten(key)}: its bytes only pass through")


def copied(error: BaseException) -> BaseException:
    """A copy to raise: one exception raised in many threads would share a growing traceback."""
    copy = error.__class__.__new__(error.__class__)
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    return copy
