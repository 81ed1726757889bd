"""The steps in which nothing is taken away: cold and warm reads, ranges, and many readers at once.

Each is a function of the stage that does one thing, measures it, and returns what it saw with what it had to see.

Invariant: a figure in a `Step` was measured in that step; how often the origin was asked is the origin's own count.
Threads: one; `readers_together` starts its readers and waits for them.
Design: docs/cli.md
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from daramjwee.bench.origin import synthetic_bytes
from daramjwee.cli.demo.files import RealFile
from daramjwee.cli.demo.memory import PeakMeter
from daramjwee.cli.demo.readers import Reading, read_object, read_together
from daramjwee.cli.demo.record import MEMORY_LIMIT_BYTES, Check, Step, at_most, same, step_of
from daramjwee.cli.demo.stage import BIG, Stage
from daramjwee.units import counted, format_size

CRC_NAME = "CRC-32C"
SHA_NAME = "SHA-256"


class _Files(NamedTuple):
    bytes: int
    seconds: float
    first_byte_seconds: float
    statuses: dict[str, int]
    right: int


def cold_read(stage: Stage) -> Step:
    """Real files, none of them in the cache."""
    title = "cold read, real files"
    stage.origin.reset()
    stage.watch.began(title, _bytes_of(stage.files))
    seen = _read_files(stage, stage.files)
    count = len(stage.files)
    fetches = stage.fetched()
    return _step(
        "cold_read", title, seen, fetches, f"{counted(count, 'file')} of {_sizes(stage.files)}, {SHA_NAME} right: {seen.right}",
        [same("found as", {"MISS": count}, seen.statuses), same("origin fetches", count, fetches),
         same(f"{SHA_NAME} right", count, seen.right)],
    )  # fmt: skip


def warm_read_memory(stage: Stage) -> Step:
    """Those of the files that belong in the memory tier, again."""
    files = [file for file in stage.files if file.size <= stage.memory.largest_fill]
    return _warm(stage, files, "warm_read_memory", "warm read, memory tier", tier=0)


def warm_read_file(stage: Stage) -> Step:
    """All files again, from a cache that was closed and opened anew: what a new process finds."""
    begin = perf_counter()
    stage.reopen()
    reopened = perf_counter() - begin
    said, figures = "from a cache opened anew, ", {"reopened_s": reopened}
    return _warm(stage, stage.files, "warm_read_file", "warm read, file tier", tier=1, said=said, figures=figures)


def _warm(
    stage: Stage, files: Sequence[RealFile], name: str, title: str, *, tier: int, said: str = "",
    figures: dict[str, Any] | None = None,
) -> Step:  # fmt: skip
    stage.origin.reset()
    stage.watch.began(title, _bytes_of(files))
    before = stage.tier_hits()[tier]
    seen = _read_files(stage, files)
    count, fetches, hits = len(files), stage.fetched(), stage.tier_hits()[tier] - before
    return _step(
        name, title, seen, fetches, f"{said}{counted(count, 'file')}, {counted(hits, 'hit')} of that tier, {SHA_NAME} right: {seen.right}",
        [same("there is something to read", True, count > 0), same("found as", {"HIT": count}, seen.statuses),
         same("hits of that tier", count, hits), same("origin fetches", 0, fetches),
         same(f"{SHA_NAME} right", count, seen.right)],
        figures,
    )  # fmt: skip


def cold_read_big(stage: Stage) -> Step:
    """The big object, cold, by one reader alone: what the others are compared with."""
    title = f"cold read, {format_size(stage.settings.big_bytes)}"
    return _big(stage, "cold_read_big", title, status="MISS", fetches=1)


def warm_read_big(stage: Stage) -> Step:
    """The big object again, from the file tier."""
    title = f"warm read, {format_size(stage.settings.big_bytes)}"
    return _big(stage, "warm_read_big", title, status="HIT", fetches=0)


def _big(stage: Stage, name: str, title: str, *, status: str, fetches: int) -> Step:
    before = stage.tier_hits()[1]
    stage.origin.reset()
    stage.watch.began(title, stage.settings.big_bytes)
    reading = read_object(stage.cache, BIG, hashlib.sha256(), stage.watch.moved)
    right = reading.digest == stage.digests[BIG].sha256
    asked = stage.fetched()
    return _step(
        name, title, reading, asked, f"{reading.status}, {SHA_NAME} {'right' if right else 'WRONG'}",
        [same("found as", status, reading.status), same("origin fetches", fetches, asked),
         same("hits of the file tier", int(status == "HIT"), stage.tier_hits()[1] - before),
         same("bytes", stage.settings.big_bytes, reading.bytes), same(f"{SHA_NAME} right", True, right)],
    )  # fmt: skip


def range_read(stage: Stage) -> Step:
    """Parts of the big object, at both ends and across the borders of blocks."""
    size, title = stage.settings.big_bytes, "range reads"
    spans = [(0, 1), (size // 3 - 5, size // 3 + 1_000_003), (size // 2 - 1, size // 2 + 1), (size - 4097, size)]
    stage.origin.reset()
    stage.watch.began(title, sum(stop - start for start, stop in spans))
    begin = perf_counter()
    got, first = [], 0.0
    for start, stop in spans:
        with stage.cache.open(BIG, start=start, stop=stop) as stream:
            got.append(stream.read())
        first = first or perf_counter() - begin
    seconds = perf_counter() - begin
    right = sum(data == synthetic_bytes(BIG, *span) for data, span in zip(got, spans, strict=True))
    count, fetches = sum(map(len, got)), stage.fetched()
    return _step(
        "range_read", title, _Files(count, seconds, first, {}, right), fetches,
        f"{counted(len(spans), 'part')} of {format_size(size)}, from 1 byte to {format_size(max(map(len, got)))}, exact: {right}",
        [same("parts exact", len(spans), right), same("origin fetches", 0, fetches)],
    )  # fmt: skip


def readers_together(stage: Stage) -> Step:
    """All readers open the big object at the same moment, and nobody has it yet."""
    count, size = stage.settings.readers, stage.settings.big_bytes
    title = f"{counted(count, 'reader')}, cold"
    stage.cache.delete(BIG)
    stage.origin.reset()
    stage.watch.began(title, count * size)
    meter = PeakMeter()
    seen = read_together(stage.cache, BIG, count, stage.watch.moved)
    peak = meter.read()
    fetches = stage.fetched()
    right = sum(r.digest == stage.digests[BIG].crc32c and r.bytes == size for r in seen.readings)
    firsts = [r.first_byte_seconds for r in seen.readings] or [0.0]
    kept = _sha256_of_file(stage)
    figures = {
        "readers": count, "digests_right": right, "first_byte_median_ms": _ms(median(firsts)),
        "found_as": _tally(r.status for r in seen.readings), "peak_memory_bytes": peak.bytes,
        "peak_memory_means": peak.means,
    }  # fmt: skip
    return _step(
        "readers_together", title, _Files(count * size, seen.seconds, max(firsts), {}, right), fetches,
        f"{counted(fetches, 'origin fetch', 'origin fetches')} for {count}, {CRC_NAME} right: {right}, "
        f"memory at most {format_size(peak.bytes)} more",
        [same("origin fetches", 1, fetches), same(f"{CRC_NAME} right", count, right),
         same("readers that failed", [], [str(error) for error in seen.errors]),
         same(f"{SHA_NAME} of the cached file right", True, kept == stage.digests[BIG].sha256),
         at_most("peak memory", MEMORY_LIMIT_BYTES, peak.bytes)],
        figures,
    )  # fmt: skip


def _sha256_of_file(stage: Stage) -> str:
    with stage.cache.open(BIG) as stream, open(stream.path(), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_files(stage: Stage, files: Sequence[RealFile]) -> _Files:
    """Read files one after the other, each compared with what lies on the disk."""
    readings: list[Reading] = []
    done = right = 0

    def moved(count: int) -> None:
        stage.watch.moved(done + count)

    for file in files:
        readings.append(read_object(stage.cache, file.name, hashlib.sha256(), moved))
        done += readings[-1].bytes
        with open(stage.path_of(file), "rb") as original:
            right += readings[-1].digest == hashlib.file_digest(original, "sha256").hexdigest()
    return _Files(
        done, sum(r.seconds for r in readings), median([r.first_byte_seconds for r in readings] or [0.0]),
        _tally(r.status for r in readings), right,
    )  # fmt: skip


def _step(
    name: str, title: str, of: Reading | _Files, fetches: int, seen: str, checks: Sequence[Check],
    figures: dict[str, Any] | None = None,
) -> Step:  # fmt: skip
    return step_of(
        name, title, seen, checks, seconds=of.seconds, count=of.bytes, fetches=fetches,
        first_byte_seconds=of.first_byte_seconds, figures=figures,
    )  # fmt: skip


def _bytes_of(files: Sequence[RealFile]) -> int:
    return sum(file.size for file in files)


def _sizes(files: Sequence[RealFile]) -> str:
    sizes = [file.size for file in files]
    return f"{format_size(min(sizes))} to {format_size(max(sizes))}" if sizes else "no size"


def _tally(statuses: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for status in statuses:
        counts[status] = counts.get(status, 0) + 1
    return counts


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
