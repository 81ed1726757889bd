"""Small files in which a system says numbers: read whole, and believed only where they can be.

Invariant: what is not a number of bytes or events is `Garbled`; a file is never kept open.
Threads: any.
Design: docs/design/pressure.md
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daramjwee.units import KIB, format_size

if TYPE_CHECKING:
    from collections.abc import Container

# A limit this large is none: version 1 writes 2^63 less a page for it.
NO_LIMIT = 1 << 60
# What no file says truly: the kernel counts bytes in 64 bits, signed where it can be asked.
LARGEST_NUMBER = (1 << 63) - 1
# More than any of these files has; a folder or a device that never ends is no source.
LONGEST_FILE = 1 << 20
# What is read at once. A larger buffer would be mapped and unmapped for each file, and may not be had when memory is
# short.
PIECE_BYTES = 16 * KIB


class Garbled(ValueError):
    """A file says something that cannot be; the message says which and what."""


def read_text(path: str) -> str:
    """All of a small file, of which the system may give a part at a time."""
    # Opened anew each time: a descriptor kept open is closed by programs that turn themselves into daemons, and its
    # number then belongs to another file.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        data = os.read(fd, PIECE_BYTES)
        while piece := os.read(fd, PIECE_BYTES):
            data += piece
            if len(data) > LONGEST_FILE:
                raise Garbled(f"{path} has more than {format_size(LONGEST_FILE)}")
    except OSError as error:
        error.filename = path  # which a read does not say
        raise
    finally:
        os.close(fd)
    return os.fsdecode(data)


def read_number(path: str) -> int:
    return parse_number(read_text(path), path)


def read_limit(path: str) -> int | None:
    """Bytes; None for no limit."""
    text = read_text(path).strip()
    if text == "max":
        return None
    limit = parse_number(text, path)
    return limit if limit < NO_LIMIT else None


def read_counts(path: str, names: Container[str]) -> dict[str, int]:
    """Lines of a name and a number: those of `names` that are there."""
    counts = {}
    for line in read_text(path).splitlines():
        name, _, number = line.partition(" ")
        if name in names:
            counts[name] = parse_number(number, path)
    return counts


def parse_number(text: str, path: str) -> int:
    text = text.strip()
    # Not int() alone: it also takes "-1", "1_0" and digits of other scripts, and a thousand of them slowly.
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or (number := int(text)) > LARGEST_NUMBER:
        raise Garbled(f"{path} says {shown(text)}, where a number of bytes or events is due")
    return number


def shown(text: str) -> str:
    return repr(text[:40]) if text else "nothing"


def why(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return str(error)
