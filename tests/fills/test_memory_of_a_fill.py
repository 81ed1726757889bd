"""The memory a fill goes through: it is free for the next one before anybody knows that the fill is over."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator
from typing import Any

import pytest

from daramjwee import Cache, Drain, FetchRequest, FetchResult, MemoryStore, PressureLevel

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


def lose_streams(cache: Cache, count: int) -> None:
    """Streams of fills that no tier has room for, lost without a close in the midst of it."""
    for number in range(count):
        stream = cache.open(f"k{number}")
        assert stream.read(5) == b"xxxxx"
        del stream
    gc.collect()


@pytest.fixture
def narrow() -> Iterator[Cache]:
    """Its tier has room for nothing."""

    def fetch(request: FetchRequest) -> FetchResult:
        return FetchResult(iter([b"x" * 200_000] * 9))

    with Cache(MemoryStore("64KiB"), memory_limit="16MiB", origin=fetch) as cache:
        yield cache


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_fill_that_lost_its_last_reader_ends_with_the_next_look_at_the_cache(narrow: Cache) -> None:
    """It moves only while it is read, so nobody but the cache can end it: memory and lease come back."""
    lose_streams(narrow, 5)
    assert narrow.stats().flights == 0
    assert narrow.buffers.stats().active_buffers == 0
    lose_streams(narrow, 1)
    with narrow.open("another") as stream:
        assert narrow.buffers.stats().active_buffers == 1
        assert len(stream.read()) == 1_800_000
    narrow.buffers.relieve(PressureLevel.CRITICAL)
    narrow.buffers.relieve(PressureLevel.NORMAL)
    assert narrow._engine.ledger.held == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("drain", Drain)
def test_bytes_in_the_window_of_a_lost_fill_are_given_back(narrow: Cache, drain: Drain) -> None:
    """Nothing stays charged once the cache is closed, also where the streams are lost after that."""
    ledger = narrow._engine.ledger
    lose_streams(narrow, 5)
    kept = narrow.open("kept")
    assert kept.read(5) == b"xxxxx"
    narrow.close(drain)
    del kept
    gc.collect()
    assert ledger.held == 0
