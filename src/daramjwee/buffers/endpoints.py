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
from functools import lru_cache
from io import BufferedRandom, BufferedReader, BufferedWriter, FileIO
from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.buffers.strategy import FILE, KERNEL_FROM, LOCAL, MEMORY, PIPE, PLAIN, READINTO, SOCKET

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from daramjwee.buffers.strategy import Endpoint

    Data = bytes | memoryview
    ReadInto = Callable[[memoryview], "int | None"]
    Read = Callable[[int], Any]
    Write = Callable[[Data], Any]

# What is a plain file (or pipe), when `raw` of it is exactly an `io.FileIO`: `fileno()` of anything else may be that
# of a file with other bytes in it (gzip, a response, TLS).
_BUFFERED = (io.BufferedReader, io.BufferedWriter, io.BufferedRandom)


_KNOWN = {*_BUFFERED, io.FileIO, io.BytesIO}

_new_tuple = tuple.__new__
_KIND_OF_FILE, _IS_FILE, _IS_PIPE = 0o170000, stat.S_IFREG, stat.S_IFIFO


class Source(NamedTuple):
    """What a source can do. `readinto`: None when it only returns bytes. `rest`: the bytes from its position to the
    end, where that is known (0: it is not); `fd`, `position`, `device`: of a file, or of a pipe."""

    kind: Endpoint
    readinto: ReadInto | None
    rest: int
    fd: int
    position: int
    device: int


class Sink(NamedTuple):
    """What a sink can do. `none_blocks`: whether None from `write` means that it would block (else: all was taken).
    `keeps_none`: it is known to keep nothing of the memory it is given."""

    kind: Endpoint
    write: Write
    none_blocks: bool
    keeps_none: bool


def source_of(src: Any) -> Source:
    """What `src` can do; a `TypeError` when it is no source. What it has buffered for writing is flushed."""
    kind = type(src)
    if kind is BufferedReader or kind is FileIO or kind is BufferedRandom:
        raw = src if kind is FileIO else src.raw
        if type(raw) is FileIO:
            if kind is BufferedRandom:
                src.flush()
            fd = raw.fileno()
            found = os.fstat(fd)
            # As it comes: `readinto` of a buffered object waits until the chunk is full, and the sink waits with it.
            readinto = src.readinto if kind is FileIO else src.readinto1
            mode = found.st_mode & _KIND_OF_FILE
            if mode == _IS_FILE:
                position = src.tell()
                rest = max(0, found.st_size - position)
                return _new_tuple(Source, (FILE, readinto, rest, fd, position, found.st_dev))
            return _new_tuple(Source, (PIPE if mode == _IS_PIPE else READINTO, readinto, 0, fd, 0, 0))
    readinto = readinto_of(src)
    if kind is io.BytesIO:
        position = src.tell()
        rest = max(0, src.seek(0, io.SEEK_END) - position)
        src.seek(position)
        return _new_tuple(Source, (MEMORY, readinto, rest, -1, position, 0))
    if readinto is None:
        read_of(src)
        return _new_tuple(Source, (PLAIN, None, 0, -1, 0, 0))
    found_socket = socket_of(src, exact=True)
    if found_socket is None:
        return _new_tuple(Source, (READINTO, readinto, 0, -1, 0, 0))
    return _new_tuple(Source, (socket_kind(found_socket), readinto, 0, found_socket.fileno(), 0, 0))


def sink_of(dst: Any, size: int | None) -> Sink:
    """What `dst` can do for `size` bytes (None: unknown); a `TypeError` when it is no sink."""
    kind = type(dst)
    if kind is BufferedWriter or kind is FileIO or kind is BufferedRandom:
        raw = dst if kind is FileIO else dst.raw
        if type(raw) is FileIO:
            found = FILE if raw.seekable() else _pipe_or_plain(raw)
            if kind is BufferedWriter and (size is None or size >= KERNEL_FROM):
                # Straight to the file: a failing write then says how much was written, to the byte.
                dst.flush()
                return _new_tuple(Sink, (found, raw.write, True, True))
            return _new_tuple(Sink, (found, dst.write, kind is FileIO, True))
    write, none_blocks = write_of(dst)
    found_socket = socket_of(dst, exact=True)
    if found_socket is not None:
        return _new_tuple(Sink, (socket_kind(found_socket), write, none_blocks, True))
    return _new_tuple(Sink, (PLAIN, write, none_blocks, kind is io.BytesIO))


def socket_kind(found: socket.socket) -> Endpoint:
    """Whether the other end is on this machine."""
    import socket

    return LOCAL if found.family == getattr(socket, "AF_UNIX", None) else SOCKET


def _pipe_or_plain(raw: FileIO) -> Endpoint:
    return PIPE if stat.S_ISFIFO(os.fstat(raw.fileno()).st_mode) else PLAIN


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
    for name in _traits_of(src.__class__).fill:
        found: ReadInto | None = getattr(src, name, None)
        if found is not None:
            return found
    return None


class Traits(NamedTuple):
    """What a type says of its objects. `fill`: the names under which they may fill memory, the best first; `plain`: they
    can do what their methods do, and nothing else."""

    socket: bool
    text: bool
    raw: bool
    plain: bool
    fill: tuple[str, ...]


# A program copies between few types. Asking anew each time, of abstract base classes too, takes a microsecond.
@lru_cache(maxsize=256)
def _traits_of(kind: type) -> Traits:
    module = sys.modules.get("socket")  # whoever has a socket has imported it
    is_socket = module is not None and issubclass(kind, module.socket)
    # As it comes, where there is such a call: the other waits until the chunk is full, and the sink waits with it. What
    # io.BufferedIOBase gives every subclass only reads and copies.
    inherited = {name: getattr(io.BufferedIOBase, name) for name in ("readinto1", "readinto")}
    fill = tuple(name for name, method in inherited.items() if getattr(kind, name, None) is not method)
    text = issubclass(kind, io.TextIOBase)
    plain = not (is_socket or text or kind in _KNOWN)
    return Traits(is_socket, text, issubclass(kind, io.RawIOBase), plain, ("recv_into",) if is_socket else fill)


def is_plain(kind: type) -> bool:
    """Whether objects of this type are no files, sockets or text, and share no memory of their own."""
    return _traits_of(kind).plain


def read_of(src: Any) -> Read:
    """How `src` returns at most so many bytes."""
    read: Read | None = getattr(src, "read", None)
    if _traits_of(src.__class__).text:
        raise _text("from", src)
    if read is None:
        raise TypeError(
            f"cannot copy from {type(src).__name__}: it has neither readinto nor read; wrap bytes in io.BytesIO"
        )
    return read


def write_of(dst: Any) -> tuple[Write, bool]:
    """How `dst` takes bytes, and whether None from it means that it would block (else: all were taken)."""
    traits = _traits_of(dst.__class__)
    if traits.socket:
        return dst.send, True
    write: Write | None = getattr(dst, "write", None)
    if traits.text:
        raise _text("to", dst)
    if write is None:
        raise TypeError(f"cannot copy to {type(dst).__name__}: it has no write")
    return write, traits.raw


def _text(direction: str, thing: Any) -> TypeError:
    mend = "use its .buffer" if hasattr(thing, "buffer") else "use io.BytesIO"
    return TypeError(
        f"cannot copy {direction} {type(thing).__name__}: it has text, not bytes; open files as binary, or {mend}"
    )


def finish_write(write: Write, data: Data, count: Any, *, none_blocks: bool) -> None:
    """Go on after a first `write(data)` that answered `count`, until every byte is written."""
    done, total = 0, len(data)
    while True:
        if count is None:
            if none_blocks:
                raise not_ready("sink", done)
            return
        check_count(count, total - done, total)
        done += count
        if done == total:
            return
        with memoryview(data)[done:] as rest:
            try:
                count = write(rest)
            except BlockingIOError as error:
                raise not_ready("sink", done + taken_before(error)) from error


def check_count(count: Any, left: int, total: int) -> None:
    """Raise unless `count` can be what a write of the last `left` of `total` bytes took."""
    if type(count) is not int or not 0 <= count <= left:
        raise ValueError(f"write said it took {count!r} of {exact_bytes(left)}: return how many it took, or None")
    if count == 0:
        done = total - left
        raise OSError(
            errno.EIO, f"the sink takes no more bytes: {done} of {total} {'was' if done == 1 else 'were'} written"
        )


def exact_bytes(count: int) -> str:
    """So many bytes, in digits that a program can read: "1 byte", "131072 bytes"."""
    return f"{count} {'byte' if count == 1 else 'bytes'}"


def not_ready(who: str, count: int = 0) -> BlockingIOError:
    """The error for an end that would block and was told not to, after `count` bytes."""
    return BlockingIOError(errno.EAGAIN, f"the {who} is not ready, and does not wait", count)


def taken_before(error: BaseException) -> int:
    """How many bytes a write had taken when it raised `error`; a socket does not say, and has taken none."""
    count: int = getattr(error, "characters_written", 0)
    return count
