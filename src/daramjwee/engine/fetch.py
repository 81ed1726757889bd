"""Fetching: the table of running flights, and what is asked of the origin on their behalf.

Invariant: at most one flight per key in the table. A flight leaves it after it has published and before any of
its readers sees the end.
Threads: any. The lock guards the table and is held for dictionary work only; order of locks: this one, then a
flight's or the fence's, then a store's or the ledger's (docs/design/concurrency.md).
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from daramjwee.engine.background import Workers
from daramjwee.engine.fence import Fence
from daramjwee.engine.freshness import Verdict, judge
from daramjwee.errors import Closed, DaramjweeError, FetchError, FillAborted, NotFound, NotModified, StoreError, shorten
from daramjwee.fills.body import EntryBody, metadata_of, open_body, result_of
from daramjwee.fills.crowd import see_to
from daramjwee.fills.flight import Flight, GoAlone, LookAgain
from daramjwee.fills.intake import Fill
from daramjwee.model import Event, FetchRequest, Metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from daramjwee.buffers import BufferPool
    from daramjwee.engine.counters import Counters
    from daramjwee.engine.fence import Claim
    from daramjwee.engine.tiers import Tier, Tiers
    from daramjwee.fills.reader import FlightReader
    from daramjwee.model import Clock, Fetcher, FetchResult, Freshness

# Fillers are threads that mostly wait for an origin. Beyond so many, readers pump for themselves.
MOST_FILLERS = 64
# Copies to lower tiers that may wait for a worker; one more is dropped and counted.
BACKGROUND_QUEUE = 1024


# How a fill may end without bytes though its origin did nothing wrong.
NO_FAULT = (NotFound, LookAgain, GoAlone, FillAborted, Closed)


class Ask(NamedTuple):
    """The arguments of one open, checked."""

    key: str
    fetch: Fetcher | None
    freshness: Freshness
    start: int = 0
    stop: int | None = None
    timeout: float | None = None
    keep_orphan: bool = True
    reuse: bool = True  # False: ask the origin whatever the tiers have
    progress: Callable[[int, int | None], object] | None = None
    opened_at: tuple[str, int] | None = None


class Boarded(NamedTuple):
    """A flight and one reader on it; `claim` is there for the one that has to start it."""

    flight: Flight
    reader: FlightReader | None
    claim: Claim | None


class Begun:
    """What came of asking the origin when it was not a body to share."""

    __slots__ = ("alone", "left", "previous", "renewed")

    def __init__(self) -> None:
        self.previous: Metadata | None = None  # of the copy that the origin was told of
        self.left = False  # whoever asked has gone
        self.alone: FetchResult | None = None  # not cacheable: for the starter only
        self.renewed: Metadata | None = None  # not modified: that copy is fresh again


class Flights:
    """All running fills of one cache."""

    def __init__(self, tiers: Tiers, *, pool: BufferPool, counters: Counters, clock: Clock, workers: int) -> None:
        self._tiers = tiers
        self._pool = pool
        self._counters = counters
        self._clock = clock
        self._workers_limit = workers
        self.reset()

    def resize_workers(self, limit: int) -> None:
        """Have at most `limit` threads for work in the background, in forked children, too."""
        self._workers_limit = limit
        self.workers.resize(limit)

    def reset(self) -> None:
        """Begin with no flights and no threads: at first, and in a forked child, where neither came along."""
        self._lock = threading.Lock()
        self._table: dict[str, Flight] = {}
        self._apart: set[Flight] = set()  # running, but no longer (or never) to be joined
        self._forsaken: deque[Flight] = deque()  # that lost a reader; finalizers append here
        self.fence = Fence()
        self.workers = Workers("work", limit=self._workers_limit, queue=BACKGROUND_QUEUE)
        self.fillers = Workers("fill", limit=MOST_FILLERS, queue=0)

    def __len__(self) -> int:
        return len(self._table) + len(self._apart)

    def running(self) -> list[Flight]:
        self.see_to_forsaken()
        with self._lock:
            return [*self._table.values(), *self._apart]

    def board(self, ask: Ask, *, reader: bool = True) -> Boarded:
        """Join the running flight of the key, or enter a new one. `Boarded.reader` is None when it is too late to
        read along from there (or none was wanted)."""
        self.see_to_forsaken()
        with self._lock:
            flight = self._table.get(ask.key)
            if flight is not None and flight.promotes and reader:
                # The copy that is carried up is not what this caller may have: it asks the origin, past it.
                self._set_apart_locked(ask.key)
                return self._enter_locked(ask, self.fence.advance(ask.key), reader=True)
            if flight is not None:
                return Boarded(flight, flight.join(ask.start, timeout=ask.timeout) if reader else None, None)
            return self._enter_locked(ask, self.fence.claim(ask.key), reader=reader)

    def supersede(self, ask: Ask) -> Boarded:
        """Enter a new flight in the place of a running one, which may not publish any more."""
        with self._lock:
            self._set_apart_locked(ask.key)
            return self._enter_locked(ask, self.fence.advance(ask.key), reader=True)

    def change(self, key: str) -> Claim:
        """Begin a change of the key from outside: nobody joins or is overtaken by an older fill any more."""
        with self._lock:
            self._set_apart_locked(key)
            return self.fence.advance(key, changing=True)

    def private(self, ask: Ask) -> Boarded:
        """A flight for one reader only, in no table and no tier."""
        self.see_to_forsaken()
        flight = self._make(ask, self._forget, keep_orphan=False)
        with self._lock:
            self._apart.add(flight)
        return Boarded(flight, flight.join(ask.start, timeout=ask.timeout), None)

    def abandon(self, key: str) -> None:
        """This thread was interrupted: flights that it entered and did not come to start begin nothing any more."""
        me = threading.get_ident()
        with self._lock:
            known = (self._table.get(key), *self._apart)
        for flight in known:
            if flight is not None and flight.made_by == me and not flight.begun:
                flight.abort(LookAgain())

    def _enter_locked(self, ask: Ask, claim: Claim, *, reader: bool) -> Boarded:
        flight = self._make(ask, lambda flight: self._landed(flight, claim), keep_orphan=ask.keep_orphan)
        self._table[ask.key] = flight
        return Boarded(flight, flight.join(ask.start, timeout=ask.timeout) if reader else None, claim)

    def _set_apart_locked(self, key: str) -> None:
        flight = self._table.pop(key, None)
        if flight is not None:
            self._apart.add(flight)

    def _make(self, ask: Ask, on_over: Callable[[Flight], None], *, keep_orphan: bool) -> Flight:
        return Flight(
            ask.key,
            pool=self._pool,
            spawn=self.fillers.submit,
            observer=self._counters,
            on_over=on_over,
            keep_orphan=keep_orphan,
            forsaken=self._forsaken,
        )

    def see_to_forsaken(self) -> None:
        """A flight whose last reader was lost, and that moves only while it is read, takes no step of its own."""
        if self._forsaken:
            see_to(self._forsaken, lambda flight: flight.look_after(0.0))

    def _forget(self, flight: Flight) -> None:
        failed = flight.failure is not None and not flight.promotes and not isinstance(flight.failure, NO_FAULT)
        with self._lock:
            apart, joinable = flight in self._apart, self._table.get(flight.key) is flight
            self._counters.fetch_errors += failed and (
                apart or joinable
            )  # once, should an interrupt have it come here again
            self._apart.discard(flight)
            if joinable:
                del self._table[flight.key]

    def _landed(self, flight: Flight, claim: Claim) -> None:
        """A flight is over and its readers do not know yet. If it published, the other tiers follow."""
        try:
            if flight.entry is not None and flight.tier is not None:
                self.follow(flight.key, flight.tier, claim)
            else:
                self.fence.release(claim)
        finally:
            self._forget(flight)

    def follow(self, key: str, tier: Tier, claim: Claim) -> None:
        """Something was published in `tier`: drop older copies elsewhere, and copy it to the tiers below."""
        self._tiers.delete(key, guard=claim.is_current, but=tier)
        self.fence.settle(claim)
        if tier.place + 1 < len(self._tiers):

            def spread() -> None:
                try:
                    self._tiers.spread(key, tier, guard=claim.is_current, pool=self._pool)
                finally:
                    self.fence.release(claim)

            if self.workers.submit(spread):
                return
            self._counters.notice(Event("copy_dropped", key, tier.name, "too many copies are waiting"))
        self.fence.release(claim)

    # -- what a starter does -------------------------------------------------------------------------------

    def start(self, ask: Ask, boarded: Boarded) -> Begun | None:
        """Start a new flight. None: its reader reads. Otherwise there was no body to share: see `Begun`, and with
        neither set look the key up again. Raises what the origin raised."""
        begun = Begun()
        flight, reader, claim = boarded
        assert claim is not None

        def begin() -> Fill:
            return self._begin(ask, flight, claim, begun)

        try:
            if ask.timeout is not None and reader is not None and self._start_elsewhere(flight, begin, begun):
                reader.wait_started()
            else:
                flight.start(begin)
        except (LookAgain, GoAlone):
            return begun
        except BaseException:
            begun.left = True  # its time is over, but a filler may still be asking
            if begun.alone is not None:
                self.discard(begun.alone)
            raise
        return None

    def _start_elsewhere(self, flight: Flight, begin: Callable[[], Fill], begun: Begun) -> bool:
        """Start on a filler's thread, so that the caller's time limit holds while the origin is asked too."""

        def run() -> None:
            try:
                flight.start(begin)
            except GoAlone:
                if begun.left and begun.alone is not None:
                    self.discard(begun.alone)
            except (DaramjweeError, LookAgain, TypeError):
                return  # the outcome of the flight says it to whoever waits

        return self.fillers.submit(run)

    def discard(self, result: FetchResult) -> None:
        """Close a body that nobody reads."""
        open_body(result.body).close()

    def start_alone(self, ask: Ask, boarded: Boarded, result: FetchResult | None) -> None:
        """Start a private flight on `result`, or on a fetch of its own."""

        def begin() -> Fill:
            given = result if result is not None else self._call(ask.fetch, FetchRequest(ask.key))
            return Fill(open_body(given.body), self._describe(ask, given), None)

        boarded.flight.start(begin)

    def _begin(self, ask: Ask, flight: Flight, claim: Claim, begun: Begun) -> Fill:
        """Ask the origin, and stage what it sends. Everything but a body to share leaves by an exception."""
        # Looked up again now that the claim is made: what was published or set before it is seen here, what comes
        # after ends the claim.
        previous = begun.previous = self._at_hand(ask)
        try:
            result = self._call(ask.fetch, FetchRequest(ask.key, previous))
        except NotModified as error:
            assert previous is not None
            begun.renewed = msgspec.structs.replace(previous, stored_at=self._clock.now())
            self._tiers.restamp(ask.key, begun.renewed, guard=claim.is_current)
            raise LookAgain from error
        except NotFound:
            self._remember_absence(ask, claim)
            raise
        if not result.cacheable:
            begun.alone = result
            raise GoAlone
        metadata = self._describe(ask, result)
        body = open_body(result.body)
        try:
            flight.intake.borrow(metadata.size)
            staged = self._tiers.stage(ask.key, metadata)
        except BaseException:
            body.close()
            raise
        if staged is None:
            if not flight.has_readers:
                body.close()
                raise FillAborted(f"no tier has room for {shorten(ask.key)} and nobody reads it")
            return Fill(body, metadata, None)
        flight.tier = staged.tier
        return Fill(body, metadata, staged.staging, claim.is_current)

    def _describe(self, ask: Ask, result: FetchResult) -> Metadata:
        return metadata_of(result, self._clock.now(), subject=f"the FetchResult for {shorten(ask.key)}")

    def _at_hand(self, ask: Ask) -> Metadata | None:
        """Metadata of the copy that a conditional fetch may confirm. `LookAgain` when it is fresh by now."""
        entry = self._tiers.find(ask.key).entry
        if entry is None:
            return None
        entry.close()
        if ask.reuse and judge(entry.metadata, ask.freshness, self._clock.now()) is Verdict.FRESH:
            raise LookAgain
        return None if entry.metadata.negative else entry.metadata

    def _call(self, fetch: Fetcher | None, request: FetchRequest) -> FetchResult:
        """One call of a fetcher, counted; whatever it raises that is not ours becomes a FetchError."""
        assert fetch is not None
        self._counters.fetched()
        try:
            answer = fetch(request)
        except NotFound:
            raise
        except NotModified as error:
            if request.previous is not None:
                raise
            raise FetchError(
                f"the fetcher of {shorten(request.key)} raised NotModified, but no copy was at hand: "
                "raise it only when FetchRequest.previous is given"
            ) from error
        except DaramjweeError:
            raise
        except Exception as error:
            raise FetchError(
                f"the origin failed for {shorten(request.key)}: {type(error).__name__}: {error}; nothing was kept"
            ) from error
        return result_of(answer)

    def _remember_absence(self, ask: Ask, claim: Claim) -> None:
        """The origin says there is no such key: older copies go, and that it said so is kept if asked for."""
        guard = claim.is_current
        negative = ask.freshness.negative
        if negative is None:
            self._tiers.delete(ask.key, guard=guard)
            return
        metadata = Metadata(size=0, stored_at=self._clock.now(), ttl=negative, negative=True)
        staged = self._tiers.stage(ask.key, metadata)
        self._tiers.delete(ask.key, guard=guard, but=None if staged is None else staged.tier)
        if staged is None:
            return
        try:
            entry = staged.staging.commit(metadata, guard=guard)
        except StoreError as error:
            self._tiers.trouble("fill_not_kept", ask.key, staged.tier, error)
            entry = None
        if entry is None:
            staged.staging.abort()
        else:
            entry.close()

    def start_promotion(self, ask: Ask, boarded: Boarded, source: Tier, target: Tier, seen: Metadata) -> None:
        """Start a new flight that carries the entry of `source`, still the one with metadata `seen`, up to `target`.
        Raises what goes wrong there."""
        flight, _, claim = boarded
        assert claim is not None
        flight.promotes = True

        def begin() -> Fill:
            entry = source.store.open(ask.key)
            if entry is None:
                raise LookAgain
            if entry.metadata != seen:  # replaced since the look-up: the caller streams what it saw
                entry.close()
                raise LookAgain
            try:
                flight.intake.borrow(entry.metadata.size)
                staging = target.store.stage(ask.key, entry.metadata)
            except BaseException:
                entry.close()
                raise
            return Fill(EntryBody(entry), entry.metadata, staging, claim.is_current)

        flight.start(begin)
