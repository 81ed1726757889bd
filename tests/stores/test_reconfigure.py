"""Other limits for a tier in use: who has to leave does so at once, and nothing that is open or under way is lost."""

from __future__ import annotations

import itertools
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daramjwee.buffers import MemoryLedger
from daramjwee.errors import Closed, ConfigError, LimitExceeded
from daramjwee.model import NULL_OBSERVER, SYSTEM_CLOCK, Metadata
from daramjwee.stores import FileStore, MemoryStore
from daramjwee.testing.store_suite import fetch, put, read_all

KIB = 1024


def file_store(folder: Path, **limits: Any) -> FileStore:
    return FileStore(folder / "tier", free_space_floor=0, **limits)


def memory_store(_folder: Path, **limits: Any) -> MemoryStore:
    return MemoryStore(**limits)


@pytest.fixture(params=[memory_store, file_store], ids=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with request.param(tmp_path, capacity="64KiB") as made:
        yield made


@pytest.mark.parametrize("policy", ["sieve", "lru"])
@pytest.mark.parametrize("make", [memory_store, file_store], ids=["memory", "file"])
def test_settings_make_an_equal_store(make: Any, tmp_path: Path, policy: str) -> None:
    """What `settings` gives are the constructor's arguments, sizes in bytes."""
    given = {"capacity": 65536, "max_entries": 7, "max_object_size": 4096, "policy": policy}
    with make(tmp_path, **given) as store:
        settings = store.settings
        assert settings.items() >= given.items()
        with type(store)(**({**settings, "folder": tmp_path / "other"} if "folder" in settings else settings)) as twin:
            assert {**twin.settings, "folder": 0} == {**settings, "folder": 0}
        store.reconfigure(capacity="32KiB")
        assert store.settings.items() >= {"capacity": 32768, "max_entries": None, "max_object_size": None}.items()


def test_a_lower_capacity_evicts_at_once_and_a_higher_one_takes_more(store: Any) -> None:
    """In the order of the policy, down to what fits."""
    for n in range(8):
        put(store, f"k{n}", bytes([n]) * 8 * KIB)
    store.reconfigure(capacity="20KiB")
    assert store.usage().bytes == 16 * KIB
    assert store.usage().capacity == 20 * KIB
    assert len(list(store.keys())) == 2
    assert store.usage().evictions == 6
    for key in store.keys():
        assert fetch(store, key) == bytes([int(key[1:])]) * 8 * KIB
    store.reconfigure(capacity="128KiB")
    put(store, "large", bytes(100 * KIB))
    assert store.usage().bytes == 116 * KIB


def test_fewer_entries_and_smaller_objects(store: Any) -> None:
    """Entries beyond the number leave; objects that are there and too large for new ones stay."""
    for n in range(6):
        put(store, f"k{n}", bytes(2 * KIB))
    store.reconfigure(capacity="64KiB", max_entries=2, max_object_size="1KiB")
    assert store.usage().entries == 2
    put(store, "small", bytes(KIB))
    assert store.usage().entries == 2
    with pytest.raises(LimitExceeded, match="max_object_size"):
        store.stage("large", Metadata(size=2 * KIB))
    assert store.max_object_size == store.largest_fill == KIB


def test_an_open_entry_that_had_to_leave_is_read_to_its_end(store: Any) -> None:
    """Evicted is not gone for who has it open."""
    body = bytes(range(256)) * 128
    put(store, "k", body)
    entry = store.open("k")
    assert entry is not None
    store.reconfigure(capacity=1)
    assert store.stat("k") is None
    assert read_all(entry, len(body)) == body
    entry.close()
    assert store.usage().bytes == 0


def test_an_object_that_is_being_written_is_finished(store: Any) -> None:
    """It had its room. What is published is whole for its reader, and leaves at once where it does not fit any more."""
    body = bytes(range(256)) * 128
    staging = store.stage("k", Metadata(size=len(body)))
    staging.write(body[: 8 * KIB])
    store.reconfigure(capacity="16KiB")
    assert store.usage().bytes == len(body)
    with pytest.raises(LimitExceeded, match="no room"):
        store.stage("other", Metadata(size=1))
    staging.write(body[8 * KIB :])
    entry = staging.commit()
    assert entry is not None
    assert read_all(entry, len(body)) == body
    entry.close()
    usage = store.usage()
    assert (usage.bytes, usage.entries, usage.stagings) == (0, 0, 0)
    put(store, "k", bytes(16 * KIB))
    assert fetch(store, "k") == bytes(16 * KIB)


def test_two_writers_under_a_lower_capacity_leave_what_fits(store: Any) -> None:
    """Both finish; together they are too large."""
    stagings = [store.stage(f"k{n}", Metadata(size=12 * KIB)) for n in range(2)]
    store.reconfigure(capacity="16KiB")
    for staging in stagings:
        staging.write(bytes(12 * KIB))
        entry = staging.commit()
        assert entry is not None
        entry.close()
    assert store.usage().bytes in {0, 12 * KIB}
    assert store.usage().entries == len(list(store.keys()))


def test_an_aborted_writer_gives_its_room_back_to_the_lower_capacity(store: Any) -> None:
    """Nothing is counted twice."""
    staging = store.stage("k", Metadata(size=32 * KIB))
    store.reconfigure(capacity="16KiB")
    staging.abort()
    assert store.usage().bytes == 0
    put(store, "other", bytes(16 * KIB))


def test_faults_are_listed_together_and_change_nothing(store: Any) -> None:
    """All or nothing."""
    put(store, "k", b"data")
    before = store.settings
    with pytest.raises(ConfigError) as caught:
        store.reconfigure(capacity=0, max_entries=0, max_object_size="lots")
    assert {problem.field for problem in caught.value.problems} == {"capacity", "max_entries", "max_object_size"}
    assert store.settings == before
    assert fetch(store, "k") == b"data"


def test_a_closed_store_refuses(store: Any) -> None:
    """As for every other call."""
    store.close()
    with pytest.raises(Closed):
        store.reconfigure(capacity="1MiB")


def test_memory_that_left_goes_back_to_the_ledger() -> None:
    """Charged is what is held."""
    ledger = MemoryLedger("1MiB")
    with MemoryStore("256KiB") as store:
        store.attach(ledger=ledger, observer=NULL_OBSERVER, clock=SYSTEM_CLOCK)
        for n in range(16):
            put(store, f"k{n}", bytes(16 * KIB))
        assert ledger.held == 256 * KIB
        staging = store.stage("s", Metadata(size=16 * KIB))
        store.reconfigure(capacity="32KiB")
        assert ledger.held == store.usage().bytes == 32 * KIB
        staging.write(bytes(16 * KIB))
        entry = staging.commit()
        assert entry is not None
        entry.close()
        assert ledger.held == store.usage().bytes <= 32 * KIB
        del staging, entry  # they hold the body
    assert ledger.held == 0


def test_files_that_left_are_gone_from_the_folder(tmp_path: Path) -> None:
    """And the next start finds what the index had."""
    with file_store(tmp_path, capacity="64KiB") as store:
        for n in range(8):
            put(store, f"k{n}", bytes(8 * KIB))
        store.reconfigure(capacity="24KiB")
        left = sorted(store.keys())
        files = [path for path in (tmp_path / "tier" / "objects").rglob("*") if path.is_file()]
        assert len(files) == 2 * len(left) == 6
    with file_store(tmp_path, capacity="64KiB") as store:
        assert sorted(store.keys()) == left


def test_what_was_judged_fresh_is_judged_anew_after_disarm() -> None:
    """No hit may be taken by an old judgement."""
    with MemoryStore("1MiB") as store:
        put(store, "k", b"data")
        hot = store.hot("k") if store.hot else None
        assert hot is not None
        store.arm(hot, hot.metadata, 1e9)
        assert hot.until == 1e9
        store.disarm()
        assert hot.until == 0.0


class Interrupt:
    """A profiler that raises at the n-th place in the stores where a signal handler can run."""

    PLACES = re.compile("daramjwee/(stores|policies)/")

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, frame: types.FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event not in ("call", "c_return") or code.co_name == "__del__" or not self.PLACES.search(code.co_filename):
            return
        self.left -= 1
        if self.left < 0:
            sys.setprofile(None)
            raise KeyboardInterrupt


@pytest.mark.parametrize("resize", [False, True], ids=["write", "reconfigure"])
def test_an_interrupt_while_entries_make_way_leaves_nothing_that_comes_back(tmp_path: Path, resize: bool) -> None:
    """At each point where a signal handler can run: deletes do not wait, and the next start finds nothing of what was
    deleted after the interrupt."""
    for n in itertools.count():
        folder = tmp_path / str(n)
        interrupted = False
        with file_store(folder, capacity="16KiB") as store:
            put(store, "a", bytes(8 * KIB))
            put(store, "b", bytes(8 * KIB))
            staging = None if resize else store.stage("c", Metadata())
            sys.setprofile(Interrupt(n))
            try:
                if staging is None:
                    store.reconfigure(capacity="4KiB")
                else:
                    staging.write(bytes(12 * KIB))
            except KeyboardInterrupt:
                interrupted = True
            finally:
                sys.setprofile(None)
            if staging is not None:
                staging.abort()
            for key in "abc":
                store.delete(key)
            assert not any(store._leftovers.values())
        with file_store(folder, capacity="16KiB") as store:
            assert list(store.keys()) == [], n
        if not interrupted:
            break
    assert n > 10


def write(store: Any, key: str, size: int | None = None) -> None:
    staging = store.stage(key, Metadata(size=size))
    try:
        staging.write(bytes(6 * KIB))
        entry = staging.commit()
    finally:
        staging.abort()
    entry.close()


def begin_and_give_up(store: Any) -> None:
    staging = store.stage("new", Metadata(size=2 * KIB))
    try:
        staging.write(bytes(6 * KIB))
    finally:
        staging.abort()


CHANGES = {
    "write": lambda store: write(store, "new"),
    "replace": lambda store: write(store, "a", 6 * KIB),
    "give up": begin_and_give_up,
    "delete": lambda store: store.delete("a"),
    "restamp": lambda store: store.restamp("a", Metadata(etag='"2"')),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_interrupt_at_any_point_leaves_a_file_tier_that_counts_right_and_a_key_that_can_change(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing stays reserved, nobody waits for a change that is over, and what is deleted afterwards does not come back."""
    monkeypatch.setattr("daramjwee.stores.file.index.TURN_SECONDS", 0.0)
    interrupted, n = True, 0
    while interrupted:
        interrupted = False
        with file_store(tmp_path / str(n), capacity="8KiB") as store:
            put(store, "a", bytes(4 * KIB))
            put(store, "b", bytes(4 * KIB))
            sys.setprofile(Interrupt(n))
            try:
                CHANGES[change](store)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                sys.setprofile(None)
            held = sum(metadata.size or 0 for key in store.keys() if (metadata := store.stat(key)) is not None)
            assert (store.usage().bytes, store.usage().stagings) == (held, 0), n
            for key in (*store.keys(), "a", "b", "new"):
                store.delete(key)
        with file_store(tmp_path / str(n), capacity="8KiB") as store:
            assert list(store.keys()) == [], n
        n += 1
    assert n > 20
