"""What the guard runs in a process of its own: scenarios of one tree, in the turns that standard input asks for.

Invariant: this file is run by its path, with the tree under test first on the path of imports. It knows the standard
library and the public names of daramjwee only, so today's scenarios run on older trees, too. Making a scenario ready is
not timed; what it needs is made once, before its first turn.
Threads: one; the scenario `threads` has 8 of its own.
Design: docs/design/bench.md
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count, repeat
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    Operation = Callable[[], object]

KIB, MIB = 1024, 1024 * 1024
THREADS = 8
# What each of the threads copies in one operation; together about 16 MiB.
SIZES_OF_A_THREAD = (256 * KIB, 512 * KIB, MIB, 256 * KIB)
STEP = 256 * KIB


class Room:
    """Where a scenario of one process works. `shared`: a folder whose files all processes read, because the pages that
    a file happens to lie on make a third of the speed of reading it. `fetches`: what origins were asked for."""

    def __init__(self, shared: str, own: str) -> None:
        self.shared, self.own = shared, own
        self.fetches = 0

    def file_of(self, size: int) -> str:
        """A file of so many bytes, which every process finds in the same place."""
        path = os.path.join(self.shared, f"source of {size}")
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.write(body_of(size))
        return path

    def fetch(self, size: int) -> Callable[[Any], Any]:
        """A fetcher of objects of that size, that are read in pieces and have no descriptor."""
        from daramjwee import FetchResult

        body = body_of(size)

        def fetch(_request: Any) -> Any:
            self.fetches += 1
            return FetchResult(Plain(body), size=size)

        return fetch


class Plain:
    """A body in memory that gives away nothing but what is asked for."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = memoryview(body), 0

    def read(self, count: int = -1, /) -> bytes:
        end = len(self._body) if count < 0 else min(len(self._body), self._at + count)
        begin, self._at = self._at, end
        return bytes(self._body[begin:end])

    def readinto(self, view: Any, /) -> int:
        count = min(len(view), len(self._body) - self._at)
        view[:count] = self._body[self._at : self._at + count]
        self._at += count
        return count

    def close(self) -> None:
        """There is nothing to close."""


class Nowhere:
    """A sink that looks at the first byte of what it is given."""

    def write(self, data: Any) -> int:
        if data:
            data[0]
        return len(data)


def body_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def read_all(stream: Any, buffer: bytearray, size: int) -> None:
    """Read a stream to its end."""
    left = size
    while got := stream.readinto(buffer):
        left -= got
    if left:
        raise ValueError(f"{size - left:,} bytes came of {size:,}")


@contextmanager
def hit(_room: Room) -> Iterator[Operation]:
    from daramjwee import Cache, Freshness, MemoryStore

    with Cache(MemoryStore("64MiB"), freshness=Freshness(fresh="1h")) as cache:
        cache.set("key", body_of(KIB))
        yield partial(cache.get, "key")


@contextmanager
def file_hit(room: Room) -> Iterator[Operation]:
    from daramjwee import Cache, FileStore

    size, buffer = MIB, bytearray(STEP)
    with Cache(FileStore(os.path.join(room.own, "store"), capacity="256MiB", free_space_floor=0)) as cache:
        cache.set("key", body_of(size))

        def operation() -> None:
            with cache.open("key") as stream:
                read_all(stream, buffer, size)

        yield operation


@contextmanager
def fill(room: Room, size: int) -> Iterator[Operation]:
    from daramjwee import Cache, MemoryStore

    # Room for some objects: what is no longer there has been evicted, as in a cache that is full.
    store = MemoryStore(4 * size, max_object_size=2 * size)
    buffer, numbers = bytearray(STEP), count()
    with Cache(store, origin=room.fetch(size), memory_limit=16 * size + 64 * MIB) as cache:

        def operation() -> None:
            with cache.open(f"key {next(numbers)}") as stream:
                read_all(stream, buffer, size)

        yield operation


@contextmanager
def crowd(room: Room) -> Iterator[Operation]:
    """All threads open the same cold key."""
    from daramjwee import Cache, MemoryStore

    size, numbers = MIB, count()
    buffers = [bytearray(STEP) for _ in range(THREADS)]
    with Cache(MemoryStore(8 * size, max_object_size=2 * size), origin=room.fetch(size)) as cache:
        key = ""

        def read(number: int) -> None:
            with cache.open(key) as stream:
                read_all(stream, buffers[number], size)

        with Team(read) as team:

            def operation() -> None:
                nonlocal key
                key = f"key {next(numbers)}"
                team.work()

            yield operation


@contextmanager
def put(_room: Room, size: int) -> Iterator[Operation]:
    from daramjwee import Cache, MemoryStore

    # Not `bytes`, which would be kept as they are: these have to be copied.
    with Cache(MemoryStore("64MiB", max_object_size="16MiB")) as cache:
        yield partial(cache.set, "key", bytearray(body_of(size)))


@contextmanager
def lease(_room: Room) -> Iterator[Operation]:
    with new_pool() as pool:
        acquire = pool.acquire

        def operation() -> None:
            with acquire(64 * KIB):
                pass

        yield operation


@contextmanager
def copy_plain(room: Room, size: int) -> Iterator[Operation]:
    body = body_of(size)
    with new_pool() as pool, open(os.path.join(room.own, "target"), "wb", buffering=0) as sink:

        def operation() -> None:
            sink.seek(0)
            pool.copy(Plain(body), sink, size)

        yield operation


@contextmanager
def copy_file(room: Room) -> Iterator[Operation]:
    size = MIB
    path, target = room.file_of(size), os.path.join(room.own, "target")
    with new_pool() as pool, open(path, "rb", buffering=0) as source, open(target, "wb", buffering=0) as sink:

        def operation() -> None:
            source.seek(0)
            sink.seek(0)
            pool.copy(source, sink, size)

        yield operation


@contextmanager
def tee(_room: Room) -> Iterator[Operation]:
    size, buffer, sink = MIB, bytearray(64 * KIB), Nowhere()
    body = body_of(size)
    with new_pool() as pool:

        def operation() -> None:
            with pool.tee(Plain(body), sink, size) as reader:
                read_all(reader, buffer, size)

        yield operation


@contextmanager
def threads(room: Room) -> Iterator[Operation]:
    paths = [(room.file_of(size), size) for size in SIZES_OF_A_THREAD]
    with new_pool() as pool, ExitStack() as stack:
        files = [
            [(stack.enter_context(open(path, "rb", buffering=0)), size) for path, size in paths] for _ in range(THREADS)
        ]
        sink = Nowhere()

        def copy(number: int) -> None:
            for source, size in files[number]:
                source.seek(0)
                pool.copy(source, sink, size)

        team = stack.enter_context(Team(copy))
        yield team.work


@contextmanager
def importing(_room: Room) -> Iterator[Operation]:
    """The child says itself how long it took: starting an interpreter takes as long again, and is nobody's fault."""
    code = (
        "from time import perf_counter, process_time; begin = perf_counter(), process_time(); import daramjwee; "
        "print(perf_counter() - begin[0], process_time() - begin[1])"
    )

    def operation() -> tuple[float, ...]:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        return tuple(map(float, done.stdout.split()))

    yield operation


class Team:
    """`with Team(job) as team`: threads that wait, and do `job(number)` once each whenever `team.work()` is called."""

    def __init__(self, job: Callable[[int], object]) -> None:
        self._job = job
        self._start, self._end = threading.Barrier(THREADS + 1), threading.Barrier(THREADS + 1)
        self._failures: list[BaseException] = []

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(THREADS)]
        for thread in self._threads:
            thread.start()
        return self

    def work(self) -> None:
        """One round; what a thread raised is raised here."""
        self._start.wait()
        self._end.wait()
        if self._failures:
            raise self._failures[0]

    def _run(self, number: int) -> None:
        while True:
            try:
                self._start.wait()
            except threading.BrokenBarrierError:
                return
            try:
                self._job(number)
            except BaseException as error:  # noqa: BLE001 - raised in `work`, in the thread that asked
                self._failures.append(error)
            self._end.wait()

    def __exit__(self, *_error: object) -> None:
        self._start.abort()
        for thread in self._threads:
            thread.join()


def new_pool() -> Any:
    """The pool that a cache of this tree has: adaptive, where there is one."""
    from daramjwee import buffers

    return getattr(buffers, "AdaptiveBufferPool", buffers.BufferPool)()


@contextmanager
def loop(_room: Room) -> Iterator[Operation]:
    """What times are told in: no code of ours, about a millisecond."""
    numbers = list(range(1000))

    def operation() -> None:
        for _ in range(40):
            {number: number for number in numbers}

    yield operation


SCENARIOS: dict[str, Callable[[Room], Any]] = {
    "hit": hit,
    "file-hit": file_hit,
    "fill-1MiB": partial(fill, size=MIB),
    "fill-16MiB": partial(fill, size=16 * MIB),
    "crowd": crowd,
    "set-1KiB": partial(put, size=KIB),
    "set-1MiB": partial(put, size=MIB),
    "lease": lease,
    "copy-256KiB": partial(copy_plain, size=256 * KIB),
    "copy-4MiB": partial(copy_plain, size=4 * MIB),
    "copy-file-1MiB": copy_file,
    "tee": tee,
    "threads": threads,
    "import": importing,
}


# How many operations are counted at once, and how many go before: until memory, files and the interpreter are warm.
COUNTED = {
    "hit": 2000, "set-1KiB": 2000, "lease": 2000, "set-1MiB": 200, "file-hit": 200, "fill-1MiB": 100, "fill-16MiB": 10,
    "crowd": 30, "copy-256KiB": 200, "copy-4MiB": 50, "copy-file-1MiB": 100, "tee": 100, "threads": 20,
}  # fmt: skip
COUNTS = 5


class Worker:
    """Answers one request after the other."""

    def __init__(self, shared: str, own: str, counters: str) -> None:
        self._shared, self._own, self._counters = shared, own, counters
        self._scenario, self._stack = "", ExitStack()
        self._room: Room | None = None
        self._operation: Operation = int

    def tree(self) -> dict[str, Any]:
        """Where daramjwee is imported from, and its version."""
        import daramjwee

        return {"path": daramjwee.__file__, "version": daramjwee.__version__}

    def begin(self, scenario: str) -> dict[str, Any]:
        """Make a scenario ready in place of the one before, and run it once."""
        self.end()
        own = os.path.join(self._own, scenario)
        os.makedirs(own, exist_ok=True)
        self._room = Room(self._shared, own)
        making = loop if scenario == "loop" else SCENARIOS[scenario]
        self._scenario, self._operation = scenario, self._stack.enter_context(making(self._room))
        self._operation()
        return {}

    def end(self) -> dict[str, Any]:
        """Give back what the scenario has."""
        self._stack.close()
        self._stack = ExitStack()
        return {}

    def loops(self, seconds: float) -> dict[str, Any]:
        """How many operations take about `seconds` of processor time; at least one."""
        loops = 1
        while True:
            took = min(self._batch(loops)[1] for _ in range(3))
            if took >= seconds / 8 or loops >= 1 << 30:
                return {"loops": max(1, round(loops * seconds / max(took, 1e-9)))}
            loops *= 4

    def turn(self, loops: int, batches: int) -> dict[str, Any]:
        """Elapsed and processor seconds of one operation, each the median of some batches."""
        seen = [self._batch(loops) for _ in range(batches)]
        elapsed, processor = (statistics.median(figures) / loops for figures in zip(*seen, strict=True))
        return {"elapsed": elapsed, "processor": processor}

    def _batch(self, loops: int) -> tuple[float, float]:
        operation = self._operation
        if self._scenario == "import":
            both: list[Any] = [operation() for _ in repeat(None, loops)]
            return sum(one[0] for one in both), sum(one[1] for one in both)
        begin, begin_processor = perf_counter(), process_time()
        for _ in repeat(None, loops):
            operation()
        return perf_counter() - begin, process_time() - begin_processor

    def count(self) -> dict[str, Any]:
        """What the scenario costs in counts: totals of `times` operations. Of some rounds the least was seen, because
        whatever else happens in a process only adds to it; of fetches the most, because one too many is a fault."""
        if self._scenario not in COUNTED:
            return {}
        assert self._room is not None
        counted, times = self._counted(), COUNTED[self._scenario]
        for _ in range(times):
            self._operation()
        rounds = []
        for _ in range(COUNTS):
            before = self._room.fetches
            counts = counted(self._operation, times)
            seen = {name: getattr(counts, name) for name in counts.__struct_fields__}
            rounds.append({**seen, "fetches": self._room.fetches - before})
        least: dict[str, int | None] = {}
        for name in rounds[0]:
            figures = [one[name] for one in rounds]
            least[name] = None if None in figures else max(figures) if name == "fetches" else min(figures)
        return {"times": times, "counts": least}

    def _counted(self) -> Any:
        """Today's way to count, whatever the tree is."""
        import importlib.util

        spec = importlib.util.spec_from_file_location("counters_of_the_guard", self._counters)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.counted


def calm(folder: Path) -> None:
    """Let pools read the memory of a machine that has plenty: what they do is then the same on all."""
    try:
        from daramjwee.buffers import MemoryPressure
    except ImportError:
        return  # a tree whose pools do not look
    defaults = MemoryPressure.__init__.__kwdefaults__ or {}
    if "root" in defaults:
        (folder / "proc").mkdir(parents=True)
        (folder / "proc" / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 12582912 kB\n", encoding="ascii")
        defaults["root"] = folder


def main() -> None:
    """Answer a JSON document on each line of standard input with one on standard output, until there are no more."""
    if sys.argv[1] == "--once":
        scenario, loops, own = sys.argv[2:]
        with SCENARIOS[scenario](Room(own, own)) as operation:
            for _ in repeat(None, int(loops)):
                operation()
        return
    # Answers go where standard output went; what a tree prints by itself must not come between them.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    shared, own, counters = sys.argv[1:]
    calm(Path(own, "calm"))
    worker = Worker(shared, own, counters)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # noqa: BLE001 - an older tree may lack anything; what is said is shown
            answer = {"cannot": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    worker.end()


if __name__ == "__main__":
    main()
