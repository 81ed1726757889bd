"""8 threads move mixed objects of 256 KiB to 8 MiB from files to sinks: through the pool, and through a fresh buffer for
each; operations, page faults, peak memory, and what is kept afterwards.

Invariant: each side runs in a process of its own, reads the same files in the same order with as many operations, and
hands them to a sink that looks at no more than the first byte. Memory is counted above what the process and its
threads had before the first operation; faults from after a few operations on, when both sides are warmed up.
Threads: 8.
Design: docs/design/bench.md
"""

from __future__ import annotations

import random
import threading
from collections import deque
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from daramjwee.bench.ends import Folder, Glance
from daramjwee.bench.samples import Row, Target, at_least, at_most, ratios, row_of
from daramjwee.bench.timing import forget_peak, in_child, resident_bytes
from daramjwee.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    Files = list[tuple[str, int]]
    # Moves objects: each from the file at a path, of so many bytes.
    Work = Callable[[Files], object]
    Run = dict[str, Any]

SCENARIO = "8 threads, mixed objects"
THREADS = 8
SIZES = tuple(KIB << shift for shift in range(8, 14))
WARM_UP = 20
KEPT = 4
# The last one is told without a target: a loop whose name lets go of each buffer before the next is made needs one block
# at a time, which malloc then keeps.
SIDES = ("pool", "fresh", "fresh, 4 kept", "fresh, dropped first")
WHY = "this system does not tell"


def run(*, quick: bool) -> list[Row]:
    """Rows of this scenario."""
    return rows_of(measure(rounds=3, operations=100) if quick else measure(rounds=7, operations=250))


def measure(*, rounds: int, operations: int) -> dict[str, list[Run]]:
    """What `moves` returned for each side, in the order of rounds. `operations`: of each thread."""
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    order = random.Random(0)
    with Folder() as folder:
        paths = {str(size): folder.file_of(random.Random(size).randbytes(size)) for size in SIZES}
        for number in range(rounds):
            turn = list(SIDES)
            order.shuffle(turn)
            for side in turn:
                runs[side].append(
                    in_child(
                        "daramjwee.bench.scenarios.mixed:moves",
                        side=side, paths=paths, operations=operations, seed=number,
                    )
                )  # fmt: skip
    return runs


def rows_of(runs: dict[str, list[Run]]) -> list[Row]:
    """The rows for what `measure` found. Pure."""
    ours, rows = runs["pool"], []
    for side, speed, faults, memory in (("fresh, 4 kept", 5.0, 1000.0, 30.0), ("fresh", 2.2, 300.0, 15.0)):
        theirs, title = runs[side], "the last 4 of each thread kept" if side.endswith("kept") else "none kept"
        note = f"{_middle(ours, 'seconds') * 1e6:.0f} us each beside {_middle(theirs, 'seconds') * 1e6:.0f}"
        quicker = ratios([one["seconds"] for one in theirs], [one["seconds"] for one in ours])
        rows.append(row_of(SCENARIO, f"{title}: operations / fresh", quicker, target=at_least(speed), note=note))
        # No fault at all cannot be divided by: it counts as one.
        fewer = [a["faults"] / max(b["faults"], 1) for a, b in zip(theirs, ours, strict=True)]
        note = f"{_middle(ours, 'faults'):.0f} beside {_middle(theirs, 'faults'):,.0f} in {ours[0]['operations']}"
        rows.append(row_of(SCENARIO, f"{title}: fresh page faults / ours", fewer, target=at_least(faults), note=note))
        rows.append(_memory(f"{title}: fresh peak memory / ours", theirs, ours, at_least(memory)))
    quicker = ratios([one["seconds"] for one in runs["fresh, dropped first"]], [one["seconds"] for one in ours])
    rows.append(row_of(SCENARIO, "none kept, dropped before the next is made: operations / fresh", quicker))
    kept = [one["ledger"] / MIB for one in ours]
    most = Row(
        scenario=SCENARIO, name="kept after maintain(): ledger", unit="MiB", seen=max(kept), low=min(kept),
        high=max(kept), runs=len(kept), target=at_most(0.5),
    )  # fmt: skip
    return [*rows, most, _resident("pool", ours, at_most(0.5)), _resident("fresh", runs["fresh"], None)]


def _middle(runs: list[Run], field: str) -> float:
    return float(sorted(one[field] for one in runs)[len(runs) // 2])


def _memory(name: str, theirs: list[Run], ours: list[Run], target: Target) -> Row:
    pairs = [(a["peak"], b["peak"]) for a, b in zip(theirs, ours, strict=True)]
    if any(None in pair for pair in pairs):
        return Row(scenario=SCENARIO, name=name, target=target, note=WHY)
    # A page is the least that memory can grow by.
    shares = [a / max(b, 4096) for a, b in pairs]
    note = f"{_middle(ours, 'peak') / MIB:.1f} beside {_middle(theirs, 'peak') / MIB:.0f} MiB"
    return row_of(SCENARIO, name, shares, target=target, note=note)


def _resident(side: str, runs: list[Run], target: Target | None) -> Row:
    name = f"kept afterwards, {side}: resident memory"
    figures = [one["kept"] for one in runs]
    if None in figures:
        return Row(scenario=SCENARIO, name=name, unit="MiB", target=target, note=WHY)
    return row_of(SCENARIO, name, [figure / MIB for figure in figures], unit="MiB", target=target)


class Later:
    """A clock that can be put forward: what is idle now is old then."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return self.monotonic()

    def monotonic(self) -> float:
        return monotonic() + self.ahead


def moves(side: str, paths: dict[str, str], operations: int, seed: int) -> Run:
    """`operations` objects in each of 8 threads, in this process, by one side."""
    from daramjwee.buffers import AdaptiveBufferPool

    with AdaptiveBufferPool() as first, open(next(iter(paths.values())), "rb", buffering=0) as source:
        first.copy(source, Glance(), limit=1)  # what is imported when it is first needed is no memory of the objects
    clock = Later()
    with AdaptiveBufferPool(clock=clock) as pool:
        files = [(path, int(size)) for size, path in paths.items()]
        orders = [_order(files, operations + WARM_UP, seed * THREADS + number) for number in range(THREADS)]
        found = _together([WORKS[side](pool) for _ in range(THREADS)], orders)
        if side == "pool":
            pool.maintain()
            clock.ahead = 2 * pool.config.max_idle_age
            pool.maintain()
        now = resident_bytes()
        idle = found.pop("idle")
        found["ledger"] = pool.ledger.held
        found["kept"] = None if idle is None or now is None else max(0, now - idle)
    return found


def _order(files: Files, count: int, seed: int) -> Files:
    return random.Random(seed).choices(files, k=count)


def _pooled(pool: Any) -> Work:
    sink = Glance()

    def work(files: Files) -> None:
        for path, size in files:
            with open(path, "rb", buffering=0) as source:
                done = pool.copy(source, sink, size)
            if done.bytes != size:
                raise ValueError(f"{done.bytes:,} bytes came of {size:,}")

    return work


def _fresh(_: Any) -> Work:
    """As a loop is written: its name holds each buffer until the next one is made."""
    sink = Glance()

    def work(files: Files) -> None:
        for path, size in files:
            with open(path, "rb", buffering=0) as source:
                buffer = bytearray(size)
                _whole(source.readinto(buffer), size)
            sink.write(buffer)

    return work


def _fresh_kept(_: Any) -> Work:
    sink, last = Glance(), deque[bytearray](maxlen=KEPT)

    def work(files: Files) -> None:
        for path, size in files:
            with open(path, "rb", buffering=0) as source:
                buffer = bytearray(size)
                _whole(source.readinto(buffer), size)
            sink.write(buffer)
            last.append(buffer)

    return work


def _fresh_dropped(_: Any) -> Work:
    loop = _fresh(None)

    def work(files: Files) -> None:
        for file in files:
            loop([file])

    return work


def _whole(count: int | None, size: int) -> None:
    if count != size:
        raise ValueError(f"{count} bytes came of {size:,}")


WORKS: dict[str, Callable[[Any], Work]] = dict(zip(SIDES, (_pooled, _fresh, _fresh_kept, _fresh_dropped), strict=True))


def _all_at(barrier: threading.Barrier) -> None:
    """Wait until every thread but this one stands at `barrier`, or one of them failed."""
    pause = threading.Event()
    while barrier.n_waiting < barrier.parties - 1 and not barrier.broken:
        pause.wait(0.001)


def _together(works: list[Work], orders: list[Files]) -> Run:
    import resource

    started, warm, done = (threading.Barrier(THREADS + 1) for _ in range(3))
    failures: list[BaseException] = []

    def run(work: Work, order: Files) -> None:
        try:
            with open(order[0][0], "rb", buffering=0) as file:  # what any thread needs, however it moves bytes
                file.read(1)
            started.wait()
            work(order[:WARM_UP])
            warm.wait()
            work(order[WARM_UP:])
            done.wait()
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that asked
            failures.append(error)
            for barrier in (started, warm, done):
                barrier.abort()

    threads = [threading.Thread(target=run, args=pair) for pair in zip(works, orders, strict=True)]
    for thread in threads:
        thread.start()
    try:
        # Nobody moves anything before all are here: until then, memory is that of idle threads.
        _all_at(started)
        measurable = forget_peak()
        idle = resident_bytes()
        started.wait()
        warm.wait()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        begin = perf_counter()
        done.wait()
        took = perf_counter() - begin
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    except threading.BrokenBarrierError:
        raise next(error for error in failures if not isinstance(error, threading.BrokenBarrierError)) from None
    finally:
        for thread in threads:
            thread.join()
    peak = resident_bytes("VmHWM") if measurable else None
    count = sum(len(order) - WARM_UP for order in orders)
    return {
        "operations": count,
        "seconds": took / count,
        "faults": faults,
        "peak": None if peak is None or idle is None else peak - idle,
        "idle": idle if measurable else None,
    }
