"""Stores that others write: only what the contract requires, and stores that refuse or fail."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from daramjwee import (
    Cache,
    CacheMiss,
    FileStore,
    Freshness,
    LimitExceeded,
    MemoryStore,
    Metadata,
    Status,
    StoreError,
)
from daramjwee.buffers.pressure import PressureLevel
from daramjwee.stores import Usage
from daramjwee.testing.clock import ManualClock
from daramjwee.testing.origin import ScriptedOrigin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BIG = bytes(range(256)) * 4096


class PlainEntry:
    """An entry with the required members only."""

    def __init__(self, data: bytes, metadata: Metadata) -> None:
        self._data = data
        self.metadata = metadata
        self.size = len(data)

    def readinto_at(self, offset: int, view: memoryview, /) -> int:
        part = self._data[offset : offset + len(view)]
        view[: len(part)] = part
        return len(part)

    def close(self) -> None:
        """Nothing to let go."""


class PlainStaging:
    """A staging with the required members only."""

    def __init__(self, store: PlainStore, key: str, metadata: Metadata) -> None:
        self._store, self._key, self._metadata = store, key, metadata
        self._data = bytearray()

    @property
    def written(self) -> int:
        return len(self._data)

    def write(self, data: memoryview | bytes, /) -> None:
        self._store.fail("write")
        self._data += data

    def readinto_at(self, offset: int, view: memoryview, /) -> int:
        part = self._data[offset : offset + len(view)]
        view[: len(part)] = part
        return len(part)

    def commit(self, metadata: Metadata | None = None, *, guard: Callable[[], bool] | None = None) -> PlainEntry | None:
        self._store.fail("commit")
        described = msgspec.structs.replace(metadata or self._metadata, size=len(self._data))
        entry = PlainEntry(bytes(self._data), described)
        with self._store.lock:
            if guard is not None and not guard():
                return None
            self._store.entries[self._key] = entry
        return entry

    def abort(self) -> None:
        """Nothing was visible."""


class PlainStore:
    """A store as somebody else may write it: a dict, and calls that can be told to fail."""

    def __init__(self) -> None:
        self.entries: dict[str, PlainEntry] = {}
        self.lock = threading.Lock()
        self.failing: set[str] = set()
        self.closed = False

    def fail(self, what: str) -> None:
        if what in self.failing:
            raise StoreError(f"{what} fails, as told")

    def open(self, key: str) -> PlainEntry | None:
        self.fail("open")
        return self.entries.get(key)

    def stage(self, key: str, metadata: Metadata) -> PlainStaging:
        self.fail("stage")
        return PlainStaging(self, key, metadata)

    def delete(self, key: str, *, guard: Callable[[], bool] | None = None) -> bool:
        self.fail("delete")
        with self.lock:
            if guard is not None and not guard():
                return False
            return self.entries.pop(key, None) is not None

    def stat(self, key: str) -> Metadata | None:
        entry = self.entries.get(key)
        return None if entry is None else entry.metadata

    def keys(self, prefix: str = "") -> Iterator[str]:
        return iter([key for key in self.entries if key.startswith(prefix)])

    def usage(self) -> Usage:
        return Usage(sum(e.size for e in self.entries.values()), len(self.entries), 1 << 40, None, 0, 0)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def plain() -> PlainStore:
    return PlainStore()


@pytest.fixture
def origin() -> ScriptedOrigin:
    return ScriptedOrigin({"k": b"data", "big": BIG})


@pytest.mark.parametrize("place", ["alone", "above files", "below memory"])
def test_a_store_with_the_required_members_is_a_tier_like_any_other(
    plain: PlainStore, origin: ScriptedOrigin, tmp_path: Path, place: str
) -> None:
    """Alone, above and below: fills, sets, deletes, copies between tiers, and it is closed with the cache."""
    tiers = {
        "alone": [plain],
        "above files": [plain, FileStore(tmp_path, capacity="64MiB")],
        "below memory": [MemoryStore("4MiB"), plain],
    }[place]
    with Cache(*tiers, origin=origin) as cache:
        for key, data in (("k", b"data"), ("big", BIG)):
            for _ in range(2):
                with cache.open(key) as stream:
                    assert stream.read() == data
            assert cache.get(key) == data
        cache.set("k", b"set")
        assert cache._engine.flights.workers.wait_idle(30)
        assert plain.entries["k"]._data == b"set"
        assert cache.get("k") == b"set"
        cache.delete("k")
        assert "k" not in plain.entries
        assert cache.stats().tiers[0].hits >= 1
    assert plain.closed


def test_an_entry_that_cannot_be_restamped_is_asked_for_again(plain: PlainStore) -> None:
    """Without `restamp` a confirmed copy is served, and the next open asks once more: right, if not cheap."""
    clock, origin = ManualClock(), ScriptedOrigin()
    origin.script("k", b"data", etag='"1"')
    with Cache(plain, origin=origin, freshness=Freshness(fresh="1m"), clock=clock) as cache:
        cache.get("k")
        clock.advance("2m")
        for _ in range(2):
            with cache.open("k") as stream:
                assert (stream.status, stream.read()) == (Status.REVALIDATED, b"data")
        assert origin.fetches() == 3


@pytest.mark.parametrize("failing", ["open", "stage", "write", "commit", "delete"])
def test_a_tier_that_fails_fails_no_read(origin: ScriptedOrigin, tmp_path: Path, failing: str) -> None:
    """Whatever call fails, above or below another tier: bytes come, and the trouble is counted."""
    for place in range(3):
        plain = PlainStore()
        plain.failing = {failing}
        files = FileStore(tmp_path / str(place), capacity="64MiB")
        tiers = ([plain], [plain, files], [MemoryStore("4MiB"), plain])[place]
        with Cache(*tiers, origin=origin) as cache:
            for key, data in (("k", b"data"), ("big", BIG), ("k", b"data")):
                with cache.open(key) as stream:
                    assert b"".join(stream) == data, (place, key)
            assert cache._engine.flights.workers.wait_idle(30)
            # Older copies are deleted in the other tiers only.
            assert cache.stats().events or (failing == "delete" and place < 2)


def test_a_set_that_no_tier_can_keep_is_an_error_and_the_old_value_is_gone(plain: PlainStore) -> None:
    """The program meant to replace it: an older value must not be served for the newer."""
    with Cache(plain) as cache:
        cache.set("k", b"old")
        plain.failing = {"commit"}
        with pytest.raises(StoreError, match="as told"):
            cache.set("k", b"new")
        plain.failing = set()
        with pytest.raises(CacheMiss):
            cache.get("k")
        cache.set("k", b"old")
        plain.failing = {"stage"}
        with pytest.raises(StoreError, match="no tier could begin"):
            cache.set("k", b"new")
        plain.failing = set()
        assert cache.get("k") == b"old"


def test_a_delete_that_a_tier_fails_is_said_after_all_were_tried(plain: PlainStore, tmp_path: Path) -> None:
    """The program must know that the old value may come back; a set is refused for the same reason."""
    with Cache(FileStore(tmp_path, capacity="64MiB"), plain) as cache:
        cache.set("k", b"old")
        assert cache._engine.flights.workers.wait_idle(30)
        plain.failing = {"delete"}
        with pytest.raises(StoreError, match="as told"):
            cache.delete("k")
        assert cache._engine.tiers[0].store.stat("k") is None
        with pytest.raises(StoreError, match="as told"):
            cache.set("k", b"new")
        plain.failing = set()
        assert cache.delete("k")


def test_a_promotion_that_fails_serves_the_lower_tier(plain: PlainStore, tmp_path: Path) -> None:
    """The upper tier refuses: the bytes come from below, each time."""
    plain.failing = {"stage"}
    with Cache(FileStore(tmp_path, capacity="64MiB")) as cache:
        cache.set("k", b"data")
    with Cache(plain, FileStore(tmp_path, capacity="64MiB")) as cache:
        for _ in range(2):
            with cache.open("k") as stream:
                assert (stream.status, stream.read()) == (Status.HIT, b"data")
        assert cache.stats().events["promotion_failed"] == 2


def test_a_hit_below_is_not_carried_up_while_memory_is_short(tmp_path: Path) -> None:
    """From HIGH on it is served from its tier, and carried up by the first hit after that has passed."""
    files = FileStore(tmp_path, capacity="64MiB")
    with Cache(files) as cache:
        cache.set("k", b"data")
    memory = MemoryStore("4MiB")
    with Cache(memory, FileStore(tmp_path, capacity="64MiB")) as cache:
        for level, entries in ((PressureLevel.CRITICAL, 0), (PressureLevel.HIGH, 0), (PressureLevel.ELEVATED, 1)):
            cache._engine.pool.relieve(level)
            with cache.open("k") as stream:
                assert (stream.status, stream.read()) == (Status.HIT, b"data")
            assert memory.usage().entries == entries, level
        assert cache.stats().tiers[1].hits == 3


def test_a_path_brings_an_entry_to_the_tier_that_has_files(tmp_path: Path) -> None:
    """What is in memory only is copied down when somebody wants a file of it."""
    memory, files = MemoryStore("4MiB"), FileStore(tmp_path, capacity="64MiB")
    with Cache(memory, files) as cache:
        cache.set("k", b"data")
        assert cache._engine.flights.workers.wait_idle(30)
        files.delete("k")
        with cache.open("k") as stream:
            path = stream.path()
            assert path.startswith(str(tmp_path))
            with open(path, "rb") as file:
                assert file.read() == b"data"


def test_an_object_larger_than_every_tier_is_refused_with_both_sizes() -> None:
    """For a set of known size, a stream of unknown size and a writer; what was there stays."""
    with Cache(MemoryStore("1MiB")) as cache:
        cache.set("k", b"old")
        with pytest.raises(LimitExceeded, match="2MiB"):
            cache.set("k", bytes(2 * 1024 * 1024))
        with pytest.raises(LimitExceeded):
            cache.set("k", iter([bytes(300_000)] * 8))
        with pytest.raises(LimitExceeded), cache.writer("k") as writer:
            for _ in range(8):
                writer.write(bytes(300_000))
        assert cache.get("k") == b"old"
        assert cache.stats().tiers[0].usage.stagings == 0
