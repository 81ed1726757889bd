"""With whatever buffers a cache is made, its readers and writers see the same: every path that moves bytes, each a function.

A path is played over one mix of tiers, once with no pool (`buffers=None`) and once with each other choice. It notes what a
program can see (bytes, statuses, metadata, errors, counts of hits, misses and fetches), and the notes must be equal. A new
path is one more function under `@path`. (They are many and short, and all need the `World` above them: hence one file.)
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest
from hypothesis import strategies as st

from daramjwee import Cache, CacheStream, FetchResult, FileStore, Freshness, MemoryStore, NotFound, Status
from daramjwee.buffers import AdaptiveBufferPool, BufferPool, BufferPoolConfig, MemoryLedger, PressureLevel
from daramjwee.engine.lifecycle import Drain
from daramjwee.testing.clock import ManualClock
from daramjwee.testing.origin import Gate, ScriptedOrigin

KIB = 1024
MEMORY_TIER, FILE_TIER = 2048 * KIB, 6144 * KIB
EIGHTH = MEMORY_TIER // 8  # the largest object that is streamed into a memory tier above another
SOON = 30

# Small buffers, one operation at a time, every lease recorded and overwritten when it comes back.
NARROW = BufferPoolConfig(
    default_buffer_size="16KiB", max_buffer_size="64KiB", chunk_size="8KiB", large_object_threshold="64KiB",
    very_large_object_threshold="128KiB", large_object_strategy="chunked", max_concurrent_large_ops=1,
    max_queued_large_ops=1, max_pool_bytes="64KiB", leak_detection="full", enable_detailed_metrics=True,
)  # fmt: skip


def changing() -> Iterator[BufferPoolConfig]:
    """Configurations to change to, one after the other, while the cache is used."""
    while True:
        yield NARROW
        yield BufferPoolConfig(enabled=False)
        yield BufferPoolConfig(large_object_strategy="direct")
        yield BufferPoolConfig()


# What may be given as `buffers`; a function makes a pool, which the cache does not own.
CHOICES: dict[str, Any] = {
    "none": None,
    "disabled": BufferPoolConfig(enabled=False),
    "default": BufferPoolConfig(),
    "narrow": NARROW,
    "direct": BufferPoolConfig(large_object_strategy="direct"),
    "pooled": BufferPoolConfig(large_object_strategy="pooled", default_buffer_size="64KiB"),
    "changing": BufferPoolConfig(),
    "plain pool": BufferPool,
    "adaptive pool": AdaptiveBufferPool,
    "narrow pool": lambda: AdaptiveBufferPool(NARROW, ledger=MemoryLedger("2MiB")),
}
OTHERS = [name for name in CHOICES if name != "none"]
# These over every mix of tiers, the others over memory above file.
EVERYWHERE = {"disabled", "default", "narrow", "changing", "narrow pool"}


def content(name: object, size: int) -> bytes:
    """Bytes that depend on the name; a beginning of them is that of a smaller size."""
    return random.Random(f"content {name}").randbytes(size)


def steps(data: bytes, size: int = 100_000) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


class Plain:
    """Only `write`, which takes a part of what it is given."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, piece: memoryview) -> int:
        self.data += piece[: max(1, len(piece) * 2 // 3)]
        return max(1, len(piece) * 2 // 3)


class World:
    """A cache made with one choice of buffers, and what was seen of it."""

    def __init__(self, choice: str, kind: str, folder: Path, **settings: Any) -> None:
        given = CHOICES[choice]
        self.pool: BufferPool | None = given() if callable(given) else None
        self.given = given if self.pool is None else self.pool
        self.changes = changing() if choice == "changing" else None
        self.kind, self.folder = kind, folder
        self.settings = {"memory_limit": "32MiB"} | settings
        self.origin, self.clock = ScriptedOrigin(), ManualClock()
        self.notes: list[object] = []
        self.cache: Cache
        self.make()

    def make(self, **settings: Any) -> None:
        """A new cache in the place of the one that was closed, over the same folder."""
        self.settings |= settings
        capacity = self.settings.pop("memory_tier", MEMORY_TIER)
        tiers = [
            MemoryStore(capacity) if letter == "M" else FileStore(self.folder / f"tier{place}", capacity=FILE_TIER)
            for place, letter in enumerate(self.kind)
        ]
        self.cache = Cache(*tiers, origin=self.origin, clock=self.clock, buffers=self.given, **self.settings)

    def note(self, *seen: object) -> None:
        self.notes.append(seen)
        if self.changes is not None and not self.cache.buffers.closed:
            self.cache.buffers.reconfigure(next(self.changes))

    def fails(self, call: Callable[[], object]) -> None:
        """Note the error of a call that must have one."""
        try:
            got = call()
        except Exception as error:
            self.note("error", type(error), str(error).replace(str(self.folder), ""))
        else:
            raise AssertionError(f"it gave {got!r:.80}")

    def read(self, key: str, wanted: bytes, **how: Any) -> None:
        """Open, read to the end, note all there is to be seen, and wait until nothing runs in the background."""
        with self.cache.open(key, **how) as stream:
            status = stream.status
            got = stream.read()
            self.note(key, sorted(how), status, stream.size, stream.metadata, digest(got))
        assert got == wanted, f"{len(got)} bytes of {key}, {status}"
        self.settle()

    def settle(self) -> None:
        """Wait until nothing runs in the background: workers begin fills, and fills give copies to workers."""
        flights = self.cache._engine.flights
        for _ in range(100):
            assert flights.workers.wait_idle(SOON) and flights.fillers.wait_idle(SOON)
            if not len(flights):
                break
        assert flights.workers.wait_idle(SOON) and not len(flights)

    def settle_fillers(self) -> None:
        assert self.cache._engine.flights.fillers.wait_idle(SOON)

    def count(self) -> None:
        """Note what the cache has counted, at rest."""
        self.settle()
        stats = self.cache.stats()
        self.note(
            "stats", stats.hits, stats.stale, stats.joined, stats.revalidated, stats.bypassed, stats.negative,
            stats.misses, stats.origin_fetches, stats.fetch_errors, stats.evictions, stats.events, stats.tiers,
            stats.flights, self.origin.fetches(), self.origin.open_bodies, sorted(self.cache.keys()),
        )  # fmt: skip

    def reopen(self, **settings: Any) -> None:
        self.cache.close()
        self.make(**settings)

    def end(self) -> None:
        """Close the cache: nothing is leased or charged any more, and a pool that was given is open."""
        self.cache.close()
        pool, ledger = self.cache.buffers, self.cache._engine.ledger
        stats = pool.stats()
        assert stats.active_buffers == stats.quarantined == stats.lost_leases == 0, stats
        assert stats.total_gets == stats.total_puts and stats.gate.active == stats.gate.waiting == 0
        assert pool.closed is (self.pool is None)
        if self.pool is not None:
            self.pool.close()
        assert ledger.held == pool.ledger.held == 0
        assert self.origin.open_bodies == 0
        assert not list(self.folder.rglob("*.part"))


class Play(NamedTuple):
    """A path, the mixes of tiers it goes over, and the settings of the cache."""

    play: Callable[[World], None]
    kinds: tuple[str, ...]
    settings: dict[str, Any]


PATHS: dict[str, Play] = {}


def path(*kinds: str, **settings: Any) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """A path over mixes of tiers ("MF" is memory above file), of a cache with these settings."""

    def keep(play: Callable[[World], None]) -> Callable[[World], None]:
        PATHS[play.__name__] = Play(play, kinds or ("M", "F", "MF"), settings)
        return play

    return keep


# -- reading -------------------------------------------------------------------------------------------------

BIG = content("big", 1500 * KIB + 17)
SIZES = (0, 1, 4095, 32 * KIB, 100_000, EIGHTH - 1, EIGHTH, EIGHTH + 1, 1024 * KIB, len(BIG))


@path()
def cold_fills_of_known_and_unknown_size(world: World) -> None:
    for announced in ("right", None):
        for size in SIZES:
            key = f"{size} {announced}"
            world.origin.script(key, *steps(BIG[:size]), size=announced, etag='"1"', tags=("t",), attributes={"a": "b"})
            world.read(key, BIG[:size])
            world.read(key, BIG[:size])
            world.count()


@path("M", "MF")
def objects_larger_than_every_tier(world: World) -> None:
    data = content("huge", FILE_TIER + 300_001)
    for announced in ("right", None):
        world.origin.script("huge", *steps(data), size=announced)
        world.read("huge", data)
        world.read("huge", data[100:-5], start=100, stop=len(data) - 5)
        with world.cache.open("huge") as stream:
            world.note(stream.seekable() and announced is None, stream.read(10))
            world.fails(stream.path)
        world.note(world.cache.refresh("huge"))
        world.count()


@path("M")
def objects_that_pass_whole_through_the_window(world: World) -> None:
    # Too large for the tier, and over before anybody has read it: the end of what was staged waits in the window.
    data = content("more", MEMORY_TIER + 300_001)
    world.origin.script("more", *steps(data), size=None)
    assert world.cache.refresh("more") is Status.BYPASS
    world.settle_fillers()  # or the next one may still read along
    with world.cache.open("more") as stream:
        world.note(stream.status, digest(stream.read(10)))
        world.settle_fillers()
        world.fails(stream.path)
        assert stream.read() == data[10:]
    world.count()


@path()
def every_way_to_read(world: World) -> None:
    world.origin.script("k", *steps(BIG, 77_777))
    for _ in range(2):
        with world.cache.open("k") as stream:
            into = bytearray(100_001)
            world.note(stream.readinto(into), digest(into))
            world.note(digest(stream.read(5)), stream.tell())
            one = stream.read1(50_000)
            assert one == BIG[stream.tell() - len(one) : stream.tell()]
            assert stream.readinto1(into) > 0
            rest = b"".join(stream)
            world.note(stream.tell(), stream.read(), digest(rest[-100_000:]))
        world.settle()
    world.note(digest(world.cache.get("k")), world.cache.get("none", default=None))
    world.fails(lambda: world.cache.get("k", max_bytes="1MiB"))
    world.fails(lambda: world.cache.get("none"))
    world.count()


@path()
def ranges_and_seeks(world: World) -> None:
    world.origin.script("k", *steps(BIG))
    for _ in range(2):
        for start, stop in ((0, 10), (5, 5), (9, 3), (100, 200_000), (1_000_000, None), (10**8, None)):
            world.read("k", BIG[start:stop], start=start, stop=stop)
        with world.cache.open("k") as stream:
            for offset, whence in ((-10, os.SEEK_END), (700_000, os.SEEK_SET), (50_000, os.SEEK_CUR), (3, os.SEEK_SET)):
                world.note(stream.seek(offset, whence), digest(stream.read(40_000)))
            world.fails(lambda stream=stream: stream.seek(-1))
        with world.cache.open("k", start=1000, stop=500_000) as stream:
            world.note(stream.seek(-100, os.SEEK_END), digest(stream.read()), stream.size)
    world.count()


@path()
def progress_is_told(world: World) -> None:
    world.origin.script("k", *steps(BIG))
    for _ in range(2):
        told: list[tuple[int, int | None]] = []
        world.read("k", BIG, progress=lambda *so_far, told=told: told.append(so_far))
        world.note(told[-1], told == sorted(told))
    world.count()


def into_socket(stream: CacheStream) -> tuple[int, bytes]:
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        got = pool.submit(lambda: b"".join(iter(lambda: theirs.recv(1 << 16), b"")))
        count = stream.copy_to(ours)
        ours.shutdown(socket.SHUT_WR)
        return count, got.result(SOON)


def into_file(stream: CacheStream, file: Path, buffering: int) -> tuple[int, bytes]:
    with file.open("wb", buffering=buffering) as out:
        count = stream.copy_to(out)
    return count, file.read_bytes()


def into_object(stream: CacheStream, sink: Any) -> tuple[int, bytes]:
    count = stream.copy_to(sink)
    return count, bytes(sink.data if isinstance(sink, Plain) else sink.getvalue())


def copies(folder: Path) -> dict[str, Callable[[CacheStream], tuple[int, bytes]]]:
    return {
        "file": lambda stream: into_file(stream, folder / "out", -1),
        "raw file": lambda stream: into_file(stream, folder / "out", 0),
        "socket": into_socket,
        "object": lambda stream: into_object(stream, Plain()),
        "memory": lambda stream: into_object(stream, io.BytesIO()),
    }


@path()
def copies_to_every_kind_of_end(world: World) -> None:
    for name, copy in copies(world.folder).items():
        for announced in ("right", None):
            key = f"{name} {announced}"
            world.origin.script(key, *steps(BIG), size=announced)
            for start, stop in ((0, None), (0, None), (0, None), (77, 1_000_003), (5, 5)):  # cold, unverified, verified
                with world.cache.open(key, start=start, stop=stop) as stream:
                    stream.read(3)
                    count, got = copy(stream)
                    world.note(stream.status, count, digest(got), stream.tell())
                assert got == BIG[start:stop][3:], (key, start, stop)
            world.cache.delete(key)
    world.count()


@path()
def a_path_is_a_plain_file(world: World) -> None:
    world.origin.script("k", *steps(BIG))
    world.origin.script("s", b"small")
    for key, data in (("k", BIG), ("s", b"small")) * 2:
        with world.cache.open(key) as stream:
            if "F" in world.kind:
                got = Path(stream.path()).read_bytes()
                assert got == data
                world.note(digest(got), stream.read(3))
            else:
                world.fails(stream.path)
    world.count()


# -- many readers, and fills that end otherwise ----------------------------------------------------------------


@path()
def readers_join_a_running_fill(world: World) -> None:
    for announced in ("right", None):
        key, gate = f"k {announced}", Gate()
        world.origin.script(key, BIG[:300_000], gate, *steps(BIG[300_000:]), size=announced)
        with ThreadPoolExecutor(4) as pool, world.cache.open(key) as first:
            world.note(first.status, digest(first.read(200_000)))
            others = [world.cache.open(key) for _ in range(3)]
            world.note([stream.status for stream in others])
            reads = [pool.submit(stream.read) for stream in others]
            gate.open()
            rest = first.read()
            world.note(digest(rest), [digest(read.result(SOON)) for read in reads], first.metadata, first.size)
            for stream in others:
                stream.close()
        assert BIG[200_000:] == rest
        world.count()


@path()
def orphans_are_finished_or_aborted(world: World) -> None:
    for on_orphan in ("finish", "abort"):
        for announced in ("right", None):
            key = f"{on_orphan} {announced}"
            world.origin.script(key, *steps(BIG), size=announced)
            with world.cache.open(key, on_orphan=on_orphan) as stream:
                world.note(digest(stream.read(10)))
            world.settle()
            if on_orphan == "finish":
                world.read(key, BIG)
                world.count()
            else:  # it may have been complete before its reader left
                assert world.cache.get(key) == BIG


@path()
def an_origin_that_fails_or_lies(world: World) -> None:
    for fail_at in (0, 10, 300_000, len(BIG) - 1):
        world.origin.script("f", *steps(BIG), fail_at=fail_at)
        world.fails(lambda: world.cache.get("f"))
    world.origin.script("e", ConnectionError)
    world.fails(lambda: world.cache.open("e"))
    for size in (len(BIG) - 1, len(BIG) + 1):
        world.origin.script("s", *steps(BIG), size=size)
        world.fails(lambda: world.cache.get("s"))
    world.origin.script("d", *steps(BIG), digest="sha256:" + "0" * 64)
    world.fails(lambda: world.cache.get("d"))
    world.origin.script("d", *steps(BIG), digest="sha256:" + hashlib.sha256(BIG).hexdigest())
    world.read("d", BIG)
    world.count()


@path()
def what_may_not_be_kept(world: World) -> None:
    world.origin.script("k", *steps(BIG), cacheable=False)
    for _ in range(2):
        world.read("k", BIG)
    world.note(world.cache.refresh("k"))
    world.count()


@path()
def forms_of_bodies(world: World) -> None:
    forms: tuple[Callable[[], Any], ...] = (
        lambda: BIG, lambda: bytearray(BIG), lambda: memoryview(BIG), lambda: io.BytesIO(BIG), lambda: steps(BIG, 7_001),
        lambda: io.BufferedReader(io.BytesIO(BIG)), lambda: FetchResult(iter(steps(BIG)), size=len(BIG), ttl=5),
    )  # fmt: skip
    for number, form in enumerate(forms):
        world.read(f"k{number}", BIG, fetch=lambda request, form=form: form())
        world.count()


# -- between tiers -----------------------------------------------------------------------------------------------


@path("MF", "MFF")
def a_hit_below_is_carried_up(world: World) -> None:
    sizes = (0, 5, 70_000, EIGHTH, EIGHTH + 1)
    for size in sizes:
        world.origin.script(f"k{size}", *steps(BIG[:size]), etag='"1"')
        world.read(f"k{size}", BIG[:size])
    world.count()
    for pressure in (PressureLevel.NORMAL, PressureLevel.CRITICAL):
        world.reopen()
        world.cache.buffers.relieve(pressure)
        for size in sizes:
            world.read(f"k{size}", BIG[:size])
            world.read(f"k{size}", BIG[:size])
        world.count()
    world.cache.buffers.relieve(PressureLevel.NORMAL)


@path("MF", "FM", "MFF", "FF")
def what_is_kept_above_spreads_below(world: World) -> None:
    for size in (1, 70_000, EIGHTH, 900_000):
        world.origin.script(f"k{size}", *steps(BIG[:size]), ttl=60)
        world.read(f"k{size}", BIG[:size])
        world.cache.set(f"s{size}", BIG[:size], tags=("a", "b"))
        world.count()
    world.reopen()
    for key in sorted(world.cache.keys()):
        world.read(key, BIG[: int(key[1:])])
    world.count()


# -- writing -----------------------------------------------------------------------------------------------------


@path()
def sets_of_every_form(world: World) -> None:
    def generated(*, fails: bool) -> Iterator[bytes]:
        yield from steps(BIG[:300_000] if fails else BIG)
        if fails:
            raise ConnectionError("gone")

    (world.folder / "in").write_bytes(BIG)
    with (world.folder / "in").open("rb") as file:
        bodies: tuple[Any, ...] = (
            b"", b"x", BIG, bytearray(BIG), memoryview(BIG), io.BytesIO(BIG), file, generated(fails=False), steps(BIG, 999),
        )  # fmt: skip
        for number, body in enumerate(bodies):
            world.cache.set(f"k{number}", body, etag='"1"', ttl=100)
            world.read(f"k{number}", body if type(body) is bytes else BIG)
            world.count()
    part = BIG[:300_000]
    world.cache.set("k", io.BytesIO(part), size=len(part), digest="sha256:" + hashlib.sha256(part).hexdigest())
    world.read("k", part)  # what is being written may push out what nobody has read
    world.fails(lambda: world.cache.set("k", generated(fails=True)))
    world.fails(lambda: world.cache.set("k", steps(part), size=5))
    world.fails(lambda: world.cache.set("k", steps(part), digest="sha256:" + "0" * 64))
    world.fails(lambda: world.cache.set("k", "text"))
    world.fails(lambda: world.cache.set("k", content("huge", FILE_TIER + 1)))
    world.read("k", part)
    world.count()


@path()
def writers_of_every_size(world: World) -> None:
    for size in SIZES:
        with world.cache.writer(f"k{size}", etag='"1"', tags=("t",)) as writer:
            for piece in steps(BIG[:size], 30_001):
                writer.write(piece)
            world.note(writer.written)
        world.read(f"k{size}", BIG[:size])
        world.count()

    def lies() -> None:
        with world.cache.writer("k5", size=6) as writer:
            writer.write(b"12345")

    def breaks() -> None:
        with world.cache.writer("k5") as writer:
            writer.write(BIG)
            raise KeyError("k5")

    for wrong in (lies, breaks):
        world.fails(wrong)
        world.count()


@path()
def deletes_and_refreshes(world: World) -> None:
    world.origin.script("k", *steps(BIG), etag='"1"')
    world.read("k", BIG)
    world.note(world.cache.refresh("k"))
    world.origin.script("k", *steps(BIG[5:]), etag='"2"')
    world.read("k", BIG)
    world.note(world.cache.refresh("k"))
    world.read("k", BIG[5:])
    world.count()
    world.origin.script("k", ConnectionError)
    world.fails(lambda: world.cache.refresh("k"))
    world.read("k", BIG[5:])
    world.note(world.cache.delete("k"), world.cache.delete("k"), "k" in world.cache)
    world.fails(lambda: world.cache.get("k"))
    world.count()


@path()
def a_fill_that_lost_its_race_publishes_nothing(world: World) -> None:
    for change in (lambda: world.cache.set("k", b"newer"), lambda: world.cache.delete("k")):
        gate = Gate()
        world.cache.delete("k")
        world.origin.script("k", BIG[:300_000], gate, *steps(BIG[300_000:]))
        with world.cache.open("k") as stream:
            change()
            gate.open()
            assert stream.read() == BIG
        world.settle()
        world.note("k" in world.cache, world.cache.get("k", lambda request: b"from elsewhere"))
        world.count()


# -- age ---------------------------------------------------------------------------------------------------------


@path(freshness=Freshness(fresh=10, stale_while_revalidate=10, stale_if_error=100, negative=5))
def copies_that_grow_old(world: World) -> None:
    before = None
    for version, body in {"1": BIG, "2": BIG[1:], "3": BIG[:70_000]}.items():
        world.origin.script("k", *steps(body), etag=f'"{version}"')
        if before is not None:
            world.clock.advance(11)
            world.read("k", before)  # served stale, and renewed behind
        world.read("k", body)
        before = body
    world.clock.advance(25)
    world.read("k", before)  # asked for, and unchanged
    world.count()
    world.origin.script("k", ConnectionError)
    world.clock.advance(50)
    world.read("k", before)
    world.clock.advance(100)
    world.fails(lambda: world.cache.get("k"))
    world.count()


@path(freshness=Freshness(negative=5))
def what_does_not_exist(world: World) -> None:
    for wait in (0, 1, 6):
        world.clock.advance(wait)
        world.fails(lambda: world.cache.get("none"))
        world.count()
    world.cache.set("none", BIG)
    world.read("none", BIG)
    world.origin.script("none", NotFound)
    world.fails(lambda: world.cache.refresh("none"))
    world.count()


# -- damage, the limit, and the end ------------------------------------------------------------------------------


@path("F", "FF")
def damage_in_mid_stream(world: World) -> None:
    for etag in ('"strong"', 'W/"weak"'):
        world.origin.script("k", *steps(BIG), etag=etag)
        assert world.cache.get("k") == BIG
        world.settle()
        for body in world.folder.rglob("*.body"):
            damaged = bytearray(body.read_bytes())
            damaged[1_000_000] ^= 1
            body.write_bytes(damaged)
        with world.cache.open("k") as stream:
            world.note(digest(stream.read(400_000)))
            sink = Plain()
            if "W/" in etag:
                world.fails(lambda stream=stream, sink=sink: stream.copy_to(sink))
                assert BIG[400_000:].startswith(bytes(sink.data))
            else:
                world.note(stream.copy_to(sink), digest(bytes(sink.data)))
                assert BIG[400_000:] == sink.data
        world.read("k", BIG)
        world.cache.delete("k")
        world.count()


@path("M", "MF", memory_limit="4MiB", memory_tier="8MiB")
def a_limit_smaller_than_the_tier(world: World) -> None:
    # What is still there the second time depends on what the buffers leave; that all is right does not.
    for number in range(12):
        world.origin.script(f"k{number}", *steps(content(number, 600_000)))

    def read(number: int) -> str:
        return digest(world.cache.get(f"k{number % 12}"))

    with ThreadPoolExecutor(8) as pool:
        world.note(list(pool.map(read, range(36))))
    world.settle()
    assert world.cache._engine.ledger.peak <= 4096 * KIB


@path()
def closing_drops_or_finishes(world: World) -> None:
    for drain in Drain:
        # Of unknown size and without a filler yet; and one that a filler has begun.
        for announced, size in ((None, 1), ("right", len(BIG))):
            key = f"{drain} {announced}"
            world.origin.script(key, BIG[:size], *steps(BIG[size:]), size=announced)
            stream = world.cache.open(key)
            world.note(stream.read(1))
            lease = world.cache.buffers.acquire(100_000)
            world.cache.close(drain)
            if drain is Drain.FINISH:
                world.note(stream.status, "finished")
            with suppress(Exception):  # what it still gives, if anything, depends on how far the fill had come
                assert BIG.startswith(b"" + BIG[:1] + stream.read())
            stream.close()
            lease.view[:] = bytes(100_000)
            lease.release()
            world.fails(lambda: world.cache.open("k"))
            world.make()
            if drain is Drain.FINISH and "F" in world.kind:
                world.read(key, BIG)
            assert world.cache.get(key) == BIG


# -- the suite ---------------------------------------------------------------------------------------------------


def played(name: str, choice: str, kind: str, folder: Path) -> list[object]:
    """The notes of one path."""
    path = PATHS[name]
    world = World(choice, kind, folder, **path.settings)
    try:
        path.play(world)
    finally:
        world.end()
    return world.notes


@pytest.fixture(scope="module")
def without_a_pool(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], list[object]]:
    """The notes of a path with `buffers=None`, played once."""
    known: dict[tuple[str, str], list[object]] = {}

    def notes(name: str, kind: str) -> list[object]:
        if (name, kind) not in known:
            known[name, kind] = played(name, "none", kind, tmp_path_factory.mktemp("none"))
        return known[name, kind]

    return notes


def assert_same(seen: list[object], wanted: list[object]) -> None:
    for number, (one, other) in enumerate(zip(seen, wanted, strict=True)):
        assert one == other, f"note {number} of {len(wanted)}"


CASES = [
    (name, kind, choice)
    for name, path in PATHS.items()
    for kind in path.kinds
    for choice in OTHERS
    if choice in EVERYWHERE or kind == "MF"
]


@pytest.mark.parametrize(("name", "kind", "choice"), CASES)
def test_every_path_is_the_same_as_without_a_pool(
    name: str, kind: str, choice: str, tmp_path: Path, without_a_pool: Callable[[str, str], list[object]]
) -> None:
    """Bytes, statuses, metadata, errors, and counts of hits, misses and fetches."""
    wanted = without_a_pool(name, kind)
    assert wanted
    assert_same(played(name, choice, kind, tmp_path), wanted)


def test_no_pool_is_a_pool_that_is_switched_off() -> None:
    """One cannot differ from the other."""
    with Cache(MemoryStore("1MiB"), buffers=None) as cache:
        assert type(cache.buffers) is AdaptiveBufferPool
        assert cache.buffers.config == BufferPoolConfig(enabled=False)


@pytest.mark.parametrize("choice", ["plain pool", "adaptive pool", "narrow pool"])
def test_a_pool_that_is_given_is_charged_to_its_own_ledger_and_stays_open(choice: str, tmp_path: Path) -> None:
    """The cache's limit has only what its memory tier holds; two caches may share the pool."""
    world = World(choice, "M", tmp_path)
    pool, gate = world.cache.buffers, Gate()
    assert pool is world.pool
    world.origin.script("k", BIG[:300_000], gate, BIG[300_000:])
    with Cache(MemoryStore("4MiB"), origin=world.origin, buffers=pool) as other:
        with world.cache.open("k") as stream, other.open("k") as same:
            gate.wait_reached()
            assert pool.stats().active_buffers == 2
            assert pool.ledger.held >= 2 * 256 * KIB
            assert pool.ledger.held == pool.stats().arena_bytes + pool.stats().private_bytes
            gate.open()
            assert stream.read() == same.read() == BIG
        world.settle()
        assert world.cache.stats().memory_used == len(BIG)
        world.cache.close()
        assert not pool.closed
        assert other.get("k") == BIG
        other.delete("k")
        assert other.get("k") == BIG
    world.end()


# -- random histories --------------------------------------------------------------------------------------------

KEYS = ("a", "b", "c")
LENGTHS = (0, 1, 70_000, EIGHTH, EIGHTH + 1, 600_000)
STEPS = st.one_of(
    st.tuples(st.just("open"), st.sampled_from(KEYS), st.sampled_from([0, 5, 200_000]), st.sampled_from([None, 7, 300_000])),
    st.tuples(st.just("copy"), st.sampled_from(KEYS)),
    st.tuples(st.just("get"), st.sampled_from(KEYS)),
    st.tuples(st.just("leave"), st.sampled_from(KEYS)),
    st.tuples(st.just("script"), st.sampled_from(KEYS), st.sampled_from(LENGTHS), st.sampled_from(["right", None])),
    st.tuples(st.just("down"), st.sampled_from(KEYS), st.sampled_from([NotFound, ConnectionError])),
    st.tuples(st.just("set"), st.sampled_from(KEYS), st.sampled_from(LENGTHS), st.sampled_from([bytes, io.BytesIO, steps])),
    st.tuples(st.just("write"), st.sampled_from(KEYS), st.sampled_from(LENGTHS), st.booleans()),
    st.tuples(st.just("delete"), st.sampled_from(KEYS)),
    st.tuples(st.just("refresh"), st.sampled_from(KEYS)),
    st.tuples(st.just("advance"), st.sampled_from([1, 6, 15, 40])),
    st.tuples(st.just("reopen")),
)  # fmt: skip


class History:
    """The steps of one history, as a program takes them."""

    def __init__(self, world: World) -> None:
        self.world = world

    def take(self, number: int, step: tuple[Any, ...]) -> None:
        try:
            said = getattr(self, step[0])(number, *step[1:])
        except Exception as error:
            said = type(error), str(error).replace(str(self.world.folder), "")
        self.world.settle()
        self.world.note(step[0], said)

    def open(self, number: int, key: str, start: int, stop: int | None) -> object:
        with self.world.cache.open(key, start=start, stop=stop) as stream:
            return stream.status, stream.metadata, digest(stream.read())

    def copy(self, number: int, key: str) -> object:
        sink = Plain()
        with self.world.cache.open(key) as stream:
            return stream.status, stream.copy_to(sink), digest(bytes(sink.data))

    def get(self, number: int, key: str) -> object:
        return digest(self.world.cache.get(key))

    def leave(self, number: int, key: str) -> object:
        with self.world.cache.open(key) as stream:
            return stream.status, stream.metadata.etag, digest(stream.read(10))

    def script(self, number: int, key: str, size: int, announced: Any) -> None:
        self.world.origin.script(key, *steps(content(number, size)), size=announced, etag=f'"{number}"')

    def down(self, number: int, key: str, error: type[Exception]) -> None:
        self.world.origin.script(key, error)

    def set(self, number: int, key: str, size: int, form: Callable[[bytes], Any]) -> None:
        self.world.cache.set(key, form(content(number, size)), etag=f'"{number}"')

    def write(self, number: int, key: str, size: int, breaks: bool) -> object:
        with self.world.cache.writer(key) as writer:
            for piece in steps(content(number, size)):
                writer.write(piece)
            if breaks:
                raise KeyError(key)
            return writer.written

    def delete(self, number: int, key: str) -> object:
        return self.world.cache.delete(key)

    def refresh(self, number: int, key: str) -> object:
        return self.world.cache.refresh(key)

    def advance(self, number: int, seconds: int) -> None:
        self.world.clock.advance(seconds)

    def reopen(self, number: int) -> None:
        self.world.reopen()


@hypothesis.given(history=st.lists(STEPS, min_size=3, max_size=14), kind=st.sampled_from(["M", "MF"]))
def test_any_history_is_the_same_with_any_buffers(
    history: list[tuple[Any, ...]], kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Reads, writes, refreshes and lapses of time in any order."""
    wanted: list[object] | None = None
    for choice in ("none", "disabled", "default", "narrow pool", "changing"):
        freshness = Freshness(fresh=10, stale_while_revalidate=10, stale_if_error=30, negative=5)
        world = World(choice, kind, tmp_path_factory.mktemp("history"), freshness=freshness)
        try:
            walk = History(world)
            for key in KEYS:
                walk.script(-1, key, 70_000, "right")
            for number, step in enumerate(history):
                walk.take(number, step)
            world.count()
        finally:
            world.end()
        wanted = wanted or world.notes
        assert_same(world.notes, wanted)
