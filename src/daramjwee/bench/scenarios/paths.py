"""The ways through a cache that no other scenario has, beside rivals: a set, a look at a key that is not there, and opening a
folder of 1,000 entries again. Seconds in pairs, and counts of one operation.

Invariant: each rival is called as its users call it, with its defaults. What is written is as durable everywhere: it
survives the process, not a power cut.
Threads: one.
Design: docs/design/bench.md
"""

from __future__ import annotations

import gc
import os
import tempfile
import threading
from contextlib import ExitStack
from functools import partial
from itertools import cycle
from statistics import median
from typing import TYPE_CHECKING, Any

from daramjwee.bench.counters import counted
from daramjwee.bench.origin import slow_origin
from daramjwee.bench.rivals import Lineup
from daramjwee.bench.samples import Row, ratios, row_of
from daramjwee.bench.timing import operations
from daramjwee.units import KIB, MIB, format_size

if TYPE_CHECKING:
    from collections.abc import Callable

    Operation = Callable[[], object]
    # Makes an operation, in a folder of its own; what it opens is closed with the stack.
    Maker = Callable[[str, ExitStack], Operation]

SCENARIO = "main paths"
SIZES = (KIB, MIB)
# A set replaces one of so many keys, in turns: the folder and the memory stay as large as they are.
KEYS = 16
ENTRIES, ENTRY_BYTES = 1000, 4 * KIB
COUNTED = 20
COUNTS = {
    "faults": "minor_faults", "reads": "read_calls", "writes": "write_calls", "collections": "collections",
    "blocks": "allocated_blocks",
}  # fmt: skip
OURS = "ours"
# Rivals that have no such call, and why: they are said, not left out.
NO_SET = "keeps only what it fetched itself: it has no such call"
NO_LOOK = "asks the origin: it has no such call"


def run(*, quick: bool) -> list[Row]:
    """Rows of this scenario."""
    return measure(rounds=5, seconds=0.01) if quick else measure(rounds=21, seconds=0.03)


def measure(*, rounds: int, seconds: float, entries: int = ENTRIES) -> list[Row]:
    """The same with any number of rounds, each turn of about `seconds`."""
    rows = []
    for size in SIZES:
        body = os.urandom(size)
        rows += _path(f"set {format_size(size)} in memory", _sets_in_memory(body), rounds, seconds)
        makers = _sets_in_files(body)
        rows += _path(f"set {format_size(size)} in a folder", makers, rounds, seconds, dict.fromkeys(WITHOUT, NO_SET))
    rows += _path("get a key that is not there, memory", _looks_in_memory(), rounds, seconds)
    rows += _path(
        "get a key that is not there, folder", LOOKS_IN_FILES, rounds, seconds, dict.fromkeys(WITHOUT, NO_LOOK)
    )
    title = f"open a folder of {entries:,} entries, read one, close"
    return rows + _path(title, _restarts(entries), rounds, seconds)


def _path(
    title: str, makers: dict[str, Maker], rounds: int, seconds: float, without: dict[str, str] | None = None
) -> list[Row]:
    """Ours in microseconds, and each rival's time as a multiple of ours."""
    lineup = Lineup()
    made: dict[str, Operation] = {}
    with ExitStack() as stack:

        def timed(name: str) -> Any:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="daramjwee-bench-"))
            made[name] = makers[name](folder, stack)
            return operations(made[name])

        lineup.ours(OURS, timed(OURS))
        rivals = [name for name in makers if name != OURS]
        for name in rivals:
            lineup.rival(name, lambda name=name: timed(name))  # type: ignore[misc]  # the default binds the name of this turn
        figures = lineup.figures(rounds=rounds, seconds=seconds)
        gc.freeze()  # or each look at the counters goes through everything that was imported
        counts = {name: _counted(made[name]) for name in figures}
    mine = figures[OURS]
    unit, scale = ("ms", 1e3) if median(mine) >= 1e-3 else ("us", 1e6)
    rows = [row_of(SCENARIO, f"{title}: ours", [s * scale for s in mine], unit=unit, beside=counts[OURS])]
    for name in (name for name in rivals if name in figures):
        theirs = figures[name]
        beside = {"us": round(median(theirs) * 1e6, 3), **counts[name]}
        rows.append(row_of(SCENARIO, f"{title}: {name} / ours", ratios(theirs, mine), beside=beside))
    rows += lineup.rows(SCENARIO, rivals, lambda name: f"{title}: {name}")
    return rows + [Row(scenario=SCENARIO, name=f"{title}: {name}", note=why) for name, why in (without or {}).items()]


def _counted(operation: Operation) -> dict[str, float]:
    """Counts of one operation, by name; what this system does not tell is not there."""
    seen = counted(operation, COUNTED)
    counts = {name: getattr(seen, field) for name, field in COUNTS.items()}
    return {name: round(count / COUNTED, 3) for name, count in counts.items() if count is not None}


# -- sets -----------------------------------------------------------------------------------------------------------


def _setting(put: Callable[[str], object]) -> Operation:
    keys = cycle([f"key {number}" for number in range(KEYS)])
    return lambda: put(next(keys))


def _sets_in_memory(body: bytes) -> dict[str, Maker]:
    def ours(_: str, stack: ExitStack) -> Operation:
        cache = stack.enter_context(_memory())
        return _setting(lambda key: cache.set(key, body))

    def plain(_: str, __: ExitStack) -> Operation:
        table: dict[str, bytes] = {}
        return _setting(lambda key: table.__setitem__(key, body))

    def cachetools(_: str, __: ExitStack) -> Operation:
        import cachetools as library

        cache: Any = library.LRUCache(1024)
        lock = threading.Lock()

        def put(key: str) -> None:
            with lock:
                cache[key] = body

        return _setting(put)

    def cachebox(_: str, __: ExitStack) -> Operation:
        import cachebox as library

        cache: library.LRUCache[str, bytes] = library.LRUCache(1024)
        return _setting(lambda key: cache.insert(key, body))

    return {OURS: ours, "dict": plain, "cachetools LRU + lock": cachetools, "cachebox LRU": cachebox}


def _sets_in_files(body: bytes) -> dict[str, Maker]:
    def ours(folder: str, stack: ExitStack) -> Operation:
        cache = stack.enter_context(_folder(folder))
        return _setting(lambda key: cache.set(key, body))

    def plain(folder: str, _: ExitStack) -> Operation:
        """What is safe without a library: a file beside it, then its name."""

        def put(key: str) -> None:
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                file.write(body)
            os.replace(file.name, os.path.join(folder, key))

        return _setting(put)

    def diskcache(folder: str, stack: ExitStack) -> Operation:
        import diskcache as library

        cache = stack.enter_context(library.Cache(folder))
        return _setting(lambda key: cache.set(key, body))

    return {OURS: ours, "a file and os.replace": plain, "diskcache": diskcache}


# -- looks ----------------------------------------------------------------------------------------------------------


def _looks_in_memory() -> dict[str, Maker]:
    def ours(_: str, stack: ExitStack) -> Operation:
        cache = stack.enter_context(_memory())
        return lambda: cache.get("absent", default=None)

    def plain(_: str, __: ExitStack) -> Operation:
        table: dict[str, bytes] = {}
        return lambda: table.get("absent")

    def cachetools(_: str, __: ExitStack) -> Operation:
        import cachetools as library

        cache: Any = library.LRUCache(1024)
        lock = threading.Lock()

        def look() -> object:
            with lock:
                return cache.get("absent")

        return look

    def cachebox(_: str, __: ExitStack) -> Operation:
        import cachebox as library

        cache: library.LRUCache[str, bytes] = library.LRUCache(1024)
        return lambda: cache.get("absent")

    return {OURS: ours, "dict": plain, "cachetools LRU + lock": cachetools, "cachebox LRU": cachebox}


def _look_ours(folder: str, stack: ExitStack) -> Operation:
    cache = stack.enter_context(_folder(folder))
    return lambda: cache.get("absent", default=None)


def _look_plain(folder: str, _: ExitStack) -> Operation:
    def look() -> bytes | None:
        try:
            with open(os.path.join(folder, "absent"), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    return look


def _look_diskcache(folder: str, stack: ExitStack) -> Operation:
    import diskcache

    cache = stack.enter_context(diskcache.Cache(folder))
    return lambda: cache.get("absent")


LOOKS_IN_FILES: dict[str, Maker] = {OURS: _look_ours, "open": _look_plain, "diskcache": _look_diskcache}
WITHOUT = ("fsspec filecache", "hishel")


# -- restarts -------------------------------------------------------------------------------------------------------


def _restarts(entries: int) -> dict[str, Maker]:
    """Every one finds as many entries as there were, and reads the last of them."""
    names, body = [f"entry {number}" for number in range(entries)], os.urandom(ENTRY_BYTES)
    makers = {
        OURS: _restart_ours, "os.scandir and open": _restart_plain, "diskcache": _restart_diskcache,
        "fsspec filecache": _restart_filecache, "hishel": _restart_hishel,
    }  # fmt: skip
    return {name: partial(maker, names, body) for name, maker in makers.items()}


def _restart_ours(names: list[str], body: bytes, folder: str, _: ExitStack) -> Operation:
    with _folder(folder) as cache:
        for name in names:
            cache.set(name, body)

    def restart() -> None:
        with _folder(folder) as cache:
            _whole(cache.get(names[-1]))

    return restart


def _restart_plain(names: list[str], body: bytes, folder: str, _: ExitStack) -> Operation:
    """A folder of files, and a table of what is in it."""
    for name in names:
        _write(folder, name, body)

    def restart() -> None:
        with os.scandir(folder) as found:
            sizes = {entry.name: entry.stat().st_size for entry in found}
        with open(os.path.join(folder, names[-1]), "rb") as file:
            _whole(file.read(sizes[names[-1]]))

    return restart


def _restart_diskcache(names: list[str], body: bytes, folder: str, _: ExitStack) -> Operation:
    import diskcache

    with diskcache.Cache(folder) as cache:
        for name in names:
            cache.set(name, body)

    def restart() -> None:
        with diskcache.Cache(folder) as cache:
            _whole(cache.get(names[-1]))

    return restart


def _restart_filecache(names: list[str], body: bytes, folder: str, stack: ExitStack) -> Operation:
    import fsspec

    origin = stack.enter_context(tempfile.TemporaryDirectory(prefix="daramjwee-bench-"))
    paths = [_write(origin, name, body) for name in names]

    def files() -> Any:
        # Without the argument fsspec would give us the object that we have already.
        return fsspec.filesystem("filecache", target_protocol="file", cache_storage=folder, skip_instance_cache=True)

    files().cat(paths)

    def restart() -> None:
        with files().open(paths[-1]) as file:
            _whole(file.read())

    return restart


def _restart_hishel(names: list[str], body: bytes, folder: str, stack: ExitStack) -> Operation:
    import hishel
    from hishel.httpx import CacheClient

    origin = stack.enter_context(tempfile.TemporaryDirectory(prefix="daramjwee-bench-"))
    for name in names:
        _write(origin, name, body)
    server = stack.enter_context(slow_origin(origin))
    database = os.path.join(folder, "cache.db")

    def client() -> CacheClient:
        return CacheClient(storage=hishel.SqliteStorage(database_path=database))

    with client() as cache:
        for name in names:
            _whole(cache.get(server.object_url(name)).content)

    def restart() -> None:
        with client() as cache:
            _whole(cache.get(server.object_url(names[-1])).content)

    return restart


def _write(folder: str, name: str, body: bytes) -> str:
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(body)
    return path


def _whole(data: bytes | None) -> None:
    if data is None or len(data) != ENTRY_BYTES:
        raise ValueError(f"read {'nothing' if data is None else len(data)} of an entry of {ENTRY_BYTES} bytes")


def _memory() -> Any:
    from daramjwee import Cache, MemoryStore

    return Cache(MemoryStore("256MiB"))


def _folder(folder: str) -> Any:
    from daramjwee import Cache, FileStore

    return Cache(FileStore(os.path.join(folder, "cache"), capacity="1GiB"))
