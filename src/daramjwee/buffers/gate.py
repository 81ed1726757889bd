"""The gate: how many large operations run at once, with how many bytes, and who waits for a place.

Invariant: every place is free (a token in the deque), taken (in a slot), or on its way back; what the kernel counts as
active is all of these, and never exceeds the limits. Sync and async waiters stand in one line.
Threads: any. A free token is taken and given back without a lock; the lock is for bookkeeping when somebody must wait,
or needs more bytes than a token carries. Giving back never blocks, and may happen in a finalizer.
Design: docs/design/strategy.md
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, NoReturn

from daramjwee.buffers.gate_kernel import GRANTED, WAITING, GateKernel, Priority
from daramjwee.buffers.gate_limits import (
    closed_gate,
    line_full,
    never_fits,
    parse_entry,
    parse_limits,
    parse_need,
    too_late,
)
from daramjwee.buffers.gate_places import AlwaysAlert, AsyncWaiter, Place, Slot, Token, Waiter
from daramjwee.buffers.gate_stats import GateCounts, GateStats
from daramjwee.buffers.holdings import seen_in
from daramjwee.buffers.ledger import DEFAULT_TIMEOUT_SECONDS, NO_WAIT, reset_after_fork
from daramjwee.model import SYSTEM_CLOCK, Clock
from daramjwee.units import MIB, format_size

if TYPE_CHECKING:
    from daramjwee.buffers.gate_kernel import Ticket
    from daramjwee.units import Duration, Size

__all__ = ["GateStats", "LargeOperationGate", "Priority", "Slot"]

# How long a waiter sleeps at most before it looks again: at a clock that is moved by hand, and after an interrupt that
# came between a give-back and its news. A waiter of an event loop looks less often: a thousand of them share one core.
LOOK_AGAIN_SECONDS = 0.25
LOOK_AGAIN_ASYNC_SECONDS = 1.0

# The most that a token carries. What needs more can afford the lock; and a token that carried all bytes of a gate of one
# place would keep them when more places are allowed.
MOST_SHARE_BYTES = MIB

_new_slot = Slot.__new__


class LargeOperationGate:
    """Lets at most `max_operations` run at once, which need at most `max_bytes` (None: any) together.

    Both are reserved in one request, so that nobody who has a place ever waits for the other half. Who finds no place
    waits in one line, threads and tasks alike, by `Priority`: a NORMAL request goes before a HIGH one that came more
    than `ageing` later, a LOW one before a HIGH one that came more than twice that later. At most `max_queued` wait.
    The head of the line is never overtaken, also when something smaller would fit.

    An operation that comes while nobody waits has an equal share of the bytes (`max_bytes / max_operations`, at most
    1 MiB) reserved for it, or what it needs if that is more; one that waited, exactly what it needs. `alert`: somebody
    waits, or something else is due on a give-back. `ageing` is a duration, `clock` for tests.
    """

    fork_order = 1

    def __init__(
        self,
        max_operations: int,
        max_bytes: Size | None = None,
        *,
        max_queued: int = 1024,
        ageing: Duration = 1.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        limits = parse_limits(max_operations, max_bytes, max_queued, ageing)
        self._clock = clock
        self.closed = False
        self.epoch = 0
        self.ended_home = AlwaysAlert(self)
        self._begin(GateKernel(*limits))
        reset_after_fork(self)

    def _begin(self, kernel: GateKernel) -> None:
        self._kernel = kernel
        self._lock = threading.Lock()
        self.alert = self.closed
        self.pending = False
        self.free: deque[Token] = deque()
        self.ended: deque[Waiter] = deque()  # waiters that gave their place back, or left the line
        self.lost: deque[Place] = deque()
        self.offered: deque[AsyncWaiter] = deque()  # granted, and perhaps not yet seen by their task
        self._news: deque[Waiter] = deque()  # granted, or out of the line with an error, and not yet told
        self._spare: list[Token] = []
        self._mixed = False  # tokens may come back with the share of an earlier configuration
        self._counts = GateCounts()
        self._set_share()
        if not self.closed:
            self._issue_locked()

    def _set_share(self) -> None:
        kernel = self._kernel
        self._share_bytes = (
            sys.maxsize
            if kernel.max_bytes is None
            else min(kernel.max_bytes // kernel.max_operations, MOST_SHARE_BYTES)
        )

    # -- entering ----------------------------------------------------------------------------------------

    def acquire(self, need: int = 0, *, priority: Priority = Priority.NORMAL, timeout: Duration | None = None) -> Slot:
        """A place for an operation that needs `need` bytes, waiting at most `timeout` (None: 30 s; 0: not at all), in the
        order of `priority`.

        Raises `LimitExceeded` when that many bytes are never allowed, `Overloaded` when the line is full or after the
        wait, `Closed`.
        """
        if timeout is not None and not (type(timeout) is float and timeout >= 0):
            _, _, timeout = parse_entry(need, priority, timeout)
        if not self.alert and type(need) is int and type(priority) is Priority:
            try:
                token = self.free.pop()
            except IndexError:
                return self._acquire_slowly(need, priority, timeout)
            if 0 <= need <= token.need:
                token.tally.entered += 1
                token.leased = False
                slot = _new_slot(Slot)
                slot._place = token
                return slot
            self.free.append(token)
            del token  # whoever takes it now must be the only one who refers to it, also while this one waits
        return self._acquire_slowly(need, priority, timeout)

    def try_acquire(self, need: int = 0) -> Slot | None:
        """A place for `need` bytes, if there is one now and nobody waits; else None. `LimitExceeded` and `Closed` as `acquire`."""
        slot = self.take_free(need)
        if slot is not None:
            return slot
        waiter = Waiter(self, parse_need(need), 0)
        now = self._clock.monotonic()
        try:
            with self._lock:
                self._work_locked(now)
                self._check_locked(waiter.need)
                self._make_room_locked(waiter.need)
                if self._kernel.take(waiter):
                    self._counts.entry(waiter, now)
                self._issue_locked()
            self._settle()
            return _slot(waiter) if waiter.state is GRANTED else None
        except BaseException:
            self._abandon(waiter)
            raise

    def take_free(self, need: int) -> Slot | None:
        """A place for `need` bytes that is free this moment without a lock, as the first lines of `acquire` take it; else None."""
        if self.alert or type(need) is not int:
            return None
        try:
            token = self.free.pop()
        except IndexError:
            return None
        if not 0 <= need <= token.need:
            self.free.append(token)
            return None
        token.tally.entered += 1
        token.leased = False
        slot = _new_slot(Slot)
        slot._place = token
        return slot

    def _acquire_slowly(self, need: int, priority: Priority, timeout: float | None) -> Slot:
        count, penalty, seconds = parse_entry(need, priority, DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout)
        waiter = Waiter(self, count, penalty)
        try:
            self._wait(waiter, self._join(waiter, seconds))
            return self._conclude(waiter)
        except BaseException:
            self._abandon(waiter)
            raise

    # Not in the `try` of who calls them: an interrupt at the jump back of such a loop could be outside of it, and the waiter
    # stay in line (see `MemoryLedger._wait`).

    def _wait(self, waiter: Waiter, deadline: float) -> None:
        while waiter.state is WAITING and (left := deadline - self._clock.monotonic()) > 0:
            if not waiter.sleep(min(left, LOOK_AGAIN_SECONDS)):
                self.attend()

    async def _wait_async(self, waiter: AsyncWaiter, deadline: float) -> None:
        while waiter.state is WAITING and (left := deadline - self._clock.monotonic()) > 0:
            await waiter.rest(min(left, LOOK_AGAIN_ASYNC_SECONDS))
            if not waiter.told:
                self.attend()

    async def acquire_async(
        self,
        need: int = 0,
        *,
        priority: Priority = Priority.NORMAL,
        timeout: Duration | None = None,  # noqa: ASYNC109 - the same parameters as `acquire`
    ) -> Slot:
        """As `acquire` (`need`, `priority`, `timeout` and errors, too), in the same line, without holding up the event
        loop."""
        count, penalty, seconds = parse_entry(need, priority, DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout)
        slot = self.take_free(count)
        if slot is not None:
            return slot
        import asyncio

        waiter = AsyncWaiter(self, count, penalty, asyncio.get_running_loop())
        try:
            await self._wait_async(waiter, self._join(waiter, seconds))
            waiter.taken = True
            return self._conclude(waiter)
        except BaseException:  # also a task that is cancelled, or dropped with its closed loop
            self._abandon(waiter)
            raise

    def _join(self, waiter: Waiter, seconds: float) -> float:
        """Have it granted, or stand in the line until the moment that is returned."""
        now = waiter.arrived = self._clock.monotonic()
        with self._lock:
            self._work_locked(now)
            self._check_locked(waiter.need)
            self._make_room_locked(waiter.need)
            refused = not self._kernel.request(waiter, now)
            if refused:
                self._counts.refused += 1
            elif waiter.state is GRANTED:
                self._counts.entry(waiter, now)
            # From here on whoever gives back sees the waiter; what came back just before is found now.
            self.alert = True
            self._serve_locked(now)
        self._settle()
        if refused:
            kernel = self._kernel
            busy = kernel.active - len(self.free)
            raise line_full(kernel, busy, self._retry_after(len(kernel.line)))
        return now + seconds

    def _conclude(self, waiter: Waiter) -> Slot:
        """The end of a wait: the slot, or why there is none."""
        if waiter.state is WAITING:
            now = self._clock.monotonic()
            with self._lock:
                ahead = self._kernel.ahead(waiter)
                if waiter.state is WAITING:
                    self._kernel.leave(waiter)
                    self._counts.timed_out += 1
                    waiter.error = too_late(repr(self), now - waiter.arrived, ahead, self._retry_after(ahead))
                self._work_locked(now)
            self._settle()
        if waiter.error is not None:
            raise waiter.take_error()
        return _slot(waiter)

    def _abandon(self, waiter: Waiter) -> None:
        # Whatever it has reached: out of the line, or the place given back, by whoever has the lock next.
        waiter.back.append(waiter)
        self.attend()

    # -- giving back -------------------------------------------------------------------------------------

    def attend(self) -> None:
        """Do what is due after a give-back: let in who waits. Never blocks."""
        self.pending = True
        self._settle()

    def _settle(self) -> None:
        # Who finds the lock taken leaves the work to the holder, who calls this after letting go: so nothing that came
        # back waits while nobody works, and nobody waits to give back.
        while True:
            self._tell()
            if not self.pending:
                return
            now = self._clock.monotonic()
            # A loop over `map`, as in the ledger: between a call's return and the next step an interrupt may come.
            for _ in filter(None, map(self._lock.acquire, NO_WAIT)):
                try:
                    self._work_locked(now)
                finally:
                    self._lock.release()
                break
            else:
                return

    def _tell(self) -> None:
        """Wake those who were granted a place, in that order, and those who were turned away."""
        while self._news:
            try:
                waiter = self._news.popleft()
            except IndexError:
                return  # another thread was quicker
            waiter.wake()

    def _work_locked(self, now: float) -> None:
        self.pending = False
        try:
            self._take_back_locked(now)
            self._serve_locked(now)
        except BaseException:
            self.pending = True  # an interrupt: what is left to do stays due
            raise

    def _take_back_locked(self, now: float) -> None:
        kernel = self._kernel
        if self._mixed:
            while self._recall_locked():
                pass
            self._mixed = kernel.active > 0
        # Ended first and taken from the deque then: an interrupt in between does no harm, as an end counts once.
        while self.ended:
            waiter = self.ended[0]
            if waiter.state is WAITING:
                self._counts.cancelled += 1
            elif waiter.state is GRANTED:
                self._counts.held(now - waiter.granted_at)
            kernel.end(waiter)
            self.ended.popleft()
        while self.lost:
            place = self.lost[0]
            if place.state is GRANTED:
                self._counts.lost += 1
                kernel.give(place)
                if isinstance(place, Token):
                    self._spare.append(Token(self, place.tally))
            self.lost.popleft()
        for _ in range(len(self.offered)):
            offered = self.offered.popleft()
            if offered.state is GRANTED and not offered.taken:
                if offered.loop.is_closed():
                    kernel.give(offered)
                else:
                    self.offered.append(offered)

    def _serve_locked(self, now: float) -> None:
        """Let in who waits; with nobody waiting, put free places where they are taken without the lock."""
        kernel = self._kernel
        kernel.advance()
        while (kernel.line or kernel.over or self.closed) and self._recall_locked():
            pass
        # As above: noted first and taken from the deque then.
        while kernel.granted:
            waiter = kernel.granted[0]
            assert isinstance(waiter, Waiter)
            if not waiter.noted:
                self._counts.grant(waiter, now)
            self._news.append(waiter)
            kernel.granted.popleft()
        # Never False in between while somebody waits: a give-back in that moment would go unseen.
        self.alert = bool(kernel.line) or kernel.over or self.closed
        if not self.alert:
            self._issue_locked()

    def _make_room_locked(self, need: int) -> None:
        """Take free tokens back until `need` bytes fit."""
        while not self._kernel.fits(need) and self._recall_locked():
            pass

    def _recall_locked(self) -> bool:
        try:
            token = self.free.pop()
        except IndexError:
            return False
        self._kernel.give(token)
        self._spare.append(token)
        return True

    def _recall_all_locked(self) -> None:
        # Not in the `with` of who calls this: in CPython 3.13 the jump back of such a loop is outside of its block, and an
        # interrupt there left the lock taken.
        while self._recall_locked():
            pass

    def _issue_locked(self) -> None:
        kernel, share = self._kernel, self._share_bytes
        while not kernel.line and kernel.fits(share):
            token = self._spare.pop() if self._spare else Token(self, self._counts.new_tally())
            token.need = share
            kernel.take(token)
            self.free.append(token)

    # -- limits, and the end ------------------------------------------------------------------------------

    def reconfigure(self, max_operations: int, max_bytes: Size | None, max_queued: int) -> None:
        """New limits. Operations under way go on; lower limits only delay new ones, higher ones let in who waits. Who
        waits for more bytes than are ever allowed now gets `LimitExceeded`."""
        operations, bound, queued, _ = parse_limits(max_operations, max_bytes, max_queued)
        now = self._clock.monotonic()
        with self._lock:
            self._work_locked(now)
            self._turn_away_locked(self._kernel.reconfigure(operations, bound, queued))
            self._set_share()
            self._mixed = True
            # From here on every give-back looks; what came back just before, with the old share, is found now.
            self.alert = True
            self._recall_all_locked()
            self._serve_locked(now)
        self._settle()

    def close(self) -> None:
        """Who waits, and who comes, gets `Closed`. Slots stay valid, and are given back as ever. Allowed more than
        once."""
        now = self._clock.monotonic()
        with self._lock:
            self.closed = self.alert = True
            self._turn_away_locked(self._kernel.drop(list(self._kernel.line)))
            self._work_locked(now)
        self._settle()

    def _turn_away_locked(self, tickets: list[Ticket]) -> None:
        for waiter in tickets:
            assert isinstance(waiter, Waiter)
            waiter.error = closed_gate() if self.closed else never_fits(self._kernel, waiter.need)
            self._news.append(waiter)

    def _after_fork_in_child(self) -> None:
        old = self._kernel
        self.epoch += 1
        self._begin(GateKernel(old.max_operations, old.max_bytes, old.max_queued, old.ageing))

    # -- what it did -------------------------------------------------------------------------------------

    def stats(self) -> GateStats:
        """A snapshot. Also takes back what lost slots left."""
        now = self._clock.monotonic()
        with self._lock:
            self._work_locked(now)
            stats = self._counts.snapshot(self._kernel, list(seen_in(self.free)))
        self._settle()
        return stats

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a gate cannot be pickled or copied: who waits in it belongs to this process; send its limits, and make a gate "
            "of them there"
        )

    def __repr__(self) -> str:
        # No lock: this is asked in debuggers, and inside of messages made under the lock.
        kernel, free = self._kernel, self.free.copy()
        room = ""
        if kernel.max_bytes is not None:
            used = kernel.active_bytes - sum(token.charged for token in free)
            room = f" ({format_size(used)} of {format_size(kernel.max_bytes)})"
        return (
            f"<{type(self).__name__} {'closed, ' if self.closed else ''}{kernel.active - len(free)}/"
            f"{kernel.max_operations} busy{room}, {len(kernel.line)} waiting>"
        )

    def _check_locked(self, need: int) -> None:
        if self.closed:
            raise closed_gate()
        if self._kernel.max_bytes is not None and need > self._kernel.max_bytes:
            raise never_fits(self._kernel, need)

    def _retry_after(self, ahead: int) -> float:
        return self._counts.retry_after(ahead, self._kernel.max_operations)


def _slot(place: Place) -> Slot:
    slot = _new_slot(Slot)
    slot._place = place
    return slot
