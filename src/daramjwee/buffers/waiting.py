"""Waiting for memory: in two lines at once, the pool's for a chunk that comes back, and the ledger's for room.

Invariant: a waiter is in the pool's line, or has a chunk, or has left; what it was given and does not take goes back,
whatever ends the wait. Threads and tasks stand in the same line.
Threads: `over` and `wake` from any; the rest by whoever waits, or by the holder of the pool's lock.
Design: docs/design/memory.md
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

from daramjwee.buffers.ledger_kernel import Ticket
from daramjwee.buffers.sizes import page_round

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

    from daramjwee.buffers.arenas import Chunk
    from daramjwee.buffers.chunks import Chunks

# How long a waiter sleeps at most before it looks again: a surviving view and a lost lease tell nobody of their end.
# Tasks look less often: a thousand of them share one core.
LOOK_AGAIN_SECONDS = 0.25
LOOK_AGAIN_ASYNC_SECONDS = 1.0
# Whoever waits longer than this holds up those behind for as long, then lets them pass for as long, and so on.
PATIENCE_SECONDS = 1.0


class Waiter:
    """One request that found no memory: a thread, which sleeps until it is given a chunk, or its ticket is granted.

    `rank`: as what it counts. `private`: it wants memory mapped for it alone, and no chunk. `loop`: of a task."""

    __slots__ = ("_lock", "chunk", "closed", "loop", "private", "rank", "since", "size", "ticket")

    def __init__(self, size: int, rank: int, *, private: bool = False) -> None:
        self.size = size
        self.rank = rank
        self.private = private
        self.since = monotonic()
        self.chunk: Chunk | None = None
        self.closed = False
        self.loop: AbstractEventLoop | None = None
        self.ticket = Ticket(page_round(size), self.wake)
        self._lock = threading.Lock()
        self._lock.acquire()

    @property
    def over(self) -> bool:
        return self.ticket.granted or self.ticket.refused or self.closed or self.chunk is not None

    @property
    def holds_up(self) -> bool:
        """Whether those behind it in the line are to be given nothing now. A large request that was always overtaken by
        small ones would starve, as what comes back never gathers; one that always held them up, for memory that others
        keep, would stop the pool until its time-out."""
        return int((monotonic() - self.since) / PATIENCE_SECONDS) % 2 == 1

    def sleep(self, seconds: float) -> None:
        self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def wake(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            return  # woken already, by a chunk and a grant at the same time


class TaskWaiter(Waiter):
    """A request of a task, which awaits."""

    __slots__ = ("_chunks", "_future")

    loop: AbstractEventLoop

    def __init__(self, size: int, rank: int, loop: AbstractEventLoop, chunks: Chunks) -> None:
        super().__init__(size, rank)
        self.loop = loop
        self._chunks = chunks
        self._future: Future[None] | None = None

    async def rest(self, seconds: float) -> None:
        """Until it is woken, at most `seconds`."""
        future = self._future = self.loop.create_future()
        if self.over:
            return  # before there was a future to wake
        handle = self.loop.call_later(seconds, self._stir)
        try:
            await future
        finally:
            handle.cancel()

    def wake(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self._stir)
        except RuntimeError:  # the loop is closed, and its tasks never run again
            self._chunks.abandon(self)

    def _stir(self) -> None:
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)


def wait_for_chunk(chunks: Chunks, size: int, rank: int, seconds: float, *, private: bool) -> Chunk:
    """A chunk of at least `size` bytes, given back by somebody or newly mapped, within `seconds`."""
    began = monotonic()
    waiter = Waiter(size, rank, private=private)
    try:
        chunks.enter(waiter)
        _rest(chunks, waiter, began + seconds)
        return chunks.leave(waiter, began)
    except BaseException:
        chunks.abandon(waiter)
        raise


def _rest(chunks: Chunks, waiter: Waiter, deadline: float) -> None:
    # A function of its own, as in the ledger: an interrupt at the end of such a loop would leave the waiter in line.
    while not waiter.over and (left := deadline - monotonic()) > 0:
        waiter.sleep(min(left, LOOK_AGAIN_SECONDS))
        chunks.attend()


async def wait_for_chunk_async(chunks: Chunks, size: int, rank: int, seconds: float) -> Chunk:
    """The same for a task. A cancellation, and the end of its loop, leave nothing behind."""
    import asyncio

    began = monotonic()
    waiter = TaskWaiter(size, rank, asyncio.get_running_loop(), chunks)
    try:
        chunks.enter(waiter)
        await _rest_async(chunks, waiter, began + seconds)
        return chunks.leave(waiter, began)
    except BaseException:
        # This may be the collector that ends a task whose loop is closed: it takes no lock.
        chunks.abandon(waiter)
        raise


async def _rest_async(chunks: Chunks, waiter: TaskWaiter, deadline: float) -> None:
    while not waiter.over and (left := deadline - monotonic()) > 0:
        await waiter.rest(min(left, LOOK_AGAIN_ASYNC_SECONDS))
        chunks.attend()
