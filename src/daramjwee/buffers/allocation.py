"""What memory costs the process: page faults, and runs and pauses of Python's collector.

Invariant: all figures only grow. Pauses are measured while somebody watches.
Threads: any; the collector calls back in whichever thread it runs, one run at a time, and no lock is taken there.
Design: docs/monitoring.md
"""

from __future__ import annotations

import gc
import resource
import threading
from time import perf_counter
from typing import Any

from daramjwee.buffers.stats import AllocationStats


class CollectorWatch:
    """Measures how long the collector stops everything, while at least one watches."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0
        self._watchers = 0
        self._lock = threading.Lock()

    def watch(self) -> None:
        with self._lock:
            self._watchers += 1
            if self._watchers == 1:
                gc.callbacks.append(self._note)

    def unwatch(self) -> None:
        with self._lock:
            self._watchers -= 1
            if not self._watchers:
                gc.callbacks.remove(self._note)

    def _note(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = perf_counter()
        elif self._began:
            self.seconds += perf_counter() - self._began


collector = CollectorWatch()


def allocation_now() -> AllocationStats:
    """The figures of this process since it began."""
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return AllocationStats(faults, sum(kind["collections"] for kind in gc.get_stats()), collector.seconds)
