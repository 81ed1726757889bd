"""The calls of the operating system that the file tier makes, in one place, so that tests can let each of them fail.

Invariant: nothing in this room touches the disk but through a `Files`.
Threads: any.
Design: docs/design/stores.md
"""

from __future__ import annotations

import os
import sys


class Files:
    """The real calls, as they are: a Python frame around each would be felt on every hit."""

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    fstat = staticmethod(os.fstat)
    stat = staticmethod(os.stat)
    write = staticmethod(os.write)
    fsync = staticmethod(os.fsync)
    utime = staticmethod(os.utime)
    link = staticmethod(os.link)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    mkdir = staticmethod(os.mkdir)
    makedirs = staticmethod(os.makedirs)
    rmdir = staticmethod(os.rmdir)
    chmod = staticmethod(os.chmod)
    listdir = staticmethod(os.listdir)
    if sys.platform != "win32":  # where the tier is refused, but must be importable
        pread = staticmethod(os.pread)
        preadv = staticmethod(os.preadv)
        statvfs = staticmethod(os.statvfs)


class Descriptor:
    """A file descriptor with many users, closed when the last of them is gone.

    A reader keeps a reference for the length of its call, so that no close in another thread can make it read
    whatever file gets the same number next.
    """

    __slots__ = ("__weakref__", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self, _close=os.close) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - bound early: `os` may be gone at exit
        fd = getattr(self, "fd", None)  # missing when the constructor was interrupted
        if fd is not None:
            _close(fd)
