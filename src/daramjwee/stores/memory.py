"""The memory tier: bodies as immutable `bytes`, found by one dict lookup.

Invariant: bodies on the shelf + stagings <= capacity; every byte of them is charged to the ledger, evicted bodies
too until their last reader lets them go.
Threads: all methods from any thread. `hot` and `readinto_at` take no lock. The store's lock is never held while
the ledger or the observer is called; the guard of a publication is asked under it.
Design: docs/design/stores.md
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from daramjwee.errors import Closed, LimitExceeded, shorten
from daramjwee.model import NULL_OBSERVER, SYSTEM_CLOCK
from daramjwee.stores.forks import survive_fork
from daramjwee.stores.limits import limits_or_refuse
from daramjwee.stores.memory_staging import MemoryEntry, MemoryStaging
from daramjwee.stores.shelf import Record, Shelf, with_size
from daramjwee.units import MIB, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from daramjwee.buffers.ledger import MemoryLedger
    from daramjwee.model import Clock, Metadata, Observer
    from daramjwee.stores.limits import Limits
    from daramjwee.stores.protocol import Usage
    from daramjwee.stores.segments import Body
    from daramjwee.units import Size

# One object may fill this share of the tier by streaming through it; a larger one had better go to a lower tier,
# or a few of them would push everything else out.
LARGEST_FILL_SHARE = 8
# What `Cache.get` gives without being told to give more: its default `max_bytes`.
LARGEST_WHOLE = 64 * MIB


class HotEntry(Record):
    """What `hot(key)` finds: everything a hit needs, as plain attributes.

    `whole`: the body where it is one `bytes` of at most 64 MiB, what `Cache.get` gives without being told to give more
    (None: read it through `open`; None for a negative entry too).
    `until`: the monotonic time up to which whoever judges freshness found that `whole` may be given without another
    look (see `MemoryStore.arm`); 0 at first and after a restamp. Set `visited = True` on a hit, without a lock.
    """

    __slots__ = ("body", "metadata", "size", "until", "whole")

    def __init__(self, key: str, body: Body, metadata: Metadata) -> None:
        super().__init__(key, body.size)
        self.body = body
        self.size = body.size
        self.whole = None if metadata.negative or body.size > LARGEST_WHOLE else body.whole
        self.metadata = metadata
        self.until = 0.0


class MemoryStore:
    """A tier in this process's memory.

    `capacity`: bytes of bodies, stagings included. `max_entries`: number of entries; None: one per 256 bytes of
    capacity, at least 1024. `policy`: in which order entries leave, "sieve" or "lru". `max_object_size`: larger objects
    are refused; None: the capacity. `ConfigError` lists every argument that is wrong.

    `hot(key) -> HotEntry | None` finds what a hit needs without a lock; it is None where the policy needs one.
    """

    name = "memory"

    def __init__(
        self,
        capacity: Size,
        *,
        max_entries: int | None = None,
        policy: Literal["sieve", "lru"] = "sieve",
        max_object_size: Size | None = None,
    ) -> None:
        limits = limits_or_refuse("MemoryStore", capacity, max_entries, policy, max_object_size)
        self._follow(limits)
        self.closed = False
        self.in_use = False  # set by the cache whose tier it is
        # Stagings that were garbage collected: (reserved, charged, epoch).
        self.lost: deque[tuple[int, int, int]] = deque()
        self.ledger: MemoryLedger | None = None
        self._observer: Observer = NULL_OBSERVER
        self._clock: Clock = SYSTEM_CLOCK
        self.lock = threading.Lock()
        self._shelf: Shelf[HotEntry] = Shelf(limits)
        # The bound method of the table itself: one C call between a key and its record.
        self.hot: Callable[[str], HotEntry | None] | None = (
            None if self._shelf.policy.hit_needs_lock else self._shelf.table.get
        )
        self.epoch = 0  # counts forks: a staging of the parent is none of the child's
        survive_fork(self)

    def attach(self, *, ledger: MemoryLedger, observer: Observer, clock: Clock) -> None:
        """Join a cache: charge what is held to its ledger, and give memory back when that runs short.

        Entries that the ledger has no room for are dropped. Must come before the first concurrent use.
        """
        self._observer, self._clock, self.ledger = observer, clock, ledger
        with self.lock:
            records = list(self._shelf.policy)
        for record in reversed(records):  # the newest first: they stay when memory is short
            record.until = 0.0
            body = record.body
            if body.ledger is not None:
                continue
            if ledger.try_charge(body.size):
                body.charged_to(ledger)
            else:
                with self.lock:
                    self._shelf.drop_locked(record)
        ledger.add_reclaimer(self.reclaim)

    def _follow(self, limits: Limits) -> None:
        self.max_object_size = limits.max_object_size
        share = max(1, limits.capacity // LARGEST_FILL_SHARE)
        self.largest_fill = limits.max_object_size if limits.explicit_max_object_size else share

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments as they hold now, sizes in bytes."""
        return self._shelf.limits.settings()

    def reconfigure(
        self, *, capacity: Size, max_entries: int | None = None, max_object_size: Size | None = None
    ) -> None:
        """Keep to these limits from now on, as if made with them: entries beyond them leave now. Objects that are being
        written go on as they began. `ConfigError` lists what is wrong; nothing is changed then."""
        limits = limits_or_refuse("MemoryStore", capacity, max_entries, self._shelf.policy.name, max_object_size)
        evicted: list[HotEntry] = []
        with self.lock:
            self._check_open()
            self._shelf.resize_locked(limits, evicted)
            self._follow(limits)
        evicted.clear()  # outside the lock: bodies may die here

    def open(self, key: str) -> MemoryEntry | None:
        record = self._find(key)
        if record is None:
            return None
        if self.hot is not None:
            record.visited = True
        else:
            with self.lock:
                self._shelf.policy.touch(record)
        return MemoryEntry(self, record.body, record.metadata)

    def stage(self, key: str, metadata: Metadata) -> MemoryStaging:
        self._check_open()
        size = metadata.size or 0
        if self.lost:
            self._drain()
        with self.lock:
            self._shelf.stagings += 1
        try:
            self.reserve(key, 0, size)
        except BaseException:
            with self.lock:
                self._shelf.stagings -= 1
            raise
        return MemoryStaging(self, key, metadata, size)

    def delete(self, key: str, *, guard: Callable[[], bool] | None = None) -> bool:
        with self.lock:
            self._check_open()
            if guard is not None and not guard():
                return False
            record = self._shelf.table.get(key)
            return record is not None and self._shelf.drop_locked(record)

    def restamp(self, key: str, metadata: Metadata, *, guard: Callable[[], bool] | None = None) -> bool:
        """New metadata for the committed entry of the key, same bytes; False when there is none."""
        with self.lock:
            self._check_open()
            record = self._shelf.table.get(key)
            if record is None or (guard is not None and not guard()):
                return False
            record.metadata = with_size(metadata, record.size)
            record.until = 0.0
        return True

    def arm(
        self, record: HotEntry, metadata: Metadata, until: float, *, guard: Callable[[], bool] | None = None
    ) -> None:
        """Let hits take the record's `whole` up to the monotonic time `until`, judged by `metadata`, if that still holds
        and the guard agrees."""
        with self.lock:
            if record.metadata is metadata and (guard is None or guard()):
                record.until = until

    def disarm(self) -> None:
        """Have every entry judged anew before `hot` may give it: those armed before, and by a guard that agreed before."""
        with self.lock:
            records = list(self._shelf.table.values())
        for record in records:
            record.until = 0.0

    def stat(self, key: str) -> Metadata | None:
        record = self._find(key)
        return None if record is None else record.metadata

    def keys(self, prefix: str = "") -> Iterator[str]:
        with self.lock:
            self._check_open()
            found = list(self._shelf.table)
        return iter([key for key in found if key.startswith(prefix)] if prefix else found)

    def usage(self) -> Usage:
        self._check_open()
        if self.lost:
            self._drain()
        with self.lock:
            return self._shelf.usage_locked()

    def close(self) -> None:
        with self.lock:
            if self.closed:
                return
            self.closed = True
            dropped = self._shelf.clear_locked()
        del dropped  # outside the lock: bodies may die here
        self._drain()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return "<MemoryStore closed>"
        usage = self.usage()
        return (
            f"<MemoryStore {usage.entries} entries, {format_size(usage.bytes)} of {format_size(usage.capacity)}, "
            f"{usage.stagings} stagings>"
        )

    # -- for stagings and the ledger: room in the tier, and memory for it -----------------------------------

    def reserve(self, key: str, before: int, count: int) -> None:
        """Internal: take `count` more bytes of capacity and of memory for a staging that has `before`, evicting as needed."""
        limits = self._shelf.limits
        if before + count > limits.max_object_size:
            raise LimitExceeded(
                f"{shorten(key)} has at least {before + count:,} bytes, more than the {limits.max_object_size:,} "
                "an object of the memory tier may have: raise max_object_size or capacity, or add a file tier"
            )
        if not count:
            return
        evicted: list[HotEntry] = []
        fits = False
        try:
            with self.lock:
                fits = self._shelf.reserve_locked(count, evicted)
                reserved = self._shelf.reserved
            evicted.clear()
        except BaseException:  # an interrupt: the caller will not know that it has the room
            if fits:
                with self.lock:
                    self._shelf.reserved -= count
            raise
        if not fits:
            raise LimitExceeded(
                f"no room for {count:,} more bytes of {shorten(key)}: stagings hold {reserved:,} of the "
                f"{limits.capacity:,} bytes of the memory tier; raise capacity or fill fewer objects at once"
            )
        try:
            self.charge(count)
        except BaseException:
            with self.lock:
                self._shelf.reserved -= count
            raise

    def charge(self, count: int) -> None:
        """Internal: charge the ledger, evicting entries while it refuses; `LimitExceeded` when there are none left."""
        if not self.try_charge(count):
            raise LimitExceeded(
                f"the memory limit has no room for {count:,} more bytes of the memory tier, and nothing is left to "
                "evict: raise memory_limit, or lower the tier's capacity"
            )

    def try_charge(self, count: int) -> bool:
        ledger = self.ledger
        if ledger is None:
            return True
        # Twice at most: when others wait in line for memory, what is evicted goes to them first.
        return ledger.try_charge(count) or any(self.reclaim(count) and ledger.try_charge(count) for _ in range(2))

    def credit(self, count: int) -> None:
        if self.ledger is not None and count:
            self.ledger.credit(count)

    def reclaim(self, wanted: int) -> int:
        """Internal, called by the ledger: evict until `wanted` bytes of memory are free; returns what became free."""
        freed = 0
        while freed < wanted:
            with self.lock:
                if not self._shelf.table:
                    break
                record: HotEntry | None = self._shelf.evict_locked()
            assert record is not None
            body: Body | None = record.body
            record = None
            # Held by nobody else (this name, and the argument): its memory goes now, else with its last reader.
            if body is not None and sys.getrefcount(body) <= 2:
                freed += body.charged
            body = None
        return freed

    def publish(
        self, staging: MemoryStaging, key: str, body: Body, metadata: Metadata, guard: Callable[[], bool] | None
    ) -> bool:
        """Internal: put the body on the shelf in place of what was reserved for it, if the guard agrees."""
        record = HotEntry(key, body, metadata)
        displaced: list[HotEntry] = []
        with self.lock:
            self._check_open()
            if guard is not None and not guard():
                return False
            self._shelf.reserved -= staging.published(body)
            self._shelf.stagings -= 1
            self._shelf.put_locked(record, displaced)
        displaced.clear()  # outside the lock: bodies may die here
        return True

    def let_go(self, reserved: int, charged: int, epoch: int) -> None:
        """Internal: a staging ended without a commit. One begun before a fork means nothing in the child."""
        if epoch != self.epoch:
            return
        with self.lock:
            self._shelf.reserved -= reserved
            self._shelf.stagings -= 1
        self.credit(charged)

    def after_fork_in_child(self) -> None:
        """Entries stay, shared with the parent until one of the two touches the pages; its stagings do not."""
        self.epoch += 1
        self.lost.clear()
        self._shelf.reserved = self._shelf.stagings = 0

    def _find(self, key: str) -> HotEntry | None:
        record = self._shelf.table.get(key)
        if record is None and self.closed:
            raise Closed("the memory tier was closed before this call")
        return record

    def _check_open(self) -> None:
        if self.closed:
            raise Closed("the memory tier was closed before this call")

    def _drain(self) -> None:
        while self.lost:
            try:
                reserved, charged, epoch = self.lost.popleft()
            except IndexError:  # another thread was quicker
                return
            self.let_go(reserved, charged, epoch)
