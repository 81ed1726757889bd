"""Thousands of large copies by 64 threads under one small ledger, and the same with 1,000 asyncio tasks: is the bound kept,
does everything finish, and is everything given back?

Invariant: each case runs in a process of its own. Every copy's bytes are counted. The ledger is looked at by a thread of
its own, as often as it gets to run; the peak of memory is the system's figure, above what was resident with all
threads and tasks there and waiting for the start.
Threads: 64 that copy, or 16 beside an event loop; one that looks.
Design: docs/design/bench.md
"""

from __future__ import annotations

import io
import random
import threading
from contextlib import contextmanager
from itertools import count as counting
from time import perf_counter
from typing import TYPE_CHECKING, Any

from daramjwee.bench.ends import Folder, Glance, Source
from daramjwee.bench.samples import Row, at_most, exactly
from daramjwee.bench.timing import forget_peak, in_child, resident_bytes
from daramjwee.units import KIB, MIB, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daramjwee.buffers import AdaptiveBufferPool

    Found = dict[str, Any]

SCENARIO = "bounded memory"
LIMIT = 32 * MIB
SIZES = tuple(KIB << shift for shift in range(8, 14))
COPIES = 10_000
THREADS, FEWER_THREADS, TASKS = 64, 16, 1000
LEASES_OF_A_TASK = 10
# Chunks of tasks: below and above what passes the gate.
CHUNKS = (64 * KIB, 256 * KIB, MIB)
# Whole objects on loan: page faults make it several times slower, and the ledger is full nearly always.
WHOLE_COPIES = 2000
WAIT_SECONDS = 120.0


def run(*, quick: bool) -> list[Row]:
    """Rows of this scenario."""
    return measure(share=10 if quick else 1)


def measure(*, share: int) -> list[Row]:
    """The same with a `share`-th of all copies and tasks."""
    rows = []
    with Folder() as folder:
        body = random.Random(0).randbytes(max(SIZES))
        path = folder.file_of(body)
        for title, threads, copies, tasks, strategy in (
            (f"{THREADS} threads", THREADS, COPIES, 0, "adaptive"),
            (f"{THREADS} threads, objects leased whole", THREADS, WHOLE_COPIES, 0, "pooled"),
            (f"{FEWER_THREADS} threads and {TASKS:,} tasks", FEWER_THREADS, COPIES, TASKS, "adaptive"),
        ):
            found = in_child(
                "daramjwee.bench.scenarios.bounded:crowd", path=path, threads=threads, copies=copies // share,
                tasks=tasks // share, strategy=strategy,
            )  # fmt: skip
            rows += rows_of(title, found)
    return rows


def rows_of(title: str, found: Found) -> list[Row]:
    """The rows for what `crowd` found. Pure."""

    def one(name: str, seen: float | None, target: Any, unit: str = "", note: str = "") -> Row:
        runs = 0 if seen is None else 1
        return Row(
            scenario=SCENARIO, name=f"{title}: {name}", unit=unit, seen=seen, runs=runs, target=target, note=note
        )

    held = found["held"] / MIB
    note = f"{found['samples']:,} samples, limit {format_size(LIMIT)}"
    peak = None if found["peak"] is None else found["peak"] / MIB
    return [
        one(f"copies and leases of {found['asked']:,} not finished", found["asked"] - found["done"], exactly(0)),
        one("ledger at most", held, at_most(LIMIT / MIB), "MiB", note),
        one(
            "process peak above idle", peak, at_most(34), "MiB", "" if peak is not None else "this system does not tell"
        ),
        one("still leased or charged after close()", found["left"], exactly(0)),
        one("seconds", found["seconds"], None, "s", f"{found['bytes'] / found['seconds'] / 1e9:.1f} GB/s"),
    ]


def crowd(path: str, threads: int, copies: int, tasks: int, strategy: str) -> Found:
    """`copies` copies shared out to `threads` threads, beside `tasks` asyncio tasks, in this process."""
    from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig, MemoryLedger

    with AdaptiveBufferPool() as first:  # what is imported when it is first needed is no memory of the copies
        first.copy(Source(b"x"), Glance())
    config = BufferPoolConfig(
        max_pool_bytes=LIMIT, acquire_timeout=WAIT_SECONDS, large_object_strategy=strategy,
        max_queued_large_ops=threads + tasks,
    )  # fmt: skip
    ledger = MemoryLedger(LIMIT)
    with open(path, "rb") as file:
        body = file.read()
    pool = AdaptiveBufferPool(config, ledger=ledger)
    orders = [random.Random(number).choices(SIZES, k=len(range(number, copies, threads))) for number in range(threads)]
    with pool:
        found = _run(pool, body, path, orders, tasks)
    stats = pool.stats()
    found["left"] = stats.active_buffers + stats.arena_bytes + stats.private_bytes + ledger.held
    return found


def _run(pool: AdaptiveBufferPool, body: bytes, path: str, orders: list[list[int]], tasks: int) -> Found:
    wanted = sum(sum(order) for order in orders)
    asked = sum(len(order) for order in orders) + tasks * LEASES_OF_A_TASK
    workers = [_Copies(pool, body, path, order) for order in orders]
    many = _Tasks(pool, tasks)
    jobs: list[Callable[[Callable[[], object]], object]] = [worker.run for worker in workers]
    if tasks:
        jobs.append(many.run)
    ready, gate = threading.Barrier(len(jobs) + 1), threading.Barrier(len(jobs) + 1)
    failures: list[BaseException] = []

    def start() -> None:
        ready.wait()
        gate.wait()

    def job(run: Callable[[Callable[[], object]], object]) -> None:
        try:
            run(start)
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that asked
            failures.append(error)

    running = [threading.Thread(target=job, args=(each,)) for each in jobs]
    for thread in running:
        thread.start()
    ready.wait()
    measurable = forget_peak()
    idle = resident_bytes()
    with _watched(pool) as seen:
        begin = perf_counter()
        gate.wait()
        for thread in running:
            thread.join()
        took = perf_counter() - begin
    if failures:
        raise failures[0]
    moved = sum(worker.sink.taken for worker in workers)
    if moved != wanted:
        raise ValueError(f"{moved:,} bytes arrived of {wanted:,}")
    peak = resident_bytes("VmHWM") if measurable else None
    return {
        "asked": asked,
        "done": sum(worker.done for worker in workers) + many.done,
        "bytes": moved,
        "seconds": took,
        "held": seen[0],
        "samples": seen[1],
        "peak": None if peak is None or idle is None else peak - idle,
    }


@contextmanager
def _watched(pool: AdaptiveBufferPool) -> Iterator[list[int]]:
    """The most the ledger held while the `with` ran, and how often it was looked at."""
    seen, over = [0, 0], threading.Event()

    def look() -> None:
        ended = False
        while not ended:
            ended = over.wait(0.0002)
            seen[0] = max(seen[0], pool.ledger.held)
            seen[1] += 1

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


class _Copies:
    """What one thread copies, in turns from a file and from an object without descriptor."""

    def __init__(self, pool: AdaptiveBufferPool, body: bytes, path: str, order: list[int]) -> None:
        self.pool, self.body, self.path, self.order = pool, body, path, order
        self.sink = Glance()
        self.done = 0

    def run(self, start: Callable[[], object]) -> None:
        """Wait for the start, and copy all of them."""
        start()
        for size, number in zip(self.order, counting()):
            source: Any = Source(self.body) if number % 2 else io.FileIO(self.path)
            with source:
                self.done += self.pool.copy(source, self.sink, size, limit=size).bytes == size


class _Tasks:
    """Asyncio tasks that lease chunks, write to them, and let others run before they give them back."""

    def __init__(self, pool: AdaptiveBufferPool, tasks: int) -> None:
        self.pool, self.tasks = pool, tasks
        self.done = 0

    def run(self, start: Callable[[], object]) -> None:
        """Make the tasks in an event loop, wait for the start, and run them to their end."""
        import asyncio

        with asyncio.Runner() as runner:
            go = asyncio.Event()
            tasks = runner.run(self._made(go))
            start()
            runner.run(self._finished(go, tasks))

    async def _made(self, go: Any) -> list[Any]:
        import asyncio

        sizes = random.Random(0)
        made = [
            asyncio.create_task(self._one(go, sizes.choices(CHUNKS, k=LEASES_OF_A_TASK))) for _ in range(self.tasks)
        ]
        await asyncio.sleep(0)  # each of them waits now
        return made

    async def _finished(self, go: Any, tasks: list[Any]) -> None:
        import asyncio

        go.set()
        await asyncio.gather(*tasks)

    async def _one(self, go: Any, sizes: list[int]) -> None:
        import asyncio

        await go.wait()
        for size in sizes:
            with await self.pool.acquire_async(size) as lease:
                lease.view[::4096] = b"x" * len(range(0, size, 4096))
                await asyncio.sleep(0)
            self.done += 1
