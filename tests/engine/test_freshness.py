"""The verdict on an entry: a table of cases, and the laws that hold for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.engine.freshness import CLOCK_SKEW_SECONDS, Verdict, judge
from daramjwee.model import Freshness, Metadata

FULL = Freshness(fresh=10, stale_while_revalidate=20, stale_if_error=40, negative=5)


@pytest.mark.parametrize(
    ("metadata", "freshness", "age", "verdict"),
    [
        (Metadata(), Freshness(), 1e9, Verdict.FRESH),
        (Metadata(), FULL, 0, Verdict.FRESH),
        (Metadata(), FULL, 9.99, Verdict.FRESH),
        (Metadata(), FULL, 10, Verdict.STALE),
        (Metadata(), FULL, 29.99, Verdict.STALE),
        (Metadata(), FULL, 30, Verdict.ON_ERROR),
        (Metadata(), FULL, 49.99, Verdict.ON_ERROR),
        (Metadata(), FULL, 50, Verdict.DEAD),
        (Metadata(), Freshness(fresh=10), 10, Verdict.DEAD),
        (Metadata(ttl=100), FULL, 99, Verdict.FRESH),
        (Metadata(ttl=1), Freshness(), 2, Verdict.DEAD),
        (Metadata(ttl=0), Freshness(), 0, Verdict.DEAD),
        (Metadata(negative=True, ttl=5), FULL, 4, Verdict.FRESH),
        (Metadata(negative=True, ttl=5), FULL, 5, Verdict.DEAD),
        (Metadata(negative=True), Freshness(), 0, Verdict.DEAD),
        (Metadata(), FULL, -1, Verdict.FRESH),
        (Metadata(), FULL, -CLOCK_SKEW_SECONDS - 1, Verdict.DEAD),
        (Metadata(), Freshness(), -1e9, Verdict.FRESH),
    ],
)
def test_an_entry_is_judged_by_its_age_and_the_settings(
    metadata: Metadata, freshness: Freshness, age: float, verdict: Verdict
) -> None:
    """Lifetime first, then the two stale windows, then dead; an entry from the future has no age."""
    assert judge(metadata, freshness, now=metadata.stored_at + age) is verdict


durations = st.none() | st.floats(0, 1000)


@given(durations, durations, durations, st.floats(0, 5000), st.floats(0, 5000))
def test_an_entry_never_gets_fresher_with_age(
    fresh: float | None, swr: float | None, sie: float | None, age: float, more: float
) -> None:
    """Verdicts only ever move from FRESH towards DEAD."""
    order = [Verdict.FRESH, Verdict.STALE, Verdict.ON_ERROR, Verdict.DEAD]
    freshness = Freshness(fresh, swr, sie)
    before, after = (judge(Metadata(), freshness, now) for now in (age, age + more))
    assert order.index(before) <= order.index(after)
