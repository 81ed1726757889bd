"""Old against new through the whole cache: no pool (`buffers=None`) and the plain `BufferPool` beside the adaptive pool that a
`Cache` has by default. Every path on which bytes move, 1 KiB to 64 MiB, 1 and 8 threads: seconds in pairs; then page faults,
collector runs and the peak of memory.

Invariant: all sides read the same objects by the same calls, in turns in one process. Counts and peaks are taken in a process
of its own for each side, that has read nothing before.
Threads: 1 and 8, the same ones in all turns.
Design: docs/design/bench.md
"""

from __future__ import annotations

import gc
import mmap
import os
import random
import tempfile
import traceback
from contextlib import ExitStack
from functools import partial
from itertools import count
from statistics import geometric_mean, median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from daramjwee.bench.counters import counted
from daramjwee.bench.readings import (
    AGAIN,
    NEW,
    NONE,
    OLD,
    SIDES,
    Crew,
    Path,
    bodies_of,
    fetcher,
    make_ends,
    open_cache,
    read_all,
    reader,
    tier_of,
    write_bodies,
)
from daramjwee.bench.report import figure
from daramjwee.bench.samples import Row, against_better, at_least, ratios, row_of, summarize
from daramjwee.bench.timing import forget_peak, in_child, loops_for, resident_bytes
from daramjwee.units import KIB, MIB, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from daramjwee.bench.readings import Job, Read
    from daramjwee.bench.samples import Target

    Found: TypeAlias = dict[str, Any]
    # A path, a side, and the sizes of what is read.
    Case: TypeAlias = tuple[Path, str, tuple[int, ...]]

SCENARIO = "end to end"
SIZES = (KIB, 32 * KIB, 256 * KIB, 512 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB)
QUICK_SIZES = (KIB, 256 * KIB, MIB, 16 * MIB)
# Objects of all these sizes, as chance has it.
MIXED = tuple(KIB << shift for shift in range(8, 14))
THREADS = (1, 8)
# A program that has no pool to copy through: it reads everything at once, into memory of its own.
WHOLE = "no pool, read whole"
# From here on less memory and fewer page faults are promised, with 8 threads.
LARGE = 256 * KIB
FEWER_FAULTS, LESS_MEMORY = 20, 5
# The largest object that is counted where a fill leaves it in memory.
MOST_KEPT = 4 * MIB
# Where all threads together read more at once, one read is a turn, and three rounds are enough.
HEAVY = 64 * MIB
# The clock tells if the middle half of its ratios spans no more than this share of their median.
SURE = 0.1
# So often a cell that is below its target is measured again.
LOOKS_AGAIN = 2
WARM_UP = 2
# Of each thread is counted no more than this, but one object at least.
COUNTED_BYTES = 32 * MIB
WHY = "this system does not tell"


# Two ways at each place, one through the pool and one past it, where there are both.
# - A cold fill goes through it always. What is small is fetched to be used at once (`get`), often from a response; what is
#   large, to be a file here (`copy_to`), often from a file elsewhere.
# - From memory, `get` gives the stored bytes. `copy_to` writes them to what has no descriptor: a response, a hash.
# - From a file, `readinto` fills the caller's buffer, over and over. `copy_to` as above; to a file or a socket the kernel
#   copies, which the scenario "file" measures.
PATHS = (
    Path("cold, memory tier: get", "memory", "bytes", "get", "the fill"),
    Path("cold, file tier: copy_to a file", "file", "file", "file", "the fill and the copy"),
    Path("hit in memory: get", "memory", "", "get", ""),
    Path("hit in memory: copy_to a sink", "memory", "", "sink", "the copy"),
    Path("hit in a file: readinto", "file", "", "readinto", ""),
    Path("hit in a file: copy_to a sink", "file", "", "sink", "the copy"),
)


def run(*, quick: bool) -> list[Row]:
    """Rows of this scenario."""
    if quick:
        return measure(rounds=5, seconds=0.004, sizes=QUICK_SIZES, operations=6, patience=25)
    return measure(rounds=12, seconds=0.008, sizes=SIZES, operations=16, patience=110)


def measure(
    *, rounds: int, seconds: float, sizes: Sequence[int], operations: int, patience: float = 0,
    paths: Sequence[Path] = PATHS,
) -> list[Row]:  # fmt: skip
    """The same with any number of rounds, each turn of about `seconds`. `operations`: so many of each thread are counted.
    `patience`: seconds after which no cell is looked at again."""
    rows = []
    until = perf_counter() + patience
    with tempfile.TemporaryDirectory(prefix="daramjwee-bench-") as folder:
        write_bodies(folder, {*sizes, *MIXED})

        def look_at(path: Path, size: int, readers: int, look: int = 0) -> Turns:
            return take_turns(folder, path, size, readers, rounds=rounds, seconds=seconds, look=look)

        timed = {
            path: {(size, readers): look_at(path, size, readers) for size in sizes for readers in THREADS}
            for path in paths
        }
        cases: list[Case] = [
            (path, side, of) for path in paths for of in _counted_sizes(path, sizes) for side in _sides(path)
        ]
        found = in_child("daramjwee.bench.scenarios.endtoend:exact", folder=folder, cases=cases, operations=operations)
        for look in range(1, LOOKS_AGAIN + 1):
            for path, cells in timed.items():
                for (size, readers), turns in cells.items():
                    # Where things happen to lie in memory makes some per cent for as long as they lie there. So not more
                    # rounds, but everything anew; and all figures count.
                    if perf_counter() < until and not _cell("", turns, {}).met:
                        cells[size, readers] = turns.and_then(look_at(path, size, readers, look))
    for path, cells in timed.items():
        rows += time_rows(path, cells)
    for (path, of), seen in _by_side(cases, found).items():
        rows += exact_rows(path, of, seen)
    return rows


def _by_side(cases: list[Case], found: list[Found]) -> dict[tuple[Path, tuple[int, ...]], dict[str, Found]]:
    sorted_out: dict[tuple[Path, tuple[int, ...]], dict[str, Found]] = {}
    for (path, side, of), seen in zip(cases, found, strict=True):
        sorted_out.setdefault((path, of), {})[side] = seen
    return sorted_out


# -- rows -----------------------------------------------------------------------------------------------------------


class Turns(NamedTuple):
    """Seconds of one read by side, a figure for each round: on the clock, and of the processor."""

    wall: dict[str, list[float]]
    processor: dict[str, list[float]]

    def and_then(self, more: Turns) -> Turns:
        """Those of two looks together."""
        return Turns(
            {side: [*figures, *more.wall[side]] for side, figures in self.wall.items()},
            {side: [*figures, *more.processor[side]] for side, figures in self.processor.items()},
        )


def time_rows(path: Path, timed: dict[tuple[int, int], Turns]) -> list[Row]:
    """For each number of threads how the sizes fared together, then each of them. Pure."""
    rows = []
    for readers in dict.fromkeys(readers for _, readers in timed):
        name = f"{path.name}, {_threads(readers)}"
        cells = [
            _cell(f"{name}, {format_size(size)}: speed / the better old one", turns, _labels(path, size, readers))
            for (size, of), turns in timed.items()
            if of == readers
        ]
        seen = [row.seen for row in cells if row.seen is not None]
        rows.append(
            Row(
                scenario=SCENARIO, name=f"{name}: speed / the better old one, all sizes", seen=geometric_mean(seen),
                low=min(seen), high=max(seen), runs=len(seen), note=f"geometric mean; through the pool: {path.leases or 'nothing'}",
            )
        )  # fmt: skip
        same = [row.beside[f"/ {AGAIN}"] for row in cells]
        rows.append(
            Row(
                scenario=SCENARIO, name=f"{name}: speed / the same cache again, all sizes", seen=geometric_mean(same),
                low=min(same), high=max(same), runs=len(same), note="geometric mean; a cell within this spread says nothing",
            )
        )  # fmt: skip
        rows += cells
    return rows


def _cell(name: str, turns: Turns, labels: dict[str, str]) -> Row:
    """By the clock. Where that cannot tell, because other programs wanted the processor, too, by the processor's own time."""
    clock = against_better(turns.wall, NEW, OLD)
    processor = against_better(turns.processor, NEW, OLD)
    on_clock, on_processor = summarize(clock), summarize(processor)
    sure = on_clock.high - on_clock.low <= SURE * on_clock.median
    judged = turns.wall if sure else turns.processor
    note = "" if sure else f"processor time: by the clock {figure(on_clock.low)}..{figure(on_clock.high)}"
    beside = {
        "us": median(turns.wall[NEW]) * 1e6,
        **{f"/ {side}": median(ratios(turns.wall[side], turns.wall[NEW])) for side in OLD},
        f"/ {AGAIN}": median(ratios(judged[AGAIN], judged[NEW])),
        "clock": on_clock.median,
        "processor": on_processor.median,
    }
    return row_of(
        SCENARIO, name, clock if sure else processor, target=at_least(0.97), note=note,
        beside={what: round(value, 3) for what, value in beside.items()}, labels=labels, detail=True,
    )  # fmt: skip


def _labels(path: Path, size: int, readers: int) -> dict[str, str]:
    return {"path": path.name, "size": format_size(size), "threads": str(readers)}


def exact_rows(path: Path, sizes: tuple[int, ...], found: dict[str, Found]) -> list[Row]:
    """How many times the page faults and the memory of new the old ones have. Pure."""
    what = format_size(sizes[0]) if len(sizes) == 1 else f"{format_size(min(sizes))} to {format_size(max(sizes))} mixed"
    name = f"{path.name}, {_threads(THREADS[-1])}, {what}"
    target: Target | None = at_least(FEWER_FAULTS)
    note = ""
    if path.tier == "memory" and path.origin:
        target, note = None, "what is kept, and what is handed out, is fresh memory on both sides"
    rows = [_times(f"{name}: page faults, no pool / new", "faults", found[NONE], found[NEW], target, note)]
    if WHOLE in found:
        of_whole = f"{name}: peak of memory, no pool and read whole / new"
        rows.append(_times(of_whole, "peak", found[WHOLE], found[NEW], at_least(LESS_MEMORY), ""))
    note = note or "without a pool, too, it goes through chunks"
    rows.append(_times(f"{name}: peak of memory, no pool / new", "peak", found[NONE], found[NEW], None, note))
    return [msgspec.structs.replace(row, detail=len(sizes) == 1) for row in rows]


def _times(name: str, field: str, theirs: Found, ours: Found, target: Target | None, note: str) -> Row:
    """Theirs as a multiple of ours. What is not there at all cannot be divided by: it counts as one fault, or one page."""
    a, b = theirs[field], ours[field]
    if a is None or b is None:
        return Row(scenario=SCENARIO, name=name, target=target, note=WHY)
    shown, least = f"{b:,} beside {a:,}", 1
    beside = {"collector runs": ours["collections"], "theirs": theirs["collections"], "blocks kept": ours["blocks"]}
    if field == "peak":
        shown, least, beside = f"{b / MIB:.1f} beside {a / MIB:.1f} MiB", mmap.PAGESIZE, {}
    return Row(
        scenario=SCENARIO, name=name, seen=max(a, least) / max(b, least), runs=1, target=target,
        note=f"{shown} in {ours['operations']} reads{note and f'; {note}'}",
        beside={what: value for what, value in beside.items() if value is not None},
    )  # fmt: skip


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


# -- in turns -------------------------------------------------------------------------------------------------------


def take_turns(
    folder: str, path: Path, size: int, readers: int, *, rounds: int, seconds: float, look: int = 0
) -> Turns:
    """All sides in this process, made in another order for each fourth of the rounds: what is made last has its memory at
    the end of the heap, which malloc gives back and has to fault in again, and that costs up to a tenth. (Where a read is
    heavy, in another order for each `look`.)"""
    moves = path.origin != "" or path.way != "get"  # a hit is handed out as it is
    heavy = moves and size * readers > HEAVY
    firsts: Sequence[int]
    firsts, each = ([look % len(SIDES)], 3) if heavy else (range(len(SIDES)), max(1, round(rounds / len(SIDES))))
    loops = dict.fromkeys(SIDES, 1) if heavy else {}
    turns = Turns({side: [] for side in SIDES}, {side: [] for side in SIDES})
    bodies, ends, numbers = bodies_of(folder, [size]), make_ends(folder, readers), count()
    fetch, order = fetcher(folder, path, bodies), random.Random(size + readers + look)
    with Crew(readers) as crew:
        for first in firsts:
            sides = [*SIDES[first:], *SIDES[:first]]
            with ExitStack() as stack:
                made = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
                like = ""
                jobs: dict[str, Callable[[int], list[Job]]] = {}
                for side in sides:
                    cache = open_cache(stack, made, path, side, bodies, readers, like=like)
                    like = tier_of(made, side) if path.tier == "file" else ""
                    jobs[side] = partial(
                        _jobs, path, [reader(cache, fetch, path.way, to) for to in ends], size, numbers
                    )
                    if side not in loops:
                        loops[side] = _loops(crew, jobs[side], seconds)
                _run(crew, jobs, loops, order, each, turns)
    return turns


def _run(
    crew: Crew, jobs: Mapping[str, Callable[[int], list[Job]]], loops: Mapping[str, int], order: random.Random,
    rounds: int, turns: Turns,
) -> None:  # fmt: skip
    """So many rounds after one to warm up, noted in `turns`."""
    for number in range(rounds + 1):
        for side in order.sample(list(jobs), len(jobs)):
            begin = process_time()
            wall = crew.run(jobs[side](loops[side]))
            processor = process_time() - begin
            if number:
                reads = loops[side] * crew.count
                turns.wall[side].append(wall / reads)
                turns.processor[side].append(processor / reads)


def _jobs(path: Path, reads: list[Read], size: int, numbers: count[int], loops: int) -> list[Job]:
    return [partial(read_all, read, path, numbers, (size,) * loops) for read in reads]


def _loops(crew: Crew, jobs: Callable[[int], list[Job]], seconds: float) -> int:
    """How many reads of each thread take about `seconds` of the processor, whatever else keeps it busy. Asked twice: one
    interruption makes a read look so long that a turn would be all start and end."""

    def run(loops: int) -> float:
        begin = process_time()
        crew.run(jobs(loops))
        return process_time() - begin

    return max(loops_for(run, seconds), loops_for(run, seconds))


# -- counts and peaks -----------------------------------------------------------------------------------------------


def _sides(path: Path) -> tuple[str, ...]:
    return (NONE, NEW) if path.tier == "memory" else (NONE, WHOLE, NEW)


def _counted_sizes(path: Path, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """The sizes of the objects that are read while it is counted: one, or many in a mix."""
    if not path.leases:
        return []
    # What a cold fill leaves in memory costs the same on all sides; larger objects only cost more of it.
    most = MOST_KEPT if path.tier == "memory" and path.origin else max(SIZES)
    return [*[(size,) for size in sizes if LARGE <= size <= most], MIXED]


def exact(folder: str, cases: Sequence[tuple[Sequence[str], str, Sequence[int]]], operations: int) -> list[Found]:
    """What `look` finds for each case (a path, a side, sizes), each in a fork of this process, which reads nothing itself."""
    # Names are imported when they are first asked for: once here, not in each fork.
    from daramjwee import Cache, FileStore, MemoryStore  # noqa: F401 - loaded before the forks that are measured
    from daramjwee.buffers import BufferPool  # noqa: F401 - as above

    gc.collect()
    gc.freeze()  # or the first collection in each fork touches everything that was imported
    return [_in_fork(partial(look, folder, Path(*path), side, sizes, operations)) for path, side, sizes in cases]


def _in_fork(work: Callable[[], Found]) -> Found:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            with open(write, "wb") as file:
                file.write(msgspec.json.encode(work()))
            status = 0
        except BaseException:  # noqa: BLE001 - this process is not to go on with what its parent was about to do
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    with open(read, "rb") as file:
        text = file.read()
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("counting failed in a fork; its last words stand above")
    found: Found = msgspec.json.decode(text)
    return found


def look(folder: str, path: Path, side: str, sizes: Sequence[int], operations: int) -> Found:
    """Counts of `operations` reads of each of 8 threads, of objects of `sizes`, and the peak of memory above that of the
    process with its tiers and its idle threads."""
    readers, numbers = THREADS[-1], count()
    way = f"{path.way}, whole" if side == WHOLE else path.way
    operations = max(1, min(operations, COUNTED_BYTES // max(sizes)))
    warm_up = min(WARM_UP, operations)
    with ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
        bodies, ends = bodies_of(folder, sizes), make_ends(folder, readers)
        # What is imported when it is first needed is no memory of the objects.
        first = bodies_of(folder, [min(sizes)])
        with open_cache(stack, os.path.join(made, "first"), path, side, first, 1) as cache:
            read_all(reader(cache, fetcher(folder, path, first), way, ends[0]), path, numbers, [min(sizes)])
        cache = open_cache(stack, made, path, side, bodies, readers)
        reads = [reader(cache, fetcher(folder, path, bodies), way, to) for to in ends]
        orders = [random.Random(number).choices(sizes, k=warm_up + operations) for number in range(readers)]
        warm, jobs = (
            [partial(read_all, read, path, numbers, order[part]) for read, order in zip(reads, orders, strict=True)]
            for part in (slice(warm_up), slice(warm_up, None))
        )
        crew = stack.enter_context(Crew(readers))
        crew.run([_nothing] * readers)
        measurable = forget_peak()
        idle = resident_bytes()
        crew.run(warm)
        before = resident_bytes("VmHWM")
        seen = counted(lambda: crew.run(jobs), 1)
        after = resident_bytes("VmHWM")
    known = measurable and None not in {idle, before, after}
    return {
        "operations": operations * readers,
        "faults": seen.minor_faults,
        "collections": seen.collections,
        "blocks": seen.allocated_blocks,
        "peak": max(before or 0, after or 0) - (idle or 0) if known else None,
    }


def _nothing() -> None:
    """A job that only shows that its thread is there."""
