"""SIEVE: a hand walks from the oldest item to the newest, spares what was hit since it last came by, takes the rest.

Invariant: items keep their order of arrival; a hit sets one attribute and moves nothing.
Threads: the caller's lock guards every method; a hit sets `visited` without it.
Design: docs/design/stores.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from daramjwee.policies.order import Policy

if TYPE_CHECKING:
    from daramjwee.policies.order import Ranked


class Sieve(Policy):
    __slots__ = ("hand",)

    name: ClassVar[str] = "sieve"
    hit_needs_lock: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.hand: Any = None

    def touch(self, item: Ranked) -> None:
        item.visited = True

    def remove(self, item: Ranked) -> None:
        if item.queued and self.hand is item:
            self.hand = item.newer
        super().remove(item)

    def evict(self) -> Any:
        item = self.hand or self.oldest
        # Two rounds at most: readers set bits while the hand clears them, and must not keep it walking for ever.
        steps = 2 * self.count
        while item is not None and item.visited and steps:
            item.visited = False
            item = item.newer or self.oldest
            steps -= 1
        if item is not None:
            self.hand = item.newer
            self.remove(item)
        return item
