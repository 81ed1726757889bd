"""chunked_copy: a copy through one reused chunk, whatever strategy is configured.

Invariant: the memory is chosen, and the gate passed, before any byte moves, so that a fallback neither loses nor
repeats one. Whatever ends the copy, the memory is given back.
Threads: a copy runs in its caller's thread.
Design: docs/design/memory.md
"""

from __future__ import annotations

import logging
import mmap
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any

from daramjwee.buffers.arguments import bytes_of, cancel_of, check_priority, check_progress, seconds_of
from daramjwee.buffers.chunks import closed_error
from daramjwee.buffers.config import LARGEST_SIZE, BufferPoolConfig
from daramjwee.buffers.copy import REFUSED, CopyResult, fell_back, lend, note, sink_for, through
from daramjwee.buffers.endpoints import source_of
from daramjwee.buffers.gate import Priority
from daramjwee.buffers.holdings import Refused
from daramjwee.buffers.moving import ENDLESS, Copy
from daramjwee.buffers.pressure import NORMAL
from daramjwee.buffers.strategy import CHUNKED, select_strategy
from daramjwee.errors import ConfigError, LimitExceeded, Overloaded, Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from daramjwee.buffers.lease import Lease
    from daramjwee.buffers.pool import BufferPool
    from daramjwee.buffers.reserve import ReserveRoom
    from daramjwee.units import Duration, Size

logger = logging.getLogger(__name__)

_DEFAULTS = BufferPoolConfig()


class OwnChunk:
    """Page-aligned memory for one copy, of no pool."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self._memory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.view.release()
            self._memory.close()
        except BufferError:
            pass  # a source or sink kept a view: the memory goes when that does


def chunked_copy(
    src: Any,
    dst: Any,
    size: int | None = None,
    *,
    pool: BufferPool | None = None,
    chunk_size: Size | None = None,
    limit: Size | None = None,
    timeout: Duration | None = None,
    priority: Priority | None = Priority.NORMAL,
    progress: Callable[[int, int | None], object] | None = None,
    cancel: Callable[[], object] | None = None,
) -> CopyResult:
    """Copy from `src` to `dst` through one reused chunk, from where both stand to the end of `src`, or `limit` bytes.

    The same as `BufferPool.copy`, but never by the kernel or in one piece. `chunk_size` is obeyed; without it the chunk
    follows from the `size` that is expected, both ends, the pool's configuration and its memory pressure. Without a `pool` the chunk is
    mapped for this call alone. With one it is leased, after the pool's gate (which raises `Overloaded` as for any copy).
    Where no such chunk is free within `timeout` (None: `acquire_timeout`), one of `min_buffer_size` serves if that is
    free, which counts as a fallback; else `Overloaded` or `LimitExceeded` is raised, and no byte was moved.

    `limit` (bytes), `timeout` (a duration), `priority`, `progress` and `cancel`: as of `BufferPool.copy`. `ConfigError` for
    a wrong argument, `Closed` where the pool is.
    """
    began = perf_counter_ns()
    problems: list[Problem] = []
    size = bytes_of(size, "size", problems, most=LARGEST_SIZE)
    most = bytes_of(limit, "limit", problems, most=LARGEST_SIZE)
    given = bytes_of(chunk_size, "chunk_size", problems, least=1, most=LARGEST_SIZE)
    seconds = seconds_of(timeout, problems)
    check_priority(priority, problems)
    check_progress(progress, problems)
    stop = cancel_of(cancel, problems)
    if pool is not None and not hasattr(pool, "_admit"):
        problems.append(Problem("pool", pool, "must be a BufferPool or None"))
    if problems:
        raise ConfigError(problems, subject="chunked_copy")
    if pool is not None and pool.closed:
        raise closed_error()
    run = Copy(size, most, progress, stop)
    config = _DEFAULTS if pool is None else pool.config
    if seconds is None:
        seconds = config.acquire_timeout
    source = source_of(src)
    expected = source.rest or run.size
    if run.limit != ENDLESS:
        expected = run.limit if expected is None else min(expected, run.limit)
    sink = sink_for(run, dst, expected)
    chunk = given
    if chunk is None:
        pressure, bound = (NORMAL, None) if pool is None else (pool.pressure, pool.ledger.limit)
        chunk = select_strategy(
            expected, config, src=source.kind, dst=sink.kind, pressure=pressure, most=bound
        ).chunk_size
    if logger.isEnabledFor(logging.DEBUG):
        reason = (
            "chunked_copy, with a chunk chosen for it" if given is None else "chunked_copy, with a chunk_size given"
        )
        _tell(expected, type(src).__name__, type(dst).__name__, chunk, reason)
    waited = monotonic()
    # No more than there can be: a chunk that can never be had is served by a small one, behind the gate too.
    slot = None if pool is None else pool._admit(expected, min(chunk, pool.ledger.limit), seconds, priority)
    try:
        if source.readinto is None:
            run.by_reads(chunk, src, sink)
        else:
            left = max(0.0, waited + seconds - monotonic())
            with _own_chunk(run, chunk) if pool is None else _borrow(run, pool, chunk, left) as room:
                through(run, room, source, src, sink, dst)
    except OSError as error:
        note(run, error)
        raise
    finally:
        if slot is not None:
            slot.release()
    run.tell_end()
    elapsed = perf_counter_ns() - began
    if pool is not None:
        fallback = run.fallback is not None
        pool._tallies.count(run.done, run.chunks, CHUNKED, pool._bounds, elapsed, fallback=fallback)
    return CopyResult(run.done, run.chunks, CHUNKED, elapsed / 1e9)


def _tell(size: int | None, source: str, sink: str, chunk: int, reason: str) -> None:
    """The same record as of every other copy: how, and why."""
    fields = {
        "event": "pool.copy", "size": size, "source": source, "sink": sink, "strategy": CHUNKED.value,
        "chunk_size": chunk, "reason": reason,
    }  # fmt: skip
    logger.debug(
        "copy of %s bytes from %s to %s: %s, %d at a time: %s",
        size, source, sink, CHUNKED.value, chunk, reason, extra=fields,
    )  # fmt: skip


def _own_chunk(run: Copy, size: int) -> OwnChunk:
    """Memory of this copy, half as much as long as the system gives no more."""
    while True:
        try:
            return OwnChunk(size)
        except (OSError, MemoryError) as error:
            if size <= mmap.PAGESIZE:
                raise Refused(size, str(error) or type(error).__name__) from error
            if run.fallback is None:
                fell_back(run, REFUSED)
            size //= 2


def _borrow(run: Copy, pool: BufferPool, chunk: int, timeout: float) -> Lease | ReserveRoom:
    """A chunk of the pool: as wanted, else the smallest if that is free, or what there is when the system gives none."""
    try:
        return lend(run, pool, chunk, timeout)
    except (Overloaded, LimitExceeded) as error:
        small = pool.config.min_buffer_size
        if small >= chunk or isinstance(error, Refused):
            raise
        try:
            lease = pool.lend(small, 0)
        except (Overloaded, LimitExceeded):
            raise error from None  # what was asked for tells more than what was tried instead
        fell_back(run, f"no chunk to copy through ({type(error).__name__}): a small one serves")
        return lease
