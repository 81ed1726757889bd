"""The manual clock stands still until it is moved."""

from __future__ import annotations

from datetime import timedelta

import pytest

from daramjwee.model import Clock
from daramjwee.testing.clock import ManualClock


def test_time_passes_on_both_clocks_and_only_when_told():
    clock: Clock = ManualClock(now=100.0)
    began = clock.monotonic()
    assert (clock.now(), clock.monotonic()) == (100.0, began)
    clock.advance(1.5)
    clock.advance("1m")
    clock.advance(timedelta(hours=1))
    assert (clock.now(), clock.monotonic()) == (3761.5, began + 3661.5)


def test_the_wall_clock_may_jump_and_the_other_does_not():
    clock = ManualClock(now=100.0)
    began = clock.monotonic()
    clock.set_now(50.0)
    assert (clock.now(), clock.monotonic()) == (50.0, began)
    assert repr(clock) == "<ManualClock now=50.000 monotonic=1000.000>"


def test_time_does_not_go_back():
    with pytest.raises(ValueError, match="negative"):
        ManualClock().advance(-1)
