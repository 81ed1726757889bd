"""Memory pressure: how short memory is, in four levels, and what each level changes.

Invariant: a source that is missing, unreadable or garbled is left out and named in `sources`; no reading raises.
Threads: any. `poll` is done by one thread at a time, the others wait for it, a second at most; nothing else waits or reads.
Design: docs/design/pressure.md
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.buffers.ledger import MemoryLedger, reset_after_fork
from daramjwee.buffers.pressure_kernel import (
    CRITICAL,
    NORMAL,
    Measure,
    PressureLevel,
    Reading,
    State,
    Thresholds,
    refuse,
    step,
)
from daramjwee.buffers.pressure_sources import Source, Sources
from daramjwee.errors import ConfigError, Problem
from daramjwee.model import SYSTEM_CLOCK, Clock
from daramjwee.units import KIB, parse_duration

if TYPE_CHECKING:
    from daramjwee.units import Duration

__all__ = [
    "EFFECTS",
    "NORMAL",
    "Effect",
    "Measure",
    "MemoryPressure",
    "PressureLevel",
    "Reading",
    "Source",
    "Thresholds",
]


# A reading takes less than a millisecond. Who asks while another thread reads wants what is so now, which that thread may have
# passed already: it waits and looks itself, but not for a file that hangs.
PATIENCE_SECONDS = 1.0


class Effect(NamedTuple):
    """What a level changes.

    `most_chunk`: the largest chunk that is chosen (a `chunk_size` that was given is obeyed at every level), None for no
    bound. `keeps_idle`: whether memory nobody uses is kept for reuse until it is old. `kernel_first`: whether a file is
    copied to a file by the kernel, which is slower here and needs no memory. `promotes`: whether a hit in a lower tier is
    copied to an upper one. `reads_ahead`: pieces that a fill without a staging keeps for its slowest reader; with 0 the
    next is read when all have read the last. `large_operations`: the share of `max_concurrent_large_ops` that may run;
    one always may.
    """

    most_chunk: int | None
    keeps_idle: bool
    kernel_first: bool
    promotes: bool
    reads_ahead: int
    large_operations: float


# Chunks of 128 KiB cost 5-12 %, of 64 KiB 15-25 % (docs/design/memory.md): small, beside being refused.
EFFECTS: tuple[Effect, ...] = (
    Effect(None, keeps_idle=True, kernel_first=False, promotes=True, reads_ahead=4, large_operations=1.0),  # NORMAL
    Effect(256 * KIB, keeps_idle=True, kernel_first=False, promotes=True, reads_ahead=2, large_operations=1.0),
    Effect(128 * KIB, keeps_idle=False, kernel_first=True, promotes=False, reads_ahead=1, large_operations=0.5),
    Effect(64 * KIB, keeps_idle=False, kernel_first=True, promotes=False, reads_ahead=0, large_operations=0.25),
)


class MemoryPressure:
    """How short memory is, read from what the system offers, and from a ledger.

    `root`: the folder below which `proc` and `sys` lie. `ledger`: whose bound counts too. `interval`: `poll` reads at
    most so often (a duration). `thresholds`: which share of what is which level. `clock`: for tests. Nothing is read before
    the first `poll`.
    """

    fork_order = 2

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] = "/",
        ledger: MemoryLedger | None = None,
        thresholds: Thresholds = Thresholds(),  # noqa: B008 - immutable
        interval: Duration = 1.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        problems = []
        try:
            self._interval = parse_duration(interval)
        except ValueError as error:
            problems.append(Problem("interval", interval, str(error)))
        if not isinstance(root, (str, os.PathLike)):
            problems.append(Problem("root", root, "must be the path of a folder"))
        if not (ledger is None or isinstance(ledger, MemoryLedger)):
            problems.append(Problem("ledger", ledger, "must be a MemoryLedger, or None"))
        if not isinstance(thresholds, Thresholds):
            problems.append(Problem("thresholds", thresholds, "must be Thresholds(...)"))
        if problems:
            raise ConfigError(problems, subject="MemoryPressure")
        # Of today: a forked child may be in another folder when it looks anew.
        self._root = os.path.abspath(root)
        self._ledger = ledger
        self._thresholds = thresholds
        self._clock = clock
        self._state = self._system = State()
        self._readings: tuple[Reading, ...] = ()
        self._begin()
        reset_after_fork(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._reader = 0  # the thread that reads
        self._refusals: deque[str] = deque(maxlen=1)  # the last one says enough
        self._sources = Sources(self._root, self._ledger)
        self._read_at: float | None = None

    @property
    def level(self) -> PressureLevel:
        """The level as it was last known. Reads nothing."""
        return CRITICAL if self._refusals else self._state.level

    @property
    def system_level(self) -> PressureLevel:
        """The same without the ledger: how short memory is outside of it. Reads nothing."""
        return CRITICAL if self._refusals else self._system.level

    @property
    def reason(self) -> str:
        """Why: the reading that asked for the level, with its figures; "" at NORMAL."""
        try:
            return f"refusal: {self._refusals[-1]}"
        except IndexError:
            return self._state.reason

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What was read last, one for each source."""
        return self._readings

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where readings come from, and what was looked for and not found, with the reason. Looks, if nobody has yet."""
        return self._sources.found

    @property
    def thresholds(self) -> Thresholds:
        return self._thresholds

    @property
    def interval(self) -> float:
        """Seconds between two readings, at least."""
        return self._interval

    def poll(self, *, force: bool = False) -> PressureLevel:
        """Read the sources, if that is due or `force` is given, and say the level. Never raises for what it reads."""
        now = self._clock.monotonic()
        if not force and self._read_at is not None and now - self._read_at < self._interval:
            return self.level
        # A signal or the collector may ask in the midst of this thread's own reading.
        patience = 0.0 if self._reader == threading.get_ident() else PATIENCE_SECONDS
        # A loop over `map`, as in the ledger: no interrupt can leave the lock taken.
        for _ in filter(None, map(self._lock.acquire, (True,), (patience,))):
            try:
                self._reader = threading.get_ident()
                if (
                    force or self._read_at is None or now - self._read_at >= self._interval
                ):  # still: another may have read
                    self._read_at = now
                    self._read(now)
            except MemoryError:
                self.note_refusal("there was no memory to read how much there is")
            finally:
                self._reader = 0
                self._lock.release()
        return self.level

    def _read(self, now: float) -> None:
        samples = self._sources.read(now)
        while self._refusals:
            # The state first: there is no moment between the two at which the level is not CRITICAL.
            self._state = refuse(self._state, self._refusals[0])
            self._system = refuse(self._system, self._refusals[0])
            self._refusals.popleft()
        self._state, self._readings = step(self._state, samples, now, self._thresholds)
        outside = [sample for sample in samples if sample.measure is not Measure.LEDGER]
        self._system, _ = step(self._system, outside, now, self._thresholds)

    def note_refusal(self, what: str = "the system refused memory") -> None:
        """An allocation failed (`what` says it): CRITICAL from this moment, and back by the rule for all. Takes no lock."""
        self._refusals.append(what)

    def _after_fork_in_child(self) -> None:
        self._begin()

    def __repr__(self) -> str:
        found = ", ".join(source.name for source in self.sources if source.found)
        reason = f" ({self.reason})" if self.reason else ""
        return f"<MemoryPressure {self.level.name}{reason}, reads {found or 'nothing'}>"
