"""Chunks: the memory of one pool. Where chunks come from, where they wait, when they go back to the system.

Invariant: every mapped byte is charged to the ledger, from before it is mapped until after it is unmapped. A chunk
is free (in its class's deque), leased, or suspect (a view of it survived its lease).
Threads: any. Taking a free chunk and giving one back need no lock; the lock is for bookkeeping on the slow path, and
whoever gives back while it is taken leaves the work to its holder.
Design: docs/design/memory.md
"""

from __future__ import annotations

import sys
import threading
from bisect import bisect_left
from collections import deque
from sys import getrefcount
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.buffers.arenas import ALONE, Arena, ChunkClass, Totals, table_by_pages
from daramjwee.buffers.config import LeakDetection
from daramjwee.buffers.ledger import NO_WAIT
from daramjwee.buffers.sizes import SizeHistogram, arena_plans, class_sizes, page_round, recalibrate
from daramjwee.buffers.stats import ChunkClassStats
from daramjwee.buffers.waiting import wait_for_chunk, wait_for_chunk_async
from daramjwee.errors import Closed, Overloaded
from daramjwee.units import format_size

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from daramjwee.buffers.arenas import Chunk
    from daramjwee.buffers.config import BufferPoolConfig
    from daramjwee.buffers.ledger import MemoryLedger, Ticket
    from daramjwee.buffers.waiting import Waiter
    from daramjwee.model import Clock

# So many samples of sizes are worth a recalibration: some thousand leases, or so many requests on the slow path.
SAMPLES_DUE = 128


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
    chunks: tuple[ChunkClassStats, ...]


class _Todo(NamedTuple):
    """What is decided under the lock and done after it: waiters to wake, arenas to unmap, tickets to give up."""

    wake: list[Waiter]
    gone: list[Arena]
    tickets: list[Ticket]


class _EndedHome:
    """Home of chunks that are not kept: mapped for one lease, or of a size no longer used. Whatever comes back is
    attended to at once."""

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
    """All memory of one pool in one process. `table`: the free chunks by size in pages, replaced as a whole. `alert`:
    somebody waits, or something else is due on the next request and give-back."""

    def __init__(self, config: BufferPoolConfig, ledger: MemoryLedger, clock: Clock) -> None:
        self.alert = False
        self.orphaned = False
        self.closed = False
        self.keeps_idle = True
        self.suspects: deque[Chunk] = deque()
        self.lost: deque[Chunk] = deque()
        self.samples: deque[tuple[int, int]] = deque(maxlen=2 * SAMPLES_DUE)
        self.mapped = 0
        self.private = 0
        self.peak = 0
        self.leases_lost = 0
        self.overloads = 0
        self._singles = ChunkClass(0)
        # Classes whose chunks are unmapped as they come home; the first stays.
        self._ended: list[ChunkClass] = [self._singles]
        self._ended_home = _EndedHome(self)
        self._past: dict[int, Totals] = {}
        self._line: deque[Waiter] = deque()
        self._left: deque[Waiter] = deque()
        # Who has entered and not left, in the line or given something already; the loops of those that are tasks.
        self._visitors: dict[Waiter, None] = {}
        self._loops: set[AbstractEventLoop] = set()
        self._ledger = ledger
        self._epoch = ledger.epoch
        self._lock = threading.Lock()
        self._pending = False
        self._clock = clock
        self._maintained_at = self._calibrated_at = clock.monotonic()
        self._histogram = SizeHistogram()
        self._calibrating = threading.Lock()
        self._config = config
        self._sizes: tuple[int, ...] = ()
        self._classes: tuple[ChunkClass, ...] = ()
        self.table: list[deque[Chunk]] = []
        self._wanted: tuple[BufferPoolConfig, tuple[int, ...]] | None = (config, class_sizes(config))
        self._follow_locked()

    @property
    def config(self) -> BufferPoolConfig:
        """The configuration that holds for the next request."""
        wanted = self._wanted
        return self._config if wanted is None else wanted[0]

    # -- the sizes ---------------------------------------------------------------------------------------

    def reconfigure(self, config: BufferPoolConfig) -> None:
        """Use `config` from now on: decided in one step, which whoever takes the lock next carries out."""
        with self._lock:
            self._wanted = (config, class_sizes(config))
        self.attend()

    def _follow_locked(self) -> None:
        """Carry out what is wanted. May be interrupted anywhere, and is then done again from the start."""
        if self._wanted is None:
            return
        config, sizes = self._wanted
        poisoned = config.leak_detection is LeakDetection.FULL or bool(sys.flags.dev_mode)
        known = {kind.size: kind for kind in self._classes if kind.poisoned == poisoned}
        sizes = sizes if config.enabled else ()
        classes = tuple(known.get(size) or ChunkClass(size, poisoned=poisoned) for size in sizes)
        ended = [kind for kind in self._classes if kind not in classes and kind not in self._ended]
        for kind in ended:
            kind.settle_at(self._ended_home)
        self._ended += ended
        self._classes = classes
        self._sizes = sizes
        self._config = config
        self.table = table_by_pages(classes)
        self._wanted = None

    def sample(self, size: int, weight: int) -> None:
        """Note that `size` bytes were asked for, about `weight` times."""
        self.samples.append((size, weight))
        if len(self.samples) >= SAMPLES_DUE:
            self.alert = True  # the next request comes by the slow path, which recalibrates

    def _recalibrate(self, now: float) -> None:
        """Learn from what was asked for, and forget a part of what was learned before."""
        for _ in filter(None, map(self._calibrating.acquire, NO_WAIT)):
            try:
                self._calibrated_at = now
                self._histogram.decay()
                while self.samples:
                    self._histogram.add(*self.samples.popleft())
                config, sizes = self._config, self._sizes
                if not config.enabled:
                    return
                wanted = recalibrate(self._histogram.weights, sizes, config)
            finally:
                self._calibrating.release()
            if wanted != sizes:
                with self._lock:
                    # Unless somebody reconfigured meanwhile.
                    if self._wanted is None and self._config is config:
                        self._wanted = (config, wanted)
                self.attend()

    # -- taking ------------------------------------------------------------------------------------------

    def obtain(self, size: int, seconds: float, *, private: bool = False) -> Chunk:
        """A chunk of at least `size` bytes: free, newly mapped, or waited for. Counts it as hit or miss.

        Raises `LimitExceeded`, `Overloaded` after `seconds`, `Closed`.
        """
        chunk = self._at_once(size, private)
        return wait_for_chunk(self, size, seconds, private=private) if chunk is None else chunk

    async def obtain_async(self, size: int, seconds: float) -> Chunk:
        """As `obtain`, waiting in the same line without holding up the event loop."""
        chunk = self._at_once(size, False)
        return await wait_for_chunk_async(self, size, seconds) if chunk is None else chunk

    def _at_once(self, size: int, private: bool) -> Chunk | None:
        now = self._clock.monotonic()
        if not private:
            self.samples.append((size, 1))
            if len(self.samples) >= SAMPLES_DUE:
                self._recalibrate(now)
        if now - self._maintained_at >= self._config.max_idle_age:
            self.maintain(now)
        chunk = self._attempt(size, private, last=False)
        if chunk is None:
            # Another class's idle memory may fill the ledger, or this pool's share of it.
            at = bisect_left(self._sizes, size)
            self.reclaim(page_round(size) if private or at == len(self._sizes) else self._sizes[at])
            chunk = self._attempt(size, private, last=True)
        return chunk

    def _attempt(self, size: int, private: bool, *, last: bool) -> Chunk | None:
        """A chunk that can be had now."""
        todo = None
        try:
            with self._lock:
                if self.closed:
                    raise closed_error()
                todo = self._work_locked()
                chunk = None if self._line else self._find_locked(size, private, last=last)
                self._shed_locked(todo)
                return chunk
        finally:
            if todo is not None:
                self._finish(todo)

    def _find_locked(self, size: int, private: bool, *, last: bool) -> Chunk | None:
        classes = len(self._sizes)
        index = classes if private else bisect_left(self._sizes, size)
        if index < classes:
            chunk = self._pop_locked(index, index)
            if chunk is None:
                chunk = self._grow_locked(index)
                if chunk is not None or not last:
                    return chunk
                chunk = self._pop_locked(index, classes - 1)
            if chunk is not None:
                chunk.hits += 1
                return chunk
        # Too large for the pool, or the pool has all it may have: memory for this lease only.
        need = page_round(size)
        return self._map_locked(need, self._singles) if self._ledger.try_charge(need) else None

    def _pop_locked(self, index: int, last: int) -> Chunk | None:
        for kind in self._classes[index : last + 1]:
            try:
                return kind.free.pop()
            except IndexError:
                continue
        return None

    def _grow_locked(self, index: int) -> Chunk | None:
        kind = self._classes[index]
        # While memory is short, no more than is asked for.
        plans = arena_plans(kind.size, len(kind.arenas)) if self.keeps_idle else (kind.size,)
        for total in plans:
            if self.mapped + total <= self._config.max_pool_bytes and self._ledger.try_charge(total):
                return self._map_locked(total, kind)
        return None

    def _map_locked(self, total: int, kind: ChunkClass) -> Chunk:
        """Map an arena that is charged already; its first chunk."""
        arena = Arena(total)
        try:
            arena.carve(kind.size or total, kind.free, self if kind.size else self._ended_home)
        except BaseException as error:  # an interrupt, too, or a size that no mapping can have: nothing is mapped
            self._ledger.credit(total)
            if not isinstance(error, (OSError, OverflowError, MemoryError)):
                raise
            raise Overloaded(f"the system gives no {format_size(total)} of memory: {error}", retry_after=1.0) from error
        kind.arenas[arena] = None
        kind.free.extend(arena.chunks[:0:-1])
        if kind.size:
            self.mapped += total
        else:
            self.private += total
        self.peak = max(self.peak, self.mapped + self.private)
        arena.chunks[0].misses += 1
        return arena.chunks[0]

    # -- waiting -----------------------------------------------------------------------------------------

    def enter(self, waiter: Waiter) -> None:
        """Stand in both lines; from here on whoever gives back sees the waiter, who may be served already."""
        ledger = self._ledger
        ledger.check(waiter.ticket.need)
        with self._lock:
            if self.closed:
                raise closed_error()
            self._line.append(waiter)
            self._visitors[waiter] = None
            if waiter.loop is not None:
                self._loops.add(waiter.loop)
            self.alert = True
        ledger.join_line(waiter.ticket)
        self.attend()  # what came back just before
        if not waiter.over:
            ledger.reclaim(waiter.ticket.need)

    def leave(self, waiter: Waiter, began: float) -> Chunk:
        """Step out of both lines with what was given in either; the error for who was given nothing."""
        ticket = waiter.ticket
        granted = self._ledger.leave_line(ticket)
        todo = None
        try:
            with self._lock:
                todo = self._work_locked()
                self._forget_locked(waiter)
                chunk, waiter.chunk = waiter.chunk, None
                if granted and chunk is None and not self.closed:
                    ticket.granted = False  # what follows gives it back where it fails
                    return self._map_locked(ticket.need, self._singles)
                if granted:
                    todo.tickets.append(ticket)
                if chunk is not None:
                    chunk.misses += 1
                elif not waiter.closed:
                    self.overloads += 1
        finally:
            if todo is not None:
                self._finish(todo)
        if chunk is not None:
            return chunk
        if waiter.closed or self.closed:
            raise closed_error()
        if ticket.refused:
            self._ledger.check(ticket.need)
        raise self._ledger.overloaded(ticket.need, monotonic() - began)

    def abandon(self, waiter: Waiter) -> None:
        """Forget a waiter, wherever it stands; what it was given goes back. Never blocks."""
        self._left.append(waiter)
        self.attend()

    def _forget_locked(self, waiter: Waiter) -> None:
        if waiter in self._line:
            self._line.remove(waiter)
        self._visitors.pop(waiter, None)
        if not self._visitors:
            self._loops.clear()

    def _serve_locked(self, todo: _Todo) -> None:
        """Take up what left waiters were given, and give free chunks to those in line, in its order."""
        closed = [loop for loop in self._loops if loop.is_closed()]
        if closed:  # nobody will ever take what their tasks are given
            self._left.extend(waiter for waiter in self._visitors if waiter.loop in closed)
        while self._left:
            waiter = self._left.popleft()
            self._forget_locked(waiter)
            chunk, waiter.chunk = waiter.chunk, None
            if chunk is not None:
                chunk.free.append(chunk)
            todo.tickets.append(waiter.ticket)
        for waiter in tuple(self._line):
            if not any(kind.free for kind in self._classes):
                break
            if waiter.private:
                continue
            chunk = self._pop_locked(bisect_left(self._sizes, waiter.size), len(self._sizes) - 1)
            if chunk is not None:
                waiter.chunk = chunk
                self._line.remove(waiter)
                todo.wake.append(waiter)

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

    def _finish(self, todo: _Todo) -> int:
        freed = self._act(todo)
        self._settle()
        return freed

    def _act(self, todo: _Todo) -> int:
        for waiter in todo.wake:
            waiter.wake()
        for ticket in todo.tickets:
            self._ledger.abandon(ticket)
        return self._unmap(todo.gone) if todo.gone else 0

    def _work_locked(self) -> _Todo:
        self._pending = False
        todo = _Todo([], [], [])
        self._follow_locked()
        self._sift_locked()
        self._serve_locked(todo)
        self._bury_locked(todo.gone)
        missing = max(self._ledger.missing, self.mapped - self._config.max_pool_bytes)
        if self.closed:
            self._take_idle_locked(todo.gone, None)
        elif missing > 0:
            self._take_idle_locked(todo.gone, missing)
        # Never False in between while somebody waits: a give-back in that moment would go unseen.
        due = len(self.samples) >= SAMPLES_DUE
        self.alert = due or bool(self._visitors) or self.closed or missing > 0
        return todo

    def _sift_locked(self) -> None:
        """Free the suspects of which no view is left."""
        suspects = self.suspects
        while self.lost:
            suspects.append(self.lost.popleft())
            self.leases_lost += 1
        for _ in range(len(suspects)):
            chunk = suspects.popleft()
            # Fewer after an interrupt of `Chunk.fit`.
            (chunk.free if getrefcount(chunk.memory) <= ALONE else suspects).append(chunk)

    # -- going back to the system --------------------------------------------------------------------------

    def reclaim(self, count: int) -> int:
        """Unmap idle arenas of any class until `count` bytes are free; what that freed."""
        if self.orphaned:
            return 0
        with self._lock:
            gone: list[Arena] = []
            self._sift_locked()
            self._bury_locked(gone)
            self._take_idle_locked(gone, count - sum(arena.bytes for arena in gone))
            # Somebody may be about to wait: from now on, every give-back looks.
            self.alert = True
        freed = self._unmap(gone)
        self._settle()
        return freed

    def relieve(self, *, keeps_idle: bool) -> int:
        """Note whether idle memory is kept; where not, unmap it now. Bytes freed."""
        with self._lock:
            self.keeps_idle = keeps_idle
            todo = self._work_locked()
            self._shed_locked(todo)
        return self._finish(todo)

    def _shed_locked(self, todo: _Todo) -> None:
        if not self.keeps_idle:
            self._take_idle_locked(todo.gone, None)

    def maintain(self, now: float) -> int:
        """Unmap what nobody has used for `max_idle_age`, take up strays, learn sizes; bytes freed. `now`: monotonic
        seconds."""
        age = self._config.max_idle_age
        if len(self.samples) >= SAMPLES_DUE or now - self._calibrated_at >= age:
            self._recalibrate(now)
        with self._lock:
            self._maintained_at = now
            for kind in (*self._classes, *self._ended):
                for arena in kind.arenas:
                    chunks = arena.chunks
                    for at in range(len(chunks)):
                        # An interrupt between taking it and making the lease: nobody has it, nobody ever will.
                        if getrefcount(chunks[at]) == STRAY:
                            chunks[at].puts = chunks[at].hits + chunks[at].misses
                            self.suspects.append(chunks[at])
            todo = self._work_locked()
            self._shed_locked(todo)
            for kind in self._classes:
                self._bury_each_locked(todo.gone, kind, kind.take_idle(None, now=now, age=age))
        return self._finish(todo)

    def _take_idle_locked(self, gone: list[Arena], count: int | None) -> None:
        """Add idle arenas of the classes to `gone`, at least `count` bytes of them where there are (None: all)."""
        for kind in self._classes:
            if count is not None and count <= 0:
                return
            taken = kind.take_idle(count)
            self._bury_each_locked(gone, kind, taken)
            if count is not None:
                count -= sum(arena.bytes for arena in taken)

    def _bury_locked(self, gone: list[Arena]) -> None:
        """Add to `gone` what came home of ended classes."""
        for kind in tuple(self._ended):
            if kind.free:
                self._bury_each_locked(gone, kind, kind.take_idle(None))
            if not kind.arenas and kind is not self._singles:
                self._ended.remove(kind)

    def _bury_each_locked(self, gone: list[Arena], kind: ChunkClass, taken: list[Arena]) -> None:
        for arena in taken:
            gone.append(arena)
            self._past.setdefault(kind.size, Totals()).add(arena.chunks)
            if kind is self._singles:
                self.private -= arena.bytes
            else:
                self.mapped -= arena.bytes

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
            waiters = list(self._line)
            self._line.clear()
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
        self._line.clear()
        self._visitors.clear()
        self._lock = threading.Lock()

    def count(self) -> Counts:
        """All counters, exact when nothing runs; while something runs, never more puts than gets."""
        with self._lock:
            todo = self._work_locked()
            rows = self._rows_locked()
            counts = Counts(
                sum(row.hits for row in rows), sum(row.misses for row in rows), sum(row.puts for row in rows),
                len(self.suspects), self.mapped, self.private, self.peak, self.leases_lost, len(self._line),
                self.overloads, rows,
            )  # fmt: skip
        self._finish(todo)
        return counts

    def _rows_locked(self) -> tuple[ChunkClassStats, ...]:
        kinds: dict[int, list[ChunkClass]] = {size: [] for size in self._past}
        for kind in (*self._classes, *self._ended):
            kinds.setdefault(kind.size, []).append(kind)
        rows = []
        for size in sorted(kinds, key=lambda size: size or sys.maxsize):
            totals, past = Totals(), self._past.get(size)
            arenas = [arena for kind in kinds[size] for arena in kind.arenas]
            for arena in arenas:
                totals.add(arena.chunks)
            hits, misses, puts = totals.hits, totals.misses, totals.puts
            if past is not None:
                hits, misses, puts = hits + past.hits, misses + past.misses, puts + past.puts
            if size or hits + misses:
                free = sum(len(kind.free) for kind in kinds[size])
                mapped = sum(arena.bytes for arena in arenas)
                kept = any(kind in self._classes for kind in kinds[size])
                rows.append(ChunkClassStats(size, hits, misses, puts, hits + misses - puts, free, mapped, kept))
        return tuple(rows)

    def __del__(self) -> None:
        # Nobody has a lease any more: a lease keeps its pool's memory alive. No lock may be waited for here.
        held = getattr(self, "mapped", 0) + getattr(self, "private", 0)
        if held and self._epoch == self._ledger.epoch:
            self._ledger.credit_later(held)


def closed_error() -> Closed:
    return Closed("the buffer pool was closed; leases made before stay valid, new ones need an open pool")
