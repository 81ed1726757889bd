"""Where a dashboard's socket is: a folder that others cannot write to, a name for each process, a path of any length.

Invariant: a socket has its final name only while its process listens, so one that refuses a connection is dead and may
be removed by anybody. Only its owner can connect (0600).
Threads: any; nothing here is shared.
Design: docs/monitoring.md
"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import stat
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING

from daramjwee.errors import ConfigError, Problem
from daramjwee.model import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

logger = logging.getLogger(__name__)

# A file tier leaves every name in its folder alone but its own three, in all releases so far.
_NAME = re.compile(r"dashboard-([0-9]+)-[0-9a-f]{12}\.sock")
_NEW = re.compile(r"dashboard-[0-9]+-[0-9a-f]{12}\.new")
# A socket that has no final name after so long belongs to a process that died in between.
NEW_SECONDS = 60.0
# What every system takes as the path of a socket (macOS: 104 with the NUL, Linux: 108).
LONGEST_PATH = 103
PRIVATE = 0o600
OTHERS_WRITE = 0o022
BACKLOG = 128
CONNECT_SECONDS = 0.01
# What link() says where it cannot give a socket a second name.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)

Identity = tuple[int, int]


def new_name(suffix: str) -> str:
    """A name of this process that nobody else has."""
    return f"dashboard-{os.getpid()}-{os.urandom(6).hex()}.{suffix}"


def pid_in(name: str) -> int | None:
    """The process a socket of this name belongs to, None where the name does not say."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1])


def trust_problem(status: os.stat_result, user: int) -> str | None:
    """Why a folder is no place for a private socket of `user`, None when it is one. In a folder with the sticky bit,
    such as /tmp, nobody can replace what is another's."""
    if not stat.S_ISDIR(status.st_mode):
        return "is no folder; name one"
    if user not in (0, status.st_uid) and status.st_uid != 0:
        return f"belongs to another user (id {status.st_uid}), who could put a socket of his own there; name another"
    if status.st_mode & OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
        mode = stat.S_IMODE(status.st_mode)
        return f"others may write to it (mode {mode:04o}) and could replace the socket; chmod go-w, or name another"
    return None


def _identity_of(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


class Folder:
    """An open folder. What is done in it goes by its descriptor: it may be renamed, and its path may be of any length.
    Close it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def address(self, name: str) -> str:
        """A path of `name` that is short enough for a socket. `OSError` where there is none."""
        through = f"/proc/self/fd/{self.fd}"
        address = os.path.join(through if os.path.isdir(through) else self.path, name)
        if len(os.fsencode(address)) > LONGEST_PATH:
            raise OSError(errno.ENAMETOOLONG, "too long for a socket on this system", os.path.join(self.path, name))
        return address

    def identity(self, name: str) -> Identity | None:
        """Which file has the name, None when none has. `OSError` for what cannot be asked."""
        try:
            return _identity_of(os.lstat(name, dir_fd=self.fd))
        except FileNotFoundError:
            return None

    def remove(self, name: str, identity: Identity | None) -> None:
        """Remove the file, if it still is that one."""
        try:
            if identity is not None and self.identity(name) == identity:
                os.unlink(name, dir_fd=self.fd)
        except OSError as error:  # it only lies there: the next that looks tries again
            logger.debug("could not remove %s in %s: %s", name, self.path, error)


def listen(folder: Folder, name: str | None) -> tuple[socket.socket, str, Identity]:
    """A socket that listens under `name` (None: one of its own), which only this user can connect to."""
    temporary, final = new_name("new"), new_name("sock") if name is None else name
    identity: Identity | None = None
    folder.address(final)  # whoever asks needs one that is short enough, too
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(folder.address(temporary))
        identity = _identity_of(os.lstat(temporary, dir_fd=folder.fd))
        os.chmod(temporary, PRIVATE, dir_fd=folder.fd)
        listener.listen(BACKLOG)
        _publish(folder, temporary, final)
    except BaseException:
        listener.close()
        for made in (temporary, final):
            folder.remove(made, identity)
        raise
    return listener, final, identity


def _publish(folder: Folder, temporary: str, final: str) -> None:
    """Give the socket its final name; never in place of another file, but for a dead socket."""
    while True:
        before = folder.identity(final)
        if before is not None:
            if not is_socket(folder, final):
                raise _refusal(folder, final, "is there already and is no socket; name another")
            if lives(folder, final):
                raise _refusal(folder, final, "another process offers its dashboard there; name another")
            folder.remove(final, before)
        try:
            os.link(temporary, final, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        except FileExistsError:
            if before is not None and folder.identity(final) == before:
                raise
            continue
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            os.rename(temporary, final, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
            return
        os.unlink(temporary, dir_fd=folder.fd)
        return


def _refusal(folder: Folder, name: str, mend: str) -> ConfigError:
    return ConfigError([Problem("path", os.path.join(folder.path, name), mend)], subject="offer_dashboard")


def is_socket(folder: Folder, name: str) -> bool:
    """Whether the name is that of a socket, and no link to one."""
    try:
        return stat.S_ISSOCK(os.lstat(name, dir_fd=folder.fd).st_mode)
    except FileNotFoundError:
        return False


def connect(folder: Folder, name: str, timeout: float) -> socket.socket:
    """A connection to the socket of that name; `timeout` 0 does not wait. `OSError` as the system gives it."""
    deadline = monotonic() + timeout
    pause = Event()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        while True:
            try:
                connection.connect(folder.address(name))
                return connection
            except BlockingIOError:  # too many wait to be let in: Linux does not wait for that, whatever the timeout
                if monotonic() >= deadline:
                    raise
                pause.wait(CONNECT_SECONDS)
    except BaseException:
        connection.close()
        raise


def lives(folder: Folder, name: str) -> bool:
    """Whether somebody listens at the socket. Who cannot be judged counts as living."""
    try:
        connect(folder, name, 0.0).close()
    except OSError as error:
        return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True


def living(folder: Folder) -> Iterator[str]:
    """The names of the dashboards in the folder whose process lives; the others are removed."""
    for name in sorted(os.listdir(folder.fd)):
        if _NAME.fullmatch(name) is not None:
            identity = folder.identity(name)
            if not is_socket(folder, name):
                continue
            if lives(folder, name):
                yield name
            else:
                folder.remove(name, identity)
        elif _NEW.fullmatch(name) is not None:
            _remove_forgotten(folder, name)


def _remove_forgotten(folder: Folder, name: str) -> None:
    """Remove the beginning of a socket whose process died before it had a name."""
    try:
        status = os.lstat(name, dir_fd=folder.fd)
    except FileNotFoundError:
        return  # it has its name now
    old = SYSTEM_CLOCK.now() - status.st_mtime > NEW_SECONDS
    if old and stat.S_ISSOCK(status.st_mode) and not lives(folder, name):
        folder.remove(name, _identity_of(status))
