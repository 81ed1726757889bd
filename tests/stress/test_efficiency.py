"""What each strategy costs in memory: the peak to the byte, reuse, page faults, and what is left when it is over.

The figures are exact: a strategy that needs one more arena, or lets go of one that it could use again, is another figure.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPool, BufferPoolConfig, PressureLevel, Strategy
from daramjwee.buffers.pressure import EFFECTS

KIB, MIB = 1024, 1024 * 1024
CHUNK = 256 * KIB
SOON = 30


class Zeros:
    """A source of so many zeros, with neither descriptor nor memory of its own."""

    def __init__(self, count: int) -> None:
        self.left = count

    def readinto(self, view: memoryview) -> int:
        count = min(len(view), self.left)
        self.left -= count
        return count


class Nowhere:
    def write(self, piece: memoryview) -> int:
        return len(piece)


# Object, configured strategy -> strategy used, peak. "Direct" without descriptors is a buffer for this copy alone.
PEAKS = [
    (1000, "adaptive", Strategy.POOLED, CHUNK),
    (100 * KIB, "adaptive", Strategy.POOLED, CHUNK),
    (256 * KIB, "adaptive", Strategy.POOLED, CHUNK),
    (512 * KIB, "adaptive", Strategy.CHUNKED, CHUNK),
    (MIB, "adaptive", Strategy.CHUNKED, CHUNK),
    (64 * MIB, "adaptive", Strategy.CHUNKED, CHUNK),
    (1024 * MIB, "adaptive", Strategy.CHUNKED, CHUNK),
    (100 * KIB, "chunked", Strategy.POOLED, CHUNK),  # below large_object_threshold it is not asked
    (256 * KIB, "chunked", Strategy.CHUNKED, CHUNK),
    (64 * MIB, "chunked", Strategy.CHUNKED, CHUNK),
    (512 * KIB, "pooled", Strategy.POOLED, 512 * KIB),
    (MIB, "pooled", Strategy.POOLED, MIB),
    (8 * MIB, "pooled", Strategy.POOLED, 8 * MIB),  # above max_buffer_size: mapped for this copy alone
    (512 * KIB, "direct", Strategy.DIRECT, CHUNK),
    (64 * MIB, "direct", Strategy.DIRECT, CHUNK),
]


@pytest.mark.parametrize("kind", [BufferPool, AdaptiveBufferPool])
@pytest.mark.parametrize(("size", "configured", "used", "peak"), PEAKS)
def test_a_strategy_needs_so_much_memory_and_uses_it_again(
    kind: type[BufferPool], size: int, configured: str, used: Strategy, peak: int, unkept: None
) -> None:
    """Ten copies have the peak of one. What is pooled is mapped once and reused nine times; what is private is never kept."""
    times = 10 if size <= 64 * MIB else 2
    with kind(BufferPoolConfig(large_object_strategy=configured)) as pool:
        for _ in range(times):
            result = pool.copy(Zeros(size), Nowhere(), size)
            assert (result.bytes, result.strategy) == (size, used)
        stats = pool.stats()
        assert stats.peak_bytes == peak
        assert stats.memory_efficiency == times * size / peak
        pooled = used is not Strategy.DIRECT and peak <= MIB
        assert (stats.maps, stats.mapped_bytes) == ((1, peak) if pooled else (times, times * peak))
        assert stats.reuse_rate == ((times - 1) / times if pooled else 0.0)
        assert pool.ledger.held == stats.arena_bytes == (peak if pooled else 0)
        assert stats.total_gets == stats.total_puts == times
    assert pool.ledger.held == 0


@pytest.mark.parametrize("level", PressureLevel)
def test_the_peak_of_a_copy_follows_the_level_of_pressure(level: PressureLevel, unkept: None) -> None:
    """The chunk is as large as the level allows, and at the levels that keep nothing the next look gives it back."""
    with AdaptiveBufferPool() as pool:
        pool.relieve(level)
        pool.copy(Zeros(64 * MIB), Nowhere(), 64 * MIB)
        effect = EFFECTS[level]
        chunk = min(CHUNK, effect.most_chunk or CHUNK)
        stats = pool.stats()
        assert stats.moved_chunks == 64 * MIB // chunk
        assert stats.peak_bytes <= CHUNK
        pool.maintain()
        assert pool.ledger.held == (stats.arena_bytes if effect.keeps_idle else 0)


def test_eight_copies_at_once_need_eight_chunks_and_not_eight_objects(unkept: None) -> None:
    """All of them have their chunk at the same moment: the first arena is one chunk, the second eight. Again, it is the same
    memory."""
    threads = 8
    meeting = threading.Barrier(threads)

    class Meeting(Nowhere):
        met = False

        def write(self, piece: memoryview) -> int:
            if not self.met:
                meeting.wait(SOON)
                self.met = True
            return len(piece)

    with AdaptiveBufferPool() as pool, ThreadPoolExecutor(threads) as executor:
        for _ in range(3):
            copies = [executor.submit(pool.copy, Zeros(4 * MIB), Meeting(), 4 * MIB) for _ in range(threads)]
            assert sum(copy.result(SOON).bytes for copy in copies) == threads * 4 * MIB
        stats = pool.stats()
    assert stats.peak_bytes == CHUNK + 8 * CHUNK
    assert (stats.maps, stats.total_gets, stats.active_buffers) == (2, 3 * threads, 0)
    assert stats.memory_efficiency > 40  # of whole objects it is 3


def test_the_gate_bounds_the_peak_of_any_number_of_copies(unkept: None) -> None:
    """64 threads, two places: no more than two chunks are ever out, and everybody is served."""
    running, most, lock = [0], [0], threading.Lock()

    class Counting(Zeros):
        def readinto(self, view: memoryview) -> int:
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            count = super().readinto(view)
            with lock:
                running[0] -= 1
            return count

    with AdaptiveBufferPool(BufferPoolConfig(max_concurrent_large_ops=2)) as pool, ThreadPoolExecutor(64) as executor:
        copies = [executor.submit(pool.copy, Counting(4 * MIB), Nowhere(), 4 * MIB) for _ in range(256)]
        assert sum(copy.result(SOON).bytes for copy in copies) == 256 * 4 * MIB
        stats = pool.stats()
    assert most[0] <= 2
    assert stats.active_buffers == stats.gate.active == stats.gate.waiting == 0
    assert stats.gate.entered == 256 and stats.overloads == 0
    assert stats.peak_bytes <= CHUNK + 8 * CHUNK
    assert stats.pool_misses <= 2


# Minor faults of this thread, in a process of its own that has touched all it needs. Each round is ten operations.
FAULTS = """
import gc, json, resource, sys, tempfile
from daramjwee import Cache, FileStore, MemoryStore
from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig

MIB = 1 << 20
CONTENT = memoryview(bytes(range(256)) * (MIB // 256))

class Plain:
    def __init__(self):
        self.at = 0
    def readinto(self, view):
        count = min(len(view), MIB - self.at)
        view[:count] = CONTENT[self.at : self.at + count]
        self.at += count
        return count

class Sink:
    def write(self, piece):
        return len(piece)

folder = tempfile.mkdtemp(dir=sys.argv[1])
with open(folder + "/source", "wb") as file:
    file.write(CONTENT)

def to_plain(pool):
    pool.copy(Plain(), Sink(), MIB)

def to_file(pool):
    with open(folder + "/source", "rb") as source, open(folder + "/target", "wb", buffering=0) as target:
        pool.copy(source, target, MIB)

def lease(pool):
    with pool.acquire(MIB) as lease:
        lease.view[:] = CONTENT

def fresh(pool):
    Plain().readinto(bytearray(MIB))

def hit(cache):
    with cache.open("k") as stream:
        stream.copy_to(Sink())

def rounds(work, subject):
    gc.collect()
    gc.disable()
    for _ in range(30):
        work(subject)
    seen = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        for _ in range(10):
            work(subject)
        seen.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)
    gc.enable()
    return seen

seen = {}
for strategy in ("adaptive", "chunked", "pooled", "direct"):
    with AdaptiveBufferPool(BufferPoolConfig(large_object_strategy=strategy)) as pool:
        for work in (to_plain, to_file, lease):
            seen[f"{work.__name__}, {strategy}"] = rounds(work, pool)
with AdaptiveBufferPool() as pool:
    seen["fresh"] = rounds(fresh, pool)
for name, buffers in (("with", BufferPoolConfig()), ("without", None)):
    with Cache(FileStore(folder + name, capacity="8MiB"), buffers=buffers) as cache:
        cache.set("k", bytes(CONTENT))
        seen[f"hit {name} a pool"] = rounds(hit, cache)
print(json.dumps(seen))
"""


def test_in_steady_state_a_strategy_causes_no_page_fault(tmp_path: Path) -> None:
    """Reuse wins by not faulting. Whoever maps memory for each operation has a fault for each page of it: a buffer of one's
    own, "direct" without descriptors, a cache without a pool."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        "MALLOC_MMAP_THRESHOLD_": "131072",  # as in a program whose allocator gives memory back
        "MALLOC_TRIM_THRESHOLD_": "131072",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FAULTS, str(tmp_path)], env=environment, capture_output=True, text=True,
        timeout=50, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    # A private mapping may have one fault for all its pages, where the system gives huge ones.
    wasteful = {"fresh": MIB // os.sysconf("SC_PAGE_SIZE"), "hit without a pool": 1, "to_plain, direct": 1}
    for name, rounds in seen.items():
        least = wasteful.pop(name, 0)
        if least:
            assert min(rounds) >= 10 * least, (name, rounds)
        else:
            # One fault in any operation would be ten in every round; the interpreter itself has some in one or two, when it
            # maps a page of its own, or the system moves one.
            assert statistics.median_high(rounds) == 0, (name, rounds)
    assert not wasteful
