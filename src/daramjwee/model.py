"""Values that rooms hand each other: metadata, requests and results of a fetch, freshness, status.

Invariant: everything here is immutable and free of IO. Times named `*_at` are wall-clock seconds since the
epoch; durations are seconds.
Threads: any.
"""

from __future__ import annotations

import enum
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec

from daramjwee.errors import ConfigError, Problem
from daramjwee.units import MIB, parse_duration

if sys.version_info >= (3, 12):
    from collections.abc import Buffer
else:
    from typing_extensions import Buffer  # msgspec has imported it already

if TYPE_CHECKING:
    from daramjwee.units import Duration

LONGEST_KEY = 1024 * 1024
# The least `memory_limit` of a cache: below it buffers have no room to move bytes.
LEAST_MEMORY = 4 * MIB
# The most threads that a cache may be told to have in the background.
MOST_WORKERS = 1024


class SupportsRead(Protocol):
    """Anything with `read(n) -> bytes`, at most n of them, none at the end."""

    def read(self, n: int, /) -> bytes: ...


class Status(enum.Enum):
    """How an open was answered.

    HIT: from a tier, fresh. STALE: from a tier, past its lifetime but still allowed. JOINED: from a fill that
    was running already. MISS: from the origin, filling the tiers. REVALIDATED: from a tier, after the origin
    said it is unchanged. BYPASS: from the origin, past the tiers. NEGATIVE: known not to exist.
    """

    HIT = "hit"
    STALE = "stale"
    JOINED = "joined"
    MISS = "miss"
    REVALIDATED = "revalidated"
    BYPASS = "bypass"
    NEGATIVE = "negative"


class Metadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one object besides its bytes.

    `size`: bytes, None while unknown (never None on an `Entry`). `stored_at`: when the origin last confirmed
    it, in seconds since the epoch. `ttl`: its own lifetime in seconds, else the cache's `Freshness` counts. `etag`,
    `last_modified`: validators, as the origin wrote them. `digest`: "sha256:<hex>", any hashlib name. `tags`: what
    it can be invalidated by; `attributes`: what a program keeps with it. `negative`: the origin said that the key does
    not exist; such an entry has no bytes.
    """

    size: int | None = None
    stored_at: float = 0.0
    etag: str | None = None
    last_modified: str | None = None
    ttl: float | None = None
    digest: str | None = None
    tags: tuple[str, ...] = ()
    attributes: dict[str, str] = {}
    negative: bool = False

    @property
    def strong_validator(self) -> str | None:
        """Text that is equal for two fetches only if their bytes are: a digest or a strong ETag."""
        if self.digest is not None:
            return self.digest
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return None


class FetchRequest(msgspec.Struct, frozen=True):
    """What a fetcher is asked for.

    `key`: of what. `previous`: metadata of the stale copy at hand; raise `NotModified` to keep it. `offset`: first byte
    wanted, above 0 only to go on with an object whose `validator` (a strong ETag) must still match.
    """

    key: str
    previous: Metadata | None = None
    offset: int = 0
    validator: str | None = None


class _HasBody(msgspec.Struct):
    body: Any


class FetchResult(_HasBody, kw_only=True):
    """What a fetcher gives back: a body, and what the origin says of it.

    `body`: a buffer, something with `read(n)` (`readinto1`, `readinto`, `read1` are used where there are),
    or an iterable of buffers; it is read by one thread at a time, not always the one that called the fetcher, and
    closed when it has `close`. `size`: bytes the body must have; more or
    fewer is a `FetchError`. `digest`: "sha256:<hex>", checked likewise. `ttl`: lifetime (a duration). `etag`,
    `last_modified`: validators, as the origin wrote them. `tags`: what it can be invalidated by; `attributes`: what
    is kept with it, text by name. `cacheable=False`: stream it to this caller only and keep nothing.
    """

    size: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    ttl: Any = None
    digest: str | None = None
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, str] = msgspec.field(default_factory=dict)
    cacheable: bool = True


# What a fetcher may return as the bytes of an object, and a fetcher itself.
Body: TypeAlias = Buffer | SupportsRead | Iterable[Buffer]
Fetcher: TypeAlias = Callable[[FetchRequest], FetchResult | Body]


class Freshness:
    """How long an entry may be served, each a duration or None.

    `fresh`: lifetime without asking the origin; None never expires. `stale_while_revalidate`: after that,
    served at once while a background fetch renews it. `stale_if_error`: served when the origin fails; both count
    from the end of `fresh`.
    `negative`: how long a `NotFound` is remembered; None does not remember it. An object's own ttl replaces
    `fresh`. `ConfigError` lists every field that is not a duration.
    """

    __slots__ = ("fresh", "negative", "stale_if_error", "stale_while_revalidate")

    fresh: float | None
    stale_while_revalidate: float | None
    stale_if_error: float | None
    negative: float | None

    def __init__(
        self,
        fresh: Duration | None = None,
        stale_while_revalidate: Duration | None = None,
        stale_if_error: Duration | None = None,
        negative: Duration | None = None,
    ) -> None:
        problems = []
        for field, value in (
            ("fresh", fresh),
            ("stale_while_revalidate", stale_while_revalidate),
            ("stale_if_error", stale_if_error),
            ("negative", negative),
        ):
            try:
                seconds = None if value is None else parse_duration(value)
            except ValueError as error:
                problems.append(Problem(field, value, f"{error}, or None"))
            else:
                object.__setattr__(self, field, seconds)
        if problems:
            raise ConfigError(problems, subject="Freshness")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Freshness is immutable: make a new one to change {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Freshness is immutable: make a new one to change {name}")

    def _values(self) -> tuple[float | None, ...]:
        return (self.fresh, self.stale_while_revalidate, self.stale_if_error, self.negative)

    def __reduce__(self) -> tuple[type[Freshness], tuple[float | None, ...]]:
        return (Freshness, self._values())

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Freshness) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        names = ("fresh", "stale_while_revalidate", "stale_if_error", "negative")
        given = ", ".join(f"{n}={v:g}s" for n, v in zip(names, self._values(), strict=True) if v is not None)
        return f"Freshness({given})"


class Event(NamedTuple):
    """One thing that happened, for counters and logs. `kind` is a stable word such as "corrupt"; `key` and `tier` say with
    what and where, if with one; `detail`: more of it in words."""

    kind: str
    key: str | None = None
    tier: str | None = None
    detail: str = ""


@runtime_checkable
class Observer(Protocol):
    """Where a room sends its news. Called outside of locks; an exception it raises is counted, never passed on."""

    def notice(self, event: Event) -> None:
        """Take note of `event`, at once."""
        ...


class Clock(Protocol):
    """Time, handed in so that tests can move it. Both in seconds."""

    def now(self) -> float:
        """Wall-clock time since the epoch; may jump."""
        ...

    def monotonic(self) -> float:
        """Never goes back; its zero means nothing."""
        ...


class _SystemClock:
    # Builtins as they are: a Python frame around them would cost more than a dict lookup on every hit.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    def __repr__(self) -> str:
        return "SYSTEM_CLOCK"


class _NullObserver:
    def notice(self, event: Event) -> None:
        """Drop the event."""


SYSTEM_CLOCK: Clock = _SystemClock()
NULL_OBSERVER: Observer = _NullObserver()


def check_key(key: str) -> str:
    """The key itself, if it may be one: text, not empty, encodable as UTF-8, at most 1 MiB of it."""
    if not isinstance(key, str):
        mend = f"must be str, not {type(key).__name__}"
        if isinstance(key, bytes | bytearray | memoryview):
            mend += "; decode it first"
        raise ConfigError([Problem("key", key, mend)], subject="key")
    if not key:
        raise ConfigError([Problem("key", key, "must not be empty")], subject="key")
    try:
        length = len(key) if key.isascii() else len(key.encode("utf-8"))
    except UnicodeEncodeError as error:
        mend = f"has a lone surrogate at position {error.start}; decode the text properly first"
        raise ConfigError([Problem("key", key[:80], mend)], subject="key") from None
    if length > LONGEST_KEY:
        mend = f"is {length:,} bytes long, the limit is {LONGEST_KEY:,}; use a digest of it as the key"
        raise ConfigError([Problem("key", key[:40] + "...", mend)], subject="key")
    return key
