"""The kernel's copy: bytes from descriptor to descriptor, without passing through this process.

Invariant: what is counted has arrived, exactly; where the kernel cannot or will not, it is less than was asked, and
whoever asked goes on from there. Positions of file objects are right afterwards.
Threads: one thread uses an end at a time; a source file is read at an offset, `send_file` does not move its position.
Design: docs/design/memory.md
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

from daramjwee.buffers import clone
from daramjwee.buffers.endpoints import file_of, socket_of
from daramjwee.buffers.splice import LARGEST_CALL, SPLICES, end_of, splice, wait_for
from daramjwee.buffers.strategy import FILE, LOCAL, PIPE, SOCKET, kernel_serves

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from daramjwee.buffers.endpoints import OpenFile, Sink, Source
    from daramjwee.buffers.moving import Copy
    from daramjwee.buffers.strategy import Endpoint

    Move = Callable[[int, int], int]  # (bytes moved before, at most so many more) -> bytes moved, 0 at the end

# copy_file_range and sendfile exist elsewhere, with other rules about partial results; not claimed.
AVAILABLE = sys.platform == "linux"
# The kernel has no way between these two: another may have one.
_NO_WAY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ETXTBSY)
# What user space would only run into again.
_FINAL = (BlockingIOError, TimeoutError, ConnectionError)


def send_file(descriptor: int, offset: int, count: int, dst: Any) -> int:
    """Copy `count` bytes of the open file `descriptor` from `offset` on to `dst`, a file object or a plain socket.

    Returns the bytes copied: fewer than `count` where the file ends before, or the kernel cannot serve (0 when
    it never could); the caller goes on in user space from exactly there.
    """
    if not AVAILABLE or count <= 0:
        return 0
    target = socket_of(dst, exact=True)
    opened = None if target is not None else file_of(dst)
    move = _from_file(descriptor, offset, target, opened)
    done = 0
    try:
        while move is not None and done < count:
            moved = move(done, count - done)
            if not moved:
                break
            done += moved
    except OSError:
        pass  # a full disk, a peer that is gone, no such call: user space goes on, and finds what is real
    finally:
        if done and opened is not None:
            opened.object.seek(opened.position + done)
    return done


def copy_by_kernel(run: Copy, source: Source, src: Any, dst: Any, sink: Sink) -> bool:
    """Let the kernel copy what it can; True when that was everything. Else user space goes on at the exact byte."""
    if not AVAILABLE or not kernel_serves(source.kind, sink.kind):
        return False
    if source.kind is FILE:
        return _copy_file(run, source, src, dst, sink.kind)
    if not SPLICES:
        return False
    return _copy_stream(run, source, src, dst, sink)


def share_file(run: Copy, source: Source, src: Any, dst: Any) -> bool:
    """Let the target share the source's blocks instead of a copy; False when nothing was shared."""
    target = file_of(dst)
    if target is None:
        return False
    ends = (source.fd, source.position, source.device), (target.fd, target.position, target.identity[0])
    want = min(source.rest, run.limit)
    shared = clone.share(*ends, want, to_the_end=want == source.rest)
    if shared:
        src.seek(source.position + shared)
        target.object.seek(target.position + shared)
        run.done += shared
        run.chunks += 1
        run.tell()
    return shared > 0


def at_end(source: Source, position: int) -> bool:
    """Whether the file ends at `position`. One that says it is empty may still have bytes (in /proc): a read tells."""
    return 0 < position == os.fstat(source.fd).st_size


def _copy_file(run: Copy, source: Source, src: Any, dst: Any, kind: Endpoint) -> bool:
    target = opened = None
    if kind is SOCKET or kind is LOCAL:
        target = dst
    elif kind is FILE:
        opened = file_of(dst)
    move = _to_pipe(source, dst) if kind is PIPE else _from_file(source.fd, source.position, target, opened)
    if move is None:
        return False
    began = run.done
    try:
        error = _drive(run, move)
    finally:
        moved = run.done - began
        if moved:
            src.seek(source.position + moved)
            if opened is not None:
                opened.object.seek(opened.position + moved)
    if isinstance(error, BlockingIOError):
        raise run.blocked(error) from error
    if isinstance(error, _FINAL):
        raise error
    return run.over or (moved > 0 and at_end(source, source.position + moved))


def _copy_stream(run: Copy, source: Source, src: Any, dst: Any, sink: Sink) -> bool:
    """From a pipe or a socket. What a splice does not move stays in the source, where a loop of reads would lose it."""
    if source.kind is PIPE and hasattr(src, "peek"):
        _take_buffered(run, src, sink)
    opened = None
    if sink.kind is FILE:
        opened = file_of(dst)
        if opened is None:
            return False
        end = end_of(FILE, opened.fd, dst, writes=True, offset=opened.position)
    else:
        if hasattr(dst, "flush"):
            dst.flush()
        end = end_of(sink.kind, dst.fileno(), dst, writes=True)
    start = end_of(source.kind, source.fd, src, writes=False)
    began = run.done
    try:
        error = _drive(run, lambda moved, most: splice(start, end, moved, most))
    finally:
        if opened is not None and run.done > began:
            opened.object.seek(opened.position + run.done - began)
    if error is None:
        return True
    if isinstance(error, BlockingIOError):
        raise run.blocked(error) from error
    if error.errno not in _NO_WAY:
        raise error
    return False


def _take_buffered(run: Copy, src: Any, sink: Sink) -> None:
    """Write what the object has read ahead of its pipe. (Where it has nothing, `peek` reads once.)"""
    if run.over:
        return
    data = src.peek()[: run.limit - run.done]
    if not data:
        return
    began = run.done
    try:
        run.deliver(sink, data, None)
    finally:
        src.read(run.done - began)
    run.chunks += 1
    run.tell()


def _drive(run: Copy, move: Move) -> OSError | None:
    """Move until the end of the source, the limit or a cancel (None), or what went wrong."""
    step, began = run.step, run.done
    while not run.over:
        try:
            moved = move(run.done - began, min(run.limit - run.done, step))
        except OSError as error:
            return error
        if not moved:
            break
        run.done += moved
        run.chunks += 1
        run.tell()
    return None


def _from_file(fd: int, offset: int, target: socket.socket | None, opened: OpenFile | None) -> Move | None:
    """How the kernel copies from a file to a socket or to another file; None when it cannot."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        return None
    if target is not None:
        return _to_socket(fd, offset, target)
    # Onto itself: what is read may be what was written just now, and only a loop of reads and writes says when.
    if opened is None or (found.st_dev, found.st_ino) == opened.identity:
        return None
    out, position = opened.fd, opened.position
    elsewhere = False

    def move(moved: int, most: int) -> int:
        nonlocal elsewhere
        most = min(most, LARGEST_CALL)
        if not elsewhere:
            try:
                return os.copy_file_range(fd, out, most, offset + moved, position + moved)
            except OSError as error:
                if moved or error.errno not in _NO_WAY:
                    raise
                elsewhere = True  # on another file system, say
        # This call writes where the descriptor stands. It is flushed, so that is the position.
        return os.sendfile(out, fd, offset + moved, most)

    return move


def _to_socket(fd: int, offset: int, target: socket.socket) -> Move:
    end = end_of(SOCKET, target.fileno(), target, writes=True)

    def move(moved: int, most: int) -> int:
        while True:
            try:
                return os.sendfile(end.fd, fd, offset + moved, min(most, LARGEST_CALL))
            except BlockingIOError:
                wait_for(end)

    return move


def _to_pipe(source: Source, dst: Any) -> Move | None:
    if not SPLICES:
        return None
    dst.flush()
    start = end_of(FILE, source.fd, None, writes=False, offset=source.position)
    end = end_of(PIPE, dst.fileno(), dst, writes=True)
    return lambda moved, most: splice(start, end, moved, most)
