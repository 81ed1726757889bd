"""`BufferPool.copy` beside what a user would write, page faults per operation, and the pool beside no pool.

Invariant: all contenders copy from an object that has no descriptor (an `io.RawIOBase` over memory, which only
implements `readinto`) to one file that is there already and is overwritten, so that making and freeing blocks of the
file system, the same for everyone and dearer than the copy, is not what is measured. The rows "new file" include it.
Threads: one, and 8 where the row says so.
Design: docs/design/bench.md
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from daramjwee.bench.ends import Source, read_and_write
from daramjwee.bench.samples import Row, against_best, at_least, at_most, ratios, row_of
from daramjwee.bench.timing import in_turns, operations, page_faults, threaded
from daramjwee.units import KIB, MIB, format_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from daramjwee.bench.timing import Timed
    from daramjwee.buffers import BufferPool

    # Copies everything from a source object to an open file.
    Copy = Callable[[Any, Any], object]

SCENARIO = "pool"
SIZES = (256 * KIB, MIB, 4 * MIB, 16 * MIB)
THREADS = 8
# What a user would write.
USERS = ("copyfileobj", "write(read())")


def run(*, quick: bool) -> list[Row]:
    """Rows of this scenario."""
    return measure(rounds=9, seconds=0.02) if quick else measure(rounds=21, seconds=0.05)


def measure(*, rounds: int, seconds: float, sizes: tuple[int, ...] = SIZES) -> list[Row]:
    """The same with any number of rounds, each turn of about `seconds`."""
    from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="daramjwee-bench-"))
        pool = stack.enter_context(AdaptiveBufferPool(BufferPoolConfig()))
        unpooled = stack.enter_context(AdaptiveBufferPool(BufferPoolConfig(enabled=False)))
        rows = []
        for size in sizes:
            rows += _one_size(pool, unpooled, size, folder, rounds, seconds)
        rows += _many_threads(pool, unpooled, folder, rounds, seconds)
    return rows


def _one_size(pool: BufferPool, unpooled: BufferPool, size: int, folder: str, rounds: int, seconds: float) -> list[Row]:
    body = random.Random(size).randbytes(size)
    path = os.path.join(folder, f"copy of {size}")
    copies: dict[str, Copy] = {
        "pool": lambda source, sink: pool.copy(source, sink, size),
        "enabled=False": lambda source, sink: unpooled.copy(source, sink, size),
        "copyfileobj": shutil.copyfileobj,
        "write(read())": read_and_write,
        "bytearray(size)": lambda source, sink: _through(bytearray(size), source, sink),
        "bytearray(256 KiB)": lambda source, sink: _through(bytearray(256 * KIB), source, sink),
    }
    with open(path, "wb", buffering=0) as sink:
        over = {name: _overwriting(copy, body, sink) for name, copy in copies.items()}
        figures = in_turns({name: operations(op) for name, op in over.items()}, rounds=rounds, seconds=seconds)
        faults = {name: [page_faults(over[name], 50) for _ in range(3)] for name in over}
        _check(path, body)
    new = {name: _anew(copies[name], body, path) for name in ("pool", *USERS)}
    # A new file costs far more than the copy into it; a third of the rounds is enough for rows without a target.
    fresh = in_turns({name: operations(op) for name, op in new.items()}, rounds=max(5, rounds // 3), seconds=seconds)

    title = f"copy {format_size(size)}"
    mine = figures["pool"]
    return [
        row_of(
            SCENARIO, f"{title}: speed / best of copyfileobj, write(read())", against_best(figures, "pool", USERS),
            target=at_least(1.2), note=f"{sorted(mine)[len(mine) // 2] * 1e6:.0f} us each",
        ),
        row_of(SCENARIO, f"{title}: speed / fresh bytearray(size)", ratios(figures["bytearray(size)"], mine)),
        row_of(SCENARIO, f"{title}: speed / fresh bytearray(256 KiB)", ratios(figures["bytearray(256 KiB)"], mine)),
        row_of(SCENARIO, f"{title}: speed / enabled=False", ratios(figures["enabled=False"], mine)),
        row_of(SCENARIO, f"{title}: the same, each to a new file", against_best(fresh, "pool", USERS)),
        # Three runs of 50 copies each: what is left of it is the interpreter's own small objects.
        row_of(SCENARIO, f"{title}: page faults", faults["pool"], unit="", target=at_most(0.05)),
        row_of(SCENARIO, f"{title}: page faults of write(read())", faults["write(read())"], unit=""),
    ]  # fmt: skip


def _many_threads(pool: BufferPool, unpooled: BufferPool, folder: str, rounds: int, seconds: float) -> list[Row]:
    """8 threads, each its own size and file, with the pool and without one."""
    sizes = [256 * KIB, MIB, 4 * MIB, 8 * MIB] * (THREADS // 4)
    bodies = {size: random.Random(size).randbytes(size) for size in set(sizes)}
    with ExitStack() as stack:
        sinks = [
            stack.enter_context(open(os.path.join(folder, f"thread {n}"), "wb", buffering=0)) for n in range(THREADS)
        ]

        def side(copy: Copy) -> Timed:
            pairs = zip(sizes, sinks, strict=True)
            return threaded([operations(_overwriting(copy, bodies[size], sink)) for size, sink in pairs])

        contenders = {
            "pool": side(pool.copy),
            "enabled=False": side(unpooled.copy),
            "write(read())": side(read_and_write),
            "copyfileobj": side(shutil.copyfileobj),
            "fresh bytearray(256 KiB)": side(lambda source, sink: _through(bytearray(256 * KIB), source, sink)),
        }
        figures = in_turns(contenders, rounds=rounds, seconds=seconds)
    return [
        row_of(SCENARIO, f"{THREADS} threads, 256 KiB to 8 MiB: speed / {name}", ratios(figures[name], figures["pool"]))
        for name in contenders
        if name != "pool"
    ]


def _through(buffer: bytearray, source: Any, sink: Any) -> None:
    """No pool: a loop over a buffer that was made for this copy."""
    view = memoryview(buffer)
    while count := source.readinto(view):
        sink.write(view[:count])


def _overwriting(copy: Copy, body: bytes, sink: Any) -> Callable[[], object]:
    def operation() -> None:
        sink.seek(0)
        copy(Source(body), sink)

    return operation


def _anew(copy: Copy, body: bytes, path: str) -> Callable[[], object]:
    def operation() -> None:
        with open(path, "wb", buffering=0) as sink:
            copy(Source(body), sink)

    return operation


def _check(path: str, body: bytes) -> None:
    with open(path, "rb") as file:
        if file.read() != body:
            raise ValueError(f"a copy of {len(body):,} bytes is not what was copied")
