"""Alerts: a figure has gone beyond a threshold, or has come back.

Invariant: of one rule, raised and cleared take turns, and no two are raised within its cooldown.
Pure: values in, values out.
Design: docs/monitoring.md
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import msgspec

from daramjwee.buffers.insight.finding import Severity
from daramjwee.buffers.insight.metrics import METRICS, format_metric, unknown_metric
from daramjwee.errors import ConfigError, Problem
from daramjwee.units import parse_duration

if TYPE_CHECKING:
    from daramjwee.units import Duration

_Choice = TypeVar("_Choice", bound=enum.Enum)


class Direction(enum.StrEnum):
    """On which side of its threshold a figure is too far. The threshold itself is not."""

    ABOVE = "above"
    BELOW = "below"


class AlertState(enum.StrEnum):
    """RAISED: beyond the threshold now. CLEARED: back again, by the hysteresis at least."""

    RAISED = "raised"
    CLEARED = "cleared"


# On which side, cleared, and raised: hoisted, as a member costs 95 ns to look up.
ABOVE, BELOW = Direction.ABOVE, Direction.BELOW
RAISED, CLEARED = AlertState.RAISED, AlertState.CLEARED

# What to do about figures that mean a fault when they are above 0, in the words of a log line: who reads one may have no
# pool at hand to ask. `pool.health()` says more.
REMEDIES = {
    "overloads": "release leases earlier, or raise max_pool_bytes (memory_limit of a cache)",
    "gate_refused": "start fewer at once, or raise max_queued_large_ops",
    "gate_timed_out": "raise max_concurrent_large_ops or acquire_timeout, or see what those under way wait for",
    "refusals": "raise the memory limits of the process or its container; `daramjwee doctor` names them",
    "lost_leases": "release each lease, best with `with`; leak_detection says where they were taken",
    "gate_lost": "release each slot and lease, best with `with`",
    "quarantined": "keep no slice of a lease's view beyond its release",
}


class _Subject(msgspec.Struct, frozen=True):
    metric: str
    threshold: float


class AlertRule(_Subject, frozen=True, kw_only=True):
    """When to raise an alert.

    `metric`: a name of `METRICS` (docs/monitoring.md has the table). `direction`: raised when its value is "above" or
    "below" `threshold`. Cleared when it is back at the threshold, or beyond it by `hysteresis`, in the unit of the metric.
    `cooldown`: after it was raised it is not raised again for that long; if the value is still beyond then, it is.
    `severity`: "warning", "critical" or "info".

    `ConfigError` lists every problem found.
    """

    direction: Direction = ABOVE
    hysteresis: float = 0.0
    cooldown: float = 60.0
    severity: Severity = Severity.WARNING

    if TYPE_CHECKING:
        # What may be given is wider than what is kept.
        def __init__(
            self,
            metric: str,
            threshold: float,
            *,
            direction: Direction | Literal["above", "below"] = ...,
            hysteresis: float = 0.0,
            cooldown: Duration = ...,
            severity: Severity | Literal["info", "warning", "critical"] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        unknown = unknown_metric(self.metric)
        if unknown is not None:
            problems.append(unknown)
        for field, parse in _PARSERS.items():
            value = getattr(self, field)
            try:
                msgspec.structs.force_setattr(self, field, parse(value))
            except ValueError as error:
                problems.append(Problem(field, value, str(error)))
        if problems:
            raise ConfigError(problems, subject="AlertRule")

    @property
    def clears_at(self) -> float:
        """Where the value has to come back to."""
        return self.threshold + (self.hysteresis if self.direction is BELOW else -self.hysteresis)

    def __str__(self) -> str:
        return f"{self.metric} {self.direction.value} {format_metric(self.metric, self.threshold)}"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """The alert of a `rule` was raised, or cleared (`state`).

    `metric`: what was judged, `value`: how it was, in the unit of the metric, beside its `threshold`. `severity`: that of the
    rule. `at`: wall-clock seconds since the epoch. `message`: all of it in words.
    """

    rule: AlertRule
    metric: str
    state: AlertState
    value: float
    threshold: float
    severity: Severity
    at: float
    message: str

    def __str__(self) -> str:
        return f"{self.severity.value}: {self.message}"


class RuleState(NamedTuple):
    """What is remembered of a rule between two looks. `raised_at`: when it was raised last, whether it has been cleared
    since or not; None: never."""

    raised: bool = False
    raised_at: float | None = None


CALM = RuleState()


def step(rule: AlertRule, state: RuleState, value: float | None, now: float) -> tuple[RuleState, AlertState | None]:
    """The state after `value` was seen `now` (seconds of a clock that never goes back), and what that means: raised,
    cleared, or (None) nothing new. A value of None or nan says nothing."""
    if value is None or math.isnan(value):
        return state, None
    if state.raised:
        back = value <= rule.clears_at if rule.direction is ABOVE else value >= rule.clears_at
        return (RuleState(False, state.raised_at), CLEARED) if back else (state, None)
    beyond = value > rule.threshold if rule.direction is ABOVE else value < rule.threshold
    if not beyond or (state.raised_at is not None and now - state.raised_at < rule.cooldown):
        return state, None
    return RuleState(True, now), RAISED


def alert_of(rule: AlertRule, state: AlertState, value: float, at: float) -> Alert:
    """The alert that says so."""
    threshold = format_metric(rule.metric, rule.threshold)
    beyond = (
        f"{rule.direction.value} {threshold}" if state is RAISED else f"no longer {rule.direction.value} {threshold}"
    )
    message = f"{rule.metric} is {format_metric(rule.metric, value)}, {beyond} ({METRICS[rule.metric].description})"
    if state is RAISED and rule.direction is ABOVE and rule.metric in REMEDIES:
        message += f": {REMEDIES[rule.metric]}"
    return Alert(
        rule=rule, metric=rule.metric, state=state, value=value, threshold=rule.threshold, severity=rule.severity, at=at,
        message=message,
    )  # fmt: skip


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise ValueError("must be a finite number, in the unit of the metric")
    return float(value)


def _hysteresis(value: Any) -> float:
    number = _finite(value)
    if number < 0:
        raise ValueError("must not be negative: it is how far beyond the threshold the value must come back")
    return number


def _choice(value: Any, kind: type[_Choice]) -> _Choice:
    try:
        return kind(value.strip().lower() if isinstance(value, str) else value)
    except ValueError:
        raise ValueError(f"must be one of {', '.join(repr(member.value) for member in kind)}") from None


# Half of the largest float, so that threshold and hysteresis together are finite.
_LARGEST = math.ldexp(1.0, 1022)
_PARSERS: dict[str, Any] = {
    "threshold": _finite,
    "direction": lambda value: _choice(value, Direction),
    "hysteresis": _hysteresis,
    "cooldown": parse_duration,
    "severity": lambda value: _choice(value, Severity),
}
