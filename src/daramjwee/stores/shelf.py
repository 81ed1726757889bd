"""The bookkeeping of one tier: records by key, their eviction order, and bytes reserved for stagings.

Invariant: weight of the records + `reserved` <= capacity, and the number of records <= the entry bound, after
every method; but for stagings that had more reserved than a capacity that was lowered meanwhile: then there are no
records, until those end.
Threads: the store's lock guards every method whose name ends in `_locked`; `table` may be read without it.
Design: docs/design/stores.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

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


R = TypeVar("R", bound=Record)


class Shelf(Generic[R]):
    __slots__ = ("evictions", "limits", "policy", "reserved", "stagings", "table")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.policy = make_policy(limits.policy)
        self.table: dict[str, R] = {}
        self.reserved = 0
        self.stagings = 0
        self.evictions = 0

    def reserve_locked(self, count: int, evicted: list[R]) -> bool:
        """Reserve `count` bytes for a staging, evicting as needed; False (and nothing done) if they cannot fit.

        Records that had to leave are appended to `evicted`; letting their bytes go is the caller's, outside
        the lock and before it uses the room.
        """
        if self.reserved + count > self.limits.capacity:
            return False
        while self.policy.weight + self.reserved + count > self.limits.capacity:
            evicted.append(self.evict_locked())
        self.reserved += count
        return True

    def evict_locked(self) -> R:
        """Take out the record that the policy gives up first; there must be one."""
        victim: R = self.policy.evict()
        del self.table[victim.key]
        self.evictions += 1
        return victim

    def put_locked(self, record: R, displaced: list[R]) -> None:
        """Put a record whose weight the caller has just taken off `reserved`. Who makes way is in `displaced`."""
        former = self.table.get(record.key)
        if former is not None:
            displaced.append(former)
            self.policy.remove(former)
        elif len(self.table) >= self.limits.entry_bound:
            displaced.append(self.evict_locked())
        # The policy first, here and where one leaves: an interrupt in it leaves both as they were.
        self.policy.add(record)
        self.table[record.key] = record
        # Only where the capacity was lowered since the room was reserved; it may be this very record that goes.
        while self.policy.weight + self.reserved > self.limits.capacity and self.table:
            displaced.append(self.evict_locked())

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
        del self.table[record.key]
        return True

    def clear_locked(self) -> list[R]:
        records = list(self.table.values())
        for record in records:
            self.policy.remove(record)
        self.table.clear()
        return records

    def usage_locked(self) -> Usage:
        limits = self.limits
        held = self.policy.weight + self.reserved
        return Usage(held, len(self.table), limits.capacity, limits.max_entries, self.stagings, self.evictions)


def with_size(metadata: Metadata, size: int) -> Metadata:
    """The metadata of a committed entry: its size is always that of its bytes."""
    return metadata if metadata.size == size else msgspec.structs.replace(metadata, size=size)
