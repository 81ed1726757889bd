"""The folder of a file tier: made or recognised, and this process's own corner of its staging area.

Invariant: an `Owner` holds the lock on its lock file as long as it lives; whoever gets that lock knows it is dead.
The lock only saves work: where locks lie, a live staging may be swept, and its commit fails instead of publishing.
Threads: any; nothing here is shared.
Design: docs/design/file-format.md
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from daramjwee.errors import ConfigError, Problem
from daramjwee.stores.file import layout
from daramjwee.stores.file.files import Descriptor

if TYPE_CHECKING:
    from daramjwee.stores.file.files import Files

PRIVATE = 0o700
# What a fresh file system has in its root: such a folder still counts as empty.
NOT_OURS_TO_MIND = frozenset({"lost+found"})
LARGEST_MARKER = 4096


class Owner:
    """This process in the folder: a name, a locked file that says it lives, and a folder for its stagings."""

    __slots__ = ("_lock", "folder", "lock_path", "name")

    def __init__(self, files: Files, staging: str) -> None:
        while True:
            self.name = layout.new_owner()
            self.lock_path = f"{staging}/{self.name}.lock"
            self._lock = Descriptor(
                files.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            )
            # A sweep may have found the file before it was locked, and taken its owner for dead.
            if try_lock(self._lock.fd) and _names(files, self.lock_path, self._lock.fd):
                break
        self.folder = f"{staging}/{self.name}"
        files.mkdir(self.folder, PRIVATE)

    def leave(self, files: Files) -> None:
        """Remove the corner, which must be empty. What cannot be removed is left for a sweep."""
        for remove, path in ((files.rmdir, self.folder), (files.unlink, self.lock_path)):
            try:
                remove(path)
            except OSError:
                return  # the lock file stays with the folder: a later start finds both and removes them


def try_lock(fd: int) -> bool:
    """Lock the open file, or say that somebody else has. Where locks do not exist, nobody has."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
    return True


def prepare(files: Files, folder: str) -> None:
    """Make the folder, or check that it is one of ours. `ConfigError` when it is not, `OSError` from the system."""
    files.makedirs(folder, PRIVATE, exist_ok=True)
    marker = f"{folder}/{layout.MARKER_NAME}"
    try:
        text = _read_small(files, marker)
    except FileNotFoundError:
        text = None
    if text is None and set(files.listdir(folder)) - NOT_OURS_TO_MIND:
        mend = f"holds other files and no {layout.MARKER_NAME}: give an empty or a new folder"
        raise ConfigError([Problem("folder", folder, mend)], subject="FileStore")
    if text is None or (text != layout.MARKER_TEXT and layout.MARKER_TEXT.startswith(text)):
        # New, or its making was cut short.
        _write_marker(files, marker)
    else:
        version = layout.parse_marker(text)
        if version is None or version > layout.FORMAT_VERSION:
            said = "has a marker that cannot be read" if version is None else f"was written in format {version}"
            mend = f"{said}; this release knows formats up to {layout.FORMAT_VERSION}: upgrade, or give another folder"
            raise ConfigError([Problem("folder", folder, mend)], subject="FileStore")
    if files.stat(folder).st_mode & 0o777 != PRIVATE:
        files.chmod(folder, PRIVATE)
    for name in (layout.OBJECTS, layout.STAGING):
        files.makedirs(f"{folder}/{name}", PRIVATE, exist_ok=True)


def _write_marker(files: Files, path: str) -> None:
    file = Descriptor(files.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    rest = layout.MARKER_TEXT.encode()
    while rest:
        rest = rest[files.write(file.fd, rest) :]


def _read_small(files: Files, path: str) -> str:
    file = Descriptor(files.open(path, os.O_RDONLY | os.O_CLOEXEC))
    data = b""
    while len(data) < LARGEST_MARKER and (part := files.pread(file.fd, LARGEST_MARKER, len(data))):
        data += part
    return data.decode("utf-8", "replace")


def _names(files: Files, path: str, fd: int) -> bool:
    try:
        there = files.stat(path)
    except FileNotFoundError:
        return False
    mine = files.fstat(fd)
    return (there.st_ino, there.st_dev) == (mine.st_ino, mine.st_dev)
