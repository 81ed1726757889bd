"""`FileOrigin`: objects that are files.

Invariant: with a folder, nothing outside of it is ever opened, whatever the key and the links in the folder say. A
file that changes while it is read ends in an error, not in a mixture.
Threads: any; every fetch has a descriptor of its own.
Design: docs/design/origins.md
"""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import TYPE_CHECKING

from daramjwee.errors import ConfigError, FetchError, NotFound, NotModified, Problem, shorten
from daramjwee.model import FetchResult

if TYPE_CHECKING:
    from daramjwee.model import FetchRequest

# A pipe must not stop us in open(); it is refused as soon as it is open.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class FileOrigin:
    """A `Fetcher` over files. `FileOrigin("/srv/models")`: keys are paths inside; `FileOrigin()`: file URLs.

    Without a `folder` a key is a file:// URL or an absolute path, so whoever chooses keys may read any file that
    this process can: give a folder where keys come from others.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._folder: str | None = None
        if folder is None:
            return
        # "" would be the working directory: more often it is a variable that nobody set.
        if isinstance(folder, bytes) or folder == "":
            mend = 'must be the path of a folder, as text; "." is the working directory'
            raise ConfigError([Problem("folder", folder, mend)], subject="FileOrigin")
        try:
            self._folder = os.path.realpath(os.fspath(folder))
        except (TypeError, ValueError) as error:
            raise ConfigError([Problem("folder", folder, f"give a path ({error})")], subject="FileOrigin") from None
        if not os.path.isdir(self._folder):
            mend = "is no folder; make it first, or give another"
            raise ConfigError([Problem("folder", os.fspath(folder), mend)], subject="FileOrigin")

    def __call__(self, request: FetchRequest) -> FetchResult:
        key = request.key
        descriptor = self._open(key)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
                raise FetchError(f"{shorten(key)} is {kind}; give the path of a file")
            etag = _etag(status)
            if request.offset:
                if request.validator != etag:
                    raise FetchError(f"{shorten(key)} has changed: it cannot be continued at {request.offset:,}")
                os.lseek(descriptor, request.offset, os.SEEK_SET)
            elif request.previous is not None and request.previous.etag == etag:
                raise NotModified(f"{shorten(key)} is unchanged")
            body = _FileBody(descriptor, key, etag)
        except BaseException:
            os.close(descriptor)
            raise
        # Files that the system makes up as they are read (/proc) say 0: then only reading tells.
        size = max(0, status.st_size - request.offset) if status.st_size else None
        return FetchResult(body, size=size, etag=etag, last_modified=_http_date(status.st_mtime))

    def close(self) -> None:
        """Nothing is kept open between fetches; here so that origins can be closed alike."""

    def __repr__(self) -> str:
        return f"<FileOrigin {self._folder or 'of file URLs'}>"

    def _open(self, key: str) -> int:
        if "\0" in key:
            raise NotFound(f"{shorten(key)} has a NUL in it: no file has that name")
        try:
            if self._folder is None:
                return os.open(_path_of(key), _FLAGS)
            return _open_inside(self._folder, key)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"there is no file {shorten(key)} in {self!r}") from None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise NotFound(f"{shorten(key)} is longer than the name of a file can be") from None
            raise FetchError(f"{shorten(key)} cannot be opened: {error.strerror or error}") from error


class _FileBody(io.RawIOBase):
    """The bytes of one file, which must be the same file at the end."""

    def __init__(self, descriptor: int, key: str, etag: str) -> None:
        super().__init__()
        self._file = io.FileIO(descriptor, "rb", closefd=True)
        self._key = key
        self._etag = etag

    def readable(self) -> bool:
        return True

    def readinto(self, view: memoryview) -> int:  # type: ignore[override]  # a view is all that we are given
        try:
            count = self._file.readinto(view)
        except OSError as error:
            raise FetchError(f"{shorten(self._key)} cannot be read: {error.strerror or error}") from error
        if count or not len(view):
            return count
        if _etag(os.fstat(self._file.fileno())) != self._etag:
            raise FetchError(f"{shorten(self._key)} was changed while it was read; fetch it again")
        return 0

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _etag(status: os.stat_result) -> str:
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'


def _http_date(seconds: float) -> str:
    from email.utils import formatdate

    return formatdate(seconds, usegmt=True)


def _path_of(key: str) -> str:
    if key.startswith("/"):
        return key
    scheme, colon, rest = key.partition(":")
    if not colon or scheme.lower() != "file":
        raise FetchError(f"{shorten(key)} is neither a file:// URL nor an absolute path; give FileOrigin a folder")
    from urllib.parse import unquote

    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host.lower() not in {"", "localhost"}:
            raise FetchError(f"{shorten(key)} names the host {host}: only files of this machine can be read")
        rest = slash + path
    if not rest.startswith("/"):
        raise FetchError(f"{shorten(key)} has no absolute path; write file:///path/to/file")
    path = unquote(rest, errors="surrogateescape")
    if "\0" in path:
        raise NotFound(f"{shorten(key)} has a NUL in it: no file has that name")
    return path


def _open_inside(folder: str, key: str) -> int:
    """A descriptor of the file `key` names below `folder`, reached without following a link out of it."""
    if key.startswith("/") or ".." in key.split("/"):
        raise NotFound(f"{shorten(key)} is not below the folder: give a relative path without '..'")
    real = os.path.realpath(os.path.join(folder, key))
    prefix = folder if folder.endswith("/") else folder + "/"
    if real != folder and not real.startswith(prefix):
        raise NotFound(f"{shorten(key)} is a link that leads out of the folder; it is not followed")
    # The resolved path has no links. Walk it without following any, or one that is put there between the check
    # and the open would lead us out.
    parts = real[len(prefix) :].split("/") if real != folder else []
    at = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        flags = os.O_NOFOLLOW | (_FLAGS if last else os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            below = os.open(part, flags, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at
