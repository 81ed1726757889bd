"""The file tier's changes on disk: stagings, bodies and metadata files put in place in an order that a crash respects.

Invariant: a body has its final name before its metadata file exists, and loses it after. With `fsync`, contents are
on the disk before names, and names before a commit returns.
Threads: any; a lock guards only which owner is the current one.
Design: docs/design/file-format.md
"""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

from daramjwee.stores.file import folder as folders
from daramjwee.stores.file import layout
from daramjwee.stores.file.files import Descriptor
from daramjwee.stores.file.format import encode
from daramjwee.stores.file.sweep import Sweep

if TYPE_CHECKING:
    from daramjwee.stores.file.files import Files
    from daramjwee.stores.file.format import MetaRecord
    from daramjwee.stores.file.sweep import Found

# A committed body is dated back by this much: a later change of the file, even within the same tick of the file
# system's clock, then gives it another time, and so another check.
BACKDATE_NS = 1_000_000_000


class Disk:
    def __init__(self, files: Files, folder: str, *, floor: int, fsync: bool) -> None:
        self._files = files
        self.folder = folder
        self.objects = f"{folder}/{layout.OBJECTS}/"
        self._staging = f"{folder}/{layout.STAGING}"
        self.floor = floor
        self._fsync = fsync
        self._owner: folders.Owner | None = None
        self._shards: set[str] = set()
        self._lock = threading.Lock()

    def start(self) -> Found:
        """Make or recognise the folder, claim a corner of it, sweep it and read its index."""
        folders.prepare(self._files, self.folder)
        owner = self._current_owner()
        return Sweep(self._files, self.folder, owner.name).run()

    def new_staging(self, fill: int) -> tuple[Descriptor, str, str]:
        """A new empty file to write into: (descriptor, path, owner)."""
        owner = self._current_owner()
        path = f"{owner.folder}/{fill:x}.body"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return Descriptor(self._files.open(path, flags, 0o600)), path, owner.name

    def missing_space(self, count: int) -> int:
        """How many bytes the disk lacks to take `count` more above the floor; 0 or less when it has them."""
        if not self.floor:
            return 0
        status = self._files.statvfs(self.folder)
        return self.floor + count - status.f_bavail * status.f_frsize

    def place_body(self, fd: int, staged: str | None, body: str) -> tuple[int, int]:
        """Give a staged file its final name, unless it has it; (inode, mtime_ns) that it has from now on."""
        files, final = self._files, self.objects + body
        if staged is None:
            raise FileNotFoundError(errno.ENOENT, "the staging has no file")
        if staged != final:
            modified = files.fstat(fd).st_mtime_ns - BACKDATE_NS
            files.utime(fd, ns=(modified, modified))
            if self._fsync:
                files.fsync(fd)
            self._make_shard(body[:2])
        status = files.fstat(fd)
        if staged != final:
            # Last: what fails before leaves the file where an abort looks for it.
            try:
                files.rename(staged, final)
            except FileNotFoundError:
                # Somebody cleared the folder while it is in use.
                self._shards.discard(body[:2])
                self._make_shard(body[:2])
                files.rename(staged, final)
        return status.st_ino, status.st_mtime_ns

    def _write(self, file: Descriptor, data: bytes) -> None:
        # Not in the `try` of who calls this: an interrupt at the jump back of such a loop could be outside of it (see
        # `MemoryLedger._wait`).
        view = memoryview(data)
        while view:
            view = view[self._files.write(file.fd, view) :]

    def link_meta(self, meta: MetaRecord, digest: str, fill: int) -> bool:
        """Create the metadata file, whole or not at all; False when its generation is taken."""
        files = self._files
        final = self.meta_path(digest, meta.generation)
        staged = f"{self._current_owner().folder}/{fill:x}.meta"
        try:
            file = Descriptor(files.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._write(file, encode(meta))
            if self._fsync:
                files.fsync(file.fd)
            try:
                files.link(staged, final)
            except FileExistsError:
                return False
        finally:
            self._discard(staged)
        if self._fsync:
            try:
                self._fsync_folder(self.objects + digest[:2])
            except OSError:
                self._discard(final)
                raise
        return True

    def meta_path(self, digest: str, generation: int) -> str:
        return self.objects + layout.meta_name(digest, generation)

    def unlink(self, path: str) -> None:
        """Remove a file, if it is there."""
        try:
            self._files.unlink(path)
        except FileNotFoundError:
            pass  # it is gone, which is what was wanted

    def leave(self) -> None:
        """Give up the corner of the staging area."""
        with self._lock:
            owner, self._owner = self._owner, None
        if owner is not None:
            owner.leave(self._files)

    def forget_owner(self) -> None:
        """In a forked child: the corner is the parent's. Its lock stays open here, which only keeps it alive longer."""
        self._lock = threading.Lock()
        self._owner = None

    def _current_owner(self) -> folders.Owner:
        owner = self._owner
        if owner is not None:
            return owner
        fresh = folders.Owner(self._files, self._staging)
        with self._lock:
            owner = self._owner = self._owner or fresh
        if owner is not fresh:
            fresh.leave(self._files)
        return owner

    def _make_shard(self, shard: str) -> None:
        if shard in self._shards:
            return
        try:
            self._files.mkdir(self.objects + shard, folders.PRIVATE)
        except FileExistsError:
            pass  # made by an earlier start, or another process
        else:
            if self._fsync:
                self._fsync_folder(self.objects)
        self._shards.add(shard)

    def _fsync_folder(self, path: str) -> None:
        folder = Descriptor(self._files.open(path, os.O_RDONLY | os.O_CLOEXEC))
        self._files.fsync(folder.fd)

    def _discard(self, path: str) -> None:
        try:
            self._files.unlink(path)
        except OSError:
            pass  # an error is on its way already, or the next sweep of this owner finds the file
