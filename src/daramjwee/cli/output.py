"""Where `daramjwee get -o` writes: a file that appears when it is complete, or a stream that takes bytes as they come.

Invariant: a regular file at the path is either what was there before or all of the new bytes; a run that fails or is
interrupted leaves nothing beside it.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from daramjwee.errors import ConfigError, Problem

STDOUT = "-"


@contextmanager
def replacing(path: str) -> Iterator[Any]:
    """A binary file to write to; leaving the `with` puts it at `path`, an exception leaves `path` as it was.

    "-" is standard output. A device or a pipe is written to as it is.
    """
    if path == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    # A link stays a link: what it points to is replaced.
    real = os.path.realpath(path)
    mode = _mode_of(real, path)
    try:
        if mode is not None and not stat.S_ISREG(mode):
            with open(real, "wb", buffering=0) as device:
                yield device
            return
        with _temporary(real, None if mode is None else stat.S_IMODE(mode)) as (name, file):
            yield file
            file.close()
            os.replace(name, real)
    except OSError as error:
        if error.filename is None or error.filename2 is not None:
            # A write does not know its file, and a rename names one that nobody asked for.
            error.filename, error.filename2 = path, None
        raise


def _mode_of(real: str, path: str) -> int | None:
    try:
        mode = os.stat(real).st_mode
    except FileNotFoundError:
        mode = None
    if (mode is not None and stat.S_ISDIR(mode)) or path.endswith("/"):
        raise ConfigError([Problem("--output", path, "is a folder; name a file in it")], subject="get")
    return mode


@contextmanager
def _temporary(real: str, mode: int | None) -> Iterator[tuple[str, Any]]:
    """A new file in the folder of `real`, gone at the end unless it was renamed. A new file has the usual mode; one
    that replaces another has its mode."""
    folder, name = os.path.split(real)
    # Cut to leave room: a name may have 255 bytes, and one character may take 4 of them.
    temporary = os.path.join(folder, f".{name[:40]}.{os.urandom(6).hex()}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            if mode is not None:
                os.fchmod(descriptor, mode)
            yield temporary, file
    finally:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass  # renamed: it is the result now
