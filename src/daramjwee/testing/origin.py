"""An origin that does what a test wrote down: bytes in steps, gates between them, failures at a given byte.

Invariant: every fetch of a key is counted and kept before anything of it is answered. Nothing here sleeps: a gate
that is not opened in time fails the fetch, it does not hang the test.
Threads: any number of fetches at once; each has a body of its own.
Design: docs/design/origins.md
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from daramjwee.errors import FetchError, NotFound, NotModified, shorten
from daramjwee.model import FetchResult
from daramjwee.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from daramjwee.model import FetchRequest
    from daramjwee.units import Duration

# Long enough for the slowest machine, short of any test's own limit.
PATIENCE_SECONDS = 30.0


class Gate:
    """A place in a script where the origin stops until the test lets it go on, or `patience` (seconds) is over."""

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()
        self._patience = patience

    def wait(self, timeout: float | None = None) -> bool:
        """Called by the origin: say that it is here, then stand until `open`, or `timeout` seconds (None: its patience)."""
        self._reached.set()
        return self._opened.wait(self._patience if timeout is None else timeout)

    def wait_reached(self) -> None:
        """Called by the test: return once an origin stands here. `AssertionError` when none comes."""
        assert self._reached.wait(self._patience), "no fetch has come to this gate"

    def open(self) -> None:
        """Let whoever stands here, and whoever comes, go on."""
        self._opened.set()


class _Script(NamedTuple):
    steps: tuple[Any, ...]
    size: int | None
    etag: str | None
    last_modified: str | None
    ttl: Duration | None
    tags: tuple[str, ...]
    digest: str | None
    attributes: Mapping[str, str]
    cacheable: bool


class ScriptedOrigin:
    """A `Fetcher` for tests.

    `ScriptedOrigin({"a": b"bytes"})` serves plain objects; `script` says more of one key. A key without a
    script is `NotFound`. `objects`: bytes by key.
    """

    def __init__(self, objects: Mapping[str, bytes] | None = None) -> None:
        self._scripts: dict[str, _Script] = {}
        self._requests: list[FetchRequest] = []
        self._open_bodies = 0
        self._lock = threading.Lock()
        for key, data in (objects or {}).items():
            self.script(key, data)

    def script(
        self,
        key: str,
        *steps: Any,
        size: int | Literal["right"] | None = "right",
        etag: str | None = None,
        last_modified: str | None = None,
        ttl: Duration | None = None,
        tags: tuple[str, ...] = (),
        digest: str | None = None,
        attributes: Mapping[str, str] | None = None,
        cacheable: bool = True,
        fail_at: int | None = None,
        error: BaseException | None = None,
    ) -> None:
        """From now on, answer fetches of `key` with `steps`, in order.

        A step is bytes to send; an exception (or its class) to raise, before the body when it comes first; or
        something to `wait` for: a `Gate`, a `threading.Event`, a `Barrier`. `size`: "right" announces the bytes
        of all steps, None nothing, a number that number, true or not. `fail_at=n`: raise `error` after n bytes.
        A fetch that comes with `previous` of the same `etag` gets `NotModified`. `last_modified`, `ttl` (a duration), `tags`,
        `digest`, `attributes`, `cacheable`: as of `FetchResult`. `ValueError` for a script that cannot be played.
        """
        if error is not None and fail_at is None:
            raise ValueError(
                "error= is raised after fail_at= bytes: say how many, or give the exception as the first step"
            )
        if fail_at is not None:
            steps = (*_first_bytes(steps, fail_at), error or ConnectionResetError("the script says: reset here"))
        announced = sum(len(s) for s in steps if _is_bytes(s)) if size == "right" else size
        script = _Script(
            steps, announced, etag, last_modified, ttl, tags, digest, dict(attributes or {}), cacheable
        )  # fmt: skip
        with self._lock:
            self._scripts[key] = script

    def __call__(self, request: FetchRequest) -> FetchResult:
        with self._lock:
            self._requests.append(request)
            script = self._scripts.get(request.key)
        if script is None:
            raise NotFound(f"the scripted origin has no {shorten(request.key)}")
        if script.etag is not None and request.previous is not None and request.previous.etag == script.etag:
            raise NotModified(f"{shorten(request.key)} is unchanged")
        steps, size = script.steps, script.size
        if request.offset:
            if request.validator != script.etag:
                raise FetchError(f"{shorten(request.key)} has changed: it cannot be continued at {request.offset}")
            steps = tuple(_after_bytes(steps, request.offset))
            size = None if size is None else size - request.offset
        if steps and _is_error(steps[0]):
            raise steps[0]
        return FetchResult(
            _ScriptedBody(self, request.key, steps), size=size, etag=script.etag, last_modified=script.last_modified,
            ttl=script.ttl, tags=script.tags, digest=script.digest, attributes=script.attributes,
            cacheable=script.cacheable,
        )  # fmt: skip

    def fetches(self, key: str | None = None) -> int:
        """How often `key` was fetched; without a key, all fetches."""
        with self._lock:
            return sum(key is None or r.key == key for r in self._requests)

    @property
    def requests(self) -> list[FetchRequest]:
        """Every request so far, in the order in which they came."""
        with self._lock:
            return list(self._requests)

    @property
    def open_bodies(self) -> int:
        """Bodies given out and not closed: 0 when whoever fetched is done."""
        with self._lock:
            return self._open_bodies

    def _count_open(self, by: int) -> None:
        with self._lock:
            self._open_bodies += by

    def __repr__(self) -> str:
        with self._lock:
            return f"<ScriptedOrigin of {counted(len(self._scripts), 'key')}, {counted(len(self._requests), 'fetch', 'fetches')}>"


class _ScriptedBody:
    """The body of one fetch: an iterator that must be closed."""

    def __init__(self, origin: ScriptedOrigin, key: str, steps: tuple[Any, ...]) -> None:
        self._origin = origin
        self._key = key
        self._steps = iter(steps)
        self._closed = False
        origin._count_open(1)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._closed:
            raise ValueError(f"the body of {shorten(self._key)} was read after it was closed")
        for step in self._steps:
            if _is_bytes(step):
                data: bytes = step
                return data
            if _is_error(step):
                raise step
            # An Event and a Gate say whether they were opened; a Barrier returns a number and raises when broken.
            if step.wait(*(() if isinstance(step, Gate) else (PATIENCE_SECONDS,))) is False:
                raise FetchError(f"the script of {shorten(self._key)} waited for a gate that nobody opened")
        raise StopIteration

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._origin._count_open(-1)


def _is_bytes(step: object) -> bool:
    return isinstance(step, bytes | bytearray | memoryview)


def _is_error(step: object) -> bool:
    return isinstance(step, BaseException) or (isinstance(step, type) and issubclass(step, BaseException))


def _first_bytes(steps: tuple[Any, ...], count: int) -> Iterator[Any]:
    """The steps up to byte `count`, cutting the one in which it lies."""
    for step in steps:
        if not _is_bytes(step):
            yield step
            continue
        if len(step) >= count:
            yield step[:count]
            return
        yield step
        count -= len(step)


def _after_bytes(steps: tuple[Any, ...], count: int) -> Iterator[Any]:
    """The steps without the first `count` bytes."""
    for step in steps:
        if not _is_bytes(step):
            yield step
        elif len(step) > count:
            yield step[count:]
            count = 0
        else:
            count -= len(step)
