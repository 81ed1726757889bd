"""What the ledger decides: who may hold how much, and who is next. Pure, without a lock.

Invariant: `held` is what was taken and granted minus what was given; nothing is taken or granted beyond `limit`, and the
first in line is granted as soon as it fits.
Threads: one at a time; the ledger's lock sees to that.
Design: docs/design/memory.md
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from daramjwee.errors import ConfigError, Problem
from daramjwee.units import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def check_bytes(count: object, call: str, problems: Iterable[Problem] = ()) -> None:
    """Refuse what is no number of bytes to charge or to credit, and what else is wrong with the call."""
    found = [*problems]
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        found.insert(0, Problem("count", count, "must be bytes, an int of 0 or more"))
    if found:
        raise ConfigError(found, subject=f"MemoryLedger.{call}")


class Ticket:
    """A place in the line: so many bytes, granted or not yet, or refused because they can never fit any more."""

    __slots__ = ("epoch", "granted", "need", "refused", "wake")

    def __init__(self, need: int, wake: Callable[[], object] | None = None) -> None:
        self.need = need
        self.wake = wake
        self.epoch = -1  # of none, until it joins a line
        self.granted = False
        self.refused = False


class LedgerKernel:
    """What the ledger decides: who may hold how much. Pure, without a lock."""

    __slots__ = ("held", "inherited", "limit", "line", "peak")

    def __init__(self, limit: int, inherited: int = 0) -> None:
        self.limit = limit
        self.inherited = inherited  # held by the process this one was forked from; may be credited, counts no more
        self.held = 0
        self.peak = 0
        self.line: deque[Ticket] = deque()

    def take(self, need: int) -> bool:
        """Hold `need` more bytes if they fit and nobody waits."""
        if type(need) is not int or need < 0:
            check_bytes(need, "charge")
        held = self.held + need
        if self.line or held > self.limit:
            return False
        # As `_hold`, without the call: it took longer than the look at what is asked for.
        self.held = held
        if held > self.peak:
            self.peak = held
        return True

    def join(self, ticket: Ticket) -> None:
        """Enter the line at its end; granted at once where it fits and nobody is ahead."""
        self.line.append(ticket)
        self._advance()

    def leave(self, ticket: Ticket) -> list[Ticket]:
        """Give up the place in the line (a grant stays granted); those granted because of it."""
        if not ticket.granted and ticket in self.line:
            self.line.remove(ticket)
        return self._advance()

    def abandon(self, ticket: Ticket) -> list[Ticket]:
        """Give up the place in the line, or what was granted; those granted because of it. Repeated, it does nothing."""
        if not ticket.granted:
            return self.leave(ticket)
        # No call between the two: an interrupt, after which it is repeated, finds both done or neither.
        self.held -= ticket.need
        ticket.granted = False
        return self._advance()

    def resize(self, limit: int) -> list[Ticket]:
        """Have another limit. What is held stays held; those granted by a higher one, and those refused by a lower."""
        self.limit = limit
        refused = [ticket for ticket in self.line if ticket.need > limit]
        for ticket in refused:
            ticket.refused = True
            self.line.remove(ticket)
        return refused + self._advance()

    def give(self, count: int, queue: deque[Any] | None = None) -> list[Ticket]:
        """`count` bytes are no longer held; those granted because of it. `queue`: loses its first in the same step, in
        which no interrupt can come: it makes no call."""
        excess = count - self.held
        if count < 0 or excess > self.inherited:
            if queue is not None:
                del queue[0]
            raise ValueError(
                f"{counted(count, 'byte')} credited but only {self.held} are held: something was credited twice"
            )
        if excess > 0:
            self.inherited -= excess
            count = self.held
        self.held -= count
        if queue is not None:
            del queue[0]
        return self._advance()

    def _advance(self) -> list[Ticket]:
        granted = []
        while self.line and self.held + self.line[0].need <= self.limit:
            ticket = self.line[0]
            self._hold(ticket.need)
            # No call until it is out of the line: an interrupt would leave it held and not granted, or in no line.
            ticket.granted = True
            del self.line[0]
            granted.append(ticket)
        return granted

    def _hold(self, need: int) -> None:
        self.held += need
        if self.held > self.peak:
            self.peak = self.held
