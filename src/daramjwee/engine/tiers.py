"""The tiers of one cache in their order: look-up, staging, deleting and copying across them.

Invariant: a failing tier never fails the caller of the others: it is noticed, counted and passed over.
Threads: any; no lock of its own, each store has its.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.engine.plan import Room, plan_tier
from daramjwee.errors import CorruptEntry, DaramjweeError, LimitExceeded, StoreError, shorten
from daramjwee.model import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from daramjwee.buffers import BufferPool, MemoryLedger
    from daramjwee.model import Clock, Metadata, Observer
    from daramjwee.stores.protocol import Entry, Staging, Store

    Guard = Callable[[], bool]

logger = logging.getLogger(__name__)

# A store that states no limit of its own takes whatever comes.
UNLIMITED = 1 << 62
COPY_BYTES = 256 * 1024


class Tier(NamedTuple):
    """A store and its place in the order."""

    place: int
    name: str
    store: Store


class Found(NamedTuple):
    """The open entry of the highest tier that has the key, or None, and then why there is none."""

    entry: Entry | None
    tier: int
    reason: str


class Staged(NamedTuple):
    """A staging and the tier it is in."""

    staging: Staging
    tier: Tier


class Tiers:
    """An ordered row of stores."""

    def __init__(self, stores: Sequence[Store], *, observer: Observer) -> None:
        self._row = tuple(Tier(i, _name(store, i), store) for i, store in enumerate(stores))
        self.rooms = tuple(_room(store) for store in stores)
        self._observer = observer

    def __iter__(self) -> Iterator[Tier]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, index: int) -> Tier:
        return self._row[index]

    def follow(self) -> None:
        """Take over how large an object each store takes now."""
        self.rooms = tuple(_room(tier.store) for tier in self._row)

    def attach(self, *, ledger: MemoryLedger, clock: Clock) -> None:
        """Make the stores part of a cache's memory limit, counters and clock."""
        for tier in self._row:
            attach = getattr(tier.store, "attach", None)
            if attach is not None:
                attach(ledger=ledger, observer=self._observer, clock=clock)

    def find(self, key: str) -> Found:
        """Look the key up from the top."""
        reason = "absent"
        for tier in self._row:
            try:
                entry = tier.store.open(key)
            except CorruptEntry:
                reason = "corrupt"  # noticed and dropped by the store
            except StoreError as error:
                self.trouble("read_failed", key, tier, error)
                reason = "error"
            else:
                if entry is not None:
                    return Found(entry, tier.place, "")
        return Found(None, -1, reason)

    def stage(self, key: str, metadata: Metadata, *, first: int | None = None) -> Staged | None:
        """Begin an object in tier `first` (default: where its size belongs) or the next that takes it; None: no
        tier does."""
        if first is None:
            first = plan_tier(self.rooms, metadata.size)
        if first is None:
            return None
        for tier in self._row[first:]:
            try:
                return Staged(tier.store.stage(key, metadata), tier)
            except (StoreError, LimitExceeded) as error:
                self.trouble("stage_refused", key, tier, error)
        return None

    def delete(self, key: str, *, guard: Guard, but: Tier | None = None, strict: bool = False) -> bool:
        """Forget the key in every tier but `but`, as long as `guard` holds; True if one had it.

        All are tried. `strict`: then raise the first `StoreError`, as an older value may still be there.
        """
        had, failed = False, None
        for tier in self._row:
            if tier is not but:
                try:
                    had = tier.store.delete(key, guard=guard) or had
                except StoreError as error:
                    self.trouble("delete_failed", key, tier, error)
                    failed = failed or error
        if strict and failed is not None:
            raise failed
        return had

    def restamp(self, key: str, metadata: Metadata, *, guard: Guard) -> None:
        """Give the entry of the key new metadata wherever it is. A store that cannot keeps the old, and the next
        open asks the origin again."""
        for tier in self._row:
            restamp = getattr(tier.store, "restamp", None)
            if restamp is not None:
                try:
                    restamp(key, metadata, guard=guard)
                except StoreError as error:
                    self.trouble("restamp_failed", key, tier, error)

    def spread(self, key: str, source: Tier, *, guard: Guard, pool: BufferPool) -> None:
        """Copy the key from `source` to every tier below that takes it, as long as `guard` holds."""
        for tier in self._row[source.place + 1 :]:
            if not guard():
                return
            try:
                self.transfer(key, source, tier, guard=guard, pool=pool)
            except (StoreError, LimitExceeded) as error:
                self.trouble("copy_failed", key, tier, error)

    def transfer(self, key: str, source: Tier, target: Tier, *, guard: Guard | None, pool: BufferPool) -> bool:
        """Copy one entry between tiers; False when it is gone, or `guard` said no."""
        entry = source.store.open(key)
        if entry is None:
            return False
        try:
            # Memory first: a staging holds what others may wait for.
            with pool.acquire(max(1, min(COPY_BYTES, entry.size)), priority=None) as lease:
                staging = target.store.stage(key, entry.metadata)
                try:
                    _pour(entry, staging, lease.view)
                    published = staging.commit(entry.metadata, guard=guard)
                except BaseException:
                    staging.abort()
                    raise
            if published is None:
                staging.abort()
                return False
            published.close()
            return True
        finally:
            entry.close()

    def trouble(self, kind: str, key: str, tier: Tier, error: DaramjweeError) -> None:
        """A tier failed or refused: log it, count it, and go on without."""
        logger.warning("tier %s, %s, %s: %s", tier.name, kind, shorten(key), error)
        self._observer.notice(Event(kind, key, tier.name, str(error)))

    def close(self) -> None:
        for tier in self._row:
            tier.store.close()


def _pour(entry: Entry, staging: Staging, view: memoryview) -> None:
    # Not in the `try` of who calls this: an interrupt at the jump back of such a loop could be outside of it (see
    # `MemoryLedger._wait`).
    offset = 0
    while count := entry.readinto_at(offset, view):
        staging.write(view[:count])
        offset += count


def _name(store: Store, index: int) -> str:
    return str(getattr(store, "name", None) or f"{index}:{type(store).__name__}")


def _room(store: Store) -> Room:
    largest = int(getattr(store, "max_object_size", None) or UNLIMITED)
    return Room(largest, int(getattr(store, "largest_fill", None) or largest))
