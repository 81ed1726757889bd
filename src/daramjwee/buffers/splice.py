"""Splice: the kernel moves bytes between a pipe and a file, a socket or another pipe.

Invariant: what leaves the source is in the target; an end that is not ready, and does not wait, leaves both as they are.
Threads: one thread uses an end at a time.
Design: docs/design/memory.md
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.buffers.strategy import LOCAL, PIPE, SOCKET

if TYPE_CHECKING:
    from daramjwee.buffers.strategy import Endpoint

SPLICES = hasattr(os, "splice")
# As much as one call moves at most on Linux.
LARGEST_CALL = 0x7FFFF000
# Ends that both say they are ready while the call says otherwise, so often in a row: user space shall find out why.
_MOST_SPURIOUS = 3


class End(NamedTuple):
    """One end: its descriptor, whether it is written to, how long it waits (None: for ever; 0: not at all), and the
    offset to use instead of its own position (files only)."""

    fd: int
    writes: bool
    patience: float | None
    offset: int | None


def end_of(kind: Endpoint, fd: int, thing: Any, *, writes: bool, offset: int | None = None) -> End:
    """The end `thing` of a splice."""
    if kind is SOCKET or kind is LOCAL:
        return End(fd, writes, thing.gettimeout(), None)
    return End(fd, writes, None if kind is not PIPE or os.get_blocking(fd) else 0.0, offset)


def splice(source: End, target: End, moved: int, count: int) -> int:
    """Move up to `count` bytes, `moved` having been moved before; 0 at the end of the source.

    Raises `BlockingIOError` when an end is not ready and does not wait, `TimeoutError` when it has waited in vain.
    """
    flags = os.SPLICE_F_NONBLOCK if source.patience == 0 or target.patience == 0 else 0
    from_offset = None if source.offset is None else source.offset + moved
    to_offset = None if target.offset is None else target.offset + moved
    count = min(count, LARGEST_CALL)
    for _ in range(_MOST_SPURIOUS):
        try:
            return os.splice(source.fd, target.fd, count, offset_src=from_offset, offset_dst=to_offset, flags=flags)
        except BlockingIOError:
            wait_for(source)
            wait_for(target)
    raise OSError(errno.EOPNOTSUPP, "both ends are ready, and splice is not")


def wait_for(end: End) -> None:
    """Wait until `end` is ready, as long as it waits: then `TimeoutError`, or `BlockingIOError` if it never does."""
    if is_ready(end, end.patience):
        return
    if end.patience == 0:
        raise BlockingIOError(errno.EAGAIN, f"the {'sink' if end.writes else 'source'} is not ready, and does not wait")
    raise TimeoutError("timed out")


def is_ready(end: End, seconds: float | None) -> bool:
    """Whether `end` is ready, or fails, within `seconds`."""
    import select

    poll = select.poll()
    poll.register(end.fd, select.POLLOUT if end.writes else select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
