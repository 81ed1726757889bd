"""What an open does with what was found, and where a body is staged: tables of cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.buffers.pressure import EFFECTS, PressureLevel
from daramjwee.engine.plan import Act, Plan, Room, Seen, plan_open, plan_promotion, plan_tier
from daramjwee.model import Freshness, Metadata

FRESHNESS = Freshness(fresh=10, stale_while_revalidate=20, stale_if_error=40, negative=5)
FOUND = Seen(0, Metadata(size=1))
MEMORY, FILE = Room(1000, 125), Room(100_000, 100_000)


@pytest.mark.parametrize(
    ("seen", "age", "has_origin", "plan"),
    [
        (None, 0, True, Plan(Act.FETCH, "absent")),
        (None, 0, False, Plan(Act.MISS, "absent")),
        (FOUND, 0, True, Plan(Act.SERVE)),
        (FOUND, 0, False, Plan(Act.SERVE)),
        (FOUND, 15, True, Plan(Act.SERVE_STALE, "expired")),
        (FOUND, 15, False, Plan(Act.SERVE, "expired")),
        (FOUND, 35, True, Plan(Act.FETCH, "expired", conditional=True, on_error=True)),
        (FOUND, 35, False, Plan(Act.MISS, "expired")),
        (FOUND, 99, True, Plan(Act.FETCH, "expired", conditional=True)),
        (Seen(1, Metadata(negative=True, ttl=5)), 1, True, Plan(Act.NEGATIVE)),
        (Seen(1, Metadata(negative=True, ttl=5)), 6, True, Plan(Act.FETCH, "expired")),
    ],
)
def test_an_open_is_answered_by_what_was_found(seen: Seen | None, age: float, has_origin: bool, plan: Plan) -> None:
    """One row a case; a miss without an origin says why."""
    assert plan_open(seen, FRESHNESS, now=age, has_origin=has_origin) == plan


@pytest.mark.parametrize(
    ("rooms", "size", "tier"),
    [
        ([MEMORY], 1000, 0),
        ([MEMORY], 1001, None),
        ([MEMORY], None, 0),
        ([MEMORY, FILE], 125, 0),
        ([MEMORY, FILE], 126, 1),
        ([MEMORY, FILE], 100_001, None),
        ([MEMORY, FILE], None, 1),
        ([MEMORY, FILE, FILE], 126, 1),
        ([], 1, None),
    ],
)
def test_a_body_is_staged_where_its_size_belongs(rooms: list[Room], size: int | None, tier: int | None) -> None:
    """Small ones at the top; what would push out too much, or is of unknown size, further down."""
    assert plan_tier(rooms, size) == tier


@pytest.mark.parametrize(
    ("tier", "metadata", "target"),
    [
        (1, Metadata(size=125), 0),
        (1, Metadata(size=126), None),
        (2, Metadata(size=126), 1),
        (0, Metadata(size=1), None),
        (1, Metadata(size=0, negative=True), None),
    ],
)
def test_an_entry_is_promoted_to_the_highest_tier_that_wants_it(
    tier: int, metadata: Metadata, target: int | None
) -> None:
    """Never to its own tier, and never a negative one."""
    assert plan_promotion([MEMORY, FILE, FILE], tier, metadata) == target


@pytest.mark.parametrize("level", PressureLevel)
def test_nothing_is_promoted_at_the_levels_that_say_so(level: PressureLevel) -> None:
    """From HIGH on a lower tier's hit is served from where it is."""
    target = 0 if EFFECTS[level].promotes else None
    assert plan_promotion([MEMORY, FILE], 1, Metadata(size=125), level) == target
    assert (target is None) is (level >= PressureLevel.HIGH)


@given(st.lists(st.builds(Room, st.integers(0, 500), st.integers(0, 500)), max_size=4), st.integers(0, 600))
def test_a_planned_tier_always_has_room(rooms: list[Room], size: int) -> None:
    """No plan sends a body to a tier that refuses it, and None is said only when all would."""
    tier = plan_tier(rooms, size)
    if tier is None:
        assert all(size > room.largest for room in rooms)
    else:
        assert size <= rooms[tier].largest
