"""Is new code slower than old? Paired turns, restarts, bootstrap, noise floor, and how sure one must be. Pure.

After Kalibera and Jones, "Quantifying Performance Changes with Effect Size Confidence Intervals" (arXiv 2007.10899):
the effect is a ratio with its interval, and what is repeated at the highest level that varies (here: processes, because
a process keeps its addresses and hashes for life) is resampled at that level first, and within it afterwards. Pairs in
turns as in tango-bench; several scenarios at once by Bonferroni's rule.

Invariant: a figure is compared only with those of the same turn, so a machine that is slow for a while, or gets slower,
is so on all sides. The same samples give the same verdict.
Threads: any.
Design: docs/design/bench.md
"""

from __future__ import annotations

import enum
import math
import random
import statistics
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

# A change below this is nobody's concern, and cannot be told from a change of the layout in memory.
LEAST_EFFECT = 0.05
# A slow-down of so much is to be seen: "the same" excludes it.
SEEN_EFFECT = 0.10
# How often all scenarios together may be wrong, in one stage. "Slower" needs two stages that know nothing of each other.
FAMILY_ERROR = 0.05
FLOOR_ERROR = 0.05
# Of the 0.05 of all errors each of 30 tests has 0.08 % at either end: three resamples of 4000.
RESAMPLES = 4000
# Medians of resampled turns that each restart has in store.
RESAMPLED_TURNS = 200


class Turn(NamedTuple):
    """Seconds of one operation in one turn: of the new code, and of two processes that run the old."""

    old: float
    new: float
    again: float


# The turns of one set of processes; all restarts of one stage.
Restart: TypeAlias = "Sequence[Turn]"
Stage: TypeAlias = "Sequence[Restart]"


class Verdict(enum.Enum):
    """What is known. SAME excludes that new code is slower by SEEN_EFFECT; UNSURE does not."""

    SLOWER = "slower"
    FASTER = "faster"
    SAME = "same"
    UNSURE = "not sure"


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict and what it rests on.

    ratio: new / old, the median; low and high: its interval. floor: how far a ratio of old and old strays, as a share
    (0.02 is 2 %). open: more turns would tell more.
    """

    verdict: Verdict
    ratio: float
    low: float
    high: float
    floor: float
    restarts: int
    turns: int
    open: bool = False


class Interval(NamedTuple):
    """A median and where it lies, as logarithms."""

    median: float
    low: float
    high: float


def settle(stages: Sequence[Stage], *, tests: int, seed: int = 0) -> Judged:
    """The verdict on everything that was measured. `tests`: how many are made at once. What is slower for the first time
    is only suspect: it has to be so again in a stage of its own, measured after the suspicion."""
    judged = judge([restart for stage in stages for restart in stage], tests=tests, seed=seed)
    if judged.verdict is Verdict.SLOWER and (
        len(stages) < 2 or judge(stages[-1], tests=1, seed=seed).verdict is not Verdict.SLOWER
    ):
        judged = msgspec.structs.replace(judged, verdict=Verdict.UNSURE)
    return msgspec.structs.replace(judged, open=judged.verdict is Verdict.UNSURE)


def judge(stage: Stage, *, tests: int, seed: int = 0) -> Judged:
    """The verdict on one set of samples, each restart with at least one turn."""
    effects = [[math.log(t.new) - (math.log(t.old) + math.log(t.again)) / 2 for t in restart] for restart in stage]
    nothing = [[math.log(t.again / t.old) for t in restart] for restart in stage]
    effect = interval(effects, error=FAMILY_ERROR / tests, seed=seed)
    noise = interval(nothing, error=FLOOR_ERROR, seed=seed)
    floor = max(-noise.low, noise.high)
    bar = max(floor, math.log1p(LEAST_EFFECT))
    if effect.low > 0 and effect.median > bar:
        verdict = Verdict.SLOWER
    elif effect.high < 0 and effect.median < -bar:
        verdict = Verdict.FASTER
    elif effect.high < math.log1p(SEEN_EFFECT):
        verdict = Verdict.SAME
    else:
        verdict = Verdict.UNSURE
    return Judged(
        verdict=verdict, ratio=math.exp(effect.median), low=math.exp(effect.low), high=math.exp(effect.high),
        floor=math.expm1(floor), restarts=len(stage), turns=sum(map(len, stage)),
    )  # fmt: skip


def interval(groups: Sequence[Sequence[float]], *, error: float, seed: int = 0) -> Interval:
    """The median of the groups' medians, and the interval that leaves it out with a chance of `error`: groups are drawn
    with replacement, and of each its members, again and again."""
    chance = random.Random(seed)
    middles = [statistics.median(group) for group in groups]
    # As many of each group: to draw one of all is to draw a group, and then one of its medians.
    drawn = [statistics.median(chance.choices(group, k=len(group))) for group in groups for _ in range(RESAMPLED_TURNS)]
    seen = sorted(statistics.median(chance.choices(drawn, k=len(groups))) for _ in range(RESAMPLES))
    left_out = int(RESAMPLES * error / 2)
    return Interval(statistics.median(middles), seen[left_out], seen[-1 - left_out])
