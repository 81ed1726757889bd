"""Pools as people set them up: some wrongly, so that advice must find it, and some soundly, so that it must be silent.

Each is a configuration and a load that runs on a real pool within milliseconds. What stands in line are tasks of one loop:
who waits for whom is the same each time. Time is a clock's that the load moves.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig, MemoryLedger, PressureLevel
from daramjwee.errors import Overloaded
from daramjwee.testing import ManualClock

KIB, MIB = 1024, 1024 * 1024
# Whoever waits longer than this is patient: long enough for a load to see him in line.
PATIENT_SECONDS = 10


class Bench(ExitStack):
    """What a load runs on. What it enters is left after the statistics were looked at."""

    def __init__(self, pool: AdaptiveBufferPool, clock: ManualClock, folder: Path) -> None:
        super().__init__()
        self.pool, self.clock, self.folder = pool, clock, folder


class Source(io.RawIOBase):
    """So many bytes from no descriptor, at most `piece` at a time."""

    def __init__(self, count: int, piece: int = 1 << 40) -> None:
        self.left, self.piece = count, piece

    def readable(self) -> bool:
        return True

    def readinto(self, view) -> int:
        count = min(len(view), self.left, self.piece)
        self.left -= count
        return count


class Sink:
    def write(self, data) -> int:
        return len(data)


class Setup(NamedTuple):
    """`found`: the code, field and direction that advice must find; None where nothing is wrong. `ledger`: bytes of a
    ledger that others share. `heals`: whether the load may be repeated under what is advised."""

    name: str
    config: BufferPoolConfig
    load: Callable[[Bench], None]
    found: tuple[str, str, str] | None = None
    ledger: int | None = None
    heals: bool = True


@contextmanager
def look(setup: Setup, config: BufferPoolConfig, folder: Path):
    """The pool of `setup` under `config`, after its load."""
    clock = ManualClock()
    ledger = None if setup.ledger is None else MemoryLedger(setup.ledger)
    with AdaptiveBufferPool(config, ledger=ledger, clock=clock) as pool, Bench(pool, clock, folder) as bench:
        setup.load(bench)
        yield pool


# -- loads -----------------------------------------------------------------------------------------------


def leases(count: int, *sizes: int) -> Callable[[Bench], None]:
    """One after the other, `count` of each size."""

    def load(bench: Bench) -> None:
        for _ in range(count):
            for size in sizes:
                bench.pool.acquire(size).release()

    return load


def held(count: int, size: int, level: PressureLevel = PressureLevel.NORMAL) -> Callable[[Bench], None]:
    """All at once; `level` comes meanwhile."""

    def load(bench: Bench) -> None:
        for _ in range(count):
            # Where it does not fit, the load goes on without.
            with suppress(Overloaded):
                bench.enter_context(bench.pool.acquire(size, priority=None, timeout=0))
        bench.pool.relieve(level)

    return load


def copies(count: int, size: int, piece: int = 1 << 40, *, sized: bool = True) -> Callable[[Bench], None]:
    def load(bench: Bench) -> None:
        for _ in range(count):
            bench.pool.copy(Source(size, piece), Sink(), size if sized else None)

    return load


def copies_together(count: int, size: int) -> Callable[[Bench], None]:
    """In threads; half a second passes while as many run as may, and the others stand in line."""

    def load(bench: Bench) -> None:
        pool = bench.pool
        all_here = threading.Event()

        class Held(Source):
            def readinto(self, view) -> int:
                all_here.wait()
                return super().readinto(view)

        with ThreadPoolExecutor(count) as executor:
            running = [executor.submit(pool.copy, Held(size), Sink(), size) for _ in range(count)]
            while (gate := pool.gate.stats()).active + gate.waiting < count:
                threading.Event().wait(0.001)
            bench.clock.advance(0.5)
            all_here.set()
            for one in running:
                one.result()

    return load


def under(level: PressureLevel, *loads: Callable[[Bench], None]) -> Callable[[Bench], None]:
    """The loads one after the other, under pressure."""

    def load(bench: Bench) -> None:
        bench.pool.relieve(level)
        for part in loads:
            part(bench)

    return load


def both(*loads: Callable[[Bench], None]) -> Callable[[Bench], None]:
    return under(PressureLevel.NORMAL, *loads)


def crowd(*groups: tuple[int, int, tuple[int, ...]], seconds: float = 0.0) -> Callable[[Bench], None]:
    """Groups of (tasks, leases, sizes): each task takes so many leases of each size, one after the other, while the others
    do so too. Each is held for `seconds`, while the others have their turn. Whoever is sent away goes on."""

    async def work(bench: Bench, each: int, sizes: tuple[int, ...]) -> None:
        for _ in range(each):
            for size in sizes:
                with suppress(Overloaded):
                    with await bench.pool.acquire_async(size):
                        await asyncio.sleep(0)
                        bench.clock.advance(seconds)
                        await asyncio.sleep(0)

    async def together(bench: Bench) -> None:
        await asyncio.gather(*(work(bench, each, sizes) for count, each, sizes in groups for _ in range(count)))

    return lambda bench: asyncio.run(together(bench))


def tasks(count: int, each: int, *sizes: int, seconds: float = 0.0) -> Callable[[Bench], None]:
    """One such group."""
    return crowd((count, each, sizes), seconds=seconds)


def threads(workers: int, work: Callable[[Bench, int], None]) -> Callable[[Bench], None]:
    """So many threads that begin together."""

    def load(bench: Bench) -> None:
        barrier = threading.Barrier(workers)

        def begin(number: int) -> None:
            barrier.wait()
            work(bench, number)

        with ThreadPoolExecutor(workers) as executor:
            list(executor.map(begin, range(workers)))

    return load


def bursts(count: int, pause: float) -> Callable[[Bench], None]:
    """Leases together, and then a pause in which nobody needs memory."""

    def load(bench: Bench) -> None:
        for _ in range(count):
            with ExitStack() as burst:
                for _ in range(8):
                    burst.enter_context(bench.pool.acquire(128 * KIB))
            for _ in range(2):  # what is idle is noticed first, and goes back the next time
                bench.clock.advance(pause / 2)
                bench.pool.maintain()

    return load


def losses(bench: Bench) -> None:
    """Leases that nobody releases."""
    for _ in range(2):
        bench.pool.acquire(64 * KIB)


def late_memory(bench: Bench) -> None:
    """All memory is held until requests that wait as long as is configured have given up, or, where they are patient, until
    all of them stand in line."""
    pool = bench.pool
    patient = pool.config.acquire_timeout >= PATIENT_SECONDS

    def ask(_: int) -> None:
        with suppress(Overloaded):
            pool.acquire(64 * KIB).release()

    with ExitStack() as all_of_it, ThreadPoolExecutor(8) as executor:
        all_of_it.enter_context(pool.acquire(pool.ledger.limit, priority=None))
        asking = [executor.submit(ask, number) for number in range(8)]
        while not all(one.done() for one in asking) and not (patient and pool.stats().waiting == len(asking)):
            threading.Event().wait(0.005)
        all_of_it.close()


def late_places(bench: Bench) -> None:
    """At the gate, some are served after half of the timeout, and some wait in vain."""
    pool, clock = bench.pool, bench.clock
    timeout = pool.config.acquire_timeout

    async def ask() -> None:
        with suppress(Overloaded):
            (await pool.acquire_async(256 * KIB)).release()

    async def load() -> None:
        for passed in (timeout / 2, 2 * timeout):
            with pool.acquire(256 * KIB):
                asking = [asyncio.create_task(ask()) for _ in range(8)]
                await asyncio.sleep(0)
                clock.advance(passed)
                if passed > timeout:
                    await asyncio.gather(*asking)
            await asyncio.gather(*asking)

    asyncio.run(load())


def idle_after_a_burst(level: PressureLevel) -> Callable[[Bench], None]:
    """Much memory was used at once, and nobody uses it now."""

    def load(bench: Bench) -> None:
        with ExitStack() as burst:
            for _ in range(100):
                burst.enter_context(bench.pool.acquire(128 * KIB))
        bench.pool.relieve(level)
        for _ in range(2):
            bench.clock.advance(20)
            bench.pool.maintain()

    return load


def in_turns(bench: Bench) -> None:
    """Two sizes in turns that do not fit together."""
    for _ in range(64):
        for size in (MIB, 512 * KIB):
            with bench.pool.acquire(size, priority=None), bench.pool.acquire(size, priority=None):
                pass


def files(count: int, size: int) -> Callable[[Bench], None]:
    """Copies of one file to another."""

    def load(bench: Bench) -> None:
        path = bench.folder / "source"
        path.write_bytes(bytes(size))
        for _ in range(count):
            with path.open("rb") as src, (bench.folder / "copy").open("wb") as dst:
                bench.pool.copy(src, dst, size)

    return load


def mixed(bench: Bench, number: int) -> None:
    """What a thread of a server does: leases of many sizes, and copies."""
    for turn in range(60):
        with bench.pool.acquire(1000 * (1 + (7 * turn + number) % 250)):
            pass
        if turn % 4 == 0:
            bench.pool.copy(Source(300_000 * (1 + turn % 5)), Sink())


def tees(bench: Bench) -> None:
    """Streams that are stored while they are read, in small pieces."""
    for _ in range(80):
        with bench.pool.tee(Source(600_000), Sink(), 600_000) as reader:
            while reader.read(8192):
                pass


def tries(bench: Bench) -> None:
    """Memory that is held for long, while somebody tries again and again without waiting, and does without."""
    bench.enter_context(bench.pool.acquire(bench.pool.ledger.limit, priority=None))
    for _ in range(20):
        with suppress(Overloaded):
            bench.pool.acquire(64 * KIB, timeout=0)


def tries_at_the_gate(bench: Bench) -> None:
    """The same for the places of large operations."""
    with bench.pool.acquire(256 * KIB):
        for _ in range(20):
            with suppress(Overloaded):
                bench.pool.acquire(256 * KIB, timeout=0)


Config = BufferPoolConfig
HIGH, ELEVATED = PressureLevel.HIGH, PressureLevel.ELEVATED

SEEDED = (
    Setup("disabled under traffic", Config(enabled=False), leases(80, 64 * KIB), ("disabled", "enabled", "set")),
    Setup(
        "leases are lost without a place", Config(leak_detection="off"), losses,
        ("leases_are_lost", "leak_detection", "set"),
    ),
    Setup(
        "leases are lost, and few places known", Config(), losses,
        ("leases_are_lost", "leak_detection", "set"),
    ),
    Setup(
        "debugging left on", Config(leak_detection="full"), leases(10_000, 4 * KIB),
        ("no_lease_is_lost", "leak_detection", "set"),
    ),
    Setup(
        # Half a second: one that is given the processor late does not wait four times as long, on a busy machine either.
        "no patience for memory", Config(acquire_timeout="500ms", max_pool_bytes="1MiB"), late_memory,
        ("timeout_short", "acquire_timeout", "raise"),
    ),
    Setup(
        "no patience at the gate", Config(acquire_timeout="100ms", max_concurrent_large_ops=1), late_places,
        ("timeout_short", "acquire_timeout", "raise"), heals=False,  # it holds the place until all have given up
    ),
    Setup(
        "a chunk larger than the shared memory", Config(chunk_size="1MiB"), copies(16, 2 * MIB),
        ("chunk_never_fits", "chunk_size", "set"), ledger=512 * KIB,
    ),
    Setup(
        "large chunks that do not fit together", Config(chunk_size="4MiB", max_buffer_size="4MiB", max_pool_bytes="8MiB"),
        both(copies_together(24, 5 * MIB), copies(40, 5 * MIB)), ("chunk_large", "chunk_size", "set"),
    ),
    Setup(
        "large chunks under pressure", Config(chunk_size="1MiB"), under(HIGH, copies(64, 2 * MIB)),
        ("chunk_large", "chunk_size", "set"),
    ),
    Setup(
        "large default chunks, little memory", Config(default_buffer_size="1MiB", max_pool_bytes="4MiB"),
        both(copies(64, 2 * MIB), tasks(40, 2, 255 * KIB)), ("chunk_large", "default_buffer_size", "lower"),
    ),
    Setup(
        "small chunks", Config(chunk_size="16KiB"), copies(64, MIB), ("chunk_small", "chunk_size", "set"),
    ),
    Setup(
        "small default chunks", Config(default_buffer_size="8KiB", max_buffer_size="32KiB"), copies(64, MIB),
        ("chunk_small", "default_buffer_size", "raise"),
    ),
    Setup(
        "whole objects of unknown size", Config(large_object_strategy="pooled"), copies(20, MIB, sized=False),
        ("strategy_falls_back", "large_object_strategy", "set"),
    ),
    Setup(
        "direct without descriptors", Config(large_object_strategy="direct"), copies(80, MIB),
        ("direct_maps", "large_object_strategy", "set"),
    ),
    Setup(
        "small operations at the gate", Config(large_object_threshold="4KiB", max_concurrent_large_ops=2),
        tasks(16, 8, 8 * KIB), ("threshold_low", "large_object_threshold", "raise"),
    ),
    Setup(
        "large leases past the gate",
        Config(large_object_threshold="4MiB", very_large_object_threshold="8MiB", max_pool_bytes="8MiB"),
        both(copies(1, 4 * MIB), tasks(40, 4, MIB)), ("threshold_high", "large_object_threshold", "lower"),
    ),
    Setup(
        "nobody may wait", Config(max_queued_large_ops=1, max_concurrent_large_ops=1), tasks(20, 1, 256 * KIB),
        ("queue_short", "max_queued_large_ops", "raise"),
    ),
    Setup(
        "one slow operation at a time", Config(max_concurrent_large_ops=1), tasks(4, 32, 256 * KIB, seconds=0.02),
        ("gate_narrow", "max_concurrent_large_ops", "raise"),
    ),
    Setup(
        "too many at once under pressure", Config(max_concurrent_large_ops=64, max_pool_bytes="16MiB"),
        under(HIGH, crowd((32, 2, (512 * KIB,)), (16, 2, (64 * KIB,)))), ("gate_wide", "max_concurrent_large_ops", "lower"),
    ),
    Setup(
        "larger than what is pooled", Config(), leases(80, 2 * MIB), ("largest_small", "max_buffer_size", "raise"),
    ),
    Setup(
        "small requests in large buffers", Config(min_buffer_size="64KiB"), leases(2000, 1000),
        ("least_large", "min_buffer_size", "lower"),
    ),
    Setup(
        "too little memory for leases", Config(max_pool_bytes="1MiB"), tasks(8, 20, 255 * KIB),
        ("pool_small", "max_pool_bytes", "raise"),
    ),
    Setup(
        "too little memory for large leases", Config(max_pool_bytes="1MiB"), tasks(4, 40, 512 * KIB, seconds=0.02),
        ("pool_small", "max_pool_bytes", "raise"),
    ),
    Setup(
        "a small share of a large ledger", Config(max_pool_bytes="1MiB"), tasks(7, 40, 256_000),
        ("pool_small", "max_pool_bytes", "raise"), ledger=64 * MIB,
    ),
    Setup(
        "sizes that drive each other out", Config(max_pool_bytes="2MiB"), in_turns,
        ("pool_small", "max_pool_bytes", "raise"),
    ),
    Setup(
        "more than the container can spare", Config(), both(leases(64, 4 * KIB), held(40, MIB, HIGH)),
        ("pool_large", "max_pool_bytes", "lower"),
    ),
    Setup(
        "mapped for each burst", Config(max_idle_age="1s"), bursts(16, 3.0), ("idle_short", "max_idle_age", "raise"),
    ),
    Setup(
        "idle for an hour while memory is short", Config(max_idle_age="1h"), idle_after_a_burst(ELEVATED),
        ("idle_long", "max_idle_age", "lower"),
    ),
)  # fmt: skip

SOUND = (
    Setup("not used", Config(), lambda _: None),
    Setup("small objects", Config(), leases(500, 100, 4000, 20_000)),
    Setup("media, copied from large files", Config(), files(70, 4 * MIB)),
    Setup("streams of unknown length, in what a network gives", Config(), copies(100, 400_000, 1448, sized=False)),
    Setup("threads with mixed sizes", Config(), threads(8, mixed)),
    Setup("the same with detailed metrics", Config(enable_detailed_metrics=True), threads(8, mixed)),
    Setup("few huge leases", Config(), leases(10, 20 * MIB)),
    Setup("tight memory that is enough", Config(max_pool_bytes="8MiB"), tasks(8, 40, 200 * KIB, 512 * KIB)),
    Setup("tees", Config(), tees),
    Setup("a debugging session", Config(leak_detection="full"), leases(500, 4 * KIB, 100 * KIB)),
    Setup("disabled, small objects", Config(enabled=False), leases(500, 4 * KIB)),
    Setup("disabled, little use", Config(enabled=False), leases(20, MIB)),
    Setup("a burst, then idle", Config(), both(idle_after_a_burst(PressureLevel.NORMAL), bursts(2, 70.0))),
    Setup("a burst, then memory is short elsewhere", Config(), idle_after_a_burst(ELEVATED)),
    Setup("a burst, then memory is very short elsewhere", Config(), idle_after_a_burst(HIGH)),
    Setup("now and then a burst, memory given back early", Config(max_idle_age="5s"), bursts(16, 600.0)),
    Setup("as many as there are places", Config(), tasks(16, 40, 512 * KIB, seconds=0.02)),
    Setup("more than there are places, which are as usual", Config(), tasks(40, 10, 512 * KIB, seconds=0.02)),
    Setup("a short line at the gate", Config(max_concurrent_large_ops=4), tasks(8, 20, 512 * KIB)),
    Setup("a chunk that fits", Config(chunk_size="128KiB"), copies(100, 2 * MIB)),
    Setup("direct where the kernel serves", Config(large_object_strategy="direct"), files(80, MIB)),
    Setup("whole objects that fit", Config(large_object_strategy="pooled"), copies(100, 512 * KIB)),
    Setup("memory that is held for long", Config(max_pool_bytes="4MiB"), tries),
    Setup("little patience, and tries without any", Config(acquire_timeout="500ms", max_concurrent_large_ops=1), tries_at_the_gate),
    Setup("never wait", Config(acquire_timeout=0, max_pool_bytes="1MiB"), leases(200, 200 * KIB)),
    Setup("small chunks under pressure", Config(), under(PressureLevel.CRITICAL, copies(100, MIB))),
)  # fmt: skip
