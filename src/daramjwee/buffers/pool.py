"""The buffer pool: memory on loan, copies and tees, under one configuration and one ledger.

Invariant: arenas and private mappings of the pool are charged to its ledger; nothing is mapped before the first
request, and what is idle can be taken back by whoever else charges the ledger.
Threads: any, without a lock where a free chunk is at hand. One daemon thread of the process looks after all pools in use.
Design: docs/design/memory.md
"""

from __future__ import annotations

import sys
import threading
import weakref
from bisect import bisect_right
from collections.abc import Callable
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from daramjwee.buffers.allocation import allocation_now, collector
from daramjwee.buffers.arenas import INNER
from daramjwee.buffers.arguments import check_copy, check_kinds, check_request
from daramjwee.buffers.care import Care
from daramjwee.buffers.chunks import Chunks, closed_error
from daramjwee.buffers.config import BufferPoolConfig, LeakDetection
from daramjwee.buffers.copy import Copy, CopyResult, run_copy
from daramjwee.buffers.gate import Priority
from daramjwee.buffers.holdings import Refused
from daramjwee.buffers.lease import Lease, record_place
from daramjwee.buffers.ledger import MemoryLedger, reset_after_fork
from daramjwee.buffers.pressure import EFFECTS, NORMAL, MemoryPressure, PressureLevel
from daramjwee.buffers.reserve import RESERVE_BYTES, ReserveRoom, reserve
from daramjwee.buffers.short_way import short_way
from daramjwee.buffers.sizes import PAGE_SHIFT
from daramjwee.buffers.stats import BufferPoolStats
from daramjwee.buffers.strategy import ADAPTIVE, class_bounds
from daramjwee.buffers.tally import Tallies, stats_of
from daramjwee.buffers.upkeep import upkeep
from daramjwee.buffers.waiting import LOOK_AGAIN_SECONDS, wait_for_chunk_async
from daramjwee.errors import ConfigError, Problem
from daramjwee.model import SYSTEM_CLOCK, Clock
from daramjwee.units import Duration, Size, format_size

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from daramjwee.buffers.arenas import Chunk
    from daramjwee.buffers.gate import LargeOperationGate, Slot
    from daramjwee.buffers.insight.finding import Finding
    from daramjwee.buffers.insight.monitor import Monitor
    from daramjwee.buffers.tee import ChunkedTeeReader

_new_tuple = tuple.__new__
USUAL = Priority.NORMAL  # an access to a member costs several times as much as one to a module's name
AnyLease = TypeVar("AnyLease", bound=Lease)

# A lease is looked at closer when none of these bits is set in the uses of its chunk: every 64th time, always. That is
# when its place is recorded (unless that is off) and its size noted; both cost as much as the whole lease.
_UNMARKED = {LeakDetection.OFF: 63, LeakDetection.SAMPLED: 63, LeakDetection.FULL: 0}
SAMPLE_EVERY = 64
# Of leases that are served at once, so many are timed as one. A prime: programs like to do things in turns of 2, 4 or 10.
TIME_EVERY = 61


class BufferPool:
    """Reused, page-aligned buffer memory. Use it with `with`, or `close` it.

    `config`: its settings, all of them for the whole pool. `ledger`: shared with others; without one the pool has its own, of `max_pool_bytes`. Free memory is kept for
    reuse, and goes back to the system by `maintain`, by `close`, and when somebody else needs the ledger's room.
    `pressure`: where the level of memory pressure is read; without one, from this system. `clock`: for tests.
    """

    fork_order = 1
    _gated = False
    # Operations of so many bytes pass the gate, where there is one.
    _gate: LargeOperationGate | None = None
    _gated_from = sys.maxsize

    def __init__(
        self,
        config: BufferPoolConfig = BufferPoolConfig(),  # noqa: B008 - immutable
        *,
        ledger: MemoryLedger | None = None,
        pressure: MemoryPressure | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        check_kinds(config, ledger, pressure, clock)
        self._config = config
        self._ledger = MemoryLedger(config.max_pool_bytes) if ledger is None else ledger
        self._clock = clock
        self._pressure: PressureLevel = NORMAL
        self._care = Care(self, pressure)
        self.kept = False
        self._begin()
        self._sampling = threading.local()
        self._ticks = 0
        self._owns_ledger = ledger is None
        self._config_lock = threading.Lock()
        self._chunks = Chunks(config, self._ledger, clock, gated=self._gated)
        self._follow()
        self._chunks.tell_refusal = _teller(self)
        self._ledger.add_reclaimer(self._reclaim)
        reset_after_fork(self)

    def _follow(self) -> None:
        """Take over the configuration that holds for the chunks."""
        config = self._config = self._chunks.config
        self._unmarked = _UNMARKED[config.leak_detection]
        self._bounds = class_bounds(config)
        self._chooses = config.enabled and config.large_object_strategy is ADAPTIVE and config.chunk_size is None
        self._time_leases(wanted=config.enable_detailed_metrics and not self.closed)
        self._care.follow(config)
        if self._owns_ledger and self._ledger.limit != config.max_pool_bytes:
            self._ledger.resize(config.max_pool_bytes)

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
        self,
        size: Size | None = None,
        *,
        timeout: Duration | None = None,
        priority: Priority | None = Priority.NORMAL,
    ) -> Lease:
        """A lease of exactly `size` bytes (None: `default_buffer_size`), waiting at most `timeout` (a duration;
        None: `acquire_timeout`) for memory. On this pool `priority` has no effect: who waits is served first come, first
        served.

        Raises `LimitExceeded` when the ledger can never hold that much, `Overloaded` after the wait, `Closed`, and
        `ConfigError` for all that is wrong with the arguments.
        """
        if (timeout is not None and not (type(timeout) is float and timeout >= 0)) or (
            priority is not USUAL and priority is not None and type(priority) is not Priority
        ):
            _, timeout = check_request(size, timeout, priority)
        chunks = self._chunks
        try:
            if chunks.alert:
                return self._acquire_slowly(size, timeout, priority)
            # What is no number fails here; below 0 is counted from the table's end, and found out further down.
            chunk = chunks.open_table[(size - 1) >> PAGE_SHIFT].pop()  # type: ignore[operator]  # see above
        except (IndexError, TypeError):
            # None is free, the table does not reach so far, a gate is to be asked; or the size is to be parsed.
            return self._acquire_slowly(size, timeout, priority)
        gets = chunk.gets
        if size == chunk.size:
            # As in `_lease_of`, without the call: a seventh of the whole.
            rank = chunk.rank
            uses = gets[rank] = gets[rank] + 1
            if not uses & self._unmarked:
                self._mark(chunk, size, uses)
            lease = Lease()
            lease._chunk = chunk
            lease.size = size
            lease._view = chunk.buffer.raw()
            return lease
        if type(size) is not int or size <= 0:  # True is equal to no chunk's size either
            chunk.free.append(chunk)
            return self._acquire_slowly(size, timeout, priority)
        rank = bisect_right(self._bounds, size)
        uses = gets[rank] = gets[rank] + 1
        if not uses & self._unmarked:
            self._mark(chunk, size, uses)
        lease = Lease()
        lease._chunk = chunk
        lease.size = size
        if size > chunk.size:
            chunk.fit(chunk.capacity)
        lease._view = chunk.buffer.raw()[:size]
        return lease

    async def acquire_async(
        self,
        size: Size | None = None,
        *,
        timeout: Duration | None = None,  # noqa: ASYNC109 - the same parameters as `acquire`
        priority: Priority | None = Priority.NORMAL,
    ) -> Lease:
        """As `acquire` (`size` in bytes, `timeout` a duration, `priority`, and errors, too), waiting without holding up the
        event loop, in the same line. A cancelled wait leaves nothing behind; the lease is the same, and may be released
        from any thread or task."""
        count, seconds = self._parse_request(size, timeout, priority)
        began = perf_counter_ns()
        rank = bisect_right(self._bounds, count)
        chunk = self._chunks.at_once(count, rank)
        if chunk is None:  # not in a coroutine of its own: a thousand tasks may wait, each with all of theirs
            chunk = await wait_for_chunk_async(self._chunks, count, rank, seconds)
        lease = self._lease_of(chunk, count, Lease())
        if not (self.kept and upkeep.alive):
            upkeep.keep(self)
        if self._tallies.detailed:
            self._time_lease(lease, perf_counter_ns() - began, 1)
        return lease

    def _acquire_slowly(self, size: Size | None, timeout: Duration | None, priority: Priority | None) -> Lease:
        """What `acquire` does where no free chunk is at hand, or a gate is to be asked."""
        count, seconds = self._parse_request(size, timeout, None)
        rank = bisect_right(self._bounds, count)
        return self._lease_of(self._obtain(count, rank, seconds), count, Lease())

    def _obtain(self, count: int, rank: int, seconds: float, *, private: bool = False) -> Chunk:
        """A chunk by the slow path, and a look at whether somebody sees to this pool."""
        reserve.lay_by()
        chunk = self._chunks.obtain(count, rank, seconds, private=private)
        if not (self.kept and upkeep.alive):
            upkeep.keep(self)
        return chunk

    def _parse_request(
        self, size: Size | None, timeout: Duration | None, priority: Priority | None
    ) -> tuple[int, float]:
        count, seconds = check_request(size, timeout, priority)
        config = self._config
        return (
            config.default_buffer_size if count is None else count,
            config.acquire_timeout if seconds is None else seconds,
        )

    def lend(self, size: int, timeout: float, *, private: bool = False) -> Lease:
        """Internal, for copies and tees, which count as operations themselves: a lease past the gate, smaller than `size`
        when the system gives no more. `private`: of memory mapped for it alone, given back to the system at its release.
        """
        chunks = self._chunks
        if not (private or chunks.alert):
            try:
                chunk = chunks.table[(size - 1) >> PAGE_SHIFT].pop()
            except IndexError:
                pass  # none is free, or the table does not reach so far
            else:
                uses = chunk.gets[INNER] = chunk.gets[INNER] + 1
                if size != chunk.size:
                    return self._lease_of(chunk, size, Lease(), uses)
                # As there, without the call: between real copies, with cold caches, it costs as much as the rest.
                if not uses & self._unmarked:
                    self._mark(chunk, size, uses)
                lease = Lease()
                lease._chunk = chunk
                lease.size = size
                lease._view = chunk.buffer.raw()
                return lease
        try:
            chunk = self._obtain(size, INNER, timeout, private=private)
        except Refused as error:
            chunk = chunks.less(size, INNER, error)
            size = min(size, chunk.capacity)
        return self._lease_of(chunk, size, Lease())

    def lend_reserve(self, timeout: float, refused: Refused) -> Lease | ReserveRoom:
        """Internal, for a copy that the system `refused` memory: the process's reserve when its turn comes, or a small
        chunk if one is to be had meanwhile; else raises `refused`."""
        until = monotonic() + timeout
        while reserve.chunk is not None:
            left = until - monotonic()
            room = reserve.borrow(max(0.0, min(left, LOOK_AGAIN_SECONDS)))
            if room is not None:
                self._tallies.count_reserve_use()
                return room
            if left <= 0:
                break
            try:
                chunk = self._chunks.less(RESERVE_BYTES + 1, INNER, refused)
                return self._lease_of(chunk, min(RESERVE_BYTES, chunk.capacity), Lease())
            except Refused:
                continue
        raise refused

    def _lease_of(self, chunk: Chunk, count: int, lease: AnyLease, uses: int = 0) -> AnyLease:
        """`lease`, newly made, of `count` bytes of a chunk that was taken for it, for the `uses`th time of its kind (0: not
        known)."""
        if not uses:
            uses = chunk.uses
        if not uses & self._unmarked or uses == 1:
            self._mark(chunk, count, uses)
        if count > chunk.size:
            chunk.fit(chunk.capacity)
        lease._chunk = chunk
        lease.size = count
        lease._view = chunk.buffer.raw()[:count]
        return lease

    def _mark(self, chunk: Chunk, size: int, uses: int) -> None:
        """Record who has the chunk, and what was asked for."""
        if self._config.leak_detection is not LeakDetection.OFF:
            record_place(chunk, whole=self._config.leak_detection is LeakDetection.FULL)
        if uses % SAMPLE_EVERY == 0:
            self._chunks.sample(size, SAMPLE_EVERY)
            if size != chunk.size:
                chunk.fit_what_is_usual(size)

    # -- how long leases take ----------------------------------------------------------------------------

    def _time_leases(self, *, wanted: bool) -> None:
        """Time leases from now on, or no more. What times them takes the place of what does not: so they cost nothing
        while nobody wants to know."""
        # Each step may be done again: an interrupt, a fork or another thread may have come between any two.
        if wanted:
            collector.watch(self)
            self.acquire = self._acquire_timed  # type: ignore[method-assign]
            self._acquire_slowly = self._acquire_slowly_timed  # type: ignore[method-assign]
        self._tallies.detailed = wanted
        if not wanted or self.closed:  # closed meanwhile, perhaps, by who found nothing to undo
            self._tallies.detailed = False
            # Not by `vars`: once a pool's dictionary has been asked for, CPython 3.11 finds its attributes a tenth of a lease
            # slower.
            for name in ("acquire", "_acquire_slowly"):
                try:
                    delattr(self, name)
                except AttributeError:
                    pass  # it is timed no more, or never was
            collector.unwatch(self)

    def _acquire_timed(
        self,
        size: Size | None = None,
        *,
        timeout: Duration | None = None,
        priority: Priority | None = Priority.NORMAL,
    ) -> Lease:
        tick = self._ticks = self._ticks + 1  # of threads that count at once one may be lost: it is a sample
        if tick % TIME_EVERY:
            return type(self).acquire(self, size, timeout=timeout, priority=priority)
        sampling = self._sampling
        sampling.hit = True
        began = perf_counter_ns()
        lease = type(self).acquire(self, size, timeout=timeout, priority=priority)
        elapsed = perf_counter_ns() - began
        if sampling.hit:  # else it was timed on its way
            self._time_lease(lease, elapsed, TIME_EVERY)
        return lease

    def _acquire_slowly_timed(self, size: Size | None, timeout: Duration | None, priority: Priority | None) -> Lease:
        self._sampling.hit = False
        began = perf_counter_ns()
        lease = type(self)._acquire_slowly(self, size, timeout, priority)
        self._time_lease(lease, perf_counter_ns() - began, 1)
        return lease

    def _time_lease(self, lease: Lease, nanoseconds: int, weight: int) -> None:
        assert lease._chunk is not None
        direct = self._chunks.is_private(lease._chunk)
        rank = bisect_right(self._bounds, lease.size)
        self._tallies.time_lease(rank, direct=direct, nanoseconds=nanoseconds, weight=weight)

    def _admit(self, size: int | None, need: int, timeout: float, priority: Priority | None) -> Slot | None:
        """The place of a copy of `size` bytes (None: unknown) that will lease `need`; None where there is no gate."""
        return None

    def reconfigure(self, config: BufferPoolConfig) -> None:
        """Use `config` from now on, whole. Leases that are out and copies under way finish as they began; who waits for
        memory waits under the new limits. A pool with a ledger of its own also changes its limit to `max_pool_bytes`.

        Raises `TypeError` for what is no `BufferPoolConfig`, `Closed`.
        """
        if not isinstance(config, BufferPoolConfig):
            raise TypeError(
                f"reconfigure takes a BufferPoolConfig, not {type(config).__name__}: use config.replace(...)"
            )
        if self._chunks.closed:
            raise closed_error()
        with self._config_lock:
            try:
                self._chunks.reconfigure(config)
            finally:
                # An interrupt came before or after the one step that counts: either way, follow it.
                self._follow()

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
        priority: Priority | None = Priority.NORMAL,
        progress: Callable[[int, int | None], object] | None = None,
        cancel: Callable[[], object] | None = None,
    ) -> CopyResult:
        """Copy from `src` (readinto or read, or a socket) to `dst` (write, or a socket), from where both stand to
        the end of `src`, or `limit` bytes.

        `size`: what the caller expects; it only chooses how (`select_strategy`). `timeout`: how long to wait for memory
        and, where there is a gate, for a place in it, in the order of `priority`. `progress(bytes so far, size)` is
        called 20 times a second at most, and at the end; `cancel()` before each piece, a true answer ends the copy
        there and the result says how far it came. What `src` and `dst` raise passes through; an end that would block
        raises `BlockingIOError`, whose `characters_written` is what was copied. `dst` must not keep the memory.

        Raises `Overloaded` after the wait and where the line is full, `LimitExceeded` when the memory can never be had,
        `Closed`, and `ConfigError` for all that is wrong with the arguments: nothing was read then.
        """
        if self._chunks.closed:
            raise closed_error()
        if not self.kept:
            upkeep.keep(self)
        began = perf_counter_ns()
        moved = None
        if (
            limit is None and timeout is None and progress is None and cancel is None
            and (priority is USUAL or priority is None or type(priority) is Priority)
            and (size is None or (type(size) is int and size >= 0))
        ):  # fmt: skip
            if self._chooses and self._pressure is NORMAL:
                moved = short_way(self, src, dst, size, priority)
        else:
            size, limit, timeout, cancel = check_copy(size, limit, timeout, priority, progress, cancel)
        if moved is None:
            run = Copy(size, limit, progress, cancel)
            seconds = self._config.acquire_timeout if timeout is None else timeout
            moved = run_copy(run, src, dst, self, seconds, priority)
        done, chunks, strategy, fallback = moved
        elapsed = perf_counter_ns() - began
        self._tallies.count(done, chunks, strategy, self._bounds, elapsed, fallback=fallback)
        return _new_tuple(CopyResult, (done, chunks, strategy, elapsed / 1e9))

    def tee(
        self, src: Any, sink: Any, size: Size | None = None, *, on_sink_error: Literal["raise", "drop"] = "raise"
    ) -> ChunkedTeeReader:
        """A reader of `src` that writes to `sink` what it hands out. `size`: what is expected; chooses the chunk.
        `on_sink_error`: "raise" to the reader, or "drop" the sink and read on. `Closed` where the pool is, `ConfigError` for
        all that is wrong with the arguments."""
        from daramjwee.buffers.tee import ChunkedTeeReader

        return ChunkedTeeReader(src, sink, self, size, on_sink_error=on_sink_error)

    # -- what it did -------------------------------------------------------------------------------------

    def stats(self) -> BufferPoolStats:
        """A snapshot of the counters and of what is held. Also takes up what lost leases left."""
        base = self._base  # first: a reset meanwhile would make a base that is later than the snapshot
        return self._snapshot().since(base)

    def reset_stats(self) -> None:
        """Count from now on, and take the peak anew. What is held now is not forgotten."""
        self._chunks.reset_peak()
        self._base = self._snapshot()

    def _begin(self) -> None:
        """Count from nothing: in a new pool, and in a forked child."""
        self._tallies = Tallies()
        self._base = BufferPoolStats(allocation=allocation_now())
        self._born = self._clock.monotonic()

    def _snapshot(self) -> BufferPoolStats:
        return stats_of(
            self._chunks.count(),
            self._tallies,
            ledger_held=self._ledger.held,
            ledger_limit=self._ledger.limit,
            pressure=self._pressure,
            system_pressure=self._care.system_level,
            seconds=self._clock.monotonic() - self._born,
            sizes=self._chunks.asked(),
            allocation=allocation_now(),
        )

    # -- how it fares ------------------------------------------------------------------------------------

    @property
    def pressure(self) -> PressureLevel:
        """The level of memory pressure that was noted last."""
        return self._pressure

    @property
    def memory_pressure(self) -> MemoryPressure:
        """Where the level is read."""
        return self._care.sources

    @property
    def monitor(self) -> Monitor:
        """Trends and alerts of this pool."""
        return self._care.monitor

    def relieve(self, level: PressureLevel) -> int:
        """Tell the pool of a `level` of memory pressure that it cannot see itself: it holds, as the least, until another is
        told. Where the level asks for that, idle memory goes back at once, and while it lasts none is kept; bytes given
        back. `ConfigError` for what is no `PressureLevel`."""
        try:
            level = PressureLevel(level)
        except ValueError:
            mend = "must be a PressureLevel, such as PressureLevel.HIGH"
            raise ConfigError([Problem("level", level, mend)], subject="BufferPool.relieve") from None
        return self._care.tell(level)

    def _feel(self, level: PressureLevel) -> int:
        """Be under the pressure of `level` from now on; bytes given back."""
        self._pressure = level
        freed = 0
        while True:
            keeps = EFFECTS[self._pressure].keeps_idle
            freed += self._chunks.relieve(keeps_idle=keeps)
            # Another thread may have told of another level meanwhile, and have been overtaken here.
            if keeps is EFFECTS[self._pressure].keeps_idle:
                return freed

    def maintain(self) -> int:
        """Give memory back to the system that nobody has used for `max_idle_age`, fit the sizes of chunks to what was asked
        for, take up lost leases, look at the pressure on memory, and at what alerts are set on; bytes given back. A thread
        of the process calls it as often as needed while the pool has memory or is under pressure."""
        return self._care.maintain(self._clock.monotonic())

    def look_after(self) -> float | None:
        """Internal, for that thread: do what is due; seconds until the next time, None when nothing is held and nothing is
        wrong."""
        return self._care.look_after(self._clock.monotonic())

    def health(self) -> tuple[Finding, ...]:
        """What is wrong with this pool now, and what to do about it; empty when all is well."""
        from daramjwee.buffers.insight.health import health

        return health(
            self.stats(),
            self._config,
            closed=self.closed,
            places=self._chunks.lost_places(),
            pressure_reason=self._care.reason,
        )

    # -- the end -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give all memory back to the system; what is on loan stays valid and follows when it is released.
        Who waits for memory gets `Closed`. Allowed more than once."""
        self._ledger.remove_reclaimer(self._reclaim)
        self._chunks.close()
        upkeep.leave(self)
        self._time_leases(wanted=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a buffer pool cannot be pickled or copied: its memory belongs to this process; send its config, and make a "
            "pool of it there"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _after_fork_in_child(self) -> None:
        old = self._chunks
        old.orphan()
        self._time_leases(wanted=False)
        self._config_lock = threading.Lock()
        self._care.after_fork()
        self._begin()
        new = Chunks(old.config, self._ledger, self._clock, gated=self._gated)
        new.closed = new.alert = old.closed
        new.keeps_idle = old.keeps_idle
        new.tell_refusal = old.tell_refusal
        self._chunks = new
        self._follow()

    def __repr__(self) -> str:
        stats = self.stats()
        state = "closed" if self.closed else "open" if self._config.enabled else "disabled"
        quarantined = f", {stats.quarantined} quarantined" if stats.quarantined else ""
        return (
            f"<{type(self).__name__} {state}, {stats.active_buffers} leased "
            f"({format_size(stats.arena_bytes + stats.private_bytes)} mapped, ledger {format_size(self._ledger.held)} "
            f"of {format_size(self._ledger.limit)}){quarantined}, {stats.waiting} waiting>"
        )


def _teller(pool: BufferPool) -> Callable[[str], object]:
    """Tells the pool that the system refused memory, and does not keep it alive."""
    ref = weakref.ref(pool)

    def tell(said: str) -> None:
        found = ref()
        if found is not None:
            found._care.note_refusal(said)

    return tell
