"""A thousand changes of the settings of a cache under load: no operation fails, no lease is lost, no byte is wrong."""

from __future__ import annotations

import hashlib
import io
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from daramjwee import Cache, FetchRequest, FetchResult, FileStore, Freshness, MemoryStore
from daramjwee.testing.leaks import no_leaks

KIB, MIB = 1024, 1024 * 1024
THREADS = 16
CHANGES = 1000
OPERATIONS_PER_CHANGE = 3
SIZES = [1, 3_000, 70_000, 262_144, 262_145, 700_000, 1_300_000]


def content(key: str) -> bytes:
    """The bytes of a key, whoever writes them."""
    number = int(key.split()[1])
    seed = hashlib.sha256(key.encode()).digest()
    size = SIZES[number % len(SIZES)]
    return (seed * (size // len(seed) + 1))[:size]


def variants(rng: random.Random, tiers: list[dict[str, Any]]) -> dict[str, Any]:
    """One change: something of everything that can change."""
    what = rng.randrange(6)
    if what == 0:
        return {"memory_limit": rng.choice(["48MiB", "64MiB", "256MiB"])}
    if what == 1:
        return {"workers": rng.randint(1, 8)}
    if what == 2:
        return {"freshness": rng.choice([Freshness(), Freshness(fresh="1h"), {"fresh": "1d", "negative": "30s"}])}
    if what == 3:
        return {
            "buffers": {
                "chunk_size": rng.choice([None, "64KiB", "256KiB", "1MiB"]),
                "max_pool_bytes": rng.choice(["8MiB", "32MiB", "64MiB"]),
                "max_concurrent_large_ops": rng.choice([2, 16, 64]),
                "enabled": rng.random() < 0.8,
                "enable_detailed_metrics": rng.random() < 0.3,
                "large_object_strategy": rng.choice(["adaptive", "pooled", "chunked", "direct"]),
            }
        }
    memory = {**tiers[0], "capacity": rng.choice(["4MiB", "8MiB", "32MiB"]), "max_entries": rng.choice([None, 3, 50])}
    file = {**tiers[1], "capacity": rng.choice(["32MiB", "48MiB", "256MiB"])}
    return {"tiers": [memory, file], "workers": rng.randint(1, 8)}


@pytest.mark.timeout(180)
def test_a_thousand_changes_under_sixteen_threads(tmp_path: Path) -> None:
    """Reads, ranges, copies, writes, deletes, refreshes and leases go on; every answer is right, every lease comes back."""
    fetched = threading.local()

    def origin(request: FetchRequest) -> FetchResult:
        data = content(request.key)
        fetched.n = getattr(fetched, "n", 0) + 1
        return FetchResult(io.BytesIO(data), size=len(data) if fetched.n % 3 else None, etag='"1"')

    over = threading.Event()
    errors: list[BaseException] = []
    done = [0] * THREADS
    progress = threading.Semaphore(0)

    def work(number: int, cache: Cache) -> None:
        rng = random.Random(number)
        try:
            while not over.is_set():
                step(rng, cache, f"key {rng.randrange(28)}")
                done[number] += 1
                progress.release()
        except BaseException as error:
            errors.append(error)
            progress.release(CHANGES * OPERATIONS_PER_CHANGE)  # nobody waits for what does not come

    def step(rng: random.Random, cache: Cache, key: str) -> None:
        what = rng.randrange(10)
        data = content(key)
        if what < 3:
            assert cache.get(key) == data
        elif what < 5:
            with cache.open(key) as stream:
                pieces = []
                while piece := stream.read(rng.randrange(1, 400_000)):
                    pieces.append(piece)
                assert b"".join(pieces) == data
        elif what == 5:
            start = rng.randrange(len(data))
            with cache.open(key, start=start, stop=start + 1000) as stream:
                assert stream.read() == data[start : start + 1000]
        elif what == 6:
            sink = io.BytesIO()
            with cache.open(key) as stream:
                stream.copy_to(sink)
            assert sink.getvalue() == data
        elif what == 7:
            cache.set(key, data if rng.random() < 0.5 else iter([data[:1000], data[1000:]]), etag='"1"')
        elif what == 8:
            cache.delete(key)
        else:
            size = rng.choice([4 * KIB, 100 * KIB, MIB])
            with cache.buffers.acquire(size) as lease:
                assert len(lease.view) == size
                lease.view[-1:] = b"x"

    cache = Cache(
        MemoryStore("8MiB"), FileStore(tmp_path / "tier", capacity="48MiB"), origin=origin, memory_limit="64MiB"
    )
    with no_leaks(cache, cache.buffers, threads=False):
        rng = random.Random(7)
        threads = [threading.Thread(target=work, args=(n, cache)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            tiers = cache.config.to_mapping()["tiers"]
            for _ in range(CHANGES):
                for _ in range(OPERATIONS_PER_CHANGE):
                    assert progress.acquire(timeout=60)
                config = cache.reconfigure(**variants(rng, tiers))
                assert config == cache.config
                if errors:
                    break
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert not errors, errors[0]
        assert min(done) > 0 and sum(done) >= CHANGES * OPERATIONS_PER_CHANGE
        assert cache._engine.flights.workers.wait_idle(30)
    stats = cache.buffers.stats()
    assert stats.active_buffers == 0
    assert stats.total_gets == stats.total_puts
    assert stats.lost_leases == 0
    before = cache.config
    cache.reconfigure(memory_limit="48MiB")
    assert cache.stats().memory_used <= 48 * MIB
    assert cache.config.workers == before.workers
    for tier in cache.stats().tiers:
        assert tier.usage.bytes <= tier.usage.capacity
        assert tier.usage.stagings == 0
    for n in range(28):
        assert cache.get(f"key {n}") == content(f"key {n}")
    cache.close()
