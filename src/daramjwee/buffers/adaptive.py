"""The adaptive pool: a buffer pool whose large operations pass a gate, a bounded number at a time.

Invariant: at most `max_concurrent_large_ops` large operations run at once, and the bytes they have asked for fit the
ledger together; an operation asks the gate once, before it holds anything, and never again while it holds.
Threads: any.
Design: docs/design/strategy.md
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from daramjwee.buffers.config import BufferPoolConfig
from daramjwee.buffers.gate import LargeOperationGate, Priority
from daramjwee.buffers.lease import Lease
from daramjwee.buffers.ledger import parse_timeout
from daramjwee.buffers.pool import BufferPool, parse_count
from daramjwee.model import SYSTEM_CLOCK, Clock
from daramjwee.units import format_size

if TYPE_CHECKING:
    from types import TracebackType

    from daramjwee.buffers.gate import Slot
    from daramjwee.buffers.ledger import MemoryLedger
    from daramjwee.buffers.stats import BufferPoolStats
    from daramjwee.units import Duration, Size


class GatedLease(Lease):
    """A lease that is a large operation: its release also gives the place in the gate back."""

    __slots__ = ("_slot",)

    _slot: Slot

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._slot.release()

    def release(self) -> None:
        """Give the memory and the place in the gate back. `LeaseError` when that was done before."""
        super().release()
        self._slot.release()

    def __del__(self) -> None:
        # Lost: said once, for the memory. The place goes back without a lock, as everything does in a finalizer.
        slot = getattr(self, "_slot", None)
        if self._chunk is not None and slot is not None:
            slot.release()
        super().__del__()


class AdaptiveBufferPool(BufferPool):
    """A `BufferPool` with a gate: of its large operations a bounded number runs at once, the others wait in line.

    Large is a lease of `large_object_threshold` bytes or more, until it is released, and a copy of that size or of
    unknown size, while it runs. `max_concurrent_large_ops` run at once; up to `max_queued_large_ops` wait, by
    `Priority` and without starvation. A full line and a wait beyond the timeout raise `Overloaded`.

    Work that belongs to a large operation that has its place already (a copy inside of a lease, say) passes
    `priority=None`, or it could wait for itself.
    """

    def __init__(
        self,
        config: BufferPoolConfig = BufferPoolConfig(),  # noqa: B008 - immutable
        *,
        ledger: MemoryLedger | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(config, ledger=ledger, clock=clock)
        self.gate = LargeOperationGate(
            config.max_concurrent_large_ops, self._ledger.limit, max_queued=config.max_queued_large_ops, clock=clock
        )
        self._gated_from = _gated_from(config)

    def acquire(
        self,
        size: Size | None = None,
        *,
        timeout: Duration | None = None,
        priority: Priority | None = Priority.NORMAL,
    ) -> Lease:
        """A lease of exactly `size` bytes (None: `default_buffer_size`). A large one waits for its place in the gate,
        in the order of `priority` (None: not at all), and then for memory; both within `timeout` (None:
        `acquire_timeout`).

        Raises `LimitExceeded` when the ledger can never hold that much, `Overloaded` when the line is full or after
        the wait, `Closed`.
        """
        if priority is None or (type(size) is int and size < self._gated_from):
            return self.lend(size, timeout=timeout)
        count, seconds = self._request(size, timeout)
        if count < self._gated_from:
            return self.lend(count, timeout=seconds)
        began = self._clock.monotonic()
        slot = self.gate.acquire(count, priority=priority, timeout=seconds)
        try:
            return _gated(self.lend(count, timeout=max(0.0, began + seconds - self._clock.monotonic())), slot)
        except BaseException:
            slot.release()
            raise

    async def acquire_async(
        self,
        size: Size | None = None,
        *,
        timeout: Duration | None = None,  # noqa: ASYNC109 - the same parameters as `acquire`
        priority: Priority | None = Priority.NORMAL,
    ) -> Lease:
        """As `acquire`, waiting without holding up the event loop, in the same line."""
        count, seconds = self._request(size, timeout)
        if priority is None or count < self._gated_from:
            return await self.lend_async(count, timeout=seconds)
        began = self._clock.monotonic()
        slot = await self.gate.acquire_async(count, priority=priority, timeout=seconds)
        try:
            return _gated(await self.lend_async(count, timeout=max(0.0, began + seconds - self._clock.monotonic())), slot)
        except BaseException:
            slot.release()
            raise

    def _request(self, size: Size | None, timeout: Duration | None) -> tuple[int, float]:
        config = self._config
        count = config.default_buffer_size if size is None else parse_count(size, "size", "acquire")
        return count, config.acquire_timeout if timeout is None else parse_timeout(timeout, "BufferPool.acquire")

    def _admit(self, size: int | None, need: int, timeout: float, priority: Priority | None) -> Slot | None:
        if priority is None or (size is not None and size < self._gated_from):
            return None
        return self.gate.acquire(need, priority=priority, timeout=timeout)

    def reconfigure(self, config: BufferPoolConfig) -> None:
        """Use `config` from now on. What runs finishes as it began; what waits in the gate waits under the new
        limits."""
        super().reconfigure(config)
        self.gate.reconfigure(config.max_concurrent_large_ops, self._ledger.limit, config.max_queued_large_ops)
        self._gated_from = _gated_from(config)

    def close(self) -> None:
        """As `BufferPool.close`; who waits in the gate gets `Closed`."""
        self.gate.close()
        super().close()

    def _snapshot(self) -> BufferPoolStats:
        return super()._snapshot()._replace(gate=self.gate.stats())

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


def _gated(lease: Lease, slot: Slot) -> GatedLease:
    """The same memory under a lease that also holds `slot`."""
    gated = GatedLease.__new__(GatedLease)
    gated._slot = slot
    gated.size = lease.size
    gated.view = lease.view
    chunk, lease._chunk = lease._chunk, None
    gated._chunk = chunk
    del lease.view
    return gated


def _gated_from(config: BufferPoolConfig) -> int:
    # A disabled pool serves everything as no pool would.
    return config.large_object_threshold if config.enabled else sys.maxsize
