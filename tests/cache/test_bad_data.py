"""`cache.set` of what is no data: refused as any argument, and nothing is changed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daramjwee import Cache, ConfigError, FetchError

LARGE = bytes(600_000)


class Source:
    """Reads whatever it was given."""

    def __init__(self, *pieces: Any) -> None:
        self._pieces = list(pieces)

    def read(self, size: int = -1) -> Any:
        return self._pieces.pop(0) if self._pieces else b""


def one_after_another(*pieces: Any) -> Iterator[Any]:
    yield from pieces


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: "text", "give bytes (text encoded)"),
        (lambda: 3, "give bytes"),
        (lambda: {b"a": 1}, "give bytes"),
        (lambda: ["a", "b"], "gave a str where bytes were due"),
        (lambda: [1, 2], "gave the number 1 where bytes were due"),
        (lambda: [[b"a"]], "gave a list where bytes were due"),
        (lambda: one_after_another(b"a", "b"), "gave a str where bytes were due"),
        (lambda: one_after_another(LARGE, None), "gave None where bytes were due"),
        (lambda: io.StringIO("text"), "StringIO.read gave a str where bytes were due"),
        (lambda: Source(LARGE, "b"), "Source.read gave a str where bytes were due"),
        (lambda: Source(None), "Source.read gave None where bytes were due"),
    ],
)
def test_what_gives_no_bytes_is_a_wrong_argument(cache: Cache, make: Callable[[], Any], said: str) -> None:
    """Wherever it is seen, before a byte was written or after some were: what was there stays."""
    cache.set("k", b"before")
    with pytest.raises(ConfigError) as caught:
        cache.set("k", make())
    (problem,) = caught.value.problems
    assert problem.field == "data" and said in problem.mend
    assert cache.get("k") == b"before"
    assert cache._engine.flights.workers.wait_idle(30)  # what was there before is copied down
    assert all(tier.usage.stagings == 0 for tier in cache.stats().tiers)


def test_a_body_that_fails_by_itself_fails_by_its_own_error(cache: Cache) -> None:
    """Data may come from another cache, whose origin failed: that is no wrong argument."""

    def failing() -> Iterator[bytes]:
        yield LARGE
        raise FetchError("the other origin is away")

    cache.set("k", b"before")
    with pytest.raises(FetchError, match="the other origin is away"):
        cache.set("k", failing())
    assert cache.get("k") == b"before"


def test_a_fetcher_that_gives_no_bytes_is_still_a_failed_fetch(cache: Cache) -> None:
    """There the origin is at fault."""
    with pytest.raises(FetchError, match="gave a str where bytes were due"):
        cache.get("k", lambda request: ["a"])
