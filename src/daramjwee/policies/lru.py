"""LRU: the item whose last hit is longest ago leaves first.

Invariant: the queue is in order of the last `add` or `touch`.
Threads: the caller's lock guards every method, hits included, since a hit moves the item.
Design: docs/design/stores.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from daramjwee.policies.order import Policy

if TYPE_CHECKING:
    from daramjwee.policies.order import Ranked


class Lru(Policy):
    __slots__ = ()

    name: ClassVar[str] = "lru"
    hit_needs_lock: ClassVar[bool] = True

    def touch(self, item: Ranked) -> None:
        if item.queued and item is not self.newest:
            self._unlink(item)
            # No call until it is linked again: an interrupt would leave it counted and in no place. (Not `_link` therefore;
            # there is a newest, as it was not this one.)
            item.older, item.newer = self.newest, None
            self.newest.newer = item
            self.newest = item

    def evict(self) -> Any:
        item = self.oldest
        if item is not None:
            self.remove(item)
        return item
