"""Real files to serve: those of the Python installation that runs us, from a few bytes to its largest libraries.

Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from typing import NamedTuple


class RealFile(NamedTuple):
    """One file: its name below the folder that is served, and its size."""

    name: str
    size: int


def installation() -> str:
    """The folder that holds the standard library and, beside it, the interpreter's own library."""
    return os.path.dirname(os.path.realpath(sysconfig.get_path("stdlib")))


def pick_files(folder: str, count: int, largest: int) -> list[RealFile]:
    """At most `count` files of the installation in `folder`, evenly spread over the sizes from the smallest to the
    largest (in steps of equal ratio), none above `largest` bytes. The largest is always among them."""
    by_size: dict[int, str] = {}
    for name, size in _candidates(folder):
        if 0 < size <= largest:
            # Of files of one size the first by name: the same choice in every run.
            by_size[size] = min(name, by_size.get(size, name))
    sizes = sorted(by_size)
    if not sizes:
        return []
    least, most = sizes[0], sizes[-1]
    chosen: list[int] = []
    for step in range(count):
        wanted = least * (most / least) ** (step / max(1, count - 1))
        nearest = min((size for size in sizes if size not in chosen), key=lambda s: abs(s - wanted), default=None)
        if nearest is not None:
            chosen.append(nearest)
    return [RealFile(by_size[size], size) for size in sorted(chosen)]


def _candidates(folder: str) -> Iterator[tuple[str, int]]:
    library = os.path.realpath(sysconfig.get_path("stdlib"))
    yield from _files(library, folder)
    beside = str(sysconfig.get_config_var("LIBDIR") or "")
    if os.path.realpath(beside) == folder:
        yield from (
            (n, s) for n, s in _files(folder, folder, deep=False) if os.path.basename(n).startswith("libpython")
        )


def _files(top: str, folder: str, *, deep: bool = True) -> Iterator[tuple[str, int]]:
    for at, folders, names in os.walk(top):
        # What others install and compile may change while we run.
        folders[:] = [f for f in folders if f not in {"__pycache__", "site-packages", "dist-packages"}] if deep else []
        for name in names:
            path = os.path.join(at, name)
            if os.path.islink(path) or not os.path.isfile(path) or not os.access(path, os.R_OK):
                continue
            yield os.path.relpath(path, folder), os.path.getsize(path)
