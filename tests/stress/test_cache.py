"""A cache under everything at once: counts and bytes are exact in the end."""

from __future__ import annotations

import hashlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from daramjwee import Cache, CacheMiss, FetchResult, FileStore, MemoryStore
from daramjwee.testing.leaks import no_leaks

if TYPE_CHECKING:
    from pathlib import Path

    from daramjwee import FetchRequest

THREADS = 16
KEYS = [f"key {n}" for n in range(24)]
SIZES = [0, 1, 1000, 70_000, 262_144, 262_145, 600_000, 1_200_000]


def content(key: str, version: int) -> bytes:
    """Bytes that tell which key and version they are of, with their own digest in front."""
    number = int(key.split()[1])
    body = f"{key} v{version} ".encode() * (SIZES[number % len(SIZES)] // 10 + 1)
    return hashlib.sha256(body).digest() + body


def check(data: bytes) -> bool:
    return hashlib.sha256(data[32:]).digest() == data[:32]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1, 2])
def test_mixed_work_on_many_threads_never_mixes_bytes(tmp_path: Path, seed: int) -> None:
    """Opens, ranges, sets, writers, deletes, refreshes and failing origins: whatever is read is one whole version, the
    memory limit holds at every look, and nothing is left behind."""
    fetches, failures = [0], [0]
    lock = threading.Lock()

    def origin(request: FetchRequest) -> FetchResult:
        with lock:
            fetches[0] += 1
            failing = fetches[0] % 17 == 0
            failures[0] += failing
        data = content(request.key, 0)

        def body() -> object:
            for i in range(0, len(data), 100_000):
                if failing and i:
                    raise ConnectionResetError("reset")
                yield data[i : i + 100_000]

        if failing and len(data) <= 100_000:
            raise ConnectionResetError("reset")
        return FetchResult(body(), size=None if fetches[0] % 3 else len(data), etag='"0"')

    def work(number: int) -> int:
        rng = random.Random(seed * 1000 + number)
        seen = 0
        for _ in range(60):
            key, what = rng.choice(KEYS), rng.randrange(12)
            try:
                if what < 5:
                    assert check(cache.get(key)), key
                elif what < 8:
                    with cache.open(key) as stream:
                        parts = []
                        while part := stream.read(rng.randrange(1, 300_000)):
                            parts.append(part)
                            if rng.random() < 0.05:
                                break
                        else:
                            assert check(b"".join(parts)), key
                elif what == 8:
                    cache.set(key, content(key, rng.randrange(1, 5)))
                elif what == 9:
                    with cache.writer(key) as writer:
                        for piece in (content(key, 9)[:50], content(key, 9)[50:]):
                            writer.write(piece)
                elif what == 10:
                    cache.delete(key)
                else:
                    cache.refresh(key)
            except CacheMiss:
                raise
            except Exception as error:
                if "reset" not in str(error):
                    raise
            seen += 1
            stats = cache.stats()
            assert stats.memory_used <= stats.memory_limit
        return seen

    memory, files = MemoryStore("4MiB"), FileStore(tmp_path, capacity="12MiB")
    with Cache(memory, files, origin=origin, memory_limit="24MiB") as cache:
        with ThreadPoolExecutor(THREADS) as pool, no_leaks(cache, threads=False, patience=20):
            assert sum(pool.map(work, range(THREADS))) == THREADS * 60
        assert cache._engine.flights.workers.wait_idle(30)
        assert len(cache._engine.flights.fence) == 0
        stats = cache.stats()
        assert stats.origin_fetches == fetches[0]
        for tier in stats.tiers:
            assert tier.usage.stagings == 0
            assert tier.usage.bytes <= tier.usage.capacity
        for key in cache.keys():
            assert check(cache.get(key))
