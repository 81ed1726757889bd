"""The file tier: an index in memory over plain files on disk.

Invariant: that of `index`; and no byte is read unchecked unless the store was told to.
Threads: all methods from any thread. An open of a verified entry takes no lock (under LRU: one, to note the hit).
Design: docs/design/stores.md
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Literal

from daramjwee.errors import ConfigError, LimitExceeded, Problem, StoreError, shorten
from daramjwee.model import Event
from daramjwee.stores.file import layout
from daramjwee.stores.file.blocks import Checks
from daramjwee.stores.file.entry import FileEntry, FileRecord
from daramjwee.stores.file.files import Descriptor
from daramjwee.stores.file.index import TURN_SECONDS, FileIndex
from daramjwee.stores.file.staging import FileStaging
from daramjwee.stores.forks import survive_fork
from daramjwee.stores.limits import check_limits, check_size, limits_or_refuse
from daramjwee.units import counted, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from daramjwee.buffers.ledger import MemoryLedger
    from daramjwee.model import Clock, Metadata, Observer
    from daramjwee.stores.protocol import Usage
    from daramjwee.stores.shelf import Hold
    from daramjwee.units import Size

    Guard = Callable[[], bool]

logger = logging.getLogger(__name__)

DURABILITIES = ("flush", "fsync")
VERIFICATIONS = ("first", "always", "off")


# Descriptors of verified bodies that stay open between reads: enough for what is read again and again, few beside the
# 1,024 that a process may have.
KEPT_DESCRIPTORS = 64


class FileStore(FileIndex):
    """A tier in a `folder` of its own, which is private to its owner (0700).

    `capacity`: bytes of bodies, stagings included. `max_entries`: number of entries; None: one per 256 bytes of
    capacity, at least 1024. `policy`: in which order entries leave, "sieve" or "lru". `free_space_floor`: bytes of the
    disk to leave free; entries make way for it, 0 switches it off. `durability`: "flush" survives a killed process,
    "fsync" a power cut too. `verify`: "first" checks every block when it is first read in this process, "always" at
    each read, "off" never. `max_object_size`: larger objects are refused; None: the capacity. `ConfigError` lists every
    argument that is wrong, `StoreError` says why the folder cannot be used.
    """

    name = "file"
    plain_files = True  # an entry's `path` is a file that programs may open

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        capacity: Size,
        max_entries: int | None = None,
        policy: Literal["sieve", "lru"] = "sieve",
        free_space_floor: Size = "64MiB",
        durability: Literal["flush", "fsync"] = "flush",
        verify: Literal["first", "always", "off"] = "first",
        max_object_size: Size | None = None,
    ) -> None:
        problems: list[Problem] = []
        limits = check_limits(capacity, max_entries, policy, max_object_size, problems)
        floor = check_size("free_space_floor", free_space_floor, problems)
        for field, value, known in (("durability", durability, DURABILITIES), ("verify", verify, VERIFICATIONS)):
            if value not in known:
                problems.append(Problem(field, value, f"must be one of {', '.join(known)}"))
        if sys.platform == "win32":
            problems.append(Problem("folder", os.fspath(folder), "a file tier does not run on Windows: leave it out"))
        if not folder or not (isinstance(folder, str) or hasattr(folder, "__fspath__")):
            problems.append(Problem("folder", folder, "must be the path of a folder"))
        elif "\0" in os.fsdecode(folder):
            problems.append(Problem("folder", folder, "must be the path of a folder, without a null character"))
        if problems or limits is None or floor is None:
            raise ConfigError(problems, subject="FileStore")
        super().__init__(os.path.abspath(os.fspath(folder)), limits, floor=floor, fsync=durability == "fsync")
        self.max_object_size = self.largest_fill = limits.max_object_size
        self._verify = verify
        self._durability = durability
        self.in_use = False  # set by the cache whose tier it is
        self._find = self._shelf.table.get
        self._touch = self._shelf.policy.touch if self._shelf.policy.hit_needs_lock else None
        self._start()
        survive_fork(self)

    def attach(self, *, ledger: MemoryLedger, observer: Observer, clock: Clock) -> None:
        """Join a cache: tell its observer what happens."""
        self._observer = observer

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments as they hold now, sizes in bytes."""
        return {
            "folder": self.folder, **self._shelf.limits.settings(), "free_space_floor": self._disk.floor,
            "durability": self._durability, "verify": self._verify,
        }  # fmt: skip

    def reconfigure(
        self, *, capacity: Size, max_entries: int | None = None, max_object_size: Size | None = None
    ) -> None:
        """Keep to these limits from now on, as if made with them: entries beyond them leave now. Objects that are being
        written go on as they began. `ConfigError` lists what is wrong; nothing is changed then."""
        limits = limits_or_refuse("FileStore", capacity, max_entries, self._shelf.policy.name, max_object_size)
        evicted: list[FileRecord] = []
        try:
            with self.lock:
                self._check_open()
                self._shelf.resize_locked(limits, evicted)
                self.max_object_size = self.largest_fill = limits.max_object_size
                self._leave_locked(evicted)
        finally:
            self._remove(evicted)

    # -- reading -------------------------------------------------------------------------------------------

    def open(self, key: str) -> FileEntry | None:
        files = self.files
        while True:
            record = self._find(key)
            if record is None:
                self._check_open()
                return None
            if self._touch is None:
                record.visited = True
            else:
                with self.lock:
                    self._touch(record)
            kept = record.file
            if kept is not None:
                try:
                    status = files.fstat(kept.fd)
                except OSError:  # a file server forgot it: opening it again says what is wrong
                    unchanged = False
                else:
                    stamp = status.st_ino, status.st_mtime_ns
                    unchanged = stamp == record.verified and status.st_size == record.size and status.st_nlink > 0
                if unchanged and not self.closed:
                    return FileEntry(self, record, kept, None)
                record.file = None
            try:
                # A pipe in the place of a body must not stop us in open(): its size gives it away.
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
                file = Descriptor(files.open(self._prefix + record.body, flags))
                status = files.fstat(file.fd)
            except FileNotFoundError:
                # Replaced or evicted since it was found: look again. Else somebody removed the file.
                if self._find(key) is record:
                    self._drop(record, "missing", "its body is gone from the folder")
                continue
            except OSError as error:
                raise self.failed("read_failed", key, "open", error) from error
            if status.st_size != record.size:
                raise self.corrupt(record, f"the body has {counted(status.st_size, 'byte')} instead of {record.size:,}")
            return self.opened(record, file, (status.st_ino, status.st_mtime_ns))

    def stat(self, key: str) -> Metadata | None:
        record = self._find(key)
        if record is None:
            self._check_open()
            return None
        return record.metadata

    def keys(self, prefix: str = "") -> Iterator[str]:
        with self.lock:
            self._check_open()
            found = list(self._shelf.table)
        return iter([key for key in found if key.startswith(prefix)] if prefix else found)

    def usage(self) -> Usage:
        self._check_open()
        self._drain()
        with self.lock:
            return self._shelf.usage_locked()

    def _checks(self, record: FileRecord, stamp: tuple[int, int]) -> Checks | None:
        """What is left to check of the file with this stamp; None for nothing."""
        if self._verify == "off" or not record.size:
            return None
        keep = self._verify == "first"
        with self.lock:
            checks = record.checks
            if checks is None or not keep or checks.stamp != stamp:
                checks = Checks(stamp, record.size, record.block, record.sums, self.lock, keep=keep)
                if keep:
                    record.checks = checks
        return checks

    # -- writing -------------------------------------------------------------------------------------------

    def stage(self, key: str, metadata: Metadata) -> FileStaging:
        self._check_open()
        self._drain()
        size = metadata.size or 0
        staging = FileStaging(self, key, metadata, fill=next(self._fills))
        try:
            self.reserve(key, staging.hold, size)
            self.check_floor(key, size)
            try:
                staging.begin(*self._disk.new_staging(staging.fill))
            except OSError as error:
                raise self.failed("write_failed", key, "create", error) from error
            with self.lock:
                self._stagings.add(staging)
        except BaseException:
            staging.abort()
            raise
        return staging

    def reserve(self, key: str, hold: Hold, count: int) -> None:
        """Internal: take `count` more bytes of capacity for a staging, evicting as needed."""
        limits = self._shelf.limits
        if hold.room + count > limits.max_object_size:
            raise LimitExceeded(
                f"{shorten(key)} has at least {hold.room + count:,} bytes, more than the {limits.max_object_size:,} "
                "an object of the file tier may have: raise max_object_size or capacity"
            )
        evicted: list[FileRecord] = []
        try:
            with self.lock:
                fits = self._shelf.reserve_locked(hold, count, evicted)
                reserved = self._shelf.reserved
                self._leave_locked(evicted)
        finally:
            self._remove(evicted)
        if not fits:
            raise LimitExceeded(
                f"no room for {counted(count, 'more byte')} of {shorten(key)}: stagings hold {reserved:,} of the "
                f"{limits.capacity:,} bytes of the file tier; raise capacity or fill fewer objects at once"
            )

    def check_floor(self, key: str, count: int) -> None:
        """Internal: see that `count` bytes leave the disk its free space; entries make way as far as that helps."""
        try:
            missing = self._disk.missing_space(count)
            if missing > 0 and self._evict_bytes(missing):
                missing = self._disk.missing_space(count)
        except OSError as error:
            raise self.failed("write_failed", key, "ask for the free space of", error) from error
        if missing > 0:
            detail = (
                f"the disk of {self.folder} is {format_size(missing)} short of {format_size(count)} for "
                f"{shorten(key)} and the free_space_floor of {format_size(self._disk.floor)}: free some, or lower it"
            )
            self._observer.notice(Event("write_failed", key, self.name, detail))
            raise StoreError(detail)

    def opened(self, record: FileRecord, file: Descriptor, stamp: tuple[int, int]) -> FileEntry:
        """Internal: an entry over a descriptor of its body, with what is left to check of that file."""
        if stamp == record.verified:
            self._keep(record, file)
            return FileEntry(self, record, file, None)
        return FileEntry(self, record, file, self._checks(record, stamp))

    def _keep(self, record: FileRecord, file: Descriptor) -> None:
        """Keep the descriptor of a verified body for the next open, in place of the one kept longest.

        Opening and closing a file cost as much as reading 200 KiB of it; an fstat tells whether it is still the same.
        """
        with self.lock:
            if record.gone or record.file is not None or self.closed:
                return
            record.file = file
            self._kept.pop(record, None)  # it may stand there with a file that was changed
            self._kept[record] = None
            if len(self._kept) > KEPT_DESCRIPTORS:
                oldest = next(iter(self._kept))
                del self._kept[oldest]
                oldest.file = None

    def close(self) -> None:
        with self.lock:
            if self.closed:
                return
            self.closed = True
            # Who is publishing sees `closed` before the index; its files must not be pulled away meanwhile.
            self._changed.wait_for(lambda: all(map(self._free_locked, self._busy)), timeout=TURN_SECONDS)
            for record in self._shelf.clear_locked():
                record.file = None
            self._kept.clear()
            stagings = list(self._stagings)
            left = [(key, path) for key, paths in self._leftovers.items() for path in paths]
        for staging in stagings:
            staging.abort()
        for key, path in sorted(left, key=lambda pair: layout.metadata_first(pair[1])):
            self._unlink(path, key)
        self._drain()
        self._disk.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return f"<FileStore {self.folder} closed>"
        usage = self.usage()
        return (
            f"<FileStore {self.folder} {counted(usage.entries, 'entry', 'entries')}, {format_size(usage.bytes)} of "
            f"{format_size(usage.capacity)}, {counted(usage.stagings, 'staging')}>"
        )
