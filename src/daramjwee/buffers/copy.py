"""Copies: every byte from a source to a sink, by the kernel where that serves, else through one reused chunk.

Invariant: the way is decided, and the gate passed, before any byte moves; after the kernel's part the loop goes on at
the exact byte; at the end, whatever it is, nothing is leased and the gate's place is free.
Threads: a copy runs in its caller's thread.
Design: docs/design/memory.md
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from daramjwee.buffers import clone
from daramjwee.buffers.endpoints import Sink, exact_bytes, sink_of, source_of
from daramjwee.buffers.holdings import Refused
from daramjwee.buffers.kernel_copy import at_end, copy_by_kernel, share_file
from daramjwee.buffers.moving import ENDLESS, Copy
from daramjwee.buffers.strategy import (
    CHUNKED,
    CONFIGURED,
    DIRECT,
    FILE,
    MEMORY,
    SHARES,
    Decision,
    Strategy,
    kernel_serves,
    select_strategy,
)

if TYPE_CHECKING:
    from daramjwee.buffers.config import BufferPoolConfig
    from daramjwee.buffers.endpoints import Source
    from daramjwee.buffers.gate import LargeOperationGate, Priority, Slot
    from daramjwee.buffers.lease import Lease
    from daramjwee.buffers.ledger import MemoryLedger
    from daramjwee.buffers.moving import Room
    from daramjwee.buffers.pressure import PressureLevel
    from daramjwee.buffers.reserve import ReserveRoom

__all__ = ["Copy", "CopyResult", "Lender", "Moved", "run_copy"]

logger = logging.getLogger(__name__)

REFUSED = "the system gives no memory for the usual chunk"

# A kind of fallback is told once, then counted: it is the configuration that is odd, not each copy.
_told_fallbacks: set[str] = set()


# Bytes, chunks, the strategy that was used, and whether something else had to serve than was wanted.
Moved: TypeAlias = tuple[int, int, Strategy, bool]


class CopyResult(NamedTuple):
    """What a copy did. `bytes`: moved; `chunks`: pieces they were moved in; `strategy`: how; `elapsed`: seconds."""

    bytes: int
    chunks: int
    strategy: Strategy
    elapsed: float


class Lender(Protocol):
    """What a copy asks of its pool."""

    _config: BufferPoolConfig
    _ledger: MemoryLedger
    _gate: LargeOperationGate | None
    _gated_from: int

    @property
    def config(self) -> BufferPoolConfig: ...

    @property
    def ledger(self) -> MemoryLedger: ...

    @property
    def pressure(self) -> PressureLevel: ...

    def lend(self, size: int, timeout: float, *, private: bool = False) -> Lease: ...

    def lend_reserve(self, timeout: float, refused: Refused) -> Lease | ReserveRoom: ...

    def _admit(self, size: int | None, need: int, timeout: float, priority: Priority | None) -> Slot | None: ...


def run_copy(run: Copy, src: Any, dst: Any, pool: Lender, timeout: float, priority: Priority | None = None) -> Moved:
    """Decide how to copy, pass the gate, and copy."""
    config = pool.config
    source = source_of(src)
    # What the system says of the rest of a file is better than what the caller expects.
    expected = source.rest or run.size
    if run.limit != ENDLESS:
        expected = run.limit if expected is None else min(expected, run.limit)
    sink = sink_for(run, dst, expected)
    clones = (
        source.kind is FILE
        and source.device not in clone.refusing
        and sink.kind is FILE
        and clone.may_share(source.position)
    )
    decision = select_strategy(
        expected, config, src=source.kind, dst=sink.kind, pressure=pool.pressure, clones=clones, most=pool.ledger.limit
    )
    strategy, chunk, reason, fallback = decision
    if fallback:
        fell_back(run, reason)
    if logger.isEnabledFor(logging.DEBUG):
        named = type(src).__name__, type(dst).__name__
        fields = {
            "event": "pool.copy", "size": expected, "source": named[0], "sink": named[1], "strategy": strategy.value,
            "chunk_size": chunk, "reason": reason,
        }  # fmt: skip
        logger.debug(
            "copy of %s bytes from %s to %s: %s, %d at a time: %s",
            expected, *named, strategy.value, chunk, reason, extra=fields,
        )  # fmt: skip
    began = monotonic()
    # In one request, before anything is held: an operation that asked again while it holds might wait for ever.
    slot = pool._admit(expected, 0 if source.kind is MEMORY else chunk, timeout, priority)
    if slot is None:
        strategy = carry_out(run, source, src, sink, dst, decision, pool, config, timeout)
    else:
        with slot:
            left = max(0.0, began + timeout - monotonic())
            strategy = carry_out(run, source, src, sink, dst, decision, pool, config, left)
    return run.done, run.chunks, strategy, run.fallback is not None


def note(run: Copy, error: OSError) -> None:
    """Note in `error` how far the copy came. (A BlockingIOError says it itself.)"""
    if not isinstance(error, BlockingIOError):
        error.add_note(f"{exact_bytes(run.done)} {'was' if run.done == 1 else 'were'} copied before")


def carry_out(
    run: Copy, source: Source, src: Any, sink: Sink, dst: Any, decision: Decision, pool: Lender,
    config: BufferPoolConfig, timeout: float,
) -> Strategy:  # fmt: skip
    strategy = decision.strategy
    private = tried = False
    try:
        if strategy is DIRECT:
            if source.kind is MEMORY:
                run.from_memory(src, sink)
                run.tell_end()
                return DIRECT
            # A fallback that is direct has but a smaller chunk than was configured.
            private = not config.enabled or decision.reason == CONFIGURED or decision.fallback
            tried = kernel_serves(source.kind, sink.kind)
            whole = False
            if tried and decision.reason == SHARES:
                whole = share_file(run, source, src, dst) and (run.over or at_end(source, source.position + run.done))
            elif tried:
                whole = copy_by_kernel(run, source, src, dst, sink)
            if whole:
                run.tell_end()
                return DIRECT
            if not private and not run.done:
                strategy = CHUNKED  # the kernel would not, and nobody insists
        before = run.done
        if source.readinto is None:
            run.by_reads(decision.chunk_size, src, sink)
        else:
            size = decision.chunk_size
            room: Lease | ReserveRoom | None
            try:
                room = pool.lend(size, timeout, private=private)
            except Refused as error:
                room = _without_chunk(run, source, src, sink, dst, pool, timeout, error, tried=tried)
                if room is None:
                    run.tell_end()
                    return DIRECT
            else:
                if room.size < size:
                    fell_back(run, REFUSED)
            with room:
                through(run, room, source, src, sink, dst)
    except OSError as error:
        note(run, error)
        raise
    if tried and private and run.done > before:
        fell_back(run, "direct is configured, but the kernel would not copy all of it")
    run.tell_end()
    return strategy


def _without_chunk(
    run: Copy,
    source: Source,
    src: Any,
    sink: Sink,
    dst: Any,
    pool: Lender,
    timeout: float,
    refused: Refused,
    *,
    tried: bool,
) -> Lease | ReserveRoom | None:
    """What a copy does for which the system gives no chunk, however small: the kernel's own copy, which needs none (None: it
    has copied all), then the reserve; else `Overloaded`, before any byte has moved."""
    fell_back(run, REFUSED)
    if not tried and kernel_serves(source.kind, sink.kind) and copy_by_kernel(run, source, src, dst, sink):
        return None
    return pool.lend_reserve(timeout, refused)


def lend(run: Copy, pool: Lender, size: int, timeout: float) -> Lease | ReserveRoom:
    """Memory to copy through, where the kernel has no part in it; less than `size`, or the reserve, when the system gives
    no more."""
    try:
        room: Lease | ReserveRoom = pool.lend(size, timeout)
    except Refused as error:
        room = pool.lend_reserve(timeout, error)
    if room.size < size:
        fell_back(run, REFUSED)
    return room


def through(run: Copy, room: Room, source: Source, src: Any, sink: Sink, dst: Any) -> None:
    """Copy through the leased chunk."""
    assert source.readinto is not None
    if run.plain and sink.keeps_none:
        run.flat(room, source.readinto, src, sink.write, 0)
    else:
        run.through(room, source.readinto, src, dst, sink)


def sink_for(run: Copy, dst: Any, expected: int | None) -> Sink:
    """What `dst` can do."""
    try:
        return sink_of(dst, expected)
    except BlockingIOError as error:  # what the sink has buffered could not be written: nothing was copied
        raise run.blocked(error) from error


def fell_back(run: Copy, reason: str) -> None:
    """What is configured cannot serve: count it, and say so, each reason once as a warning."""
    run.fallback = reason
    level = logging.DEBUG if reason in _told_fallbacks else logging.WARNING
    _told_fallbacks.add(reason)
    logger.log(level, "fallback of a copy: %s", reason, extra={"event": "pool.fallback", "reason": reason})
