"""Trends: bounded memory, values in any order, the line through them."""

from __future__ import annotations

import math
import random
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.buffers.insight.trend import Trend, TrendPoint
from daramjwee.errors import ConfigError

values = st.floats(-1e12, 1e12)
moments = st.floats(0, 500)


def filled(series, interval=10.0):
    """A trend with one value for each interval."""
    trend = Trend(interval=interval)
    for at, value in enumerate(series):
        trend.add(value, at * interval + 3)
    return trend


def test_values_of_one_interval_become_one_point():
    """A point says how many values there were, their mean, lowest, highest and last, and when the interval began."""
    trend = Trend(interval="10s", keep=5)
    for at, value in ((20.0, 4), (23.0, 10), (29.9, 1)):
        trend.add(value, at)
    trend.add(7, 30.0)
    assert trend.points == (
        TrendPoint(at=20.0, count=3, mean=5.0, low=1.0, high=10.0, last=1.0),
        TrendPoint(at=30.0, count=1, mean=7.0, low=7.0, high=7.0, last=7.0),
    )
    assert trend.last == 7.0
    assert len(trend) == 2


def test_an_interval_without_a_value_has_no_point():
    """A gap is seen by the times of its neighbours, and made up by nothing."""
    trend = Trend(interval=10)
    trend.add(1, 0)
    trend.add(2, 95)
    assert [point.at for point in trend.points] == [0.0, 90.0]


def test_a_late_value_counts_where_it_belongs():
    """Also into an interval that had none; what is older than all that is remembered is left out."""
    trend = Trend(interval=10, keep=3)
    for at in (50, 30, 60, 35, 51):
        trend.add(at, at)
    assert [(point.at, point.count) for point in trend.points] == [(30.0, 2), (50.0, 2), (60.0, 1)]
    trend.add(1, 29)
    assert [point.at for point in trend.points] == [30.0, 50.0, 60.0]
    trend.add(1, 45)
    assert [point.at for point in trend.points] == [40.0, 50.0, 60.0]


def test_a_clock_that_stands_still_fills_one_interval():
    """However many values: one point, and no slope."""
    trend = Trend(keep=4)
    for value in range(1000):
        trend.add(value, 77.0)
    (point,) = trend.points
    assert (point.count, point.mean, point.low, point.high) == (1000, pytest.approx(499.5), 0, 999)
    assert trend.slope == 0.0
    assert trend.direction == "level"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e101])
def test_what_is_no_figure_is_left_out(value):
    """A metric with nothing to say (nan) leaves a gap."""
    trend = Trend()
    trend.add(value, 1.0)
    assert trend.points == ()
    assert trend.last is None


@given(st.lists(st.tuples(values, moments), max_size=60), st.integers(1, 6), st.floats(0.5, 60))
def test_points_are_those_of_a_plain_table(added, keep, interval):
    """Whatever comes in whatever order: what is kept is what a dict of lists says, bounded and in order."""
    trend = Trend(interval=interval, keep=keep)
    table: dict[float, list[float]] = {}
    for value, at in added:
        trend.add(value, at)
        start = at // interval * interval
        if start in table or len(table) < keep or start > min(table):
            table.setdefault(start, []).append(value)
            if len(table) > keep:
                del table[min(table)]
    points = trend.points
    assert len(points) <= keep
    assert [point.at for point in points] == sorted(table)
    for point in points:
        seen = table[point.at]
        assert (point.count, point.low, point.high, point.last) == (len(seen), min(seen), max(seen), seen[-1])
        assert point.low <= point.mean <= point.high
        assert point.mean == pytest.approx(math.fsum(seen) / len(seen), abs=1e-3)


def test_memory_is_bounded_whatever_is_added():
    """100,000 values in 50,000 intervals leave as much as was asked for."""
    trend = Trend(interval=1, keep=100)
    for at in range(100_000):
        trend.add(at, at / 2)
    assert len(trend.points) == 100
    held = sum(map(sys.getsizeof, trend.points)) + sys.getsizeof(trend._points)
    assert held < 100 * 150


@given(st.floats(-1e6, 1e6), st.floats(-1e3, 1e3), st.integers(2, 40))
def test_slope_of_a_straight_line_is_its_own(start, slope, count):
    """Least squares finds the line that the points lie on."""
    trend = filled([start + slope * at * 10 for at in range(count)])
    assert trend.slope == pytest.approx(slope, abs=1e-6)


def test_slope_is_the_least_squares_fit():
    """A worked example: times 0, 10, 20, 30 and means 1, 3, 2, 6 give 70 / 500 a second."""
    assert filled([1, 3, 2, 6]).slope == pytest.approx(0.14)
    assert filled([5]).slope == 0.0
    assert Trend().slope == 0.0


@pytest.mark.parametrize(
    ("series", "direction"),
    [
        ([1, 2, 3, 4, 5], "rising"),
        ([5, 4, 3, 2, 1], "falling"),
        ([-5, -4, -3, -2], "rising"),
        ([100, 101, 102, 103], "level"),  # 3 %
        ([1, 2], "level"),  # two points always lie on a line
        ([0, 0, 0, 0], "level"),
        ([0, 10, 0, 10, 0, 10], "level"),  # no steeper than chance makes it
        ([], "level"),
    ],
)
def test_direction_follows_its_stated_rule(series, direction):
    """More than 5 % over the time, and more than twice the standard error."""
    assert filled(series).direction == direction


def test_direction_of_noise_is_level_nearly_always():
    """Twice the standard error: chance passes it about once in twenty."""
    dice = random.Random(7)
    trends = [filled([dice.gauss(50, 20) for _ in range(30)]) for _ in range(200)]
    assert sum(trend.direction == "level" for trend in trends) >= 180


def test_extremes_neither_overflow_nor_raise():
    """The largest values and times that are taken can be fitted."""
    trend = Trend(interval=0.001, keep=10)
    for at in range(-5, 5):
        trend.add(1e100 * (-1) ** at, at * 2e14)
    assert math.isfinite(trend.slope)
    assert trend.direction == "level"


def test_readers_see_each_point_whole_while_one_writes():
    """A point is replaced, never changed; what is read is bounded and in order at every moment."""
    trend = Trend(interval=1, keep=20)
    done = threading.Event()
    wrong = []

    def read():
        while not done.is_set():
            points = trend.points
            starts = [point.at for point in points]
            if len(points) > 20 or starts != sorted(set(starts)):
                wrong.append(starts)
            wrong.extend(point for point in points if point.low != point.at or point.high != point.at)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for step in range(20_000):
        trend.add(step // 4, step / 4)  # each value is the start of its interval
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_cleared_it_begins_anew():
    trend = filled([1, 2, 3])
    trend.clear()
    assert trend.points == ()
    trend.add(4, 0)  # older than what was forgotten
    assert trend.last == 4.0


def test_faulty_arguments_are_listed_together():
    """Nothing is made of them."""
    with pytest.raises(ConfigError) as caught:
        Trend(interval="often", keep=0)
    assert [problem.field for problem in caught.value.problems] == ["interval", "keep"]
    for keep in (True, 2.0, 100_001):
        with pytest.raises(ConfigError, match="keep"):
            Trend(keep=keep)
    for interval in (0, "0s", -1, "400d"):
        with pytest.raises(ConfigError, match="interval"):
            Trend(interval=interval)
    for at in (math.nan, math.inf, 1e16):
        with pytest.raises(ConfigError, match="at = "):
            Trend().add(1, at)
    with pytest.raises(ConfigError) as caught:
        Trend().add("x", None)
    assert [problem.field for problem in caught.value.problems] == ["value", "at"]
    with pytest.raises(ConfigError, match="value = 'x'"):
        Trend().add("x", 1)
    assert repr(Trend(keep=1)) == "<Trend 0 of 1 interval of 10.00s>"


def test_repr_tells_its_state():
    assert repr(Trend()) == "<Trend 0 of 360 intervals of 10.00s>"
    assert repr(filled([1, 2, 3])) == "<Trend 3 of 360 intervals of 10.00s, last 3, rising>"
    assert (Trend(interval="5m", keep=7).interval, Trend(keep=7).keep) == (300.0, 7)
