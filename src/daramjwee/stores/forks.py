"""Stores across fork: the child gets each store in a state between two changes, never in the middle of one.

Invariant: no store's lock is held by another thread at the moment of the fork.
Threads: the hooks run in the thread that forks. It takes the locks of all stores at once; nobody else ever holds
one while waiting for another.
Design: docs/design/stores.md
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import threading

    class Forked(Protocol):
        lock: threading.Lock

        def after_fork_in_child(self) -> None:
            """Forget what belongs to the parent's threads. The lock is held, and nobody else runs."""


_stores: weakref.WeakSet[Forked] = weakref.WeakSet()
_held: list[Forked] = []


def survive_fork(store: Forked) -> None:
    """Keep `store` consistent over forks while it lives."""
    _stores.add(store)


def _before() -> None:
    _held[:] = list(_stores)
    for store in _held:
        store.lock.acquire()


def _in_parent() -> None:
    for store in _held:
        store.lock.release()
    _held.clear()


def _in_child() -> None:
    for store in _held:
        store.after_fork_in_child()
    _in_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
