"""Reading whole objects through a cache, as programs do, in threads that all begin at once: what old and new are compared by.

Invariant: what is read, and where it is read to, is the same on all sides; the length of each object is checked. A tier has
room for what is read at once and for a little more, so that a cold fill pushes an older object out, as it does in a cache
in use.
Threads: a `Crew` has its own; each uses one `Ends`.
Design: docs/design/bench.md
"""

from __future__ import annotations

import mmap
import os
import random
import threading
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from daramjwee.bench.ends import Glance, Source
from daramjwee.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import ExitStack
    from itertools import count
    from types import TracebackType
    from typing import Self

    from daramjwee import Cache, FetchRequest

    Job: TypeAlias = Callable[[], object]
    # Reads the object of that key; its length.
    Read: TypeAlias = Callable[[str], int]
    Fetch: TypeAlias = Callable[[FetchRequest], Any]

NONE, PLAIN, NEW = "no pool", "plain pool", "new"
OLD = (NONE, PLAIN)
# The same as new once more: how far apart two caches seem that differ in nothing.
AGAIN = "new, again"
SIDES = (*OLD, NEW, AGAIN)
BUFFER = 256 * KIB


class Path(NamedTuple):
    """A way through the cache. `origin`: what a cold fill reads, "" where the tier has the object. `leases`: what goes through
    memory of the pool, "" where nothing does: there is nothing to win, and nothing may be lost."""

    name: str
    tier: str
    origin: str
    way: str
    leases: str


def write_bodies(folder: str, sizes: set[int]) -> None:
    """A file of each size, all beginning alike."""
    body = memoryview(random.Random(0).randbytes(max(sizes)))
    for size in sizes:
        with open(_body_path(folder, size), "wb") as file:
            file.write(body[:size])


def _body_path(folder: str, size: int) -> str:
    return os.path.join(folder, f"body of {size}")


def bodies_of(folder: str, sizes: Iterable[int]) -> dict[int, bytes]:
    bodies = {}
    for size in sizes:
        with open(_body_path(folder, size), "rb") as file:
            bodies[size] = file.read()
    return bodies


def _size_of(key: str) -> int:
    return int(key.partition(" ")[0])


def fetcher(folder: str, path: Path, bodies: Mapping[int, bytes]) -> Fetch | None:
    """The origin: something that is read like a response, over bytes, or an open file."""
    if not path.origin:
        return None
    if path.origin == "file":
        return lambda request: open(_body_path(folder, _size_of(request.key)), "rb")
    return lambda request: Source(bodies[_size_of(request.key)])


def open_cache(
    stack: ExitStack, folder: str, path: Path, side: str, bodies: Mapping[int, bytes], readers: int, *, like: str = ""
) -> Cache:
    """A cache with the buffers of that side, and in it the objects that are to be hit. `like`: the folder of a tier whose
    files become files of this one."""
    from daramjwee import Cache, FileStore, MemoryStore
    from daramjwee.buffers import BufferPool

    most = max(bodies)
    room = max(MIB, (readers + 2) * most)
    store: Any = MemoryStore(room, max_object_size=most)
    if path.tier == "file":
        store = FileStore(tier_of(folder, side), capacity=room)
    buffers: dict[str, Any] = {"buffers": None}
    if side == PLAIN:
        buffers = {"buffers": stack.enter_context(BufferPool())}
    elif side in {NEW, AGAIN}:
        buffers = {}
    cache = stack.enter_context(Cache(store, memory_limit=room + 64 * MIB, **buffers))
    if not path.origin:
        view = _buffer(BUFFER)
        for size, body in bodies.items():
            key = f"{size} hit"
            cache.set(key, body)  # kept as it is by a memory tier: all sides give the same memory
            with cache.open(key) as stream:
                if like:
                    _share(stream.path(), like)
            with cache.open(key) as stream:  # the first read of a file checks it
                while stream.readinto(view):
                    pass
    return cache


def tier_of(folder: str, side: str) -> str:
    return os.path.join(folder, f"tier, {side}")


def _share(path: str, like: str) -> None:
    """Put in the place of a tier's file that of the same object in the tier `like`. The pages that a file happens to lie on
    make one copy of it up to a third faster than another."""
    size = os.path.getsize(path)
    same = next(
        os.path.join(at, name)
        for at, _, names in os.walk(like)
        for name in names
        if name.endswith(".body") and os.path.getsize(os.path.join(at, name)) == size
    )
    os.unlink(path)
    os.link(same, path)


def _buffer(size: int) -> memoryview:
    """Page-aligned memory, every page of it touched."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(bytes(size))
    return memoryview(memory)


# -- how it is read -------------------------------------------------------------------------------------------------


class Ends(NamedTuple):
    """Where a thread reads to, the same on all sides."""

    sink: Glance
    view: memoryview
    target: str


def make_ends(folder: str, readers: int) -> list[Ends]:
    return [Ends(Glance(), _buffer(BUFFER), os.path.join(folder, f"target {number}")) for number in range(readers)]


def reader(cache: Cache, fetch: Fetch | None, way: str, ends: Ends) -> Read:
    """Reads as a program does."""
    sink, view, target = ends

    def get(key: str) -> int:
        return len(cache.get(key, fetch))

    def to_sink(key: str) -> int:
        with cache.open(key, fetch) as stream:
            return stream.copy_to(sink)

    def to_file(key: str) -> int:
        with cache.open(key, fetch) as stream, _over(target) as file:
            return stream.copy_to(file)

    def readinto(key: str) -> int:
        done = 0
        with cache.open(key, fetch) as stream:
            while count := stream.readinto(view):
                done += count
        return done

    def whole_to_sink(key: str) -> int:
        with cache.open(key, fetch) as stream:
            data = stream.read()
        return sink.write(data)

    def whole_to_file(key: str) -> int:
        with cache.open(key, fetch) as stream:
            data = stream.read()
        with _over(target) as file:
            count: int = file.write(data)
        return count

    ways: dict[str, Read] = {
        "get": get, "sink": to_sink, "file": to_file, "readinto": readinto, "sink, whole": whole_to_sink,
        "file, whole": whole_to_file,
    }  # fmt: skip
    return ways[way]


def _over(path: str) -> Any:
    """The file, open to be written over: making and freeing its blocks costs more than the copy, and the same on all sides."""
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags & ~os.O_TRUNC, 0o600))


def read_all(read: Read, path: Path, numbers: count[int], sizes: Sequence[int]) -> None:
    """Read one object of each of `sizes` after the other."""
    for size in sizes:
        seen = read(f"{size} {next(numbers)}" if path.origin else f"{size} hit")
        if seen != size:
            raise ValueError(f"{path.name}: {seen:,} bytes came of {size:,}")


class Crew:
    """`with Crew(8) as crew`: threads that each do a job of their own, all at once, as often as they are told to."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._begin, self._end = threading.Barrier(count + 1), threading.Barrier(count + 1)
        self._jobs: Sequence[Job] = ()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(count)]

    def run(self, jobs: Sequence[Job]) -> float:
        """Have thread n do `jobs[n]`; the seconds until the last is done."""
        self._jobs = jobs
        self._begin.wait()
        begin = perf_counter()
        self._end.wait()
        took = perf_counter() - begin
        if self._failures:
            raise self._failures[0]
        return took

    def _work(self, number: int) -> None:
        try:
            while True:
                self._begin.wait()
                try:
                    self._jobs[number]()
                except Exception as error:  # noqa: BLE001 - raised by `run`, in the thread that asked
                    self._failures.append(error)
                self._end.wait()
        except threading.BrokenBarrierError:
            return  # that is how they are told to end

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._begin.abort()
        self._end.abort()
        for thread in self._threads:
            thread.join()
