"""Arenas: page-aligned mappings, carved into chunks of one size.

Invariant: an arena's chunks never overlap and all begin on a page; it is unmapped when the last reference to any of
its chunks' arrays is gone, never while a view of one exists.
Threads: a chunk's counters are written by whoever has it; everything else by the holder of the pool's lock.
Design: docs/design/memory.md
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any, Protocol

from daramjwee.units import KIB, MIB

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable

    from daramjwee.buffers.config import BufferPoolConfig

PAGE_BYTES = mmap.PAGESIZE
# A class's first arena is small and without huge pages: one touched byte of a huge page is 2 MiB resident.
FIRST_ARENA_BYTES = 256 * KIB
# From the second on, one huge page: growing costs 75 us/MiB instead of 780 in small pages (MADV_HUGEPAGE).
ARENA_BYTES = 2 * MIB
# Classes up to this size never need so much that a huge page is worth its 2 MiB.
SMALL_CHUNK_BYTES = 16 * KIB
# The classes within the configured bounds; those bounds and the configured sizes are classes too.
CLASS_SIZES = (4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 512 * KIB, MIB)


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

    `hits`, `misses`, `puts` and `place` are written by whoever has the chunk, so they need no lock: how often it
    was taken from the free ones, how often mapped for the request, how often given back, and who has it.
    """

    __slots__ = ("arena", "array", "free", "hits", "home", "misses", "place", "puts")

    def __init__(self, arena: Arena, array: Any, free: deque[Chunk], home: Home) -> None:
        self.arena = arena
        self.array = array
        self.free = free
        self.home = home
        self.hits = 0
        self.misses = 0
        self.puts = 0
        self.place: tuple[int, str, int] | None = None

    def place_text(self) -> str:
        """Where the lease at hand was acquired, in brackets; empty where that was not recorded."""
        place = self.place
        if place is None or place[0] != self.hits + self.misses:
            return ""
        return f" (acquired at {place[1]}:{place[2]})"


class Arena:
    """One mapping, carved into chunks of one size. `index` is the class's, None for a private one."""

    __slots__ = ("bytes", "chunks", "index", "seen", "since")

    def __init__(self, total: int, index: int | None) -> None:
        self.bytes = total
        self.index = index
        self.chunks: list[Chunk] = []
        self.seen = -1
        self.since = 0.0

    def carve(self, size: int, free: deque[Chunk], home: Home) -> None:
        """Map the memory and cut it into chunks of `size`."""
        import ctypes  # 2 ms, and not needed before memory is

        memory = _map(self.bytes)
        kind = ctypes.c_char * size
        for offset in range(0, self.bytes - size + 1, size):
            self.chunks.append(Chunk(self, kind.from_buffer(memory, offset), free, home))

    def idle_for(self, now: float) -> float:
        """Seconds since its chunks were last seen to have been used, given that all are free now."""
        uses = sum(chunk.hits + chunk.misses for chunk in self.chunks)
        if uses != self.seen:
            self.seen = uses
            self.since = now
        return now - self.since


class Totals:
    """What chunks that are gone have counted."""

    __slots__ = ("hits", "misses", "puts")

    def __init__(self) -> None:
        self.hits = self.misses = self.puts = 0

    def add(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            self.puts += chunk.puts
            self.hits += chunk.hits
            self.misses += chunk.misses


def page_round(size: int) -> int:
    """The least number of whole pages, in bytes, that holds `size` bytes; at least one page."""
    return max(1, -(-size // PAGE_BYTES)) * PAGE_BYTES


def class_sizes(config: BufferPoolConfig) -> tuple[int, ...]:
    """The sizes of chunks of a pool, ascending, whole pages."""
    least, most = config.min_buffer_size, config.max_buffer_size
    sizes = {page_round(size) for size in CLASS_SIZES if least <= size <= most}
    sizes |= {page_round(size) for size in (least, config.default_buffer_size, config.chunk_size or most, most)}
    return tuple(sorted(sizes))


def arena_plans(chunk_bytes: int, arenas: int) -> tuple[int, ...]:
    """How large the next arena of a class should be that has `arenas` already: the best first, then smaller ones for
    when there is no room."""
    plans = [chunk_bytes]
    if chunk_bytes < FIRST_ARENA_BYTES:
        plans.append(FIRST_ARENA_BYTES // chunk_bytes * chunk_bytes)
    if arenas and SMALL_CHUNK_BYTES < chunk_bytes < ARENA_BYTES:
        plans.append(ARENA_BYTES // chunk_bytes * chunk_bytes)
    return tuple(dict.fromkeys(reversed(plans)))


def _map(size: int) -> mmap.mmap:
    # Private: a shared mapping, Python's default, would let a forked child write into its parent's chunks.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    huge = getattr(mmap, "MADV_HUGEPAGE", None)
    if huge is not None and size >= ARENA_BYTES:
        try:
            memory.madvise(huge)
        except OSError:
            pass  # refused, or compiled out of the kernel: small pages do the same, a little slower at first
    return memory
