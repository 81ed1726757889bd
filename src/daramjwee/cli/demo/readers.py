"""Threads that read one object, each checking every byte that it is given.

A CRC-32C is what each of many readers can afford (49 us/MiB in hardware, SHA-256 673); no single wrong byte, no burst
of up to 32 bits and no two exchanged blocks get past it unseen but by a chance of one in four thousand million.

Invariant: every thread that was started has ended when `read_together` returns or raises.
Threads: one for each reader; the caller's waits and looks on.
Design: docs/cli.md
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

from daramjwee import Cache

# What a reader holds, leased from the cache's own pool: 32 of them 2 MiB. With 128 KiB (which takes chunks of 256) the
# peak of `daramjwee demo` is 7 MiB instead of 3, and nothing is faster.
READER_BYTES = 64 * 1024
LOOK_SECONDS = 0.1


class Reading(NamedTuple):
    """What one reader got. `left`: it closed its stream before the end, on purpose."""

    status: str
    bytes: int
    digest: str
    first_byte_seconds: float
    seconds: float
    left: bool


class Crowd(NamedTuple):
    """What all readers got, and the time from the first start to the last end. `errors`: of those that failed."""

    readings: list[Reading]
    errors: list[BaseException]
    seconds: float


def read_together(
    cache: Cache, key: str, count: int, moved: Callable[[int], object], *, leaver_at: int | None = None
) -> Crowd:
    """`count` threads open `key` at once and read it to the end. With `leaver_at` one opens it first, and the others
    when it has its first bytes; it closes its stream after that many."""
    from crc32c import CRC32CHash

    start = threading.Barrier(count)
    leaver_is_in = threading.Event()
    stop = threading.Event()
    done = [0] * count
    readings: list[Reading] = []
    errors: list[BaseException] = []

    def run(index: int) -> None:
        leaves = leaver_at is not None and index == 0
        try:
            start.wait()
            if leaver_at is not None and not leaves:
                leaver_is_in.wait()
            reading = read_object(
                cache, key, CRC32CHash(), functools.partial(done.__setitem__, index),
                leave_at=leaver_at if leaves else None, begun=leaver_is_in.set, stop=stop.is_set,
            )  # fmt: skip
            readings.append(reading)
        except BaseException as error:  # noqa: BLE001 - told to the thread that asked, which decides
            errors.append(error)
        finally:
            if leaves:
                leaver_is_in.set()

    threads = [threading.Thread(target=run, args=(i,), name=f"reader {i}", daemon=True) for i in range(count)]
    begin = perf_counter()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(LOOK_SECONDS)
                moved(sum(done))
    except BaseException:
        stop.set()
        start.abort()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        raise
    return Crowd(readings, errors, perf_counter() - begin)


def read_object(
    cache: Cache,
    key: str,
    digest: Any,
    moved: Callable[[int], object],
    *,
    leave_at: int | None = None,
    begun: Callable[[], object] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> Reading:
    """Open `key` and read it to its end (or past `leave_at`), each piece into `digest`.

    `moved` is told the bytes so far, `begun` when the first are there; `stop` ends it early.
    """
    done = 0
    begin = perf_counter()
    with cache.buffers.acquire(READER_BYTES) as lease, cache.open(key) as stream:
        view = lease.view
        # The first bytes as soon as there are any, the rest in whole buffers.
        count = stream.readinto1(view)
        first = perf_counter() - begin
        begun()
        while count and not stop():
            digest.update(view[:count])
            done += count
            moved(done)
            if leave_at is not None and done >= leave_at:
                break
            count = stream.readinto(view)
        status = stream.status.name
    return Reading(status, done, digest.hexdigest(), first, perf_counter() - begin, leave_at is not None)
