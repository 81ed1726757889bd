"""Speed against object size, for every way to move the bytes: what pictures are drawn from and thresholds chosen by.

Invariant: all ways and all sizes of a pair of ends take turns, so any two of its figures of one round make a pair; the
copy and the flush are timed, opening, making and removing are not.
Threads: one.
Design: docs/design/bench.md
"""

from __future__ import annotations

import random
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.bench.ends import DrainedSocket, Folder, Source, copies, read_and_write, send_whole
from daramjwee.bench.samples import summarize
from daramjwee.bench.timing import in_child, in_turns
from daramjwee.units import KIB, MIB, format_size

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence
    from typing import Any

    from daramjwee.bench.ends import Copy, Opening
    from daramjwee.bench.samples import Summary
    from daramjwee.bench.timing import Timed

FILE_TO_FILE = "file to file"
PLAIN_TO_FILE = "plain to file"
FILE_TO_SOCKET = "file to socket"
PLAIN_TO_SOCKET = "plain to socket"

CHOSEN = "chosen"
POOLED = "pooled"
DIRECT = "direct"
COPYFILEOBJ = "copyfileobj"
READ_WRITE = "read + write"
CHUNKS = (64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB)


class Cell(NamedTuple):
    """One point of a curve: between which ends, by which way, an object of how many bytes."""

    pair: str
    way: str
    size: int


if TYPE_CHECKING:
    # Seconds for a copy, one figure a round; figures of one index and one pair of ends belong together.
    Measured = Mapping[Cell, Sequence[float]]


def chunked(size: int) -> str:
    """The way that moves chunks of `size` bytes."""
    return f"chunks of {format_size(size)}"


CHUNKED = tuple(chunked(size) for size in CHUNKS)


def speed(size: int, seconds: Sequence[float]) -> Summary:
    """GB/s: the median, and the middle half."""
    return summarize([size / each / 1e9 for each in seconds])


def measure(
    pairs: Sequence[str], ways: Sequence[str], sizes: Sequence[int], *, rounds: int, seconds: float
) -> dict[Cell, list[float]]:
    """Each pair of ends in a process of its own."""
    measured: dict[Cell, list[float]] = {}
    for pair in pairs:
        for way, size, figures in in_child(
            "daramjwee.bench.curve:measure_pair", pair=pair, ways=ways, sizes=sizes, rounds=rounds, seconds=seconds
        ):
            measured[Cell(pair, way, size)] = figures
    return measured


def measure_pair(
    pair: str, ways: Sequence[str], sizes: Sequence[int], rounds: int, seconds: float
) -> list[tuple[str, int, list[float]]]:
    """(way, size, seconds of each round) between one pair of ends, in this process."""
    contenders: dict[str, Timed] = {}
    cells: list[tuple[str, int]] = []
    with ExitStack() as stack:
        folder = stack.enter_context(Folder())
        sink, near = _sink_of(pair, folder, stack)
        made = {way: _copy_of(way, near, stack) for way in ways}
        for size in sizes:
            source = _source_of(pair, random.Random(size).randbytes(size), folder)
            for way, copy in made.items():
                cells.append((way, size))
                contenders[f"{way}, {size}"] = copies(_whole(copy, size, pair), source, sink)
        figures = in_turns(contenders, rounds=rounds, seconds=seconds)
    return [(way, size, figures[f"{way}, {size}"]) for way, size in cells]


def _source_of(pair: str, body: bytes, folder: Folder) -> Opening:
    if pair in {PLAIN_TO_FILE, PLAIN_TO_SOCKET}:
        return lambda: Source(body)
    path = folder.file_of(body)
    return lambda: open(path, "rb")


def _sink_of(pair: str, folder: Folder, stack: ExitStack) -> tuple[Opening, socket.socket | None]:
    if pair in {FILE_TO_FILE, PLAIN_TO_FILE}:
        return folder.new_file, None
    near = stack.enter_context(DrainedSocket())
    return (lambda: near), near


def _copy_of(way: str, near: socket.socket | None, stack: ExitStack) -> Any:
    """`copy(source, sink, size)` in that way."""
    if way == COPYFILEOBJ:
        # A socket's file only takes what fits, unless it has a buffer.
        file = None if near is None else stack.enter_context(near.makefile("wb"))
        return lambda source, sink, _: _copyfileobj(source, sink if file is None else file)
    if way == READ_WRITE:
        whole: Copy = read_and_write if near is None else send_whole
        return lambda source, sink, _: whole(source, sink)
    from daramjwee.buffers import AdaptiveBufferPool

    return stack.enter_context(AdaptiveBufferPool(config_of(way))).copy


def _copyfileobj(source: Any, sink: Any) -> None:
    shutil.copyfileobj(source, sink)
    sink.flush()


def _whole(copy: Any, size: int, pair: str) -> Copy:
    # From a file the pool knows by itself; of a plain object it is told, as of a response with a length.
    expected = size if pair in {PLAIN_TO_FILE, PLAIN_TO_SOCKET} else None
    return lambda source, sink: copy(source, sink, expected)


def config_of(way: str) -> Any:
    """The configuration of a pool that goes this way, whatever the size."""
    from daramjwee.buffers import BufferPoolConfig

    if way == CHOSEN:
        return BufferPoolConfig()
    if way in CHUNKED:
        chunk = CHUNKS[CHUNKED.index(way)]
        return BufferPoolConfig(large_object_strategy="chunked", chunk_size=chunk, large_object_threshold=1)
    if way not in {POOLED, DIRECT}:
        raise ValueError(f"{way!r} is no way to copy: choose from {', '.join((CHOSEN, POOLED, DIRECT, *CHUNKED))}")
    return BufferPoolConfig(large_object_strategy=way, large_object_threshold=1, max_pool_bytes=128 * MIB)
