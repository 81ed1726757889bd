"""Care of a pool: what is done between operations, so that memory comes back and somebody hears when something is wrong.

Invariant: one thread looks at a time; who is asked to looks itself, after a look that another has begun, and all others go
on; a change of pressure takes effect before it is told, and changes are told in order, each from the level that was told
before.
Threads: any. No lock of the pool is held while alerts go out.
Design: docs/design/pressure.md
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from daramjwee.buffers.ledger import NO_WAIT
from daramjwee.buffers.pressure import EFFECTS, NORMAL, PATIENCE_SECONDS

if TYPE_CHECKING:
    from daramjwee.buffers.chunks import Chunks
    from daramjwee.buffers.config import BufferPoolConfig
    from daramjwee.buffers.insight.monitor import Monitor
    from daramjwee.buffers.ledger import MemoryLedger
    from daramjwee.buffers.pressure import MemoryPressure, PressureLevel
    from daramjwee.buffers.stats import BufferPoolStats
    from daramjwee.model import Clock


# An alert on what was counted clears at the next look at the latest; one on a latency may hold as long as nothing is timed.
IDLE_LOOKS = 2
# So long (or `metrics_interval`, where that is less) a pool that holds nothing is looked after: what it is used for next may
# need no memory either, and a thread for each such copy would take ten times as long as the copy.
LINGER_SECONDS = 10.0


class Cared(Protocol):
    """The pool."""

    _chunks: Chunks
    _clock: Clock
    _config: BufferPoolConfig
    _ledger: MemoryLedger
    _pressure: PressureLevel

    @property
    def closed(self) -> bool: ...

    def _snapshot(self) -> BufferPoolStats: ...

    def _feel(self, level: PressureLevel) -> int: ...


class Care:
    """What one pool needs besides its operations."""

    def __init__(self, pool: Cared, pressure: MemoryPressure | None) -> None:
        self._pool = pool
        self._told: PressureLevel = NORMAL
        self._noted: PressureLevel = NORMAL
        self._sources = pressure
        self._monitor: Monitor | None = None
        self._looking = threading.Lock()
        self._looker = 0  # the thread that looks
        self._telling = threading.Lock()
        self._making = threading.Lock()
        self._aged_at = pool._clock.monotonic()
        self._idle_looks = 0
        self._idle_since: float | None = None

    @property
    def sources(self) -> MemoryPressure:
        """Where the pressure is read: made when it is first asked for."""
        if self._sources is None:
            from daramjwee.buffers.pressure import MemoryPressure

            made = MemoryPressure(ledger=self._pool._ledger, clock=self._pool._clock)
            with self._making:  # nothing is made in there: the collector could run a finalizer that asks here, too
                if self._sources is None:
                    self._sources = made
        return self._sources

    @property
    def monitor(self) -> Monitor:
        """Trends and alerts: made when they are first asked for."""
        if self._monitor is None:
            from daramjwee.buffers.insight.monitor import Monitor

            made = Monitor(self._pool._config.metrics_interval, clock=self._pool._clock)
            with self._making:  # as above
                if self._monitor is None:
                    self._monitor = made
        return self._monitor

    def follow(self, config: BufferPoolConfig) -> None:
        """Take over another configuration."""
        if self._monitor is not None:
            self._monitor.set_interval(config.metrics_interval)

    def tell(self, level: PressureLevel) -> int:
        """Take `level` for the least there is, until another is told; bytes given back."""
        self._told = level
        return self._be_under(max(level, self.sources.level))

    def _be_under(self, level: PressureLevel) -> int:
        pool = self._pool
        before = pool._pressure
        try:
            freed = pool._feel(level)
        except BaseException:  # an interrupt: as if nothing had been felt, so that the next look does all of it
            pool._pressure = before
            raise
        self._tell_changes()
        return freed

    @property
    def reason(self) -> str:
        """Why the level is what it is: the reading, or that the pool was told."""
        sources = self.sources
        return "as the pool was told" if self._told > sources.level else sources.reason

    @property
    def system_level(self) -> PressureLevel:
        """The level without what the ledger asks for."""
        return self._told if self._sources is None else max(self._told, self._sources.system_level)

    def note_refusal(self, what: str) -> None:
        """The system gave no memory: under CRITICAL pressure from this moment."""
        self.sources.note_refusal(what)
        if self._pool._pressure is not self.sources.level:
            self._be_under(self.sources.level)

    def _tell_changes(self) -> None:
        # Who finds the lock taken leaves it to the holder, who looks again after letting go.
        while self._noted is not self._pool._pressure:
            for _ in filter(None, map(self._telling.acquire, NO_WAIT)):
                try:
                    before, level = self._noted, self._pool._pressure
                    self._noted = level
                    if level is not before:
                        self.monitor.note_pressure(before, level, self.reason)
                finally:
                    self._telling.release()
                break
            else:
                return

    def maintain(self, now: float) -> int:
        """Do everything; bytes given back. Somebody asked for it, and may rely on what was so before: a look that another
        thread has begun may have read earlier, so it is let end first (unless it takes long: a callback)."""
        return self._age(now) + self._look(now, PATIENCE_SECONDS)

    def _age(self, now: float) -> int:
        self._aged_at = now
        return self._pool._chunks.maintain(now)

    def _look(self, now: float, patience: float = 0.0) -> int:
        """Look at the pressure and, when that is due, at the figures; bytes given back. One at a time: who finds another
        looking waits for `patience` seconds, and then has nothing to add."""
        freed = 0
        if self._looker == threading.get_ident():
            patience = 0.0  # from a callback of its own look
        for _ in filter(None, map(self._looking.acquire, (True,), (patience,))):
            try:
                self._looker = threading.get_ident()
                level = max(self.sources.poll(), self._told)
                if level is not self._pool._pressure:
                    freed = self._be_under(level)
                if self.monitor.due(now):
                    self._idle_looks += 1
                    self.monitor.look(self._pool._snapshot(), now)
            finally:
                self._looker = 0
                self._looking.release()
        return freed

    def look_after(self, now: float) -> float | None:
        """Do what is due; seconds until the next time, None when nothing is held and nothing is wrong."""
        pool = self._pool
        if pool.closed:
            return None
        config = pool._config
        # Twice in an interval: whatever is idle is seen within half of one, and gone within the other half.
        interval = min(config.max_idle_age, config.metrics_interval) / 2
        if now - self._aged_at >= interval or not EFFECTS[pool._pressure].keeps_idle:
            self._age(now)
        self._look(now)
        chunks = pool._chunks
        if chunks.mapped or chunks.private or chunks.lost or pool._pressure is not NORMAL:
            self._idle_looks = 0
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= min(LINGER_SECONDS, config.metrics_interval) and (
            self._idle_looks >= IDLE_LOOKS or not self.monitor.active
        ):
            self._idle_since = None  # who uses it again is looked after as long
            return None
        return min(interval, self.sources.interval)

    def after_fork(self) -> None:
        """In the child: nobody looks, and nothing was seen yet."""
        self._looking = threading.Lock()
        self._looker = 0
        self._telling = threading.Lock()
        self._making = threading.Lock()
        if self._monitor is not None:
            self._monitor.after_fork()
