"""`pool.copy` from a file: to a new file, over a file, to a sink that reads, to a socket; beside what a user would write
and beside the kernel's bare copy, from 256 KiB to 64 MiB.

Invariant: all contenders of one size read the same source file (where its pages happen to lie makes a third of its
speed) and write to the same kind of target. The copy and the flush are timed; opening, making and removing are not.
Threads: one.
Design: docs/design/bench.md
"""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

from daramjwee.bench.ends import (
    DrainedSocket,
    Folder,
    Summed,
    copies,
    copy_file_range,
    opener,
    read_and_write,
    send_whole,
    sendfile,
)
from daramjwee.bench.samples import Row, against_best, at_least, ratios, row_of
from daramjwee.bench.timing import in_turns
from daramjwee.units import KIB, MIB, format_size

if TYPE_CHECKING:
    import socket
    from typing import Any

    from daramjwee.bench.ends import Copy, Opening
    from daramjwee.bench.samples import Target
    from daramjwee.bench.timing import Timed
    from daramjwee.buffers import BufferPool

    Figures = dict[str, list[float]]

SCENARIO = "copies of a file"
SIZES = (256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB)
# From here on a new file is held to more, and speed per byte is to be level.
LARGE_FROM = 4 * MIB
USERS = ("copyfileobj", "read + write")


def run(*, quick: bool) -> list[Row]:
    """Rows of this scenario."""
    return measure(rounds=7, seconds=0.015) if quick else measure(rounds=21, seconds=0.04)


def measure(*, rounds: int, seconds: float, sizes: tuple[int, ...] = SIZES) -> list[Row]:
    """The same with any number of rounds, each turn of about `seconds`."""
    from daramjwee.buffers import AdaptiveBufferPool

    with Folder() as folder, AdaptiveBufferPool() as pool:
        paths = {size: folder.file_of(random.Random(size).randbytes(size)) for size in sizes}
        # The sockets first: what a written file leaves to the system to do later would fall on them.
        rows = _to_socket(pool, paths, rounds, seconds)
        rows += _to_sink(pool, paths, rounds, seconds)
        rows += _over_file(pool, folder, paths, max(3, rounds // 3), seconds)
        return _to_new_file(pool, folder, paths, rounds, seconds) + rows


def _timed(paths: dict[int, str], ways: dict[str, Copy], sink: Opening, rounds: int, seconds: float) -> Figures:
    """Seconds of each "way, size". All sizes take turns, so that figures of two sizes make pairs, too."""
    contenders: dict[str, Timed] = {}
    for size, path in paths.items():
        for name, copy in ways.items():
            contenders[f"{name}, {size}"] = copies(copy, opener(path), sink)
    return in_turns(contenders, rounds=rounds, seconds=seconds)


def _of(figures: Figures, size: int) -> Figures:
    """The figures of one size, by way."""
    end = f", {size}"
    return {name.removesuffix(end): values for name, values in figures.items() if name.endswith(end)}


def _speed(size: int, seconds: list[float]) -> str:
    return f"{size / sorted(seconds)[len(seconds) // 2] / 1e9:.2f} GB/s"


def _to_new_file(pool: BufferPool, folder: Folder, paths: dict[int, str], rounds: int, seconds: float) -> list[Row]:
    ways: dict[str, Copy] = {
        "ours": pool.copy,
        "copyfileobj": shutil.copyfileobj,
        "read + write": read_and_write,
        "copy_file_range": copy_file_range,
    }
    figures = _timed(paths, ways, folder.new_file, rounds, seconds)
    _check(pool, folder, paths)
    rows = []
    for size in paths:
        found, title = _of(figures, size), f"new file, {format_size(size)}: speed /"
        best = against_best(found, "ours", USERS)
        rows.append(
            row_of(SCENARIO, f"{title} best user's", best, target=at_least(0.97), note=_speed(size, found["ours"]))
        )
        if size >= LARGE_FROM:
            for name, wanted in (("copyfileobj", 1.1), ("copy_file_range", 0.95)):
                share = ratios(found[name], found["ours"])
                rows.append(row_of(SCENARIO, f"{title} {name}", share, target=at_least(wanted)))
    return rows + _level(figures, [size for size in paths if size >= LARGE_FROM])


def _level(figures: Figures, sizes: list[int]) -> list[Row]:
    """Whether our speed per byte stays what it is at the first of `sizes`, beside the kernel's copy of each."""
    shares = {}
    for size in sizes:
        found = _of(figures, size)
        shares[size] = ratios(found["copy_file_range"], found["ours"])
    first, *others = sizes or [0]
    return [
        row_of(
            SCENARIO, f"new file, (ours / kernel) at {format_size(size)} / the same at {format_size(first)}",
            ratios(shares[size], shares[first]), target=at_least(0.8),
        )
        for size in others
    ]  # fmt: skip


def _over_file(pool: BufferPool, folder: Folder, paths: dict[int, str], rounds: int, seconds: float) -> list[Row]:
    ways: dict[str, Copy] = {"ours": pool.copy, "copyfileobj": shutil.copyfileobj, "read + write": read_and_write}
    rows = []
    for size, path in paths.items():  # each over a file of its own size
        figures = _timed({size: path}, ways, folder.same_file, rounds, seconds)
        best = against_best(_of(figures, size), "ours", USERS)
        rows.append(row_of(SCENARIO, f"over a file, {format_size(size)}: speed / best user's", best))
    return rows


def _to_sink(pool: BufferPool, paths: dict[int, str], rounds: int, seconds: float) -> list[Row]:
    ways: dict[str, Copy] = {"ours": pool.copy, "copyfileobj": shutil.copyfileobj, "read + write": read_and_write}
    figures = _timed(paths, ways, Summed, rounds, seconds)
    rows = []
    for size in paths:
        found = _of(figures, size)
        wanted = 1.0 if size >= LARGE_FROM else 0.94
        rows.append(
            row_of(
                SCENARIO, f"sink that sums, {format_size(size)}: speed / best user's",
                against_best(found, "ours", USERS), target=at_least(wanted), note=_speed(size, found["ours"]),
            )
        )  # fmt: skip
    return rows


# What is wanted of a copy to a socket, as a share of the kernel's speed.
SOCKET_TARGETS: dict[int, Target] = {MIB: at_least(0.88), 16 * MIB: at_least(0.97), 64 * MIB: at_least(0.97)}


def _to_socket(pool: BufferPool, paths: dict[int, str], rounds: int, seconds: float) -> list[Row]:
    ways: dict[str, Copy] = {"ours": pool.copy, "sendfile": sendfile, "sendall(read())": send_whole}
    with DrainedSocket() as near:
        figures = _timed(paths, ways, _always(near), rounds, seconds)
    rows = []
    for size in paths:
        found, title = _of(figures, size), f"unix socket, {format_size(size)}: speed /"
        share = ratios(found["sendfile"], found["ours"])
        note = _speed(size, found["ours"])
        rows.append(row_of(SCENARIO, f"{title} sendfile", share, target=SOCKET_TARGETS.get(size), note=note))
        rows.append(row_of(SCENARIO, f"{title} sendall(read())", ratios(found["sendall(read())"], found["ours"])))
    return rows


def _always(near: socket.socket) -> Opening:
    return lambda: near


def _check(pool: BufferPool, folder: Folder, paths: dict[int, str]) -> None:
    """A quick copy that is wrong would be no copy."""
    for path in paths.values():
        with open(path, "rb") as source, folder.new_file() as target:
            pool.copy(source, target)
        if _bytes_of(path) != _bytes_of(folder.target):
            raise ValueError("a copy is not what was copied")


def _bytes_of(path: str) -> Any:
    with open(path, "rb") as file:
        return file.read()
