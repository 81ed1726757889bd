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

from daramjwee.buffers.pressure import EFFECTS

if TYPE_CHECKING:
    from daramjwee.buffers import BufferPool

# One piece of a body. 256 KiB is where reuse and system calls balance (docs/design/memory.md).
PIECE_BYTES = 256 * 1024


class Segment(NamedTuple):
    """Bytes from offset `start` on. `charged`: bytes to credit when it goes."""

    start: int
    data: bytes | memoryview
    charged: int

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
        # Of a flight that was lost with its readers. Runs inside any allocation: `credit_later` only notes.
        for segment in getattr(self, "_segments", ()):
            self._ledger.credit_later(segment.charged)

    def __len__(self) -> int:
        """Bytes held."""
        return sum(len(segment.data) for segment in self._segments)

    @property
    def short(self) -> bool:
        """Whether the last piece found no memory of its own, and must be read before another comes."""
        return bool(self._segments) and not self._segments[-1].charged

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
        if EFFECTS[self._pool.pressure].reads_ahead and self._ledger.try_charge(count):
            return Segment(start, bytes(piece), count)
        # A slice of its own: whoever gave the piece releases the view that it gave at its next call.
        return Segment(start, piece if type(piece) is bytes else piece[:], 0)

    def append(self, segment: Segment) -> None:
        self._segments.append(segment)

    def locate(self, offset: int) -> Segment:
        return next(segment for segment in self._segments if segment.start <= offset < segment.end)

    def drop(self, tail: int) -> None:
        """Let go what lies below `tail`."""
        while self._segments and self._segments[0].end <= tail:
            self._ledger.credit(self._segments.popleft().charged)

    def discard(self, segment: Segment) -> None:
        """Give back a segment that was admitted and is not wanted any more."""
        self._ledger.credit(segment.charged)
