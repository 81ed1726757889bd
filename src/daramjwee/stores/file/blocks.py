"""Checksums of a body, block by block: made while it is written, checked when it is first read.

Invariant: bytes of a block that failed its check are never left in a caller's view.
Threads: a `BlockSums` has one writer. A `Checks` is shared by all readers of an entry: marking is one byte's store,
and the count of what is left is kept under the lock handed in.
Design: docs/design/stores.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daramjwee.stores.file.format import BLOCK_BYTES

if TYPE_CHECKING:
    import threading

    from daramjwee.stores.file.files import Files

# A read of less than a block is checked in parts of this size: below malloc's threshold for fresh pages.
PART_BYTES = 64 * 1024


class DamageFound(Exception):
    """The file does not hold what was committed; the text says where."""


class BlockSums:
    """CRC-32C of each full block written so far, and of the one begun."""

    __slots__ = ("_crc", "_crc32c", "_filled", "_sums")

    def __init__(self) -> None:
        from crc32c import crc32c

        self._crc32c = crc32c
        self._sums = bytearray()
        self._crc = 0
        self._filled = 0

    def update(self, view: memoryview) -> None:
        at, size = 0, len(view)
        while at < size:
            part = view[at : at + BLOCK_BYTES - self._filled]
            self._crc = self._crc32c(part, self._crc)
            self._filled += len(part)
            at += len(part)
            if self._filled == BLOCK_BYTES:
                self._sums += self._crc.to_bytes(4, "little")
                self._crc = self._filled = 0

    def result(self) -> bytes:
        return bytes(self._sums) + (self._crc.to_bytes(4, "little") if self._filled else b"")


class Checks:
    """Which blocks of one file have been checked. `keep=False`: none is ever taken as checked."""

    __slots__ = ("_crc32c", "_lock", "block", "done", "keep", "left", "size", "stamp", "sums")

    def __init__(
        self, stamp: tuple[int, int], size: int, block: int, sums: bytes, lock: threading.Lock, *, keep: bool
    ) -> None:
        from crc32c import crc32c

        self._crc32c = crc32c
        self._lock = lock
        self.stamp = stamp  # (inode, mtime_ns) of the file when it was opened
        self.size = size
        self.block = block
        self.sums = sums
        self.keep = keep
        self.left = len(sums) // 4
        self.done = bytearray(self.left)

    def readinto(self, files: Files, fd: int, offset: int, view: memoryview) -> None:
        """Fill `view` from `offset` on, checking what has not been. `DamageFound` leaves no damaged byte in it."""
        at, end = 0, len(view)
        while at < end:
            index, inside = divmod(offset + at, self.block)
            length = min(self.block, self.size - index * self.block)
            part = view[at : at + length - inside]
            if self.done[index]:
                read_full(files, fd, offset + at, part)
            elif len(part) == length:
                # Read and check one block at a time: its bytes are still in the processor's cache.
                read_full(files, fd, offset + at, part)
                self._settle(index, self._crc32c(part), part)
            else:
                self._check_around(files, fd, index, length, inside, part)
            at += len(part)

    def check_rest(self, files: Files, fd: int) -> None:
        """Read and check every block that has not been."""
        view = memoryview(bytearray(min(self.block, self.size)))
        for index in range(len(self.done)):
            if not self.done[index]:
                start = index * self.block
                self.readinto(files, fd, start, view[: min(self.block, self.size - start)])

    def _check_around(self, files: Files, fd: int, index: int, length: int, inside: int, view: memoryview) -> None:
        """Check a whole block of which `view` wants a part only: pass over it in small parts."""
        crc, at, end = 0, 0, inside + len(view)
        while at < length:
            wanted = min(PART_BYTES, length - at)
            data = files.pread(fd, wanted, index * self.block + at)
            if not data:
                view[:] = bytes(len(view))
                raise DamageFound(f"the file ends at byte {index * self.block + at:,} of {self.size:,}")
            crc = self._crc32c(data, crc)
            first, last = max(at, inside), min(at + len(data), end)
            if first < last:
                view[first - inside : last - inside] = memoryview(data)[first - at : last - at]
            at += len(data)
        self._settle(index, crc, view)

    def _settle(self, index: int, crc: int, view: memoryview) -> None:
        if crc != int.from_bytes(self.sums[4 * index : 4 * index + 4], "little"):
            view[:] = bytes(len(view))
            raise DamageFound(f"the checksum differs in the block at byte {index * self.block:,}")
        if self.keep:
            with self._lock:
                if not self.done[index]:
                    self.done[index] = 1
                    self.left -= 1


def read_full(files: Files, fd: int, offset: int, view: memoryview) -> None:
    """Fill `view`; `DamageFound` where the file ends first: a short end is never silent."""
    at, end = 0, len(view)
    while at < end:
        got = files.preadv(fd, (view[at:] if at else view,), offset + at)
        if not got:
            view[:] = bytes(end)
            raise DamageFound(f"the file ends at byte {offset + at:,}")
        at += got
