"""A pool under everything at once: memory stays within its limit at every step, and all counts are exact in the end."""

from __future__ import annotations

import asyncio
import io
import mmap
import random
import sys
import threading
import weakref
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig, MemoryLedger, PressureLevel, Priority, arenas
from daramjwee.buffers.ledger import LedgerKernel
from daramjwee.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KIB, MIB = 1024, 1024 * 1024
LIMIT = 32 * MIB
CONTENT = random.Random(4).randbytes(8 * MIB)
PATIENCE = 30.0  # far more than anything here may take: who is never served fails the test instead of hanging it


class Watch:
    """Holds a ledger to its word: at every change of it, and at every mapping. What is wrong is noted in `breaches`."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self.breaches: list[str] = []
        self.steps = 0
        self.most_mapped = 0
        self.maps: list[weakref.ref[mmap.mmap]] = []
        self.lock = threading.Lock()
        watch = self

        class Checked(LedgerKernel):
            __slots__ = ()

            def _hold(self, need: int) -> None:
                super()._hold(need)
                watch.steps += 1
                watch.check(self.held <= self.limit == LIMIT, f"{self.held} held after {need} more")

            def give(self, count: int, *queue: Any) -> list[Any]:
                granted = super().give(count, *queue)
                watch.steps += 1
                watch.check(0 <= self.held <= self.limit, f"{self.held} held after {count} less")
                return granted

        self.kernel = ledger._kernel = Checked(ledger.limit)

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.breaches.append(what)  # not raised: whoever handles it would hold what this is about

    @property
    def mapped(self) -> int:
        found = [memory() for memory in self.maps]
        return sum(len(memory) for memory in found if memory is not None and not memory.closed)

    def map(self, size: int) -> mmap.mmap:
        memory = _map(size)
        with self.lock:
            self.maps = [known for known in self.maps if known() is not None]
            self.maps.append(weakref.ref(memory))
            mapped = self.mapped
            self.most_mapped = max(self.most_mapped, mapped)
            # Charged before it is mapped, until after it is unmapped.
            self.check(mapped <= self.kernel.held, f"{mapped} mapped, {self.kernel.held} charged")
        return memory


_map = arenas._map


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger(LIMIT)


@pytest.fixture
def watch(ledger: MemoryLedger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    watch = Watch(ledger)
    monkeypatch.setattr(arenas, "_map", watch.map)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    yield watch
    sys.setswitchinterval(interval)
    assert watch.breaches == [] and watch.steps > 0
    assert ledger.held == 0 and ledger.waiting == 0 and ledger.peak <= LIMIT
    assert watch.mapped == 0


class Plain:
    """A source without a descriptor: fills memory, a random part of it at a time."""

    def __init__(self, data: memoryview, chance: random.Random) -> None:
        self.data = data
        self.chance = chance
        self.at = 0

    def readinto(self, view: memoryview) -> int:
        most = len(view) if self.chance.random() < 0.7 else self.chance.randint(1, len(view))
        count = min(most, len(self.data) - self.at)
        view[:count] = self.data[self.at : self.at + count]
        self.at += count
        return count


class Returning(Plain):
    """One that only returns bytes."""

    def read(self, size: int) -> bytes:
        piece = bytes(self.data[self.at : self.at + size])
        self.at += len(piece)
        return piece

    readinto = None


class Checksum:
    """A sink that reads what it gets, once, and takes a part of it at times."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.crc = self.count = 0

    def write(self, piece: Any) -> int:
        count = len(piece) if self.chance.random() < 0.9 else self.chance.randint(1, len(piece))
        with memoryview(piece)[:count] as part:
            self.crc = zlib.crc32(part, self.crc)
        self.count += count
        return count


class Objects:
    """What is copied: parts of one content, as plain sources and as files; each with its checksum."""

    def __init__(self, folder: Path, sizes: list[int]) -> None:
        chance = random.Random(7)
        self.parts = []
        for size in sizes:
            start = chance.randint(0, len(CONTENT) - size)
            self.parts.append((memoryview(CONTENT)[start : start + size], zlib.crc32(CONTENT[start : start + size])))
        self.paths = [folder / f"object {number}" for number in range(len(sizes))]
        for path, (data, _) in zip(self.paths, self.parts, strict=True):
            path.write_bytes(data)

    def source(self, number: int, kind: int, chance: random.Random) -> Any:
        data = self.parts[number][0]
        if kind == 0:
            return open(self.paths[number], "rb")
        if kind == 1:
            return io.BytesIO(data)
        return (Returning if kind == 2 else Plain)(data, chance)

    def copy(self, pool: AdaptiveBufferPool, number: int, target: Path | None, chance: random.Random) -> int:
        """One copy of a random kind, checked; the bytes that it moved."""
        data, crc = self.parts[number]
        source = self.source(number, chance.choice([0, 1, 2, 3, 3, 3]), chance)
        # Some say nothing of the size, some what is not so.
        size = chance.choice([len(data), len(data), None, 256 * KIB, 2 * len(data)])
        how = {"priority": chance.choice(list(Priority)), "timeout": PATIENCE}
        try:
            if target is None:
                sink = Checksum(chance)
                result = pool.copy(source, sink, size, **how)
                found = sink.crc, sink.count
            else:
                with open(target, "wb") as file:
                    result = pool.copy(source, file, size, **how)
                written = target.read_bytes()
                found = zlib.crc32(written), len(written)
        finally:
            if isinstance(source, io.IOBase):
                source.close()
        assert found == (crc, len(data)) and result.bytes == len(data)
        return result.bytes


def on_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work(number)` returned on each of `count` threads that start together; the first error is raised."""
    start = threading.Barrier(count)

    def run(number: int) -> Any:
        start.wait(30)
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return [future.result() for future in [threads.submit(run, number) for number in range(count)]]


SIZES = [256 * KIB] * 4 + [300_001, 512 * KIB, 700_000, MIB, MIB + 1, 2 * MIB, 3_000_000, 8 * MIB]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("strategy", "copies"), [("adaptive", 3072), ("pooled", 768), ("chunked", 768)])
def test_large_copies_on_64_threads_stay_within_the_limit_at_every_step(
    tmp_path: Path, ledger: MemoryLedger, watch: Watch, strategy: str, copies: int
) -> None:
    """Large objects from plain sources and files under a limit of 32 MiB, which their sizes exceed many times over: the
    ledger and what is mapped never exceed it, every copy ends, every byte is right, nothing is left on loan."""
    objects = Objects(tmp_path, SIZES)
    config = BufferPoolConfig(large_object_strategy=strategy)

    def work(number: int) -> int:
        chance = random.Random(number)
        target = tmp_path / f"target {number}" if number % 8 == 0 else None
        return sum(objects.copy(pool, chance.randrange(len(SIZES)), target, chance) for _ in range(copies // 64))

    with AdaptiveBufferPool(config, ledger=ledger) as pool:
        moved = sum(on_threads(64, work))
        stats, gate = pool.stats(), pool.gate.stats()
        assert (stats.copies, stats.copied_bytes) == (copies, moved)
        assert stats.pooled_operations + stats.chunked_operations + stats.direct_operations == copies
        assert stats.total_gets == stats.total_puts and stats.active_buffers == stats.quarantined == stats.waiting == 0
        assert (gate.entered, gate.active, gate.active_bytes, gate.waiting) == (copies, 0, 0, 0)
        assert stats.arena_bytes + stats.private_bytes == ledger.held == watch.mapped
    assert ledger.held == 0 and pool.stats().active_buffers == 0


@pytest.mark.timeout(120)
def test_a_thousand_tasks_and_16_threads_share_one_limit(tmp_path: Path, ledger: MemoryLedger, watch: Watch) -> None:
    """Tasks that read and write in a chunk of their own, large and small, beside threads that copy: one fair line for
    both, the limit holds at every step, all end, every byte is right."""
    objects = Objects(tmp_path, [256 * KIB, 300_001, 512 * KIB, 700_000])

    async def task(number: int, pool: AdaptiveBufferPool) -> int:
        chance = random.Random(number)
        chosen = number % len(objects.parts)
        data, crc = objects.parts[chosen]
        source, sink = Plain(data, chance), Checksum(chance)
        # Small ones are not large operations: a thousand of them alone exceed the limit.
        size = chance.choice([64 * KIB, 100_000, 256 * KIB, MIB])
        priority = chance.choice(list(Priority))
        with await pool.acquire_async(size, timeout=PATIENCE, priority=priority) as lease:
            while count := source.readinto(lease.view):
                await asyncio.sleep(0)
                done = 0
                while done < count:
                    done += sink.write(lease.view[done:count])
        assert (sink.crc, sink.count) == (crc, len(data))
        return sink.count

    def work(number: int) -> int:
        chance = random.Random(-1 - number)
        return sum(objects.copy(pool, chance.randrange(4), None, chance) for _ in range(16))

    async def tasks(pool: AdaptiveBufferPool) -> list[int]:
        return await asyncio.gather(*(task(number, pool) for number in range(1000)))

    with AdaptiveBufferPool(ledger=ledger) as pool, ThreadPoolExecutor(1) as beside:
        threads = beside.submit(on_threads, 16, work)
        read = asyncio.run(tasks(pool))
        moved = sum(threads.result())
        stats, gate = pool.stats(), pool.gate.stats()
        assert len(read) == 1000 and sum(read) == sum(len(objects.parts[n % 4][0]) for n in range(1000))
        assert (stats.copies, stats.copied_bytes) == (256, moved)
        assert stats.total_gets == stats.total_puts >= 1000 and stats.active_buffers == stats.waiting == 0
        assert (gate.active, gate.active_bytes, gate.waiting) == (0, 0, 0) and stats.overloads == 0
        assert watch.most_mapped > LIMIT // 2, "the limit was never felt"


CONFIGS = [
    BufferPoolConfig(leak_detection="off"),
    BufferPoolConfig(max_concurrent_large_ops=2, default_buffer_size="64KiB", large_object_strategy="chunked"),
    BufferPoolConfig(
        max_concurrent_large_ops=64, max_pool_bytes="16MiB", max_buffer_size="512KiB", chunk_size="128KiB"
    ),
    BufferPoolConfig(large_object_threshold="512KiB", large_object_strategy="pooled", max_idle_age=0.001),
]


TOTALS = [("pool_hits", "hits"), ("pool_misses", "misses"), ("total_puts", "puts"), ("active_buffers", "active")]


class Worker:
    """One thread's share of everything a pool can be asked for, and its own account of it."""

    def __init__(self, pool: AdaptiveBufferPool, objects: Objects, number: int) -> None:
        self.pool = pool
        self.objects = objects
        self.number = number
        self.chance = random.Random(number)
        self.leases = self.copies = self.bytes = self.refused = 0

    def run(self, rounds: int) -> Worker:
        works = [self.acquire] * 8 + [self.acquire_in_a_hurry] * 2 + [self.copy] * 3 + [self.tee] * 3
        works += [self.maintain, self.look, self.relieve, self.reconfigure]
        for _ in range(rounds):
            self.chance.choice(works)()
        return self

    def acquire(self, timeout: float = PATIENCE) -> None:
        size = self.chance.choice([1, 5000, 64 * KIB, 256 * KIB, 300_000, MIB, 2 * MIB])
        lease = self.pool.acquire(size, timeout=timeout, priority=self.chance.choice(list(Priority)))
        self.leases += 1
        if self.leases % 2:
            with lease:
                self.use(lease.view, size)
        else:
            self.use(lease.view, size)
            lease.release()

    def use(self, view: memoryview, size: int) -> None:
        # Memory on loan to two would show here.
        mark = b"%d of %d" % (self.leases, self.number)
        mark = mark[: size // 2]
        view[: len(mark)] = mark
        view[size - len(mark) :] = mark
        # Others run during a checksum, which lets go of the interpreter.
        assert len(view) == size and zlib.crc32(view) == zlib.crc32(view)
        zlib.crc32(CONTENT[:100_000])
        assert view[: len(mark)] == mark == view[size - len(mark) :]

    def acquire_in_a_hurry(self) -> None:
        try:
            self.acquire(timeout=0.0005)
        except Overloaded:
            self.refused += 1

    def copy(self) -> None:
        self.bytes += self.objects.copy(self.pool, self.chance.randrange(4), None, self.chance)
        self.copies += 1

    def tee(self) -> None:
        data, crc = self.objects.parts[self.chance.randrange(4)]
        sink, size = Checksum(self.chance), self.chance.choice([len(data), None])
        with self.pool.tee(Plain(data, self.chance), sink, size) as tee:
            most = self.chance.choice([10_000, 100_000, 1_000_000])
            read = crc_of = 0
            while piece := tee.read(most):
                crc_of = zlib.crc32(piece, crc_of)
                read += len(piece)
        assert (sink.crc, sink.count) == (crc_of, read) == (crc, len(data))
        self.bytes += read
        self.copies += 1

    def maintain(self) -> None:
        assert self.pool.maintain() >= 0

    def relieve(self) -> None:
        assert self.pool.relieve(self.chance.choice(list(PressureLevel))) >= 0

    def reconfigure(self) -> None:
        self.pool.reconfigure(self.chance.choice(CONFIGS))

    def look(self) -> None:
        stats = self.pool.stats()
        assert 0 <= stats.total_puts <= stats.total_gets and stats.active_buffers >= 0
        assert stats.arena_bytes + stats.private_bytes <= LIMIT
        assert "AdaptiveBufferPool open" in repr(self.pool)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [0, 1000])
def test_everything_at_once_on_64_threads_ends_with_exact_counts(
    tmp_path: Path, ledger: MemoryLedger, watch: Watch, seed: int
) -> None:
    """Leases of every priority, copies, tees, new settings, upkeep, pressure and statistics: each lease and byte is
    counted once, no memory is on loan twice, the limit holds at every step."""
    objects = Objects(tmp_path, [20_000, 256 * KIB, 300_001, MIB])
    with AdaptiveBufferPool(ledger=ledger) as pool:
        workers = on_threads(64, lambda number: Worker(pool, objects, seed + number).run(60))
        pool.relieve(PressureLevel.NORMAL)
        stats, gate = pool.stats(), pool.gate.stats()
        assert stats.total_gets == stats.total_puts >= sum(worker.leases for worker in workers)
        assert stats.copies == sum(worker.copies for worker in workers)
        assert stats.copied_bytes == sum(worker.bytes for worker in workers)
        assert stats.total_operations == stats.copies + sum(worker.leases for worker in workers)
        assert stats.pooled_operations + stats.chunked_operations + stats.direct_operations == stats.total_operations
        assert stats.overloads + gate.timed_out + gate.refused == sum(worker.refused for worker in workers)
        assert (stats.active_buffers, stats.quarantined, stats.waiting, stats.lost_leases) == (0, 0, 0, 0)
        assert (gate.active, gate.active_bytes, gate.waiting, gate.lost) == (0, 0, 0, 0)
        for total, of_class in TOTALS:
            assert getattr(stats, total) == sum(getattr(kind, of_class) for kind in stats.chunks), total
        assert ledger.held == stats.arena_bytes + stats.private_bytes == watch.mapped
    assert ledger.held == 0
