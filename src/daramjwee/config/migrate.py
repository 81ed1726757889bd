"""A configuration file brought to today's schema, and back: backup, replacement, rollback.

Invariant: at every moment the file is the old one or the new one, whole. Once it is the new one the backup is the old
one: the same inode, so bytes, mode, owner and times are its own, or where a file can have no second name a copy that has
them. A backup that is there is never overwritten.
Threads: one; of two processes at once one is refused, where locks work.
Design: docs/migration.md
"""

from __future__ import annotations

import enum
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
from daramjwee.config.secret import shown
from daramjwee.errors import HIDDEN, ConfigError, Problem
from daramjwee.stores.file.folder import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBJECT = "config migrate"
MEANWHILE = "was changed meanwhile: try again"
# What a copy has of its file, beside its bytes.
COPIED = ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns")
# What link says where it may not, or cannot, be done: the file is somebody else's, or the file system has no links.
NO_LINKS = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK))
A_COPY = "the file can have no second name here (hard link): the backup is a copy, without its access control lists"


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
    utime = staticmethod(os.utime)
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


class _Backup(enum.Enum):
    """How the old file was kept. FOUND: by a migration that was cut short."""

    FOUND = enum.auto()
    LINK = enum.auto()
    COPY = enum.auto()


class _Beside(NamedTuple):
    """Names beside the file: the old file, and the digest of what was written in its place."""

    backup: str
    digest: str


def migrate(path: str, *, dry_run: bool = False, system: type[System] | System = System) -> Outcome:
    """Bring the file to today's schema; the old one stays beside it as NAME.schemaN.bak. A link stays a link: what it
    leads to is migrated.

    `ConfigError` lists what is wrong with the file, or says why it cannot be replaced; then, and after an `OSError`,
    the file is as it was, and nothing is beside it (but a copy of a file that somebody replaced meanwhile). Only when the very last step fails, the folder's `fsync`, is it new.
    """
    real = _real(path)
    with _opened(real, system) as old:
        plan = plan_migration(path, old.data)
        if plan.text is None:
            return Outcome(path=path, action="nothing", dry_run=dry_run, before=plan.before, after=plan.after)
        beside = _beside(real, plan.before)
        _refuse_other_backup(beside.backup, old, system)
        made = None if dry_run else _replace(real, old, plan.text.encode(), beside, system)
    remarks = (*plan.remarks, A_COPY) if made is _Backup.COPY else plan.remarks
    return Outcome(
        path=path, action="migrate", dry_run=dry_run, before=plan.before, after=plan.after, backup=beside.backup,
        changes=plan.changes, remarks=remarks, text=plan.text,
    )  # fmt: skip


def rollback(path: str, *, dry_run: bool = False, system: type[System] | System = System) -> Outcome:
    """Put the old file back, with its bytes, mode, owner and times. `ConfigError` when there is none, or when the new one
    was changed since."""
    real = _real(path)
    with _opened(real, system) as new:
        backups = [(n, _beside(real, n)) for n in range(LATEST) if os.path.lexists(_beside(real, n).backup)]
        if not backups:
            mend = f"has no backup beside it ({os.path.basename(real)}.schemaN.bak): there is nothing to roll back"
            raise ConfigError([Problem("FILE", path, mend)], subject=SUBJECT)
        digest = _digest(new.data)
        for before, beside in backups:
            unfinished = _holds(beside.backup, new, system)
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


def _real(path: str) -> str:
    """The path with its links followed. What may be a secret, given by mistake, is no path, and in no message."""
    if shown(path) != path:
        raise ConfigError(
            [Problem("FILE", HIDDEN, "looks like a URL or a secret; give the path of a file")], subject=SUBJECT
        )
    return os.path.realpath(path)


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
        raise ConfigError([Problem("FILE", real, mend)], subject=SUBJECT) from None
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


def _refuse_other_backup(backup: str, old: _Old, system: type[System] | System) -> None:
    """A backup of another file is in the way; one of this file is what a migration that was cut short has left."""
    if os.path.lexists(backup) and not _holds(backup, old, system):
        mend = "is there already, and a backup is never overwritten: move it away"
        raise ConfigError([Problem("backup", backup, mend)], subject=SUBJECT)


def _holds(backup: str, old: _Old, system: type[System] | System) -> bool:
    """Whether a backup is the file that was read: by another name, or as a copy in all that a rollback gives back."""
    status = system.lstat(backup)
    if _known_by(status) == _known_by(old.status):
        return True
    if not stat.S_ISREG(status.st_mode) or any(getattr(status, it) != getattr(old.status, it) for it in COPIED):
        return False
    fd = system.open(backup, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return _read(fd, system) == old.data
    finally:
        system.close(fd)


def _replace(real: str, old: _Old, text: bytes, beside: _Beside, system: type[System] | System) -> _Backup:
    ending = f".{os.urandom(6).hex()}.part"
    new, digest, copy = real + ending, beside.digest + ending, beside.backup + ending
    made = _Backup.FOUND
    written: os.stat_result | None = None
    try:
        made = _back_up(real, old, beside.backup, copy, system)
        # What is kept must be what was read.
        if not _holds(beside.backup, old, system):
            raise ConfigError([Problem("FILE", real, MEANWHILE)], subject=SUBJECT)
        # Before the file itself: a file without the digest could not be rolled back.
        _write(digest, f"{_digest(text)}  {os.path.basename(real)}\n".encode(), old.status, system)
        system.replace(digest, beside.digest)
        if made is not _Backup.LINK:
            # A file system without links may have no journal either: nothing else says which name is on the disk first.
            _sync_folder(real, system)
        written = _write(new, text, old.status, system)
        _refuse_changed(real, old.status, system.lstat(real))
        system.replace(new, real)
    except BaseException:
        # What fails in here hides the error that says why; what is left is in nobody's way.
        with suppress(OSError):
            _unlink(new, system)
            _unlink(digest, system)
            _unlink(copy, system)
            if _is_spare(made, system.lstat(real), old.status, written):
                _unlink(beside.backup, system)
                _unlink(beside.digest, system)
        raise
    _sync_folder(real, system)
    return made


def _is_spare(made: _Backup, now: os.stat_result, old: os.stat_result, written: os.stat_result | None) -> bool:
    """Whether a failed migration may take its backup away again."""
    if made is _Backup.LINK:
        # An interrupt may have come after the last step: the backup is all there is of the old file, then.
        return written is None or not os.path.samestat(now, written)
    # A copy may be that of another migration by now, past a lock that lies: it goes only while its file is there.
    return made is _Backup.COPY and _known_by(now) == _known_by(old)


def _back_up(real: str, old: _Old, backup: str, copy: str, system: type[System] | System) -> _Backup:
    """Give the file its second name, or make a copy where it can have none."""
    try:
        system.link(real, backup)
        return _Backup.LINK
    except FileExistsError:
        _refuse_other_backup(backup, old, system)
        return _Backup.FOUND
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
    _write(copy, old.data, old.status, system, dated=True)
    # A rename would replace what is there. Whoever got here at once, past a lock that lies, has copied the same bytes.
    if os.path.lexists(backup):
        _refuse_other_backup(backup, old, system)
        _unlink(copy, system)
        return _Backup.FOUND
    system.replace(copy, backup)
    return _Backup.COPY


def _known_by(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns


def _refuse_changed(real: str, old: os.stat_result, now: os.stat_result) -> None:
    if _known_by(old) != _known_by(now):
        raise ConfigError([Problem("FILE", real, MEANWHILE)], subject=SUBJECT)


def _write(
    path: str, data: bytes, like: os.stat_result, system: type[System] | System, *, dated: bool = False
) -> os.stat_result:
    """A new file with the owner and mode of another, `dated` with its times, too, and on the disk; what it is known by."""
    fd = system.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        status = system.fstat(fd)
        if (status.st_uid, status.st_gid) != (like.st_uid, like.st_gid):
            system.fchown(fd, like.st_uid, like.st_gid)
        system.fchmod(fd, stat.S_IMODE(like.st_mode))
        while data:
            data = data[system.write(fd, data) :]
        if dated:
            system.utime(fd, ns=(like.st_atime_ns, like.st_mtime_ns))
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
