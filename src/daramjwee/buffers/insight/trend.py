"""Trends: how a figure went, in intervals of fixed length and bounded memory.

Invariant: at most `keep` points, oldest first, one for each interval in which there was a value, whatever is added.
Threads: one adds; any read, and see each point as it was before or after an addition, never in between.
Design: docs/monitoring.md
"""

from __future__ import annotations

import math
from bisect import bisect_left
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

import msgspec

from daramjwee.errors import ConfigError, Problem
from daramjwee.units import counted, format_duration, parse_duration

if TYPE_CHECKING:
    from daramjwee.units import Duration

DEFAULT_INTERVAL = 10.0
DEFAULT_KEEP = 360  # an hour of the default interval
# About 19 MB. A day of 10-second intervals is 8,640.
MOST_KEPT = 100_000
LONGEST_INTERVAL = 366 * 86400.0
# Beyond these no figure of ours comes, and their squares would overflow.
LATEST_SECONDS = 1e15
LARGEST_VALUE = 1e100

# What `direction` takes for no change: a fitted line that moves by less than this share of the largest mean, or that is
# not twice as steep as its own standard error (chance does that in one of twenty).
LEVEL_SHARE = 0.05
STANDARD_ERRORS = 2.0
LEAST_POINTS = 3

_start = attrgetter("at")


class TrendPoint(msgspec.Struct, frozen=True, gc=False):
    """The values of one interval: how many (`count`), their `mean`, the lowest (`low`) and the highest (`high`). `at`: when it
    began, in seconds of the clock the values were added with; `last`: the value that was added last."""

    at: float
    count: int
    mean: float
    low: float
    high: float
    last: float

    def _with(self, value: float) -> TrendPoint:
        count = self.count + 1
        low, high = min(self.low, value), max(self.high, value)
        mean = self.mean + (value - self.mean) / count
        return TrendPoint(self.at, count, min(max(mean, low), high), low, high, value)


class Trend:
    """How a figure went: `add` values, read `points`.

    `interval`: the length of one (a duration); `keep`: intervals that are remembered. An interval without a value has no
    point.
    """

    __slots__ = ("_interval", "_keep", "_points")

    def __init__(self, *, interval: Duration = DEFAULT_INTERVAL, keep: int = DEFAULT_KEEP) -> None:
        self._interval, self._keep = parse_trend(interval, keep, "Trend")
        # Changed in single steps only (replace, insert, delete), which whoever copies it sees whole.
        self._points: list[TrendPoint] = []

    @property
    def interval(self) -> float:
        """Seconds of one interval."""
        return self._interval

    @property
    def keep(self) -> int:
        """Intervals that are remembered."""
        return self._keep

    def add(self, value: float, at: float) -> None:
        """Add a `value` that was seen `at` (seconds). It counts in the interval it belongs to, also when later ones came
        before it; older than all that is remembered it is left out, and so is what is no number (nan), infinite, or beyond
        1e100. `ConfigError` for an `at` that is no time, and for a `value` of no numbers."""
        try:
            timely, counts = abs(at) <= LATEST_SECONDS, abs(value) <= LARGEST_VALUE
        except TypeError:
            timely = False
        if not timely:
            raise ConfigError(_problems_of(value, at), subject="Trend.add")
        if not counts:
            return
        value = float(value)
        start = at // self._interval * self._interval
        points = self._points
        place = len(points) - 1 if points and points[-1].at == start else bisect_left(points, start, key=_start)
        if place < len(points) and points[place].at == start:
            points[place] = points[place]._with(value)
        else:
            points.insert(place, TrendPoint(start, 1, value, value, value, value))
            if len(points) > self._keep:
                del points[0]

    @property
    def points(self) -> tuple[TrendPoint, ...]:
        """The intervals that had values, oldest first."""
        return tuple(self._points)[-self._keep :]

    @property
    def last(self) -> float | None:
        """The last value of the newest interval; None when there is none."""
        points = self.points
        return points[-1].last if points else None

    @property
    def slope(self) -> float:
        """By how much the figure changes in a second: the straight line through the means of the intervals that is
        nearest by least squares, each interval counting once. 0 with fewer than two."""
        return _fit(self.points)[0]

    @property
    def direction(self) -> Literal["rising", "falling", "level"]:
        """Where the figure goes. "level": fewer than three intervals; or the line of `slope` moves, from the first
        interval to the last, by no more than 5 % of the largest mean; or it is not steeper than twice its own standard
        error, so that chance may have made it."""
        points = self.points
        slope, error = _fit(points)
        if len(points) < LEAST_POINTS:
            return "level"
        moved = abs(slope) * (points[-1].at - points[0].at)
        if moved <= LEVEL_SHARE * max(abs(point.mean) for point in points) or abs(slope) <= STANDARD_ERRORS * error:
            return "level"
        return "rising" if slope > 0 else "falling"

    def clear(self) -> None:
        """Forget all values."""
        self._points = []

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        shown = "" if self.last is None else f", last {self.last:g}, {self.direction}"
        return f"<Trend {len(self)} of {counted(self._keep, 'interval')} of {format_duration(self._interval)}{shown}>"


def _problems_of(value: object, at: object) -> list[Problem]:
    problems = []
    if not isinstance(value, int | float):
        problems.append(Problem("value", value, "must be a number"))
    if not isinstance(at, int | float) or not abs(at) <= LATEST_SECONDS:
        problems.append(Problem("at", at, "must be a number of seconds, to 1e15"))
    return problems


def parse_trend(interval: Duration, keep: int, call: str) -> tuple[float, int]:
    """The arguments of a trend as numbers, or `ConfigError` with all that is wrong."""
    problems = []
    seconds = 0.0
    try:
        seconds = parse_interval(interval)
    except ValueError as error:
        problems.append(Problem("interval", interval, str(error)))
    if type(keep) is not int or not 1 <= keep <= MOST_KEPT:
        problems.append(Problem("keep", keep, f"must be a whole number (int) from 1 to {MOST_KEPT:,}"))
    if problems:
        raise ConfigError(problems, subject=call)
    return seconds, keep


def parse_interval(interval: Duration) -> float:
    """Seconds of an interval; `ValueError` says what was expected."""
    seconds = parse_duration(interval)
    if not 0 < seconds <= LONGEST_INTERVAL:
        raise ValueError("must be above 0 and at most a year (366d)")
    return seconds


def _fit(points: tuple[TrendPoint, ...]) -> tuple[float, float]:
    """Slope of the line nearest to the means by ordinary least squares (Legendre, 1805), and its standard error."""
    count = len(points)
    if count < 2:
        return 0.0, 0.0
    # Times from the first one on, so that a clock that has run for years costs no digits.
    times = [point.at - points[0].at for point in points]
    middle = math.fsum(times) / count
    mean = math.fsum(point.mean for point in points) / count
    spread = math.fsum((at - middle) ** 2 for at in times)
    if not spread:
        return 0.0, 0.0
    slope = math.fsum((at - middle) * (point.mean - mean) for at, point in zip(times, points, strict=True)) / spread
    if count < LEAST_POINTS:
        return slope, 0.0
    rest = math.fsum((point.mean - mean - slope * (at - middle)) ** 2 for at, point in zip(times, points, strict=True))
    return slope, math.sqrt(rest / (count - 2) / spread)
