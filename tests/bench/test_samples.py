"""The arithmetic of the bench, on made-up figures."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.bench.samples import (
    Row,
    Summary,
    against_best,
    against_better,
    at_least,
    at_most,
    differences,
    exactly,
    ratios,
    row_of,
    summarize,
)

figures = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=40)


def test_the_summary_is_the_median_and_the_middle_half():
    """One figure that is far off moves neither."""
    assert summarize([5.0, 1.0, 2.0, 3.0, 1000.0]) == Summary(median=3.0, low=2.0, high=5.0, runs=5)


def test_few_figures_show_their_whole_spread():
    """Quartiles of three figures would pretend to knowledge that is not there."""
    assert summarize([3.0, 1.0, 2.0]) == Summary(2.0, 1.0, 3.0, 3)
    assert summarize([7.0]) == Summary(7.0, 7.0, 7.0, 1)


def test_no_figures_are_refused():
    """A median of nothing is not zero."""
    with pytest.raises(ValueError, match="at least one run"):
        summarize([])


@given(figures)
def test_the_median_lies_within_the_spread_and_the_spread_within_the_figures(values):
    """Holds for any figures."""
    seen = summarize(values)
    assert min(values) <= seen.low <= seen.median <= seen.high <= max(values)
    assert seen.runs == len(values)


def test_ratios_are_taken_pair_by_pair():
    """A machine that is ten times slower in one round slows both sides of that pair: the ratio does not move."""
    assert ratios([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == [2.0, 2.0, 2.0]
    assert differences([2.0, 20.0], [1.0, 10.0]) == [1.0, 10.0]


def test_figures_without_a_partner_are_refused():
    """Pairs of unequal length would compare figures of different rounds."""
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0, 2.0], [1.0])


@given(figures, st.floats(0.5, 2.0))
def test_a_contender_that_always_takes_k_times_as_long_has_ratio_k(values, k):
    """Whatever the machine did in between."""
    seen = row_of("s", "n", ratios([v * k for v in values], values))
    assert seen.seen == pytest.approx(k)


@pytest.mark.parametrize(
    ("target", "seen", "met"),
    [
        (at_most(1.03), 1.03, True),
        (at_most(1.03), 1.031, False),
        (at_least(0.9), 0.9, True),
        (at_least(0.9), 0.899, False),
        (exactly(1), 1, True),
        (exactly(1), 2, False),
        (exactly(1), 0, False),
    ],
)
def test_a_target_is_met_up_to_and_including_its_bound(target, seen, met):
    """The bound itself is as wanted."""
    assert Row(scenario="s", name="n", seen=seen, target=target).met is met


def test_a_row_without_target_or_without_figure_is_neither_met_nor_missed():
    """A rival that is not installed is no failure of ours."""
    assert Row(scenario="s", name="n", seen=1.0).met is None
    assert Row(scenario="s", name="n", target=at_most(1), note="not installed").met is None


def test_the_best_rival_is_the_one_that_leaves_us_least_in_the_median():
    """A rival's lucky round does not make it the best; all pairs are with the same one."""
    figures = {"ours": [1.0, 1.0, 1.0], "steady": [1.1, 1.1, 1.1], "lucky": [0.5, 2.0, 2.0]}
    assert against_best(figures, "ours", ["steady", "lucky"]) == [1.1, 1.1, 1.1]


def test_level_contenders_are_level_whoever_is_chosen():
    """Of two rivals with the same speed one always looks better in a few rounds; that is not held against ours."""
    chance = random.Random(1)
    best, better = [], []
    for _ in range(300):
        figures = {name: [chance.lognormvariate(0, 0.1) for _ in range(15)] for name in ("ours", "a", "b")}
        best.append(statistics.median(against_best(figures, "ours", ("a", "b"))))
        better.append(statistics.median(against_better(figures, "ours", ("a", "b"))))
    assert statistics.mean(best) < 0.98
    assert abs(statistics.mean(better) - 1) < 0.01


def test_a_rival_that_is_really_better_is_the_one_that_counts():
    """Ours takes twice as long as one and half as long as the other."""
    figures = {"ours": [2.0, 2.2, 2.0, 2.1], "quick": [1.0, 1.1, 1.0, 1.05], "slow": [4.0, 4.4, 4.0, 4.2]}
    assert against_better(figures, "ours", ("slow", "quick")) == pytest.approx([0.5] * 4)
    assert against_better({name: values[:1] for name, values in figures.items()}, "ours", ("slow", "quick")) == [0.5]
