"""What the file tier knows of an entry (`FileRecord`), and an open one (`FileEntry`).

Invariant: a `FileEntry` reads the file it opened, whatever becomes of the name; no unchecked byte leaves it unless
the store was told to.
Threads: any number of readers; `readinto_at` takes no lock unless it checks a block for the first time.
Design: docs/design/stores.md
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from daramjwee.buffers.charge import Grip
from daramjwee.errors import Closed
from daramjwee.stores.file import layout
from daramjwee.stores.file.blocks import DamageFound, read_full
from daramjwee.stores.shelf import Record
from daramjwee.units import format_size

if TYPE_CHECKING:
    from daramjwee.model import Metadata
    from daramjwee.stores.file.blocks import Checks
    from daramjwee.stores.file.files import Descriptor
    from daramjwee.stores.file.format import MetaRecord
    from daramjwee.stores.file.index import FileIndex
    from daramjwee.stores.file.store import FileStore


class FileRecord(Record):
    """One entry in the index. Under the store's lock, except for `visited`.

    `verified`: (inode, mtime_ns) of the file of which every block was checked in this process. `checks`: the
    blocks checked so far. `file`: its descriptor, kept open between reads once verified. `pins`: how many handed-out paths keep the file's name; `gone`: it left the index.
    """

    __slots__ = (
        "block",
        "body",
        "checks",
        "file",
        "generation",
        "gone",
        "metadata",
        "pins",
        "size",
        "sums",
        "verified",
    )

    def __init__(self, meta: MetaRecord) -> None:
        super().__init__(meta.key, meta.size)
        self.metadata = meta.metadata
        self.size = meta.size
        self.block = meta.block_size
        self.sums = meta.checksums
        self.generation = meta.generation
        self.body = f"{meta.body[:2]}/{meta.body}"
        self.verified: tuple[int, int] | None = None
        self.checks: Checks | None = None
        self.file: Descriptor | None = None
        self.pins = 0
        self.gone = False

    @property
    def digest(self) -> str:
        return self.body[3:67]

    @property
    def meta(self) -> str:
        return layout.meta_name(self.digest, self.generation)


class Pin:
    """Keeps the name of a body on disk while somebody was handed its path."""

    __slots__ = ("_grip", "_store", "held")

    def __init__(self, store: FileIndex) -> None:
        self._store = store
        self.held: list[FileRecord] = []
        self._grip = Grip(store.note_lost_pin, self.held)

    def release(self) -> None:
        self._store.unpin(self)


class FileEntry:
    """An open entry of the file tier."""

    __slots__ = ("_checks", "_file", "_pin", "_preadv", "_record", "_store", "metadata", "size")

    def __init__(self, store: FileStore, record: FileRecord, file: Descriptor, checks: Checks | None) -> None:
        self._store = store
        self._record = record
        self._file: Descriptor | None = file
        self._checks = checks  # None: nothing (left) to check
        self._pin: Pin | None = None
        self._preadv = store.files.preadv
        self.metadata: Metadata = record.metadata
        self.size = record.size

    def readinto_at(self, offset: int, view: memoryview, /) -> int:
        file = self._file
        if file is None or self._store.closed:
            raise Closed("the entry or its store was closed before this read")
        left = self.size - offset
        wanted = len(view)
        if wanted > left:
            if left <= 0:
                return 0
            view, wanted = view[:left], left
        try:
            if self._checks is None:
                if self._preadv(file.fd, (view,), offset) != wanted:
                    read_full(self._store.files, file.fd, offset, view)  # from the start: short reads are rare
            else:
                self._checks.readinto(self._store.files, file.fd, offset, view)
                self._note_checked()
        except DamageFound as damage:
            raise self._store.corrupt(self._record, str(damage)) from None
        except OSError as error:
            raise self._store.failed("read_failed", self._record.key, "read", error) from error
        return wanted

    def peek_at(self, offset: int, size: int) -> bytes:
        """As `readinto_at`, into fresh `bytes`; without a copy once the entry is verified."""
        file = self._file
        if file is None or self._store.closed:
            raise Closed("the entry or its store was closed before this read")
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        if self._checks is None:
            try:
                data = self._store.files.pread(file.fd, size, offset)
            except OSError as error:
                raise self._store.failed("read_failed", self._record.key, "read", error) from error
            if len(data) == size:
                return data
        buffer = bytearray(size)
        self.readinto_at(offset, memoryview(buffer))
        return bytes(buffer)

    def fileno(self) -> int:
        """The descriptor of the body; `io.UnsupportedOperation` until every block of it has been checked."""
        file = self._file
        if file is None or self._store.closed:
            raise Closed("the entry or its store was closed before this call")
        if self._checks is not None:
            raise io.UnsupportedOperation("the body has not been verified yet: read it, or call verify()")
        return file.fd

    @property
    def path(self) -> str:
        """The body as a plain file, there until this entry is closed."""
        if self._file is None or self._store.closed:
            raise Closed("the entry or its store was closed before this call")
        if self._pin is None:
            self._pin = self._store.pin(self._record)
        return self._store.body_path(self._record)

    def verify(self) -> None:
        """Check every block that has not been checked; `CorruptEntry` when one is damaged."""
        file, checks = self._file, self._checks
        if file is None or self._store.closed:
            raise Closed("the entry or its store was closed before this call")
        if checks is None:
            return
        try:
            checks.check_rest(self._store.files, file.fd)
        except DamageFound as damage:
            raise self._store.corrupt(self._record, str(damage)) from None
        except OSError as error:
            raise self._store.failed("read_failed", self._record.key, "read", error) from error
        self._note_checked()

    def close(self) -> None:
        self._file = None
        pin, self._pin = self._pin, None
        if pin is not None:
            pin.release()

    def _note_checked(self) -> None:
        checks = self._checks
        if checks is not None and not checks.left:
            self._record.verified = checks.stamp
            self._record.checks = None
            self._checks = None

    def __repr__(self) -> str:
        state = "closed" if self._file is None else "open" if self._checks is not None else "open, verified"
        return f"<FileEntry {state}, {format_size(self.size)}>"
