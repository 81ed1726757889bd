"""Many readers open one cold object together: origin fetches, wall time, first byte, extra memory; rivals beside us.

Invariant: every run starts cold in a fresh process and a fresh folder, against one origin of stated pace; every
reader's length and last block are checked, and those that got something else are counted, ours and the rivals'.
Threads: one for each reader. A reader's own buffer exists before memory is measured: it is the caller's.
Design: docs/design/bench.md
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import threading
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.bench.origin import slow_origin, synthetic_bytes
from daramjwee.bench.rivals import NOT_INSTALLED, failure
from daramjwee.bench.samples import Row, Target, at_most, exactly, ratios, row_of
from daramjwee.bench.timing import ChildFailed, forget_peak, in_child, resident_bytes
from daramjwee.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack

    # Opens the object of that name; the answer has `readinto` and `close`.
    Opener = Callable[[str], Any]

SCENARIO = "cold fill"
SIZE = 64 * MIB
BANDWIDTH = 64_000_000
LATENCY = "10ms"
BUFFER = 64 * KIB


class Variant(NamedTuple):
    """One way to read the object, and with how many readers."""

    way: str
    readers: int


BARE = Variant("bare", 1)
ONE, SIXTEEN, MANY = Variant("ours", 1), Variant("ours", 16), Variant("ours", 64)
TWO_TIERS = Variant("ours, memory + file", 16)
RIVALS = (
    Variant("diskcache, set", 16),
    Variant("diskcache, Lock", 16),
    Variant("fsspec filecache", 16),
    Variant("hishel", 16),
)


def run(*, quick: bool) -> list[Row]:
    """Rows of this scenario."""
    rounds = 2 if quick else 5
    return rows_of(measure(rounds, rivals_rounds=1 if quick else 3, size=SIZE, bandwidth=BANDWIDTH))


def rows_of(runs: dict[Variant, list[dict[str, Any]]]) -> list[Row]:
    """The rows for what `measure` found. Pure."""
    note = f"{SIZE // MIB} MiB at {BANDWIDTH // 10**6} MB/s, latency {LATENCY}"
    rows = [
        row_of(SCENARIO, "1 reader, wall", _each(runs[ONE], "wall"), unit="s", note=note),
        row_of(SCENARIO, "bare HTTP read, wall", _each(runs[BARE], "wall"), unit="s"),
        row_of(SCENARIO, "bare HTTP read, first byte", _firsts(runs[BARE]), unit="ms"),
    ]
    rows += _ours(SIXTEEN, runs, wall=at_most(1.03), first=at_most(2), memory=at_most(8))
    rows += _ours(MANY, runs, memory=at_most(16))
    rows += _ours(TWO_TIERS, runs)
    for rival in RIVALS:
        rows += _rival(rival, runs[rival])
    return rows


def measure(
    rounds: int, *, rivals_rounds: int, size: int, bandwidth: int, variants: tuple[Variant, ...] = ()
) -> dict[Variant, list[dict[str, Any]]]:
    """What `fill` returned for each variant, a list in the order of rounds, with the origin's count of GETs added."""
    chosen = variants or (BARE, ONE, SIXTEEN, MANY, TWO_TIERS, *RIVALS)
    runs: dict[Variant, list[dict[str, Any]]] = {variant: [] for variant in chosen}
    order = random.Random(0)
    with slow_origin(synthetic={"big": size, "warm": KIB}, latency=LATENCY, bandwidth=bandwidth) as origin:
        for number in range(rounds):
            turn = [variant for variant in chosen if variant not in RIVALS or number < rivals_rounds]
            order.shuffle(turn)
            for variant in turn:
                origin.reset()
                try:
                    found = in_child(
                        "daramjwee.bench.scenarios.fill:fill",
                        way=variant.way, readers=variant.readers, url=origin.url, size=size,
                    )  # fmt: skip
                except ChildFailed as error:
                    if variant not in RIVALS:
                        raise
                    runs[variant].append({"failed": failure(str(error))})
                    continue
                if found is not None:
                    found["fetches"] = sum(count for path, count in origin.counts().items() if path.endswith("/big"))
                    runs[variant].append(found)
    return runs


def fill(way: str, readers: int, url: str, size: int) -> dict[str, Any] | None:
    """Read the object once by each of `readers` threads, all starting together; None when the rival is not there."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="daramjwee-bench-"))
        try:
            opener = WAYS[way](url, folder, stack)
        except ImportError:
            if way not in {rival.way for rival in RIVALS}:
                raise
            return None
        _read(opener, "warm", memoryview(bytearray(BUFFER)))  # imports and the connection, on every way alike
        return _together(opener, readers, size)


def _together(opener: Opener, readers: int, size: int) -> dict[str, Any]:
    views = [memoryview(bytearray(b"x" * BUFFER)) for _ in range(readers)]
    gate = threading.Barrier(readers + 1)
    took: list[tuple[float, float, float]] = []
    failures: list[str] = []

    def work(view: memoryview) -> None:
        gate.wait()
        begin = perf_counter()
        try:
            first, total, last = _read(opener, "big", view)
            end = perf_counter()
            if total != size or view[:last] != synthetic_bytes("big", total - last, total):
                raise ValueError(f"a reader got {total:,} bytes of {size:,}, or a wrong end")
        except Exception as error:  # noqa: BLE001 - whatever a rival raises: that reader got no object
            failures.append(f"{type(error).__name__}: {error}")
        else:
            took.append((begin, first, end))

    threads = [threading.Thread(target=work, args=(view,)) for view in views]
    for thread in threads:
        thread.start()
    measurable = forget_peak()
    before = resident_bytes()
    gate.wait()
    for thread in threads:
        thread.join()
    peak = resident_bytes("VmHWM")
    if not took:
        raise ValueError(f"no reader got the object: {failures[0]}")
    return {
        "wrong": len(failures),
        "why": failures[0] if failures else "",
        "wall": max(end for _, _, end in took) - min(begin for begin, _, _ in took),
        "first": statistics.median(first - begin for begin, first, _ in took),
        "extra": None if not measurable or before is None or peak is None else peak - before,
    }


def _read(opener: Opener, name: str, view: memoryview) -> tuple[float, int, int]:
    """(when the first byte came, bytes in all, bytes of the last read)."""
    stream = opener(name)
    try:
        last = count = stream.readinto(view)
        first = perf_counter()
        total = count
        while count := stream.readinto(view):
            last = count
            total += count
    finally:
        stream.close()
    return first, total, last


# -- rows -----------------------------------------------------------------------------------------------------------


def _ours(variant: Variant, runs: dict[Variant, list[dict[str, Any]]], **targets: Target) -> list[Row]:
    name = f"{variant.readers} readers" + (variant.way.removeprefix("ours"))
    found = runs[variant]
    wall = ratios(_each(found, "wall"), _each(runs[ONE], "wall"))
    first = ratios(_firsts(found), _firsts(runs[BARE]))
    return [
        _worst(f"{name}: origin fetches", "", _each(found, "fetches"), exactly(1)),
        _wrong(name, found, exactly(0)),
        row_of(SCENARIO, f"{name}: wall / 1 reader", wall, target=targets.get("wall")),
        row_of(SCENARIO, f"{name}: first byte / bare HTTP read", first, target=targets.get("first")),
        _worst(f"{name}: extra memory", "MiB", _memory(found), targets.get("memory")),
    ]


def _rival(variant: Variant, found: list[dict[str, Any]]) -> list[Row]:
    name = f"{variant.way}, {variant.readers} readers"
    if not found:
        return [Row(scenario=SCENARIO, name=name, note=NOT_INSTALLED)]
    failures = [one["failed"] for one in found if "failed" in one]
    if failures:
        return [Row(scenario=SCENARIO, name=name, note=f"{failures[0]} ({len(failures)} of {len(found)} runs)")]
    return [
        # GET requests; fsspec sends some that only look whether the object is there.
        _worst(f"{name}: origin fetches", "", _each(found, "fetches"), None),
        _wrong(name, found, None),
        row_of(SCENARIO, f"{name}: wall", _each(found, "wall"), unit="s"),
        row_of(SCENARIO, f"{name}: first byte", _firsts(found), unit="ms"),
        _worst(f"{name}: extra memory", "MiB", _memory(found), None),
    ]


def _each(found: list[dict[str, Any]], field: str) -> list[float]:
    return [one[field] for one in found]


def _firsts(found: list[dict[str, Any]]) -> list[float]:
    return [one["first"] * 1000 for one in found]


def _memory(found: list[dict[str, Any]]) -> list[float]:
    return [one["extra"] / MIB for one in found if one["extra"] is not None]


def _wrong(name: str, found: list[dict[str, Any]], target: Target | None) -> Row:
    """How many readers, over all runs, did not get the whole object."""
    reasons = [one["why"] for one in found if one["why"]]
    return Row(
        scenario=SCENARIO, name=f"{name}: readers given wrong bytes", unit="", seen=sum(_each(found, "wrong")),
        runs=len(found), target=target, note=reasons[0] if reasons else "",
    )  # fmt: skip


def _worst(name: str, unit: str, figures: list[float], target: Target | None) -> Row:
    """A limit has to hold in every run, so the largest figure counts."""
    if not figures:
        return Row(scenario=SCENARIO, name=name, unit=unit, target=target, note="this system does not tell")
    return Row(
        scenario=SCENARIO, name=name, unit=unit, seen=max(figures), low=min(figures), high=max(figures),
        runs=len(figures), target=target, note="worst run" if len(set(figures)) > 1 else "",
    )  # fmt: skip


# -- the ways -------------------------------------------------------------------------------------------------------


def _file_only(url: str, folder: str, stack: ExitStack) -> Opener:
    from daramjwee import Cache, FileStore, HttpOrigin

    return stack.enter_context(Cache(FileStore(folder, capacity="1GiB"), origin=HttpOrigin(url))).open


def _memory_and_file(url: str, folder: str, stack: ExitStack) -> Opener:
    from daramjwee import Cache, FileStore, HttpOrigin, MemoryStore

    tiers = (MemoryStore("128MiB"), FileStore(folder, capacity="1GiB"))
    return stack.enter_context(Cache(*tiers, origin=HttpOrigin(url))).open


def _bare(url: str, _: str, stack: ExitStack) -> Opener:
    import urllib3

    manager = stack.enter_context(urllib3.PoolManager(maxsize=64))
    return lambda name: manager.request("GET", f"{url}/{name}", preload_content=False)


def _diskcache_set(url: str, folder: str, stack: ExitStack) -> Opener:
    import diskcache

    fetch = _bare(url, folder, stack)
    cache = stack.enter_context(diskcache.Cache(folder))

    def opener(name: str) -> Any:
        # Again and again: a `get` comes back empty when another thread's `set` replaces the file meanwhile.
        while (found := cache.get(name, read=True)) is None:
            response = fetch(name)
            cache.set(name, response, read=True)
            response.release_conn()
        return found

    return opener


def _diskcache_lock(url: str, folder: str, stack: ExitStack) -> Opener:
    import diskcache

    inner = _diskcache_set(url, folder, stack)
    cache = stack.enter_context(diskcache.Cache(folder))

    def opener(name: str) -> Any:
        with diskcache.Lock(cache, f"lock of {name}"):
            return inner(name)

    return opener


def _filecache(url: str, folder: str, _: ExitStack) -> Opener:
    import aiohttp  # noqa: F401 - what fsspec needs for http; it would complain later, less clearly
    import fsspec

    files = fsspec.filesystem("filecache", target_protocol="http", cache_storage=folder)
    return lambda name: files.open(f"{url}/{name}")


class _Chunks:
    """The chunks of a response, read as all others are."""

    def __init__(self, chunks: Iterator[bytes], close: Callable[[], object]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")
        self.close = close

    def readinto(self, view: memoryview) -> int:
        if not self._left:
            self._left = memoryview(next(self._chunks, b""))
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _hishel(url: str, folder: str, stack: ExitStack) -> Opener:
    from contextlib import ExitStack as Closing

    import hishel
    from hishel.httpx import CacheClient

    storage = hishel.SqliteStorage(database_path=os.path.join(folder, "cache.db"))
    client = stack.enter_context(CacheClient(storage=storage))

    def opener(name: str) -> Any:
        closing = Closing()
        response = closing.enter_context(client.stream("GET", f"{url}/{name}"))
        return _Chunks(response.iter_bytes(), closing.close)

    return opener


WAYS: dict[str, Callable[[str, str, ExitStack], Opener]] = {
    "bare": _bare,
    "ours": _file_only,
    "ours, memory + file": _memory_and_file,
    "diskcache, set": _diskcache_set,
    "diskcache, Lock": _diskcache_lock,
    "fsspec filecache": _filecache,
    "hishel": _hishel,
}
