"""Bytes of the memory tier: `Body`, complete and immutable, and `Spool`, one that still grows.

Invariant: a segment is an immutable `bytes`; bytes below a spool's `written` never change. Every byte of a body
is charged to its ledger until the last holder of the body lets it go.
Threads: any number of readers, also while the one writer of a spool appends.
Design: docs/design/stores.md
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.buffers.charge import Grip
from daramjwee.errors import LimitExceeded
from daramjwee.units import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


# What arrives in smaller parts is gathered up to this size: many small `bytes` cost more than they hold.
SEGMENT_BYTES = 256 * 1024
# A body up to here ends as one segment, so that `get` can hand it out as it is.
WHOLE_BYTES = 1024 * 1024
# An unsized staging gathers in a small buffer first: most objects are small.
FIRST_TAIL_BYTES = 4096

# Where the segments of most bodies begin: one object for all of them.
_FIRST = (0,)


class Body(Grip):
    """The bytes of one object, and the grip of their charge: `Body(note, charged)`, then `fill` it. Dropping the last
    reference gives the charge back. (One object for both: a tier has many.)"""

    __slots__ = ("segments", "size", "starts")

    segments: tuple[bytes, ...]
    size: int
    starts: Sequence[int]

    def fill(self, segments: tuple[bytes, ...]) -> None:
        self.segments = segments
        self.starts = _FIRST
        if len(segments) == 1:
            self.size = len(segments[0])
            return
        starts, end = [], 0
        for segment in segments:
            starts.append(end)
            end += len(segment)
        self.starts = starts
        self.size = end

    @property
    def charged(self) -> int:
        """Bytes that are charged for it: all, or none without a ledger."""
        count: int = self.args[0]
        return count

    @property
    def whole(self) -> bytes | None:
        """All of it, where that costs no copy."""
        if len(self.segments) == 1:
            return self.segments[0]
        return None if self.segments else b""

    def readinto_at(self, offset: int, view: memoryview) -> int:
        count = min(len(view), self.size - offset)
        if count <= 0:
            return 0
        if len(self.segments) == 1:
            view[:count] = memoryview(self.segments[0])[offset : offset + count]
        else:
            _gather(self.segments, self.starts, offset, view[:count])
        return count

    def peek_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, or up to the end; a whole segment is handed out as it is."""
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        index = bisect_right(self.starts, offset) - 1
        segment, at = self.segments[index], offset - self.starts[index]
        if at + size <= len(segment):
            return segment[at : at + size]  # of all of a `bytes`, the slice is the very same object
        parts: list[bytes | memoryview] = []
        left = size
        while left:
            part = segment if not at and len(segment) <= left else memoryview(segment)[at : at + left]
            parts.append(part)
            left -= len(part)
            if left:
                index += 1
                segment, at = self.segments[index], 0
        return b"".join(parts)


def out_of_memory(count: int) -> LimitExceeded:
    """The error for a charge of `count` bytes that is refused though all that can be evicted was."""
    return LimitExceeded(
        f"the memory limit has no room for {counted(count, 'more byte')} of the memory tier, and nothing is left to "
        "evict: raise memory_limit, or lower the tier's capacity"
    )


class _State(NamedTuple):
    """What readers look at, replaced as a whole: up to `written`, everything is in segments or in the tail."""

    tail: bytearray
    tail_start: int
    written: int


_EMPTY = bytearray()
_NOTHING = _State(_EMPTY, 0, 0)


class Spool:
    """Bytes arriving. `charge(n)` is asked before memory is used: it is charged while somebody refers to the answer, and
    None says that there is none."""

    __slots__ = ("_charge", "_size", "_starts", "_tail_charge", "segments", "state")

    def __init__(self, size: int | None, charge: Callable[[int], Grip | None]) -> None:
        self._size = size
        self._charge = charge
        self.segments: list[bytes] = []
        self._starts: list[int] = []
        self.state = _NOTHING
        self._tail_charge: Grip | None = None  # of the gathering buffer, beside the bytes themselves

    def append(self, data: memoryview | bytes) -> None:
        """Add all of `data`; its bytes were charged by the caller."""
        count = len(data)
        tail, tail_start, written = self.state
        gathered = written - tail_start
        if not gathered and (count >= SEGMENT_BYTES or written + count == self._size):
            # `bytes` of a `bytes` is the same object: what is set whole is never copied.
            self._add_segment(bytes(data), written + count)
            return
        view = memoryview(data)
        while view:
            room = self._tail_for(len(view))
            tail, tail_start, written = self.state
            at = written - tail_start
            part = view[:room]
            tail[at : at + len(part)] = part
            view = view[len(part) :]
            self.state = _State(tail, tail_start, written + len(part))
            if at + len(part) >= SEGMENT_BYTES:
                self._flush()

    def readinto_at(self, offset: int, view: memoryview) -> int:
        tail, tail_start, written = self.state
        count = min(len(view), written - offset)
        if count <= 0:
            return 0
        from_segments = min(count, max(0, tail_start - offset))
        if from_segments:
            # A flush may add segments meanwhile; those below `tail_start` are there and stay.
            _gather(self.segments, self._starts, offset, view[:from_segments])
        if from_segments < count:
            at = offset + from_segments - tail_start
            view[from_segments:count] = memoryview(tail)[at : at + count - from_segments]
        return count

    def finish(self) -> tuple[bytes, ...]:
        """The segments of the body. Joined to one if that is small and there is memory for doing so."""
        self._flush()
        size = self.state.written
        if len(self.segments) > 1 and size <= WHOLE_BYTES:
            both = self._charge(size)  # until the end of this: the parts go soon
            if both is not None:
                return (b"".join(self.segments),)
        return tuple(self.segments)

    def _tail_for(self, wanted: int) -> int:
        """Room in the tail, growing it when it is full. A tail is replaced and never resized: readers look at it."""
        tail, tail_start, written = self.state
        at = written - tail_start
        if at < len(tail):
            return len(tail) - at
        length = max(FIRST_TAIL_BYTES, 4 * len(tail), at + wanted)
        if self._size is not None:
            length = max(self._size - tail_start, at + wanted)
        length = min(length, SEGMENT_BYTES)
        charge = self._charge(length)
        if charge is None:
            raise out_of_memory(length)
        grown = bytearray(length)
        grown[:at] = memoryview(tail)[:at]
        state = _State(grown, tail_start, written)
        # No call between the two: what is used is charged, before and after an interrupt.
        self.state, self._tail_charge = state, charge
        return length - at

    def _flush(self) -> None:
        tail, tail_start, written = self.state
        if written > tail_start:
            self._add_segment(bytes(memoryview(tail)[: written - tail_start]), written)

    def _add_segment(self, segment: bytes, end: int) -> None:
        if segment:
            self._starts.append(end - len(segment))
            self.segments.append(segment)
        self.state = _State(_EMPTY, end, end)
        self._tail_charge = None


def _gather(segments: Sequence[bytes], starts: Sequence[int], offset: int, view: memoryview) -> None:
    """Copy `len(view)` bytes from `offset` on; the segments hold them all."""
    index = bisect_right(starts, offset) - 1
    done, wanted = 0, len(view)
    while done < wanted:
        at = offset + done - starts[index]
        part = memoryview(segments[index])[at : at + wanted - done]
        view[done : done + len(part)] = part
        done += len(part)
        index += 1
