"""Arithmetic on measurements: medians, their spread, ratios of pairs, and targets. Pure.

Invariant: a ratio is taken pair by pair (two figures of the same round) before the median, so that a machine which is
slow for a while slows both sides of a pair.
Threads: any.
Design: docs/design/bench.md
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Summary(NamedTuple):
    """The median of some figures, the middle half of them (all of them when fewer than four), and how many."""

    median: float
    low: float
    high: float
    runs: int


def summarize(figures: Sequence[float]) -> Summary:
    """Median and spread of at least one figure."""
    if not figures:
        raise ValueError("no figures to summarize: at least one run is needed")
    if len(figures) < 4:
        return Summary(statistics.median(figures), min(figures), max(figures), len(figures))
    low, median, high = statistics.quantiles(figures, n=4, method="inclusive")
    return Summary(median, low, high, len(figures))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours as a multiple of theirs, pair by pair."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def against_best(figures: Mapping[str, Sequence[float]], ours: str, rivals: Sequence[str]) -> list[float]:
    """How many times as quick `ours` is as the best of `rivals`, pair by pair. The best is the one whose ratio has the
    lowest median: the quicker figure of each single round would be the rivals' luck, and nobody's speed."""
    return min((ratios(figures[rival], figures[ours]) for rival in rivals), key=statistics.median)


def against_better(figures: Mapping[str, Sequence[float]], ours: str, rivals: Sequence[str]) -> list[float]:
    """As `against_best`, where all may be level: then whoever looks best in the very figures that are compared had luck in
    them, and `ours` seems slower than itself. So the best in the even rounds is compared in the odd ones, and the other
    way round (cross-validation)."""
    found: list[float] = []
    for judged, compared in ((0, 1), (1, 0)):
        half = {name: values[judged::2] for name, values in figures.items()}
        if not half[ours]:  # a single round: there is no other to choose by
            continue
        best = min(rivals, key=lambda rival: statistics.median(ratios(half[rival], half[ours])))
        found += ratios(figures[best][compared::2], figures[ours][compared::2])
    return found or against_best(figures, ours, rivals)


def differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours minus theirs, pair by pair."""
    return [a - b for a, b in zip(ours, theirs, strict=True)]


class Target(msgspec.Struct, frozen=True):
    """What a figure has to be."""

    relation: Literal["<=", ">=", "=="]
    wanted: float

    def met_by(self, seen: float) -> bool:
        """Whether `seen` is as wanted."""
        if self.relation == "<=":
            return seen <= self.wanted
        if self.relation == ">=":
            return seen >= self.wanted
        return seen == self.wanted


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a report: what was measured, what was seen, and what was wanted.

    `seen` is None where nothing could be measured; `note` then says why. `low` and `high` are the spread, `runs` how
    many figures the median comes from, `unit` one of "x", "s", "ms", "us", "ns", "MiB", "" (a count).
    `beside`: other figures of one such operation, by name. `labels`: what the row is about, for programs. `detail`: one
    of so many that the table for people leaves it out. `only`: what the option `--only` takes to measure it again.
    """

    scenario: str
    name: str
    unit: str = "x"
    seen: float | None = None
    low: float | None = None
    high: float | None = None
    runs: int = 0
    target: Target | None = None
    note: str = ""
    beside: dict[str, float] = {}
    labels: dict[str, str] = {}
    detail: bool = False
    only: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None when there is no target or a rival could not be measured."""
        if self.target is None or self.seen is None:
            return None
        return self.target.met_by(self.seen)


def row_of(
    scenario: str, name: str, figures: Sequence[float], *, unit: str = "x", target: Target | None = None,
    note: str = "", beside: Mapping[str, float] | None = None, labels: Mapping[str, str] | None = None,
    detail: bool = False,
) -> Row:  # fmt: skip
    """A row whose `seen` is the median of `figures`."""
    seen = summarize(figures)
    return Row(
        scenario=scenario, name=name, unit=unit, seen=seen.median, low=seen.low, high=seen.high, runs=seen.runs,
        target=target, note=note, beside=dict(beside or {}), labels=dict(labels or {}), detail=detail,
    )  # fmt: skip


def at_most(wanted: float) -> Target:
    """The figure may be as large as `wanted`."""
    return Target("<=", wanted)


def at_least(wanted: float) -> Target:
    """The figure must reach `wanted`."""
    return Target(">=", wanted)


def exactly(wanted: float) -> Target:
    """The figure must be `wanted`."""
    return Target("==", wanted)
