"""The adaptive pool: a buffer pool whose large operations pass a gate, a bounded number at a time.

Invariant: at most `max_concurrent_large_ops` large operations run at once, and the bytes they have asked for fit the
ledger together; an operation asks the gate once, before it holds anything, and never again while it holds.
Threads: any.
Design: docs/design/strategy.md
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from time import perf_counter_ns
from typing import TYPE_CHECKING

import msgspec

from daramjwee.buffers.config import BufferPoolConfig
from daramjwee.buffers.gate import LargeOperationGate, Priority
from daramjwee.buffers.lease import Lease
from daramjwee.buffers.pool import AnyLease, BufferPool
from daramjwee.buffers.pressure import EFFECTS
from daramjwee.buffers.sizes import PAGE_SHIFT
from daramjwee.buffers.upkeep import upkeep
from daramjwee.buffers.waiting import wait_for_chunk_async
from daramjwee.model import SYSTEM_CLOCK, Clock
from daramjwee.units import format_size

if TYPE_CHECKING:
    from types import TracebackType

    from daramjwee.buffers.gate import Slot
    from daramjwee.buffers.ledger import MemoryLedger
    from daramjwee.buffers.pressure import MemoryPressure, PressureLevel
    from daramjwee.buffers.stats import BufferPoolStats
    from daramjwee.units import Duration, Size


class GatedLease(Lease):
    """A lease that is a large operation: its release also gives the place in the gate back."""

    __slots__ = ("_slot",)

    _slot: Slot

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            Lease.__exit__(self, kind, error, traceback)
        finally:  # an interrupt, too: the place would stay taken as long as somebody keeps the lease
            self._slot.release()

    def release(self) -> None:
        """Give the memory and the place in the gate back. `LeaseError` when that was done before."""
        try:
            super().release()
        finally:
            self._slot.release()

    def __del__(self) -> None:
        # Lost: said once, for the memory. The place goes back without a lock, as everything does in a finalizer.
        try:
            if self._chunk is None:
                return
            self._slot.lose()
        except AttributeError:
            pass  # its making was interrupted: a place without a lease goes back by itself
        self._lose()


class AdaptiveBufferPool(BufferPool):
    """A `BufferPool` with a gate: of its large operations a bounded number runs at once, the others wait in line.

    Large is a lease of `large_object_threshold` bytes or more, until it is released, and a copy of that size or of
    unknown size, while it runs. `max_concurrent_large_ops` run at once; up to `max_queued_large_ops` wait, by
    `Priority` and without starvation. A full line and a wait beyond the timeout raise `Overloaded`.

    Work that belongs to a large operation that has its place already (a copy inside of a lease, say) passes
    `priority=None`, or it could wait for itself. Its `timeout` covers both waits, for a place and for memory.

    `config`, `ledger`, `pressure`, `clock`: as of `BufferPool`.
    """

    _gated = True

    def __init__(
        self,
        config: BufferPoolConfig = BufferPoolConfig(),  # noqa: B008 - immutable
        *,
        ledger: MemoryLedger | None = None,
        pressure: MemoryPressure | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(config, ledger=ledger, pressure=pressure, clock=clock)
        self.gate = self._gate = LargeOperationGate(
            config.max_concurrent_large_ops, self._ledger.limit, max_queued=config.max_queued_large_ops, clock=clock
        )
        self._gated_from = _gated_from(config)
        self._ledger.follow(self._fit_gate)  # others may share it, and its owner change its limit

    def _acquire_slowly(self, size: Size | None, timeout: Duration | None, priority: Priority | None) -> Lease:
        if priority is None:
            if timeout is None and type(size) is int and size > 0:  # as every fill asks
                return self._fill(Lease(), size, self._config.acquire_timeout)
            return self._fill(Lease(), *self._parse_request(size, timeout, None))
        if timeout is None and type(size) is int and size > 0:
            count, seconds = size, self._config.acquire_timeout  # as below, for what is asked for often
        else:
            count, seconds = self._parse_request(size, timeout, None)
        if count < self._gated_from:
            return super()._acquire_slowly(count, seconds, None)
        lease = GatedLease()
        slot = self.gate.take_free(count)
        if slot is None:
            began = self._clock.monotonic()
            slot = self.gate.acquire(count, priority=priority, timeout=seconds)
            seconds = max(0.0, began + seconds - self._clock.monotonic())
        lease._slot = slot
        slot._place.leased = True
        try:
            return self._fill(lease, count, seconds)
        except BaseException:
            slot.release()
            raise

    def _fill(self, lease: AnyLease, count: int, seconds: float) -> AnyLease:
        """The lease with memory: of a free chunk of at least `count` bytes, else as `Chunks.obtain`."""
        chunks = self._chunks
        if not chunks.alert and count > 0:
            try:
                chunk = chunks.table[(count - 1) >> PAGE_SHIFT].pop()
            except IndexError:
                pass  # none is free, or the table does not reach so far
            else:
                gets = chunk.gets
                if count != chunk.size:
                    rank = bisect_right(self._bounds, count)
                    uses = gets[rank] = gets[rank] + 1
                    return self._lease_of(chunk, count, lease, uses)
                # As in `_lease_of`, without the call: a twentieth of the whole.
                rank = chunk.rank
                uses = gets[rank] = gets[rank] + 1
                if not uses & self._unmarked or uses == 1:
                    self._mark(chunk, count, uses)
                lease._chunk = chunk
                lease.size = count
                lease._view = chunk.buffer.raw()
                return lease
        return self._lease_of(self._obtain(count, bisect_right(self._bounds, count), seconds), count, lease)

    async def acquire_async(
        self,
        size: Size | None = None,
        *,
        timeout: Duration | None = None,  # noqa: ASYNC109 - the same parameters as `acquire`
        priority: Priority | None = Priority.NORMAL,
    ) -> Lease:
        """As `acquire` (`size` in bytes, `timeout` a duration, `priority`, and errors, too), waiting without holding up the
        event loop, in the same line."""
        count, seconds = self._parse_request(size, timeout, priority)
        timed = perf_counter_ns()
        rank = bisect_right(self._bounds, count)
        # In one coroutine: a thousand tasks may wait, each with all of theirs.
        slot = None
        lease = Lease()
        if priority is not None and count >= self._gated_from:
            began = self._clock.monotonic()
            slot = await self.gate.acquire_async(count, priority=priority, timeout=seconds)
            lease = GatedLease()
            lease._slot = slot
            slot._place.leased = True
            seconds = max(0.0, began + seconds - self._clock.monotonic())
        try:
            chunk = self._chunks.at_once(count, rank)
            if chunk is None:
                chunk = await wait_for_chunk_async(self._chunks, count, rank, seconds)
            lease = self._lease_of(chunk, count, lease)
        except BaseException:
            if slot is not None:
                slot.release()
            raise
        if not (self.kept and upkeep.alive):
            upkeep.keep(self)
        if self._tallies.detailed:
            self._time_lease(lease, perf_counter_ns() - timed, 1)
        return lease

    def _admit(self, size: int | None, need: int, timeout: float, priority: Priority | None) -> Slot | None:
        if priority is None or (size is not None and size < self._gated_from):
            return None
        slot = self.gate.take_free(need)
        return self.gate.acquire(need, priority=priority, timeout=timeout) if slot is None else slot

    def reconfigure(self, config: BufferPoolConfig) -> None:
        """Use `config` from now on. What runs finishes as it began; what waits in the gate waits under the new
        limits."""
        super().reconfigure(config)
        self._fit_gate()
        self._gated_from = _gated_from(config)

    def _feel(self, level: PressureLevel) -> int:
        freed = super()._feel(level)
        self._fit_gate()
        return freed

    def _fit_gate(self) -> None:
        """Have the gate let in as many as are configured, or the part of them that the pressure on memory leaves."""
        limits = None
        while limits != (
            limits := self._gate_limits()
        ):  # another thread may have changed them, and been overtaken here
            self.gate.reconfigure(*limits)

    def _gate_limits(self) -> tuple[int, int, int]:
        config = self._config
        operations = max(1, int(config.max_concurrent_large_ops * EFFECTS[self._pressure].large_operations))
        return operations, self._ledger.limit, config.max_queued_large_ops

    def close(self) -> None:
        """As `BufferPool.close`; who waits in the gate gets `Closed`."""
        self.gate.close()
        super().close()

    def _snapshot(self) -> BufferPoolStats:
        return msgspec.structs.replace(super()._snapshot(), gate=self.gate.stats())

    def __repr__(self) -> str:
        stats = self.stats()
        state = "closed" if self.closed else "open" if self._config.enabled else "disabled"
        gate = stats.gate
        return (
            f"<{type(self).__name__} {state}, {stats.active_buffers} leased "
            f"({format_size(stats.arena_bytes + stats.private_bytes)} of {format_size(self._ledger.limit)}), "
            f"gate {gate.active}/{self._config.max_concurrent_large_ops} busy, {gate.waiting + stats.waiting} waiting, "
            f"pressure {self.pressure.name}>"
        )


def _gated_from(config: BufferPoolConfig) -> int:
    # A disabled pool serves everything as no pool would.
    return config.large_object_threshold if config.enabled else sys.maxsize
