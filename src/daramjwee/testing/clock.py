"""A clock that stands still until a test moves it.

Invariant: `monotonic` never goes back; `now` does only when told to, by `set_now`.
Threads: any.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from daramjwee.units import parse_duration

if TYPE_CHECKING:
    from daramjwee.units import Duration

# Some day that is neither zero nor the real one: code that mixes up its clocks shows.
SOME_DAY = 1_700_000_000.0


class ManualClock:
    """A `daramjwee.model.Clock` for tests: give it to a cache or a store, and `advance` it. `now`: seconds since the epoch."""

    def __init__(self, now: float = SOME_DAY) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Wall-clock time, in seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return self._monotonic

    def advance(self, by: Duration) -> None:
        """Let time pass on both clocks, `by` a duration."""
        seconds = parse_duration(by)
        with self._lock:
            self._now += seconds
            self._monotonic += seconds

    def set_now(self, now: float) -> None:
        """Let the wall clock jump to `now` (seconds since the epoch), backwards too, as when a machine corrects its time."""
        with self._lock:
            self._now = now

    def __repr__(self) -> str:
        return f"<ManualClock now={self._now:.3f} monotonic={self._monotonic:.3f}>"
