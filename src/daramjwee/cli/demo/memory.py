"""The peak of this process's memory over a stretch of work.

Threads: any; the figure is the whole process's.
Design: docs/cli.md
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from daramjwee.bench.timing import forget_peak, resident_bytes

RESET = "peak resident memory of this process during the step, above what it had before it"
NOT_RESET = "peak resident memory of this process in its life, above what it had before the step: an upper bound"
MAXRSS = "growth of the greatest resident memory of this process in the step (getrusage): what stayed below is not seen"


class Peak(NamedTuple):
    """Bytes, and what they are."""

    bytes: int
    means: str


class PeakMeter:
    """Measures from its making to `read`."""

    def __init__(self) -> None:
        self._reset = forget_peak()
        self._before = resident_bytes()
        self._most = _maxrss()

    def read(self) -> Peak:
        """The peak so far."""
        peak = resident_bytes("VmHWM")
        if peak is None or self._before is None:
            return Peak(_maxrss() - self._most, MAXRSS)
        return Peak(max(0, peak - self._before), RESET if self._reset else NOT_RESET)


def _maxrss() -> int:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
