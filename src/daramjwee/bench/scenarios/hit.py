"""A small hit from memory beside an inline `dict.get`, at 1 and 8 threads; opening what was set whole.

Invariant: every contender is called as its user would call it, in a loop whose own cost is left in.
Threads: one, and 8 where the row says so.
Design: docs/design/bench.md
"""

from __future__ import annotations

import tempfile
import threading
from contextlib import ExitStack
from itertools import repeat
from time import perf_counter
from typing import TYPE_CHECKING, Any

from daramjwee.bench.rivals import Lineup
from daramjwee.bench.samples import Row, at_most, ratios, row_of
from daramjwee.bench.timing import in_turns, operations, threaded
from daramjwee.units import KIB, MIB

if TYPE_CHECKING:
    from daramjwee.bench.timing import Timed

SCENARIO = "hit in memory"
THREADS = 8
RIVALS = ("cachetools LRU + lock", "cachetools TTL + lock", "cachebox LRU", "cachebox TTL", "diskcache")
# Those that are measured with many threads, too.
MANY = ("dict", "ours", "cachetools LRU + lock", "cachebox LRU")


def run(*, quick: bool) -> list[Row]:
    """Rows of this scenario."""
    return measure(rounds=9, seconds=0.02) if quick else measure(rounds=21, seconds=0.05)


def measure(*, rounds: int, seconds: float) -> list[Row]:
    """The same with any number of rounds, each turn of about `seconds`."""
    return _small(rounds, seconds) + _opening(rounds, seconds)


def _small(rounds: int, seconds: float) -> list[Row]:
    body = bytes(KIB)
    with ExitStack() as stack:
        lineup = Lineup()
        lineup.ours("dict", _dict(body))
        lineup.ours("ours", _ours(body, stack))
        for rival in RIVALS:
            lineup.rival(rival, lambda rival=rival: _rival(rival, body, stack))  # type: ignore[misc]  # the default binds the rival of this turn
        alone = dict(lineup.contenders)
        for name in MANY:
            if name in alone:
                lineup.ours(f"{name}, {THREADS}", threaded([alone[name]] * THREADS))
        figures = lineup.figures(rounds=rounds, seconds=seconds)

    base, ours = figures["dict"], figures["ours"]
    rows = [
        row_of(SCENARIO, "dict.get, inline", [s * 1e9 for s in base], unit="ns"),
        row_of(SCENARIO, "cache.get, 1 KiB", [s * 1e9 for s in ours], unit="ns"),
        row_of(SCENARIO, "cache.get / dict.get", ratios(ours, base), target=at_most(8.5)),
    ]
    for name in (name for name in MANY if name in figures and f"{name}, {THREADS}" in figures):
        title = {"dict": "dict.get", "ours": "cache.get"}.get(name, name)
        slower = ratios(figures[f"{name}, {THREADS}"], figures[name])
        target = at_most(1.3) if name == "ours" else None
        rows.append(row_of(SCENARIO, f"{title}, {THREADS} threads / 1 thread", slower, target=target))
    rows += [
        row_of(SCENARIO, f"{rival} / dict.get", ratios(figures[rival], base)) for rival in RIVALS if rival in figures
    ]
    return rows + lineup.rows(SCENARIO, RIVALS)


def _opening(rounds: int, seconds: float) -> list[Row]:
    """A 64 MiB object that was set whole opens as fast as one of 1 MiB, because nothing is copied."""
    from daramjwee import Cache, MemoryStore

    with Cache(MemoryStore("256MiB", max_object_size="128MiB"), memory_limit="512MiB") as cache:
        cache.set("1", bytes(MIB))
        cache.set("64", bytes(64 * MIB))
        contenders = {
            "1": operations(lambda: cache.open("1").close()),
            "64": operations(lambda: cache.open("64").close()),
        }
        figures = in_turns(contenders, rounds=rounds, seconds=seconds)
    return [
        row_of(SCENARIO, "open + close, 1 MiB set whole", [s * 1e6 for s in figures["1"]], unit="us"),
        row_of(SCENARIO, "open + close, 64 MiB / 1 MiB", ratios(figures["64"], figures["1"]), target=at_most(1.2)),
    ]


def _dict(body: bytes) -> Timed:
    table = {"key": body}

    def run(loops: int) -> float:
        begin = perf_counter()
        for _ in repeat(None, loops):
            table.get("key")
        return perf_counter() - begin

    return run


def _ours(body: bytes, stack: ExitStack) -> Timed:
    from daramjwee import Cache, Freshness, MemoryStore

    cache = stack.enter_context(Cache(MemoryStore("64MiB"), freshness=Freshness(fresh="1h")))
    cache.set("key", body)
    assert cache.get("key") == body

    def run(loops: int) -> float:
        begin = perf_counter()
        for _ in repeat(None, loops):
            cache.get("key")
        return perf_counter() - begin

    return run


def _rival(name: str, body: bytes, stack: ExitStack) -> Timed:
    if name == "diskcache":
        import diskcache

        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="daramjwee-bench-"))
        disk = stack.enter_context(diskcache.Cache(folder))
        disk.set("key", body)
        return operations(lambda: disk.get("key"))

    if name.startswith("cachebox"):
        import cachebox

        box: Any = cachebox.TTLCache(1024, 3600) if "TTL" in name else cachebox.LRUCache(1024)
        box.insert("key", body)

        def look(loops: int) -> float:
            begin = perf_counter()
            for _ in repeat(None, loops):
                box.get("key")
            return perf_counter() - begin

        return look

    import cachetools

    cache: Any = cachetools.TTLCache(1024, ttl=3600) if "TTL" in name else cachetools.LRUCache(1024)
    cache["key"] = body
    lock = threading.Lock()

    def run(loops: int) -> float:
        begin = perf_counter()
        for _ in repeat(None, loops):
            with lock:
                cache["key"]
        return perf_counter() - begin

    return run
