"""What the gate for large operations decides: who may begin, who waits, in which order.

Invariant: those who begin fit both limits, operations and bytes; the line is ordered by arrival time plus a penalty
for lower priority, and its head is never overtaken, so nobody waits while the head fits and nobody waits for ever.
Threads: none. A pure kernel without lock, clock or IO; the moment is handed in. Explored exhaustively by its test.
Design: docs/design/strategy.md
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from enum import Enum


class Priority(Enum):
    """Who goes first of those who wait. A lower one that came long enough before (`ageing`, for each step) goes
    before a higher one: nobody starves."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


# In the order of their penalties: 0, 1 and 2 times `ageing`.
PRIORITIES = tuple(Priority)


class State(Enum):
    """Where a ticket is. NEW also after a refusal; ENDED after leaving the line, or giving back."""

    NEW = "new"
    WAITING = "waiting"
    GRANTED = "granted"
    ENDED = "ended"


# An access through the class costs more than the comparison it is for.
NEW, WAITING, GRANTED, ENDED = State


class Ticket:
    """One operation: the bytes it needs, how much later than a HIGH one it counts as come, and where it is."""

    __slots__ = ("charged", "key", "need", "penalty", "state")

    def __init__(self, need: int, penalty: int = 0) -> None:
        self.state = NEW
        self.need = need
        self.penalty = penalty
        self.charged = 0  # bytes it holds: what it needs, but nothing while bytes are not bounded
        self.key = (0.0, 0)


class GateKernel:
    """At most `max_operations` at once, which need at most `max_bytes` (None: any) together; `max_queued` may wait.

    `granted` collects those granted out of the line, in order, until the shell has told them. Interrupts come between
    calls: what must not come apart is done without one, and a step that was cut short is completed by the next.
    """

    __slots__ = (
        "active", "active_bytes", "ageing", "arrivals", "granted", "line", "max_bytes", "max_operations", "max_queued",
    )  # fmt: skip

    def __init__(self, max_operations: int, max_bytes: int | None, max_queued: int, ageing: float) -> None:
        self.max_operations = max_operations
        self.max_bytes = max_bytes
        self.max_queued = max_queued
        self.ageing = ageing
        self.active = 0
        self.active_bytes = 0
        self.arrivals = 0
        self.line: list[Ticket] = []
        self.granted: deque[Ticket] = deque()

    @property
    def over(self) -> bool:
        """More is under way than the limits, lowered meanwhile, allow."""
        return self.active > self.max_operations or (self.max_bytes is not None and self.active_bytes > self.max_bytes)

    def fits(self, need: int) -> bool:
        return self.active < self.max_operations and (
            self.max_bytes is None or self.active_bytes + need <= self.max_bytes
        )

    def take(self, ticket: Ticket) -> bool:
        """Grant it, if it fits and nobody waits."""
        if self.line or not self.fits(ticket.need):
            return False
        self._grant(ticket)
        return True

    def request(self, ticket: Ticket, now: float) -> bool:
        """Grant it where it fits and nobody goes before it, else put it into the line (`state` tells). False: refused,
        the line is full, and nothing has changed."""
        key = (now + ticket.penalty * self.ageing, self.arrivals)
        if (not self.line or key < self.line[0].key) and self.fits(ticket.need):
            self._grant(ticket)
            return True
        if len(self.line) >= self.max_queued:
            return False
        ticket.key = key
        self.arrivals += 1
        place = self._place(ticket)
        ticket.state = WAITING
        self.line.insert(place, ticket)
        return True

    def leave(self, ticket: Ticket) -> None:
        """Give up the place in the line. What was granted meanwhile stays granted, and is the caller's."""
        if ticket.state is not WAITING:
            return
        place = self._place(ticket)
        ticket.state = ENDED
        if place < len(self.line) and self.line[place] is ticket:
            del self.line[place]
        self.advance()

    def give(self, ticket: Ticket) -> None:
        """The operation is over."""
        if ticket.state is not GRANTED:
            raise ValueError(
                f"an operation that is {ticket.state.value} cannot be given back: it was given back before"
            )
        ticket.state = ENDED
        self.active -= 1
        self.active_bytes -= ticket.charged
        self.advance()

    def end(self, ticket: Ticket) -> None:
        """`leave` or `give`, whichever is due; nothing when it is neither in the line nor granted."""
        if ticket.state is WAITING:
            self.leave(ticket)
        elif ticket.state is GRANTED:
            self.give(ticket)

    def reconfigure(self, max_operations: int, max_bytes: int | None, max_queued: int) -> list[Ticket]:
        """New limits. What is under way goes on, who waits keeps the place; those who can never fit any more are
        taken out of the line, and returned."""
        self.max_operations = max_operations
        self.max_bytes = max_bytes
        self.max_queued = max_queued
        return self.drop([t for t in self.line if max_bytes is not None and t.need > max_bytes])

    def drop(self, tickets: list[Ticket]) -> list[Ticket]:
        """Take `tickets` out of the line; those of them that were in it."""
        dropped = [ticket for ticket in tickets if ticket.state is WAITING]
        for ticket in dropped:
            ticket.state = ENDED
        self.line[:] = [ticket for ticket in self.line if ticket.state is WAITING]
        self.advance()
        return dropped

    def ahead(self, ticket: Ticket) -> int:
        """How many go before it."""
        return self._place(ticket) if ticket.state is WAITING else 0

    def advance(self) -> None:
        """Grant the head of the line, and the next, while they fit."""
        while self.line:
            head = self.line[0]
            if head.state is WAITING and not self.fits(head.need):
                return
            # The head may have been granted, or have left, by a step that was interrupted: only its place is left.
            if head.state is WAITING:
                self.active += 1
                head.charged = head.need if self.max_bytes is not None else 0
                self.active_bytes += head.charged
                head.state = GRANTED
                self.granted.append(head)
            del self.line[0]

    def _grant(self, ticket: Ticket) -> None:
        self.active += 1
        ticket.charged = ticket.need if self.max_bytes is not None else 0
        self.active_bytes += ticket.charged
        ticket.state = GRANTED

    def _place(self, ticket: Ticket) -> int:
        return bisect_left(self.line, ticket.key, key=_key)


def _key(ticket: Ticket) -> tuple[float, int]:
    return ticket.key
