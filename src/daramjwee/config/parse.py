"""The bytes of a configuration file as plain data, TOML or JSON.

Invariant: whatever the bytes are, the answer comes within seconds, and is data or one `Unread`, which shows no value.
Threads: any; pure.
Design: docs/settings.md
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

# Larger than any file of settings: it is another file, named by mistake.
LARGEST_FILE = 256 * 1024
# More parts than any name has. What `tomllib` does for a key grows with their square: 10,000 parts took 400 MB, and
# 40,000 took 3.8 s (`tomllib.loads(".".join(["a"] * count) + "=1")`).
MOST_PARTS = 50
TOO_DEEP = "is deeper than that of any setting"

# As it stands in comments and text, too, where nothing has so many parts either. Possessive, so that it stays linear.
_LONG_KEY = re.compile(
    r"""(?<![\w-])(?:(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){%d}""" % MOST_PARTS  # noqa: UP031 - braces
)


class Unread(Exception):
    """Why bytes are no settings; `seen`: what gives it away, mostly the line."""

    def __init__(self, seen: str, mend: str) -> None:
        super().__init__(mend)
        self.seen = seen


def parsed(data: bytes, kind: str) -> Any:
    """What the bytes of a file of `kind`, toml or json, say."""
    if b"\0" in data:
        place = f"line {line_of(data, data.index(0))}"
        raise Unread(place, "has a NUL in it and so is no text in UTF-8 (UTF-16 has them); save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unread(f"line {line_of(data, error.start)}", "is no text in UTF-8; save it as that") from None
    return parsed_toml(text) if kind == "toml" else _json(text)


def parsed_toml(text: str) -> Any:
    """What TOML says."""
    import tomllib

    long = _LONG_KEY.search(text)
    if long is not None:
        lines = text[: long.start()].count("\n") + 1
        raise Unread(f"line {lines}", f"has a name of more than {MOST_PARTS} parts: no setting has")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise Unread("nesting", TOO_DEEP) from None
    except ValueError as error:
        # What it says names the line and the column, and shows no value.
        said, _, place = str(error).partition(" (at ")
        lines = text.count("\n") + 1
        line = place.rstrip(")") if place.startswith("line") else f"line {lines}"
        raise Unread(line, f"is no TOML: {said}; mend it there") from None


def _json(text: str) -> Any:
    import json

    data = text.encode("utf-8")
    try:
        found = msgspec.json.decode(data)
    except RecursionError:
        raise Unread("nesting", TOO_DEEP) from None
    except ValueError as error:
        said, _, place = str(error).partition(" (byte ")
        offset = int(place.rstrip(")")) if place.rstrip(")").isdigit() else len(data)
        said = said.removeprefix("JSON is malformed: ")
        raise Unread(f"line {line_of(data, offset)}", f"is no JSON: {said}; mend it there") from None
    # Of two that are called the same the last would count, in silence.
    try:
        json.loads(text, object_pairs_hook=_named_once, parse_int=len, parse_float=len)
    except RecursionError:
        raise Unread("nesting", TOO_DEEP) from None
    return found


def _named_once(pairs: list[tuple[str, Any]]) -> None:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise Unread(name[:80], "stands twice in one table; leave one of them out")
        names.add(name)


def line_of(data: bytes, offset: int) -> int:
    """The line of a byte, counted from 1."""
    return data.count(b"\n", 0, offset) + 1
