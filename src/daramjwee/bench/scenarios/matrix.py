"""Every size class by every strategy between every pair of ends, beside what a user would write: speed in pairs, and exact
counts of one copy: page faults, calls that read and write, collector runs, blocks kept.

Invariant: all ways and all sizes of a pair of ends take turns, in a process of their own. A way that cannot serve a pair
has a row that says so, and no figure. A file that is written is there already, one for each size: making and freeing
blocks of the file system costs more than a copy and is the same for everyone. (To new files: the scenario "copies".)
Threads: one.
Design: docs/design/bench.md
"""

from __future__ import annotations

import gc
import io
import random
import shutil
from contextlib import ExitStack
from statistics import geometric_mean, median
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from daramjwee.bench.counters import counted
from daramjwee.bench.ends import (
    DrainedSocket,
    Folder,
    Reads,
    Source,
    Summed,
    copies,
    opener,
    read_and_write,
    send_through_fresh,
    send_whole,
    through_fresh,
)
from daramjwee.bench.samples import Row, against_best, at_least, at_most, exactly, ratios, row_of
from daramjwee.bench.timing import in_child, in_turns
from daramjwee.units import KIB, MIB, format_size

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from daramjwee.bench.ends import Copy, Opening
    from daramjwee.bench.samples import Target
    from daramjwee.bench.timing import Timed
    from daramjwee.buffers import AdaptiveBufferPool

SCENARIO = "strategies"
# A small, a medium and two large objects, where very large begins, and one that fits into no cache of a processor.
SIZES = (8 * KIB, 64 * KIB, 256 * KIB, 512 * KIB, MIB, 16 * MIB)
# From here on a copy is never to be slower than a user's, and from there on it is to be faster than those two ways.
LEVEL_FROM, FASTER_FROM = 256 * KIB, 512 * KIB

ADAPTIVE = "adaptive"
STRATEGIES = (ADAPTIVE, "pooled", "chunked", "direct")
COPYFILEOBJ, READ_WRITE, BYTEARRAY = "copyfileobj", "write(read())", "fresh bytearray"
USERS = (COPYFILEOBJ, READ_WRITE, BYTEARRAY)

FILE_TO_FILE = "file to file"
PLAIN_TO_FILE = "plain to file"
FILE_TO_SOCKET = "file to socket"
PLAIN_TO_SOCKET = "plain to socket"
BYTES_TO_FILE = "BytesIO to file"
READS_TO_FILE = "read() only to file"
FILE_TO_SINK = "file to sink that sums"
PAIRS = (FILE_TO_FILE, PLAIN_TO_FILE, FILE_TO_SOCKET, PLAIN_TO_SOCKET, BYTES_TO_FILE, READS_TO_FILE, FILE_TO_SINK)
TO_SOCKET = (FILE_TO_SOCKET, PLAIN_TO_SOCKET)
# Of these the pool is told the size, as of a response with a length; elsewhere it sees for itself.
TOLD = (PLAIN_TO_FILE, PLAIN_TO_SOCKET, READS_TO_FILE)

# Counted for each way: as many copies as move this much, and within these bounds.
# The system moves a page of its own accord now and then: of so many copies one fault is no fault of theirs.
COUNTED_BYTES, COUNTED_LEAST, COUNTED_MOST = 32 * MIB, 20, 50
# Counts of one copy, by the name they have in a row.
COUNTS = {
    "faults": "minor_faults", "reads": "read_calls", "writes": "write_calls", "collections": "collections",
    "blocks": "allocated_blocks",
}  # fmt: skip


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One way with one size: seconds of each round and counts of one copy, or why there are none. `chosen`: the strategy
    that the pool took."""

    way: str
    size: int
    seconds: list[float] = []
    counts: dict[str, float] = {}
    chosen: str = ""
    why_not: str = ""


class Place(NamedTuple):
    """The ends of the copies of one size."""

    size: int
    source: Opening
    sink: Opening
    check: Callable[[], None]


def run(*, quick: bool) -> list[Row]:
    """Rows of this scenario."""
    return measure(rounds=5, seconds=0.004) if quick else measure(rounds=15, seconds=0.012)


def measure(
    *, rounds: int, seconds: float, pairs: tuple[str, ...] = PAIRS, sizes: tuple[int, ...] = SIZES
) -> list[Row]:
    """The same with any number of rounds, each turn of about `seconds`."""
    found = {}
    for pair in pairs:
        plain = in_child(
            "daramjwee.bench.scenarios.matrix:measure_pair", pair=pair, sizes=sizes, rounds=rounds, seconds=seconds
        )
        found[pair] = msgspec.convert(plain, list[Found])
    return rows_of(found)


# -- rows -----------------------------------------------------------------------------------------------------------


def rows_of(found: dict[str, list[Found]]) -> list[Row]:
    """The rows for what `measure_pair` found between each pair of ends. Pure."""
    rows = []
    for pair, all_sizes in found.items():
        for size in dict.fromkeys(one.size for one in all_sizes):
            cell = {one.way: one for one in all_sizes if one.size == size}
            rows += [_strategy_row(pair, size, way, cell) for way in STRATEGIES]
            rows += [_user_row(pair, size, way, cell) for way in USERS]
    return [*_whole(found), *rows]


def _strategy_row(pair: str, size: int, way: str, cell: dict[str, Found]) -> Row:
    one = cell[way]
    name = f"{pair}, {format_size(size)}: {way} / best user's"
    if one.why_not:
        return _without(one, pair, size, name)
    figures = {name: other.seconds for name, other in cell.items() if other.seconds}
    best = against_best(figures, way, [user for user in USERS if user in figures])
    theirs = next(user for user in USERS if user in figures and ratios(figures[user], figures[way]) == best)
    target: Target | None = at_least(0.97) if way == ADAPTIVE and size >= LEVEL_FROM else None
    note = f"{one.chosen}; best: {theirs}" if way == ADAPTIVE else f"best: {theirs}"
    return row_of(
        SCENARIO, name, best, target=target, note=note, beside=_beside(one), labels=_labels(pair, size, way),
        detail=way != ADAPTIVE,
    )  # fmt: skip


def _user_row(pair: str, size: int, way: str, cell: dict[str, Found]) -> Row:
    """What a user's way takes stands beside: the figure is how many times as quick as it the pool's choice is."""
    one = cell[way]
    name = f"{pair}, {format_size(size)}: {ADAPTIVE} / {way}"
    if one.why_not:
        return _without(one, pair, size, name)
    return row_of(
        SCENARIO, name, ratios(one.seconds, cell[ADAPTIVE].seconds), beside=_beside(one),
        labels=_labels(pair, size, way), detail=True,
    )  # fmt: skip


def _without(one: Found, pair: str, size: int, name: str) -> Row:
    return Row(scenario=SCENARIO, name=name, note=one.why_not, labels=_labels(pair, size, one.way), detail=True)


def _beside(one: Found) -> dict[str, float]:
    return {"us": round(median(one.seconds) * 1e6, 3), **one.counts}


def _labels(pair: str, size: int, way: str) -> dict[str, str]:
    from daramjwee.buffers import BufferPoolConfig
    from daramjwee.buffers.strategy import size_class

    return {"pair": pair, "size": format_size(size), "class": size_class(size, BufferPoolConfig()).value, "way": way}


def _whole(found: dict[str, list[Found]]) -> list[Row]:
    """What holds over all cells: faster than two of the user's ways, no more faults than the best of them, and nothing
    for the collector."""
    rows = []
    for user in (COPYFILEOBJ, BYTEARRAY):
        gains = [
            median(ratios(cell[user].seconds, cell[ADAPTIVE].seconds))
            for cell in _cells(found, FASTER_FROM)
            if cell[user].seconds
        ]
        name = f"from {format_size(FASTER_FROM)}, all ends: adaptive / {user}, geometric mean"
        rows.append(_spanned(name, "x", gains, at_least(1), mean=True))
    more = [cell[ADAPTIVE].counts["faults"] - _fewest(cell) for cell in _cells(found, LEVEL_FROM) if _counts(cell)]
    name = f"from {format_size(LEVEL_FROM)}, all ends: page faults of a copy beyond the best user's"
    rows.append(_spanned(name, "", more, at_most(0.1)))
    runs = [cell[ADAPTIVE].counts["collections"] for cell in _cells(found, 0) if _counts(cell)]
    rows.append(_spanned("all sizes, all ends: collector runs of a copy, adaptive", "", runs, exactly(0)))
    return rows


def _cells(found: dict[str, list[Found]], least: int) -> list[dict[str, Found]]:
    """Way to figures, for each pair of ends and each size from `least` on."""
    cells: dict[tuple[str, int], dict[str, Found]] = {}
    for pair, all_sizes in found.items():
        for one in all_sizes:
            if one.size >= least:
                cells.setdefault((pair, one.size), {})[one.way] = one
    return list(cells.values())


def _counts(cell: dict[str, Found]) -> bool:
    return "faults" in cell[ADAPTIVE].counts


def _fewest(cell: dict[str, Found]) -> float:
    return min(cell[user].counts["faults"] for user in USERS if cell[user].counts)


def _spanned(name: str, unit: str, figures: list[float], target: Target, *, mean: bool = False) -> Row:
    """One figure for many cells, its spread from the least to the most of them: their mean, or the largest."""
    if not figures:
        return Row(scenario=SCENARIO, name=name, unit=unit, target=target, note="nothing to compare was measured")
    return Row(
        scenario=SCENARIO, name=name, unit=unit, seen=geometric_mean(figures) if mean else max(figures),
        low=min(figures), high=max(figures), runs=len(figures), target=target,
        note=f"{len(figures)} pairs of ends and sizes",
    )  # fmt: skip


# -- measuring ------------------------------------------------------------------------------------------------------


def measure_pair(pair: str, sizes: tuple[int, ...], rounds: int, seconds: float) -> list[Found]:
    """Each way with each size between one pair of ends, in this process."""
    with ExitStack() as stack:
        folder = stack.enter_context(Folder())
        near = stack.enter_context(DrainedSocket()) if pair in TO_SOCKET else None
        pools = {way: stack.enter_context(_pool(way)) for way in STRATEGIES}
        contenders: dict[str, Timed] = {}
        cells: list[tuple[str, Place, Copy]] = []
        found: list[Found] = []
        chosen: dict[str, str] = {}
        for size in sizes:
            place = _place(pair, size, folder, near)
            told = size if pair in TOLD else None
            ways: dict[str, Copy] = {way: _as_user(pool, told) for way, pool in pools.items()}
            for way, copy in {**ways, **_users(size, near, stack)}.items():
                name = f"{way}, {size}"
                why_not = _why_not(place, way, pools.get(way), told, pair, chosen, name)
                if why_not:
                    found.append(Found(way=way, size=size, why_not=why_not))
                    continue
                _once(place, copy)
                place.check()
                contenders[name] = copies(copy, place.source, place.sink)
                cells.append((way, place, copy))
        figures = in_turns(contenders, rounds=rounds, seconds=seconds)
        gc.freeze()  # or each look at the counters goes through everything that was imported
        for way, place, copy in cells:
            name = f"{way}, {place.size}"
            found.append(
                Found(
                    way=way, size=place.size, seconds=figures[name], counts=_counted(place, copy),
                    chosen=chosen.get(name, ""),
                )
            )  # fmt: skip
    return found


def _pool(way: str) -> AdaptiveBufferPool:
    """A pool that goes this way with every size. (Every copy then passes the gate, small ones too.)"""
    from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig

    if way == ADAPTIVE:
        return AdaptiveBufferPool()
    return AdaptiveBufferPool(
        BufferPoolConfig(large_object_strategy=way, large_object_threshold=1, max_pool_bytes=128 * MIB)
    )


def _as_user(pool: AdaptiveBufferPool, told: int | None) -> Copy:
    return lambda source, sink: pool.copy(source, sink, told)


def _users(size: int, near: socket.socket | None, stack: ExitStack) -> dict[str, Copy]:
    if near is None:
        return {COPYFILEOBJ: shutil.copyfileobj, READ_WRITE: read_and_write, BYTEARRAY: through_fresh(size)}
    # A socket's file only takes what fits, unless it has a buffer.
    file = stack.enter_context(near.makefile("wb"))

    def through_file(source: Any, _: Any) -> None:
        shutil.copyfileobj(source, file)
        file.flush()

    return {COPYFILEOBJ: through_file, READ_WRITE: send_whole, BYTEARRAY: send_through_fresh(size)}


def _place(pair: str, size: int, folder: Folder, near: socket.socket | None) -> Place:
    body = random.Random(size).randbytes(size)
    source = _source_of(pair, body, folder)
    if near is not None:
        socket_ = near  # what is sent is gone; the tests of copies hold it to every byte
        return Place(size, source, lambda: socket_, lambda: None)
    if pair != FILE_TO_SINK:
        return Place(size, source, lambda: folder.over(size), lambda: _check(folder.read_over(size), body))
    sums: list[Summed] = []

    def sink() -> Summed:
        sums[:] = [Summed()]
        return sums[0]

    whole = Summed()
    whole.write(body)
    return Place(size, source, sink, lambda: _check(sums[0].sum, whole.sum))


def _source_of(pair: str, body: bytes, folder: Folder) -> Opening:
    if pair in {PLAIN_TO_FILE, PLAIN_TO_SOCKET}:
        return lambda: Source(body)
    if pair == BYTES_TO_FILE:
        return lambda: io.BytesIO(body)
    if pair == READS_TO_FILE:
        return lambda: Reads(body)
    return opener(folder.file_of(body))


def _check(seen: object, wanted: object) -> None:
    """A quick copy that is wrong would be no copy."""
    if seen != wanted:
        raise ValueError("a copy is not what was copied")


def _once(place: Place, copy: Copy) -> Any:
    with place.source() as source:
        sink = place.sink()
        result = copy(source, sink)
        if hasattr(sink, "flush"):  # a socket is used again
            sink.flush()
            sink.close()
    return result


def _why_not(
    place: Place, way: str, pool: AdaptiveBufferPool | None, told: int | None, pair: str, chosen: dict[str, str],
    name: str,
) -> str:  # fmt: skip
    """Why this way cannot serve here, "" when it can; what the pool took is noted in `chosen`."""
    if pool is None:
        return "it has no readinto" if way == BYTEARRAY and pair == READS_TO_FILE else ""
    before = pool.stats()
    result = _once(place, _as_user(pool, told))
    after = pool.stats()
    chosen[name] = result.strategy.value
    if way == ADAPTIVE:
        return ""
    if result.strategy.value != way or after.fallbacks != before.fallbacks:
        return f"cannot serve here: falls back to {result.strategy.value}"
    if way != "direct" and after.total_gets == before.total_gets:
        return "cannot serve here: falls back to the bytes that the source returns, and uses no pooled memory"
    return ""


def _counted(place: Place, copy: Copy) -> dict[str, float]:
    """Counts of one copy, by name; what this system does not tell is not there."""
    times = max(COUNTED_LEAST, min(COUNTED_MOST, COUNTED_BYTES // place.size))
    seen = counted(lambda: _once(place, copy), times)
    counts = {name: getattr(seen, field) for name, field in COUNTS.items()}
    return {name: round(count / times, 4) for name, count in counts.items() if count is not None}
