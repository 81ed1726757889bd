"""`daramjwee get`: any URL through a cache in a folder.

Invariant: a file that was asked for has all bytes or is not there. No secret of the URL is shown, logged, or kept in
the folder's keys.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import io
import os
from contextlib import nullcontext
from time import perf_counter
from typing import Annotated, Any

import msgspec
import typer

from daramjwee import Cache, FetchRequest, FetchResult, FileStore, Freshness, Status
from daramjwee.cli.output import STDOUT, replacing
from daramjwee.cli.render import Bar, format_rate, print_json, printable, tell
from daramjwee.errors import LimitExceeded, StoreError
from daramjwee.fills.stream import CacheStream
from daramjwee.origins import origin_for, redact_url
from daramjwee.units import format_duration, format_size

# What is asked for again within the hour is served at once; after that the origin is asked whether it changed, which
# costs a round trip and no transfer.
FRESH = "1h"
# An origin that is down does not take away what was fetched before. It is said on standard error.
STALE_IF_ERROR = "7d"
CAPACITY = "20GiB"
DRAIN_BYTES = 256 * 1024


class Got(msgspec.Struct, frozen=True, kw_only=True):
    """What one `get` did. `path`: the file in the cache, when nothing else was written."""

    url: str
    status: str
    bytes: int
    seconds: float
    first_byte_seconds: float
    output: str | None
    path: str | None
    cache: str


def get(
    url: Annotated[str, typer.Argument(metavar="URL", help="An http, https or file URL.", show_default=False)],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write the bytes here once they are complete; - prints them."
        ),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option("--cache", metavar="FOLDER", help="The cache's folder.", show_default="~/.cache/daramjwee"),
    ] = None,
    capacity: Annotated[
        str, typer.Option(metavar="SIZE", help="What the folder may hold; the least useful is dropped.")
    ] = CAPACITY,
    fresh: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="How long to serve without asking again what the origin gives no lifetime. 0 asks each time.",
        ),
    ] = FRESH,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask the origin now, however fresh the copy is.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a line.")] = False,
) -> None:
    """Fetch URL through a cache on disk: the second time, its bytes come from there at once.

    Without -o the cache is filled, and the line printed ends with the path of the file in it. The line begins with how
    the bytes were found: HIT (in the cache), MISS (fetched now), REVALIDATED (the origin says that the copy is
    unchanged), STALE (the origin failed; a copy up to a week past its lifetime), BYPASS (fetched, and the origin
    forbids keeping it). Nothing is written to FILE unless every byte came.
    """
    if json and output == STDOUT:
        raise typer.BadParameter("--json and -o - both want standard output: write to a file instead")
    freshness = Freshness(fresh=fresh, stale_if_error=STALE_IF_ERROR)
    folder = default_folder() if cache is None else cache
    got = fetch(url, output, folder=folder, capacity=capacity, freshness=freshness, refresh=refresh)
    if json:
        print_json(got)
    elif output == STDOUT:
        tell(line_of(got))
    else:
        print(line_of(got))


def fetch(url: str, output: str | None, *, folder: str, capacity: str, freshness: Freshness, refresh: bool) -> Got:
    """Get `url` through the cache in `folder`, and write it to `output`, if there is one."""
    begin = perf_counter()
    origin = origin_for(url)
    key = key_of(url)
    shown = redact_url(url)
    try:
        # The output comes first: what is wrong with it is said before anything is fetched.
        with (
            nullcontext() if output is None else replacing(output) as file,
            Bar(shown) as bar,
            Cache(FileStore(folder, capacity=capacity), freshness=freshness) as cache,
        ):
            source = _Source(origin, url, bar if refresh else None)
            renewed = cache.refresh(key, source) if refresh else None
            with cache.open(key, source, progress=bar.moved) as stream:
                ready = perf_counter() - begin
                path = _keep(stream, shown) if file is None else None
                count = (stream.size or 0) if file is None else stream.copy_to(file)
    finally:
        origin.close()
    return Got(
        url=shown, status=(renewed or stream.status).name, bytes=count, seconds=perf_counter() - begin, first_byte_seconds=ready,
        output=output, path=path, cache=os.path.abspath(folder),
    )  # fmt: skip


def _keep(stream: CacheStream, shown: str) -> str:
    """Read the stream to its end, so that the cache has it; the path of its file there."""
    if stream.status is Status.BYPASS:
        raise StoreError(f"{shown}: the origin forbids to keep it (no-store or private); give -o FILE to have it")
    size = stream.size
    if size is not None and not stream.seekable():
        raise LimitExceeded(
            f"{shown} has {format_size(size)}, and the cache has no room for it: raise --capacity, free some disk, "
            "or give -o FILE"
        )
    if stream.status is Status.MISS:
        buffer = bytearray(DRAIN_BYTES)
        while stream.readinto1(buffer):
            pass
    try:
        return stream.path()
    except io.UnsupportedOperation:
        raise StoreError(f"{shown} was fetched, but could not be kept; give -o FILE to have it") from None


class _Source:
    """The fetcher of one URL, whatever key it is kept under."""

    def __init__(self, origin: Any, url: str, bar: Bar | None) -> None:
        self._origin = origin
        self._url = url
        self._bar = bar

    def __call__(self, request: FetchRequest) -> FetchResult:
        result: FetchResult = self._origin(msgspec.structs.replace(request, key=self._url))
        if self._bar is not None:
            result.body = _Watched(result.body, self._bar, result.size)
        return result


class _Watched:
    """A body that tells a bar how far it is. A refresh has no stream that could."""

    def __init__(self, body: Any, bar: Bar, size: int | None) -> None:
        self._read = getattr(body, "read1", body.read)
        self._bar = bar
        self._size = size
        self._done = 0
        self.close = body.close

    def read1(self, size: int) -> bytes:
        data: bytes = self._read(size)
        self._done += len(data)
        self._bar.moved(self._done, self._size)
        return data

    read = read1


def key_of(url: str) -> str:
    """The key that `url` is kept under: the URL, with its secrets (a name, a password, query values) hidden and a digest
    in their place. Two URLs never share one."""
    shown = redact_url(url)
    if shown == url:
        return url
    import hashlib

    return f"{shown} {hashlib.sha256(url.encode('utf-8', 'surrogateescape')).hexdigest()}"


def default_folder() -> str:
    """The user's own: $XDG_CACHE_HOME/daramjwee, else ~/.cache/daramjwee."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG rule: anything else is to be ignored
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "daramjwee")


def line_of(got: Got) -> str:
    """`got` for a person."""
    rate = f" ({format_rate(got.bytes, got.seconds)})" if got.bytes else ""
    if got.path is not None:
        where = f", kept in {got.path}"
    else:
        where = "" if got.output in {None, STDOUT} else f" -> {got.output}"
    return printable(f"{got.status}  {format_size(got.bytes)} in {format_duration(got.seconds)}{rate}{where}")
