"""What a start does with the folder it finds: build the index, remove what a dead process left.

Invariant: only what no live process can still need is removed: a body without metadata and a staging when their
owner is dead; metadata that is damaged, outdated, or without a body.
Threads: one, at the start; other processes may work in the folder meanwhile.
Design: docs/design/file-format.md
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.stores.file import layout
from daramjwee.stores.file.entry import FileRecord
from daramjwee.stores.file.files import Descriptor
from daramjwee.stores.file.folder import try_lock
from daramjwee.stores.file.format import PAYLOAD_AT, BadRecord, UnknownVersion, decode, length_of

if TYPE_CHECKING:
    from daramjwee.stores.file.files import Files
    from daramjwee.stores.file.format import MetaRecord

logger = logging.getLogger(__name__)

READ_BYTES = 1024 * 1024
# Nothing of ours has a higher one. It could not be counted on from there: neither the name nor the record has room.
LARGEST_GENERATION = 1 << 63


class Found(NamedTuple):
    """`records`: oldest first. `generation`: the highest seen. `bad`: metadata files that could not be used."""

    records: list[FileRecord]
    generation: int
    bad: int
    removed: int


class Sweep:
    """One pass over one folder."""

    def __init__(self, files: Files, folder: str, own: str) -> None:
        self._files = files
        self._objects = f"{folder}/{layout.OBJECTS}"
        self._staging = f"{folder}/{layout.STAGING}"
        self._own = own
        self._bad = 0
        self._removed = 0
        self._generation = 0

    def run(self) -> Found:
        """Read the whole folder. `OSError` only when its upper levels cannot be listed."""
        dead = self._lock_dead_owners()
        records: list[FileRecord] = []
        for shard in self._files.listdir(self._objects):
            if len(shard) == 2:
                try:
                    records += self._shard(shard, dead)
                except NotADirectoryError:
                    continue  # not ours: our folders are folders
        for owner in dead:
            self._remove_owner(owner)
        records.sort(key=lambda record: record.generation)
        if self._bad or self._removed:
            logger.info("swept %s: %d bad records, %d files removed", self._objects, self._bad, self._removed)
        return Found(records, self._generation, self._bad, self._removed)

    def _lock_dead_owners(self) -> dict[str, Descriptor]:
        """Owners whose lock could be taken, with the lock held until the sweep is over."""
        dead = {}
        for name in self._files.listdir(self._staging):
            owner = layout.parse_owner_lock(name)
            if owner is None or owner == self._own:
                continue
            try:
                lock = Descriptor(self._files.open(f"{self._staging}/{name}", os.O_RDWR | os.O_CLOEXEC))
            except OSError:
                continue  # it left, or cannot be judged: either way not to be touched
            if try_lock(lock.fd):
                dead[owner] = lock
        return dead

    def _shard(self, shard: str, dead: dict[str, Descriptor]) -> list[FileRecord]:
        metas: dict[str, list[tuple[int, str]]] = {}
        bodies: dict[str, str] = {}
        for name in self._files.listdir(f"{self._objects}/{shard}"):
            meta, body = layout.parse_meta_name(name), layout.parse_body_name(name)
            if meta is not None:
                metas.setdefault(meta[0], []).append((meta[1], name))
            elif body is not None:
                bodies[name] = body[1]
        records: list[FileRecord] = []
        wanted: set[str] = set()
        unjudged: set[str] = set()  # keys of which some metadata could not be read
        for candidates in metas.values():
            candidates.sort()
            generation, name = candidates.pop()
            if generation < LARGEST_GENERATION:
                self._generation = max(self._generation, generation)
            try:
                chosen = self._usable(f"{self._objects}/{shard}/{name}", name, shard)
            except (OSError, UnknownVersion) as why:
                logger.warning("not using %s: %s", name, why)
                self._bad += 1
                unjudged.add(name[:64])
                continue
            if chosen is not None:
                records.append(FileRecord(chosen))
                wanted.add(chosen.body)
            # Also when the newest cannot be used: what it replaced must not come back.
            for _, older in candidates:
                self._remove(f"{self._objects}/{shard}/{older}")
        for name, owner in bodies.items():
            # A live owner is about to name it, or to remove it itself. One without a lock file left long ago.
            alive = owner == self._own or (owner not in dead and self._has_lock_file(owner))
            if name not in wanted and name[:64] not in unjudged and not alive:
                self._remove(f"{self._objects}/{shard}/{name}")
        return records

    def _usable(self, path: str, name: str, shard: str) -> MetaRecord | None:
        """The record, if it is whole and its body is there; else the file is removed.

        `OSError` and `UnknownVersion` say that it cannot be judged now: neither it nor its body may be removed.
        """
        try:
            record = decode(self._read(path), name)
            self._files.stat(f"{self._objects}/{shard}/{record.body}")
        except UnknownVersion:
            raise
        except BadRecord as why:
            logger.warning("removing %s: it %s", path, why)
            self._bad += 1
        except FileNotFoundError:
            pass  # its process died between removing the body's name and this one, or another process removed both
        else:
            return record
        self._remove(path)
        return None

    def _read(self, path: str) -> bytes:
        file = Descriptor(self._files.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        status = self._files.fstat(file.fd)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise BadRecord("is no regular file")
        head = self._read_to(file.fd, min(PAYLOAD_AT, status.st_size))
        # Where the length is wrong, the head is enough to say what is wrong, however large the file is.
        return self._read_to(file.fd, status.st_size) if length_of(head) == status.st_size else head

    def _read_to(self, fd: int, end: int) -> bytes:
        parts, at = [], 0
        while at < end and (part := self._files.pread(fd, min(READ_BYTES, end - at), at)):
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def _has_lock_file(self, owner: str) -> bool:
        try:
            self._files.stat(f"{self._staging}/{owner}.lock")
        except FileNotFoundError:
            return False
        except OSError:
            return True  # not to be judged: leave it
        return True

    def _remove_owner(self, owner: str) -> None:
        folder = f"{self._staging}/{owner}"
        try:
            for name in self._files.listdir(folder):
                self._remove(f"{folder}/{name}")
            self._files.rmdir(folder)
        except FileNotFoundError:
            pass  # it died before it had one
        except OSError as error:
            logger.warning("could not remove %s: %s; the next start tries again", folder, error)
            return
        self._remove(f"{self._staging}/{owner}.lock")

    def _remove(self, path: str) -> None:
        try:
            self._files.unlink(path)
            self._removed += 1
        except FileNotFoundError:
            pass  # somebody else was quicker
        except OSError as error:
            logger.warning("could not remove %s: %s; the next start tries again", path, error)
