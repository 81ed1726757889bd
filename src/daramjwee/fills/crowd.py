"""The crowd: the readers of one flight, which of them sleep and for what, and the window that they share.

Invariant: who sleeps is enlisted with the `head` that ends its sleep, under the lock under which `head` moves; so
nobody is enlisted for what has come already, and no waking is lost.
Threads: any. `lock` guards all of it and the kernel; nothing is waited for inside, and nobody's code runs. `lost` is
appended to by finalizers, without a lock.
Design: docs/design/fills.md
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from daramjwee.fills.kernel import FlightKernel
from daramjwee.fills.waiter import Waiter
from daramjwee.fills.window import PIECE_BYTES, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from daramjwee.buffers import BufferPool
    from daramjwee.fills.window import Segment


_Item = TypeVar("_Item")


def see_to(queue: deque[_Item], act: Callable[[_Item], object]) -> None:
    """Do `act` with all in the queue, by several threads at once, too: so it must do no harm to do it again."""
    # Done first and taken from the queue then: an interrupt in between leaves it to whoever comes next.
    while queue:
        try:
            item = queue[0]
        except IndexError:
            return  # another thread was quicker
        try:
            act(item)
        except Exception:
            _take(queue, item)
            raise
        _take(queue, item)


def _take(queue: deque[_Item], item: _Item) -> None:
    with suppress(ValueError, IndexError):  # another thread was quicker
        queue.remove(item)


class Crowd:
    """The readers of one flight. Who pumps and how it ends is the flight's; what each may do now, the kernel's."""

    __slots__ = ("kernel", "lock", "lost", "numbers", "room", "waiters", "window")

    def __init__(self, pool: BufferPool) -> None:
        self.lock = threading.Lock()
        self.kernel = FlightKernel(window=PIECE_BYTES)
        self.window = Window(pool)
        self.waiters: list[Waiter] = []
        self.room = Waiter()  # of whoever waits for room in a full window
        self.lost: deque[int] = deque()  # readers that were garbage collected without close
        self.numbers = count(1)

    # -- sleeping and waking -------------------------------------------------------------------------------

    # A waiter is woken under the lock: that runs nobody's code, and an interrupt in between can lose none.

    def enlist_locked(self, waiter: Waiter, target: int) -> None:
        """Wake `waiter` once `head` has come to `target`, or something else has changed for everybody."""
        waiter.target = target
        self.waiters.append(waiter)

    def dismiss(self, waiter: Waiter) -> None:
        """It sleeps no longer. Nothing happens to one that was woken."""
        with self.lock:
            if waiter in self.waiters:
                self.waiters.remove(waiter)

    def wake_all_locked(self) -> None:
        for waiter in self.waiters:
            waiter.wake()
        self.waiters.clear()

    def _wake_reached_locked(self) -> None:
        head, size = self.kernel.head, self.kernel.size
        if size is not None and head >= size:
            return  # the last bytes are held back until the outcome, which wakes all
        for waiter in self.waiters:
            if waiter.target <= head:
                waiter.wake()
        self.waiters[:] = [waiter for waiter in self.waiters if waiter.target > head]

    # -- bytes that have come, and are let go --------------------------------------------------------------

    def staged(self, amount: int) -> None:
        """So many bytes more can be read from the staging."""
        with self.lock:
            self.kernel.received(amount)
            if self.waiters:
                self._wake_reached_locked()

    def passed(self, segment: Segment) -> None:
        """The bytes of `segment` can be read from the window; after the end nobody wants them."""
        kernel, window = self.kernel, self.window
        with self.lock:
            if kernel.over:
                return
            window.append(segment)
            # Without memory of its own the piece stays in the lease, and the window is full until all have read it.
            kernel.window = window.bound
            kernel.received(len(segment.data))
            self.trim_locked()
            if self.waiters:
                self._wake_reached_locked()

    def segment_locked(self, offset: int) -> Segment | None:
        """The window segment that holds `offset`; None when the staging does."""
        if self.kernel.spooled is None or offset < self.kernel.spooled:
            return None
        return self.window.locate(offset)

    def trim_locked(self) -> None:
        """Let go what every reader is past."""
        self.kernel.trim()
        self.window.drop(self.kernel.tail)

    def moved(self, reader: int, offset: int) -> None:
        """`reader` needs nothing below `offset` any more."""
        with self.lock:
            room = self.kernel.moved(reader, offset)
            self.trim_locked()
            # Readers that saw a full window went to sleep; without a filler one of them has to pump now.
            if room and not self.kernel.pumping:
                self.wake_all_locked()
        if room:
            self.room.wake()

    def detach_slowest(self) -> tuple[int, ...]:
        """Detach readers that keep a full window still while others wait at its head, and tell who they were."""
        with self.lock:
            slow = self.kernel.detach_slowest()
            self.trim_locked()
            if slow:
                self.wake_all_locked()
        return slow
