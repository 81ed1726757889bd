"""The bookkeeping of one tier: records by key, their eviction order, and bytes reserved for stagings.

Invariant: weight of the records + `reserved` <= capacity, and the number of records <= the entry bound, after
every method; but for stagings that had more reserved than a capacity that was lowered meanwhile: then there are no
records, until those end. `reserved` and `stagings` are the sums over the holds. An interrupt comes before or after the
step that counts of each method; what is left to do then is done by the next one.
Threads: the store's lock guards every method whose name ends in `_locked`; `table` may be read without it.
Design: docs/design/stores.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from daramjwee.buffers.charge import Held
from daramjwee.policies import Ranked, make_policy
from daramjwee.stores.protocol import Usage

if TYPE_CHECKING:
    from daramjwee.model import Metadata
    from daramjwee.stores.limits import Limits


class Record(Ranked):
    """An item on the shelf, with the key it is found under."""

    __slots__ = ("key",)

    def __init__(self, key: str, weight: int) -> None:
        super().__init__(weight)
        self.key = key


class Hold(Held):
    """What a staging has: `bytes` of memory that are charged, and `room` of its tier. `counted`: 1 from its start to its
    end. `epoch`: of the store, at its start; one begun before a fork means nothing in the child."""

    __slots__ = ("counted", "epoch", "room")

    def __init__(self, epoch: int) -> None:
        self.bytes = self.room = self.counted = 0
        self.epoch = epoch


R = TypeVar("R", bound=Record)


class Shelf(Generic[R]):
    __slots__ = ("evictions", "leaving", "limits", "policy", "reserved", "stagings", "table")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.policy = make_policy(limits.policy)
        self.table: dict[str, R] = {}
        self.reserved = 0
        self.stagings = 0
        self.evictions = 0
        self.leaving: R | None = None  # out of the table, and perhaps not out of the policy yet

    def reserve_locked(self, hold: Hold, count: int, evicted: list[R]) -> bool:
        """Reserve `count` bytes for a staging, evicting as needed; False (and nothing done) if they cannot fit. The first
        time, the staging is counted, whether they fit or not.

        Records that had to leave are appended to `evicted`; letting their bytes go is the caller's, outside
        the lock and before it uses the room.
        """
        # No call between the two, here and below: an interrupt finds both done or neither.
        self.stagings += 1 - hold.counted
        hold.counted = 1
        if self.leaving is not None:
            self._take_up_locked()
        if self.reserved + count > self.limits.capacity:
            return False
        while self.policy.weight + self.reserved + count > self.limits.capacity:
            evicted.append(self.evict_locked())
        self.reserved += count
        hold.room += count
        return True

    def give_back_locked(self, hold: Hold, count: int) -> None:
        """Take back `count` bytes of what was reserved."""
        self.reserved -= count
        hold.room -= count

    def end_locked(self, hold: Hold) -> None:
        """A staging is over. Done again, it does nothing."""
        self.reserved -= hold.room
        self.stagings -= hold.counted
        hold.room = hold.counted = 0

    def evict_locked(self) -> R:
        """Take out the record that the policy gives up first; there must be one."""
        if self.leaving is not None:
            self._take_up_locked()
        victim: R = self.policy.evict()
        # No call from its leaving the policy to here.
        del self.table[victim.key]
        self.evictions += 1
        return victim

    def evict_bytes_locked(self, wanted: int, evicted: list[R]) -> None:
        """Evict so many bytes, as far as there are."""
        while wanted > 0 and self.table:
            evicted.append(self.evict_locked())
            wanted -= evicted[-1].weight

    def put_locked(self, record: R, hold: Hold, displaced: list[R]) -> None:
        """Put a record in place of what `hold` has, which ends with that. Who makes way is in `displaced`."""
        if self.leaving is not None:
            self._take_up_locked()
        former = self.table.get(record.key)
        if former is None:
            while len(self.table) >= self.limits.entry_bound:
                displaced.append(self.evict_locked())
        made_way = [] if former is None else [former]
        self.policy.add(record)
        # No call from here to the end of the hold: an interrupt before it, or in the policy, leaves all as it was.
        self.table[record.key] = record
        self.leaving = former
        displaced += made_way
        self.reserved -= hold.room
        self.stagings -= hold.counted
        hold.room = hold.counted = 0
        if former is not None:
            self._take_up_locked()
        # Only where the capacity was lowered since the room was reserved; it may be this very record that goes.
        while self.policy.weight + self.reserved > self.limits.capacity and self.table:
            displaced.append(self.evict_locked())

    def _take_up_locked(self) -> None:
        """Take out of the policy what was replaced."""
        if self.leaving is not None:
            self.policy.remove(self.leaving)
            self.leaving = None

    def resize_locked(self, limits: Limits, evicted: list[R]) -> None:
        """Keep to other limits from now on; who has to leave for it is appended to `evicted`. What is reserved stays so."""
        self.limits = limits
        while self.table and (
            self.policy.weight + self.reserved > limits.capacity or len(self.table) > limits.entry_bound
        ):
            evicted.append(self.evict_locked())

    def drop_locked(self, record: R) -> bool:
        """Take this very record out; False if it is not (or no longer) on the shelf."""
        if self.table.get(record.key) is not record:
            return False
        self.policy.remove(record)
        # No call from its leaving the policy to here.
        del self.table[record.key]
        return True

    def clear_locked(self) -> list[R]:
        """Take out all. Done again after an interrupt, it goes on."""
        self._take_up_locked()
        records = list(self.table.values())
        for record in records:
            self.drop_locked(record)
        return records

    def usage_locked(self) -> Usage:
        self._take_up_locked()
        limits = self.limits
        held = self.policy.weight + self.reserved
        return Usage(held, len(self.table), limits.capacity, limits.max_entries, self.stagings, self.evictions)


def with_size(metadata: Metadata, size: int) -> Metadata:
    """The metadata of a committed entry: its size is always that of its bytes."""
    return metadata if metadata.size == size else msgspec.structs.replace(metadata, size=size)
