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

from daramjwee import Cache, FetchRequest, FetchResult, FileOrigin, FileStore, Freshness, Status
from daramjwee.cli.options import check_url, expanded, seconds_of, size_of
from daramjwee.cli.output import STDOUT, replacing
from daramjwee.cli.render import Bar, format_rate, print_json, printable, show, tell
from daramjwee.errors import ConfigError, DaramjweeError, FetchError, LimitExceeded, NotFound, Problem, StoreError
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


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Where the cache is and what it may do. Bytes and seconds."""

    folder: str
    capacity: int
    fresh: float
    refresh: bool


class Got(msgspec.Struct, frozen=True, kw_only=True):
    """What one `get` did. `path`: the file in the cache, when nothing else was written. `not_kept`: why the cache does
    not have it, None when it has."""

    url: str
    status: str
    bytes: int
    seconds: float
    first_byte_seconds: float
    output: str | None
    path: str | None
    not_kept: str | None
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
        typer.Option("--cache", metavar="FOLDER", help="The cache's folder; else ~/.cache/daramjwee."),
    ] = None,
    capacity: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="What the folder may hold; the least useful is dropped, at once where it holds more already.",
        ),
    ] = CAPACITY,
    fresh: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="How long to serve without asking again what the origin gives no lifetime. 0 asks each time.",
        ),
    ] = FRESH,
    refresh: Annotated[
        bool, typer.Option("--refresh", metavar="", help="Ask the origin now, however fresh the copy is.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print one JSON document instead of a line.")
    ] = False,
) -> None:
    """Fetch URL through a cache on disk: the second time, its bytes come from there at once.

    Without -o the cache is filled, and the line printed ends with the path of the file in it. The line begins with how
    the bytes were found: HIT (in the cache), MISS (fetched now), REVALIDATED (the origin says that the copy is
    unchanged), STALE (the origin failed; a copy up to a week past its lifetime), BYPASS (fetched, and the origin
    forbids keeping it). Nothing is written to FILE unless every byte came.
    """
    if json and output == STDOUT:
        raise typer.BadParameter("--json and -o - both want standard output: write to a file instead")
    problems: list[Problem] = []
    wanted = Wanted(
        folder=default_folder() if cache is None else expanded(cache),
        capacity=size_of("--capacity", capacity, problems),
        fresh=seconds_of("--fresh", fresh, problems),
        refresh=refresh,
    )
    if cache is not None and (not cache or os.path.isfile(wanted.folder)):
        problems.append(Problem("--cache", cache, f"is {'a file, not a folder' if cache else 'empty'}; name a folder"))
    if problems:
        raise ConfigError(problems, subject="get")
    check_url(url)
    got = fetch(url, output if output in {None, STDOUT} else expanded(output), wanted)
    if json:
        print_json(got)
    elif output == STDOUT:
        tell(line_of(got))
    else:
        show(line_of(got))


def fetch(url: str, output: str | None, wanted: Wanted) -> Got:
    """Get `url` through the cache, and write it to `output`, if there is one."""
    begin = perf_counter()
    origin = origin_for(url)
    key = key_of(url)
    shown = redact_url(url)
    freshness = Freshness(fresh=wanted.fresh, stale_if_error=STALE_IF_ERROR)
    path = not_kept = renewed = None
    try:
        # The output comes first: what is wrong with it is said before anything is fetched.
        with (
            nullcontext() if output is None else replacing(output) as file,
            Bar(shown) as bar,
            Cache(FileStore(wanted.folder, capacity=wanted.capacity), freshness=freshness) as cache,
        ):
            source = _Source(origin, url, bar if wanted.refresh else None)
            if wanted.refresh:
                renewed = cache.refresh(key, source)
            with cache.open(key, source, progress=bar.moved) as stream:
                ready = perf_counter() - begin
                if file is None:
                    path = _keep(stream, shown, source)
                    count = stream.size or 0
                else:
                    count = stream.copy_to(file)
                    not_kept = _why_not_kept(stream, wanted.capacity, source)
    finally:
        origin.close()
    status = renewed or stream.status
    if status in {Status.BYPASS, Status.JOINED} and not source.forbidden:
        status = Status.MISS  # fetched now, past a cache without room, or by the refresh just before
    return Got(
        url=shown, status=status.name, bytes=count, seconds=perf_counter() - begin, first_byte_seconds=ready,
        output=output, path=path, not_kept=not_kept, cache=os.path.abspath(wanted.folder),
    )  # fmt: skip


def _why_not_kept(stream: CacheStream, capacity: int, source: _Source) -> str | None:
    """Why the cache does not have what this stream has given, None when it has."""
    if source.forbidden:
        return "the origin forbids it"
    if stream.status not in {Status.MISS, Status.JOINED, Status.BYPASS}:
        return None
    size = stream.size
    if size is not None and size > capacity:
        return f"larger than --capacity {format_size(capacity)}"
    try:
        stream.path()
    except (io.UnsupportedOperation, StoreError):
        return "the cache had no room for it, or could not write"
    return None


def _keep(stream: CacheStream, shown: str, source: _Source) -> str:
    """Read the stream to its end, so that the cache has it; the path of its file there."""
    if source.forbidden:
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
    """The fetcher of one URL, whatever key it is kept under. `forbidden`: its origin said that it may not be kept."""

    def __init__(self, origin: Any, url: str, bar: Bar | None) -> None:
        self.forbidden = False
        self._origin = origin
        self._url = url
        self._bar = bar

    def __call__(self, request: FetchRequest) -> FetchResult:
        try:
            result: FetchResult = self._origin(msgspec.structs.replace(request, key=self._url))
        except (NotFound, FetchError) as error:
            words = _for_a_person(error, self._origin)
            if words is None:
                raise
            raise type(error)(f"{redact_url(self._url)}: {words}") from error
        self.forbidden = not result.cacheable
        if self._bar is not None:
            result.body = _Watched(result.body, self._bar, result.size)
        return result


def _for_a_person(error: DaramjweeError, origin: Any) -> str | None:
    """What to say instead where the library speaks to programmers; None where its own words will do."""
    if isinstance(error, NotFound) and isinstance(origin, FileOrigin) and "there is no file" in str(error):
        return "there is no such file"
    cause = error.__cause__
    if type(cause).__name__ == "SSLError":
        if "WRONG_VERSION_NUMBER" in str(cause):
            return "TLS failed: this port does not speak it; try http://"
        return f"TLS failed: {cause}; check the host name, and that this system trusts the certificate"
    return None


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
    if got.not_kept is not None:
        rate += f", not kept: {got.not_kept}"
    if got.path is not None:
        where = f", kept in {got.path}"
    else:
        where = "" if got.output in {None, STDOUT} else f" -> {got.output}"
    return printable(f"{got.status}  {format_size(got.bytes)} in {format_duration(got.seconds)}{rate}{where}")
