"""What a person typed, checked before anything is done: URLs, sizes, durations, folders.

Invariant: what is refused is told with the option's own name, the value as it was typed, and what to type instead.
Threads: any. Nothing is changed, and of the disk only what a path is.
Design: docs/cli.md
"""

from __future__ import annotations

import os
import stat

from daramjwee.errors import ConfigError, Problem
from daramjwee.origins import redact_url
from daramjwee.origins.url import problem_of
from daramjwee.units import format_size, parse_duration, parse_size

SIZE_MEND = "give a size such as 64KiB, 256MiB or 20GiB"
DURATION_MEND = "give a duration such as 30s, 5m, 1h or 7d"
URL_MEND = "give an http, https or file URL, such as https://example.org/model.bin or file:///srv/model.bin"


def size_of(option: str, text: str, problems: list[Problem], *, least: int = 1) -> int:
    """The bytes meant by `text`; 0 after its fault was appended to `problems`."""
    try:
        size = parse_size(text)
    except ValueError:
        problems.append(Problem(option, text, SIZE_MEND))
        return 0
    if size < least:
        problems.append(Problem(option, text, f"must be at least {format_size(least)}; {SIZE_MEND}"))
    return size


def seconds_of(option: str, text: str, problems: list[Problem]) -> float:
    """The seconds meant by `text`; 0.0 after its fault was appended to `problems`."""
    try:
        return parse_duration(text)
    except ValueError:
        problems.append(Problem(option, text, DURATION_MEND))
        return 0.0


def expanded(path: str) -> str:
    """`path` with the home in place of a leading `~`: shells leave it in `--cache=~/x`, and nobody wants a folder
    of that name."""
    return os.path.expanduser(path)


def folder_problem(folder: str) -> str | None:
    """Why no file can be put into `folder`, None when one can."""
    try:
        mode = os.stat(folder or os.curdir).st_mode
    except FileNotFoundError:
        return f"the folder {folder} does not exist; make it first"
    except OSError as error:
        return f"the folder {folder} cannot be used ({error.strerror}); name another"
    if not stat.S_ISDIR(mode):
        return f"{folder} is a file, not a folder; name another"
    if not os.access(folder or os.curdir, os.W_OK | os.X_OK):
        return f"this user may not write to the folder {folder or os.curdir}; name another"
    return None


def url_problem(url: str) -> str | None:
    """Why `url` cannot be asked, None when it can."""
    scheme, colon, rest = url.partition(":")
    if colon and scheme.lower() in {"http", "https"}:
        return problem_of(url)
    if colon and scheme.lower() == "file":
        return _file_url_problem(rest)
    path = expanded(url)
    if os.path.isfile(path):
        return f"is a file and not a URL; its URL is {file_url(path)}"
    return URL_MEND


def check_url(url: str) -> None:
    """Refuse a URL that cannot be asked."""
    problem = url_problem(url)
    if problem is not None:
        raise ConfigError([Problem("URL", redact_url(url), problem)], subject="get")


def file_url(path: str) -> str:
    """The URL of a file of this machine."""
    from urllib.parse import quote

    return "file://" + quote(os.fsencode(os.path.abspath(path)))


def _file_url_problem(rest: str) -> str | None:
    """`rest`: what follows `file:`."""
    from urllib.parse import unquote

    path = rest
    if rest.startswith("//"):
        host, slash, tail = rest[2:].partition("/")
        if host.lower() not in {"", "localhost"}:
            meant = file_url(unquote(host + slash + tail, errors="surrogateescape"))
            return f"names the host {host}, and only files of this machine can be read; if it is a folder: {meant}"
        path = slash + tail
    if path.strip("/") == "":
        return "names no file; give its whole path, such as file:///srv/model.bin"
    if not path.startswith("/"):
        return f"has no absolute path; write {file_url(unquote(path, errors='surrogateescape'))}"
    return None
