"""Chunks: the memory of one pool. Where chunks come from, where they wait, when they go back to the system.

Invariant: every mapped byte is charged to the ledger, from before it is mapped until after it is unmapped. A chunk
is free (in its class's deque), leased, or suspect (a view of it survived its lease).
Threads: any. Taking a free chunk and giving one back need no lock; the lock is for bookkeeping on the slow path, and
whoever gives back while it is taken leaves the work to its holder.
Design: docs/design/memory.md
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from sys import getrefcount
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.buffers.arenas import Arena, Totals, arena_plans, class_sizes, page_round
from daramjwee.buffers.lease import ALONE
from daramjwee.buffers.ledger import NO_WAIT, Ticket
from daramjwee.errors import Closed, Overloaded
from daramjwee.units import format_size

if TYPE_CHECKING:
    from daramjwee.buffers.arenas import Chunk
    from daramjwee.buffers.config import BufferPoolConfig
    from daramjwee.buffers.ledger import MemoryLedger
    from daramjwee.model import Clock

# How long a waiter sleeps at most before it looks again: a surviving view and a lost lease tell nobody of their end.
LOOK_AGAIN_SECONDS = 0.25


def _count_in_list() -> int:
    things = [object()]
    return getrefcount(things[0])


# `getrefcount(chunks[i])` when only that list refers to the chunk. Releases of Python count the call's own reference
# differently, so it is found out; with no local name for it, or a debugger that reads this frame's locals would be
# counted, and chunks on loan would be taken for strays.
STRAY = _count_in_list()


class Counts(NamedTuple):
    """What a pool has counted since it was made, and what it holds."""

    hits: int
    misses: int
    puts: int
    suspects: int
    mapped: int
    private: int
    peak: int
    lost: int
    waiting: int
    overloads: int


class _Todo(NamedTuple):
    """What is decided under the lock and done after it: waiters to wake, arenas to unmap."""

    wake: list[_Waiter]
    gone: list[Arena]


class _Waiter:
    """One request that found no memory: it sleeps until it is given a chunk, or its ticket is granted."""

    __slots__ = ("_lock", "chunk", "closed", "index")

    def __init__(self, index: int) -> None:
        self.index = index
        self.chunk: Chunk | None = None
        self.closed = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def over(self, ticket: Ticket) -> bool:
        return ticket.granted or self.closed or self.chunk is not None

    def sleep(self, seconds: float) -> None:
        self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def wake(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            return  # woken already, by a chunk and a grant at the same time


class _PrivateHome:
    """Home of chunks that are nobody's but their lease's: whatever comes back is attended to at once."""

    __slots__ = ("_chunks", "alert", "attend", "lost", "suspects")

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self.alert = True
        self.suspects = chunks.suspects
        self.lost = chunks.lost
        self.attend = chunks.attend

    @property
    def orphaned(self) -> bool:
        return self._chunks.orphaned


class Chunks:
    """All memory of one pool in one process. `alert`: somebody waits, or something else is due on a give-back."""

    def __init__(self, config: BufferPoolConfig, ledger: MemoryLedger, clock: Clock) -> None:
        self.sizes = class_sizes(config)
        self.frees: tuple[deque[Chunk], ...] = tuple(deque() for _ in self.sizes)
        self.alert = False
        self.orphaned = False
        self.closed = False
        self.suspects: deque[Chunk] = deque()
        self.lost: deque[Chunk] = deque()
        self.mapped = 0
        self.private = 0
        self.peak = 0
        self.leases_lost = 0
        self.overloads = 0
        self._ended: deque[Chunk] = deque()
        self._home = _PrivateHome(self)
        self._arenas: list[list[Arena]] = [[] for _ in self.sizes]
        self._privates: set[Arena] = set()
        self._gone = Totals()
        self._waiters: deque[_Waiter] = deque()
        self._max_bytes: int = config.max_pool_bytes
        self._max_idle: float = config.max_idle_age
        self._enabled: bool = config.enabled
        self._ledger = ledger
        self._epoch = ledger.epoch
        self._lock = threading.Lock()
        self._pending = False
        self._clock = clock
        self._maintained_at = clock.monotonic()

    # -- taking ------------------------------------------------------------------------------------------

    def obtain(self, size: int, seconds: float, *, private: bool = False) -> Chunk:
        """A chunk of at least `size` bytes: free, newly mapped, or waited for. Counts it as hit or miss.

        Raises `LimitExceeded`, `Overloaded` after `seconds`, `Closed`.
        """
        index = len(self.sizes) if private or not self._enabled else bisect_left(self.sizes, size)
        now = self._clock.monotonic()
        if now - self._maintained_at >= self._max_idle:
            self.maintain(now)
        chunk, free = self._attempt(index, size, last=False)
        if chunk is None:
            # Another class's idle memory may fill the ledger, or this pool's share of it.
            self.reclaim(page_round(size if index == len(self.sizes) else self.sizes[index]))
            chunk, free = self._attempt(index, size, last=True)
        if chunk is None:
            chunk = self._wait(index, size, seconds)
        if free:
            chunk.hits += 1
        else:
            chunk.misses += 1
        return chunk

    def _attempt(self, index: int, size: int, *, last: bool) -> tuple[Chunk | None, bool]:
        """A chunk that can be had now, and whether it was free before."""
        todo = None
        try:
            with self._lock:
                if self.closed:
                    raise closed_error()
                todo = self._work_locked()
                return (None, False) if self._waiters else self._find_locked(index, size, last=last)
        finally:
            if todo is not None:
                self._finish(todo)

    def _find_locked(self, index: int, size: int, *, last: bool) -> tuple[Chunk | None, bool]:
        chunk = self._pop_locked(index, largest=index)
        if chunk is not None:
            return chunk, True
        if index < len(self.sizes):
            chunk = self._grow_locked(index)
            if chunk is not None or not last:
                return chunk, False
            chunk = self._pop_locked(index, largest=len(self.sizes) - 1)
            if chunk is not None:
                return chunk, True
        # Too large for the pool, or the pool has all it may have: memory for this lease only.
        need = page_round(size)
        return (self._map_locked(need, None) if self._ledger.try_charge(need) else None), False

    def _pop_locked(self, index: int, *, largest: int) -> Chunk | None:
        for free in self.frees[index : largest + 1]:
            try:
                return free.pop()
            except IndexError:
                continue
        return None

    def _grow_locked(self, index: int) -> Chunk | None:
        for total in arena_plans(self.sizes[index], len(self._arenas[index])):
            if self.mapped + total <= self._max_bytes and self._ledger.try_charge(total):
                return self._map_locked(total, index)
        return None

    def _map_locked(self, total: int, index: int | None) -> Chunk:
        """Map an arena that is charged already; its first chunk."""
        arena = Arena(total, index)
        try:
            if index is None:
                arena.carve(total, self._ended, self._home)
            else:
                arena.carve(self.sizes[index], self.frees[index], self)
        except BaseException as error:  # an interrupt, too, or a size that no mapping can have: nothing is mapped
            self._ledger.credit(total)
            if not isinstance(error, (OSError, OverflowError, MemoryError)):
                raise
            raise Overloaded(f"the system gives no {format_size(total)} of memory: {error}", retry_after=1.0) from error
        if index is None:
            self._privates.add(arena)
            self.private += total
        else:
            self._arenas[index].append(arena)
            self.frees[index].extend(arena.chunks[:0:-1])
            self.mapped += total
        self.peak = max(self.peak, self.mapped + self.private)
        return arena.chunks[0]

    def _wait(self, index: int, size: int, seconds: float) -> Chunk:
        """Stand in two lines at once: for a chunk that comes back, and for room in the ledger."""
        ledger, began = self._ledger, monotonic()
        waiter = _Waiter(index)
        ticket = Ticket(page_round(size), waiter.wake)
        ledger.check(ticket.need)
        try:
            with self._lock:
                if self.closed:
                    raise closed_error()
                self._waiters.append(waiter)
                self.alert = True
            ledger.join_line(ticket)
            # From here on whoever gives back sees the waiter; what came back just before is found now.
            self.attend()
            if not waiter.over(ticket):
                ledger.reclaim(ticket.need)
            while not waiter.over(ticket) and (left := began + seconds - monotonic()) > 0:
                waiter.sleep(min(left, LOOK_AGAIN_SECONDS))
                self.attend()
        except BaseException:
            chunk = self._leave(waiter, ticket, keep=False)
            raise
        chunk = self._leave(waiter, ticket, keep=True)
        if chunk is not None:
            return chunk
        if waiter.closed:
            raise closed_error()
        with self._lock:
            self.overloads += 1
        self._settle()
        raise ledger.overloaded(ticket.need, monotonic() - began)

    def _leave(self, waiter: _Waiter, ticket: Ticket, *, keep: bool) -> Chunk | None:
        """Step out of both lines with what was given in either; with nothing when not `keep`."""
        granted = self._ledger.leave_line(ticket)
        todo = None
        try:
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                chunk, waiter.chunk = waiter.chunk, None
                if chunk is not None and not keep:
                    chunk.free.append(chunk)
                    chunk = None
                todo = self._work_locked()
                if granted and (chunk is not None or not keep or self.closed):
                    self._ledger.credit(ticket.need)
                elif granted:
                    chunk = self._map_locked(ticket.need, None)
            return chunk
        finally:
            if todo is not None:
                self._finish(todo)

    # -- giving back -------------------------------------------------------------------------------------

    def attend(self) -> None:
        """Do what is due after a give-back: sift, serve who waits, free what the ledger lacks. Never blocks."""
        if self.orphaned:
            return
        self._pending = True
        self._settle()

    def _settle(self) -> None:
        # As in the ledger: who finds the lock taken leaves the work to the holder, who calls this after letting go.
        while self._pending:
            for _ in filter(None, map(self._lock.acquire, NO_WAIT)):
                try:
                    todo = self._work_locked()
                finally:
                    self._lock.release()
                break
            else:
                return
            self._act(todo)

    def _finish(self, todo: _Todo) -> None:
        self._act(todo)
        self._settle()

    def _act(self, todo: _Todo) -> None:
        for waiter in todo.wake:
            waiter.wake()
        if todo.gone:
            self._unmap(todo.gone)

    def _work_locked(self) -> _Todo:
        self._pending = False
        gone = self._sift_locked()
        wake = []
        for waiter in tuple(self._waiters):
            chunk = self._pop_locked(waiter.index, largest=len(self.sizes) - 1)
            if chunk is not None:
                waiter.chunk = chunk
                self._waiters.remove(waiter)
                wake.append(waiter)
        missing = self._ledger.missing
        if self.closed:
            gone += self._take_idle_locked(None)
        elif missing > 0:
            gone += self._take_idle_locked(missing)
        # Never False in between while somebody waits: a give-back in that moment would go unseen.
        self.alert = bool(self._waiters) or self.closed or missing > 0
        return _Todo(wake, gone)

    def _sift_locked(self) -> list[Arena]:
        """Free the suspects of which no view is left; the private arenas that are over."""
        suspects = self.suspects
        while self.lost:
            suspects.append(self.lost.popleft())
            self.leases_lost += 1
        for _ in range(len(suspects)):
            chunk = suspects.popleft()
            (chunk.free if getrefcount(chunk.array) == ALONE else suspects).append(chunk)
        gone = []
        while self._ended:
            arena = self._ended.popleft().arena
            self._privates.remove(arena)
            self.private -= arena.bytes
            self._gone.add(arena.chunks)
            gone.append(arena)
        return gone

    # -- going back to the system --------------------------------------------------------------------------

    def reclaim(self, count: int) -> int:
        """Unmap idle arenas of any class until `count` bytes are free; what that freed."""
        if self.orphaned:
            return 0
        with self._lock:
            gone = self._sift_locked()
            gone += self._take_idle_locked(count - sum(arena.bytes for arena in gone))
            # Somebody may be about to wait: from now on, every give-back looks.
            self.alert = True
        freed = self._unmap(gone)
        self._settle()
        return freed

    def maintain(self, now: float) -> int:
        """Unmap what nobody has used for `max_idle_age`, take up strays; bytes freed. `now`: monotonic seconds."""
        with self._lock:
            self._maintained_at = now
            for arenas in (*self._arenas, self._privates):
                for arena in arenas:
                    chunks = arena.chunks
                    for at in range(len(chunks)):
                        # An interrupt between taking it and making the lease: nobody has it, nobody ever will.
                        if getrefcount(chunks[at]) == STRAY:
                            chunks[at].puts = chunks[at].hits + chunks[at].misses
                            self.suspects.append(chunks[at])
            todo = self._work_locked()
            gone = self._take_idle_locked(None, older=now)
        freed = sum(arena.bytes for arena in todo.gone) + self._unmap(gone)
        self._finish(todo)
        return freed

    def _take_idle_locked(self, count: int | None, *, older: float | None = None) -> list[Arena]:
        """Arenas with every chunk free, at least `count` bytes of them where there are (None: all), taken out."""
        taken: list[Arena] = []
        freed = 0
        for index, free in enumerate(self.frees):
            if count is not None and freed >= count:
                break
            chunks = _drain(free)
            present: dict[Arena, int] = {}
            for chunk in chunks:
                present[chunk.arena] = present.get(chunk.arena, 0) + 1
            for arena in self._arenas[index][::-1]:
                if present.get(arena) != len(arena.chunks) or (count is not None and freed >= count):
                    continue
                if older is not None and arena.idle_for(older) < self._max_idle:
                    continue
                freed += arena.bytes
                taken.append(arena)
                self._arenas[index].remove(arena)
                self._gone.add(arena.chunks)
                self.mapped -= arena.bytes
                del present[arena]
            # Chunks of the fullest arenas are taken first from now on, so that the others come to be idle.
            kept = [chunk for chunk in chunks if chunk.arena in present]
            kept.sort(key=lambda chunk: present[chunk.arena], reverse=True)
            free.extendleft(reversed(kept))
        return taken

    def _unmap(self, gone: list[Arena]) -> int:
        total = sum(arena.bytes for arena in gone)
        try:
            for arena in gone:
                arena.chunks.clear()  # the last references: the mappings end here
            gone.clear()
        finally:
            if total and self._epoch == self._ledger.epoch:
                self._ledger.credit(total)
        return total

    # -- the end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Unmap everything but what is on loan, which is unmapped as it comes back. Waiters get `Closed`."""
        with self._lock:
            self.closed = True
            waiters = list(self._waiters)
            self._waiters.clear()
            for waiter in waiters:
                waiter.closed = True
            todo = self._work_locked()
        for waiter in waiters:
            waiter.wake()
        self._finish(todo)

    def orphan(self) -> None:
        """In a forked child: leases stay readable, and what comes back is left alone."""
        self.orphaned = True
        self.alert = False
        self._waiters.clear()
        self._lock = threading.Lock()

    def count(self) -> Counts:
        """All counters, exact when nothing runs; while something runs, never more puts than gets."""
        with self._lock:
            todo = self._work_locked()
            live = [c for arenas in (*self._arenas, self._privates) for arena in arenas for c in arena.chunks]
            puts = self._gone.puts + sum(chunk.puts for chunk in live)
            hits = self._gone.hits + sum(chunk.hits for chunk in live)
            misses = self._gone.misses + sum(chunk.misses for chunk in live)
            counts = Counts(
                hits, misses, puts, len(self.suspects), self.mapped, self.private, self.peak, self.leases_lost,
                len(self._waiters), self.overloads,
            )  # fmt: skip
        self._finish(todo)
        return counts

    def __del__(self) -> None:
        # Nobody has a lease any more: a lease keeps its pool's memory alive. No lock may be waited for here.
        held = getattr(self, "mapped", 0) + getattr(self, "private", 0)
        if held and self._epoch == self._ledger.epoch:
            self._ledger.credit_later(held)


def _drain(free: deque[Chunk]) -> list[Chunk]:
    chunks = []
    while True:
        try:
            chunks.append(free.popleft())
        except IndexError:
            return chunks


def closed_error() -> Closed:
    return Closed("the buffer pool was closed; leases made before stay valid, new ones need an open pool")
