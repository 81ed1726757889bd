"""What HTTP headers mean for a cache: sizes, lifetimes, ranges. Pure: headers in, values out.

Invariant: a header that cannot be read is treated as absent, never guessed at.
Threads: any.
Design: docs/design/origins.md
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_DIRECTIVE = re.compile(r"""([\w-]+)(?:\s*=\s*(?:"([^"]*)"|([^\s,"]+)))?""", re.ASCII)


class Lifetime(NamedTuple):
    """Whether a response may be kept for others, and for how many seconds; None: it does not say."""

    cacheable: bool
    ttl: float | None


def lifetime_of(headers: Mapping[str, str]) -> Lifetime:
    """What Cache-Control, Age and Vary allow. A shared cache's view: `private` is not for us, s-maxage is."""
    directives = _directives(headers.get("Cache-Control", ""))
    cacheable = not ({"no-store", "private"} & directives.keys()) and headers.get("Vary", "").strip() != "*"
    if "no-cache" in directives and not directives["no-cache"]:
        return Lifetime(cacheable, 0.0)
    for name in ("s-maxage", "max-age"):
        said = directives.get(name)
        # "-1" is how some say "stale already"; as if absent, it could mean "for ever".
        seconds = 0 if said is not None and said.startswith("-") and _number(said[1:]) is not None else _number(said)
        if seconds is not None:
            return Lifetime(cacheable, float(max(0, seconds - (_number(headers.get("Age")) or 0))))
    return Lifetime(cacheable, None)


def encodings_of(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The content codings that a body was sent in; none when it comes as it is."""
    names = (name.strip().lower() for name in headers.get("Content-Encoding", "").split(","))
    return tuple(name for name in names if name not in {"", "identity"})


def size_of(headers: Mapping[str, str]) -> int | None:
    """The bytes of the body, where the headers say so and they count what will be read."""
    if encodings_of(headers) or headers.get("Transfer-Encoding"):
        return None
    return _number(headers.get("Content-Length"))


def weaken(etag: str | None) -> str | None:
    """An ETag for other bytes than those it was given for: good to ask with, not to continue by."""
    return etag if etag is None or etag.startswith("W/") else f"W/{etag}"


def wrong_part(headers: Mapping[str, str], offset: int, validator: str) -> str | None:
    """Why a 206 is not the rest of the object from `offset` on, None when it is."""
    said = headers.get("Content-Range", "")
    match = _CONTENT_RANGE.fullmatch(said.strip())
    if match is None:
        return f"its Content-Range is {said!r}"
    first, last, total = int(match[1]), int(match[2]), match[3]
    if first != offset or (total != "*" and last + 1 != int(total)) or last < first:
        return f"it sent bytes {first}-{last} of {total} where all from {offset} on were due"
    if encodings_of(headers):
        return "it sent a part of an encoded body"
    length = _number(headers.get("Content-Length"))
    if length is not None and length != last - first + 1:
        return f"its Content-Length is {length}, but its Content-Range is {said!r}"
    etag = headers.get("ETag")
    if etag is not None and etag != validator:
        return "the object has changed"
    return None


def part_size(headers: Mapping[str, str]) -> int | None:
    """The bytes of a 206's body by its Content-Range."""
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    return None if match is None else int(match[2]) - int(match[1]) + 1


def _directives(text: str) -> dict[str, str]:
    return {m[1].lower(): m[2] or m[3] or "" for m in _DIRECTIVE.finditer(text)}


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    # 18 digits: more is no size and no age, and int() of thousands of digits is an error of its own.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
