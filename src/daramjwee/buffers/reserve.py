"""The reserve: a little memory of the process, for copies when the system refuses any other.

Mapped and touched while memory is still to be had, so that it is there when it is needed: 64 KiB of the process, in no
pool's ledger. One copy at a time goes through it, the others wait for their turn.
Invariant: at most one has it. Memory that somebody kept a view of is never lent again.
Threads: any.
Design: docs/design/memory.md
"""

from __future__ import annotations

import mmap
import threading
from typing import TYPE_CHECKING

from daramjwee.buffers.ledger import reset_after_fork
from daramjwee.units import KIB

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

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
            self._reserve.memory = None  # somebody kept a view: it is theirs now, and another is laid by later
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
        self.memory: mmap.mmap | None = None
        self.turn = threading.Lock()
        reset_after_fork(self)

    def lay_by(self) -> None:
        """Have it, from now on, if that is possible. Cheap when it is there."""
        if self.memory is not None:
            return
        try:
            memory = mmap.mmap(-1, RESERVE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, MemoryError):
            return  # too late: whoever comes next tries again
        for at in range(0, RESERVE_BYTES, mmap.PAGESIZE):
            memory[at] = 1  # or the system would look for a page only when none is left
        self.memory = memory

    def borrow(self, timeout: float) -> ReserveRoom | None:
        """All of it, within `timeout` seconds; None where there is none, or others have it for longer."""
        room = ReserveRoom(self)
        # A loop over `map` and not a call: after it an interrupt could leave the turn taken.
        for _ in filter(None, map(self.turn.acquire, (True,), (timeout,))):
            room.taken = True
            if self.memory is not None:
                room.view = memoryview(self.memory)
                return room
            room.release()
        return None

    def _after_fork_in_child(self) -> None:
        # A copy of the parent's may be under way in it, in a thread that is not here.
        self.memory = None
        self.turn = threading.Lock()


reserve = Reserve()
