"""A long run of a buffer pool under mixed load: memory must stay level, counts be exact, and idle memory go back by itself.

    make soak                                     ten minutes, the default settings
    make soak ARGS="--seconds 60 --json"

Several threads lease, copy between files, sockets and plain objects, and tee, in a process of its own. Passes (status 0)
when resident memory at the end of the load is within 5 % of what it was after the first tenth, every operation and byte
was counted once, nothing is on loan, and after the load all arenas go back to the system within `max_idle_age` and one
`metrics_interval`, without anybody asking. Fails (status 1) with every reason.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import sys
import tempfile
import threading
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from time import monotonic

import msgspec

from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig
from daramjwee.buffers.strategy import SizeClass, size_class
from daramjwee.errors import ConfigError
from daramjwee.units import KIB, MIB, format_duration, format_size, parse_duration

# What resident memory may change by, of its value after the first tenth.
TOLERANCE = 0.05
# Resident memory is looked at so often; each end of the comparison is the average of a tenth of the run, as one arena
# (2 MiB) more or less at a single moment says nothing.
SAMPLE_SECONDS = 0.25
POLL_SECONDS = 0.01
LARGEST_LEASE = 3 * MIB
LARGEST_COPY = 8 * MIB
# Enough for every class and every alignment. No more are made while it runs: what this program keeps must not grow.
MANY_SIZES = 200
CONTENT = random.Random(11).randbytes(LARGEST_COPY)
# Far more than any operation takes here: what hangs ends the run instead of holding it for ever.
PATIENCE_SECONDS = 60.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen. Bytes and seconds. `problems`: why it failed; `resident`: samples over the load."""

    ok: bool
    problems: list[str]
    seconds: float
    threads: int
    seed: int
    operations: int
    kinds: dict[str, int]
    copied_bytes: int
    reuse_rate: float
    resident_early: int
    resident_late: int
    peak_bytes: int
    returned_after: float | None
    allowed: float
    resident: list[int]


class Plain:
    """A source without a descriptor."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def readinto(self, view: memoryview) -> int:
        count = min(len(view), len(self._data) - self._at)
        view[:count] = self._data[self._at : self._at + count]
        self._at += count
        return count


class Sum:
    """A sink that keeps nothing but a checksum."""

    def __init__(self) -> None:
        self.crc = self.count = 0

    def write(self, piece: memoryview) -> int:
        self.crc = zlib.crc32(piece, self.crc)
        self.count += len(piece)
        return len(piece)


def sums_of(sizes: list[int]) -> dict[int, int]:
    """The checksums of the first bytes of what is copied, for each of `sizes`."""
    sums, at, crc = {}, 0, 0
    for size in sorted(sizes):
        crc = zlib.crc32(memoryview(CONTENT)[at:size], crc)
        at = size
        sums[size] = crc
    return sums


def sizes_up_to(most: int) -> list[int]:
    """Sizes of every magnitude, as many of each, and a fifth of them round."""
    chance = random.Random(most)
    odd = [int(2 ** chance.uniform(0, most.bit_length() - 1)) for _ in range(4 * MANY_SIZES // 5)]
    return odd + chance.choices([4 * KIB, 64 * KIB, 256 * KIB, MIB], k=MANY_SIZES // 5)


class Worker:
    """One thread's load, and its own account of it."""

    def __init__(self, pool: AdaptiveBufferPool, folder: Path, number: int, seed: int) -> None:
        self._pool = pool
        self._chance = random.Random(seed * 1000 + number)
        self._source = folder / "source"
        self._target = folder / f"target-{number}"
        self._lease_sizes = sizes_up_to(LARGEST_LEASE)
        self._copy_sizes = sizes_up_to(LARGEST_COPY)
        self._sums = sums_of(self._copy_sizes)
        self._helper = ThreadPoolExecutor(1, f"soak-helper-{number}")
        self.kinds: Counter[str] = Counter()
        self.classes: Counter[SizeClass] = Counter()
        self.copied = 0

    def run(self, until: float) -> None:
        works = (
            [self.lease] * 6
            + [self.plain_to_plain, self.file_to_file, self.file_to_plain, self.plain_to_file] * 2
            + [self.file_to_socket, self.socket_to_plain, self.tee, self.tee]
        )
        with self._helper:
            while monotonic() < until:
                work = self._chance.choice(works)
                work()
                self.kinds[work.__name__] += 1

    def _count(self, size: int) -> None:
        self.classes[size_class(size, self._pool.config)] += 1

    def lease(self) -> None:
        size = self._chance.choice(self._lease_sizes)
        mark = self._chance.randbytes(min(size, 8))
        with self._pool.acquire(size, timeout=PATIENCE_SECONDS) as lease:
            view = lease.view
            view[: len(mark)] = mark
            view[size - len(mark) :] = mark
            zlib.crc32(view)  # lets go of the interpreter: memory on loan to two would show
            if view[: len(mark)] != mark and size >= 2 * len(mark):
                raise AssertionError(f"a lease of {size} bytes was written by somebody else")
        self._count(size)

    def _copy(self, source: object, sink: object, size: int) -> None:
        result = self._pool.copy(source, sink, size, limit=size, timeout=PATIENCE_SECONDS)
        if result.bytes != size:
            raise AssertionError(f"{result.bytes} bytes of {size} were copied")
        self._moved(size)

    def _moved(self, size: int) -> None:
        self.copied += size
        self._count(size)

    def plain_to_plain(self) -> None:
        size, sink = self._chance.choice(self._copy_sizes), Sum()
        self._copy(Plain(memoryview(CONTENT)[:size]), sink, size)
        self._check(size, sink.crc)

    def file_to_plain(self) -> None:
        size, sink = self._chance.choice(self._copy_sizes), Sum()
        with open(self._source, "rb") as file:
            self._copy(file, sink, size)
        self._check(size, sink.crc)

    def file_to_file(self) -> None:
        size = self._chance.choice(self._copy_sizes)
        with open(self._source, "rb") as file, open(self._target, "wb") as target:
            self._copy(file, target, size)
        self._check_file(size)

    def plain_to_file(self) -> None:
        size = self._chance.choice(self._copy_sizes)
        with open(self._target, "wb") as target:
            self._copy(Plain(memoryview(CONTENT)[:size]), target, size)
        self._check_file(size)

    def file_to_socket(self) -> None:
        size = self._chance.choice(self._copy_sizes)
        with open(self._source, "rb") as file:
            near, far = socket.socketpair()
            with near, far:
                crc = self._helper.submit(drain, far)
                self._copy(file, near, size)
                near.close()
                self._check(size, crc.result(PATIENCE_SECONDS))

    def socket_to_plain(self) -> None:
        size, sink = self._chance.choice(self._copy_sizes), Sum()
        near, far = socket.socketpair()
        with near, far:
            sent = self._helper.submit(far.sendall, memoryview(CONTENT)[:size])
            self._copy(near, sink, size)
            sent.result(PATIENCE_SECONDS)
        self._check(size, sink.crc)

    def tee(self) -> None:
        size, sink = self._chance.choice(self._copy_sizes), Sum()
        piece = bytearray(self._chance.choice([4 * KIB, 64 * KIB]))
        crc = 0
        with self._pool.tee(Plain(memoryview(CONTENT)[:size]), sink, size) as reader:
            while count := reader.readinto(piece):
                crc = zlib.crc32(memoryview(piece)[:count], crc)
        self._check(size, crc)
        self._check(size, sink.crc)
        self._moved(size)

    def _check_file(self, size: int) -> None:
        crc = 0
        with open(self._target, "rb") as file:
            while piece := file.read(64 * KIB):
                crc = zlib.crc32(piece, crc)
        self._check(size, crc)

    def _check(self, size: int, crc: int) -> None:
        if crc != self._sums[size]:
            raise AssertionError(f"{size} bytes came out other than they went in")


def drain(end: socket.socket) -> int:
    """The checksum of all that comes."""
    crc = 0
    piece = bytearray(64 * KIB)
    while count := end.recv_into(piece):
        crc = zlib.crc32(memoryview(piece)[:count], crc)
    return crc


def resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(pool: AdaptiveBufferPool, seconds: float, threads: int, seed: int, folder: Path) -> Report:
    """Load the pool for so long, then wait for its memory to go back."""
    (folder / "source").write_bytes(CONTENT)
    workers = [Worker(pool, folder, number, seed) for number in range(threads)]
    began = monotonic()
    samples: list[tuple[float, int]] = []
    pause = threading.Event()
    with ThreadPoolExecutor(threads, "soak") as executor:
        running = [executor.submit(worker.run, began + seconds) for worker in workers]
        while not all(future.done() for future in running):
            samples.append((monotonic() - began, resident()))
            pause.wait(SAMPLE_SECONDS)
        failures = [repr(future.exception()) for future in running if future.exception() is not None]
    config = pool.config
    allowed = config.max_idle_age + config.metrics_interval
    returned_after = wait_for_return(pool, allowed)
    stats = pool.stats()
    kinds = sum((worker.kinds for worker in workers), Counter[str]())
    classes = sum((worker.classes for worker in workers), Counter[SizeClass]())
    copied = sum(worker.copied for worker in workers)
    early = middle(samples, 0.1 * seconds, 0.2 * seconds)
    late = middle(samples, 0.9 * seconds, seconds)

    problems = failures
    if not early or abs(late / early - 1) > TOLERANCE:
        problems.append(
            f"resident memory went from {format_size(early)} after the first tenth to {format_size(late)} at the end, "
            f"more than {TOLERANCE:.0%}"
        )
    by_class = {kind: stats.of(size_class=kind).count for kind in SizeClass}
    by_strategy = stats.pooled_operations + stats.chunked_operations + stats.direct_operations
    for what, counted, expected in (
        ("operations", stats.total_operations, kinds.total()),
        ("operations by strategy", by_strategy, kinds.total()),
        ("operations by size", by_class, {kind: classes[kind] for kind in SizeClass}),
        ("copies and tees", stats.copies, kinds.total() - kinds["lease"]),
        ("copied bytes", stats.copied_bytes, copied),
        ("leases given back", stats.total_puts, stats.total_gets),
        (
            "leases on loan, in quarantine, lost",
            (stats.active_buffers, stats.quarantined, stats.lost_leases),
            (0, 0, 0),
        ),
        ("places taken in the gate", (stats.gate.active, stats.gate.waiting), (0, 0)),
    ):
        if counted != expected:
            problems.append(f"{what}: the pool counted {counted}, the load {expected}")
    if returned_after is None:
        problems.append(
            f"{format_size(stats.arena_bytes + stats.private_bytes)} were not given back to the system within "
            f"max_idle_age + metrics_interval ({allowed:g} s)"
        )
    return Report(
        ok=not problems, problems=problems, seconds=seconds, threads=threads, seed=seed, operations=kinds.total(),
        kinds=dict(sorted(kinds.items())), copied_bytes=copied, reuse_rate=stats.reuse_rate, resident_early=early,
        resident_late=late, peak_bytes=stats.peak_bytes, returned_after=returned_after, allowed=allowed,
        resident=[size for _, size in samples],
    )  # fmt: skip


def wait_for_return(pool: AdaptiveBufferPool, seconds: float) -> float | None:
    """After how many seconds the pool held nothing any more; None when it still did after `seconds`. The ledger is asked,
    which does nothing to the pool."""
    began = monotonic()
    pause = threading.Event()
    while pool.ledger.held:
        if monotonic() - began > seconds:
            return None
        pause.wait(POLL_SECONDS)
    return monotonic() - began


def middle(samples: list[tuple[float, int]], start: float, end: float) -> int:
    """What was resident between two moments, on average; 0 where nobody looked."""
    found = [size for at, size in samples if start <= at <= end]
    return int(fmean(found)) if found else 0


def to_text(report: Report) -> str:
    returned = "not in time" if report.returned_after is None else format_duration(report.returned_after)
    rows = [
        ("load", f"{format_duration(report.seconds)} on {report.threads} threads, seed {report.seed}"),
        ("operations", f"{report.operations:,} ({', '.join(f'{n:,} {kind}' for kind, n in report.kinds.items())})"),
        ("copied", format_size(report.copied_bytes)),
        ("leases reused", f"{report.reuse_rate:.1%}"),
        ("pool's peak", format_size(report.peak_bytes)),
        ("resident, after a tenth", format_size(report.resident_early)),
        (
            "resident, at the end",
            f"{format_size(report.resident_late)} ({change(report):+.1%}, allowed {TOLERANCE:.0%})",
        ),
        ("memory back after", f"{returned} (allowed {report.allowed:g} s)"),
    ]
    lines = [f"{name:<26}{value}" for name, value in rows]
    lines += [f"FAILED: {problem}" for problem in report.problems] or ["passed"]
    return "\n".join(lines)


def change(report: Report) -> float:
    return report.resident_late / report.resident_early - 1 if report.resident_early else 0.0


def duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--seconds", type=duration, default=600.0, help="length of the load (600)")
    parser.add_argument("--threads", type=int, default=4, help="threads that load (4)")
    parser.add_argument("--seed", type=int, default=1, help="which load (1)")
    parser.add_argument("--max-idle-age", default="60s", help="of the pool (60s)")
    parser.add_argument("--metrics-interval", default="10s", help="of the pool (10s)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    if options.seconds < 20 * SAMPLE_SECONDS or options.threads < 1:
        parser.error(f"--seconds must be at least {20 * SAMPLE_SECONDS:g}, --threads at least 1")
    try:
        config = BufferPoolConfig(max_idle_age=options.max_idle_age, metrics_interval=options.metrics_interval)
    except ConfigError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="daramjwee-soak-") as folder, AdaptiveBufferPool(config) as pool:
        report = soak(pool, options.seconds, options.threads, options.seed, Path(folder))
    print(msgspec.json.encode(report).decode() if options.json else to_text(report))
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
