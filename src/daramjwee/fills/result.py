"""Results: what a fetcher returned and what it said of it, brought to one form and checked.

Invariant: metadata made here is right in every field, or `ConfigError` names each one that is not. A response
that is refused is closed.
Threads: any; nothing is kept.
Design: docs/design/origins.md
"""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

from daramjwee.errors import ConfigError, FetchError, NotFound, NotModified, Problem
from daramjwee.model import FetchResult, Metadata
from daramjwee.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger(__name__)


def result_of(value: object) -> FetchResult:
    """What a fetcher returned, as a `FetchResult`.

    A bare response is read for what its headers say and refused when its status is an error: `NotFound` for
    404 and 410, `NotModified` for 304, else `FetchError`. A response that is refused is closed.
    """
    if isinstance(value, FetchResult):
        return value
    refuse_async(value)
    body: Any = value
    headers = getattr(body, "headers", None)
    if not callable(getattr(headers, "get", None)):
        return FetchResult(body)
    try:
        _check_status(body)
    except Exception:
        _close(body)
        raise
    assert headers is not None
    return FetchResult(
        body,
        size=_announced_size(headers),
        etag=_header(headers, "ETag"),
        last_modified=_header(headers, "Last-Modified"),
    )


def metadata_of(result: FetchResult, now: float, *, subject: str = "FetchResult") -> Metadata:
    """The metadata of what was fetched at `now`. `ConfigError` names `subject` and every field that cannot be right."""
    problems: list[Problem] = []
    size = result.size
    if size is None:
        size = _size_of(result.body)
    elif type(size) is not int or size < 0:
        problems.append(Problem("size", size, "give the bytes of the body as an int of 0 or more, or None"))
    ttl = None
    if result.ttl is not None:
        try:
            ttl = parse_duration(result.ttl)
        except ValueError as error:
            problems.append(Problem("ttl", result.ttl, f"{error}, or None"))
    for field in ("etag", "last_modified"):
        text = getattr(result, field)
        if text is not None and not isinstance(text, str):
            problems.append(Problem(field, text, "give the header's text as str, or None"))
    digest = result.digest
    if digest is not None:
        digest = _checked_digest(digest, problems)
    tags = _checked_tags(result.tags, problems)
    attributes = _checked_attributes(result.attributes, problems)
    if problems:
        raise ConfigError(problems, subject=subject)
    return Metadata(
        size=size, stored_at=now, etag=result.etag, last_modified=result.last_modified, ttl=ttl, digest=digest,
        tags=tags, attributes=attributes,
    )  # fmt: skip


def refuse_async(value: object) -> None:
    kind = type(value)
    if hasattr(kind, "__await__"):
        getattr(value, "close", lambda: None)()  # or Python warns of a coroutine that was never awaited
    elif not hasattr(kind, "__aiter__") and not hasattr(kind, "__anext__"):
        return
    raise TypeError(
        f"{kind.__name__} is asynchronous, and this release has no asynchronous door: give Cache a fetcher that "
        "returns bytes, or run the coroutine yourself"
    )


def _close(response: Any) -> None:
    try:
        getattr(response, "close", lambda: None)()
    except Exception as error:  # noqa: BLE001 - any client's code; what it answered is what counts
        logger.warning("closing a refused response failed: %s: %s", type(error).__name__, error)


def _header(headers: Any, name: str) -> str | None:
    value = headers.get(name)
    if value is None:
        value = headers.get(name.lower())  # a plain dict knows one spelling
    return value if isinstance(value, str) else None


def _announced_size(headers: Any) -> int | None:
    """The size of the body as it will be read: unknown when it comes encoded, or when chunks delimit it."""
    encoding = _header(headers, "Content-Encoding")
    if (encoding or "identity").strip().lower() != "identity" or _header(headers, "Transfer-Encoding"):
        return None
    length = (_header(headers, "Content-Length") or "").strip()
    return int(length) if length.isascii() and length.isdigit() else None


def _check_status(response: Any) -> None:
    status = getattr(response, "status", None)
    if type(status) is not int:
        status = getattr(response, "status_code", None)
    if type(status) is not int or (200 <= status < 300 and status != 206):
        return
    reason = getattr(response, "reason", None) or getattr(response, "reason_phrase", None) or ""
    said = f"the origin answered {status} {reason}".rstrip()
    if status in {404, 410}:
        raise NotFound(said)
    if status == 304:
        raise NotModified(said)
    if status == 206:
        raise FetchError(f"{said}: a part of the object; give it in a FetchResult, whose size says what it is")
    if 300 <= status < 400:
        raise FetchError(f"{said}: a redirect that was not followed; let the client follow redirects")
    raise FetchError(said)


def _size_of(body: object) -> int | None:
    """The bytes of a body that is in memory already."""
    if isinstance(body, bytes | bytearray):
        return len(body)
    if isinstance(body, memoryview):
        return body.nbytes
    if type(body) is io.BytesIO:
        start = body.tell()
        end = body.seek(0, io.SEEK_END)
        body.seek(start)
        return max(0, end - start)
    return None


def _checked_digest(digest: object, problems: list[Problem]) -> str | None:
    import hashlib  # not at import: it costs milliseconds, and few results carry a digest

    mend = 'give "algorithm:hex" with a hashlib algorithm, such as "sha256:9f86d0..."'
    if isinstance(digest, str):
        algorithm, _, value = digest.partition(":")
        try:
            known = hashlib.new(algorithm, usedforsecurity=False)
            algorithm, length = known.name, 2 * known.digest_size
        except ValueError:
            length = 0
        if length and len(value) == length and all(c in "0123456789abcdefABCDEF" for c in value):
            return f"{algorithm}:{value.lower()}"
        if length:
            mend = f"{algorithm} has {length} hexadecimal digits"
    problems.append(Problem("digest", digest, mend))
    return None


def _checked_tags(tags: Iterable[object], problems: list[Problem]) -> tuple[str, ...]:
    if not isinstance(tags, str):
        try:
            found = tuple(tags)
        except TypeError:
            found = (None,)
        texts = tuple(tag for tag in found if isinstance(tag, str) and tag)
        if len(texts) == len(found):
            return texts
    problems.append(Problem("tags", tags, 'give a tuple of texts that are not empty, such as ("news",)'))
    return ()


def _checked_attributes(attributes: Any, problems: list[Problem]) -> dict[str, str]:
    try:
        found = dict(attributes)
    except (TypeError, ValueError):
        found = {"": 0}  # stands for what is no mapping; refused below
    if all(isinstance(name, str) and isinstance(value, str) for name, value in found.items()):
        return found
    problems.append(Problem("attributes", attributes, "give a mapping of text to text"))
    return {}
