"""A hit from the file tier beside the bare file read with the same buffer, and `copy_to` beside the kernel's own copy.

Invariant: both sides read the same file, from the page cache, into the same page-aligned buffer: the pages on which a
file happens to lie make one copy of it up to a third faster than another. Opening and closing are part of every
operation.
Threads: one, and 8 where the row says so.
Design: docs/design/bench.md
"""

from __future__ import annotations

import mmap
import os
import random
import tempfile
from contextlib import ExitStack
from time import perf_counter
from typing import TYPE_CHECKING, Any

from daramjwee.bench.ends import DrainedSocket
from daramjwee.bench.rivals import Lineup
from daramjwee.bench.samples import Row, at_least, ratios, row_of
from daramjwee.bench.timing import in_turns, operations, threaded
from daramjwee.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from daramjwee import Cache
    from daramjwee.bench.timing import Timed

    Operation = Callable[[], object]

SCENARIO = "hit in a file"
THREADS = 8
SIZES = {"1 MiB": MIB, "16 MiB": 16 * MIB}
# As many objects as make 32 MiB, so that a first read of each is long enough to time.
FIRST_READS = {"1 MiB": 32, "16 MiB": 2}
RIVALS = ("diskcache", "fsspec filecache")


def run(*, quick: bool) -> list[Row]:
    """Rows of this scenario."""
    return measure(rounds=9, seconds=0.03) if quick else measure(rounds=21, seconds=0.1)


def measure(*, rounds: int, seconds: float) -> list[Row]:
    """The same with any number of rounds, each turn of about `seconds`."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="daramjwee-bench-"))
        files = _plain_files(folder)
        rows = _first(folder, files, rounds)
        with _opened(folder) as cache:
            bodies = {name: [_body_of(cache, f"{name} 0")] for name in SIZES}
            rows = _verified(cache, folder, bodies, rounds, seconds, stack) + rows
            rows += _copies(cache, folder, bodies["16 MiB"][0], rounds, seconds)
    return rows


def _body_of(cache: Cache, key: str) -> str:
    """The file in which the cache keeps an object; it stays as long as the entry does."""
    with cache.open(key) as stream:
        return stream.path()


def _plain_files(folder: str) -> dict[str, list[str]]:
    """The same bytes twice: as plain files, and set in a cache. Several of each size, all alike."""
    content = random.Random(0)
    paths: dict[str, list[str]] = {name: [] for name in SIZES}
    with _opened(folder) as cache:
        for name, size in SIZES.items():
            body = content.randbytes(size)
            for number in range(FIRST_READS[name]):
                paths[name].append(os.path.join(folder, f"plain {name} {number}"))
                with open(paths[name][-1], "wb") as file:
                    file.write(body)
                cache.set(f"{name} {number}", body)
    return paths


def _opened(folder: str) -> Cache:
    from daramjwee import Cache, FileStore

    return Cache(FileStore(os.path.join(folder, "cache"), capacity="1GiB"))


def _buffer(size: int) -> memoryview:
    """Page-aligned memory, every page of it touched."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(bytes(size))
    return memoryview(memory)


# -- operations -----------------------------------------------------------------------------------------------------


def _bare(path: str, view: memoryview) -> Operation:
    size = len(view)

    def operation() -> None:
        with open(path, "rb", buffering=0) as file:
            _whole(file.readinto(view), size)

    return operation


def _ours(cache: Cache, key: str, view: memoryview) -> Operation:
    size = len(view)

    def operation() -> None:
        with cache.open(key) as stream:
            _whole(stream.readinto(view), size)

    return operation


def _rival(name: str, folder: str, path: str, view: memoryview, stack: ExitStack) -> Operation:
    size = len(view)
    if name == "diskcache":
        import diskcache

        cache = stack.enter_context(diskcache.Cache(os.path.join(folder, f"diskcache {size}")))
        with open(path, "rb") as file:
            cache.set("key", file, read=True)

        def operation() -> None:
            with cache.get("key", read=True) as file:
                _whole(file.readinto(view), size)

        return operation

    import fsspec

    storage = os.path.join(folder, f"filecache {size}")
    files: Any = fsspec.filesystem("filecache", target_protocol="file", cache_storage=storage)

    def read() -> None:
        with files.open(path) as file:
            _whole(file.readinto(view), size)

    read()
    return read


def _maker(name: str, folder: str, path: str, view: memoryview, stack: ExitStack) -> Callable[[], Timed]:
    return lambda: operations(_rival(name, folder, path, view, stack))


def _whole(count: int | None, size: int) -> None:
    if count != size:
        raise ValueError(f"read {count} bytes of {size:,}")


# -- rows -----------------------------------------------------------------------------------------------------------


def _verified(
    cache: Cache, folder: str, files: dict[str, list[str]], rounds: int, seconds: float, stack: ExitStack
) -> list[Row]:
    rows = []
    for (name, size), wanted in zip(SIZES.items(), (0.90, 0.97), strict=True):
        view = _buffer(size)
        lineup = Lineup()
        lineup.ours("bare", operations(_bare(files[name][0], view)))
        lineup.ours("ours", operations(_ours(cache, f"{name} 0", view)))
        for rival in RIVALS:
            lineup.rival(rival, _maker(rival, folder, files[name][0], view, stack))
        if size == MIB:
            views = [_buffer(size) for _ in range(THREADS)]
            many = {"bare": [_bare(files[name][0], each) for each in views]}
            many["ours"] = [_ours(cache, f"{name} 0", each) for each in views]
            for side, ops in many.items():
                lineup.ours(f"{side}, {THREADS}", threaded([operations(op) for op in ops]))
        lineup.contenders["ours"](1)  # the first read verifies; from here on the entry is known to be right
        figures = lineup.figures(rounds=rounds, seconds=seconds)

        title = f"{name}, of the bare read's speed"
        share = ratios(figures["bare"], figures["ours"])
        rows.append(row_of(SCENARIO, f"{title}", share, target=at_least(wanted), note=_bare_note(figures["bare"])))
        if size == MIB:
            share = ratios(figures[f"bare, {THREADS}"], figures[f"ours, {THREADS}"])
            rows.append(row_of(SCENARIO, f"{title}, {THREADS} threads", share, target=at_least(0.9)))
        rows += [
            row_of(SCENARIO, f"{title}: {rival}", ratios(figures["bare"], figures[rival]))
            for rival in RIVALS
            if rival in figures
        ]
        rows += lineup.rows(SCENARIO, RIVALS, f"{title}: {{}}".format)
    return rows


def _bare_note(seconds: list[float]) -> str:
    return f"bare: {sorted(seconds)[len(seconds) // 2] * 1e6:.0f} us"


def _first(folder: str, files: dict[str, list[str]], rounds: int) -> list[Row]:
    """The first read of each object in a cache that was just opened: checked block by block.

    The bare side reads as many plain files, one after the other, so that neither side finds its source in the
    processor's caches.
    """
    rows = []
    for name, size in SIZES.items():
        view = _buffer(size)
        bare = [_bare(path, view) for path in files[name]]
        theirs: list[float] = []
        ours: list[float] = []
        for number in range(rounds):
            with _opened(folder) as cache:
                reads = [_ours(cache, f"{name} {each}", view) for each in range(FIRST_READS[name])]
                sides = [(theirs, bare), (ours, reads)]
                for figures, turn in sides if number % 2 else reversed(sides):
                    begin = perf_counter()
                    for operation in turn:
                        operation()
                    figures.append((perf_counter() - begin) / len(turn))
        title = f"{name}, of the bare read's speed, first (verifying) read"
        rows.append(row_of(SCENARIO, title, ratios(theirs, ours), target=at_least(0.5)))
    return rows


def _copies(cache: Cache, folder: str, path: str, rounds: int, seconds: float) -> list[Row]:
    """16 MiB to a new file and to a socket, beside what the kernel does when it is asked directly."""
    size = os.path.getsize(path)
    target = os.path.join(folder, "copy")
    key = "16 MiB 0"

    def kernel_to_file() -> None:
        with open(path, "rb", buffering=0) as source, open(target, "wb", buffering=0) as sink:
            left = size
            while left:
                left -= os.copy_file_range(source.fileno(), sink.fileno(), left)

    def ours_to_file() -> None:
        with cache.open(key) as stream, open(target, "wb", buffering=0) as sink:
            _whole(stream.copy_to(sink), size)

    with DrainedSocket() as sink:

        def kernel_to_socket() -> None:
            with open(path, "rb", buffering=0) as source:
                offset = 0
                while offset < size:
                    offset += os.sendfile(sink.fileno(), source.fileno(), offset, size - offset)

        def ours_to_socket() -> None:
            with cache.open(key) as stream:
                _whole(stream.copy_to(sink), size)

        # The socket first and by itself: what a written file leaves to the system to do later would fall on it.
        pair = {"socket": operations(ours_to_socket), "socket, kernel": operations(kernel_to_socket)}
        figures = in_turns(pair, rounds=rounds, seconds=seconds)
    pair = {"file": operations(ours_to_file), "file, kernel": operations(kernel_to_file)}
    figures |= in_turns(pair, rounds=rounds, seconds=seconds)
    return [
        row_of(SCENARIO, f"copy_to a {end}, 16 MiB, of the kernel's speed", share, target=at_least(0.95))
        for end in ("file", "socket")
        for share in [ratios(figures[f"{end}, kernel"], figures[end])]
    ]
