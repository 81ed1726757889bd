"""Endpoints: what a source and a sink of a copy can do, and how to call them so that no byte is lost or doubled.

Invariant: a short read is what has come so far, a short write is continued from where it stopped; "would block" is an
error that says how far it got.
Threads: one thread uses an endpoint at a time.
Design: docs/design/memory.md
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    Data = bytes | memoryview
    ReadInto = Callable[[memoryview], "int | None"]
    Read = Callable[[int], Any]
    Write = Callable[[Data], Any]

# What is a plain file, when `raw` of it is exactly an `io.FileIO`: `fileno()` of anything else may be that of a
# file with other bytes in it (gzip, a response, TLS).
_BUFFERED = (io.BufferedReader, io.BufferedWriter, io.BufferedRandom)


class OpenFile(NamedTuple):
    """A regular file behind a file object, and the position of that object in it."""

    object: Any
    fd: int
    position: int
    size: int
    identity: tuple[int, int]


def file_of(thing: Any) -> OpenFile | None:
    """The regular file that `thing` reads or writes as it is, everything buffered flushed; None when it is none."""
    kind = type(thing)
    if kind is not io.FileIO and not (kind in _BUFFERED and type(thing.raw) is io.FileIO):
        return None
    if thing.closed:
        return None
    if kind is not io.BufferedReader:
        thing.flush()
    found = os.fstat(thing.fileno())
    if not stat.S_ISREG(found.st_mode):
        return None
    return OpenFile(thing, thing.fileno(), thing.tell(), found.st_size, (found.st_dev, found.st_ino))


def socket_of(thing: Any, *, exact: bool) -> socket.socket | None:
    """`thing` if it is a socket; `exact`: one without a layer (TLS) between its `send` and its descriptor."""
    module = sys.modules.get("socket")  # whoever has a socket has imported it
    if module is None:
        return None
    found: type[socket.socket] = module.socket
    return thing if (type(thing) is found if exact else isinstance(thing, found)) else None


def readinto_of(src: Any) -> ReadInto | None:
    """How `src` fills memory it is given, None when it can only return bytes."""
    connection = socket_of(src, exact=False)
    if connection is not None:
        return connection.recv_into
    kind = type(src)
    # As it comes, where there is such a call: the other waits until the chunk is full, and the sink waits with it.
    for name in ("readinto1", "readinto"):
        inherited = getattr(kind, name, None)
        # What io.BufferedIOBase gives every subclass only reads and copies.
        if inherited is not getattr(io.BufferedIOBase, name):
            found: ReadInto | None = getattr(src, name, None)
            if found is not None:
                return found
    return None


def read_of(src: Any) -> Read:
    """How `src` returns at most so many bytes."""
    read: Read | None = getattr(src, "read", None)
    if read is None:
        raise TypeError(
            f"cannot copy from {type(src).__name__}: it has neither readinto nor read; wrap bytes in io.BytesIO"
        )
    return read


def write_of(dst: Any) -> tuple[Write, bool]:
    """How `dst` takes bytes, and whether None from it means that it would block (else: all were taken)."""
    found = socket_of(dst, exact=False)
    if found is not None:
        return found.send, True
    write: Write | None = getattr(dst, "write", None)
    if write is None:
        raise TypeError(f"cannot copy to {type(dst).__name__}: it has no write")
    return write, isinstance(dst, io.RawIOBase)


def write_all(write: Write, data: Data, *, none_blocks: bool) -> None:
    """Write every byte of `data`. `BlockingIOError.characters_written` says how many were taken before it."""
    count = write(data)
    if count != len(data):
        finish_write(write, data, count, none_blocks=none_blocks)


def finish_write(write: Write, data: Data, count: Any, *, none_blocks: bool) -> None:
    """Go on after a first `write(data)` that answered `count`, until every byte is written."""
    done, total = 0, len(data)
    while True:
        if count is None:
            if none_blocks:
                raise not_ready("sink", done)
            return
        if type(count) is not int or not 0 <= count <= total - done:
            raise ValueError(f"write said it took {count!r} of {total - done} bytes: return how many it took, or None")
        done += count
        if done == total:
            return
        if count == 0:
            raise OSError(errno.EIO, f"the sink takes no more bytes: {done} of {total} were written")
        with memoryview(data)[done:] as rest:
            try:
                count = write(rest)
            except BlockingIOError as error:
                raise not_ready("sink", done + taken_before(error)) from error


def not_ready(who: str, count: int = 0) -> BlockingIOError:
    """The error for an end that would block and was told not to, after `count` bytes."""
    return BlockingIOError(errno.EAGAIN, f"the {who} is not ready, and does not wait", count)


def taken_before(error: BlockingIOError) -> int:
    """How many bytes a write had taken when it raised `error`; a socket does not say, and has taken none."""
    count: int = getattr(error, "characters_written", 0)
    return count
