"""A cache that is used for long: what it has after the second half of the work is what it had after the first."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from daramjwee import Cache, FetchError, FileStore, Freshness, MemoryStore, NotFound
from daramjwee.buffers import BufferPoolConfig
from daramjwee.testing.clock import ManualClock
from daramjwee.testing.origin import ScriptedOrigin

CONTENT = random.Random(6).randbytes(900_000)
KEYS = 40
# One object that stays for each turn would be 300 blocks. What the interpreter keeps at hand goes up by less.
NOISE_BLOCKS = 150


class Work:
    """One turn does everything that a cache does, to a key that is one of 40: fill, hit, evict, replace, fail, grow old."""

    def __init__(self, cache: Cache, origin: ScriptedOrigin, clock: ManualClock) -> None:
        self.cache, self.origin, self.clock = cache, origin, clock

    def turn(self, number: int) -> None:
        key, size = f"k{number % KEYS}", (number * 7919) % len(CONTENT)
        data = CONTENT[:size]
        steps = [data[at : at + 100_000] for at in range(0, size, 100_000)]
        self.origin.script(key, *steps, size=None if number % 3 else "right", etag=f'"{number}"')
        self.cache.delete(key)
        with self.cache.open(key) as stream:
            assert stream.read(100) == data[:100]
            if number % 5:
                assert stream.read() == data[100:]
        self._settle()
        assert self.cache.get(key) == data
        self.cache.set(f"set {number % 7}", data[:200_000])
        with suppress(NotFound):
            self.cache.get("none")
        self.origin.script("down", ConnectionError)
        with suppress(FetchError):
            self.cache.get("down")
        if number % 10 == 0:
            self.clock.advance(30)
        self._settle()

    def _settle(self) -> None:
        flights = self.cache._engine.flights
        while len(flights):
            assert flights.workers.wait_idle(30) and flights.fillers.wait_idle(30)
        assert flights.workers.wait_idle(30)


def held(work: Work) -> dict[str, int]:
    """What a leak of any kind would make more of, once the cache is empty."""
    cache = work.cache
    for key in [*cache.keys(), *(f"k{number}" for number in range(KEYS))]:
        cache.delete(key)
    work.origin._requests.clear()
    gc.collect()
    cache.buffers.maintain()
    stats, pool = cache.stats(), cache.buffers.stats()
    return {
        "blocks": sys.getallocatedblocks(),
        "descriptors": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
        "threads": threading.active_count(),
        "arenas": pool.arena_bytes,
        "private": pool.private_bytes,
        "leased": pool.active_buffers + pool.quarantined,
        "fills": stats.flights + len(cache._engine.flights.fence),
        "beside the tier": stats.memory_used - stats.tiers[0].usage.bytes - pool.arena_bytes,
    }


@pytest.mark.parametrize("buffers", [BufferPoolConfig(), None], ids=["pool", "none"])
def test_a_cache_has_after_600_turns_what_it_had_after_300(
    buffers: BufferPoolConfig | None, tmp_path: Path, untraced: None, unkept: None
) -> None:
    """Memory of the interpreter and of the pool, descriptors, threads, fills and charges."""
    origin, clock = ScriptedOrigin(), ManualClock()
    stores: list[Callable[[], MemoryStore | FileStore]] = [
        lambda: MemoryStore("2MiB"),
        lambda: FileStore(tmp_path, capacity="4MiB"),
    ]
    freshness = Freshness(fresh="1m", stale_if_error="1m", negative="10s")
    with Cache(
        *(make() for make in stores),
        origin=origin,
        clock=clock,
        freshness=freshness,
        buffers=buffers,
        memory_limit="32MiB",
    ) as cache:
        work = Work(cache, origin, clock)
        for number in range(300):
            work.turn(number)
        before = held(work)
        for number in range(300, 600):
            work.turn(number)
        after = held(work)
        # Sizes of chunks are learned and unlearned; what is kept for them has its bound.
        assert max(before.pop("arenas"), after.pop("arenas")) <= 2 << 20
        grown = after.pop("blocks") - before.pop("blocks")
        # A thread that is asked for a job while another ends its own is one more for a while, and so is a file that is
        # looked at; one that stays for each turn would be 300.
        for name in ("threads", "descriptors"):
            assert after.pop(name) <= before.pop(name) + 5, name
        assert after == before
        assert grown <= NOISE_BLOCKS, f"{grown} blocks in 300 turns"
        assert before["leased"] == before["private"] == before["fills"] == before["beside the tier"] == 0
        assert cache.stats().evictions > 300
