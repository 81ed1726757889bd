"""What a flight decides: who pumps, who may read how much, who waits, what is let go. Pure: no IO, clock or lock.

One flight is one running fill. Bytes arrive at `head`. Those below `spooled` lie in the staging and stay
readable to its end; where the staging takes no more (`spooled` is set), later ones pass through a bounded
window that starts at `tail` and moves with the slowest reader.

Invariants (docs/design/fills.md):
F1  A reader is given bytes below `head` only, and the last byte of a sized object, or the end of any, only
    after the outcome is DONE: what the origin said has been checked by then.
F2  At most one holder of the pump role at a time.
F3  `tail` never passes a reader that is still attached: what a reader may still need is never dropped.
F4  While readers wait and the flight runs, somebody holds the pump role or one of them is told to pump, unless
    the window is full, which only a reader that has bytes to read can cause.
Threads: none of its own; whoever calls a method holds the lock of the crowd.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

Offset = int


class Phase(enum.Enum):
    """STARTING: the origin was asked. RUNNING: bytes arrive. ENDING: all arrived, being published. DONE, FAILED: over."""

    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"
    DONE = "done"
    FAILED = "failed"


class Do(enum.Enum):
    """What a reader is told: read so many bytes, pump one piece, wait, it is the end, it failed, it was detached."""

    READ = "read"
    PUMP = "pump"
    WAIT = "wait"
    END = "end"
    FAIL = "fail"
    DETACHED = "detached"


class Turn(NamedTuple):
    """An answer to a reader. `amount`: with READ the bytes that may be read, with WAIT the `head` to wait for."""

    do: Do
    amount: int = 0


# Enum members are looked up through a metaclass; these run once per piece and reader.
_READ, _PUMP, _WAIT, _END = Do.READ, Do.PUMP, Do.WAIT, Do.END
_STARTING, _RUNNING, _ENDING, _DONE, _FAILED = Phase


class FlightKernel:
    """The state of one flight and its transitions."""

    __slots__ = ("detached", "head", "phase", "pumping", "readers", "size", "spooled", "tail", "window")

    def __init__(self, *, window: int) -> None:
        self.phase = Phase.STARTING
        self.size: int | None = None
        self.head: Offset = 0
        self.spooled: Offset | None = None  # None: the staging takes everything so far
        self.tail: Offset = 0  # meaningful once windowed
        self.window = window
        self.readers: dict[int, Offset] = {}  # lowest offset each may still ask for
        self.detached: set[int] = set()
        self.pumping = True  # the starter pumps first

    # -- readers -----------------------------------------------------------------------------------------

    def join(self, reader: int, offset: Offset) -> bool:
        """Attach a reader at `offset`; False when bytes it needs have been let go, or the flight failed."""
        if self.phase is _FAILED or self._let_go(offset):
            return False
        self.readers[reader] = offset
        return True

    def leave(self, reader: int) -> bool:
        """Detach a reader; True when it was the last one and the flight still runs."""
        self.detached.discard(reader)
        was_attached = self.readers.pop(reader, None) is not None
        return was_attached and not self.readers and not self.over

    def turn(self, reader: int, offset: Offset, least: int, most: int) -> Turn:
        """What the reader does now that it wants `least` to `most` bytes from `offset` (1 <= least <= most).

        A windowed flight may give fewer than `least`: more than the window holds can never be there at once.
        """
        if self.phase is _FAILED:
            return Turn(Do.FAIL)
        if reader in self.detached or self._let_go(offset):
            return Turn(Do.DETACHED)
        done = self.phase is _DONE
        held_back = not done and self.size is not None and self.head >= self.size  # F1
        ready = 0 if held_back else self.head - offset
        if self.spooled is not None and offset < self.spooled:
            ready = min(ready, self.spooled - offset)  # one place at a time: staging first, then window
        if ready >= least or (ready > 0 and (done or self.windowed)):
            return Turn(_READ, min(most, ready))
        if done:
            return Turn(_END)
        if not self.pumping and self.phase is _RUNNING and not self.window_full:
            return Turn(_PUMP)
        return Turn(_WAIT, offset + (1 if self.windowed else least))

    def moved(self, reader: int, offset: Offset) -> bool:
        """The reader needs nothing below `offset` any more; True when that made room in a full window."""
        if reader not in self.readers:
            return False
        was_full = self.window_full
        self.readers[reader] = offset
        self.trim()
        return was_full and not self.window_full

    # -- the pump ----------------------------------------------------------------------------------------

    @property
    def windowed(self) -> bool:
        return self.spooled is not None

    @property
    def over(self) -> bool:
        return self.phase is _DONE or self.phase is _FAILED

    @property
    def window_full(self) -> bool:
        """No room for another piece. Never once all bytes that were announced are here: the end must be seen."""
        if self.spooled is None or (self.size is not None and self.head >= self.size):
            return False
        return self.head - max(self.tail, self.spooled) >= self.window

    def try_pump(self) -> bool:
        """Take the pump role, if the flight runs and nobody holds it."""
        if self.pumping or self.phase is not _RUNNING:
            return False
        self.pumping = True
        return True

    def stop_pumping(self) -> None:
        self.pumping = False

    def started(self, size: int | None, *, spool: bool) -> None:
        """The origin answered; `spool` says whether a staging takes the bytes."""
        if self.phase is not _STARTING:
            raise AssertionError(f"started in {self.phase}")
        self.phase = Phase.RUNNING
        self.size = size
        if not spool:
            self.spooled = 0

    def spool_lost(self) -> None:
        """The staging takes no more bytes; those from `head` on go through the window."""
        if self.spooled is None:
            self.spooled = self.head
            self.tail = 0
            self.trim()

    def received(self, count: int) -> None:
        self.head += count

    def ending(self) -> None:
        """The body ended as announced; publication is under way."""
        self.phase = Phase.ENDING

    def done(self) -> None:
        self.phase = Phase.DONE
        self.size = self.head
        self.pumping = False

    def failed(self) -> None:
        self.phase = Phase.FAILED
        self.pumping = False

    def _let_go(self, offset: Offset) -> bool:
        return self.spooled is not None and self.tail >= self.spooled and offset < self.tail

    def trim(self) -> None:
        """Let the window go up to the slowest reader. The staging is let go as a whole, when all are past it."""
        if self.spooled is None:
            return
        slowest = min(self.readers.values(), default=self.head)
        if slowest > self.tail:
            self.tail = min(slowest, self.head)

    def detach_slowest(self) -> tuple[int, ...]:
        """Detach readers that keep a full window from moving while others wait at its head; they are told."""
        if not self.window_full or len(self.readers) < 2:
            return ()
        waiting = [r for r, offset in self.readers.items() if offset >= self.head]
        slow = tuple(r for r, offset in self.readers.items() if offset <= self.tail)
        if not waiting:
            return ()
        for reader in slow:
            del self.readers[reader]
            self.detached.add(reader)
        self.trim()
        return slow
