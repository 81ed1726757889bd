"""The kernel's copy: bytes of a file to another file or a socket, without passing through this process.

Invariant: the answer is exactly how many bytes arrived; where the kernel cannot or will not, it is less than was
asked, and whoever asked goes on from there. Positions of file objects are right afterwards.
Threads: one thread uses the destination at a time; the source is read at an offset, its position is not moved.
Design: docs/design/memory.md
"""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Any

from daramjwee.buffers.endpoints import file_of, socket_of

if TYPE_CHECKING:
    import socket

# As much as one call moves at most on Linux.
LARGEST_CALL = 0x7FFFF000
# copy_file_range and sendfile exist elsewhere, with other rules about partial results; not claimed.
_AVAILABLE = sys.platform == "linux"


def can_send_to(dst: Any) -> bool:
    """Whether `dst` is a kind of object the kernel may copy to."""
    return _AVAILABLE and (socket_of(dst, exact=True) is not None or file_of(dst) is not None)


def send_file(descriptor: int, offset: int, count: int, dst: Any) -> int:
    """Copy `count` bytes of the open file `descriptor` from `offset` on to `dst`, a file object or a plain socket.

    Returns the bytes copied: fewer than `count` where the file ends before, or the kernel cannot serve (0 when
    it never could); the caller goes on in user space from exactly there.
    """
    if not _AVAILABLE or count <= 0:
        return 0
    target = socket_of(dst, exact=True)
    if target is not None:
        return _to_socket(descriptor, offset, count, target)
    return _to_file(descriptor, offset, count, dst)


def _to_file(descriptor: int, offset: int, count: int, dst: Any) -> int:
    target = file_of(dst)
    if target is None:
        return 0
    source = os.fstat(descriptor)
    # Onto itself: what is read may be what was written just now, and only a loop of reads and writes says when.
    if not stat.S_ISREG(source.st_mode) or (source.st_dev, source.st_ino) == target.identity:
        return 0
    done = 0
    try:
        while done < count:
            moved = os.copy_file_range(
                descriptor, target.fd, min(count - done, LARGEST_CALL), offset + done, target.position + done
            )
            if moved == 0:
                break
            done += moved
    except OSError:
        # Another file system, append mode, a full disk, no such call: user space goes on and finds what is real.
        pass
    finally:
        if done:
            target.object.seek(target.position + done)
    return done


def _to_socket(descriptor: int, offset: int, count: int, target: socket.socket) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return 0
    done = 0
    try:
        while done < count:
            try:
                moved = os.sendfile(target.fileno(), descriptor, offset + done, min(count - done, LARGEST_CALL))
            except BlockingIOError:
                if not _wait_writable(target):
                    break
                continue
            if moved == 0:
                break
            done += moved
    except OSError:
        pass  # the same call in user space raises it again, for the caller to see
    return done


def _wait_writable(target: socket.socket) -> bool:
    """Wait as long as the socket's own timeout says; False when it does not wait, or has waited in vain."""
    seconds = target.gettimeout()
    if seconds == 0:
        return False
    import select

    poll = select.poll()
    poll.register(target, select.POLLOUT)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
