"""What readings of memory mean: which level they ask for, and when a level is left again. Pure, without a clock.

Invariant: a level is entered by the first readings that ask for it, and left one step at a time, each after
`calm_seconds` in which no reading came near it. So a time T sees at most T / calm_seconds falls, and three rises more
than that.
Threads: values only.
Design: docs/design/pressure.md
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from daramjwee.errors import ConfigError, Problem
from daramjwee.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from daramjwee.units import Duration


class PressureLevel(enum.IntEnum):
    """How short memory is. Levels compare: `level >= PressureLevel.HIGH`."""

    NORMAL = 0
    ELEVATED = 1
    HIGH = 2
    CRITICAL = 3


# A member costs 95 ns to look up, a module's name 10.
NORMAL, ELEVATED, HIGH, CRITICAL = PressureLevel

# For ELEVATED, HIGH and CRITICAL.
Shares: TypeAlias = tuple[float, float, float]

# Longer than this is a slip of the unit.
LONGEST_SECONDS = 86400.0


class Measure(enum.Enum):
    """What a share is a share of.

    LIMIT: working set of the limit of a control group. THROTTLE: the same of `memory.high`. MACHINE: memory that is not
    available, of the whole machine. SOME, FULL: time in which some, or all, tasks stood still for want of memory.
    LEDGER: what the ledger holds, of its limit.
    """

    LIMIT = "limit"
    THROTTLE = "throttle"
    MACHINE = "machine"
    SOME = "some"
    FULL = "full"
    LEDGER = "ledger"


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """From which share on a reading asks for ELEVATED, HIGH and CRITICAL. Where each comes from: docs/design/pressure.md.

    `limit_share`: working set of the limit of the control group; `memory.high` uses the first two. `machine_share`: what
    is not available, of the machine's memory. `stall_some`, `stall_full`: share of the last 10 s in which some, or all,
    tasks waited for memory. `ledger_share`: held of the ledger's limit; asks for ELEVATED at most. `wait_seconds`: after
    that, requests still waiting for the ledger are CRITICAL (until then HIGH).
    A level is left when no reading has come within `share_margin` (below the threshold, in shares; stalls:
    `stall_margin` of the threshold) for `calm_seconds`.
    """

    limit_share: Shares = (0.80, 0.90, 0.95)
    machine_share: Shares = (0.85, 0.90, 0.95)
    stall_some: Shares = (0.10, 0.30, 0.60)
    stall_full: Shares = (0.05, 0.10, 0.30)
    ledger_share: float = 0.95
    wait_seconds: float = 10.0
    share_margin: float = 0.03
    stall_margin: float = 0.3
    calm_seconds: float = 10.0

    if TYPE_CHECKING:
        # What may be given is wider than what is kept.
        def __init__(
            self,
            *,
            limit_share: Iterable[float] = ...,
            machine_share: Iterable[float] = ...,
            stall_some: Iterable[float] = ...,
            stall_full: Iterable[float] = ...,
            ledger_share: float = 0.95,
            wait_seconds: Duration = 10.0,
            share_margin: float = 0.03,
            stall_margin: float = 0.3,
            calm_seconds: Duration = 10.0,
        ) -> None: ...

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        for field, parse in _PARSERS.items():
            given = getattr(self, field)
            try:
                msgspec.structs.force_setattr(self, field, parse(given))
            except (ValueError, TypeError, OverflowError) as error:
                problems.append(Problem(field, given, str(error)))
        faulty = {problem.field for problem in problems}
        for field, margin in _MARGINS.items():
            if not faulty & {field, margin}:
                problems += self._contradictions(field)
        if problems:
            raise ConfigError(problems, subject="Thresholds")

    def _contradictions(self, field: str) -> Iterator[Problem]:
        """A margin as wide as a step between two levels would keep the upper one where the lower is not even reached."""
        below = 0.0
        for share in self.row(field):
            if share - self.margin(field, share) <= below:
                mend = f"{_MARGINS[field]} reaches from {share} down to {below}; lower it, or spread the shares"
                yield Problem(field, getattr(self, field), mend)
                return
            below = share

    def row(self, field: str) -> tuple[float, ...]:
        """The shares of `field` at which the levels begin, from ELEVATED on."""
        row = getattr(self, field)
        return row if isinstance(row, tuple) else (row,)

    def margin(self, field: str, share: float) -> float:
        """How far below `share` of `field` the level is left that begins there."""
        return self.share_margin if _MARGINS[field] == "share_margin" else share * self.stall_margin


def _shares(value: Any) -> Shares:
    row = tuple(_share(share) for share in value) if isinstance(value, (tuple, list)) else ()
    if len(row) != 3 or not row[0] < row[1] < row[2]:
        raise ValueError("must be three shares that rise, for ELEVATED, HIGH and CRITICAL, such as (0.80, 0.90, 0.95)")
    return row


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ValueError("must be a share: a number above 0, at most 1")
    return float(value)


def _margin(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError("must be a share: a number from 0 to less than 1")
    return float(value)


def _seconds(value: Any) -> float:
    seconds = parse_duration(value)
    if not 0 < seconds <= LONGEST_SECONDS:
        raise ValueError("must be above 0 and at most a day (1d); mind the unit")
    return seconds


_PARSERS: dict[str, Callable[[Any], object]] = {
    "limit_share": _shares,
    "machine_share": _shares,
    "stall_some": _shares,
    "stall_full": _shares,
    "ledger_share": _share,
    "wait_seconds": _seconds,
    "share_margin": _margin,
    "stall_margin": _margin,
    "calm_seconds": _seconds,
}
_MARGINS = {
    "limit_share": "share_margin",
    "machine_share": "share_margin",
    "stall_some": "stall_margin",
    "stall_full": "stall_margin",
    "ledger_share": "share_margin",
}
# Which field judges a measure, and the highest level that its share alone may ask for. Beyond `memory.high` the kernel
# slows who allocates and kills nobody; and what tunes it to the working set keeps it nearly full on purpose.
_JUDGES = {
    Measure.LIMIT: ("limit_share", CRITICAL),
    Measure.THROTTLE: ("limit_share", HIGH),
    Measure.MACHINE: ("machine_share", CRITICAL),
    Measure.SOME: ("stall_some", CRITICAL),
    Measure.FULL: ("stall_full", CRITICAL),
    Measure.LEDGER: ("ledger_share", ELEVATED),
}
# Events that say somebody was killed, or would have been; and those that only say that a limit was met, which page
# cache does all day where files are streamed.
KILLS = frozenset({"oom", "oom_kill", "oom_group_kill"})
HITS = frozenset({"max", "high", "failcnt"})
FALLING = "falling: "


class Sample(NamedTuple):
    """What one source says at one moment. `counts`: events since its beginning; `waiting`: requests in line."""

    source: str
    measure: Measure
    share: float
    detail: str
    group: str = ""
    counts: tuple[tuple[str, int], ...] = ()
    waiting: int = 0


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one `source` said, and the `level` it asks for.

    `share`: of what, says `measure`; above 1 where a limit was lowered below what is held. `detail`: the figures, in
    words. `group`: the control group, where it is one's. `events`: what was counted since the reading before.
    """

    source: str
    measure: Measure
    share: float
    detail: str
    group: str = ""
    events: dict[str, int] = {}
    level: PressureLevel = NORMAL

    def __str__(self) -> str:
        events = "".join(f", {name} +{count}" for name, count in self.events.items())
        return f"{self.source}: {self.detail}{events}"


class State(NamedTuple):
    """What is remembered between readings. `calm_since`: since when no reading has come near the level; `waiting_since`:
    since when somebody has been in the ledger's line at every look; `seen`: the counts of events, by their places."""

    level: PressureLevel = NORMAL
    reason: str = ""
    calm_since: float | None = None
    waiting_since: float | None = None
    seen: tuple[tuple[tuple[str, str, str], int], ...] = ()


def step(
    state: State, samples: Iterable[Sample], now: float, thresholds: Thresholds
) -> tuple[State, tuple[Reading, ...]]:
    """The state after one look, and what was read. `now`: seconds that never go back."""
    samples = tuple(samples)
    seen = dict(state.seen)
    waiting = any(sample.waiting for sample in samples)
    since = None if not waiting else now if state.waiting_since is None else state.waiting_since
    long = since is not None and now - since >= thresholds.wait_seconds
    readings, asked, near = [], NORMAL, NORMAL
    top: Reading | None = None
    for sample in samples:
        events = _since(sample, seen)
        reading, held = _judge(sample, events, long, thresholds)
        readings.append(reading)
        if reading.level > asked:
            asked, top = reading.level, reading
        near = max(near, held)
    counts = tuple(((s.source, s.group, name), count) for s in samples for name, count in s.counts)
    level, reason, calm = state.level, state.reason, state.calm_since
    if asked > level or (top is not None and asked == level):
        level, reason, calm = asked, str(top), None
    elif near >= level:
        calm = None
    elif calm is None:
        calm = now
    elif now - calm >= thresholds.calm_seconds:
        level, calm = _BELOW[level], now
        reason = (
            (str(top) if top is not None and asked == level else FALLING + reason.removeprefix(FALLING))
            if level
            else ""
        )
    return State(level, reason, calm if level else None, since, counts), tuple(readings)


def refuse(state: State, what: str = "the system refused memory") -> State:
    """The state after an allocation has failed."""
    return state._replace(level=CRITICAL, reason=f"refusal: {what}", calm_since=None)


_BELOW = (NORMAL, NORMAL, ELEVATED, HIGH)


def _since(sample: Sample, seen: Mapping[tuple[str, str, str], int]) -> dict[str, int]:
    """Events counted since the look before. A counter that is new, or was set back, begins anew."""
    events = {}
    for name, count in sample.counts:
        before = seen.get((sample.source, sample.group, name))
        if before is not None and count > before:
            events[name] = count - before
    return events


def _judge(sample: Sample, events: dict[str, int], long: bool, thresholds: Thresholds) -> tuple[Reading, PressureLevel]:
    """The reading with the level it asks for, and the level that it is still too near to."""
    field, highest = _JUDGES[sample.measure]
    asked = near = 0
    for share in thresholds.row(field)[:highest]:
        asked += sample.share >= share
        near += sample.share >= share - thresholds.margin(field, share)
    if asked and not HITS.isdisjoint(events):
        # The limit was met, and not by page cache alone: one level more.
        asked = min(asked + 1, highest)
    if sample.waiting:
        asked = max(asked, CRITICAL if long else HIGH)
    if not KILLS.isdisjoint(events):
        asked = CRITICAL
    level = _LEVELS[asked]
    reading = Reading(
        source=sample.source,
        measure=sample.measure,
        share=sample.share,
        detail=sample.detail,
        group=sample.group,
        events=events,
        level=level,
    )
    return reading, _LEVELS[max(asked, near)]


_LEVELS = tuple(PressureLevel)
