"""What a cache counts, and the snapshot of it.

Threads: plain `+= 1` on an attribute, with no call in between, is one step for other threads in CPython with its
lock; a lock here would cost more than the lookup it counts. Events are rare and take one.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import msgspec

from daramjwee.errors import shorten
from daramjwee.stores.protocol import Usage

if TYPE_CHECKING:
    from daramjwee.buffers import MemoryLedger
    from daramjwee.engine.tiers import Tiers
    from daramjwee.model import Event

logger = logging.getLogger(__name__)


class TierStats(msgspec.Struct, frozen=True):
    """One tier: its name, the hits it answered, and what it holds."""

    name: str
    hits: int
    usage: Usage


class CacheStats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of one cache since it was opened.

    `hits`, `stale`, `joined`, `revalidated`, `bypassed`, `negative`: opens (and gets) by how they were answered.
    `misses`: opens that had to ask the origin or had nobody to ask, by reason (absent, expired, corrupt, error).
    `origin_fetches`, `fetch_errors`: calls of a fetcher, and those that failed, at once or in the body. `events`: rare things by kind
    (corrupt, write_failed, too_large, ...). `evictions`: entries that left to make room, in all tiers. `memory_used`,
    `memory_limit`: bytes. `tiers`: what each has, in their order. `flights`: fills running now.
    """

    hits: int
    stale: int
    joined: int
    revalidated: int
    bypassed: int
    negative: int
    misses: dict[str, int]
    origin_fetches: int
    fetch_errors: int
    evictions: int
    events: dict[str, int]
    memory_used: int
    memory_limit: int
    tiers: tuple[TierStats, ...]
    flights: int


class Counters:
    """The running counts; also the `Observer` that a cache hands to its rooms."""

    __slots__ = (
        "_events", "_lock", "_misses", "bypassed", "fetch_errors", "hits", "hot", "joined", "negative", "origin_fetches",
        "revalidated", "stale", "tier_hits",
    )  # fmt: skip

    def __init__(self, tiers: int) -> None:
        self.hits = self.stale = self.joined = self.revalidated = self.bypassed = self.negative = 0
        self.origin_fetches = self.fetch_errors = 0
        self.hot = 0  # hits in the top tier that took the short way; not among `hits`
        self.tier_hits = [0] * tiers
        self._lock = threading.Lock()
        self._events: dict[str, int] = {}
        self._misses: dict[str, int] = {}

    def reset_lock(self) -> None:
        """In a forked child, where a thread that is not there may have held it."""
        self._lock = threading.Lock()

    def missed(self, reason: str, key: str) -> None:
        with self._lock:
            self._misses[reason] = self._misses.get(reason, 0) + 1
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("miss: %s (%s)", shorten(key), reason)

    def fetched(self) -> None:
        with self._lock:
            self.origin_fetches += 1

    def notice(self, event: Event) -> None:
        with self._lock:
            self._events[event.kind] = self._events.get(event.kind, 0) + 1
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s: %s in tier %s: %s", event.kind, shorten(event.key or ""), event.tier, event.detail)

    def snapshot(self, tiers: Tiers, ledger: MemoryLedger, *, flights: int) -> CacheStats:
        """What was counted so far, and what `tiers` and `ledger` hold now."""
        with self._lock:
            misses, events = dict(self._misses), dict(self._events)
        hot = self.hot
        rows = tuple(
            TierStats(tier.name, hits + (hot if tier.place == 0 else 0), tier.store.usage())
            for tier, hits in zip(tiers, self.tier_hits, strict=True)
        )
        return CacheStats(
            hits=self.hits + hot,
            stale=self.stale,
            joined=self.joined,
            revalidated=self.revalidated,
            bypassed=self.bypassed,
            negative=self.negative,
            misses=misses,
            origin_fetches=self.origin_fetches,
            fetch_errors=self.fetch_errors,
            evictions=sum(row.usage.evictions for row in rows),
            events=events,
            memory_used=ledger.held,
            memory_limit=ledger.limit,
            tiers=rows,
            flights=flights,
        )
