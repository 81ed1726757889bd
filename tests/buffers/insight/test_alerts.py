"""Alerts: the rule's checks, and the step between raised and cleared against a plain oracle."""

from __future__ import annotations

import itertools
import math
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.buffers.insight.alerts import (
    CALM,
    REMEDIES,
    Alert,
    AlertRule,
    AlertState,
    Direction,
    RuleState,
    alert_of,
    step,
)
from daramjwee.buffers.insight.finding import Severity
from daramjwee.buffers.insight.metrics import METRICS
from daramjwee.buffers.insight.monitor import DEFAULT_RULES
from daramjwee.errors import ConfigError

RAISED, CLEARED = AlertState.RAISED, AlertState.CLEARED


def run(rule, series):
    """The turns that a series of (value, now) brings about."""
    state, turns = CALM, []
    for value, now in series:
        state, turn = step(rule, state, value, now)
        turns.append(turn)
    return turns


def oracle(rule, series):
    """The same, told from the history alone: no state is carried on."""
    turns = []
    flip = -1 if rule.direction == "below" else 1
    for at, (value, now) in enumerate(series):
        raised = [when for turn, (_, when) in zip(turns, series[:at], strict=True) if turn is RAISED]
        told = [turn for turn in turns if turn is not None]
        turn = None
        if value is not None and not math.isnan(value):
            if told and told[-1] is RAISED:
                if flip * value <= flip * rule.threshold - rule.hysteresis:
                    turn = CLEARED
            elif flip * value > flip * rule.threshold and all(now - when >= rule.cooldown for when in raised):
                turn = RAISED
        turns.append(turn)
    return turns


def test_raised_beyond_the_threshold_and_cleared_by_the_hysteresis():
    """At the threshold nothing is raised; between threshold and hysteresis nothing is cleared."""
    rule = AlertRule("waiting", 10, hysteresis=3, cooldown=0)
    assert run(rule, [(10, 0), (11, 1), (10, 2), (8, 3), (7, 4), (7, 5), (11, 6)]) == [
        None, RAISED, None, None, CLEARED, None, RAISED,
    ]  # fmt: skip


def test_below_is_the_mirror_of_above():
    rule = AlertRule("reuse_rate", 0.5, direction="below", hysteresis=0.25, cooldown=0)
    assert run(rule, [(0.5, 0), (0.4, 1), (0.5, 2), (0.74, 3), (0.75, 4)]) == [None, RAISED, None, None, CLEARED]


def test_a_value_that_flaps_is_raised_once_in_a_cooldown():
    """It is cleared at once, and raised again only when the cooldown is over."""
    rule = AlertRule("overloads", 0, cooldown=60)
    series = [(at % 2, at * 10.0) for at in range(15)]
    raised = [now for turn, (_, now) in zip(run(rule, series), series, strict=True) if turn is RAISED]
    assert raised == [10.0, 70.0, 130.0]


def test_what_is_still_beyond_when_the_cooldown_ends_is_raised_then():
    """A second raise is put off, not lost."""
    rule = AlertRule("overloads", 0, cooldown=60)
    assert run(rule, [(1, 0), (0, 10), (1, 20), (1, 59.9), (1, 60)]) == [RAISED, CLEARED, None, None, RAISED]


def test_while_raised_it_is_not_raised_again():
    """Not after the cooldown either: it is known already."""
    rule = AlertRule("overloads", 0, cooldown=1)
    assert run(rule, [(1, at) for at in range(5)]) == [RAISED, None, None, None, None]


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_no_value_changes_nothing(nothing):
    """Neither calm nor raised; a figure of no operations is no figure."""
    rule = AlertRule("p99_latency_ns", 5)
    for state in (CALM, RuleState(True, 3.0), RuleState(False, 3.0)):
        assert step(rule, state, nothing, 1000.0) == (state, None)


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("hysteresis", [0, 1, 2])
@pytest.mark.parametrize("cooldown", [0, 1, 2, 3])
def test_every_short_history_agrees_with_the_oracle(direction, hysteresis, cooldown):
    """All series of five values around the threshold, one second apart."""
    rule = AlertRule("waiting", 0, direction=direction, hysteresis=hysteresis, cooldown=cooldown)
    for values in itertools.product((-2, -1, 0, 1, None), repeat=5):
        series = list(zip(values, range(5), strict=True))
        assert run(rule, series) == oracle(rule, series), series


@given(
    st.sampled_from(list(Direction)),
    st.integers(-5, 5),
    st.integers(0, 4),
    st.integers(0, 20),
    st.lists(st.tuples(st.one_of(st.none(), st.just(math.nan), st.integers(-9, 9)), st.integers(0, 9)), max_size=40),
)
def test_long_histories_agree_with_the_oracle_and_take_turns(direction, threshold, hysteresis, cooldown, steps):
    """Raised first, cleared next; no two raises within the cooldown."""
    rule = AlertRule("waiting", threshold, direction=direction, hysteresis=hysteresis, cooldown=cooldown)
    times = itertools.accumulate(pause for _, pause in steps)
    series = [(value, now) for (value, _), now in zip(steps, times, strict=True)]
    turns = run(rule, series)
    assert turns == oracle(rule, series)
    told = [turn for turn in turns if turn is not None]
    assert told == [RAISED, CLEARED] * (len(told) // 2) + [RAISED] * (len(told) % 2)
    raised = [now for turn, (_, now) in zip(turns, series, strict=True) if turn is RAISED]
    assert all(later - earlier >= cooldown for earlier, later in itertools.pairwise(raised))


def test_a_rule_keeps_its_arguments_in_one_form():
    """Text and numbers mean the same rule, which can be a key."""
    rule = AlertRule("overloads", 3, direction="BELOW", hysteresis=1, cooldown="2m", severity="critical")
    same = AlertRule("overloads", 3.0, direction=Direction.BELOW, hysteresis=1.0, cooldown=timedelta(minutes=2),
                     severity=Severity.CRITICAL)  # fmt: skip
    assert rule == same
    assert hash(rule) == hash(same)
    assert (rule.cooldown, rule.clears_at) == (120.0, 4.0)
    assert AlertRule("overloads", 3, hysteresis=1).clears_at == 2.0
    with pytest.raises(AttributeError):
        rule.threshold = 5


def test_defaults_are_above_without_hysteresis_once_a_minute():
    rule = AlertRule("overloads", 0)
    assert (rule.direction, rule.hysteresis, rule.cooldown, rule.severity) == ("above", 0.0, 60.0, Severity.WARNING)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("reuse_rat", "did you mean reuse_rate? the metrics are"),
        ("p99", "did you mean p99_latency_ns or p99_latency_ns."),
        ("", "is no metric; the metrics are"),
        (None, "is no metric; the metrics are"),
        ("colour", "is no metric; the metrics are"),
    ],
)
def test_a_metric_that_was_mistyped_is_answered_with_what_was_meant(typed, words):
    """Before the list of all, which is long."""
    with pytest.raises(ConfigError) as caught:
        AlertRule(typed, 1)
    assert words in str(caught.value)


def test_an_unknown_metric_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        AlertRule("hit_rate", 0)
    (problem,) = caught.value.problems
    assert problem.field == "metric"
    assert all(name in problem.mend for name in METRICS)


def test_every_fault_of_a_rule_is_listed():
    """One error with all of them, and no rule."""
    with pytest.raises(ConfigError) as caught:
        AlertRule(None, math.nan, direction="up", hysteresis=-1, cooldown="soon", severity=3)
    assert [problem.field for problem in caught.value.problems] == [
        "metric", "threshold", "direction", "hysteresis", "cooldown", "severity",
    ]  # fmt: skip
    for threshold in (True, "5", math.inf, None, 10**400):
        with pytest.raises(ConfigError, match="threshold"):
            AlertRule("overloads", threshold)
    with pytest.raises(ConfigError, match="metric"):
        msgspec.structs.replace(AlertRule("overloads", 0), metric=["overloads"])


def test_an_alert_of_a_fault_says_what_to_do_about_it():
    """Every rule that is there from the start has a remedy; it is told when the alert is raised, not when it is over."""
    assert set(REMEDIES) == {rule.metric for rule in DEFAULT_RULES}
    for rule in DEFAULT_RULES:
        raised, cleared = (alert_of(rule, state, 1.0, 0.0).message for state in (RAISED, CLEARED))
        assert raised.endswith(f"): {REMEDIES[rule.metric]}")
        assert REMEDIES[rule.metric] not in cleared
    below = alert_of(AlertRule("overloads", 5, direction="below"), RAISED, 1.0, 0.0)
    assert below.message.endswith(")")


def test_an_alert_says_what_happened_with_its_figures():
    """The value and the threshold in units for people, and what the metric means."""
    rule = AlertRule("ledger_held", 48 << 20, severity="critical")
    alert = alert_of(rule, RAISED, 50 << 20, 1234.5)
    assert alert.message == "ledger_held is 50MiB, above 48MiB (charged by all who share the pool's ledger)"
    assert str(alert) == f"critical: {alert.message}"
    assert (alert.metric, alert.threshold, alert.severity, alert.at) == ("ledger_held", 48 << 20, "critical", 1234.5)
    cleared = alert_of(rule, CLEARED, 1 << 20, 1300.0)
    assert cleared.message.startswith("ledger_held is 1MiB, no longer above 48MiB")
    assert str(rule) == "ledger_held above 48MiB"
    with pytest.raises(AttributeError):
        cleared.value = 0
    assert isinstance(msgspec.json.decode(msgspec.json.encode(alert), type=Alert), Alert)
