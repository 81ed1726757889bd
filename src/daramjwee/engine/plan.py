"""What an open does with what was found: pure functions, values in, values out.

`plan_open` picks the answer, `plan_tier` the tier a body of a given size is staged in.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.buffers.pressure import EFFECTS, NORMAL
from daramjwee.engine.freshness import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daramjwee.buffers.pressure import PressureLevel
    from daramjwee.model import Freshness, Metadata


class Seen(NamedTuple):
    """What the look-up saw: the highest tier that has the key, and the metadata there."""

    tier: int
    metadata: Metadata


class Act(enum.Enum):
    """SERVE: a fresh entry. SERVE_STALE: an old one, and renew it in the background. NEGATIVE: say NotFound.
    FETCH: join the running fill or start one. MISS: nobody to ask."""

    SERVE = "serve"
    SERVE_STALE = "serve_stale"
    NEGATIVE = "negative"
    FETCH = "fetch"
    MISS = "miss"


class Plan(NamedTuple):
    """`reason`: why it is not a hit ("" for one). `conditional`: the fetch may answer "not modified".
    `on_error`: the old entry may be served when the fetch fails."""

    act: Act
    reason: str = ""
    conditional: bool = False
    on_error: bool = False


class Room(NamedTuple):
    """How large an object one tier takes: at all, and as a stream while a lower tier could take it instead."""

    largest: int
    largest_fill: int


def plan_open(seen: Seen | None, freshness: Freshness, *, now: float, has_origin: bool, reason: str = "absent") -> Plan:
    """The answer to one open. `reason` says why nothing was seen (absent, corrupt, error)."""
    if seen is None:
        return Plan(Act.FETCH if has_origin else Act.MISS, reason)
    verdict = judge(seen.metadata, freshness, now)
    if verdict is Verdict.FRESH:
        return Plan(Act.NEGATIVE) if seen.metadata.negative else Plan(Act.SERVE)
    if verdict is Verdict.STALE:
        return Plan(Act.SERVE_STALE if has_origin else Act.SERVE, "expired")
    if not has_origin:
        return Plan(Act.MISS, "expired")
    return Plan(
        Act.FETCH,
        "expired",
        conditional=not seen.metadata.negative,
        on_error=verdict is Verdict.ON_ERROR,
    )


def plan_tier(rooms: Sequence[Room], size: int | None) -> int | None:
    """The tier that a streamed body of `size` bytes (None: unknown, and longer than one piece) is staged in.

    A tier above others takes a stream only up to its `largest_fill`: a larger one would push out a good part of
    what makes that tier useful, and of an unknown one nobody can say. The last tier takes what fits at all.
    None: no tier has room.
    """
    fits = [tier for tier, room in enumerate(rooms) if size is None or size <= room.largest]
    for tier in fits[:-1]:
        if size is not None and size <= rooms[tier].largest_fill:
            return tier
    return fits[-1] if fits else None


def plan_promotion(
    rooms: Sequence[Room], tier: int, metadata: Metadata, pressure: PressureLevel = NORMAL
) -> int | None:
    """The highest tier above `tier`, where the entry was found, that should get a copy, or None. When memory is short
    the entry is served from where it is."""
    size = metadata.size
    if size is None or metadata.negative or not EFFECTS[pressure].promotes:
        return None
    return next((above for above in range(tier) if size <= min(rooms[above])), None)
