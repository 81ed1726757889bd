"""The memory tier: bodies as immutable `bytes`, found by one dict lookup.

Invariant: bodies on the shelf + stagings <= capacity; every byte of them is charged to the ledger, evicted bodies
too until their last reader lets them go.
Threads: all methods from any thread. `hot` and `readinto_at` take no lock. The store's lock is never held while
the ledger or the observer is called; the guard of a publication is asked under it.
Interrupts: what a staging has is noted in its `Hold`, in the same step in which it is taken; see `shelf` and `charge`.
Design: docs/design/stores.md
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from daramjwee.buffers.charge import Grip, Held
from daramjwee.errors import Closed, LimitExceeded, shorten
from daramjwee.model import NULL_OBSERVER, SYSTEM_CLOCK
from daramjwee.stores.forks import survive_fork
from daramjwee.stores.limits import limits_or_refuse
from daramjwee.stores.memory_staging import MemoryEntry, MemoryStaging
from daramjwee.stores.segments import Body, out_of_memory
from daramjwee.stores.shelf import Hold, Record, Shelf, with_size
from daramjwee.units import MIB, counted, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Self

    from daramjwee.buffers.ledger import MemoryLedger
    from daramjwee.model import Clock, Metadata, Observer
    from daramjwee.stores.limits import Limits
    from daramjwee.stores.protocol import Usage
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
        self.lost: deque[Hold] = deque()  # of stagings that are over
        self.note_lost: Callable[[Iterable[Hold]], None] = self.lost.extend
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
            if body.charged == body.size:
                continue
            note = ledger.note_credit
            if ledger.try_charge(body.size):
                charged = Body(note, body.size)  # no call between the two
                charged.fill(body.segments)
                record.body = charged
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
        self._settle()

    def open(self, key: str) -> MemoryEntry | None:
        record = self._shelf.table.get(key)
        if record is None:
            self._check_open()
            return None
        if self.hot is not None:
            record.visited = True
        else:
            with self.lock:
                self._shelf.policy.touch(record)
        return MemoryEntry(self, record.body, record.metadata)

    def stage(self, key: str, metadata: Metadata) -> MemoryStaging:
        self._check_open()
        if self.lost:
            self.tidy()
        staging = MemoryStaging(self, key, metadata)
        try:
            self.reserve(key, staging.hold, metadata.size or 0)
        except BaseException:
            staging.abort()
            raise
        return staging

    def delete(self, key: str, *, guard: Callable[[], bool] | None = None) -> bool:
        with self.lock:
            self._check_open()
            if guard is not None and not guard():
                return False
            record = self._shelf.table.get(key)
            dropped = record is not None and self._shelf.drop_locked(record)
        record = None  # outside the lock: its body may die here
        self._settle()
        return dropped

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
        record = self._shelf.table.get(key)
        if record is None:
            self._check_open()
            return None
        return record.metadata

    def keys(self, prefix: str = "") -> Iterator[str]:
        with self.lock:
            self._check_open()
            found = list(self._shelf.table)
        return iter([key for key in found if key.startswith(prefix)] if prefix else found)

    def usage(self) -> Usage:
        self._check_open()
        if self.lost:
            self.tidy()
        with self.lock:
            return self._shelf.usage_locked()

    def close(self) -> None:
        with self.lock:
            self.closed = True
            dropped = self._shelf.clear_locked()  # the second time, what an interrupt of the first left
        del dropped  # outside the lock: bodies may die here
        self.tidy()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return "<MemoryStore closed>"
        usage = self.usage()
        return (
            f"<MemoryStore {counted(usage.entries, 'entry', 'entries')}, {format_size(usage.bytes)} of {format_size(usage.capacity)}, "
            f"{counted(usage.stagings, 'staging')}>"
        )

    # -- for stagings and the ledger: room in the tier, and memory for it -----------------------------------

    def reserve(self, key: str, hold: Hold, count: int) -> None:
        """Internal: take `count` more bytes of capacity and of memory for a staging, evicting as needed."""
        limits = self._shelf.limits
        if hold.room + count > limits.max_object_size:
            raise LimitExceeded(
                f"{shorten(key)} has at least {hold.room + count:,} bytes, more than the {limits.max_object_size:,} "
                "an object of the memory tier may have: raise max_object_size or capacity, or add a file tier"
            )
        evicted: list[HotEntry] = []
        with self.lock:
            fits = self._shelf.reserve_locked(hold, count, evicted)
            reserved = self._shelf.reserved
        evicted.clear()
        if not count:
            return
        if not fits:
            raise LimitExceeded(
                f"no room for {counted(count, 'more byte')} of {shorten(key)}: stagings hold {reserved:,} of the "
                f"{limits.capacity:,} bytes of the memory tier; raise capacity or fill fewer objects at once"
            )
        if not self._charge(hold, count):
            with self.lock:
                self._shelf.give_back_locked(hold, count)
            raise out_of_memory(count)

    def take(self, count: int) -> Grip | None:
        """Internal: charge the ledger for as long as somebody refers to the answer, evicting entries while it refuses; None
        when there are none left."""
        held = Held()
        charge = Grip(self.note_credit, held)
        return charge if self._charge(held, count) else None

    def _charge(self, held: Held, count: int) -> bool:
        ledger = self.ledger
        if ledger is None:
            return True
        if ledger.try_charge(count):
            held.bytes += count  # no call between the two, here and below
            return True
        # Twice at most: when others wait in line for memory, what is evicted goes to them first.
        for _ in range(2):
            if self.reclaim(count) and ledger.try_charge(count):
                held.bytes += count
                return True
        return False

    @property
    def note_credit(self) -> Callable[[Any], object]:
        """Internal: see `MemoryLedger`. Nothing is charged while there is no ledger."""
        return bool if self.ledger is None else self.ledger.note_credit

    @property
    def note_credits(self) -> Callable[[Any], object]:
        """Internal: of several at once."""
        return bool if self.ledger is None else self.ledger.note_credits

    def _settle(self) -> None:
        ledger = self.ledger
        if ledger is not None and ledger.noted:
            ledger.settle()

    def tidy(self) -> None:
        """Internal: take back the room of stagings that are over."""
        if self.lost:
            with self.lock:
                self._tidy_locked()
        self._settle()

    def _tidy_locked(self) -> None:
        # Not in the `with` itself: the jump back of a loop may be outside of it (see `MemoryLedger._wait`).
        while self.lost:
            hold = self.lost[0]
            if hold.epoch == self.epoch:
                self._shelf.end_locked(hold)
            del self.lost[0]

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

    def publish(self, key: str, hold: Hold, body: Body, metadata: Metadata, guard: Callable[[], bool] | None) -> bool:
        """Internal: put the body on the shelf in place of what was reserved for it, if the guard agrees."""
        record = HotEntry(key, body, metadata)
        displaced: list[HotEntry] = []
        with self.lock:
            self._check_open()
            if guard is not None and not guard():
                return False
            self._shelf.put_locked(record, hold, displaced)
        displaced.clear()  # outside the lock: bodies may die here
        self._settle()
        return True

    def after_fork_in_child(self) -> None:
        """Entries stay, shared with the parent until one of the two touches the pages; its stagings do not."""
        self.epoch += 1
        self.lost.clear()
        self._shelf.reserved = self._shelf.stagings = 0

    def _check_open(self) -> None:
        if self.closed:
            raise Closed("the memory tier was closed before this call")
