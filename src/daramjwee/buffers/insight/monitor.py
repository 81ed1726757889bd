"""The monitor of a pool: looks at its figures now and then, keeps trends, raises and clears alerts.

Invariant: memory is bounded, however long it runs. One look at a time: who comes meanwhile returns at once. A callback
runs without a lock held, so it may call the pool and the monitor; what it raises is logged once for each rule and counted,
and spoils neither this look nor later ones.
Threads: any. `_lock` guards what is watched, trends and recent alerts; `_looking` is only ever tried.
Design: docs/monitoring.md
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from daramjwee.buffers.insight.alerts import (
    CALM,
    CLEARED,
    RAISED,
    Alert,
    AlertRule,
    AlertState,
    RuleState,
    alert_of,
    step,
)
from daramjwee.buffers.insight.finding import Severity
from daramjwee.buffers.insight.metrics import METRICS, start_of, unknown_metric
from daramjwee.buffers.insight.trend import DEFAULT_KEEP, Trend, parse_interval
from daramjwee.buffers.ledger import NO_WAIT
from daramjwee.buffers.pressure import NORMAL, PressureLevel
from daramjwee.errors import ConfigError, LimitExceeded, Problem
from daramjwee.model import SYSTEM_CLOCK, Clock
from daramjwee.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daramjwee.buffers.stats import BufferPoolStats
    from daramjwee.units import Duration

logger = logging.getLogger(__name__)

Callback: TypeAlias = Callable[[Alert], object]

KEPT_ALERTS = 256
# A trend of 360 points takes about 70 KiB (190 bytes a point).
MOST_TRENDS = 256
# Rules whose failing callbacks are logged, each once.
MOST_FAILED = 256

# What a sound program never does, and what fails its requests. Figures that are high because the pool works hard (a full
# ledger, a waiting line, page faults) are no fault in themselves, and differ from program to program: no rule.
DEFAULT_RULES = (
    # Work failed: a caller got `Overloaded`.
    AlertRule("overloads", 0, severity=Severity.CRITICAL),
    AlertRule("gate_refused", 0, severity=Severity.CRITICAL),
    AlertRule("gate_timed_out", 0, severity=Severity.CRITICAL),
    # The pool helped itself, with less memory than it asked for; the next request may find none at all.
    AlertRule("refusals", 0),
    # Slips of the program: a lease or a place in the gate never given back, a view that outlives its lease.
    AlertRule("lost_leases", 0),
    AlertRule("gate_lost", 0),
    AlertRule("quarantined", 0),
)
# Pressure is told at each change, not looked for; so its cooldown is none.
PRESSURE_RULE = AlertRule("pressure", NORMAL, cooldown=0)
_PRESSURE_SEVERITY = (Severity.INFO, Severity.INFO, Severity.WARNING, Severity.CRITICAL)

_LOG_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.ERROR}


class _Listener:
    """What one call of `watch` or `listen` asked for: told apart from another of the same function, to be stopped alone."""

    __slots__ = ("call", "stopped")

    def __init__(self, call: Callback | None) -> None:
        self.call = call
        self.stopped = False


class _Watch:
    """A rule that is looked at while it has listeners. `alert`: the one that holds. All of it is changed under the lock."""

    __slots__ = ("alert", "listeners", "rule", "state")

    def __init__(self, rule: AlertRule) -> None:
        self.rule = rule
        self.listeners: list[_Listener] = []
        self.forget()

    def forget(self) -> None:
        self.state: RuleState = CALM
        self.alert: Alert | None = None


class Monitor:
    """Trends and alerts of one pool, at `pool.monitor`.

    `interval`: how often it looks (`metrics_interval` of the pool, a duration); `rules`: those that are watched from the start.
    `clock`: for tests.
    """

    def __init__(
        self, interval: Duration, *, clock: Clock = SYSTEM_CLOCK, rules: Iterable[AlertRule] = DEFAULT_RULES
    ) -> None:
        self._interval = _parse(interval, "Monitor")
        self._clock = clock
        self._watches: dict[AlertRule, _Watch] = {}
        self._listeners: list[_Listener] = []
        self._trends: dict[tuple[str, float | None, int], Trend] = {}
        self._begin()
        for rule in rules:
            self.watch(rule)

    def _begin(self) -> None:
        # Reentrant: the collector may run a finalizer in there that uses the pool, which may tell of a change of pressure.
        # So what can change is copied in one step before anybody walks over it.
        self._lock = threading.RLock()
        self._looking = threading.Lock()
        self._before: BufferPoolStats | None = None
        self._looked_at: float | None = None
        self._recent: deque[Alert] = deque(maxlen=KEPT_ALERTS)
        self._told: dict[str, Alert] = {}  # by metric, so that it cannot grow without end
        self._failed: set[AlertRule] = set()
        self._failures = 0

    # -- what is looked at -------------------------------------------------------------------------------

    def watch(self, rule: AlertRule, callback: Callback | None = None) -> Callable[[], None]:
        """Judge `rule` at every look; its alerts go to the log, to `alerts`, and to `callback(alert)`. Returns what ends
        that, when called. A rule equal to one that is watched already is judged once, for both. `ConfigError` for what is no
        rule."""
        if not isinstance(rule, AlertRule):
            raise ConfigError([Problem("rule", rule, "must be an AlertRule")], subject="Monitor.watch")
        listener = _Listener(None if callback is None else _checked(callback, "Monitor.watch"))
        with self._lock:
            watch = self._watches.get(rule)
            if watch is None:
                watch = self._watches[rule] = _Watch(rule)
            watch.listeners.append(listener)

        def stop() -> None:
            """Watch this no more. A call that is under way goes on."""
            with self._lock:
                if listener.stopped:
                    return
                listener.stopped = True
                watch.listeners.remove(listener)
                if not watch.listeners:
                    del self._watches[rule]
                    self._failed.discard(rule)

        return stop

    def listen(self, callback: Callback) -> Callable[[], None]:
        """Have `callback(alert)` called for every alert: of all rules that are watched, and changes of pressure. Returns
        what ends that, when called."""
        listener = _Listener(_checked(callback, "Monitor.listen"))
        with self._lock:
            self._listeners.append(listener)

        def stop() -> None:
            """Listen no more. A call that is under way goes on."""
            with self._lock:
                if not listener.stopped:
                    listener.stopped = True
                    self._listeners.remove(listener)

        return stop

    def trend(self, metric: str, *, interval: Duration | None = None, keep: int = DEFAULT_KEEP) -> Trend:
        """How `metric` goes from now on: one value for each look. The same trend is given to all who ask for the same.
        `interval`: of its points (a duration), None as long as that of the looks is now; `keep`: of how many it is remembered.
        `ConfigError` for an unknown metric, `LimitExceeded` for more trends than a pool keeps."""
        unknown = unknown_metric(metric)
        if unknown is not None:
            raise ConfigError([unknown], subject="Monitor.trend")
        seconds = None if interval is None else _parse(interval, "Monitor.trend")
        made = Trend(interval=self._interval if seconds is None else seconds, keep=keep)
        with self._lock:
            found = self._trends.get((metric, seconds, keep))
            if found is not None:
                return found
            if len(self._trends) >= MOST_TRENDS:
                raise LimitExceeded(
                    f"a monitor keeps {MOST_TRENDS} trends at most, a further one of {metric} is not begun: ask for fewer "
                    "different intervals and lengths, or keep a Trend of your own"
                )
            return self._trends.setdefault((metric, seconds, keep), made)

    # -- looking -----------------------------------------------------------------------------------------

    @property
    def interval(self) -> float:
        """Seconds between two looks."""
        return self._interval

    def set_interval(self, seconds: Duration) -> None:
        """Look every so many `seconds` (a duration) from now on. Trends that were begun keep the interval they have."""
        self._interval = _parse(seconds, "Monitor.set_interval")

    def due(self, now: float) -> bool:
        """Whether it is time for a look. `now`: seconds of the clock that never goes back."""
        return self._looked_at is None or now - self._looked_at >= self._interval

    def look(self, stats: BufferPoolStats, now: float) -> None:
        """Judge `stats` of the pool, taken `now` (seconds), against those before. Counters must go on from look to look."""
        looking = self._looking
        for _ in filter(None, map(looking.acquire, NO_WAIT)):
            try:
                for alert in self._judge(stats, now):
                    self._announce(alert)
            finally:
                looking.release()

    def _judge(self, stats: BufferPoolStats, now: float) -> list[Alert]:
        """What is new, noted already."""
        before = start_of(stats) if self._before is None else self._before
        self._before, self._looked_at = stats, now
        values: dict[str, float] = {}

        def value_of(metric: str) -> float:
            value = values.get(metric)
            if value is None:
                value = values[metric] = METRICS[metric].read(stats, before)
            return value

        with self._lock:
            trends = list(self._trends.items())
            watches = list(self._watches.values())
        for (metric, _, _), trend in trends:
            trend.add(value_of(metric), now)
        at = self._clock.now()
        news = []
        for watch in watches:
            value = value_of(watch.rule.metric)
            state, turn = step(watch.rule, watch.state, value, now)
            if turn is None:
                continue
            alert = alert_of(watch.rule, turn, value, at)
            with self._lock:
                if watch.listeners:  # else it was stopped meanwhile
                    watch.state, watch.alert = state, alert if turn is RAISED else None
                    self._recent.append(alert)
                    news.append(alert)
        return news

    # -- alerts ------------------------------------------------------------------------------------------

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """The last 256 alerts, raised and cleared, oldest first."""
        with self._lock:
            return tuple(self._recent)

    @property
    def active(self) -> tuple[Alert, ...]:
        """The alerts that hold now."""
        with self._lock:
            told, watches = list(self._told.values()), list(self._watches.values())
        return (*told, *(alert for watch in watches if (alert := watch.alert) is not None))

    @property
    def callback_failures(self) -> int:
        """How often a callback raised."""
        return self._failures

    def tell(self, alert: Alert) -> None:
        """Pass on an `alert` that came about elsewhere: it is logged, listed, and told to who listens. Raised, it is active
        until one of the same metric is told as cleared."""
        with self._lock:
            if alert.state is RAISED:
                self._told[alert.metric] = alert
            else:
                self._told.pop(alert.metric, None)
            self._recent.append(alert)
        self._announce(alert)

    def note_pressure(self, before: PressureLevel, level: PressureLevel, reason: str) -> None:
        """Tell of a change of memory pressure, from `before` to `level`, and the `reason`. It is raised, at whatever level, until
        that is NORMAL again."""
        state: AlertState = CLEARED if level is NORMAL else RAISED
        way = "rose" if level > before else "fell"
        message = f"memory pressure {way} from {before.name} to {level.name}" + (f": {reason}" if reason else "")
        severity = _PRESSURE_SEVERITY[before if state is CLEARED else level]
        alert = Alert(
            rule=PRESSURE_RULE, metric=PRESSURE_RULE.metric, state=state, value=float(level),
            threshold=PRESSURE_RULE.threshold, severity=severity, at=self._clock.now(), message=message,
        )  # fmt: skip
        self.tell(alert)

    def _announce(self, alert: Alert) -> None:
        """To the log, then to callbacks. No lock is held."""
        logger.log(
            _LOG_LEVELS[alert.severity] if alert.state is RAISED else logging.INFO,
            "%s",
            alert.message,
            extra={
                "event": "pool.alert", "metric": alert.metric, "state": alert.state.value, "value": alert.value,
                "threshold": alert.threshold, "severity": alert.severity.value,
            },
        )  # fmt: skip
        with self._lock:
            watch = self._watches.get(alert.rule)
            listeners = [*(watch.listeners if watch is not None else ()), *self._listeners]
        for listener in listeners:
            if listener.call is None or listener.stopped:
                continue
            try:
                listener.call(alert)
            except Exception as error:  # noqa: BLE001 - the program's own code; it concerns neither us nor who else listens
                self._note_failure(alert, error)

    def _note_failure(self, alert: Alert, error: Exception) -> None:
        with self._lock:
            self._failures += 1
            first = alert.rule not in self._failed and len(self._failed) < MOST_FAILED
            if first:
                self._failed.add(alert.rule)
        if first:
            logger.error(
                "a callback for the alert on %s failed; it is called again, its next failures are only counted",
                alert.metric,
                exc_info=error,
                extra={"event": "pool.alert_callback_failed", "metric": alert.metric},
            )

    # -- fork --------------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """In a forked child: look afresh. Rules, callbacks and trends stay; what the parent's pool did is forgotten."""
        self._begin()
        for watch in self._watches.values():
            watch.forget()
        for trend in self._trends.values():
            trend.clear()

    def __repr__(self) -> str:
        return (
            f"<Monitor every {self._interval:g}s, {counted(len(self._watches), 'rule')}, {counted(len(self._trends), 'trend')}, "
            f"{counted(len(self.active), 'alert')} active>"
        )


def _parse(interval: Duration, call: str) -> float:
    try:
        return parse_interval(interval)
    except ValueError as error:
        raise ConfigError([Problem("interval", interval, str(error))], subject=call) from None


def _checked(callback: Callback, call: str) -> Callback:
    from inspect import iscoroutinefunction

    if not callable(callback):
        raise ConfigError([Problem("callback", callback, "must be callable, with the alert as argument")], subject=call)
    if iscoroutinefunction(callback):
        mend = "is a coroutine function, which nobody would await; give a function that hands over to your loop"
        raise ConfigError([Problem("callback", callback, mend)], subject=call)
    return callback
