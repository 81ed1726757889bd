"""Asking a running process for its dashboard document.

Invariant: an answer takes bounded time and memory, whatever is at the other end; the sockets of dead processes are removed
on the way.
Threads: any; nothing here is shared.
Design: docs/monitoring.md
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from time import monotonic

import msgspec

from daramjwee.errors import ConfigError, DaramjweeError, FetchError, Problem
from daramjwee.observe.document import FORMAT, Document
from daramjwee.observe.place import Folder, connect, living
from daramjwee.observe.wire import REQUEST, body_of

ASK_SECONDS = 5.0
MOST_BYTES = 16 * 1024 * 1024
READ_BYTES = 64 * 1024
OK, GONE = 200, 410
TRIES = 3


class NoDashboard(DaramjweeError):
    """No process offers its dashboard there, or none does any more."""

    exit_status = 4


class _Envelope(msgspec.Struct):
    format: int


def find(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The sockets that processes offer their dashboard on: those in the folder `path`, or `path` itself where it is a
    socket. None is an answer; `NoDashboard` when there is no such path, `ConfigError` when it may not be looked at."""
    whole = os.path.abspath(os.fspath(path))
    try:
        if stat.S_ISSOCK(os.stat(whole).st_mode):
            return (whole,)
        with Folder(whole) as folder:
            return tuple(os.path.join(whole, name) for name in living(folder))
    except FileNotFoundError:
        raise NoDashboard(f"there is no folder or socket {whole}") from None
    except PermissionError:
        mend = "may not be looked into by this user; ask as the user of the process, or as root"
        raise ConfigError([Problem("path", whole, mend)], subject="dashboard") from None
    except OSError as error:
        mend = f"cannot be looked into ({error.strerror or error}); give the folder of a file tier, or a socket"
        raise ConfigError([Problem("path", whole, mend)], subject="dashboard") from error


def ask(path: str | os.PathLike[str], *, timeout: float = ASK_SECONDS) -> bytes:
    """The dashboard document of the process at the socket `path`, as JSON.

    `NoDashboard` when nobody is there, `FetchError` when the answer is none or takes more than `timeout` seconds,
    `ConfigError` when the socket is another user's.
    """
    whole = os.path.abspath(os.fspath(path))
    try:
        status, body = body_of(_received(whole, monotonic() + timeout))
    except ValueError as error:
        raise FetchError(f"{whole} is no dashboard: {error}") from None
    except TimeoutError:
        raise FetchError(f"the process at {whole} did not answer within {timeout:g} s; ask again") from None
    except PermissionError:
        mend = "belongs to another user; ask as that user"
        raise ConfigError([Problem("path", whole, mend)], subject="dashboard") from None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
            raise NoDashboard(f"no process offers its dashboard at {whole} any more") from error
        raise FetchError(f"could not ask at {whole}: {error.strerror or error}") from error
    if status == GONE:
        raise NoDashboard(f"the pool that offered its dashboard at {whole} is gone")
    if status != OK:
        raise FetchError(f"the process at {whole} answered with status {status}; its log says why")
    return body


def decode(document: bytes) -> Document:
    """The document of `ask`, with what this release knows of it. `FetchError` for what is none."""
    try:
        written = msgspec.json.decode(document, type=_Envelope).format
        if written > FORMAT:
            raise FetchError(f"the document has format {written}, this release knows {FORMAT}: upgrade daramjwee")
        return msgspec.json.decode(document, type=Document)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FetchError(f"what was sent is no dashboard document: {error}") from None


def _received(path: str, deadline: float) -> bytearray:
    """What is answered. Who is sent away without a word asks again: there were too many, or the dashboard was closed just
    now, which the next try shows."""
    received = bytearray()
    for _ in range(TRIES):
        with suppress(ConnectionResetError, BrokenPipeError):
            received = _exchange(path, deadline)
        if received:
            break
    return received


def _exchange(path: str, deadline: float) -> bytearray:
    """All that is sent in answer to the one request there is."""
    with Folder(os.path.dirname(path)) as folder:
        connection = connect(folder, os.path.basename(path), _left(deadline))
    received = bytearray()
    with connection:
        connection.sendall(REQUEST)
        while True:
            connection.settimeout(_left(deadline))
            piece = connection.recv(READ_BYTES)
            received += piece
            if not piece:
                return received
            if len(received) > MOST_BYTES:
                raise ValueError(f"it sends more than {MOST_BYTES:,} bytes")


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left
