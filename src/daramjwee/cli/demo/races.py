"""The steps in which something is taken away: a reader that leaves, a key that is deleted or replaced while it fills.

The race is held open on purpose: the fill stands at half of its bytes until the change was made, so it is never over
before the change nor begun after it.

Invariant: as in `steps`.
Threads: one; readers are started and waited for.
Design: docs/cli.md
"""

from __future__ import annotations

import threading
from time import perf_counter
from typing import Any

from daramjwee import FetchRequest, FetchResult
from daramjwee.cli.demo.readers import read_together
from daramjwee.cli.demo.record import Check, Step, same, step_of
from daramjwee.cli.demo.stage import DELETED, PART, REPLACED, Stage
from daramjwee.units import format_size

LEAVING_READERS = 4
# A fill that is held stands no longer than this, whatever becomes of the thread that holds it.
HOLD_SECONDS = 60.0
NEW_BYTES = b"the new state of this key"


def reader_leaves(stage: Stage) -> Step:
    """The reader that began the fill leaves half-way; the others must not notice."""
    size = stage.settings.part_bytes
    title = "a reader leaves half-way"
    stage.origin.reset()
    stage.watch.began(title, (LEAVING_READERS - 1) * size + size // 2)
    crowd = read_together(stage.cache, PART, LEAVING_READERS, stage.watch.moved, leaver_at=size // 2)
    fetches = stage.fetched()
    left = [r for r in crowd.readings if r.left]
    stayed = [r for r in crowd.readings if not r.left]
    right = sum(r.digest == stage.digests[PART].crc32c and r.bytes == size for r in stayed)
    checks = [
        same("readers that left before the end", 1, sum(r.bytes < size for r in left)),
        same("CRC-32C right of those that stayed", LEAVING_READERS - 1, right),
        same("readers that failed", [], [str(error) for error in crowd.errors]),
        same("origin fetches", 1, fetches),
        same("in the cache afterwards", True, PART in stage.cache),
    ]
    went = format_size(sum(r.bytes for r in left))
    return step_of(
        "reader_leaves", title,
        f"the one that began the fill went after {went} of {format_size(size)}; {right} others have every byte",
        checks, seconds=crowd.seconds, count=sum(r.bytes for r in crowd.readings), fetches=fetches,
        first_byte_seconds=max((r.first_byte_seconds for r in crowd.readings), default=None),
    )  # fmt: skip


def delete_races_fill(stage: Stage) -> Step:
    """A key is deleted, and another replaced, while an older fill of it runs."""
    title = "delete during a fill"
    size = stage.settings.race_bytes
    stage.origin.reset()
    stage.watch.began(title, 2 * size)
    begin = perf_counter()
    checks: list[Check] = []
    old = _change_while_filling(stage, DELETED, lambda: stage.cache.delete(DELETED), checks, 0)
    old += _change_while_filling(stage, REPLACED, lambda: stage.cache.set(REPLACED, NEW_BYTES), checks, size)
    checks.append(same("deleted key is gone", False, DELETED in stage.cache))
    checks.append(same("replaced key has the new bytes", True, stage.cache.get(REPLACED) == NEW_BYTES))
    # Whatever a fill still had to do is done when the cache is closed.
    stage.reopen()
    checks.append(same("deleted key is gone after a restart", False, DELETED in stage.cache))
    checks.append(same("replaced key has the new bytes after a restart", True, stage.cache.get(REPLACED) == NEW_BYTES))
    with stage.cache.open(DELETED, on_orphan="abort") as stream:
        status = stream.status.name
        stream.readinto1(bytearray(1))
    checks.append(same("reading the deleted key again asks the origin", "MISS", status))
    fetches = stage.fetched()
    checks.append(same("origin fetches", 3, fetches))
    return step_of(
        "delete_races_fill", title,
        "deleted, and replaced: the old readers get all their bytes, the cache never again, nor after a restart",
        checks, seconds=perf_counter() - begin, count=old, fetches=fetches,
    )  # fmt: skip


def _change_while_filling(stage: Stage, key: str, change: Any, checks: list[Check], already: int) -> int:
    """Start a fill, make the change while it stands half-way, let it end; the bytes its reader got."""
    size = stage.settings.race_bytes
    hold = _Hold(stage.http, size // 2)
    done = 0
    try:
        with stage.cache.open(key, hold) as stream:
            buffer = bytearray(64 * 1024)
            done += stream.readinto1(buffer)
            checks.append(same(f"{key}: a fill runs when it is changed", True, stage.cache.stats().flights > 0))
            change()
            hold.release()
            while count := stream.readinto(buffer):
                done += count
                stage.watch.moved(already + done)
    finally:
        hold.release()
    checks.append(same(f"{key}: bytes that its reader got", size, done))
    return done


class _Hold:
    """A fetcher whose body stands still at a given byte until `release`."""

    def __init__(self, fetch: Any, at: int) -> None:
        self._fetch = fetch
        self._at = at
        self._released = threading.Event()
        self.release = self._released.set

    def __call__(self, request: FetchRequest) -> FetchResult:
        result: FetchResult = self._fetch(request)
        result.body = _HeldBody(result.body, self._at, self._released)
        return result


class _HeldBody:
    def __init__(self, body: Any, at: int, released: threading.Event) -> None:
        self._body = body
        self._left = at
        self._released = released
        self.close = body.close

    def read1(self, size: int) -> bytes:
        if self._left <= 0:
            self._released.wait(HOLD_SECONDS)
        data: bytes = self._body.read1(size if self._left <= 0 else min(size, self._left))
        self._left -= len(data)
        return data

    read = read1
