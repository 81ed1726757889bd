"""Where `daramjwee get -o` writes: a file that appears when it is complete, or a stream that takes bytes as they come.

Invariant: a regular file at the path is either what was there before or all of the new bytes; a run that fails or is
interrupted leaves nothing beside it. What is wrong with the path is said before a byte is asked for.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from daramjwee.cli.options import folder_problem
from daramjwee.cli.render import is_terminal
from daramjwee.errors import ConfigError, Problem

STDOUT = "-"


@contextmanager
def replacing(path: str) -> Iterator[Any]:
    """A binary file to write to; leaving the `with` puts it at `path`, an exception leaves `path` as it was.

    "-" is standard output. A device or a pipe is written to as it is.
    """
    if path == STDOUT:
        with _standard_output() as file:
            yield file
        return
    mode = _mode_of(path)
    if mode is not None and not stat.S_ISREG(mode):
        # By the name that was given: what /dev/stdout leads to may have none of its own.
        with _opened(path, path, os.O_WRONLY) as device, _naming(path):
            yield device
        return
    # A link stays a link: what it points to is replaced.
    with _temporary(path, os.path.realpath(path), mode) as file:
        yield file


@contextmanager
def _standard_output() -> Iterator[Any]:
    if sys.stdout is None:
        _refuse(STDOUT, "standard output is closed; name a file")
    if is_terminal(sys.stdout):
        _refuse(STDOUT, "bytes would upset the terminal; pipe them on, name a file, or say -o /dev/stdout to see them")
    with _naming("standard output"):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()


def _refuse(path: str, mend: str) -> NoReturn:
    raise ConfigError([Problem("--output", path, mend)], subject="get")


@contextmanager
def _naming(shown: str) -> Iterator[None]:
    """An error of the system names the file: a write does not know its own, a rename names one nobody asked for."""
    try:
        yield
    except OSError as error:
        if error.filename is None or error.filename2 is not None:
            error.filename, error.filename2 = shown, None
        raise


def _mode_of(path: str) -> int | None:
    """The mode of what is at `path`, None when there is nothing yet. Refuses what cannot become a file."""
    if not path:
        _refuse(path, "is empty; name a file, or - for standard output")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:
        _refuse(path, f"{error.strerror}; name another file")
    if (mode is not None and stat.S_ISDIR(mode)) or path.endswith("/"):
        _refuse(path, "is a folder; name a file in it")
    return mode


@contextmanager
def _temporary(path: str, real: str, mode: int | None) -> Iterator[Any]:
    """A new file in the folder of `real`, put there at the end, or gone. A new file has the usual mode; one that
    replaces another has its mode."""
    folder, name = os.path.split(real)
    problem = folder_problem(folder if os.path.islink(path) else os.path.dirname(path))
    if problem is not None:
        _refuse(path, problem)
    # Cut to leave room: a name may have 255 bytes, and one character may take 4 of them.
    temporary = os.path.join(folder, f".{name[:40]}.{os.urandom(6).hex()}.part")
    try:
        with _opened(path, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file, _naming(path):
            if mode is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
            yield file
            file.close()
            os.replace(temporary, real)
    finally:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass  # renamed: it is the result now, or it was never made


def _opened(path: str, real: str, flags: int) -> Any:
    """`real` open for writing; where that is refused, `path` is to blame."""
    try:
        return open(os.open(real, flags | os.O_CLOEXEC, 0o666), "wb", buffering=0)
    except OSError as error:
        _refuse(path, f"cannot be written ({error.strerror}); name another file")
