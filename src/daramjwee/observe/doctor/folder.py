"""Checks of the folder of a file tier.

Invariant: nothing of what is there is touched; what is tried is tried in a corner of its own, which is removed.
Threads: any.
Design: docs/monitoring.md
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from daramjwee.observe.doctor.case import Check, State
from daramjwee.observe.doctor.probes import SHARED_BYTES
from daramjwee.stores.file import layout
from daramjwee.stores.file.folder import LARGEST_MARKER, NOT_OURS_TO_MIND, PRIVATE
from daramjwee.units import counted, format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daramjwee.observe.doctor.case import Case, Mount

# Ten times the floor, or a twentieth of the disk: then entries make way for the disk and not for each other.
FLOORS_OF_ROOM = 10
SHARE_OF_ROOM = 0.05
# An entry is two files.
FEW_INODES = 2_000
# Clocks of two machines that are kept right differ by less.
AHEAD_SECONDS = 5.0
SHARDS = 256

LOCAL = ("ext4", "ext3", "ext2", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs", "apfs", "hfs", "ufs")
MEMORY = ("tmpfs", "ramfs", "devtmpfs")
NETWORK = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "glusterfs",
    "lustre",
    "afs",
    "beegfs",
    "gpfs",
    "virtiofs",
)


def folder(case: Case) -> Iterator[Check]:
    """Whether the folder is one of a file tier, or can become one."""
    path = case.folder
    if path is None:
        return
    try:
        mode = case.files.stat(path).st_mode
    except FileNotFoundError:
        yield _missing(path)
        return
    except OSError as error:
        yield Check("folder", State.PROBLEM, f"{path}: {error.strerror}", "name a folder that this user may look into")
        return
    if not stat.S_ISDIR(mode):
        yield Check("folder", State.PROBLEM, f"{path} is not a folder", "name a folder")
        return
    try:
        names = set(case.files.listdir(path))
        text = _marker(path) if layout.MARKER_NAME in names else None
    except OSError as error:
        remedy = "let the user who runs the cache read it (chown, chmod u+rwx)"
        yield Check("folder", State.PROBLEM, f"{path} cannot be read: {error.strerror}", remedy)
        return
    yield _recognised(path, names, text)


def _missing(path: str) -> Check:
    above = _nearest(path)
    if not os.path.isdir(above):
        return Check("folder", State.PROBLEM, f"{path} cannot be made: {above} is not a folder", "name another folder")
    if not os.access(above, os.W_OK | os.X_OK):
        seen = f"{path} does not exist, and this user may not make it in {above}"
        return Check("folder", State.PROBLEM, seen, "make it and give it to this user (mkdir, chown)")
    seen = f"{path} does not exist; {above} was looked at instead, and what can only be tried in it is not known"
    return Check("folder", State.NOTE, seen, "nothing has to be done: the tier makes it, readable by its owner only")


def _recognised(path: str, names: set[str], text: str | None) -> Check:
    if text is None:
        others = names - NOT_OURS_TO_MIND
        if others:
            seen = f"{path} holds {counted(len(others), 'other file or folder', 'other files or folders')} and no {layout.MARKER_NAME}"
            return Check("folder", State.PROBLEM, seen, "give an empty or a new folder: this one will be refused")
        return Check("folder", State.OK, f"{path} is empty")
    version = layout.parse_marker(text)
    if version is None:
        seen = f"{path}/{layout.MARKER_NAME} cannot be read as a marker"
        return Check("folder", State.PROBLEM, seen, "give another folder, or empty this one: it will be refused")
    if version > layout.FORMAT_VERSION:
        seen = f"{path} was written in format {version}; this release knows formats up to {layout.FORMAT_VERSION}"
        return Check("folder", State.PROBLEM, seen, "upgrade, or give another folder")
    return Check("folder", State.OK, f"{path}: a file tier, format {version}")


def _marker(path: str) -> str:
    with open(f"{path}/{layout.MARKER_NAME}", encoding="utf-8", errors="replace") as file:
        return file.read(LARGEST_MARKER)


def folder_private(case: Case) -> Iterator[Check]:
    """Whether the folder is its owner's alone (0700), and nobody else can put another in its place."""
    path = case.folder
    if path is None or not os.path.isdir(path):
        return
    status = os.stat(path)
    above = os.stat(os.path.dirname(os.path.realpath(path)))
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != case.runtime.uid:
        seen = f"it belongs to user {status.st_uid}, and this is user {case.runtime.uid}"
        remedy = f"give it to this user (chown), or run as user {status.st_uid}"
        yield Check("folder_private", State.PROBLEM, seen, remedy)
    elif above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
        seen = "everybody may write to the folder above, and so replace this one"
        yield Check("folder_private", State.PROBLEM, seen, "chmod o-w (or +t) the folder above, or name another")
    elif mode != PRIVATE:
        seen = f"its mode is {mode:04o}"
        # That others may not read it is not advised: it may be a folder like /tmp, which no tier would take.
        remedy = "nothing has to be done: a tier makes it 0700 when it starts"
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            remedy = "see folder_operations: no tier can start in it as it is"
        yield Check("folder_private", State.NOTE, seen, remedy)
    else:
        yield Check("folder_private", State.OK, f"mode {mode:04o}, owned by user {status.st_uid}")


_GIVE = "let the user who runs the cache write to it (chown, chmod u+rwx)"
_REMEDIES = {
    errno.EACCES: _GIVE,
    errno.EPERM: _GIVE,
    errno.EROFS: "mount it for writing, or name another folder",
    errno.ENOSPC: "free some space, or name a folder on another disk",
    errno.EDQUOT: "free some space, or name a folder on another disk",
}


def folder_operations(case: Case) -> Iterator[Check]:
    """Whether what a tier relies on works here: new files, hard links, renames, unlinked files, locks. It is tried."""
    path = case.folder
    if path is None or not os.path.isdir(path):
        return
    try:
        with _corner(case, path) as corner:
            failures = [f"{words}: {why}" for words, attempt in _ATTEMPTS if (why := _failure(attempt, case, corner))]
            lock = _failure(_lock, case, corner)
    except OSError as error:
        seen = f"nothing can be written here: {error.strerror}"
        yield Check("folder_operations", State.PROBLEM, seen, _REMEDIES.get(error.errno or 0, "name another folder"))
        return
    if failures:
        remedy = "a file tier cannot work here: choose a folder on a local file system"
        yield Check("folder_operations", State.PROBLEM, "; ".join(failures), remedy)
    elif lock:
        seen = f"files cannot be locked: {lock}"
        remedy = "one process at a time, or a local file system: a start may sweep what another process is writing"
        yield Check("folder_operations", State.NOTE, seen, remedy)
    else:
        yield Check("folder_operations", State.OK, "new files, links, renames, unlinked files and locks work")


@contextlib.contextmanager
def _corner(case: Case, path: str) -> Iterator[str]:
    """A new folder inside, removed with all that is in it."""
    corner = f"{path}/.doctor-{layout.new_owner()}"
    case.files.mkdir(corner, PRIVATE)
    try:
        yield corner
    finally:
        for name in os.listdir(corner):
            os.unlink(f"{corner}/{name}")
        os.rmdir(corner)


def _failure(attempt: Callable[[Case, str], str | None], case: Case, corner: str) -> str | None:
    try:
        return attempt(case, corner)
    except OSError as error:
        return error.strerror or str(error)


def _write(case: Case, path: str, data: bytes) -> None:
    descriptor = case.files.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        case.files.write(descriptor, data)
        case.files.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new(case: Case, corner: str) -> str | None:
    _write(case, f"{corner}/new", b"new")
    try:
        _write(case, f"{corner}/new", b"again")
    except FileExistsError:
        return None
    return "a second one of the same name was made: two processes would take each other's"


def _link(case: Case, corner: str) -> str | None:
    _write(case, f"{corner}/linked", b"linked")
    case.files.link(f"{corner}/linked", f"{corner}/link")
    try:
        case.files.link(f"{corner}/linked", f"{corner}/link")
    except FileExistsError:
        return None
    return "a second one of the same name was made: two processes would publish the same generation"


def _rename(case: Case, corner: str) -> str | None:
    _write(case, f"{corner}/first", b"first")
    _write(case, f"{corner}/second", b"second")
    case.files.rename(f"{corner}/second", f"{corner}/first")
    with open(f"{corner}/first", "rb") as file:
        return None if file.read() == b"second" else "the name still leads to the old file"


def _unlinked(case: Case, corner: str) -> str | None:
    _write(case, f"{corner}/gone", b"gone")
    with open(f"{corner}/gone", "rb") as file:
        case.files.unlink(f"{corner}/gone")
        return None if case.files.pread(file.fileno(), 4, 0) == b"gone" else "its bytes are gone"


def _lock(case: Case, corner: str) -> str | None:
    descriptor = case.files.open(f"{corner}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        case.try_lock(descriptor)
    finally:
        os.close(descriptor)
    return None


_ATTEMPTS: tuple[tuple[str, Callable[[Case, str], str | None]], ...] = (
    ("making a new file (O_EXCL)", _new),
    ("hard links", _link),
    ("renaming over a file", _rename),
    ("reading a file after it was unlinked", _unlinked),
)


def folder_space(case: Case) -> Iterator[Check]:
    """Whether the disk has room above what a tier leaves free."""
    if case.folder is None:
        return
    disk = case.files.statvfs(_nearest(case.folder))
    free, whole, floor = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize, case.free_space_floor
    seen = f"{format_size(free)} of {format_size(whole)} free; free_space_floor is {format_size(floor)}"
    if free <= floor:
        remedy = "free some, or lower free_space_floor: nothing can be kept now"
        yield Check("folder_space", State.PROBLEM, seen, remedy)
    elif free < FLOORS_OF_ROOM * floor or free < SHARE_OF_ROOM * whole:
        yield Check("folder_space", State.NOTE, seen, "free some: entries will be dropped for the disk's sake")
    else:
        yield Check("folder_space", State.OK, seen)


def folder_inodes(case: Case) -> Iterator[Check]:
    """Whether the file system has room for more files: an entry is two."""
    if case.folder is None:
        return
    disk = case.files.statvfs(_nearest(case.folder))
    if not disk.f_files:
        yield Check("folder_inodes", State.OK, "no fixed number")
        return
    seen = f"{disk.f_favail:,} of {disk.f_files:,} free"
    if disk.f_favail < FEW_INODES:
        remedy = "remove small files, lower max_entries, or make the file system anew with more inodes"
        yield Check("folder_inodes", State.PROBLEM, seen, remedy)
    elif disk.f_favail < SHARE_OF_ROOM * disk.f_files:
        yield Check("folder_inodes", State.NOTE, seen, "mind max_entries: it may not be reached")
    else:
        yield Check("folder_inodes", State.OK, seen)


def folder_filesystem(case: Case) -> Iterator[Check]:
    """What kind of file system it is, and what that means for a cache."""
    if case.folder is None:
        return
    mount = _mount(case, os.path.realpath(_nearest(case.folder)))
    if mount is None:
        seen, remedy = "not known: /proc/self/mountinfo cannot be read", "on Linux mount /proc; elsewhere see `mount`"
        yield Check("folder_filesystem", State.NOTE, seen, remedy)
        return
    seen = f"{mount.kind} at {mount.point}"
    if "ro" in mount.options:
        yield Check("folder_filesystem", State.PROBLEM, f"{seen}, read-only", "mount it for writing, or name another")
    elif mount.kind in LOCAL:
        yield Check("folder_filesystem", State.OK, seen)
    else:
        words, remedy = _meaning(mount.kind)
        yield Check("folder_filesystem", State.NOTE, f"{seen}: {words}", remedy)


def _meaning(kind: str) -> tuple[str, str]:
    if kind in MEMORY:
        words = "this is memory: it counts against the machine and the container, and is gone after a restart"
        return words, "lower its capacity by what else needs memory, or name a folder on a disk"
    if kind == "overlay":
        words = "a layer of the container: slower, and gone with it"
        return words, "mount a volume for the cache"
    if kind in NETWORK:
        words = (
            "another machine's: renames and links are seen late by others, locks may be this machine's only, "
            "the other clock dates the files"
        )
        return words, "name a folder on a local disk; a fleet shares an object store instead"
    if kind.startswith("fuse"):
        words = "a program answers for it: what links, renames and locks are worth depends on that one"
        return words, "see folder_operations; prefer a folder on a local disk"
    return "not known to this library", "see folder_operations, which was tried"


def folder_clones(case: Case) -> Iterator[Check]:
    """Whether files can share blocks, so that a copy of one moves no byte. It is tried."""
    path = case.folder
    if path is None or not os.path.isdir(path):
        return
    try:
        with _corner(case, path) as corner:
            shared = case.share_blocks(corner)
    except OSError as error:
        yield Check("folder_clones", State.NOTE, f"could not be tried: {error.strerror}", "see folder_operations")
        return
    if shared == SHARED_BYTES:
        yield Check("folder_clones", State.OK, "files share blocks: get -o FILE on this disk moves no byte")
    else:
        remedy = "nothing has to be done; btrfs, and xfs made with reflink=1, can"
        yield Check("folder_clones", State.NOTE, "files do not share blocks: bytes are copied", remedy)


def folder_times(case: Case) -> Iterator[Check]:
    """Whether the folder was changed in the future: then its clock and this one differ."""
    path = case.folder
    if path is None or not os.path.isdir(path):
        return
    newest = max(_changes(path), default=0.0)
    ahead = newest - case.clock.now()
    if ahead > AHEAD_SECONDS:
        seen = f"the last change is {format_duration(ahead)} in the future"
        remedy = "the clock went back, or another machine's is wrong: set it, or entries stay fresh too long"
        yield Check("folder_times", State.PROBLEM, seen, remedy)
    else:
        yield Check("folder_times", State.OK, f"the last change was {format_duration(max(0.0, -ahead))} ago")


def _changes(path: str) -> Iterator[float]:
    """When the folder and those in it were changed. (Every entry that comes or goes changes one of them.)"""
    objects = f"{path}/{layout.OBJECTS}"
    places = [path, objects, f"{path}/{layout.STAGING}", *(f"{objects}/{shard:02x}" for shard in range(SHARDS))]
    for place in places:
        try:
            yield os.stat(place).st_mtime
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                raise


def _nearest(path: str) -> str:
    """The path itself, or what there is of those above it."""
    path = os.path.abspath(path)
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _mount(case: Case, path: str) -> Mount | None:
    """What `path` lies on."""
    best = None
    for mount in case.mounts():
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        # The later of two on one point hides the earlier.
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best
