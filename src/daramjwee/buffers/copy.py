"""Copies: every byte from a source to a sink, by the kernel where it can, else through one reused chunk.

Invariant: what was read is written before more is read; after the kernel's part the loop goes on at the exact byte.
Threads: a copy runs in its caller's thread.
Design: docs/design/memory.md
"""

from __future__ import annotations

import errno
import io
import logging
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from daramjwee.buffers.endpoints import (
    file_of,
    finish_write,
    read_of,
    readinto_of,
    socket_of,
    taken_before,
    write_all,
    write_of,
)
from daramjwee.buffers.kernel_copy import can_send_to, send_file
from daramjwee.buffers.strategy import ADAPTIVE, CHUNKED, DIRECT, POOLED, Strategy
from daramjwee.errors import LeaseError
from daramjwee.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from daramjwee.buffers.config import BufferPoolConfig
    from daramjwee.buffers.endpoints import Data, OpenFile, ReadInto, Write
    from daramjwee.buffers.lease import Lease
    from daramjwee.buffers.ledger import MemoryLedger

logger = logging.getLogger(__name__)

# To and from sockets, large objects go in larger chunks: 5 to 7 % fewer calls and switches. Elsewhere 256 KiB is best:
# more does not fit into the processor's second-level cache together with the source (docs/design/memory.md).
LARGE_CHUNK_FROM = 4 * MIB
LARGE_CHUNK_BYTES = 512 * KIB
# Below it a kernel copy's four preparing calls cost more than they save.
KERNEL_FROM = 64 * KIB
# What is moved between two calls of `progress` or `cancel` where no chunk sets the pace.
STEP_BYTES = 8 * MIB
# No end in sight: more than any object has.
ENDLESS = 1 << 62


class CopyResult(NamedTuple):
    """What a copy did. `chunks`: pieces it was moved in; `elapsed`: seconds."""

    bytes: int
    chunks: int
    strategy: Strategy
    elapsed: float


class CopyPlan(NamedTuple):
    """How to copy: by which strategy, through a chunk of how many bytes (for what the kernel leaves over)."""

    strategy: Strategy
    chunk: int


class Lender(Protocol):
    """What a copy asks of its pool."""

    @property
    def config(self) -> BufferPoolConfig: ...

    @property
    def ledger(self) -> MemoryLedger: ...

    def acquire(self, size: int, *, timeout: float) -> Lease: ...

    def acquire_private(self, size: int, timeout: float) -> Lease: ...


def plan_copy(
    expected: int | None, config: BufferPoolConfig, *, direct_from: int | None = None, sockets: bool = False
) -> CopyPlan:
    """The strategy for an object of `expected` bytes. Pure.

    `direct_from`: the size from which the kernel, or the source's own memory, serves better than a chunk; None:
    they cannot serve. `sockets`: whether an end is one.
    """
    chunk = config.chunk_size
    if chunk is None:
        chunk = config.default_buffer_size
        if sockets and expected is not None and expected >= LARGE_CHUNK_FROM:
            chunk = max(chunk, min(LARGE_CHUNK_BYTES, config.max_buffer_size))
    wanted = ADAPTIVE
    if expected is None or expected >= config.large_object_threshold:
        wanted = config.large_object_strategy
    if wanted is DIRECT:
        return CopyPlan(DIRECT, chunk)
    if wanted is ADAPTIVE and direct_from is not None and (expected is None or expected >= direct_from):
        return CopyPlan(DIRECT, chunk)
    if expected is not None and expected <= (config.max_pool_bytes if wanted is POOLED else chunk):
        if wanted is CHUNKED:
            return CopyPlan(CHUNKED, chunk)
        return CopyPlan(POOLED, max(expected, config.min_buffer_size))
    return CopyPlan(CHUNKED, chunk)


class Copy:
    """One running copy: how far it is, and who is told or asked on the way."""

    __slots__ = ("cancel", "chunks", "done", "limit", "progress", "size")

    def __init__(
        self,
        size: int | None,
        limit: int | None,
        progress: Callable[[int, int | None], object] | None,
        cancel: Callable[[], object] | None,
    ) -> None:
        self.size = size
        self.limit = ENDLESS if limit is None else limit
        self.progress = progress
        self.cancel = cancel
        self.done = 0
        self.chunks = 0

    @property
    def over(self) -> bool:
        """Whether the limit is reached or the caller wants no more."""
        return self.done >= self.limit or (self.cancel is not None and bool(self.cancel()))

    def moved(self, count: int) -> None:
        self.done += count
        self.chunks += 1
        if self.progress is not None:
            self.progress(self.done, self.size)

    def by_kernel(self, source: OpenFile, dst: Any) -> bool:
        """Let the kernel copy what it can; True when that was everything."""
        stepwise = self.progress is not None or self.cancel is not None
        began = self.done
        try:
            while not self.over:
                want = min(self.limit - self.done, STEP_BYTES if stepwise else ENDLESS)
                moved = send_file(source.fd, source.position + self.done - began, want, dst)
                if moved:
                    self.moved(moved)
                if moved < want:
                    break
        finally:
            moved = self.done - began
            if moved:
                source.object.seek(source.position + moved)
        # A file that says it is empty may still have bytes (in /proc): only a read tells.
        return self.over or (moved > 0 and os.fstat(source.fd).st_size == source.position + moved)

    def from_bytesio(self, src: io.BytesIO, dst: Any) -> None:
        """Write the object's own memory: `getvalue` shares it, whatever the position."""
        write, none_blocks = write_of(dst)
        position = src.tell()
        end = min(src.seek(0, io.SEEK_END), position + self.limit)
        src.seek(position)
        whole = src.getvalue()
        step = STEP_BYTES if self.progress is not None or self.cancel is not None else ENDLESS
        while position < end and not self.over:
            stop = min(end, position + step)
            data: Data = whole if stop - position == len(whole) else memoryview(whole)[position:stop]
            try:
                write_all(write, data, none_blocks=none_blocks)
            except BlockingIOError as error:
                written = taken_before(error)
                self.done += written
                src.seek(position + written)
                raise self._blocked(error) from error
            position = src.seek(stop)
            self.moved(len(data))

    def through(self, lease: Lease, readinto: ReadInto, src: Any, dst: Any) -> None:
        """Read into the leased chunk, write, again: until the end of the source, the limit, or a cancel."""
        write, none_blocks = write_of(dst)
        view, most = lease.view, lease.size
        limit, cancel, progress = self.limit, self.cancel, self.progress
        while self.done < limit and (cancel is None or not cancel()):
            room = min(limit - self.done, most)
            window = view if room == most else view[:room]
            try:
                count = readinto(window)
            except BlockingIOError as error:
                raise self._blocked(error) from error
            finally:
                if window is not view:
                    _let_go(window)
            if not count:
                if count is None:
                    raise self._blocked(None)
                return
            if not 0 < count <= room:
                raise ValueError(f"readinto of {type(src).__name__} said {count} for a view of {room} bytes")
            piece = view[:count]
            try:
                self._write(write, piece, count, none_blocks, src)
            finally:
                # Whoever kept it gets an error instead of the next chunk's bytes.
                try:
                    piece.release()
                except BufferError:
                    raise _kept(dst) from None
            self.done += count
            self.chunks += 1
            if progress is not None:
                progress(self.done, self.size)

    def by_reads(self, most: int, src: Any, dst: Any) -> None:
        """The same for a source that returns bytes of its own: no chunk is needed."""
        read = read_of(src)
        write, none_blocks = write_of(dst)
        while not self.over:
            try:
                data = read(min(most, self.limit - self.done))
            except BlockingIOError as error:
                raise self._blocked(error) from error
            if not data:
                if data is None:
                    raise self._blocked(None)
                return
            count = len(data)
            if count > min(most, self.limit - self.done):
                raise ValueError(f"read of {type(src).__name__} gave {count} bytes, more than it was asked for")
            self._write(write, data, count, none_blocks, src)
            self.moved(count)

    def _write(self, write: Write, data: Data, total: int, none_blocks: bool, src: Any) -> None:
        try:
            count = write(data)
            if count != total:
                finish_write(write, data, count, none_blocks=none_blocks)
        except BlockingIOError as error:
            written = taken_before(error)
            self.done += written
            raise self._blocked(error, src, total - written) from error

    def _blocked(self, error: BlockingIOError | None, src: Any = None, unwritten: int = 0) -> BlockingIOError:
        """The error for an endpoint that is not ready: `characters_written` is all that was copied. A source that
        can seek is put where the sink stopped, so that the copy can be gone on with."""
        rest = ""
        if unwritten:
            seekable = getattr(src, "seekable", None)
            if seekable is not None and seekable():
                src.seek(-unwritten, io.SEEK_CUR)
            else:
                rest = f", and {unwritten} more were read that the source cannot take back"
        what = "the source has no bytes ready" if error is None else str(error.strerror or error)
        return BlockingIOError(errno.EAGAIN, f"the copy stopped after {self.done} bytes{rest}: {what}", self.done)


def _let_go(window: memoryview) -> None:
    # Or whoever keeps an error of this copy keeps its frames, the window in them, and so the chunk in quarantine.
    try:
        window.release()
    except BufferError:
        pass  # the source kept something made over it: it counts as a survivor


def _kept(dst: Any) -> LeaseError:
    return LeaseError(f"{type(dst).__name__}.write kept the memory it was given; it must copy what it keeps")


def run_copy(run: Copy, src: Any, dst: Any, pool: Lender, timeout: float) -> Strategy:
    """Copy as planned; the strategy that was used."""
    expected, direct_from = run.size, None
    source = file_of(src)
    if source is not None:
        # What the system says of the rest of the file is better than what the caller expects.
        expected = max(0, source.size - source.position) or expected
        if (expected is None or expected >= KERNEL_FROM) and can_send_to(dst):
            direct_from = KERNEL_FROM
    elif type(src) is io.BytesIO:
        direct_from = 0
    if run.limit != ENDLESS:
        expected = run.limit if expected is None else min(expected, run.limit)
    sockets = False
    if expected is not None and expected >= LARGE_CHUNK_FROM:
        sockets = socket_of(src, exact=False) is not None or socket_of(dst, exact=False) is not None
    strategy, chunk = plan_copy(expected, pool.config, direct_from=direct_from, sockets=sockets)
    if strategy is POOLED and chunk > pool.ledger.limit:
        strategy, chunk = CHUNKED, pool.config.default_buffer_size
    if logger.isEnabledFor(logging.DEBUG):
        kinds = type(src).__name__, type(dst).__name__
        logger.debug("copy of %s bytes from %s to %s: %s, %d at a time", expected, *kinds, strategy.value, chunk)
    if direct_from is not None and strategy is DIRECT:
        if source is None:
            run.from_bytesio(src, dst)
            return DIRECT
        if run.by_kernel(source, dst):
            return DIRECT
        if not run.done:
            strategy = CHUNKED  # the kernel would not
    # Everything, or what the kernel left over. A source that can only return bytes needs no chunk.
    readinto = readinto_of(src)
    if readinto is None:
        run.by_reads(chunk, src, dst)
    else:
        private = strategy is DIRECT and direct_from is None
        with pool.acquire_private(chunk, timeout) if private else pool.acquire(chunk, timeout=timeout) as lease:
            run.through(lease, readinto, src, dst)
    return strategy
