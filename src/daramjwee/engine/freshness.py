"""How fresh an entry is: metadata, settings and the time in, a verdict out. Pure.

Rules: a lifetime is the object's own `ttl`, else `Freshness.fresh`; None never ends. An age below zero (the
clock was set back, or the entry comes from another machine) up to `CLOCK_SKEW_SECONDS` counts as zero; an entry
further in the future has no known age and counts as past its lifetime.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daramjwee.model import Freshness, Metadata

CLOCK_SKEW_SECONDS = 300.0


class Verdict(enum.Enum):
    """FRESH: serve. STALE: serve, and renew in the background. ON_ERROR: ask the origin, serve if that fails.
    DEAD: never serve; still good as the `previous` of a conditional fetch."""

    FRESH = "fresh"
    STALE = "stale"
    ON_ERROR = "on_error"
    DEAD = "dead"


def age_of(metadata: Metadata, now: float) -> float | None:
    """Seconds since the origin last confirmed the entry; None when the clock makes no sense of it."""
    age = now - metadata.stored_at
    if age < -CLOCK_SKEW_SECONDS:
        return None
    return max(0.0, age)


def lifetime_of(metadata: Metadata, freshness: Freshness) -> float | None:
    """Seconds for which the entry is fresh; None never ends."""
    if metadata.negative:
        return freshness.negative if metadata.ttl is None else metadata.ttl
    return freshness.fresh if metadata.ttl is None else metadata.ttl


def judge(metadata: Metadata, freshness: Freshness, now: float) -> Verdict:
    """The verdict on one entry. Negative entries are FRESH or DEAD."""
    lifetime = lifetime_of(metadata, freshness)
    if metadata.negative and lifetime is None:
        return Verdict.DEAD  # negatives are not remembered (any more)
    if lifetime is None:
        return Verdict.FRESH
    age = age_of(metadata, now)
    if age is not None and age < lifetime:
        return Verdict.FRESH
    if metadata.negative or age is None:
        return Verdict.DEAD
    overdue = age - lifetime
    if freshness.stale_while_revalidate is not None and overdue < freshness.stale_while_revalidate:
        return Verdict.STALE
    if freshness.stale_if_error is not None and overdue < freshness.stale_if_error:
        return Verdict.ON_ERROR
    return Verdict.DEAD
