"""The reserve: a little memory of the process, for copies when the system refuses any other.

Mapped and touched while memory is still to be had, so that it is there when it is needed: 64 KiB of the process, in no
pool's ledger. One copy at a time goes through it, the others wait for their turn.
Invariant: at most one has it. Memory that somebody kept a view of is never lent again.
Threads: any.
Design: docs/design/memory.md
"""

from __future__ import annotations

import threading
from collections import deque
from sys import getrefcount
from typing import TYPE_CHECKING

from daramjwee.buffers.arenas import ALONE, Arena
from daramjwee.buffers.ledger import reset_after_fork
from daramjwee.units import KIB

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from daramjwee.buffers.arenas import Chunk

# The chunk of the highest level of pressure: copies through it take 15-25 % longer (docs/design/memory.md).
RESERVE_BYTES = 64 * KIB


class ReserveRoom:
    """The reserve, on loan until `release` or the end of a `with` block. `view`: all of it; `size`: its bytes."""

    __slots__ = ("_reserve", "taken", "view")

    size = RESERVE_BYTES
    view: memoryview

    def __init__(self, reserve: Reserve) -> None:
        self._reserve = reserve
        self.taken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give it back; the second time does nothing."""
        if not self.taken:
            return
        try:
            self.view.release()
        except AttributeError:
            pass  # an interrupt came before there was one
        except BufferError:
            pass  # something was made over the view itself: it counts as a survivor below
        try:
            chunk = self._reserve.chunk
            if chunk is not None and getrefcount(chunk.memory) > ALONE:
                self._reserve.chunk = None  # somebody kept a view: it is theirs now, and another is laid by later
        finally:
            # No call between the two: an interrupt comes before the first or after the second.
            self.taken = False
            self._reserve.turn.release()

    def __del__(self) -> None:
        self.release()


class Reserve:
    """The one reserve of the process."""

    fork_order = 1

    def __init__(self) -> None:
        self.chunk: Chunk | None = None
        self.turn = threading.Lock()
        reset_after_fork(self)

    def lay_by(self) -> None:
        """Have it, from now on, if that is possible. Cheap when it is there."""
        if self.chunk is not None:
            return
        arena = Arena(RESERVE_BYTES, ())
        try:
            arena.carve(RESERVE_BYTES, deque(), None)  # type: ignore[arg-type]  # it comes back by its room, not home
        except (OSError, MemoryError):
            return  # too late: whoever comes next tries again
        chunk = arena.chunks[0]
        chunk.poison()  # touched, or the system would look for pages only when none is left
        self.chunk = chunk

    def borrow(self, timeout: float) -> ReserveRoom | None:
        """All of it, within `timeout` seconds; None where there is none, or others have it for longer."""
        room = ReserveRoom(self)
        # A loop over `map` and not a call: after it an interrupt could leave the turn taken.
        for _ in filter(None, map(self.turn.acquire, (True,), (timeout,))):
            room.taken = True
            chunk = self.chunk
            if chunk is not None:
                room.view = chunk.buffer.raw()
                return room
            room.release()
        return None

    def _after_fork_in_child(self) -> None:
        # A copy of the parent's may be under way in it, in a thread that is not here.
        self.chunk = None
        self.turn = threading.Lock()


reserve = Reserve()
