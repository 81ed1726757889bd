"""What memory costs the process: page faults, and runs and pauses of Python's collector.

Invariant: all figures only grow. Pauses are measured while somebody watches who is alive.
Threads: any, and finalizers; the collector calls back in whichever thread it runs, one run at a time. No lock is taken, and
whatever is stopped by an interrupt may be done again.
Design: docs/monitoring.md
"""

from __future__ import annotations

import gc
import resource
from time import perf_counter
from typing import Any
from weakref import WeakSet

from daramjwee.buffers.stats import AllocationStats


class CollectorWatch:
    """Measures how long the collector stops everything, while at least one watches."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0
        self._watchers: WeakSet[object] = WeakSet()

    def watch(self, watcher: object) -> None:
        """Measure for `watcher`, while it lives. Allowed more than once."""
        self._watchers.add(watcher)
        if self._note not in gc.callbacks:
            gc.callbacks.append(self._note)

    def unwatch(self, watcher: object) -> None:
        """Measure for it no more. Allowed for who does not watch."""
        self._watchers.discard(watcher)
        if not self._watchers:
            try:
                gc.callbacks.remove(self._note)
            except ValueError:
                pass  # another thread was quicker, or nobody watched
            if self._watchers:  # somebody has come meanwhile, and may have found it there
                self.watch(self)
                self._watchers.discard(self)

    def _note(self, phase: str, info: dict[str, Any]) -> None:
        # Called twice where two threads began to watch at once: the second start and the second end do nothing.
        if phase == "start":
            self._began = perf_counter() if self._watchers else 0.0
        elif self._began:
            self.seconds += perf_counter() - self._began
            self._began = 0.0


collector = CollectorWatch()


def allocation_now() -> AllocationStats:
    """The figures of this process since it began."""
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return AllocationStats(faults, sum(kind["collections"] for kind in gc.get_stats()), collector.seconds)
