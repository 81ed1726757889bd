"""The synchronous door: `Cache` checks arguments, asks the engine, and wraps what comes back.

Threads: one cache is used by any number of threads. Fork: a child goes on with the same tiers and no fills.
Design: docs/design/overview.md
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload

import msgspec

from daramjwee import observe
from daramjwee.buffers import AdaptiveBufferPool, BufferPool, BufferPoolConfig, MemoryLedger
from daramjwee.config import CacheConfig
from daramjwee.engine.arguments import (
    check_arguments,
    check_drain,
    check_open,
    check_prefix,
    check_refresh,
    check_size,
    compare_limits,
    folder_of,
    mark_in_use,
)
from daramjwee.engine.counters import CacheStats
from daramjwee.engine.execute import Engine
from daramjwee.engine.fetch import Ask
from daramjwee.engine.lifecycle import Drain, close_engine
from daramjwee.engine.whole import read_all
from daramjwee.engine.write import CacheWriter, put
from daramjwee.errors import CacheMiss, CorruptEntry, NotFound, shorten
from daramjwee.fills.body import metadata_of, result_of
from daramjwee.fills.stream import CacheStream
from daramjwee.model import SYSTEM_CLOCK, Body, Clock, Fetcher, FetchResult, Freshness, Status, check_key
from daramjwee.stores.protocol import Store
from daramjwee.units import Duration, Size, counted, format_size

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from daramjwee.stores.memory import HotEntry


class _Raise:
    """Stands for a default that was not given."""

    def __repr__(self) -> str:
        return "<raise>"


_Default = TypeVar("_Default")
_RAISE: Final[Any] = _Raise()
MOST_GET = "64MiB"


class Cache:
    """A cache of streams in ordered tiers, filled from an origin.

    `tiers`: at least one `Store`, fastest first; the cache closes them. `origin`: the fetcher of every key that
    an open gives none for. `freshness`: lifetimes; the default never expires. `buffers`: settings of the buffer
    pool, a pool to share (used, not closed, charged to its own ledger), or None for private buffers.
    `memory_limit`: bytes that buffers, memory tier and queues may hold together, 512 MiB; the memory tier lies
    inside of it, so a larger tier is never full. `workers`: threads for copies and renewals in the background.
    `clock`: for tests.

    Raises `ConfigError` listing every bad argument; nothing was opened then.
    """

    def __init__(
        self,
        *tiers: Store,
        origin: Fetcher | None = None,
        freshness: Freshness | None = None,
        buffers: BufferPoolConfig | BufferPool | None = BufferPoolConfig(),  # noqa: B008 - immutable
        memory_limit: Size = "512MiB",
        workers: int = 4,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        freshness = Freshness() if freshness is None else freshness
        limit = check_arguments(tiers, origin, freshness, buffers, memory_limit, workers)
        ledger = MemoryLedger(limit)
        self._owns_pool = not isinstance(buffers, BufferPool)
        if isinstance(buffers, BufferPool):
            self.buffers: BufferPool = buffers
        else:
            config = BufferPoolConfig(enabled=False) if buffers is None else buffers
            self.buffers = AdaptiveBufferPool(config, ledger=ledger, clock=clock)
        self._engine = Engine(
            tiers, origin=origin, freshness=freshness, pool=self.buffers, ledger=ledger, workers=workers, clock=clock
        )
        mark_in_use(tiers)
        compare_limits(tiers, limit)
        # The short way of a fresh hit in the top tier, taken by `get` without a lock or a stream.
        self._hot: Callable[[str], HotEntry | None] = getattr(tiers[0], "hot", None) or _nothing_hot
        self._monotonic = clock.monotonic
        self._counters = self._engine.counters
        self._dashboards: weakref.WeakSet[observe.Dashboard] = weakref.WeakSet()  # a closed one may go

    @classmethod
    def from_config(
        cls,
        source: str | os.PathLike[str] | Mapping[str, Any] | CacheConfig | None = None,
        *,
        origin: Fetcher | Mapping[str, Any] | str | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        **changes: Any,
    ) -> Self:
        """A cache as a configuration describes it: a TOML or JSON file, a mapping, a `CacheConfig`, or None for the file
        that `DARAMJWEE_CONFIG` names (or the defaults).

        `changes`: fields of `CacheConfig`; they win over the environment (`environ`, None: that of the process), which
        wins over `source`. `clock`: for tests. `origin`: a fetcher of the program's own, or what a configuration may say of one.
        Raises `ConfigError` listing every problem, and `StoreError` when a folder cannot be used. See docs/settings.md.
        """
        from daramjwee.config.load import load
        from daramjwee.engine.assemble import build_origin, build_stores

        made = origin if callable(origin) else None
        if origin is not None and made is None:
            changes["origin"] = origin
        config = load(source, environ=environ, changes=changes).config
        described = None if made is not None else config.origin
        fetcher = build_origin(config) if made is None else made
        stores = build_stores(config)
        try:
            cache = cls(
                *stores, origin=fetcher, freshness=config.freshness, buffers=config.buffers,
                memory_limit=config.memory_limit, workers=config.workers, clock=clock,
            )  # fmt: skip
        except BaseException:
            for store in stores:
                store.close()
            if made is None:
                _close_origin(fetcher)
            raise
        cache._engine.origin_config = described
        return cache

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        origin: Fetcher | Mapping[str, Any] | str | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        **changes: Any,
    ) -> Self:
        """A cache with the tiers that `url` names, such as "memory:256MiB;file:./cache?capacity=20GiB". `origin`, `environ`,
        `clock`, `changes`, and what it raises: as of `from_config`."""
        return cls.from_config({"tiers": url}, origin=origin, environ=environ, clock=clock, **changes)

    # -- reading -----------------------------------------------------------------------------------------

    def open(
        self,
        key: str,
        fetch: Fetcher | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        freshness: Freshness | None = None,
        timeout: Duration | None = None,
        on_orphan: Literal["finish", "abort"] | None = None,
        progress: Callable[[int, int | None], object] | None = None,
    ) -> CacheStream:
        """A stream of the bytes of `key`, from a tier, from a running fill, or from `fetch` (else the origin).

        `start`, `stop`: the bytes [start, stop) only; an empty stream where start >= stop, or start is past the end.
        `freshness`: for this open only. `timeout` (a duration): the longest wait for the origin's answer, and later for
        bytes; then `FetchError`. `on_orphan`: what becomes of a fill that this open starts when its last reader leaves,
        "finish" (default) or "abort". `progress(done, total)` is called as this stream is read, and while its `path`
        waits for the rest of the object.

        Raises `CacheMiss` without an origin, `NotFound` when the origin says so, `FetchError` when it fails.
        """
        engine = self._engine
        if type(key) is not str or not key.isascii() or not 0 < len(key) < 1024:
            check_key(key)
        if fetch is None:
            fetch = engine.origin
            known = True
        else:
            known = callable(fetch)
        frame = sys._getframe(1)
        opened_at = (frame.f_code.co_filename, frame.f_lineno)
        plain = start == 0 and stop is None and freshness is None and progress is None and timeout is None
        if plain and on_orphan is None and known:
            stream = engine.open_fresh(key, fetch, opened_at)
            if stream is not None:
                return stream
        seconds = check_open(
            fetch=fetch, start=start, stop=stop, freshness=freshness,
            timeout=timeout, on_orphan=on_orphan, progress=progress,
        )  # fmt: skip
        return engine.open(
            Ask(
                key,
                fetch,
                engine.freshness if freshness is None else freshness,
                start,
                stop,
                seconds,
                on_orphan != "abort",
                progress=progress,
                opened_at=opened_at,
            )
        )

    @overload
    def get(self, key: str, fetch: Fetcher | None = None, *, max_bytes: Size = MOST_GET) -> bytes: ...

    @overload
    def get(
        self, key: str, fetch: Fetcher | None = None, *, default: _Default, max_bytes: Size = MOST_GET
    ) -> bytes | _Default: ...

    def get(
        self, key: str, fetch: Fetcher | None = None, *, default: Any = _RAISE, max_bytes: Size = MOST_GET
    ) -> bytes | Any:
        """All bytes of `key`, from a tier, or from `fetch` (else the origin). `default` is returned instead of raising
        `CacheMiss` or `NotFound`.

        Raises as `open`, and `LimitExceeded` for an object larger than `max_bytes` (64 MiB): use `open` for it.
        """
        hot = self._hot(key)
        if hot is not None and self._monotonic() < hot.until and max_bytes is MOST_GET:
            hot.visited = True
            self._counters.hot += 1
            return hot.whole  # armed only where there is one
        return self._get(key, fetch, default, max_bytes)

    def _get(self, key: str, fetch: Fetcher | None, default: Any, max_bytes: Size) -> Any:
        limit = check_size("max_bytes", max_bytes)
        hot = self._hot(check_key(key))
        if hot is not None:
            self._engine.arm(hot)
        tries = ATTEMPTS
        while True:
            tries -= 1
            try:
                with self.open(key, fetch) as stream:
                    return read_all(stream, limit)
            except CorruptEntry:
                # Nothing was given to the caller yet, and the store has dropped the entry: begin anew.
                if not tries:
                    raise
            except (CacheMiss, NotFound):
                if default is _RAISE:
                    raise
                return default

    # -- writing -----------------------------------------------------------------------------------------

    def set(
        self,
        key: str,
        data: Body,
        *,
        size: int | None = None,
        etag: str | None = None,
        last_modified: str | None = None,
        ttl: Duration | None = None,
        digest: str | None = None,
        tags: Iterable[str] = (),
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Keep `data` (bytes, a readable, or an iterable of bytes) under `key`, replacing what it had.

        `bytes` are kept without a copy. When `data` itself fails while it is read, the key stays as it was. A
        fill of the key that runs goes on for its readers, and does not replace this. `size` and `digest` are
        checked where given; `etag`, `last_modified`, `ttl` (a duration), `tags`, `attributes`: as of `FetchResult`. Raises `ConfigError` for what is no body or has another size, `CorruptEntry` for another
        digest, `LimitExceeded` when no tier can hold it, `StoreError` when none works.
        """
        result = FetchResult(
            data,
            size=size,
            etag=etag,
            last_modified=last_modified,
            ttl=ttl,
            digest=digest,
            tags=tags,  # type: ignore[arg-type]  # made a tuple when it is checked, with the rest
            attributes={} if attributes is None else attributes,
        )
        put(self._engine, check_key(key), result)

    def writer(
        self,
        key: str,
        *,
        size: int | None = None,
        etag: str | None = None,
        last_modified: str | None = None,
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
        attributes: Mapping[str, str] | None = None,
    ) -> CacheWriter:
        """A writer for `key`, for use in a `with` block: leaving it publishes, an exception inside does not.

        `size`: bytes there will be, checked at the end; `etag`, `last_modified`, `ttl` (a duration), `tags`, `attributes`:
        as of `FetchResult`. Raises `ConfigError` for what is wrong with them.
        """
        result = FetchResult(
            b"",
            size=size,
            etag=etag,
            last_modified=last_modified,
            ttl=ttl,
            tags=tags,  # type: ignore[arg-type]  # made a tuple when it is checked, with the rest
            attributes={} if attributes is None else attributes,
        )
        subject = f"writer of {shorten(check_key(key))}"
        metadata = metadata_of(result_of(result), self._engine.clock.now(), subject=subject)
        self._engine.check_open()
        return CacheWriter(self._engine, key, msgspec.structs.replace(metadata, size=size))

    def delete(self, key: str) -> bool:
        """Forget `key` in every tier; True if one had it. Older fills never bring it back.

        `StoreError` when a tier could not, after all were tried: the key may still be there.
        """
        return self._engine.delete(check_key(key))

    def refresh(self, key: str, fetch: Fetcher | None = None, *, timeout: Duration | None = None) -> Status:
        """Ask the origin (or `fetch`) for `key` now, whatever the tiers have, and wait until that is done.

        MISS: new bytes were kept. REVALIDATED: it is unchanged. BYPASS: it may not be kept. Until then readers
        get what is there. `timeout`: the longest wait for its answer, then for bytes (a duration). Raises as `open`:
        `CacheMiss`, `NotFound`, `FetchError`.
        """
        engine = self._engine
        seconds = check_refresh(fetch, timeout)
        fetcher = engine.origin if fetch is None else fetch
        if fetcher is None:
            raise CacheMiss(check_key(key), "refresh needs fetch=, or an origin of the Cache")
        return engine.refresh(Ask(check_key(key), fetcher, engine.freshness, timeout=seconds))

    # -- asking ------------------------------------------------------------------------------------------

    def __contains__(self, key: object) -> bool:
        """Whether an open without an origin would find the key now."""
        return isinstance(key, str) and bool(key) and self._engine.contains(check_key(key))

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Keys that start with `prefix` and can be read now, in no order."""
        check_prefix(prefix)
        return self._engine.keys(prefix)

    def stats(self) -> CacheStats:
        """A frozen snapshot of what was counted and what is held."""
        return self._engine.stats()

    @property
    def config(self) -> CacheConfig:
        """The settings that hold now. Tiers and an origin that a program made itself are named there, and no more."""
        from daramjwee.engine.assemble import settings_of

        return settings_of(self._engine)

    def reconfigure(self, **changes: Any) -> CacheConfig:
        """Change settings while the cache is in use, all of them or none; the configuration that holds then.

        `changes`: fields of `CacheConfig`, or dotted names of single ones (`**{"tiers[0].capacity": "1GiB"}`). A mapping for
        `freshness` or `buffers` changes those fields of it. Of `tiers` (all of them, in their order) `capacity`,
        `max_entries` and `max_object_size` can change; entries beyond a new limit leave at once. What is running goes on
        under the settings it began with.
        Raises `ConfigError` that lists every problem, also each field that needs a new cache; nothing is changed then. Not for
        a signal handler: what it interrupts may hold a lock that this needs. In a log handler it is `Overloaded` while another
        change is being made, as that may wait for the handler.
        """
        from daramjwee.engine.reconfigure import reconfigure

        return reconfigure(self._engine, changes, owns_pool=self._owns_pool)

    def offer_dashboard(self, path: str | os.PathLike[str] | None = None) -> observe.Dashboard:
        """Offer what this cache and its pool tell of themselves on a private Unix socket, for `daramjwee stats`, until
        the dashboard or the cache is closed.

        `path`: a folder, or the path of the socket in one that others cannot write to; None: the folder of the first
        file tier. `ConfigError` when it cannot be there. See docs/monitoring.md.
        """
        self._engine.check_open()
        place = folder_of(self._engine.tiers) if path is None else path
        dashboard = observe.offer_dashboard(self.buffers, place, cache=self, clock=self._engine.clock)
        self._dashboards.add(dashboard)
        if self._engine.closed:  # meanwhile
            dashboard.close()
            self._engine.check_open()
        return dashboard

    # -- the end -----------------------------------------------------------------------------------------

    def close(self, drain: Drain = Drain.FINISH) -> None:
        """End all work, as `drain` says (see `Drain`), and close the tiers. The second time does nothing. `ConfigError` for what
        is no `Drain`: nothing is closed then."""
        check_drain(drain)
        for dashboard in list(self._dashboards):
            dashboard.close()
        if not close_engine(self._engine, drain):
            return
        self._hot = _nothing_hot
        if self._owns_pool:
            self.buffers.close()
        if self._engine.origin_config is not None:  # nobody else could
            _close_origin(self._engine.origin)
        self._engine.over = True  # last: after an interrupt before it, the next close goes on

    def __enter__(self) -> Self:
        self._engine.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(Drain.FINISH if kind is None else Drain.ABORT)

    def __reduce__(self) -> tuple[Callable[..., Cache], tuple[type[Cache], dict[str, Any], Fetcher | None]]:
        """Another process gets a cache of its own, by the same configuration; entries go along in file tiers only. An
        origin that the program made is handed over as it is."""
        from daramjwee.engine.assemble import given_parts, settings_of

        self._engine.check_open()
        config = settings_of(self._engine)
        given = given_parts(self._engine, config, owns_pool=self._owns_pool)
        if given:
            raise TypeError(
                f"this Cache cannot be pickled: {', '.join(given)} cannot be made again from a configuration; make it "
                "with Cache.from_config or Cache.from_url, or make one in each process, over the same folder"
            )
        made = self._engine.origin if self._engine.origin_config is None else None
        return _reopen, (type(self), config.to_mapping(), made)

    def __repr__(self) -> str:
        engine = self._engine
        tiers = " > ".join(tier.name for tier in engine.tiers)
        used, limit = format_size(engine.ledger.held), format_size(engine.ledger.limit)
        state = "closed" if engine.closed else "open"
        return f"<Cache {state}, {tiers}, {counted(len(engine.flights), 'flight')}, memory {used} of {limit}>"


# A damaged entry is dropped when it is seen, in one tier after the other.
ATTEMPTS = 4


def _nothing_hot(key: str) -> None:
    """No tier that could answer at once."""


def _close_origin(origin: Fetcher | None) -> None:
    """Let go of the connections that an origin keeps, if it does."""
    close = getattr(origin, "close", None)
    if close is not None:
        close()


def _reopen(kind: type[Cache], mapping: dict[str, Any], origin: Fetcher | None) -> Cache:
    """A cache in the process that a pickled one was handed to. Its environment has no say: the cache was made already."""
    return kind.from_config(mapping, environ={}, origin=origin)
