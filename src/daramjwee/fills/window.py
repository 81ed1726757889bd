"""The window: bytes that no staging takes, held for readers that have not come so far.

Invariant: every byte held is charged to the ledger, or lies in the flight's own lease (charged already). Only the
last piece can be of the second kind, and no other is admitted before all have read it; so a window never waits for
memory that another one holds.
Threads: the holder of the pump role admits; everything else is called with the flight's lock held.
Design: docs/design/fills.md
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from daramjwee.buffers import MemoryLedger


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

    __slots__ = ("_ledger", "_segments")

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger
        self._segments: deque[Segment] = deque()

    def __len__(self) -> int:
        """Bytes held."""
        return sum(len(segment.data) for segment in self._segments)

    @property
    def short(self) -> bool:
        """Whether the last piece found no memory of its own, and must be read before another comes."""
        return bool(self._segments) and not self._segments[-1].charged

    def admit(self, start: int, piece: memoryview | bytes) -> Segment:
        """A segment of the piece, in memory of its own where there is some, else where it lies. Takes no lock."""
        count = len(piece)
        if self._ledger.try_charge(count):
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
