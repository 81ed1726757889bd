"""Arenas: page-aligned mappings, carved into chunks of one size.

Invariant: an arena's chunks never overlap and all begin on a page; it is unmapped when the last reference to any of
its chunks' memory is gone, never while a view of one exists.
Threads: a chunk's counters are written by whoever has it; everything else by the holder of the pool's lock.
Design: docs/design/memory.md
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections import deque
from operator import add
from sys import getrefcount
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from daramjwee.buffers.sizes import ARENA_BYTES, PAGE_SHIFT
from daramjwee.units import KIB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pickle import PickleBuffer  # noqa: TID251 - a view of memory, nothing is pickled
    from types import CodeType

    # Of the how many-th use of its chunk, where it was acquired, and from there outward, where that is recorded. No
    # frames: they would keep what their functions hold.
    Place = tuple[int, CodeType, int, tuple[tuple[CodeType, int], ...]]

# What freed memory is filled with in debug mode: a value that is neither zero nor text, in steps of so much.
POISON = b"\xdb" * (64 * KIB)
# A table of free chunks by size in pages reaches so far; what is larger is looked up on the slow path.
TABLE_PAGES = 4096
# A lease counts by the size class of what was asked for, or as part of a copy, which is counted as such itself.
INNER = 4
RANKS = INNER + 1


class Home(Protocol):
    """Where a chunk goes back to."""

    alert: bool
    suspects: deque[Chunk]
    lost: deque[Chunk]

    @property
    def orphaned(self) -> bool: ...

    def attend(self) -> None: ...


class Chunk:
    """One piece of memory that is leased as a whole.

    `capacity`: its bytes. `memory`: the first `size` of them, to which everything refers that is made over `buffer`: its
    reference count tells whether something survives. `gets`, `misses`, `puts` and `place` are written by whoever has the
    chunk, so they need no lock: how often it was taken from the free ones, by size class of what was asked for (`rank` is
    that of `size`) and, last, by copies (`INNER`); how often mapped or waited for; how often given back; and who has it.
    """

    __slots__ = (
        "_asked", "_start", "arena", "buffer", "capacity", "free", "gets", "home", "memory", "misses", "place", "puts",
        "rank", "size",
    )  # fmt: skip

    memory: Any
    buffer: PickleBuffer

    def __init__(self, arena: Arena, start: int, capacity: int, free: deque[Chunk], home: Home) -> None:
        self.arena = arena
        self._start = start
        self.capacity = capacity
        self._asked = 0
        self.fit(capacity)
        self.free = free
        self.home = home
        self.gets = [0] * RANKS
        self.misses = 0
        self.puts = 0
        self.place: Place | None = None

    @property
    def uses(self) -> int:
        """How often it was leased."""
        return sum(self.gets) + self.misses

    @property
    def place_at(self) -> str:
        """Where the lease at hand was acquired, as file:line; empty where that was not recorded."""
        place = self.place
        if place is None or place[0] != self.uses:
            return ""
        return f"{place[1].co_filename}:{place[2]}"

    @property
    def stack_at(self) -> str:
        """Who acquired the lease at hand, innermost first, each in a line begun anew; empty where that was not recorded."""
        place = self.place
        if place is None or place[0] != self.uses:
            return ""
        return "".join(f"\n  {code.co_filename}:{line} in {code.co_qualname}" for code, line in place[3])

    def fit(self, size: int) -> None:
        """Have `buffer` cover exactly `size` bytes: a view of the whole buffer is made in two thirds of the time of a
        part. Only while no view is left."""
        # A ctypes array, and no memoryview: the collector crashes CPython 3.11 where it finds one with another buffer made
        # over it in a cycle. Imported late, both: they take 5 ms, and nobody needs them before memory.
        from ctypes import c_char
        from pickle import PickleBuffer  # noqa: TID251 - a view of memory, nothing is pickled

        assert self.arena.mapping is not None
        # After an interrupt in between no size fits, and the next lease comes here again. (No name for the array: whoever
        # keeps this frame, in an error, would keep the chunk in quarantine.)
        self.size = -1
        self.memory = (c_char * size).from_buffer(self.arena.mapping, self._start)
        self.buffer = PickleBuffer(self.memory)
        self.rank = bisect_right(self.arena.bounds, size)
        self.size = size

    def fit_what_is_usual(self, size: int) -> None:
        """Fit to `size` where the last look found the same: an array type for each odd size would cost 7 us."""
        if size == self._asked and size > 1:  # 1 would be equal to True, which is no size
            self.fit(size)
        self._asked = size

    def poison(self) -> None:
        """Overwrite all of it: who still reads it sees at once that it is no longer theirs."""
        mapping, end = self.arena.mapping, self._start + self.capacity
        assert mapping is not None
        for start in range(self._start, end, len(POISON)):
            mapping[start : min(end, start + len(POISON))] = POISON[: end - start]


def _count_alone() -> int:
    class Holder:
        __slots__ = ("buffer", "memory")

        memory: object
        buffer: object

    holder = Holder()
    holder.memory = object()
    holder.buffer = holder.memory
    return getrefcount(holder.memory)


# `getrefcount(chunk.memory)` when no view of the chunk is left: its slot, its buffer, and what the call itself holds.
# Found out, because releases of Python count the last differently.
ALONE = _count_alone()


class PoisonedDeque(deque[Chunk]):
    """The free chunks of a class in debug mode: what comes back is overwritten first."""

    def append(self, chunk: Chunk, /) -> None:
        chunk.poison()
        super().append(chunk)


class Arena:
    """One mapping, carved into chunks of one size."""

    __slots__ = ("bounds", "bytes", "chunks", "ended", "leaving", "mapping", "seen", "since")

    def __init__(self, total: int, bounds: tuple[int, ...]) -> None:
        self.bytes = total
        self.bounds = bounds
        self.mapping: mmap.mmap | None = None
        self.chunks: list[Chunk] = []
        self.ended = False
        self.leaving = False  # a thread is unmapping it
        self.seen = -1
        self.since = 0.0

    def carve(self, size: int, free: deque[Chunk], home: Home) -> None:
        """Map the memory and cut it into chunks of `size`."""
        # `PickleBuffer.raw` gives a plain view of memory for a third of what memoryview(), cast and slice over the array
        # cost.
        mapping = self.mapping = _map(self.bytes)
        _advise(mapping, self.bytes)
        for start in range(0, self.bytes - size + 1, size):
            self.chunks.append(Chunk(self, start, size, free, home))

    def unmap(self) -> None:
        """Give the memory back to the system, now: a frame of a thread that was switched away from may still name one of
        the chunks, though it is done with it, and would keep the mapping beyond its credit. Allowed more than once, and
        again after an interrupt; by one thread at a time."""
        try:
            for chunk in tuple(self.chunks):
                chunk.buffer.release()
                chunk.memory = None
            if self.mapping is not None:
                self.mapping.close()
        except BufferError:
            pass  # a view that nobody may have made: the memory ends with it, like that of a slice that survives a pool
        self.mapping = None
        self.chunks.clear()

    def idle_for(self, now: float) -> float:
        """Seconds since its chunks were last seen to have been used, given that all are free now."""
        uses = sum(chunk.uses for chunk in self.chunks)
        if uses != self.seen:
            self.seen = uses
            self.since = now
        return now - self.since


class Totals(NamedTuple):
    """What chunks have counted, as they do."""

    gets: tuple[int, ...] = (0,) * RANKS
    misses: int = 0
    puts: int = 0

    @property
    def hits(self) -> int:
        return sum(self.gets)

    def plus(self, other: Totals) -> Totals:
        gets = tuple(map(add, self.gets, other.gets))
        return Totals(gets, self.misses + other.misses, self.puts + other.puts)


def totals_of(chunks: Sequence[Chunk]) -> Totals:
    """What `chunks` have counted together."""
    # Puts first: a lease that ends meanwhile is then counted as made and not yet given back.
    puts = sum(chunk.puts for chunk in chunks)
    gets = tuple(map(sum, zip(*(chunk.gets for chunk in chunks), strict=True))) or (0,) * RANKS
    return Totals(gets, sum(chunk.misses for chunk in chunks), puts)


class ChunkClass:
    """All chunks of one size: the free ones, and the arenas they are cut from. `size` 0: of any size, one an arena.
    `bounds`: of the size classes by which leases are counted."""

    __slots__ = ("arenas", "bounds", "free", "size")

    def __init__(self, size: int, bounds: tuple[int, ...], *, poisoned: bool = False) -> None:
        self.size = size
        self.bounds = bounds
        self.free: deque[Chunk] = PoisonedDeque() if poisoned else deque()
        self.arenas: dict[Arena, None] = {}

    @property
    def poisoned(self) -> bool:
        return type(self.free) is PoisonedDeque

    def settle_at(self, home: Home) -> None:
        """Have all its chunks go back to `home`."""
        for arena in self.arenas:
            for chunk in arena.chunks:
                chunk.home = home

    def take_idle(
        self, taken: list[tuple[ChunkClass, Arena]], room: int | None, *, now: float = 0.0, age: float = 0.0
    ) -> None:
        """Move to `taken` the arenas with every chunk free, unused for `age` seconds at `now`, of at least `room` bytes
        where there are (None: all)."""
        chunks = _drain(self.free)
        present: dict[Arena, int] = {}
        for chunk in chunks:
            present[chunk.arena] = present.get(chunk.arena, 0) + 1
        for arena in reversed(tuple(self.arenas)):
            if room is not None and room <= 0:
                break
            if present.get(arena) != len(arena.chunks) or (age and arena.idle_for(now) < age):
                continue
            if room is not None:
                room -= arena.bytes
            # No call between the two: so no interrupt can come when it is in neither.
            del self.arenas[arena], present[arena]
            taken.append((self, arena))
        # Chunks of the fullest arenas are taken first from now on, so that the others come to be idle.
        kept = [chunk for chunk in chunks if chunk.arena in present]
        kept.sort(key=lambda chunk: present[chunk.arena], reverse=True)
        self.free.extendleft(reversed(kept))


def table_by_pages(classes: tuple[ChunkClass, ...]) -> list[deque[Chunk]]:
    """For each size in pages, less one, the free chunks of the class that serves it."""
    table: list[deque[Chunk]] = []
    for kind in classes:
        table += [kind.free] * (min(kind.size >> PAGE_SHIFT, TABLE_PAGES) - len(table))
    return table


def _drain(free: deque[Chunk]) -> list[Chunk]:
    chunks = []
    while True:
        try:
            chunks.append(free.popleft())
        except IndexError:
            return chunks


def _map(size: int) -> mmap.mmap:
    # Private: a shared mapping, Python's default, would let a forked child write into its parent's chunks.
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _advise(memory: mmap.mmap, size: int) -> None:
    huge = getattr(mmap, "MADV_HUGEPAGE", None)
    if huge is not None and size >= ARENA_BYTES:
        try:
            memory.madvise(huge)
        except OSError:
            pass  # refused, or compiled out of the kernel: small pages do the same, a little slower at first
