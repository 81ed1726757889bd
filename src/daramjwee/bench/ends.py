"""What is copied from and to when copies are measured: plain sources and sinks, sockets that are drained, files that
are made anew, and contenders that time the copy alone.

Invariant: what is opened, made, emptied or removed for a copy is not part of its time; flushing what it wrote is.
Threads: one uses an end at a time.
Design: docs/design/bench.md
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

from daramjwee.units import counted

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from daramjwee.bench.timing import Timed

    # Copies everything from a source object to a sink.
    Copy = Callable[[Any, Any], object]
    # Something to be closed that is copied from, or to.
    Opening = Callable[[], Any]


class Source(io.RawIOBase):
    """A body in memory, read as a response or a decoder is read: no descriptor, `readinto` only."""

    def __init__(self, body: bytes) -> None:
        self._body = memoryview(body)
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, view: Any, /) -> int:
        count = min(len(view), len(self._body) - self._at)
        view[:count] = self._body[self._at : self._at + count]
        self._at += count
        return count


class Reads:
    """The same body as an object that only returns bytes: new ones each time, as a decoder must."""

    def __init__(self, body: bytes) -> None:
        self._body = memoryview(body)
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        end = len(self._body) if size < 0 else self._at + size
        data = bytes(self._body[self._at : end])
        self._at += len(data)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to close."""


class Glance:
    """A sink that looks at the first byte of what it is given."""

    taken = 0

    def write(self, data: Any) -> int:
        count = len(data)
        if count:
            data[0]
        self.taken += count
        return count

    def flush(self) -> None:
        """There is nothing to flush."""

    def close(self) -> None:
        """There is nothing to close."""


class Summed(Glance):
    """A sink that reads every byte once, as quickly as this processor can: CRC-32C in hardware, where it has that."""

    def __init__(self) -> None:
        from crc32c import crc32c

        self._add = crc32c
        self.sum = 0

    def write(self, data: Any) -> int:
        self.sum = self._add(data, self.sum)
        self.taken += len(data)
        return len(data)


DRAIN = """
import socket, sys
far, view = socket.socket(fileno=int(sys.argv[1])), bytearray(1 << 20)
while far.recv_into(view):
    pass
"""


class DrainedSocket:
    """`with DrainedSocket() as near`: one end of a unix socket pair; another process, so that it shares no lock with
    us, takes away what is sent."""

    def __enter__(self) -> socket.socket:
        self._near, far = socket.socketpair()
        with far:
            self._drain = subprocess.Popen([sys.executable, "-c", DRAIN, str(far.fileno())], pass_fds=[far.fileno()])
        return self._near

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._near.close()
        self._drain.wait()


class Folder:
    """`with Folder() as folder`: a temporary folder in which bodies become files and copies become new files."""

    def __enter__(self) -> Self:
        import tempfile

        self._made = tempfile.TemporaryDirectory(prefix="daramjwee-bench-")
        self.target = os.path.join(self._made.name, "target")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._made.cleanup()

    def file_of(self, body: bytes) -> str:
        """A file with `body` in it, written once for each length and now in the page cache."""
        path = os.path.join(self._made.name, f"source of {len(body)}")
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.write(body)
        return path

    def new_file(self) -> Any:
        """The target, open for writing as a user opens it; what was there is gone before."""
        try:
            os.unlink(self.target)
        except FileNotFoundError:
            pass  # the first copy of this folder
        return open(self.target, "wb")

    def same_file(self) -> Any:
        """The target, open for overwriting what is in it."""
        return open(self.target, "r+b" if os.path.exists(self.target) else "w+b")

    def over(self, size: int) -> Any:
        """A target of its own for copies of that size, written over what is in it, behind the file object that
        `open(path, "wb")` gives."""
        return open(f"{self.target} of {size}", "wb", opener=_not_cut)

    def read_over(self, size: int) -> bytes:
        """What is in it."""
        with open(f"{self.target} of {size}", "rb") as file:
            return file.read()


def _not_cut(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_TRUNC, 0o600)


def opener(path: str) -> Opening:
    """Opens that file to read."""
    return lambda: open(path, "rb")


def copies(copy: Copy, source: Opening, sink: Opening) -> Timed:
    """A contender that makes copies, each from a source and to a sink of its own. Its time is that of the copies and
    of flushing the sinks."""

    def run(loops: int) -> float:
        took = 0.0
        for _ in range(loops):
            with source() as opened:
                target = sink()
                flush = getattr(target, "flush", None)
                begin = perf_counter()
                copy(opened, target)
                if flush is not None:
                    flush()
                took += perf_counter() - begin
                if flush is not None:  # a socket is used again
                    target.close()
        return took

    return run


def read_and_write(source: Any, sink: Any) -> None:
    """The shortest copy there is: everything at once."""
    sink.write(source.read())


def send_whole(source: Any, sink: socket.socket) -> None:
    """The same to a socket."""
    sink.sendall(source.read())


def through_fresh(size: int) -> Copy:
    """`readinto` of a `bytearray` of that size, a new one for each copy."""

    def copy(source: Any, sink: Any) -> None:
        _fill_and(sink.write, source, memoryview(bytearray(size)))

    return copy


def send_through_fresh(size: int) -> Copy:
    """The same to a socket."""

    def copy(source: Any, sink: socket.socket) -> None:
        _fill_and(sink.sendall, source, memoryview(bytearray(size)))

    return copy


def _fill_and(give: Callable[[Any], object], source: Any, view: memoryview) -> None:
    left = len(view)
    while left:
        count = source.readinto(view[:left])
        if not count:
            raise EOFError(f"the source ended {counted(left, 'byte')} early")
        give(view[:count])
        left -= count


def copy_file_range(source: Any, sink: Any) -> None:
    """The kernel's copy between two files, in a bare loop."""
    left = os.fstat(source.fileno()).st_size
    while left:
        left -= os.copy_file_range(source.fileno(), sink.fileno(), left)


def sendfile(source: Any, sink: socket.socket) -> None:
    """The kernel's copy from a file to a socket, in a bare loop."""
    size, offset = os.fstat(source.fileno()).st_size, 0
    while offset < size:
        offset += os.sendfile(sink.fileno(), source.fileno(), offset, size - offset)
