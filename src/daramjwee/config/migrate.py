"""A configuration file brought to today's schema, and back: backup, replacement, rollback.

Invariant: at every moment the file is the old one or the new one, whole. Once it is the new one the backup is the old
one: the same inode, so bytes, mode, owner and times are its own. A backup that is there is never overwritten.
Threads: one; of two processes at once one is refused, where locks work.
Design: docs/migration.md
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from daramjwee.config.change import Change
from daramjwee.config.parse import LARGEST_FILE
from daramjwee.config.plan import plan_migration
from daramjwee.config.schemas import LATEST
from daramjwee.errors import ConfigError, Problem
from daramjwee.stores.file.folder import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBJECT = "config migrate"
# What link says where it may not, or cannot, be done: the file is somebody else's, or the file system has no links.
NO_LINKS = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))


class System:
    """The calls of the operating system, in one place, so that tests can let each of them fail."""

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    read = staticmethod(os.read)
    write = staticmethod(os.write)
    fstat = staticmethod(os.fstat)
    lstat = staticmethod(os.lstat)
    fchmod = staticmethod(os.fchmod)
    fchown = staticmethod(os.fchown)
    fsync = staticmethod(os.fsync)
    link = staticmethod(os.link)
    replace = staticmethod(os.replace)
    unlink = staticmethod(os.unlink)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, or with `dry_run` would be. `action`: "migrate", "roll back", or "nothing". `text`: the new file, None
    where nothing changes. `backup`: where the old file is (after a rollback: was)."""

    path: str
    action: str
    dry_run: bool
    before: int
    after: int
    backup: str | None = None
    changes: tuple[Change, ...] = ()
    remarks: tuple[str, ...] = ()
    text: str | None = None


class _Old(NamedTuple):
    data: bytes
    status: os.stat_result


class _Beside(NamedTuple):
    """Names beside the file: the old file, and the digest of what was written in its place."""

    backup: str
    digest: str


def migrate(path: str, *, dry_run: bool = False, system: type[System] | System = System) -> Outcome:
    """Bring the file to today's schema; the old one stays beside it as NAME.schemaN.bak. A link stays a link: what it
    leads to is migrated.

    `ConfigError` lists what is wrong with the file, or says why it cannot be replaced; then, and after an `OSError`,
    the file is as it was, and nothing is beside it. Only when the very last step fails, the folder's `fsync`, is it new.
    """
    real = os.path.realpath(path)
    with _opened(real, system) as old:
        plan = plan_migration(path, old.data)
        if plan.text is None:
            return Outcome(path=path, action="nothing", dry_run=dry_run, before=plan.before, after=plan.after)
        beside = _beside(real, plan.before)
        _refuse_other_backup(beside.backup, old.status, system)
        if not dry_run:
            _replace(real, old.status, plan.text.encode(), beside, system)
    return Outcome(
        path=path, action="migrate", dry_run=dry_run, before=plan.before, after=plan.after, backup=beside.backup,
        changes=plan.changes, remarks=plan.remarks, text=plan.text,
    )  # fmt: skip


def rollback(path: str, *, dry_run: bool = False, system: type[System] | System = System) -> Outcome:
    """Put the old file back, with its bytes, mode, owner and times. `ConfigError` when there is none, or when the new one
    was changed since."""
    real = os.path.realpath(path)
    with _opened(real, system) as new:
        backups = [(n, _beside(real, n)) for n in range(LATEST) if os.path.lexists(_beside(real, n).backup)]
        if not backups:
            mend = f"has no backup beside it ({os.path.basename(real)}.schemaN.bak): there is nothing to roll back"
            raise ConfigError([Problem("FILE", path, mend)], subject=SUBJECT)
        digest = _digest(new.data)
        for before, beside in backups:
            unfinished = os.path.samestat(system.lstat(beside.backup), new.status)
            if not unfinished and _noted(beside.digest, system) != digest:
                continue
            if not dry_run:
                if unfinished:  # a migration that was cut short: of two names of one file a rename would leave both
                    system.unlink(beside.backup)
                else:
                    _refuse_changed(real, new.status, system.lstat(real))
                    system.replace(beside.backup, real)
                _unlink(beside.digest, system)
                _sync_folder(real, system)
            return Outcome(
                path=path, action="roll back", dry_run=dry_run, before=LATEST, after=before, backup=beside.backup
            )
    backup = backups[-1][1].backup
    mend = f"was changed since it was migrated: rolling back would lose that; if you want to, mv {backup} {real}"
    raise ConfigError([Problem("FILE", path, mend)], subject=SUBJECT)


def _beside(real: str, schema: int) -> _Beside:
    return _Beside(f"{real}.schema{schema}.bak", f"{real}.schema{schema}.sum")


@contextmanager
def _opened(real: str, system: type[System] | System) -> Iterator[_Old]:
    """The file, read and locked against another migration."""
    # A pipe would wait for a writer.
    try:
        fd = system.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        mend = f"cannot be read: {error.strerror}; give the path of a file that can"
        raise ConfigError([Problem("FILE", real, mend)], subject=SUBJECT) from error
    try:
        status = system.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
            mend = "is larger than any file of settings" if stat.S_ISREG(status.st_mode) else "is no regular file"
            raise ConfigError([Problem("FILE", real, mend)], subject=SUBJECT)
        if not try_lock(fd):
            raise ConfigError([Problem("FILE", real, "is being migrated by another process")], subject=SUBJECT)
        # It may have been replaced before it was locked: what is beside it then belongs to the file that came in its place.
        _refuse_changed(real, status, system.lstat(real))
        yield _Old(_read(fd, system), status)
    finally:
        system.close(fd)


def _read(fd: int, system: type[System] | System) -> bytes:
    parts = []
    while part := system.read(fd, LARGEST_FILE):
        parts.append(part)
    return b"".join(parts)


def _refuse_other_backup(backup: str, old: os.stat_result, system: type[System] | System) -> None:
    """A backup of another file is in the way; one of this file is what a migration that was cut short has left."""
    if os.path.lexists(backup) and not os.path.samestat(system.lstat(backup), old):
        mend = "is there already, and a backup is never overwritten: move it away"
        raise ConfigError([Problem("backup", backup, mend)], subject=SUBJECT)


def _replace(real: str, old: os.stat_result, text: bytes, beside: _Beside, system: type[System] | System) -> None:
    ending = f".{os.urandom(6).hex()}.part"
    new, digest = real + ending, beside.digest + ending
    linked = False
    written: os.stat_result | None = None
    try:
        linked = _link(real, beside.backup, old, system)
        # What was linked must be what was read.
        _refuse_changed(real, old, system.lstat(beside.backup))
        # Before the file itself: a file without the digest could not be rolled back.
        _write(digest, f"{_digest(text)}  {os.path.basename(real)}\n".encode(), old, system)
        system.replace(digest, beside.digest)
        written = _write(new, text, old, system)
        _refuse_changed(real, old, system.lstat(real))
        system.replace(new, real)
    except BaseException:
        # What fails in here hides the error that says why; what is left is in nobody's way.
        with suppress(OSError):
            _unlink(new, system)
            _unlink(digest, system)
            # An interrupt may have come after the last step: the backup is all there is of the old file, then.
            if linked and not (written and os.path.samestat(system.lstat(real), written)):
                _unlink(beside.backup, system)
                _unlink(beside.digest, system)
        raise
    _sync_folder(real, system)


def _link(real: str, backup: str, old: os.stat_result, system: type[System] | System) -> bool:
    """Give the file its second name. False: it has it already, from a migration that was cut short."""
    try:
        system.link(real, backup)
    except FileExistsError:
        _refuse_other_backup(backup, old, system)
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        mend = f"cannot be made ({error.strerror}): it is a second name (hard link) of the file; save what --dry-run prints"
        raise ConfigError([Problem("backup", backup, mend)], subject=SUBJECT) from error
    return True


def _refuse_changed(real: str, old: os.stat_result, now: os.stat_result) -> None:
    if (old.st_ino, old.st_dev, old.st_size, old.st_mtime_ns) != (now.st_ino, now.st_dev, now.st_size, now.st_mtime_ns):
        raise ConfigError([Problem("FILE", real, "was changed meanwhile: try again")], subject=SUBJECT)


def _write(path: str, data: bytes, like: os.stat_result, system: type[System] | System) -> os.stat_result:
    """A new file with the owner and mode of another, and on the disk; what it is known by."""
    fd = system.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        status = system.fstat(fd)
        if (status.st_uid, status.st_gid) != (like.st_uid, like.st_gid):
            system.fchown(fd, like.st_uid, like.st_gid)
        system.fchmod(fd, stat.S_IMODE(like.st_mode))
        while data:
            data = data[system.write(fd, data) :]
        system.fsync(fd)
    finally:
        system.close(fd)
    return status


def _unlink(path: str, system: type[System] | System) -> None:
    with suppress(FileNotFoundError):
        system.unlink(path)


def _sync_folder(real: str, system: type[System] | System) -> None:
    fd = system.open(os.path.dirname(real), os.O_RDONLY | os.O_CLOEXEC)
    try:
        system.fsync(fd)
    finally:
        system.close(fd)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _noted(path: str, system: type[System] | System) -> str | None:
    """The digest in a file of `sha256sum`'s form; None when there is no such file."""
    try:
        fd = system.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        return _read(fd, system)[:64].decode("ascii", "replace")
    finally:
        system.close(fd)
