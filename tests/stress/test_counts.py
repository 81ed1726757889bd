"""Counts are exact under any number of threads: by size class, by strategy, in all, and against what was really done."""

from __future__ import annotations

import io
import random
import threading
from collections import Counter

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig, chunked_copy
from daramjwee.buffers.strategy import SizeClass, Strategy, size_class

KIB, MIB = 1024, 1024 * 1024
THREADS = 64
OPERATIONS = 1_000_000
# Every boundary from both sides; the large ones rarely, they are not what is counted slowly.
SMALL = (1, 100, 4096, 32 * KIB - 1, 32 * KIB, 40_000, 100_000, 256 * KIB - 1)
LARGE = (256 * KIB, 256 * KIB + 1, 300 * KIB, MIB - 1, MIB, MIB + 1, 3 * MIB)


class Plain(io.RawIOBase):
    """So many bytes, into whatever memory is given."""

    def __init__(self, count: int) -> None:
        self.left = count

    def readable(self) -> bool:
        return True

    def readinto(self, view) -> int:
        count = min(len(view), self.left)
        self.left -= count
        return count


class Sink:
    def write(self, data) -> int:
        return len(data)


class Worker(threading.Thread):
    """Does so many operations, and counts them by size class and strategy in its own way."""

    def __init__(self, pool: AdaptiveBufferPool, seed: int, count: int) -> None:
        super().__init__()
        self.pool, self.count, self.random = pool, count, random.Random(seed)
        self.done: Counter[tuple[SizeClass, Strategy]] = Counter()
        self.moved = self.copies = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            config, choose = self.pool.config, self.random.random
            for _ in range(self.count):
                size = self.random.choice(LARGE if choose() < 0.01 else SMALL)
                self.done[size_class(size, config), self.operate(size, choose())] += 1
        except BaseException as error:
            self.error = error

    def operate(self, size: int, dice: float) -> Strategy:
        pool = self.pool
        if dice < 0.9:
            with pool.acquire(size) as lease:
                return Strategy.DIRECT if lease._chunk.free is pool._chunks._singles.free else Strategy.POOLED
        self.copies += 1
        self.moved += size
        if dice < 0.94:
            return pool.copy(Plain(size), Sink(), size).strategy
        if dice < 0.97:
            return pool.copy(io.BytesIO(bytes(size)), Sink(), size).strategy
        if dice < 0.99:
            return chunked_copy(Plain(size), Sink(), pool=pool).strategy
        with pool.tee(Plain(size), Sink(), size) as tee:
            assert len(tee.read()) == size
        return Strategy.CHUNKED


@pytest.mark.timeout(180)
@pytest.mark.parametrize("detailed", [False, True])
def test_a_million_operations_of_64_threads_are_counted_exactly(detailed):
    """While they run every figure only grows, and puts never exceed gets; at rest each is what was done."""
    config = BufferPoolConfig(enable_detailed_metrics=detailed, max_concurrent_large_ops=THREADS)
    with AdaptiveBufferPool(config) as pool:
        workers = [Worker(pool, seed, OPERATIONS // THREADS // (4 if detailed else 1)) for seed in range(THREADS)]
        for worker in workers:
            worker.start()
        before = pool.stats()
        while any(worker.is_alive() for worker in workers):
            now = pool.stats()
            assert now.total_puts <= now.total_gets
            for name in ("total_gets", "total_puts", "pool_hits", "pool_misses", "copies", "copied_bytes", "maps"):
                assert getattr(now, name) >= getattr(before, name), name
            for name in SizeClass:
                assert now.of(size_class=name).count >= before.of(size_class=name).count
            for way in Strategy:
                assert now.of(strategy=way).count >= before.of(strategy=way).count
            before = now
            workers[0].join(0.05)
            workers[-1].join(0.05)
        for worker in workers:
            worker.join()
        assert [worker.error for worker in workers if worker.error] == []
        stats = pool.stats()
        done = sum((worker.done for worker in workers), Counter())
        assert {(cell.size_class, cell.strategy): cell.count for cell in stats.operations} == dict(done)
        by_class = (
            stats.small_object_ops,
            stats.medium_object_ops,
            stats.large_object_ops,
            stats.very_large_object_ops,
        )
        by_strategy = stats.pooled_operations, stats.chunked_operations, stats.direct_operations
        assert sum(by_class) == sum(by_strategy) == stats.total_operations == done.total()
        assert by_class == tuple(sum(n for (kind, _), n in done.items() if kind is one) for one in SizeClass)
        assert stats.copies == sum(worker.copies for worker in workers)
        assert stats.copied_bytes == sum(worker.moved for worker in workers)
        assert stats.total_gets == stats.total_puts == stats.pool_hits + stats.pool_misses
        assert stats.active_buffers == 0
        timed = sum(cell.latency.count for cell in stats.operations)
        assert timed == (sum(cell.timed for cell in stats.operations) if detailed else 0)
