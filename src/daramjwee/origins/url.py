"""URLs: made from keys, checked, and shown without their secrets. Pure.

Invariant: two keys never share a URL, and no key leads out of its base. What an error shows went through
`redact_url`: it holds no userinfo, no query value and no fragment.
Threads: any.
"""

from __future__ import annotations

from typing import NamedTuple

from daramjwee.errors import NotFound, redact_url, shorten

__all__ = ["Target", "join_url", "problem_of", "redact_url", "split_userinfo"]

# What may stand in a path as it is (RFC 3986): everything else of a key is escaped, "?", "#" and "%" too.
PATH_SAFE = "/:@!$&'()*+,;=~"


class Target(NamedTuple):
    """Where to ask: the URL without userinfo and fragment, and the userinfo as "name:password", if any."""

    url: str
    userinfo: str | None


def problem_of(url: str) -> str | None:
    """Why `url` cannot be asked, None when it can."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"is no valid URL ({error}); give one such as https://example.org/objects/"
    if parts.scheme.lower() not in {"http", "https"}:
        return "must start with http:// or https://"
    if not parts.hostname:
        return "has no host; give one, such as https://example.org/objects/"
    if port == 0:
        return "has port 0; leave the port out or give a real one"
    if any(ord(c) < 32 or ord(c) == 127 for c in url):
        return "has control characters or line breaks in it; remove them"
    return None


def join_url(base: str, key: str) -> str:
    """The URL of `key` under `base`: two keys never share one. `NotFound` when it would lead out of `base`."""
    from urllib.parse import quote

    if any(part in {".", ".."} for part in key.split("/")):
        raise NotFound(f"{shorten(key)} is not below {redact_url(base)}: '.' and '..' are no names of objects")
    return base + ("" if base.endswith("/") else "/") + quote(key, safe=PATH_SAFE)


def split_userinfo(url: str) -> Target:
    """`url` as it is sent: without fragment, its userinfo taken out to be sent as a header."""
    from urllib.parse import unquote

    url = url.partition("#")[0]
    scheme, separator, tail = url.partition("://")
    end = min((i for i in (tail.find("/"), tail.find("?")) if i >= 0), default=len(tail))
    authority, path = tail[:end], tail[end:]
    userinfo, at, host = authority.rpartition("@")
    if not at:
        return Target(url, None)
    return Target(f"{scheme}{separator}{host}{path}", unquote(userinfo))
