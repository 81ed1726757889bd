"""Writing: what a program puts in is published in every tier or in none, and what it replaces does not come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daramjwee import Cache, LimitExceeded, MemoryStore, StoreError
from daramjwee.model import Metadata


class Stubborn(MemoryStore):
    """A tier whose stagings do what `commit` says instead of theirs; `aborts` counts those that were aborted. While it
    `keeps` it deletes nothing."""

    commit: Callable[[Any], object] | None = None
    aborts = 0
    keeps = False

    def stage(self, key: str, metadata: Metadata) -> Any:
        staging = super().stage(key, metadata)
        if self.commit is None:
            return staging
        return _Staging(self, staging)

    def delete(self, key: str, *, guard: Callable[[], bool] | None = None) -> bool:
        if self.keeps:
            raise StoreError("the disk is read-only")
        return super().delete(key, guard=guard)


class _Staging:
    def __init__(self, store: Stubborn, staging: Any) -> None:
        self._store, self._staging = store, staging

    def write(self, view: Any) -> None:
        self._staging.write(view)

    def commit(self, metadata: Metadata, *, guard: Callable[[], bool] | None = None) -> object:
        assert self._store.commit is not None
        return self._store.commit(metadata)

    def abort(self) -> None:
        self._store.aborts += 1
        self._staging.abort()


@pytest.fixture
def stubborn() -> Stubborn:
    return Stubborn("1MiB")


@pytest.fixture
def cache(stubborn: Stubborn) -> Iterator[Cache]:
    with Cache(stubborn, MemoryStore("4MiB")) as cache:
        cache.set("key", b"old")
        assert cache._engine.flights.workers.wait_idle(30)
        yield cache
        assert cache._engine.flights.workers.wait_idle(30)
        assert len(cache._engine.flights.fence) == 0


def test_what_cannot_take_the_place_of_an_older_copy_is_not_published(stubborn: Stubborn) -> None:
    """The older one would come back when the new one leaves its tier."""
    with Cache(MemoryStore("1MiB"), stubborn) as cache:
        cache.set("key", b"old")
        assert cache._engine.flights.workers.wait_idle(30)
        stubborn.keeps = True
        with pytest.raises(StoreError, match="the disk is read-only"):
            cache.set("key", b"new")
        stubborn.keeps = False
        assert cache.get("key", default=None) == b"old"


def refuse(metadata: Metadata) -> None:
    raise StoreError("the disk is gone")


def test_when_publishing_fails_the_key_is_gone_and_not_what_it_was(cache: Cache, stubborn: Stubborn) -> None:
    """Neither from the tier that failed nor from the one below."""
    stubborn.commit = refuse
    with pytest.raises(StoreError, match="the disk is gone"):
        cache.set("key", b"new")
    stubborn.commit = None
    assert cache.get("key", default=None) is None
    assert stubborn.aborts == 1
    cache.set("key", b"newer")
    assert cache.get("key") == b"newer"


def test_what_was_overwritten_while_it_was_published_leaves_nothing_behind(cache: Cache, stubborn: Stubborn) -> None:
    """The newer change of the key stands, and the staging of the older is aborted."""

    def overtaken(metadata: Metadata) -> None:
        stubborn.commit = None
        cache.set("key", b"newer")

    stubborn.commit = overtaken
    cache.set("key", b"new")
    assert stubborn.aborts == 1
    assert cache.get("key") == b"newer"
    assert cache._engine.flights.workers.wait_idle(30)
    stubborn.delete("key")
    assert cache.get("key") == b"newer"


def test_an_object_as_large_as_a_tier_takes_goes_there_whole(cache: Cache) -> None:
    """A byte more goes to the next one; more than any takes is refused with both numbers, and the key is as before."""
    largest = [tier.largest for tier in cache._engine.tiers.rooms]
    for size, tier in ((largest[0], 0), (largest[0] + 1, 1)):
        cache.set("large", bytes(size))
        assert cache._engine.flights.workers.wait_idle(30)
        found = cache._engine.tiers.find("large")
        assert found.entry is not None
        assert (found.tier, found.entry.size) == (tier, size)
        found.entry.close()
    with pytest.raises(LimitExceeded, match="but the largest object a tier takes is"):
        cache.set("key", bytes(largest[1] + 1))
    assert cache.get("key") == b"old"
