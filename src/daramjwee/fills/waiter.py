"""Sleeping until a fill has come far enough.

Threads: one thread waits on a waiter at a time; any thread wakes it, as often as it likes.
"""

from __future__ import annotations

import threading

# A target that no fill reaches: only an outcome, or another change that all must see, wakes such a waiter.
NEVER = 1 << 62


class Waiter:
    """One thread, asleep until `head` reaches `target`, or something else happens that it must see."""

    __slots__ = ("_lock", "target")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.target = 0

    def wait(self, timeout: float | None) -> bool:
        return self._lock.acquire(timeout=-1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX))

    def wake(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            # Woken already, and not yet asleep again: it looks around before it sleeps, so nothing is missed.
            return
