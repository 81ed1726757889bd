"""The engine: carries out what the plan says of an open; deletes and refreshes. All the IO, none of the choices.

Invariant: an entry that was found is closed here or by the stream that reads from it, whatever happens.
Threads: any; it has no lock of its own (see `fetch` and `fence`).
"""

from __future__ import annotations

import io
import logging
import math
import threading
from typing import TYPE_CHECKING, Any

from daramjwee.engine.counters import Counters
from daramjwee.engine.fetch import Ask, Flights
from daramjwee.engine.freshness import Verdict, age_of, judge, lifetime_of
from daramjwee.engine.lifecycle import register
from daramjwee.engine.plan import Act, Seen, plan_open, plan_promotion
from daramjwee.engine.tiers import Tiers
from daramjwee.errors import (
    CacheMiss,
    Closed,
    CorruptEntry,
    DaramjweeError,
    FetchError,
    LimitExceeded,
    NotFound,
    StoreError,
    shorten,
)
from daramjwee.fills.flight import GoAlone, LookAgain
from daramjwee.fills.stream import CacheStream
from daramjwee.model import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daramjwee.buffers import BufferPool, MemoryLedger
    from daramjwee.config import CacheConfig
    from daramjwee.engine.counters import CacheStats
    from daramjwee.engine.tiers import Found, Tier
    from daramjwee.fills.flight import Flight
    from daramjwee.fills.reader import FlightReader
    from daramjwee.fills.stream import Source
    from daramjwee.model import Clock, Fetcher, FetchResult, Freshness, Metadata
    from daramjwee.stores.memory import HotEntry, MemoryStore
    from daramjwee.stores.protocol import Entry, Store

logger = logging.getLogger(__name__)

# Looked up once: an enum's member is found through its metaclass each time.
_FRESH, _HIT = Verdict.FRESH, Status.HIT


class Engine:
    """Tiers, flights and counters of one cache; both doors talk to it."""

    def __init__(
        self,
        stores: Sequence[Store],
        *,
        origin: Fetcher | None,
        freshness: Freshness,
        pool: BufferPool,
        ledger: MemoryLedger,
        workers: int,
        clock: Clock,
    ) -> None:
        self.counters = Counters(len(stores))
        self.tiers = Tiers(stores, observer=self.counters)
        self.origin = origin
        self.freshness = freshness
        self.pool = pool
        self.ledger = ledger
        self.clock = clock
        self.closed = False
        self.closing = threading.Lock()
        self.over = False  # all that a close does is done
        self.origin_config: Any = None  # what the origin was made from, where it was made from a configuration
        self.settings_lock = threading.RLock()  # held while settings change; who asks for them waits for nobody
        self.settings_before: CacheConfig | None = None  # what held before the change that is being made
        self.changes = 0  # begun
        self._open_top = stores[0].open
        self.flights = Flights(self.tiers, pool=pool, counters=self.counters, clock=clock, workers=workers)
        self.tiers.attach(ledger=ledger, clock=clock)
        register(self)

    def after_fork(self) -> None:
        """In a child: no flight and no thread came along, and locks may be held by threads that are not here."""
        self.flights.reset()
        self.counters.reset_lock()
        self.settings_lock = threading.RLock()
        self.closing = threading.Lock()
        self.settings_before = None

    def check_open(self) -> None:
        if self.closed:
            raise Closed("the cache is closed; make a new one")

    # -- opening -----------------------------------------------------------------------------------------

    def open_fresh(self, key: str, fetch: Fetcher | None, opened_at: tuple[str, int]) -> CacheStream | None:
        """The short way of an open: a fresh entry of the top tier, whole. None: take the long way, which looks again
        and knows why."""
        try:
            entry = self._open_top(key)
        except (StoreError, Closed):
            return None
        if entry is None or self.closed:
            return None
        metadata = entry.metadata
        freshness = self.freshness
        life = freshness.fresh if metadata.ttl is None else metadata.ttl
        if metadata.negative or (life is not None and judge(metadata, freshness, self.clock.now()) is not _FRESH):
            entry.close()
            return None
        self.counters.hot += 1
        return CacheStream(entry, key, _HIT, metadata, self, fetch, opened_at)

    def arm(self, hot: HotEntry) -> None:
        """Judge an entry that `get` may find by one dict look-up, and let it be given so as long as it is fresh."""
        metadata, clock, freshness = hot.metadata, self.clock, self.freshness
        if hot.whole is None or judge(metadata, freshness, clock.now()) is not _FRESH:
            return
        life, age = lifetime_of(metadata, freshness), age_of(metadata, clock.now())
        left = math.inf if life is None else life - (age or 0.0)
        top: MemoryStore = self.tiers[0].store  # type: ignore[assignment]  # only it has hot entries
        top.arm(hot, metadata, clock.monotonic() + left, guard=lambda: self.freshness is freshness)

    def refresh_rules(self, freshness: Freshness) -> None:
        """Judge by `freshness` from now on, also what was judged before."""
        self.freshness = freshness
        disarm = getattr(self.tiers[0].store, "disarm", None)
        if disarm is not None:
            disarm()

    def open(self, ask: Ask) -> CacheStream:
        """A stream for one ask. Goes round again whenever what it saw was changed by somebody else."""
        while True:
            self.check_open()
            found = self.tiers.find(ask.key)
            stream = None
            try:
                stream = self._answer(ask, found)
            except Exception:
                raise
            except BaseException:
                self.flights.abandon(ask.key)
                raise
            finally:
                if found.entry is not None and (stream is None or not stream.reads_from(found.entry)):
                    found.entry.close()
            if stream is not None:
                return stream

    def _answer(self, ask: Ask, found: Found) -> CacheStream | None:
        """The stream, or None: look again."""
        entry = found.entry
        seen = None if entry is None else Seen(found.tier, entry.metadata)
        has_origin = ask.fetch is not None
        plan = plan_open(seen, ask.freshness, now=self.clock.now(), has_origin=has_origin, reason=found.reason)
        if plan.act is Act.NEGATIVE:
            self.counters.negative += 1
            raise NotFound(f"the origin said that {shorten(ask.key)} does not exist (remembered)")
        if plan.act is Act.MISS:
            self.counters.missed(plan.reason, ask.key)
            raise CacheMiss(ask.key)
        if plan.act is Act.FETCH or entry is None:
            try:
                return self._fetch(ask, entry if plan.conditional else None, plan.reason)
            except FetchError as error:
                if not plan.on_error or entry is None:
                    raise
                logger.warning("serving a stale copy of %s, since its origin failed: %s", shorten(ask.key), error)
            self.counters.stale += 1
            return self._stream(ask, entry, Status.STALE, entry.metadata)
        if plan.act is Act.SERVE_STALE:
            self.counters.stale += 1
            self._renew_later(ask)
            return self._stream(ask, entry, Status.STALE, entry.metadata)
        self.counters.hits += 1
        self.counters.tier_hits[found.tier] += 1
        target = None
        if found.tier:
            target = plan_promotion(self.tiers.rooms, found.tier, entry.metadata, self.pool.pressure)
        promoted = None if target is None else self._promote(ask, found.tier, target, entry.metadata)
        return promoted or self._stream(ask, entry, Status.HIT, entry.metadata)

    def _stream(self, ask: Ask, source: Source, status: Status, metadata: Metadata) -> CacheStream:
        return CacheStream(
            source,
            ask.key,
            status,
            metadata,
            owner=self,
            fetch=ask.fetch,
            start=ask.start,
            stop=ask.stop,
            progress=ask.progress,
            opened_at=ask.opened_at,
        )

    def _promote(self, ask: Ask, tier: int, target: int, metadata: Metadata) -> CacheStream | None:
        """Stream the entry while it fills tier `target`; None when that is not to be had: serve it as it is."""
        boarded = self.flights.board(ask, reader=False)
        if boarded.claim is None:
            return None
        reader = boarded.flight.join(ask.start, timeout=ask.timeout)
        if reader is None:
            raise AssertionError("a flight that was not started yet refused a reader")
        try:
            self.flights.start_promotion(ask, boarded, self.tiers[tier], self.tiers[target], metadata)
        except LookAgain:
            reader.close()
            return None
        except DaramjweeError as error:
            reader.close()
            self.tiers.trouble("promotion_failed", ask.key, self.tiers[target], error)
            return None
        except BaseException:
            reader.close()
            raise
        return self._stream(ask, reader, Status.HIT, metadata)

    def _fetch(self, ask: Ask, held: Entry | None, reason: str) -> CacheStream | None:
        """Join the running fill of the key, or start it. `held` is the stale copy. None: look again."""
        boarded = self.flights.board(ask)
        reader = boarded.reader
        if boarded.claim is None:
            if reader is not None:
                return self._join(ask, boarded.flight, reader)
            # Over already, or bytes that this caller wants have left its window.
            return None if boarded.flight.over else self._fetch_alone(ask, None)
        if reader is None:
            raise AssertionError("a new flight refused its starter")
        self.counters.missed(reason, ask.key)
        try:
            begun = self.flights.start(ask, boarded)
        except BaseException:
            reader.close()
            raise
        if begun is None:
            metadata = boarded.flight.metadata
            if metadata is None:
                raise AssertionError("a started flight has no metadata")
            return self._stream(ask, reader, Status.MISS, metadata)
        reader.close()
        if begun.alone is not None:
            return self._fetch_alone(ask, begun.alone)
        if begun.renewed is not None and held is not None and held.metadata == begun.previous:
            self.counters.revalidated += 1
            return self._stream(ask, held, Status.REVALIDATED, begun.renewed)
        return None

    def _join(self, ask: Ask, flight: Flight, reader: FlightReader) -> CacheStream | None:
        try:
            metadata = reader.wait_started()
        except LookAgain:
            reader.close()
            return None
        except GoAlone:
            reader.close()
            return self._fetch_alone(ask, None)
        except BaseException:
            reader.close()
            raise
        self.counters.joined += 1
        return self._stream(ask, reader, Status.JOINED, metadata)

    def _fetch_alone(self, ask: Ask, result: FetchResult | None) -> CacheStream:
        """Past the tiers, for this caller only."""
        self.counters.bypassed += 1
        boarded = self.flights.private(ask)
        reader, flight = boarded.reader, boarded.flight
        if reader is None:
            raise AssertionError("a new flight refused its starter")
        try:
            self.flights.start_alone(ask, boarded, result)
        except BaseException:
            reader.close()
            raise
        if flight.metadata is None:
            raise AssertionError("a started flight has no metadata")
        return self._stream(ask, reader, Status.BYPASS, flight.metadata)

    def _renew_later(self, ask: Ask) -> None:
        """Fetch in the background, unless somebody does already. The copy at hand is served meanwhile."""
        boarded = self.flights.board(ask, reader=False)
        if boarded.claim is None:
            return
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("stale: %s is served, and renewed in the background", shorten(ask.key))

        def renew() -> None:
            try:
                begun = self.flights.start(ask._replace(timeout=None), boarded)
                if begun is not None and begun.alone is not None:
                    self.flights.discard(begun.alone)
            except DaramjweeError as error:
                logger.warning("renewing %s failed: %s", shorten(ask.key), error)

        if not self.flights.workers.submit(renew):
            boarded.flight.abort(FetchError(f"no worker was free to renew {shorten(ask.key)}"))

    # -- changes -----------------------------------------------------------------------------------------

    def refresh(self, ask: Ask) -> Status:
        """Ask the origin now, whatever the tiers have; wait for the outcome."""
        while True:
            self.check_open()
            reader = None
            try:
                boarded = self.flights.supersede(ask)
                reader = boarded.reader
                if reader is None:
                    raise AssertionError("a new flight refused its starter")
                begun = self.flights.start(ask._replace(reuse=False), boarded)
                if begun is None:
                    try:
                        reader.wait_entry()
                    except io.UnsupportedOperation:
                        self.counters.bypassed += 1
                        return Status.BYPASS  # no tier has room for it
                    return Status.MISS
            except BaseException:
                self.flights.abandon(ask.key)  # if it was interrupted before it began
                raise
            finally:
                if reader is not None:
                    reader.close()
            if begun.alone is not None:
                self.counters.bypassed += 1
                self.flights.discard(begun.alone)
                return Status.BYPASS
            if begun.renewed is not None:
                self.counters.revalidated += 1
                return Status.REVALIDATED
            # Whoever was asking on our behalf was interrupted: ask again.

    def delete(self, key: str) -> bool:
        """Forget the key everywhere; a fill of it that runs goes on for its readers and publishes nothing."""
        self.check_open()
        claim = self.flights.change(key)
        try:
            return self.tiers.delete(key, guard=claim.is_current, strict=True)
        finally:
            self.flights.fence.release(claim)

    # -- asked by streams ----------------------------------------------------------------------------------

    def mend(
        self, key: str, offset: int, given: Metadata | None, fetch: Fetcher | None, error: StoreError
    ) -> tuple[Source, Metadata] | None:
        """See `fills.stream.Owner`. Once bytes were given only the same object may follow, which a strong
        validator has to prove. A damaged entry is gone from its tier; past a tier that fails otherwise the way
        leads to the origin only."""
        if given is not None and given.strong_validator is None:
            return None
        ask = Ask(key, fetch, self.freshness, start=offset)
        try:
            if isinstance(error, CorruptEntry):
                stream = self.open(ask)
            elif fetch is not None:
                stream = self._fetch_alone(ask, None)
            else:
                return None
        except (CacheMiss, NotFound):
            return None
        if given is not None and stream.metadata.strong_validator != given.strong_validator:
            stream.close()
            return None
        return stream.give_away()

    def locate(self, key: str) -> Entry | None:
        """See `fills.stream.Owner`. A copy that is still on its way to a tier with files is brought there first."""
        found = self.tiers.find(key)
        if found.entry is None:
            return None
        found.entry.close()
        for tier in self.tiers:
            if getattr(tier.store, "plain_files", False):
                entry = tier.store.open(key)
                return entry if entry is not None else self._bring(key, found.tier, tier)
        return None

    def _bring(self, key: str, source: int, target: Tier) -> Entry | None:
        claim = self.flights.fence.claim(key)
        try:
            self.tiers.transfer(key, self.tiers[source], target, guard=claim.is_current, pool=self.pool)
        except (StoreError, LimitExceeded) as error:
            self.tiers.trouble("copy_failed", key, target, error)
        finally:
            self.flights.fence.release(claim)
        return target.store.open(key)

    # -- asked by programs ---------------------------------------------------------------------------------

    def contains(self, key: str) -> bool:
        """Whether an open without an origin would be answered."""
        self.check_open()
        for tier in self.tiers:
            metadata = tier.store.stat(key)
            if metadata is not None:
                verdict = judge(metadata, self.freshness, self.clock.now())
                return not metadata.negative and verdict in (Verdict.FRESH, Verdict.STALE)
        return False

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys of all tiers that an open without an origin would find, each once."""
        self.check_open()
        seen: set[str] = set()
        for tier in self.tiers:
            for key in tier.store.keys(prefix):
                if key not in seen and self.contains(key):
                    seen.add(key)
                    yield key

    def stats(self) -> CacheStats:
        self.check_open()
        self.flights.see_to_forsaken()
        return self.counters.snapshot(self.tiers, self.ledger, flights=len(self.flights))
