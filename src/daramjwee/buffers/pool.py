"""The buffer pool: memory on loan, copies and tees, under one configuration and one ledger.

Invariant: arenas and private mappings of the pool are charged to its ledger; nothing is mapped before the first
request, and what is idle can be taken back by whoever else charges the ledger.
Threads: any, without a lock where a free chunk is at hand. No thread is ever started.
Design: docs/design/memory.md
"""

from __future__ import annotations

import sys
import threading
from bisect import bisect_left
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from daramjwee.buffers.chunks import Chunks, closed_error
from daramjwee.buffers.config import BufferPoolConfig, LeakDetection
from daramjwee.buffers.copy import Copy, CopyResult, run_copy
from daramjwee.buffers.lease import Lease
from daramjwee.buffers.ledger import MemoryLedger, parse_timeout, reset_after_fork
from daramjwee.buffers.pressure import EFFECTS, NORMAL
from daramjwee.buffers.stats import BufferPoolStats, CopyTally, since, snapshot
from daramjwee.errors import ConfigError, Problem
from daramjwee.model import SYSTEM_CLOCK, Clock
from daramjwee.units import Duration, Size, format_size, parse_size

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from daramjwee.buffers.arenas import Chunk
    from daramjwee.buffers.gate import Priority, Slot
    from daramjwee.buffers.pressure import PressureLevel
    from daramjwee.buffers.tee import ChunkedTeeReader

# The place of a lease is recorded when none of these bits is set in the uses of its chunk, and when the chunk is new:
# never, every 64th time, always. Recording costs as much as the whole lease.
_UNRECORDED = {LeakDetection.OFF: -1, LeakDetection.SAMPLED: 63, LeakDetection.FULL: 0}

_new_lease = Lease.__new__


class BufferPool:
    """Reused, page-aligned buffer memory. Use it with `with`, or `close` it.

    `ledger`: shared with others; without one the pool has its own, of `max_pool_bytes`. Free memory is kept for
    reuse, and goes back to the system by `maintain`, by `close`, and when somebody else needs the ledger's room.
    """

    fork_order = 1

    def __init__(
        self,
        config: BufferPoolConfig = BufferPoolConfig(),  # noqa: B008 - immutable
        *,
        ledger: MemoryLedger | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._config = config
        self._ledger = MemoryLedger(config.max_pool_bytes) if ledger is None else ledger
        self._clock = clock
        self._pressure: PressureLevel = NORMAL
        self._tally = CopyTally()
        self._tally_lock = threading.Lock()
        self._base = BufferPoolStats()
        self._unrecorded = _UNRECORDED[config.leak_detection]
        self._use(Chunks(config, self._ledger, clock))
        self._ledger.add_reclaimer(self._reclaim)
        reset_after_fork(self)

    def _use(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._sizes = chunks.sizes
        self._frees = chunks.frees
        self._largest = chunks.sizes[-1] if self._config.enabled else -1

    @property
    def config(self) -> BufferPoolConfig:
        return self._config

    @property
    def ledger(self) -> MemoryLedger:
        return self._ledger

    @property
    def closed(self) -> bool:
        return self._chunks.closed

    # -- memory ------------------------------------------------------------------------------------------

    def acquire(
        self, size: Size | None = None, *, timeout: Duration | None = None, priority: Priority | None = None
    ) -> Lease:
        """A lease of exactly `size` bytes (None: `default_buffer_size`), waiting at most `timeout` (None:
        `acquire_timeout`) for memory. On this pool `priority` has no effect: who waits is served first come, first
        served.

        Raises `LimitExceeded` when the ledger can never hold that much, `Overloaded` after the wait, `Closed`.
        """
        return self.lend(size, timeout=timeout)

    def lend(self, size: Size | None = None, *, timeout: Duration | None = None) -> Lease:
        """As `acquire`, and never held back by a gate: what copies, tees and fills use, which passed it before."""
        if timeout is not None:
            timeout = parse_timeout(timeout, "BufferPool.acquire")
        if type(size) is int and 0 <= size <= self._largest and not self._chunks.alert:
            try:
                chunk = self._frees[bisect_left(self._sizes, size)].pop()
            except IndexError:
                return self._acquire_slowly(size, timeout)
            uses = chunk.hits = chunk.hits + 1
            if not uses & self._unrecorded:
                _record_place(chunk)
            # What Lease(chunk, size) does, without the call: a seventh of the whole.
            lease = _new_lease(Lease)
            lease._chunk = chunk
            lease.size = size
            lease.view = memoryview(chunk.array).cast("B")[:size]
            return lease
        return self._acquire_slowly(size, timeout)

    def _acquire_slowly(self, size: Size | None, timeout: float | None) -> Lease:
        count = self._config.default_buffer_size if size is None else parse_count(size, "size", "acquire")
        return self._lease(count, timeout, private=False)

    def acquire_private(self, size: int, timeout: float) -> Lease:
        """Internal, for copies: a lease of memory mapped for it alone, given back to the system at its release."""
        return self._lease(size, timeout, private=True)

    def _lease(self, count: int, timeout: float | None, *, private: bool) -> Lease:
        seconds = self._config.acquire_timeout if timeout is None else timeout
        chunk = self._chunks.obtain(count, seconds, private=private)
        uses = chunk.hits + chunk.misses
        if not uses & self._unrecorded or (uses == 1 and self._unrecorded > 0):
            _record_place(chunk)
        return Lease(chunk, count)

    def _admit(self, size: int | None, need: int, timeout: float, priority: Priority | None) -> Slot | None:
        """The place of a copy of `size` bytes (None: unknown) that will lease `need`; None where there is no gate."""
        return None

    @property
    def pressure(self) -> PressureLevel:
        """The level of memory pressure that was noted last."""
        return self._pressure

    def relieve(self, level: PressureLevel) -> int:
        """Note the level of memory pressure; where it asks for that, give idle memory back at once. Bytes given back."""
        self._pressure = level
        return 0 if EFFECTS[level].keeps_idle else self._chunks.reclaim(self._config.max_pool_bytes)

    def maintain(self) -> int:
        """Give memory back to the system that nobody has used for `max_idle_age`; bytes given back."""
        return self._chunks.maintain(self._clock.monotonic())

    def _reclaim(self, count: int) -> int:
        return self._chunks.reclaim(count)

    # -- moving bytes ------------------------------------------------------------------------------------

    def copy(
        self,
        src: Any,
        dst: Any,
        size: int | None = None,
        *,
        limit: Size | None = None,
        timeout: Duration | None = None,
        priority: Priority | None = None,
        progress: Callable[[int, int | None], object] | None = None,
        cancel: Callable[[], object] | None = None,
    ) -> CopyResult:
        """Copy from `src` (readinto or read, or a socket) to `dst` (write, or a socket), from where both stand to
        the end of `src`, or `limit` bytes.

        `size`: what the caller expects; it only chooses how. `timeout`: how long to wait for memory.
        `priority` has no effect on this pool.
        `progress(bytes so far, size)` is called after each piece; `cancel()` before each, a true answer ends the
        copy there and the result says how far it came. The kernel copies where both ends are plain files, or a
        plain file and a plain socket. What `src` and `dst` raise passes through; an endpoint that would block
        raises `BlockingIOError`, whose `characters_written` is what was copied. `dst` must not keep the memory.
        """
        if self._chunks.closed:
            raise closed_error()
        began = perf_counter()
        run = Copy(
            None if size is None else parse_count(size, "size", "copy"),
            None if limit is None else parse_count(limit, "limit", "copy"),
            progress,
            getattr(cancel, "is_set", cancel),
        )
        seconds = self._config.acquire_timeout if timeout is None else parse_timeout(timeout, "BufferPool.copy")
        strategy = run_copy(run, src, dst, self, seconds)
        with self._tally_lock:
            self._tally.add(strategy, run.done)
        return CopyResult(run.done, run.chunks, strategy, perf_counter() - began)

    def tee(
        self, src: Any, sink: Any, size: Size | None = None, *, on_sink_error: Literal["raise", "drop"] = "raise"
    ) -> ChunkedTeeReader:
        """A reader of `src` that writes to `sink` what it hands out. `size`: what is expected; chooses the chunk.
        `on_sink_error`: "raise" to the reader, or "drop" the sink and read on."""
        from daramjwee.buffers.tee import ChunkedTeeReader

        expected = None if size is None else parse_count(size, "size", "tee")
        return ChunkedTeeReader(src, sink, self, expected, on_sink_error=on_sink_error)

    # -- what it did -------------------------------------------------------------------------------------

    def stats(self) -> BufferPoolStats:
        """A snapshot of the counters and of what is held. Also takes up what lost leases left."""
        return since(self._snapshot(), self._base)

    def reset_stats(self) -> None:
        """Count from now on. What is held now is not forgotten."""
        self._base = self._snapshot()

    def _snapshot(self) -> BufferPoolStats:
        counts = self._chunks.count()
        with self._tally_lock:
            return snapshot(counts, self._tally)

    # -- the end -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give all memory back to the system; what is on loan stays valid and follows when it is released.
        Who waits for memory gets `Closed`. Allowed more than once."""
        self._ledger.remove_reclaimer(self._reclaim)
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _after_fork_in_child(self) -> None:
        old = self._chunks
        old.orphan()
        self._tally_lock = threading.Lock()
        self._tally = CopyTally()
        self._base = BufferPoolStats()
        new = Chunks(self._config, self._ledger, self._clock)
        new.closed = new.alert = old.closed
        self._use(new)

    def __repr__(self) -> str:
        stats = self.stats()
        state = "closed" if self.closed else "open" if self._config.enabled else "disabled"
        quarantined = f", {stats.quarantined} quarantined" if stats.quarantined else ""
        return (
            f"<{type(self).__name__} {state}, {stats.active_buffers} leased "
            f"({format_size(stats.arena_bytes + stats.private_bytes)} mapped, ledger {format_size(self._ledger.held)} "
            f"of {format_size(self._ledger.limit)}){quarantined}, {stats.waiting} waiting>"
        )


def parse_count(value: Any, field: str, call: str) -> int:
    """Bytes given to the call `BufferPool.<call>` as `field`, or `ConfigError`."""
    if type(value) is int and value >= 0:
        return value
    try:
        return parse_size(value)
    except ValueError as error:
        raise ConfigError([Problem(field, value, str(error))], subject=f"BufferPool.{call}") from None


def _record_place(chunk: Chunk) -> None:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("daramjwee.buffers"):
        frame = frame.f_back
    chunk.place = (chunk.hits + chunk.misses, frame.f_code.co_filename, frame.f_lineno)
