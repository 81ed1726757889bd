"""A process that is short of memory for good: under a limit of its address space, and of its control group where there can be
one. Copies through the pool go on; copies with a buffer for the whole object die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import daramjwee

KIB, MIB = 1024, 1024 * 1024
OBJECT, THREADS = 128 * MIB, 8

CHILD = r"""
import json, resource, sys, threading, time, zlib
way, path, limit, room, eaten = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5] == "eaten"
import mmap
from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig, MemoryPressure, PressureLevel, Thresholds

KIB, MIB = 1024, 1024 * 1024
threading.stack_size(256 * KIB)


class Sum:
    def __init__(self):
        self.crc = self.count = 0

    def write(self, data):
        self.crc = zlib.crc32(data, self.crc)
        self.count += len(data)
        return len(data)


class Plain:
    "A source without a descriptor, which fills what it is given."

    def __init__(self, file):
        self._file = file

    def readinto(self, view):
        return self._file.readinto(view)


def size_now():
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * mmap.PAGESIZE


pressure = MemoryPressure(interval=0, thresholds=Thresholds(calm_seconds=0.01))
pool = AdaptiveBufferPool(BufferPoolConfig(max_concurrent_large_ops=64), pressure=pressure)
pool.copy(Plain(open(path, "rb", buffering=0)), Sum(), limit=MIB)  # whatever is imported late is imported now
pool.relieve(PressureLevel.HIGH)
pool.relieve(PressureLevel.NORMAL)
levels = [0]
pool.monitor.listen(lambda alert: levels.append(int(alert.value)) if alert.metric == "pressure" else None)
sums, errors = [], []
barrier = threading.Barrier(9)


def work():
    try:
        with open(path, "rb", buffering=0) as file:
            barrier.wait()
            barrier.wait()
            sink = Sum()
            if way == "pool":
                pool.copy(Plain(file), sink, timeout=60)
            else:
                sink.write(file.read())
            sums.append([sink.crc, sink.count])
    except BaseException as error:
        errors.append(type(error).__name__ + ": " + str(error)[:200])


threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
barrier.wait()
hoard = []
if limit:
    kind = getattr(resource, limit)
    hard = resource.getrlimit(kind)[1]
    used = size_now()
    resource.setrlimit(kind, (used + room, hard))
    if eaten:
        # Address space only: nothing of it is touched. What is left then is less than any chunk.
        for piece in (MIB, 64 * KIB, 4 * KIB):
            while True:
                try:
                    hoard.append(mmap.mmap(-1, piece, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
                except OSError:
                    break
barrier.wait()
for thread in threads:
    thread.join()
if limit:
    resource.setrlimit(kind, (hard, hard))
hoard.clear()
until = time.monotonic() + 20
while pool.maintain() or (pool.pressure and time.monotonic() < until):
    pass
stats = pool.stats()
pool.close()
print(json.dumps({
    "sums": sums, "errors": errors, "refusals": stats.refusals, "reserve_uses": stats.reserve_uses,
    "fallbacks": stats.fallbacks, "copies": stats.copies, "leased": stats.active_buffers, "held": pool.ledger.held,
    "worst": max(levels), "after": int(pool.pressure),
}))
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """128 MiB, mostly holes: it takes no room on the disk, and its bytes are known."""
    made = tmp_path_factory.mktemp("limit") / "object"
    with made.open("wb") as file:
        for at in range(0, OBJECT, 8 * MIB):
            file.seek(at)
            file.write(b"%d" % at * 1000)
        file.truncate(OBJECT)
    return made


@pytest.fixture(scope="module")
def right(path) -> list[int]:
    import zlib

    crc = 0
    with path.open("rb") as file:
        while piece := file.read(MIB):
            crc = zlib.crc32(piece, crc)
    return [crc, OBJECT]


def command(way: str, path: Path, limit: str, room: int, eaten: str = "") -> list[str]:
    return [sys.executable, "-c", CHILD, way, str(path), limit, str(room), eaten]


def environment() -> dict[str, str]:
    package = str(Path(daramjwee.__file__).parents[1])
    return {**os.environ, "MALLOC_ARENA_MAX": "1", "PYTHONPATH": package}


def run(*arguments, **more) -> dict:
    done = subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, timeout=50, **more)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def check_survived(seen: dict, right: list[int]) -> None:
    assert seen["errors"] == [] and seen["sums"] == [right] * THREADS
    assert (seen["copies"], seen["leased"], seen["held"]) == (THREADS + 1, 0, 0)
    assert seen["after"] == 0


def test_a_gibibyte_in_8_threads_goes_through_a_tight_address_space(path, right):
    """24 MiB are left: enough for eight chunks, a fifth of one object."""
    check_survived(run("pool", path, "RLIMIT_AS", 24 * MIB), right)


def test_the_same_with_a_buffer_for_each_object_dies(path):
    seen = run("fresh", path, "RLIMIT_AS", 24 * MIB)
    assert len(seen["errors"]) == THREADS and all(error.startswith("MemoryError") for error in seen["errors"])


def test_with_nothing_left_at_all_the_copies_take_turns_in_the_reserve(path, right):
    """Not a page is to be had: every mapping is refused, pressure is critical, and passes when there is memory again."""
    seen = run("pool", path, "RLIMIT_AS", 24 * MIB, "eaten")
    check_survived(seen, right)
    # A page that something else gives back meanwhile may serve one of them.
    assert seen["refusals"] > 0 < seen["reserve_uses"] <= seen["fallbacks"] <= THREADS
    assert seen["worst"] == 3


def own_groups() -> list[tuple[Path, dict[str, str]]]:
    """The control groups of memory that this process is in, and the files that set a limit below them."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if not controllers:
            found.append((Path("/sys/fs/cgroup") / name.lstrip("/"), {"max": "memory.max", "swap": "memory.swap.max"}))
        elif "memory" in controllers.split(","):
            files = {"max": "memory.limit_in_bytes", "swap": "memory.memsw.limit_in_bytes"}
            found.append((Path("/sys/fs/cgroup/memory") / name.lstrip("/"), files))
    return found


class Group:
    """A control group below our own with a limit of memory, for one child; `refusal` says why there is none."""

    def __init__(self, limit: int) -> None:
        self.folder: Path | None = None
        self.refusal = "No such file or directory: this process is in no control group of memory"
        for own, files in own_groups():
            folder = own / f"daramjwee-test-{os.getpid()}"
            try:
                (own / "cgroup.procs").stat()  # it is a group, and no folder that holds some
                folder.mkdir()
            except OSError as error:
                self.refusal = f"{error.strerror}: {folder}"
                continue
            try:
                (folder / files["max"]).write_text(str(limit))
                if (folder / files["swap"]).exists():
                    (folder / files["swap"]).write_text("0" if files["swap"] == "memory.swap.max" else str(limit))
                self.folder = folder
                return
            except OSError as error:
                self.refusal = f"{error.strerror}: {folder}"
                folder.rmdir()

    def join(self) -> None:
        assert self.folder is not None
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def close(self) -> None:
        if self.folder is not None:
            deadline = time.monotonic() + 10
            while True:
                try:
                    self.folder.rmdir()
                    return
                except OSError:
                    assert time.monotonic() < deadline, "the group could not be removed"


def test_a_control_group_is_survived_too_where_there_can_be_one(path, right):
    """Where this machine lets us make no group, the same under a limit of data, and the reason is known."""
    group = Group(96 * MIB)
    try:
        if group.folder is None:
            reasons = ("Permission denied", "Read-only", "No such file", "not permitted", "busy", "not supported")
            assert any(reason in group.refusal for reason in reasons), group.refusal
            check_survived(run("pool", path, "RLIMIT_DATA", 24 * MIB), right)
            return
        check_survived(run("pool", path, "", 0, preexec_fn=group.join), right)
        fresh = subprocess.run(
            command("fresh", path, "", 0), env=environment(), capture_output=True, timeout=50, preexec_fn=group.join
        )
        assert fresh.returncode == -signal.SIGKILL, fresh.stderr[-500:]
    finally:
        group.close()
