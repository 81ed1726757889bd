"""An object on its way into the file tier: a file in this process's own staging folder.

Invariant: bytes below `written` are in the file and in the checksums, and never change; the file is removed unless
it was committed.
Threads: one writer; readers with `preadv`, each holding the descriptor for the length of its call.
Design: docs/design/stores.md
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from daramjwee.buffers.charge import Grip
from daramjwee.errors import Closed, StoreError, shorten
from daramjwee.stores.file.blocks import BlockSums, DamageFound, read_full
from daramjwee.stores.shelf import Hold
from daramjwee.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from daramjwee.model import Metadata
    from daramjwee.stores.file.entry import FileEntry
    from daramjwee.stores.file.files import Descriptor
    from daramjwee.stores.file.store import FileStore

# An object of unknown size asks for the free space of the disk again after so many bytes.
FLOOR_CHECK_BYTES = 16 * 1024 * 1024


class FileHold(Hold):
    """What a staging of the file tier has, with its file, once there is one; the final name of it from its placing on."""

    __slots__ = ("path",)

    def __init__(self, epoch: int) -> None:
        super().__init__(epoch)
        self.path: str | None = None


class FileStaging:
    __slots__ = (
        "__weakref__",
        "_checked_to",
        "_failed",
        "_file",
        "_late",
        "_metadata",
        "_open",
        "_room",
        "_store",
        "_sums",
        "fill",
        "hold",
        "key",
        "owner",
        "written",
    )

    def __init__(self, store: FileStore, key: str, metadata: Metadata, *, fill: int) -> None:
        self._store = store
        self._metadata = metadata
        self._file: Descriptor | None = None
        # After a commit the entry alone keeps the descriptor open; readers may use it as long as it does.
        self._late: weakref.ref[Descriptor] | None = None
        self._sums = BlockSums()
        self._failed = False
        self._checked_to = max(metadata.size or 0, FLOOR_CHECK_BYTES)
        self.hold = FileHold(store.epoch)
        # Before anything is held: when this is lost, it goes back. After a commit there is nothing to give back.
        self._open = [self.hold]
        self._room = Grip(store.note_lost, self._open)
        self.key = key
        self.owner = ""
        self.fill = fill
        self.written = 0

    def begin(self, file: Descriptor, path: str, owner: str) -> None:
        """Write into this file from now on."""
        self._file, self.hold.path, self.owner = file, path, owner

    def write(self, data: memoryview | bytes, /) -> None:
        file = self._usable()
        view = memoryview(data)
        store, size = self._store, len(view)
        try:
            more = self.written + size - self.hold.room
            if more > 0:
                store.reserve(self.key, self.hold, more)
            if self.written + size > self._checked_to:
                store.check_floor(self.key, size)
                self._checked_to = self.written + size + FLOOR_CHECK_BYTES
            self._write_out(file, view)
        except BaseException:
            self._failed = True
            raise
        self._sums.update(view)
        self.written += size  # last: readers go by it

    def _write_out(self, file: Descriptor, view: memoryview) -> None:
        try:
            while view:
                done = self._store.files.write(file.fd, view)
                view = view[done:]
        except OSError as error:
            raise self._store.failed("write_failed", self.key, "write", error) from error

    def readinto_at(self, offset: int, view: memoryview, /) -> int:
        file = self._file
        if file is None and self._late is not None:
            file = self._late()
        if file is None or self._store.closed:
            raise Closed(f"the staging of {shorten(self.key)} has ended")
        wanted = min(len(view), self.written - offset)
        if wanted <= 0:
            return 0
        try:
            read_full(self._store.files, file.fd, offset, view[:wanted])
        except DamageFound as damage:
            raise StoreError(f"the staging of {shorten(self.key)} was cut short on disk: {damage}") from None
        except OSError as error:
            raise self._store.failed("read_failed", self.key, "read", error) from error
        return wanted

    def peek_at(self, offset: int, size: int) -> bytes:
        """As `readinto_at`, into fresh `bytes`, without a copy of them."""
        file = self._file
        if file is None and self._late is not None:
            file = self._late()
        if file is None or self._store.closed:
            raise Closed(f"the staging of {shorten(self.key)} has ended")
        size = min(size, self.written - offset)
        if size <= 0:
            return b""
        try:
            data = self._store.files.pread(file.fd, size, offset)
        except OSError as error:
            raise self._store.failed("read_failed", self.key, "read", error) from error
        if len(data) == size:
            return data
        buffer = bytearray(size)  # a short read is rare, and says nothing yet
        return bytes(buffer[: self.readinto_at(offset, memoryview(buffer))])

    def commit(self, metadata: Metadata | None = None, *, guard: Callable[[], bool] | None = None) -> FileEntry | None:
        file = self._usable()
        described = self._metadata if metadata is None else metadata
        published = self._store.publish(self, file, described, self._sums.result(), guard)
        if published is None:
            return None
        self._late = weakref.ref(file)
        self._file = None
        del self._open[:]
        record, stamp = published
        return self._store.opened(record, file, stamp)

    def abort(self) -> None:
        self._file = None
        self._store.end_staging(self.hold)

    def _usable(self) -> Descriptor:
        file = self._file
        if file is None or self._store.closed or self.hold.epoch != self._store.epoch:
            raise Closed(f"the staging of {shorten(self.key)} has ended: begin a new one")
        if self._failed:
            raise StoreError(f"the staging of {shorten(self.key)} failed before: abort it")
        return file

    def __repr__(self) -> str:
        state = "committed" if self._late is not None else "open" if self.hold.counted else "aborted"
        return f"<FileStaging {shorten(self.key)} {state}, {format_size(self.written)}>"
