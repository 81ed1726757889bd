"""What policies share: `Ranked`, an item with its place in a queue, and `Policy`, the queue with a total weight.

Invariant: an item is in at most one queue; `weight` is the sum of the weights of the items in it.
Threads: the caller's lock guards every method; only `Ranked.visited` may be set without it.
Design: docs/design/stores.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from daramjwee.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterator


class Ranked:
    """Base of what a policy orders. The links are in the item itself, so that keeping order allocates nothing.

    `visited`: set it to True on a hit, without any lock. A lost or late write costs one worse choice of a
    victim, never an item. `weight`: bytes, fixed while the item is in a policy.
    """

    __slots__ = ("newer", "older", "queued", "visited", "weight")

    visited: bool
    weight: int
    queued: bool
    newer: Any
    older: Any

    def __init__(self, weight: int = 0) -> None:
        self.weight = weight
        self.visited = False
        self.queued = False
        self.newer = self.older = None


class Policy:
    """A queue from oldest to newest. Subclasses say what a hit does and who leaves first.

    `hit_needs_lock`: whether a hit must call `touch` under the lock; else `item.visited = True` is enough.
    """

    __slots__ = ("count", "newest", "oldest", "weight")

    name: ClassVar[str]
    hit_needs_lock: ClassVar[bool]

    def __init__(self) -> None:
        self.oldest: Any = None
        self.newest: Any = None
        self.count = 0
        self.weight = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        """Items from oldest to newest."""
        item = self.oldest
        while item is not None:
            yield item
            item = item.newer

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {counted(self.count, 'item')}, {counted(self.weight, 'byte')}>"

    def add(self, item: Ranked) -> None:
        """Put a new item at the newest end. `ValueError` for one that is in a policy already."""
        if item.queued:
            raise ValueError("the item is in a policy already: remove it first")
        item.queued = True
        item.visited = False
        self._link(item)
        self.count += 1
        self.weight += item.weight

    def remove(self, item: Ranked) -> None:
        """Take an item out; nothing happens when it is not in."""
        if not item.queued:
            return
        self._unlink(item)
        item.queued = False
        self.count -= 1
        self.weight -= item.weight

    def touch(self, item: Ranked) -> None:
        """Note a hit."""
        raise NotImplementedError

    def evict(self) -> Any:
        """Choose the item to lose, take it out and return it; None when there is none."""
        raise NotImplementedError

    def _link(self, item: Ranked) -> None:
        item.older, item.newer = self.newest, None
        if self.newest is None:
            self.oldest = item
        else:
            self.newest.newer = item
        self.newest = item

    def _unlink(self, item: Ranked) -> None:
        if item.older is None:
            self.oldest = item.newer
        else:
            item.older.newer = item.newer
        if item.newer is None:
            self.newest = item.older
        else:
            item.newer.older = item.older
        # Cut the links, or an item that a reader still holds would keep its old neighbours alive.
        item.older = item.newer = None
