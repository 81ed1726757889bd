"""The window: bytes that no staging takes, held for readers that have not come so far.

Invariant: every byte held is charged to the ledger, or lies in the flight's own lease (charged already). Only the
last piece can be of the second kind, and no other is admitted before all have read it; so a window never waits for
memory that another one holds. Under memory pressure fewer pieces are held, down to the one in the lease.
Threads: the holder of the pump role admits; everything else is called with the crowd's lock held.
Design: docs/design/fills.md
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.buffers.charge import Grip, Held
from daramjwee.buffers.pressure import EFFECTS

if TYPE_CHECKING:
    from daramjwee.buffers import BufferPool

# One piece of a body. 256 KiB is where reuse and system calls balance (docs/design/memory.md).
PIECE_BYTES = 256 * 1024


class Segment(NamedTuple):
    """Bytes from offset `start` on. `charge`: gives back what is charged for them with the last reference to it; None where
    they lie in the flight's lease."""

    start: int
    data: bytes | memoryview
    charge: Grip | None

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class Window:
    """Segments in the order of their offsets."""

    __slots__ = ("_ledger", "_pool", "_segments")

    def __init__(self, pool: BufferPool) -> None:
        self._pool = pool
        self._ledger = pool.ledger
        self._segments: deque[Segment] = deque()

    def __del__(self) -> None:
        # Of a flight that was lost with its readers. Runs inside any allocation: neither blocks.
        if getattr(self, "_segments", None):
            self._segments.clear()
            self._ledger.settle()

    def __len__(self) -> int:
        """Bytes held."""
        return sum(len(segment.data) for segment in self._segments)

    @property
    def short(self) -> bool:
        """Whether the last piece found no memory of its own, and must be read before another comes."""
        return bool(self._segments) and self._segments[-1].charge is None

    @property
    def bound(self) -> int:
        """How many bytes may be held before the slowest reader has to read: a few pieces, so that pump and readers
        overlap. At least one byte, which is the piece that nobody has read yet."""
        if self.short:
            return 1
        return max(1, EFFECTS[self._pool.pressure].reads_ahead * PIECE_BYTES)

    def admit(self, start: int, piece: memoryview | bytes) -> Segment:
        """A segment of the piece, in memory of its own where there is some, else where it lies. Takes no lock."""
        count = len(piece)
        if EFFECTS[self._pool.pressure].reads_ahead:
            held = Held()
            charge = Grip(self._ledger.note_credit, held)
            if self._ledger.try_charge(count):
                held.bytes = count  # no call between the two
                return Segment(start, bytes(piece), charge)
        # A slice of its own: whoever gave the piece releases the view that it gave at its next call.
        return Segment(start, piece if type(piece) is bytes else piece[:], None)

    def append(self, segment: Segment) -> None:
        self._segments.append(segment)

    def locate(self, offset: int) -> Segment:
        return next(segment for segment in self._segments if segment.start <= offset < segment.end)

    def drop(self, tail: int) -> None:
        """Let go what lies below `tail`."""
        while self._segments and self._segments[0].end <= tail:
            del self._segments[0]
        if self._ledger.noted:
            self._ledger.settle()
