"""The verdict on made-up samples, whose truth is known, with many seeds."""

from __future__ import annotations

import math
import random

import pytest

from daramjwee.bench.regress.verdict import Turn, Verdict, interval, judge, settle

TESTS = 28
# As measured on a busy machine: a process strays by per cents for its life, a turn by more.
PROCESS, TURN = 0.015, 0.03


def stage(seed, *, slower=0.0, restarts=10, turns=7, process=PROCESS, turn=TURN, drift=0.0, bad=None):
    """One stage. `drift`: how much slower the machine is at the end. `bad`: a restart whose new process is 40 % slower."""
    chance = random.Random(seed)
    made = []
    for number in range(restarts):
        lives = [chance.gauss(0, process) for _ in range(3)]
        if number == bad:
            lives[1] += math.log(1.4)
        made.append([])
        for _ in range(turns):
            # Whatever the machine does is so for all three of a turn; a tenth of the figures is interrupted.
            machine = chance.gauss(0, 0.3) + math.log1p(drift * number / restarts)
            old, new, again = (
                math.exp(machine + life + chance.gauss(0, turn) + chance.uniform(0, 1) * (chance.random() < 0.1))
                for life in lives
            )
            made[-1].append(Turn(old, new * (1 + slower), again))
    return made


def settled(seed, *, most=3, **how):
    """As the guard does it: another stage while it is open."""
    stages = []
    while True:
        stages.append(stage(f"{seed} {len(stages)}", **how))
        judged = settle(stages, tests=TESTS)
        if not judged.open or len(stages) == most:
            return judged


def rate(verdict, runs, **how):
    """The share of runs that end with that verdict."""
    return sum(settled(seed, **how).verdict is verdict for seed in range(runs)) / runs


def test_ten_per_cent_are_seen_in_nine_of_ten_runs():
    assert rate(Verdict.SLOWER, 20, slower=0.10) >= 0.9


def test_the_same_code_is_never_called_slower_and_nearly_always_the_same():
    """Of as many verdicts as a dozen scenarios make in some runs."""
    verdicts = [settled(seed).verdict for seed in range(60)]
    assert Verdict.SLOWER not in verdicts
    assert verdicts.count(Verdict.SAME) >= 55


def test_a_noisy_machine_makes_it_unsure_and_not_loud():
    assert rate(Verdict.SLOWER, 15, process=0.06, turn=0.3) == 0


def test_a_machine_that_gets_slower_is_so_for_both():
    """Half as fast at the end: pairs in turns do not see it."""
    assert rate(Verdict.SAME, 15, drift=1.0) >= 0.9


@pytest.mark.parametrize("bad", [0, 9])
def test_one_process_that_is_slow_for_life_proves_nothing(bad):
    assert rate(Verdict.SLOWER, 8, bad=bad) == 0


def test_what_got_faster_is_said_and_opens_no_other_stage():
    judged = settle([stage(1, slower=-0.12)], tests=TESTS)
    assert judged.verdict is Verdict.FASTER
    assert not judged.open
    assert 0.85 < judged.ratio < 0.91


def test_slower_needs_a_second_stage_that_says_so_by_itself():
    """The first makes it suspect; a second that saw nothing leaves it open."""
    first = settle([stage(1, slower=0.2)], tests=TESTS)
    assert (first.verdict, first.open) == (Verdict.UNSURE, True)
    assert judge(stage(1, slower=0.2), tests=TESTS).verdict is Verdict.SLOWER
    both = settle([stage(1, slower=0.2), stage(2, slower=0.2)], tests=TESTS)
    assert (both.verdict, both.open, both.restarts, both.turns) == (Verdict.SLOWER, False, 20, 140)
    # Half of all restarts 30 % slower, but none of the last stage.
    not_again = settle([stage(1, slower=0.3, restarts=30), stage(2)], tests=TESTS)
    assert not_again.verdict is Verdict.UNSURE


def test_less_than_the_least_effect_is_the_same_however_sure_it_is():
    """3 % without any noise: nobody's concern."""
    judged = settle([[[Turn(1.0, 1.03, 1.0)] * 5] * 10], tests=TESTS)
    assert judged.verdict is Verdict.SAME
    assert judged.low > 1.02


def test_a_slow_down_below_the_noise_floor_is_not_told_from_noise():
    """Two old processes differ by 20 %, always: 10 % between old and new mean nothing then."""
    restarts = [[Turn(1.0, 1.1 * math.sqrt(again), again)] * 5 for again in (1.2, 1.19, 1.21, 1.2, 1.22, 1.18, 1.2)]
    judged = judge(restarts, tests=TESTS)
    assert judged.low > 1
    assert judged.floor > 0.19
    assert judged.verdict is Verdict.UNSURE


def test_the_same_samples_give_the_same_verdict():
    assert settle([stage(3)], tests=TESTS) == settle([stage(3)], tests=TESTS)


def test_more_tests_at_once_make_each_interval_wider():
    """What one test may be wrong in, many at once may only be in together."""
    alone, many = judge(stage(4), tests=1), judge(stage(4), tests=100)
    assert many.low < alone.low
    assert many.high > alone.high
    assert many.ratio == alone.ratio


def test_an_interval_of_equal_figures_is_a_point_and_one_of_two_groups_spans_them():
    assert interval([[0.5, 0.5], [0.5]], error=0.05) == (0.5, 0.5, 0.5)
    spread = interval([[0.0, 0.0], [1.0, 1.0]], error=0.05)
    assert (spread.median, spread.low, spread.high) == (0.5, 0.0, 1.0)
