"""What a lease, a decision and a place in the gate cost beside a method around `dict.get`; page faults of leases; and
what growing by a slab costs.

Invariant: every contender is called as its user would call it, in a loop whose own cost is left in. Page faults are
counted by the system, exactly, and must be none.
Threads: one, and 8 where the row says so.
Design: docs/design/bench.md
"""

from __future__ import annotations

import mmap
from contextlib import ExitStack
from itertools import repeat
from time import perf_counter
from typing import TYPE_CHECKING

from daramjwee.bench.samples import Row, at_most, exactly, ratios, row_of
from daramjwee.bench.timing import in_turns, operations, page_faults, threaded
from daramjwee.units import KIB, MIB

if TYPE_CHECKING:
    from typing import Any

    from daramjwee.bench.timing import Timed
    from daramjwee.buffers import BufferPool

SCENARIO = "lease"
THREADS = 8
# Below and from the threshold on which a lease of the adaptive pool passes its gate.
SMALL, LARGE = 64 * KIB, 256 * KIB
SLAB = 2 * MIB
CHUNK = 256 * KIB
PAGE = mmap.PAGESIZE


class Table:
    """A method around `dict.get`: the yardstick."""

    def __init__(self) -> None:
        self._table = {"key": 1}

    def get(self, key: str) -> int | None:
        return self._table.get(key)


def run(*, quick: bool) -> list[Row]:
    """Rows of this scenario."""
    return measure(rounds=9, seconds=0.015) if quick else measure(rounds=31, seconds=0.03)


def measure(*, rounds: int, seconds: float) -> list[Row]:
    """The same with any number of rounds, each turn of about `seconds`."""
    return [*_calls(rounds, seconds), *_faults(), *_growth(rounds, seconds)]


def _calls(rounds: int, seconds: float) -> list[Row]:
    from daramjwee.buffers import AdaptiveBufferPool, BufferPool, LargeOperationGate

    with ExitStack() as stack:
        plain = stack.enter_context(BufferPool())
        adaptive = stack.enter_context(AdaptiveBufferPool())
        gate = LargeOperationGate(16, 64 * MIB)
        stack.callback(gate.close)
        contenders: dict[str, Timed] = {
            "method": _method(),
            "plain": _leases(plain, LARGE),
            "adaptive": _leases(adaptive, SMALL),
            "gated": _leases(adaptive, LARGE),
            "gate": _slots(gate),
            **_decisions(),
        }
        for name in ("plain", "adaptive"):
            size = LARGE if name == "plain" else SMALL
            pool = plain if name == "plain" else adaptive
            contenders[f"{name}, {THREADS}"] = threaded([_leases(pool, size) for _ in range(THREADS)])
        figures = in_turns(contenders, rounds=rounds, seconds=seconds)

    method = figures["method"]

    def beside(name: str, title: str, wanted: float | None) -> Row:
        note = f"{sorted(figures[name])[rounds // 2] * 1e9:.0f} ns"
        target = None if wanted is None else at_most(wanted)
        return row_of(SCENARIO, f"{title} / method", ratios(figures[name], method), target=target, note=note)

    def at_8(name: str, title: str) -> Row:
        slower = ratios(figures[f"{name}, {THREADS}"], figures[name])
        return row_of(SCENARIO, f"{title}: {THREADS} threads / 1 thread", slower, target=at_most(1.5))

    return [
        row_of(SCENARIO, "a method around dict.get", [s * 1e9 for s in method], unit="ns"),
        beside("plain", "with BufferPool.acquire(256 KiB)", 15),
        at_8("plain", "with BufferPool.acquire(256 KiB)"),
        beside("adaptive", "with AdaptiveBufferPool.acquire(64 KiB)", 15),
        at_8("adaptive", "with AdaptiveBufferPool.acquire(64 KiB)"),
        beside("gated", "with AdaptiveBufferPool.acquire(256 KiB), through the gate", None),
        beside("gate", "with gate.acquire(1 MiB), uncontended", None),
        *(beside(name, name, 10) for name in _decisions()),
    ]


def _method() -> Timed:
    table = Table()

    def run(loops: int) -> float:
        begin = perf_counter()
        for _ in repeat(None, loops):
            table.get("key")
        return perf_counter() - begin

    return run


def _leases(pool: BufferPool, size: int) -> Timed:
    def run(loops: int) -> float:
        begin = perf_counter()
        for _ in repeat(None, loops):
            with pool.acquire(size):
                pass
        return perf_counter() - begin

    return run


def _slots(gate: Any) -> Timed:
    def run(loops: int) -> float:
        begin = perf_counter()
        for _ in repeat(None, loops):
            with gate.acquire(MIB):
                pass
        return perf_counter() - begin

    return run


def _decisions() -> dict[str, Timed]:
    from daramjwee.buffers import BufferPoolConfig, select_strategy
    from daramjwee.buffers.strategy import Endpoint

    config = BufferPoolConfig()
    file, socket, plain = Endpoint.FILE, Endpoint.SOCKET, Endpoint.READINTO

    return {
        "select_strategy(1 MiB, config)": operations(lambda: select_strategy(MIB, config)),
        "select_strategy(16 MiB, file to file)": operations(
            lambda: select_strategy(16 * MIB, config, src=file, dst=file)
        ),
        "select_strategy(16 MiB, plain to socket)": operations(
            lambda: select_strategy(16 * MIB, config, src=plain, dst=socket)
        ),
    }


def _faults() -> list[Row]:
    """Leases whose every page is written to, in steady state."""
    from daramjwee.buffers import BufferPool

    count = 2000
    marks = b"x" * (CHUNK // PAGE)
    with BufferPool() as pool:

        def operation() -> None:
            with pool.acquire(CHUNK) as lease:
                lease.view[::PAGE] = marks

        for _ in repeat(None, 200):
            operation()
        faults = [page_faults(operation, count) * count for _ in range(5)]
    return [
        # The middle of five: what the pool spares it spares in every run, and now and then the system moves a page of
        # its own accord. The most in a run is shown.
        Row(
            scenario=SCENARIO, name=f"page faults of {count:,} leases of 256 KiB, every page written", unit="",
            seen=sorted(faults)[2], low=min(faults), high=max(faults), runs=len(faults), target=exactly(0),
        )
    ]  # fmt: skip


def _growth(rounds: int, seconds: float) -> list[Row]:
    """One byte touched of each page of 2 MiB that were not there before."""
    figures = in_turns({"slab": _slab, "small pages": _small_pages}, rounds=rounds, seconds=seconds)
    share = ratios(figures["slab"], figures["small pages"])
    note = f"{sorted(figures['slab'])[rounds // 2] * 1e6:.0f} us; huge pages: {_huge_pages()}"
    return [row_of(SCENARIO, "grow by a 2 MiB slab / by private 4 KiB pages", share, target=at_most(0.2), note=note)]


def _slab(loops: int) -> float:
    """The pool's way: its first arena of a class is small, the second is a slab."""
    from daramjwee.buffers import BufferPool

    marks = b"x" * (CHUNK // PAGE)
    took = 0.0
    for _ in repeat(None, loops):
        with BufferPool() as pool, ExitStack() as stack:
            stack.enter_context(pool.acquire(CHUNK))
            before = pool.stats().arena_bytes
            begin = perf_counter()
            for _ in range(SLAB // CHUNK):
                lease = pool.acquire(CHUNK)
                lease.view[::PAGE] = marks
                stack.push(lease)
            took += perf_counter() - begin
            grown = pool.stats().arena_bytes - before
        if grown != SLAB:
            raise ValueError(f"the pool grew by {grown:,} bytes; this measures a slab of {SLAB:,}")
    return took


def _small_pages(loops: int) -> float:
    marks = b"x" * (CHUNK // PAGE)
    never = getattr(mmap, "MADV_NOHUGEPAGE", None)
    took = 0.0
    for _ in repeat(None, loops):
        begin = perf_counter()
        memory = mmap.mmap(-1, SLAB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if never is not None:
            memory.madvise(never)
        with memoryview(memory) as view:
            for at in range(0, SLAB, CHUNK):
                view[at : at + CHUNK : PAGE] = marks
        took += perf_counter() - begin
        memory.close()
    return took


def _huge_pages() -> str:
    """What the system says about huge pages: where they are off, a slab costs what small pages cost."""
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="ascii") as file:
            return file.read().partition("[")[2].partition("]")[0]
    except OSError:
        return "unknown"
