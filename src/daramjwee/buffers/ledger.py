"""The ledger: every byte promised or held, and the bound.

Invariant: nothing is charged beyond `limit`, so `held <= limit` at every moment but for what was held when the limit was
lowered; `held` is what was charged minus what was credited. Requests that do not fit are granted first come, first
served; `try_charge` never overtakes one that waits.
Threads: any. `credit` and `credit_later` never block and may run in a finalizer; reclaimers are asked, and waiters
woken, with no lock held.
Design: docs/design/memory.md
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

from daramjwee.buffers.charge import Held
from daramjwee.buffers.ledger_kernel import LedgerKernel, Ticket, check_bytes
from daramjwee.errors import ConfigError, LimitExceeded, Overloaded, Problem
from daramjwee.units import counted, format_duration, format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from daramjwee.units import Duration, Size

    Reclaimer = Callable[[int], int]

logger = logging.getLogger(__name__)

# What `charge` waits when no timeout is given: long enough for a burst to pass, short enough to be seen.
DEFAULT_TIMEOUT_SECONDS = 30.0
# How long `charge` sleeps before it asks the reclaimers again: memory that went idle meanwhile tells nobody.
LOOK_AGAIN_SECONDS = 0.5
# The least that `Overloaded.retry_after` says: below it a retry is a busy loop.
LEAST_RETRY_SECONDS = 0.1

# One ledger serves caches and pools; each calls its limit by another name.
RAISE_LIMIT = "raise the ledger's limit (memory_limit of a cache, max_pool_bytes of a pool)"

NO_WAIT = (False,)

_Reference = TypeVar("_Reference", bound="Callable[[], object]")


class MemoryLedger:
    """One limit for all who hold memory: pools, memory tiers, windows of flights.

    The ledger promises: what is charged never exceeds `limit` bytes; a request that does not fit first has idle memory
    reclaimed, then waits in line, then raises `Overloaded`. A forked child begins a new `epoch` with nothing held.
    The caller promises: it credits exactly what it charged, once, in the epoch in which it was charged.

    `note_credit`: a function of C code that notes bytes as free again, or a ticket as given up, for `settle` to apply: no
    interrupt can come between what is noted and its return. `note_credits`: of several at once. A child that is forked has another one, and what is noted by
    the old one counts nowhere. `noted`: what was noted and not applied yet.
    """

    fork_order = 0

    def __init__(self, limit: Size) -> None:
        self._kernel = LedgerKernel(_parse_limit(limit))
        self._lock = threading.Lock()
        self._begin_notes()
        self._reclaimers: list[Callable[[], Reclaimer | None]] = []
        self._followers: list[weakref.WeakMethod[Callable[[], object]]] = []
        self.epoch = 0
        reset_after_fork(self)

    def _begin_notes(self) -> None:
        self.noted: deque[int | Held | Ticket] = deque()
        self.note_credit: Callable[[int | Held | Ticket], None] = self.noted.append
        self.note_credits: Callable[[Iterable[Held]], None] = self.noted.extend

    def __repr__(self) -> str:
        kernel = self._kernel
        waiting = f", {len(kernel.line)} waiting" if kernel.line else ""
        return (
            f"<MemoryLedger {format_size(self.held)} of {format_size(kernel.limit)} held, "
            f"peak {format_size(kernel.peak)}{waiting}>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a ledger cannot be pickled or copied: what it counts belongs to this process; send its limit, and make a "
            "ledger of it there"
        )

    @property
    def limit(self) -> int:
        return self._kernel.limit

    @property
    def held(self) -> int:
        """Bytes charged and not credited, at this moment."""
        self._settle()
        return self._kernel.held

    @property
    def peak(self) -> int:
        """The most that was ever held."""
        return self._kernel.peak

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return len(self._kernel.line)

    @property
    def missing(self) -> int:
        """Bytes that must be credited before the first in line is granted; 0 when nobody waits."""
        # No lock: this is asked by give-backs, which may run in a finalizer. A stale answer is asked for again.
        kernel = self._kernel
        try:
            first = kernel.line[0]
        except IndexError:
            return 0
        return max(0, kernel.held + first.need - kernel.limit)

    def try_charge(self, count: int) -> bool:
        """Hold `count` more bytes, if they fit at once and nobody waits."""
        taken = False
        try:
            if self.noted:
                self._settle()
            with self._lock:
                taken = self._kernel.take(count)
            if self.noted:
                self._settle()
        except BaseException:  # an interrupt: the caller will not know
            if taken:
                self.noted.append(count)
            raise
        return taken

    def charge(self, count: int, *, timeout: Duration | None = None) -> None:
        """Hold `count` more bytes: reclaim idle memory, then wait in line for at most `timeout` (None: 30 s).

        Raises `LimitExceeded` when `count` can never fit, `Overloaded` after the wait, `ConfigError` for a wrong argument;
        nothing is held then. The caller holds no lock that a reclaimer needs.
        """
        seconds = DEFAULT_TIMEOUT_SECONDS if timeout is None else _check_charge(count, timeout)
        if self.try_charge(count):
            return
        self.check(count)
        if self.reclaim(count) and self.try_charge(count):
            return
        woken = threading.Lock()
        woken.acquire()
        began = monotonic()
        ticket = Ticket(count, woken.release)
        try:
            self.join_line(ticket)
            self._wait(ticket, woken, began + seconds)
            granted = self.leave_line(ticket)
        except BaseException:
            self.abandon(ticket)
            raise
        if not granted:
            if ticket.refused:
                self.check(count)
            raise self.overloaded(count, monotonic() - began)

    def _wait(self, ticket: Ticket, woken: threading.Lock, deadline: float) -> None:
        # Not in the `try` of who calls this: from CPython 3.12 on the jump back of such a loop may be outside of its
        # block, and an interrupt there left the ticket in line.
        if not ticket.granted:
            # Once more, now that those who free memory can see that somebody waits.
            self.reclaim(ticket.need)
        while not (ticket.granted or ticket.refused) and (left := deadline - monotonic()) > 0:
            if not woken.acquire(timeout=min(left, LOOK_AGAIN_SECONDS)):
                self.reclaim(ticket.need)

    def credit(self, count: int) -> None:
        """`count` bytes are free again. Never blocks. `ConfigError` for what is no number of bytes: nothing is noted then."""
        if type(count) is not int or count < 0:
            check_bytes(count, "credit")
        self.noted.append(count)
        self._settle()

    def settle(self) -> None:
        """Apply what was noted. Never blocks."""
        self._settle()

    # For finalizers, which may interrupt a holder of the lock: `credit` does not wait for it either.
    credit_later = credit

    def resize(self, limit: Size) -> None:
        """Have another `limit` of bytes. A higher one wakes who waits. A lower one takes nothing back: nothing is charged until
        enough was credited, idle memory is reclaimed, and who waits for more than it gets `LimitExceeded`."""
        bound = _parse_limit(limit)
        with self._lock:
            wake = self._kernel.resize(bound)
        _wake(wake)
        self._settle()
        self.reclaim(0)
        for held in self._followers:
            tell = held()
            if tell is not None:
                tell()

    def follow(self, tell: Callable[[], object]) -> None:
        """Call `tell`, a bound method, after each change of the limit. It is referred to weakly."""
        with self._lock:
            self._followers = [*_alive(self._followers), weakref.WeakMethod(tell)]
        self._settle()

    def add_reclaimer(self, reclaim: Reclaimer) -> None:
        """Ask `reclaim(n)` to free at least n bytes, where it can, before anybody waits. It credits what it frees
        and returns how much that was. A bound method is referred to weakly."""
        held: Callable[[], Reclaimer | None]
        held = weakref.WeakMethod(reclaim) if hasattr(reclaim, "__self__") else (lambda: reclaim)
        with self._lock:
            self._reclaimers = [*self._reclaimers, held]
        self._settle()

    def remove_reclaimer(self, reclaim: Reclaimer) -> None:
        """Ask `reclaim` no more. Allowed when it is not registered."""
        with self._lock:
            self._reclaimers = _alive(self._reclaimers, but=reclaim)
        self._settle()

    def reclaim(self, count: int) -> int:
        """Ask the reclaimers, one after another, for what is missing to `count` bytes; what they freed."""
        freed = 0
        for held in self._reclaimers:
            missing = count - (self.limit - self.held)
            if missing <= 0:
                break
            reclaimer = held()
            if reclaimer is None:
                continue
            try:
                freed += reclaimer(missing)
            except Exception:
                # Somebody else's trouble must not fail this request: it is said, and the next one is asked.
                fields = {"event": "pool.reclaim_failed", "bytes": missing}
                logger.exception("%r failed to free %d bytes", reclaimer, missing, extra=fields)
        return freed

    # -- for those who wait for more than the ledger -------------------------------------------------------

    def check(self, count: int) -> None:
        """Raise `LimitExceeded` when `count` bytes can never be held."""
        if count > self.limit:
            raise LimitExceeded(
                f"{format_size(count)} can never fit into the memory limit of {format_size(self.limit)}; "
                f"{RAISE_LIMIT}, or handle the object in smaller pieces"
            )

    def overloaded(self, count: int, waited: float) -> Overloaded:
        """The error for a request of `count` bytes that has `waited` (seconds) in vain."""
        return Overloaded(
            f"no {format_size(count)} of memory came free within {format_duration(waited)}: {format_size(self.held)} of "
            f"{format_size(self.limit)} are held and {counted(self.waiting, 'request waits', 'requests wait')}; {RAISE_LIMIT}, or the timeout",
            retry_after=max(LEAST_RETRY_SECONDS, waited),
        )

    def join_line(self, ticket: Ticket) -> None:
        """Enter the line; `ticket.wake` is called when the bytes are granted later than now."""
        self.check(ticket.need)
        self._settle()
        with self._lock:
            ticket.epoch = self.epoch
            self._kernel.join(ticket)
        self._settle()

    def leave_line(self, ticket: Ticket) -> bool:
        """End the wait of `ticket`; True when the bytes were granted, and are the caller's now."""
        if ticket.epoch != self.epoch:
            return False
        with self._lock:
            wake = self._kernel.leave(ticket)
        _wake(wake)
        self._settle()
        return ticket.granted

    def abandon(self, ticket: Ticket) -> None:
        """Give up the place of `ticket` in line, or what was granted there. Never blocks, and may run in a finalizer."""
        self.noted.append(ticket)
        self._settle()

    def _give_locked(self, item: int | Held | Ticket) -> list[Ticket]:
        if isinstance(item, Ticket):
            wake = self._kernel.abandon(item) if item.epoch == self.epoch else []
            del self.noted[0]
            return wake
        return self._kernel.give(item.bytes if isinstance(item, Held) else item, self.noted)

    def _settle(self) -> None:
        # Whoever finds the lock taken leaves its credits to the holder, who looks again after letting go: so no
        # credit waits while nobody works, and nobody waits to credit.
        while self.noted:
            wake: list[Ticket] = []
            # A loop over `map` and not a call: between a call's return and the next step a signal handler may raise,
            # and the lock would stay taken for ever.
            for _ in filter(None, map(self._lock.acquire, NO_WAIT)):
                try:
                    self._give_all_locked(wake)
                finally:
                    self._lock.release()
                break
            else:
                return
            _wake(wake)

    def _give_all_locked(self, wake: list[Ticket]) -> None:
        # Not in the `try` of who calls this: in CPython 3.13 the jump back of such a loop is outside of its block, and an
        # interrupt there left the lock taken.
        while self.noted:
            wake += self._give_locked(self.noted[0])

    def _after_fork_in_child(self) -> None:
        self._kernel = LedgerKernel(self._kernel.limit, self._kernel.inherited + self._kernel.held)
        self._lock = threading.Lock()
        self._begin_notes()
        self.epoch += 1


def _parse_limit(limit: Size) -> int:
    try:
        bound = parse_size(limit)
    except ValueError as error:
        raise ConfigError([Problem("limit", limit, str(error))], subject="MemoryLedger") from None
    if bound < 1:
        raise ConfigError([Problem("limit", limit, "must be at least 1 byte")], subject="MemoryLedger")
    return bound


class Forkable(Protocol):
    """What has threads' state that means nothing in a forked child. Lower `fork_order` is reset first."""

    fork_order: int

    def _after_fork_in_child(self) -> None: ...


_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()


def reset_after_fork(thing: Forkable) -> None:
    """Have `thing._after_fork_in_child()` called in every child forked while `thing` lives."""
    _forkables.add(thing)


def _reset_all() -> None:
    for thing in sorted(_forkables, key=lambda thing: thing.fork_order):
        thing._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)


def parse_timeout(timeout: Duration, subject: str = "MemoryLedger.charge") -> float:
    """Seconds of a timeout given to the call `subject`, or `ConfigError`."""
    if type(timeout) is float and timeout >= 0:
        return timeout
    try:
        return parse_duration(timeout)
    except ValueError as error:
        raise ConfigError([Problem("timeout", timeout, str(error))], subject=subject) from None


def _check_charge(count: int, timeout: Duration) -> float:
    """Seconds of the timeout of a charge, or all that is wrong with it."""
    try:
        seconds = parse_timeout(timeout)
    except ConfigError as error:
        check_bytes(count, "charge", error.problems)
        raise
    check_bytes(count, "charge")
    return seconds


def _alive(held: list[_Reference], *, but: object = None) -> list[_Reference]:
    # Not where the lock is held: the jump back of a comprehension is as that of a loop (`_wait`).
    return [one for one in held if one() not in (None, but)]


def _wake(tickets: list[Ticket]) -> None:
    for ticket in tickets:
        if ticket.wake is not None:
            ticket.wake()
