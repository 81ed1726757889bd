"""Caches over every mix of tiers, an origin that follows a script, and a clock that stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daramjwee import Cache, FileStore, MemoryStore
from daramjwee.testing.clock import ManualClock
from daramjwee.testing.origin import ScriptedOrigin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def origin() -> ScriptedOrigin:
    return ScriptedOrigin()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def make_tiers(kind: str, folder: Path) -> list[MemoryStore | FileStore]:
    """Tiers by the initials of their kinds, top first: "MF" is memory above file."""
    stores: list[MemoryStore | FileStore] = []
    for place, letter in enumerate(kind):
        if letter == "M":
            stores.append(MemoryStore("8MiB"))
        else:
            stores.append(FileStore(folder / f"tier{place}", capacity="64MiB"))
    return stores


@pytest.fixture(params=["M", "F", "MF", "MFF"])
def make_cache(
    request: pytest.FixtureRequest, tmp_path: Path, origin: ScriptedOrigin, clock: ManualClock
) -> Iterator[Callable[..., Cache]]:
    """Builds caches of one, two and three tiers; what it built is closed at the end."""
    built: list[Cache] = []

    def make(**settings: object) -> Cache:
        arguments = {"origin": origin, "clock": clock, "memory_limit": "64MiB"} | settings
        cache = Cache(*make_tiers(request.param, tmp_path / str(len(built))), **arguments)
        built.append(cache)
        return cache

    yield make
    for cache in built:
        cache.close()


@pytest.fixture
def cache(make_cache: Callable[..., Cache]) -> Cache:
    return make_cache()
