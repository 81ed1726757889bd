"""Holdings: what memory a pool has, by size of chunk, and where each chunk is.

Invariant: every mapped byte is charged to the ledger, from before it is mapped until after it is unmapped. A chunk
is free (in its class's deque), leased, or suspect (a view of it survived its lease).
Threads: everything that ends in `_locked` belongs to the holder of the pool's lock.
Design: docs/design/memory.md
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections import deque
from sys import getrefcount
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from daramjwee.buffers.arenas import ALONE, RANKS, Arena, ChunkClass, Totals, table_by_pages, totals_of
from daramjwee.buffers.config import LeakDetection
from daramjwee.buffers.sizes import PAGE_SHIFT, arena_plans, class_sizes, page_round
from daramjwee.buffers.stats import ChunkClassStats
from daramjwee.buffers.strategy import class_bounds
from daramjwee.errors import Overloaded
from daramjwee.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from daramjwee.buffers.arenas import Chunk
    from daramjwee.buffers.config import BufferPoolConfig
    from daramjwee.buffers.ledger import MemoryLedger
    from daramjwee.buffers.ledger_kernel import Ticket


def _count_in_list() -> int:
    things = [object()]
    return getrefcount(things[0])


# `getrefcount(chunks[i])` when only that list refers to the chunk. Releases of Python count the call's own reference
# differently, so it is found out; with no local name for it, or a debugger that reads this frame's locals would be
# counted, and chunks on loan would be taken for strays.
STRAY = _count_in_list()


# Places of lost leases that are told apart, and what stands for those beyond, and for those that were not recorded.
MOST_PLACES = 32
OTHER_PLACES = "other places"
UNKNOWN_PLACE = "not recorded"


class Refused(Overloaded):
    """The system gave no memory; nothing is mapped or charged."""

    def __init__(self, total: int, said: str) -> None:
        super().__init__(
            f"the system gives no {format_size(total)} of memory: {said}; raise the limit of the "
            "process or its container (`daramjwee doctor` shows them), or lower max_pool_bytes",
            retry_after=1.0,
        )


class Counts(NamedTuple):
    """What a pool has counted since it was made, and what it holds. `pooled`, `direct`: leases by size class, those in
    copies last, in pooled memory and in memory mapped for one lease."""

    hits: int
    misses: int
    puts: int
    pooled: tuple[int, ...]
    direct: tuple[int, ...]
    suspects: int
    mapped: int
    idle: int
    private: int
    peak: int
    lost: int
    waiting: int
    overloads: int
    waits: int
    wait_seconds: float
    maps: int
    mapped_in_all: int
    refusals: int
    chunks: tuple[ChunkClassStats, ...]


_Item = TypeVar("_Item")

# What was charged in another epoch is credited to nobody.
_forget: Callable[[int], object] = int


def seen_in(queue: Iterable[_Item]) -> tuple[_Item, ...]:
    """What a queue or a table holds that others change meanwhile. Making the tuple may start the collector, whose callbacks and
    finalizers let others in; then it is looked at again."""
    while True:
        try:
            return tuple(queue)
        except RuntimeError:
            continue


class EndedHome:
    """Home of chunks that are not kept: mapped for one lease, or of a size no longer used. Whatever comes back is
    attended to at once."""

    __slots__ = ("_holdings", "alert", "attend", "lost", "suspects")

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self.alert = True
        self.suspects = holdings.suspects
        self.lost = holdings.lost
        self.attend = holdings.attend

    @property
    def orphaned(self) -> bool:
        return self._holdings.orphaned


class Holdings:
    """All memory of one pool in one process. `table`: the free chunks by size in pages, replaced as a whole;
    `open_table`: as much of it as needs no gate. `alert`: somebody waits, or something else is due on the next request
    and give-back."""

    def __init__(self, config: BufferPoolConfig, ledger: MemoryLedger, *, gated: bool) -> None:
        self.alert = False
        self.orphaned = False
        self.closed = False
        self.keeps_idle = True
        self.suspects: deque[Chunk] = deque()
        self.lost: deque[Chunk] = deque()
        self.mapped = 0
        self.private = 0
        self.peak = 0
        self.leases_lost = 0
        self._places: dict[str, int] = {}
        self._untold = 0  # lost leases that the log has not heard of
        self.maps = self.mapped_in_all = self.refusals = 0
        self.refused = ""  # what the system said when it last gave no memory
        # Leases that were not served from a free chunk, by rank: in a chunk, and in memory mapped for them.
        self._missed = [0] * RANKS
        self._direct = [0] * RANKS
        self._ledger = ledger
        self._epoch = ledger.epoch
        self._singles = ChunkClass(0, ())
        # Classes whose chunks are unmapped as they come home; the first stays.
        self._ended: list[ChunkClass] = [self._singles]
        self._ended_home = EndedHome(self)
        # Arenas on their way out: taken from their class, and then counted out but not yet unmapped.
        self._taken: list[tuple[ChunkClass, Arena]] = []
        self._doomed: deque[Arena] = deque()
        self._past: dict[int, Totals] = {}
        self._config = config
        self._sizes: tuple[int, ...] = ()
        self._classes: tuple[ChunkClass, ...] = ()
        self.table: list[deque[Chunk]] = []
        self.open_table: list[deque[Chunk]] = []
        self._gated = gated
        self._wanted: tuple[BufferPoolConfig, tuple[int, ...]] | None = (config, class_sizes(config))
        self._follow_locked()

    def attend(self) -> None:
        """What a give-back calls when something is due: sift, serve who waits, free what the ledger lacks."""
        raise NotImplementedError

    @property
    def config(self) -> BufferPoolConfig:
        """The configuration that holds for the next request."""
        wanted = self._wanted
        return self._config if wanted is None else wanted[0]

    # -- the sizes ---------------------------------------------------------------------------------------

    def _follow_locked(self) -> None:
        """Carry out what is wanted. May be interrupted anywhere, and is then done again from the start."""
        if self._wanted is None:
            return
        config, sizes = self._wanted
        poisoned = config.leak_detection is LeakDetection.FULL or bool(sys.flags.dev_mode)
        bounds = class_bounds(config)
        known = {kind.size: kind for kind in self._classes if (kind.poisoned, kind.bounds) == (poisoned, bounds)}
        sizes = sizes if config.enabled else ()
        classes = tuple(known.get(size) or ChunkClass(size, bounds, poisoned=poisoned) for size in sizes)
        ended = [kind for kind in self._classes if kind not in classes and kind not in self._ended]
        for kind in ended:
            kind.settle_at(self._ended_home)
        self._ended += ended
        self._classes = classes
        self._sizes = sizes
        self._config = config
        self.table = self.open_table = table_by_pages(classes)
        if self._gated:
            self.open_table = self.table[: (config.large_object_threshold - 1) >> PAGE_SHIFT]
        self._wanted = None

    # -- taking ------------------------------------------------------------------------------------------

    def _find_locked(self, size: int, rank: int, private: bool, *, last: bool) -> Chunk | None:
        classes = len(self._sizes)
        index = classes if private else bisect_left(self._sizes, size)
        if index < classes:
            chunk = self._pop_locked(index, index)
            if chunk is None:
                try:
                    chunk = self._grow_locked(index, rank)
                    if chunk is not None or not last:
                        return chunk
                    chunk = self._pop_locked(index, classes - 1)
                except Refused:
                    chunk = self._pop_locked(index, classes - 1)
                    if chunk is None:
                        raise
            if chunk is not None:
                chunk.gets[rank] += 1
                return chunk
        # Too large for the pool, or the pool has all it may have: memory for this lease only.
        need = page_round(size)
        return self._map_locked(need, self._singles, rank)

    def _pop_locked(self, index: int, last: int) -> Chunk | None:
        for kind in self._classes[index : last + 1]:
            try:
                return kind.free.pop()
            except IndexError:
                continue
        return None

    def _grow_locked(self, index: int, rank: int) -> Chunk | None:
        kind = self._classes[index]
        # While memory is short, no more than is asked for.
        plans = arena_plans(kind.size, len(kind.arenas)) if self.keeps_idle else (kind.size,)
        for total in plans:
            if self.mapped + total <= self._config.max_pool_bytes:
                try:
                    chunk = self._map_locked(total, kind, rank)
                except Refused:
                    if total == plans[-1]:
                        raise
                    continue  # less may be had
                if chunk is not None:
                    return chunk
        return None

    def _map_locked(self, total: int, kind: ChunkClass, rank: int, ticket: Ticket | None = None) -> Chunk | None:
        """Charge an arena, or take over what `ticket` was granted, and map it: its first chunk; None where the ledger
        has no room."""
        note = self._ledger.note_credit
        arena = Arena(total, kind.bounds)
        charged = False
        try:
            if ticket is None:
                charged = self._ledger.try_charge(total)
            else:
                # In one step: before it, the ticket is given up by its waiter; after it, the bytes are credited below.
                charged, ticket.granted = True, False
            if not charged:
                return None
            arena.carve(kind.size or total, kind.free, self if kind.size else self._ended_home)
            # No call from here to the counters: an interrupt comes before it is ours or after it is counted.
            kind.arenas[arena] = None
            if kind.size:
                self.mapped += total
            else:
                self.private += total
            self.maps += 1
            self.mapped_in_all += total
            self.peak = max(self.peak, self.mapped + self.private)
            kind.free.extend(arena.chunks[:0:-1])
        except BaseException as error:  # an interrupt, too, or a size that no mapping can have: nothing is mapped
            if charged and arena not in kind.arenas:
                try:
                    arena.unmap()  # the error's traceback names it, and may be kept
                finally:
                    note(total)
                self._ledger.settle()
            if not isinstance(error, (OSError, OverflowError, MemoryError)):
                raise
            self.refused = str(error) or type(error).__name__
            self.refusals += 1
            raise Refused(total, self.refused) from error
        arena.chunks[0].misses += 1
        (self._missed if kind.size else self._direct)[rank] += 1
        return arena.chunks[0]

    def is_private(self, chunk: Chunk) -> bool:
        """Whether it was mapped for one lease."""
        return chunk.free is self._singles.free

    # -- coming back -------------------------------------------------------------------------------------

    def _sift_locked(self) -> None:
        """Free the suspects of which no view is left."""
        suspects = self.suspects
        while self.lost:
            chunk = self.lost[0]
            place = chunk.place_at or UNKNOWN_PLACE
            if place not in self._places and len(self._places) >= MOST_PLACES:
                place = OTHER_PLACES
            count = self._places.get(place, 0) + 1
            # No call until it is in the other place: after an interrupt it is counted once, and never twice.
            del self.lost[0]
            suspects += (chunk,)
            self.leases_lost += 1
            self._places[place] = count
            self._untold += 1
        for _ in range(len(suspects)):
            chunk = suspects.popleft()
            # Fewer after an interrupt of `Chunk.fit`.
            (chunk.free if getrefcount(chunk.memory) <= ALONE else suspects).append(chunk)

    def _take_up_strays_locked(self) -> None:
        """Take up chunks lost to an interrupt between their taking and the making of the lease: nobody has them."""
        for kind in (*self._classes, *self._ended):
            for arena in kind.arenas:
                chunks = arena.chunks
                for at in range(len(chunks)):
                    if getrefcount(chunks[at]) == STRAY:
                        chunks[at].puts = chunks[at].uses
                        self.suspects.append(chunks[at])

    def _take_idle_locked(self, count: int | None) -> None:
        """Doom idle arenas of the classes, at least `count` bytes of them where there are (None: all)."""
        for kind in self._classes:
            if count is not None and count <= 0:
                return
            kind.take_idle(self._taken, count)
            freed = self._doom_locked()
            if count is not None:
                count -= freed

    def _bury_locked(self) -> int:
        """Doom what came home of ended classes; how many bytes."""
        freed = self._doom_locked()
        for kind in tuple(self._ended):
            if kind.free:
                kind.take_idle(self._taken, None)
                freed += self._doom_locked()
            if not kind.arenas and kind is not self._singles:
                self._ended.remove(kind)
        return freed

    def _doom_locked(self) -> int:
        """Count what was taken out, and leave it to `_unmap`; how many bytes. Where an interrupt stops it, the next one
        goes on."""
        freed = 0
        while self._taken:
            kind, arena = self._taken[-1]
            totals = self._past.get(kind.size, Totals()).plus(totals_of(arena.chunks))
            # No call until it is marked as counted: an interrupt would have it counted in part, and then again.
            if not arena.ended:
                self._past[kind.size] = totals
                if kind is self._singles:
                    self.private -= arena.bytes
                else:
                    self.mapped -= arena.bytes
                arena.ended = True
            freed += arena.bytes
            self._doomed.append(arena)
            del self._taken[-1]
        return freed

    def _unmap(self) -> int:
        """Unmap what is doomed, with no lock held; bytes freed."""
        total = 0
        for arena in seen_in(self._doomed):
            if arena.leaving:
                continue  # another thread is unmapping it, and credits it when that is done
            arena.leaving = True
            try:
                arena.unmap()
                # Before and after an interrupt, exactly one credits it: no call between the two lines.
                note = self._ledger.note_credit if self._epoch == self._ledger.epoch else _forget
                count, arena.bytes = arena.bytes, 0
                note(count)
                total += count
            finally:
                arena.leaving = False
            try:
                self._doomed.remove(arena)
            except ValueError:
                continue  # another thread was quicker
        self._ledger.settle()
        return total

    def _rows_locked(self) -> tuple[tuple[ChunkClassStats, ...], tuple[int, ...]]:
        """A row for each size of chunk, and leases served from free chunks by rank."""
        kinds: dict[int, list[ChunkClass]] = {size: [] for size in self._past}
        for kind in (*self._classes, *self._ended):
            kinds.setdefault(kind.size, []).append(kind)
        rows = []
        whole = Totals()
        for size in sorted(kinds, key=lambda size: size or sys.maxsize):
            arenas = [arena for kind in kinds[size] for arena in kind.arenas]
            totals = self._past.get(size, Totals()).plus(
                totals_of([chunk for arena in arenas for chunk in arena.chunks])
            )
            whole = whole.plus(totals)
            hits, misses, puts = totals.hits, totals.misses, totals.puts
            if size or hits + misses:
                free = sum(len(kind.free) for kind in kinds[size])
                mapped = sum(arena.bytes for arena in arenas)
                kept = any(kind in self._classes for kind in kinds[size])
                rows.append(ChunkClassStats(size, hits, misses, puts, hits + misses - puts, free, mapped, kept))
        return tuple(rows), whole.gets
