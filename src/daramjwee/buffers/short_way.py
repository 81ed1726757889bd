"""The short way of a copy: between usual ends, with nothing configured, watched, limited or short.

It does what the long way would (a test holds the one to the other) in a third of its calls: between real copies, with
cold caches, a call takes as long as moving some KiB, and whoever copies 256 KiB without a pool makes three.

Invariant: as of every copy: the gate is passed before any byte moves, and at the end, whatever it is, nothing is leased
and the gate's place is free.
Threads: a copy runs in its caller's thread.
Design: docs/design/memory.md
"""

from __future__ import annotations

import logging
import os
from io import BufferedReader, BufferedWriter, BytesIO, FileIO
from time import monotonic
from typing import TYPE_CHECKING, Any

from daramjwee.buffers import clone, kernel_copy
from daramjwee.buffers.copy import REFUSED, carry_out, fell_back, lend, logger, note
from daramjwee.buffers.endpoints import (
    Sink,
    is_plain,
    readinto_of,
    sink_of,
    socket_kind,
    socket_of,
    source_of,
    write_of,
)
from daramjwee.buffers.holdings import Refused
from daramjwee.buffers.moving import Copy, bad_count
from daramjwee.buffers.splice import LARGEST_CALL
from daramjwee.buffers.strategy import CHUNKED, DIRECT, FILE, KERNEL_FROM, PLAIN, POOLED, Decision, select_strategy

if TYPE_CHECKING:
    from daramjwee.buffers.copy import Lender, Moved
    from daramjwee.buffers.endpoints import ReadInto, Write
    from daramjwee.buffers.gate import Priority
    from daramjwee.buffers.lease import Lease
    from daramjwee.buffers.reserve import ReserveRoom

FILE_MODE, REGULAR = 0o170000, 0o100000
DEBUG = logging.DEBUG


def short_way(  # noqa: C901 - in one function, as each call takes time
    pool: Lender, src: Any, dst: Any, size: int | None, priority: Priority | None
) -> Moved | None:
    """Copy; None, with nothing done, where only the long way serves. The caller has seen to it that nobody is told or asked
    and nothing limits the copy, that the pool is left to choose, and that memory is not short. `size`: bytes that are
    expected, None when nobody knows."""
    config = pool._config
    chunk = config.default_buffer_size
    if chunk > pool._ledger.limit or logger.isEnabledFor(DEBUG):
        return None
    kind = type(dst)
    out = dst.raw if kind is BufferedWriter else dst
    to_file = type(out) is FileIO
    if to_file:
        if not out.seekable():
            return None
    elif kind is not BytesIO:
        if not is_plain(kind):
            return _send(pool, src, dst, priority)
        if not hasattr(dst, "write"):
            return None

    kind = type(src)
    end, whole = 0, b""
    readinto: ReadInto | None
    if kind is BufferedReader or kind is FileIO:
        raw = src if kind is FileIO else src.raw
        if type(raw) is not FileIO:
            return None
        found = os.fstat(raw.fileno())
        size = found.st_size
        if size < KERNEL_FROM or found.st_mode & FILE_MODE != REGULAR:
            return None
        if to_file and found.st_dev not in clone.refusing:
            return None
        if size > chunk:  # else it fits into one chunk wherever it begins, and nobody need ask where
            size -= src.tell()
            if size < KERNEL_FROM:
                return None
        end = size
        readinto = src.readinto if kind is FileIO else src.readinto1
    elif kind is BytesIO:
        if src.tell():
            return None
        readinto, whole = None, src.getvalue()  # shared, not copied
        size = len(whole)
        if not size:
            return None
    else:
        if not is_plain(kind):
            return None
        readinto = readinto_of(src)
        if readinto is None and not hasattr(src, "read"):
            return None

    strategy = POOLED
    if whole:
        strategy, chunk = DIRECT, 0
    elif size is None or size > chunk:
        strategy = CHUNKED
    elif size < chunk:
        chunk = max(size, config.min_buffer_size)
    slot, gate = None, pool._gate
    if gate is not None and priority is not None and (size is None or size >= pool._gated_from):
        slot = gate.take_free(chunk)
        if slot is None:
            return None  # it would have to wait
    try:
        if out is not dst and (size is None or size >= KERNEL_FROM):
            dst.flush()
            dst = out
        if readinto is not None and (to_file or type(dst) is BytesIO):
            done, chunks, fallback = _flat(pool, chunk, readinto, src, dst.write, end)
        else:
            done, chunks, fallback = _otherwise(pool, chunk, readinto, src, dst, whole, end)
    finally:
        if slot is not None:
            slot.release()
    return done, chunks, strategy, fallback


def _flat(pool: Lender, chunk: int, readinto: ReadInto, src: Any, write: Write, end: int) -> tuple[int, int, bool]:
    """Through one chunk to a sink that is known to keep nothing. `end`: bytes to the end of a file; a single read that
    brings all of them need not be followed by one that brings nothing (0: nobody knows). `Copy.flat`, written out."""
    done = chunks = 0
    room: Lease | ReserveRoom | None = None
    try:
        timeout = pool._config.acquire_timeout
        try:
            room = lease = pool.lend(chunk, timeout)
            view = lease._view  # without the call of `view`
        except Refused as error:
            room = pool.lend_reserve(timeout, error)
            view = room.view
        most = room.size
        while True:
            try:
                count = readinto(view)
            except BlockingIOError as error:
                raise _so_far(done, chunks).blocked(error) from error
            if not count:
                if count is None:
                    raise _so_far(done, chunks).blocked(None)
                break
            if not 0 < count <= most:
                raise bad_count(src, count, most)
            try:
                # No name for the slice: in the frames of an error it would keep the chunk in quarantine.
                taken = write(view if count == most else view[:count])
            except BaseException as error:
                _so_far(done, chunks).refused(error, count, src)
                raise
            if taken != count:
                run = _so_far(done, chunks)
                try:
                    with view[:count] as piece:
                        run.go_on(write, True, piece, taken, src)
                finally:
                    done = run.done
            else:
                done += count
            chunks += 1
            if count == end:
                break
    except OSError as error:
        note(_so_far(done, chunks), error)
        raise
    finally:
        if room is not None:
            room.release()
    less = most < chunk
    if less:
        fell_back(_so_far(done, chunks), REFUSED)
    return done, chunks, less


def _so_far(done: int, chunks: int) -> Copy:
    """The copy as far as it came, to go on with or to describe."""
    run = Copy(None, None, None, None)
    run.done, run.chunks = done, chunks
    return run


def _otherwise(
    pool: Lender, chunk: int, readinto: ReadInto | None, src: Any, dst: Any, whole: bytes, end: int
) -> tuple[int, int, bool]:
    """To a sink that may keep what it is given, or from a source that has bytes of its own."""
    sink = Sink(PLAIN, *write_of(dst), False)
    run = Copy(None, None, None, None)
    try:
        if whole:
            src.seek(len(whole))
            run.deliver(sink, whole, src)
            run.chunks = 1
        elif readinto is None:
            run.by_reads(chunk, src, sink)
        else:
            with lend(run, pool, chunk, pool._config.acquire_timeout) as room:
                run.through(room, readinto, src, dst, sink, end)
    except OSError as error:
        note(run, error)
        raise
    return run.done, run.chunks, run.fallback is not None


def _send(pool: Lender, src: Any, dst: Any, priority: Priority | None) -> Moved | None:
    """From a file to a plain socket: `sendfile`, and nothing else where nothing else is needed."""
    raw = src.raw if type(src) is BufferedReader else src
    if type(raw) is not FileIO or socket_of(dst, exact=True) is None or not kernel_copy.AVAILABLE:
        return None
    fd = raw.fileno()
    found = os.fstat(fd)
    if found.st_mode & FILE_MODE != REGULAR:
        return None
    position = begin = src.tell()
    size = found.st_size - position
    if size < KERNEL_FROM:
        return None
    config = pool._config
    strategy, chunk, _, _ = select_strategy(size, config, src=FILE, dst=socket_kind(dst))
    if strategy is not DIRECT:
        return None
    run = Copy(None, None, None, None)
    began, timeout = monotonic(), config.acquire_timeout
    slot = pool._admit(size, chunk, timeout, priority)
    try:
        out = dst.fileno()
        try:
            while moved := os.sendfile(out, fd, position, LARGEST_CALL):
                position += moved
                run.chunks += 1
        except OSError:
            moved = -1  # it would block, or failed: the long way waits, or finds what is real
        finally:
            run.done = position - begin
            src.seek(position)
        if moved < 0:
            left = max(0.0, began + timeout - monotonic())
            source, sink = source_of(src), sink_of(dst, None)
            decision = Decision(DIRECT, chunk, "sendfile", False)
            carry_out(run, source, src, sink, dst, decision, pool, config, left)
    finally:
        if slot is not None:
            slot.release()
    return run.done, run.chunks, DIRECT, run.fallback is not None
