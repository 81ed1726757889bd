"""The memory a fill goes through: it is free for the next one before anybody knows that the fill is over."""

from __future__ import annotations

import io
from typing import Any

import pytest

from daramjwee import Cache, MemoryStore

KIB = 1024
PIECE = 256 * KIB


class Body(io.RawIOBase):
    """A body that fills what it is given, and notes when it is closed how many chunks are in quarantine then."""

    def __init__(self, size: int, cache: Cache, seen: list[int]) -> None:
        self._left, self._cache, self._seen = size, cache, seen

    def readable(self) -> bool:
        return True

    def readinto(self, view: Any, /) -> int:
        count = min(len(view), self._left)
        self._left -= count
        return count

    def close(self) -> None:
        if not self.closed:
            self._seen.append(len(self._cache.buffers._chunks.suspects))
        super().close()


@pytest.mark.parametrize("size", [0, 1, PIECE, 600 * KIB])
def test_the_chunk_of_a_fill_that_is_over_is_free_at_once(size: int) -> None:
    """The last piece is a view of the chunk: it is let go before the chunk goes back, or the chunk would come back into
    quarantine and the next lease would have to look for it under a lock."""
    seen: list[int] = []
    with Cache(MemoryStore("4MiB")) as cache:
        for number in range(3):
            assert len(cache.get(str(number), lambda _: Body(size, cache, seen))) == size
        # Who read the last byte may come back before the filler that closes the body.
        assert cache._engine.flights.fillers.wait_idle(30)
        assert seen == [0, 0, 0]
        assert cache.buffers.stats().pool_hits >= 2


def test_nor_does_a_fill_that_is_given_up_leave_its_chunk_in_quarantine() -> None:
    """The piece that was read last lies in the chunk still."""
    seen: list[int] = []
    with Cache(MemoryStore("4MiB")) as cache:
        with cache.open("key", lambda _: Body(600 * KIB, cache, seen), on_orphan="abort") as stream:
            stream.read(10)
        assert cache._engine.flights.fillers.wait_idle(30)
        assert seen == [0]


@pytest.mark.parametrize("buffers", ["none", "pool"])
def test_who_reads_the_end_finds_the_memory_of_the_fill_given_back(buffers: str) -> None:
    """Fills one after the other go through one chunk, however the threads take turns; without a pool nothing is held."""
    chosen: dict[str, Any] = {"buffers": None} if buffers == "none" else {}
    with Cache(MemoryStore("4MiB"), **chosen) as cache:
        for number in range(50):
            with cache.open(str(number), lambda _: Body(600 * KIB, cache, [])) as stream:
                while stream.read(PIECE):
                    pass
            assert cache.buffers.stats().active_buffers == 0
