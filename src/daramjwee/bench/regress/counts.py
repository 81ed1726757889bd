"""What scenarios cost in counts, and whether that grew: against an older tree, or against a kept file.

Invariant: a count is compared with its own kind only, after its stated tolerance; what a system does not tell, or what
was not counted then, is not compared and not held against anybody.
Threads: any. `compare` is pure.
Design: docs/design/bench.md
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1


class Tolerance(NamedTuple):
    """How far a count may grow before it is said to: the largest of these. `each`: for every operation."""

    plain: float = 0.0
    share: float = 0.0
    each: float = 0.0


# All others are exact: no page fault, call, collection or fetch more than before. Each was seen to repeat exactly, by
# processes with different hashes on a busy machine (`daramjwee regress --baseline tests/bench/baseline.json`).
TOLERANCES = {
    # The interpreter fills and empties free lists of its own; a leak is one block for each operation, or more.
    "allocated_blocks": Tolerance(plain=32, each=0.25),
    # The kernel adds up what its processors count, each roughly.
    "peak_bytes": Tolerance(plain=4 << 20),
    # Addresses decide a little, such as where a dict puts its keys.
    "instructions": Tolerance(share=0.02),
}

# That these fall says nothing: what a process gives back in the midst of it depends on what it did before.
ONLY_GROW = frozenset({"allocated_blocks", "peak_bytes"})


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario: totals of `times` operations. None is what the system does not tell."""

    times: int
    counts: dict[str, float | None]


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """A count that is larger (or smaller: `grew` is False) than it was: of one operation, on both sides."""

    scenario: str
    counter: str
    was: float
    now: float
    grew: bool


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The file of a baseline. `ratios`: processor time of one operation as a multiple of a fixed loop's; nothing is held
    to them. `python`, `machine`: where it was written; only instructions depend on them."""

    schema: int = SCHEMA
    version: str
    python: str
    machine: dict[str, str]
    scenarios: dict[str, Counted]
    ratios: dict[str, float] = {}


def compare(was: Mapping[str, Counted], now: Mapping[str, Counted]) -> tuple[Growth, ...]:
    """Every count of `now` that differs from `was` by more than its tolerance."""
    found = []
    for scenario, seen in now.items():
        if scenario not in was:
            continue
        kept = was[scenario]
        for counter, count in seen.counts.items():
            before = kept.counts.get(counter)
            if before is None or count is None:
                continue
            # Fewer than none, blocks were given back; that is nothing to be held to.
            before = max(0.0, before) * seen.times / kept.times
            allowed = TOLERANCES.get(counter, Tolerance())
            grew = count > before
            if abs(count - before) > max(allowed.plain, allowed.share * abs(before), allowed.each * seen.times) and (
                grew or counter not in ONLY_GROW
            ):
                found.append(
                    Growth(
                        scenario=scenario, counter=counter, was=before / seen.times, now=count / seen.times,
                        grew=grew,
                    )
                )  # fmt: skip
    return tuple(found)


def comparable(kept: Kept) -> dict[str, Counted]:
    """The scenarios of a file, without the counts that this interpreter cannot be held to."""
    if kept.python == python():
        return dict(kept.scenarios)
    return {
        name: msgspec.structs.replace(
            one, counts={counter: count for counter, count in one.counts.items() if counter != "instructions"}
        )
        for name, one in kept.scenarios.items()
    }


def python() -> str:
    """The interpreter, as far as it decides how many instructions something takes."""
    return f"{platform.python_implementation()} {platform.python_version()} {platform.machine()}"
