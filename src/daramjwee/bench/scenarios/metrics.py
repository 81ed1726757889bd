"""What it costs to count: a copy of 256 KiB and a lease, with the pool's counters, with detailed metrics, and with none.

Invariant: "uncounted" is the same pool, whose tallies do nothing; all contenders take turns on the same file and sink.
Threads: one.
Design: docs/design/bench.md
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from itertools import repeat
from time import perf_counter
from typing import TYPE_CHECKING

from daramjwee.bench.ends import Folder, Summed, copies, opener
from daramjwee.bench.samples import Row, at_most, exactly, ratios, row_of
from daramjwee.bench.timing import in_turns
from daramjwee.units import KIB

if TYPE_CHECKING:
    from typing import Any

    from daramjwee.bench.timing import Timed
    from daramjwee.buffers import BufferPool

SCENARIO = "metrics"
SIZE = 256 * KIB
COUNTED = 1000


class Uncounted:
    """Tallies that count nothing."""

    detailed = False

    def count(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


def run(*, quick: bool) -> list[Row]:
    """Rows of this scenario."""
    return measure(rounds=21, seconds=0.015) if quick else measure(rounds=101, seconds=0.03)


def measure(*, rounds: int, seconds: float) -> list[Row]:
    """The same with any number of rounds, each turn of about `seconds`."""
    from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig

    detailed = BufferPoolConfig(enable_detailed_metrics=True)
    with ExitStack() as stack:
        folder = stack.enter_context(Folder())
        path = folder.file_of(random.Random(1).randbytes(SIZE))
        pools = {
            "uncounted": stack.enter_context(AdaptiveBufferPool()),
            "counted": stack.enter_context(AdaptiveBufferPool()),
            "detailed": stack.enter_context(AdaptiveBufferPool(detailed)),
        }
        tallies = pools["uncounted"]._tallies
        pools["uncounted"]._tallies = Uncounted()  # type: ignore[assignment]
        contenders: dict[str, Timed] = {name: copies(pool.copy, opener(path), Summed) for name, pool in pools.items()}
        contenders |= {f"lease, {name}": _leases(pools[name]) for name in ("counted", "detailed")}
        figures = in_turns(contenders, rounds=rounds, seconds=seconds)
        pools["uncounted"]._tallies = tallies
        exact = [_miscounted(pool) for name, pool in pools.items() if name != "uncounted"]
    copy = "copy of 256 KiB"
    return [
        row_of(SCENARIO, f"{copy}, uncounted", [s * 1e6 for s in figures["uncounted"]], unit="us"),
        row_of(SCENARIO, f"{copy}: counted / uncounted", ratios(figures["counted"], figures["uncounted"]), target=at_most(1.01)),
        row_of(
            SCENARIO, f"{copy}: detailed metrics / uncounted", ratios(figures["detailed"], figures["uncounted"]),
            target=at_most(1.03),
        ),
        row_of(
            SCENARIO, "lease of 64 KiB: detailed metrics / without",
            ratios(figures["lease, detailed"], figures["lease, counted"]),
        ),
        row_of(SCENARIO, f"{COUNTED} copies: counted too many or too few", exact, unit="", target=exactly(0)),
    ]  # fmt: skip


def _leases(pool: BufferPool) -> Timed:
    def run(loops: int) -> float:
        begin = perf_counter()
        for _ in repeat(None, loops):
            with pool.acquire(64 * KIB):
                pass
        return perf_counter() - begin

    return run


def _miscounted(pool: BufferPool) -> float:
    """How far the counts of so many copies are off, by class and by strategy."""
    import io

    pool.reset_stats()
    for _ in range(COUNTED):
        pool.copy(io.BytesIO(bytes(100)), io.BytesIO())
    stats = pool.stats()
    return abs(stats.small_object_ops - COUNTED) + abs(stats.direct_operations - COUNTED)
