"""Places in the gate for large operations: free as a token, asked for by a waiter, taken in a slot.

Invariant: a taken place is referred to by its slot alone. It comes back exactly once: by `release`, or, where its slot
is lost or an interrupt came before there was one, by its own finalizer.
Threads: any. Nothing here takes the gate's lock; a slot may be released in a finalizer.
Design: docs/design/strategy.md
"""

from __future__ import annotations

import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

from daramjwee.buffers.gate_kernel import GRANTED, Ticket

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections import deque
    from types import TracebackType
    from typing import Self

    from daramjwee.buffers.gate import LargeOperationGate
    from daramjwee.buffers.gate_stats import Tally
    from daramjwee.errors import DaramjweeError


class AlwaysAlert:
    """Home of places that are no tokens: what comes back is attended to at once."""

    __slots__ = ("_gate",)
    alert = True

    def __init__(self, gate: LargeOperationGate) -> None:
        self._gate = gate

    def attend(self) -> None:
        self._gate.attend()


class Place(Ticket):
    """A place in the gate, with its way back. Nobody but its slot refers to it while it is taken.

    `leased`: its loss is told by the lease whose place it is. `gone`: it was lost, and is on its way back; it is not
    handed out again, as Python finalizes an object once.
    """

    __slots__ = ("back", "epoch", "gate", "gone", "home", "leased")

    def __init__(
        self,
        gate: LargeOperationGate,
        back: deque[Any],
        home: LargeOperationGate | AlwaysAlert,
        need: int,
        penalty: int,
    ) -> None:
        super().__init__(need, penalty)
        self.gate = gate
        self.epoch = gate.epoch
        self.back = back
        self.home = home
        self.leased = self.gone = False

    def __del__(self) -> None:
        # A taken place that nobody refers to: its slot was lost, or an interrupt came before there was one. (A free
        # token ends together with its gate.) No call before it is in the list: an interrupt would come after it.
        try:
            if self.gone or self.state is not GRANTED or self in self.back or self.epoch != self.gate.epoch:
                return
        except AttributeError:
            return  # an interrupt came while it was made
        self.lose()
        if not self.leased and not sys.is_finalizing():
            warnings.warn(
                "a slot of a LargeOperationGate was lost without release; its place was taken back: release it, best "
                "with `with`",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def lose(self) -> None:
        """Give it back from a finalizer, once: those of a cycle run in any order, its own before or after its lease's."""
        if self.gone or self.epoch != self.gate.epoch:
            return
        self.gone = True
        gate = self.gate
        gate.lost.append(self)
        if self.home.alert:
            gate.attend()


class Token(Place):
    """A place that is handed on without a lock, with an equal share of the bytes (`need`)."""

    __slots__ = ("tally",)

    def __init__(self, gate: LargeOperationGate, tally: Tally) -> None:
        super().__init__(gate, gate.free, gate, 0, 0)
        self.tally = tally


class Waiter(Place):
    """A place asked of the kernel, for exactly the bytes needed; and a thread that sleeps until it is granted."""

    __slots__ = ("_lock", "arrived", "error", "granted_at", "noted")

    def __init__(self, gate: LargeOperationGate, need: int, penalty: int) -> None:
        super().__init__(gate, gate.ended, gate.ended_home, need, penalty)
        self.arrived = 0.0
        self.granted_at = 0.0
        self.noted = False
        self.error: DaramjweeError | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def sleep(self, seconds: float) -> bool:
        return self._lock.acquire(timeout=seconds)

    def take_error(self) -> DaramjweeError:
        """`error`, which is referred to no more: its traceback names the waiter, and such a circle would keep what the
        callers had at hand, leases among it, until the garbage collector comes."""
        error, self.error = self.error, None
        assert error is not None
        return error

    def wake(self) -> None:
        """Granted, or out of the line for `error`. Called with no lock held."""
        try:
            self._lock.release()
        except RuntimeError:
            return  # told already, before an interrupt


class AsyncWaiter(Waiter):
    """The same for a task of an event loop. `told`: it need not wait any more; `taken`: the task has seen the grant."""

    __slots__ = ("_future", "loop", "taken", "told")

    def __init__(self, gate: LargeOperationGate, need: int, penalty: int, loop: AbstractEventLoop) -> None:
        super().__init__(gate, need, penalty)
        self.loop = loop
        self.taken = self.told = False
        self._future: Future[None] | None = None

    async def rest(self, seconds: float) -> None:
        """Until it is told, at most `seconds`. (A third of the memory of `asyncio.wait`, and a thousand may wait.)"""
        future = self._future = self.loop.create_future()
        if self.told:
            return
        handle = self.loop.call_later(seconds, self._stir)
        try:
            await future
        finally:
            handle.cancel()

    def wake(self) -> None:
        self.gate.offered.append(self)
        try:
            self.loop.call_soon_threadsafe(self._tell)
        except RuntimeError:
            # Its loop was closed: nobody will ever take this grant, so the next in line has it.
            self.gate.pending = True

    def _tell(self) -> None:
        self.told = True
        self._stir()

    def _stir(self) -> None:
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)


class Slot:
    """A place among the large operations, until `release` or the end of a `with` block.

    `release` never blocks and may come from any thread; released again, it does nothing. A slot that is lost gives its
    place back with a `ResourceWarning`. In a forked child it does nothing.
    """

    __slots__ = ("__weakref__", "_place")

    _place: Place

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the place back. Allowed more than once."""
        try:
            place = self._place
            # Of two threads that release at once, exactly one gets past this line.
            del self._place
        except AttributeError:
            return
        if place.gone:
            return  # it was found lost, together with who releases it now
        try:
            place.back.append(place)
        finally:
            # After the place is back, or a waiter that looked in between would not be told; an interrupt or not.
            if place.home.alert:
                place.home.attend()

    def lose(self) -> None:
        """Give the place back from the finalizer of who had the slot, and tells of it."""
        try:
            place = self._place
            del self._place
        except AttributeError:
            return
        place.lose()

    @property
    def released(self) -> bool:
        return not hasattr(self, "_place")

    def __repr__(self) -> str:
        return f"<Slot{' released' if self.released else ''}>"
