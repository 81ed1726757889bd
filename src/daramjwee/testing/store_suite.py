"""`StoreSuite`: every promise of `daramjwee.stores.protocol`, tested. Subclass it for a store of your own.

    from daramjwee.testing import CAPACITY, StoreSuite

    class TestMyStore(StoreSuite):
        def make_store(self, tmp_path):
            return MyStore(capacity=CAPACITY)

Invariant: only the contract is used; optional members are tested where a store has them.
Threads: tests start some, and wait for each of them.
Design: docs/design/stores.md
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from daramjwee.errors import Closed, LimitExceeded, StoreError
from daramjwee.model import Metadata

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daramjwee.stores.protocol import Entry, Store

# What `make_store` must give its store: small enough that a few entries fill it, and no multiple of what they hold.
CAPACITY = 1_000_003
PIECE = 256 * 1024

ODD_KEYS = (
    "a",
    "a/b/../../../etc/passwd",
    "..",
    ".",
    "/",
    "/abs/olute",
    "nul\0inside",
    "back\\slash",
    "line\nbreak",
    " ",
    "\N{CHIPMUNK}\N{VARIATION SELECTOR-16} eats \N{CHESTNUT}",
    "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
    "cafe\N{COMBINING ACUTE ACCENT}",
    "A",
    "k" * 65536,
    "k" * 65535 + "j",
)


def pattern(size: int, seed: int = 0) -> bytes:
    """`size` bytes of which every aligned 4 say where they belong, and in which `seed`, so that a mixture shows."""
    words = b"".join(((seed << 24) ^ n).to_bytes(4, "little") for n in range(min(size // 4 + 1, 65536)))
    return (words * (size // len(words) + 1))[:size]


def read_all(source: Any, size: int, piece: int = PIECE) -> bytes:
    """All `size` bytes of an entry or a staging (`source`), by `readinto_at` in pieces of `piece` bytes."""
    out = bytearray(size)
    at = 0
    while at < size:
        got = source.readinto_at(at, memoryview(out)[at : at + piece])
        assert got == min(piece, size - at), f"{got} bytes at {at} of {size}"
        at += got
    return bytes(out)


def put(store: Store, key: str, body: bytes, piece: int = PIECE, **fields: Any) -> None:
    """Commit `body` under a `key` of a `store`, written in pieces of `piece` bytes; `fields` are those of its `Metadata`."""
    staging = store.stage(key, Metadata(size=len(body), **fields))
    try:
        for at in range(0, len(body), piece):
            staging.write(memoryview(body)[at : at + piece])
        entry = staging.commit()
        assert entry is not None
        entry.close()
    finally:
        staging.abort()


def fetch(store: Store, key: str) -> bytes | None:
    """The body of a `key` in a `store`, None when there is none."""
    entry = store.open(key)
    if entry is None:
        return None
    try:
        return read_all(entry, entry.size)
    finally:
        entry.close()


class StoreSuite:
    """Override `make_store`; it gets a fresh folder and gives a store of `CAPACITY` bytes."""

    def make_store(self, tmp_path: Path) -> Store:
        """An empty store of `CAPACITY` bytes; one with files keeps them below `tmp_path`. `NotImplementedError` until it is
        overridden."""
        raise NotImplementedError("override make_store")

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = self.make_store(tmp_path / "tier")
        yield store
        store.close()

    # -- entries -------------------------------------------------------------------------------------------

    def test_absence_is_none_and_not_an_error(self, store: Store) -> None:
        """A key that was never stored is a plain None, False or nothing, everywhere."""
        assert store.open("nobody") is None
        assert store.stat("nobody") is None
        assert store.delete("nobody") is False
        assert list(store.keys()) == []

    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, PIECE - 1, PIECE, PIECE + 1, 700_001])
    @pytest.mark.parametrize("known", [True, False], ids=["sized", "unsized"])
    @pytest.mark.parametrize("piece", [1_777, PIECE, 10**9])
    def test_what_was_committed_is_read_back_exactly(self, store: Store, size: int, known: bool, piece: int) -> None:
        """Any size, announced or not, in any pieces; offset reads agree with the whole."""
        body = pattern(size)
        staging = store.stage("k", Metadata(size=size if known else None, etag='"e"'))
        for at in range(0, size, piece):
            staging.write(memoryview(body)[at : at + piece])
        assert staging.written == size
        entry = staging.commit()
        assert entry is not None
        assert entry.size == size
        assert entry.metadata == Metadata(size=size, etag='"e"') == store.stat("k")
        assert read_all(entry, size) == body
        entry.close()
        assert fetch(store, "k") == body
        entry = store.open("k")
        assert entry is not None
        for offset in {0, 1, size // 2, max(0, size - 5), PIECE - 3, PIECE, size, size + 1, size + PIECE}:
            view = memoryview(bytearray(b"\xaa" * 70_000))
            got = entry.readinto_at(offset, view)
            assert got == max(0, min(len(view), size - offset))
            assert bytes(view[:got]) == body[offset : offset + got]
            assert bytes(view[got:]) == b"\xaa" * (len(view) - got), "wrote past what it returned"
        entry.close()

    def test_whole_bytes_written_once_come_back(self, store: Store) -> None:
        body = pattern(600_000)
        staging = store.stage("k", Metadata(size=len(body)))
        staging.write(body)
        entry = staging.commit()
        assert entry is not None
        assert read_all(entry, len(body)) == body
        entry.close()

    def test_the_writer_may_reuse_its_memory_after_a_write(self, store: Store) -> None:
        """A store keeps no reference to a writable buffer."""
        buffer = bytearray(pattern(1000))
        staging = store.stage("k", Metadata())
        staging.write(memoryview(buffer))
        buffer[:] = bytes(1000)
        entry = staging.commit()
        assert entry is not None
        entry.close()
        assert fetch(store, "k") == pattern(1000)

    def test_all_metadata_survives_and_size_is_that_of_the_bytes(self, store: Store) -> None:
        """Every field comes back; `size` is what was written, whatever was said."""
        said = Metadata(
            size=999, stored_at=12.5, etag='W/"x"', last_modified="Tue, 24 Nov 2026 10:00:00 GMT", ttl=60.0,
            digest="sha256:00", tags=("a", "\N{CHESTNUT}"), attributes={"Content-Type": "text/plain"},
        )  # fmt: skip
        staging = store.stage("k", Metadata())
        staging.write(b"abc")
        entry = staging.commit(said)
        assert entry is not None
        wanted = Metadata(**{name: getattr(said, name) for name in said.__struct_fields__} | {"size": 3})
        assert entry.metadata == wanted == store.stat("k")
        entry.close()

    def test_a_negative_entry_is_kept_like_any_other(self, store: Store) -> None:
        put(store, "gone", b"", negative=True, stored_at=5.0)
        assert store.stat("gone") == Metadata(size=0, negative=True, stored_at=5.0)
        assert fetch(store, "gone") == b""

    def test_a_key_is_any_text_and_exact(self, store: Store, tmp_path: Path) -> None:
        """Separators, dots, NUL, emoji, 64 KiB: each its own entry, and nothing outside the store's folder."""
        before = sorted(tmp_path.iterdir())
        for key in ODD_KEYS:
            put(store, key, key.encode()[-50:])
        left = set(ODD_KEYS)
        for key in ODD_KEYS:
            assert set(store.keys()) == left
            assert fetch(store, key) == key.encode()[-50:]
            assert store.delete(key) is True
            assert fetch(store, key) is None
            left.remove(key)
        assert sorted(tmp_path.iterdir()) == before

    def test_keys_are_a_snapshot_filtered_by_prefix(self, store: Store) -> None:
        for key in ("a/1", "a/2", "b/1"):
            put(store, key, b"x")
        found = store.keys("a/")
        store.delete("a/1")
        assert sorted(found) == ["a/1", "a/2"]
        assert sorted(store.keys("a/")) == ["a/2"]

    def test_closing_an_entry_twice_is_allowed_and_ends_reading(self, store: Store) -> None:
        put(store, "k", b"abc")
        entry = store.open("k")
        assert entry is not None
        entry.close()
        entry.close()
        with pytest.raises(Closed):
            entry.readinto_at(0, memoryview(bytearray(3)))

    @pytest.mark.parametrize("how", ["replace", "delete", "evict"])
    def test_an_open_entry_stays_readable(self, store: Store, how: str) -> None:
        """Replaced, deleted or evicted: who has it open reads the old bytes to the end."""
        body = pattern(400_000, seed=1)
        put(store, "k", body)
        entry = store.open("k")
        assert entry is not None
        assert entry.readinto_at(0, memoryview(bytearray(10))) == 10
        if how == "replace":
            put(store, "k", pattern(400_000, seed=2))
        elif how == "delete":
            assert store.delete("k")
        else:
            put(store, "other", pattern(CAPACITY))
            assert store.stat("k") is None
        assert read_all(entry, len(body)) == body
        assert entry.metadata.size == len(body)
        entry.close()

    # -- stagings ------------------------------------------------------------------------------------------

    def test_a_staging_is_invisible_and_readable_up_to_what_is_written(self, store: Store) -> None:
        """No lookup sees it; its own readers see every byte written so far, and no more."""
        body = pattern(300_000)
        staging = store.stage("k", Metadata())
        for at in range(0, len(body), 50_000):
            staging.write(body[at : at + 50_000])
            end = at + 50_000
            assert staging.written == end
            assert read_all(staging, end, 33_333) == body[:end]
            view = memoryview(bytearray(100))
            assert staging.readinto_at(end - 60, view) == 60
            assert staging.readinto_at(end, view) == 0
        assert (store.open("k"), store.stat("k"), list(store.keys())) == (None, None, [])
        assert store.usage().stagings == 1
        staging.abort()
        assert store.usage().stagings == 0

    def test_an_abort_leaves_nothing_and_may_be_repeated(self, store: Store) -> None:
        staging = store.stage("k", Metadata(size=500_000))
        staging.write(pattern(100_000))
        staging.abort()
        staging.abort()
        with pytest.raises(Closed):
            staging.readinto_at(0, memoryview(bytearray(5)))
        with pytest.raises(Closed):
            staging.commit()
        usage = store.usage()
        assert (usage.bytes, usage.entries, usage.stagings) == (0, 0, 0)
        assert store.open("k") is None

    def test_an_abort_after_a_commit_does_nothing(self, store: Store) -> None:
        staging = store.stage("k", Metadata())
        staging.write(b"abc")
        entry = staging.commit()
        assert entry is not None
        staging.abort()
        assert read_all(staging, 3) == b"abc", "readers of the staging may go on while the entry is open"
        entry.close()
        assert fetch(store, "k") == b"abc"

    def test_a_staging_dropped_without_an_end_gives_its_room_back(self, store: Store) -> None:
        """A caller that broke its promise costs nothing for good: collection ends the staging."""
        staging = store.stage("k", Metadata(size=CAPACITY))
        staging.write(pattern(1000))
        del staging
        put(store, "k", pattern(CAPACITY))
        assert store.usage().stagings == 0

    def test_a_refusing_guard_publishes_nothing(self, store: Store) -> None:
        """Commit, delete (and restamp) change nothing when the guard says no; the staging stays readable."""
        put(store, "k", b"old")
        staging = store.stage("k", Metadata())
        staging.write(b"newer")
        assert staging.commit(guard=lambda: False) is None
        assert fetch(store, "k") == b"old"
        assert read_all(staging, 5) == b"newer"
        assert store.delete("k", guard=lambda: False) is False
        assert fetch(store, "k") == b"old"
        staging.abort()
        assert store.usage().bytes == 3
        assert store.delete("k", guard=lambda: True) is True

    def test_a_guard_is_asked_on_every_commit_and_may_agree_later(self, store: Store) -> None:
        answers = [False, False, False, True, True, True]
        staging = store.stage("k", Metadata())
        staging.write(b"abc")
        while answers:
            entry = staging.commit(guard=lambda: answers.pop(0) if answers else True)
            if entry is not None:
                break
        assert entry is not None
        entry.close()
        assert fetch(store, "k") == b"abc"

    # -- limits --------------------------------------------------------------------------------------------

    def test_capacity_is_never_exceeded_and_room_is_made_by_evicting(self, store: Store) -> None:
        """Entries leave for new ones; what is held stays within the limit at every step."""
        for number in range(20):
            put(store, f"k{number}", pattern(150_000, seed=number))
            usage = store.usage()
            assert usage.bytes <= usage.capacity == CAPACITY
        assert store.usage().entries == 6
        assert store.usage().evictions == 14
        kept = sorted(store.keys())
        assert all(fetch(store, key) == pattern(150_000, seed=int(key[1:])) for key in kept)

    def test_stagings_count_and_are_not_evicted(self, store: Store) -> None:
        """Announced bytes are reserved at once, others as they come; entries leave for them, stagings do not."""
        put(store, "old", pattern(500_000))
        first = store.stage("a", Metadata(size=600_000))
        assert store.stat("old") is None
        assert store.usage().bytes == 600_000
        second = store.stage("b", Metadata())
        for _ in range(8):
            second.write(pattern(50_000))
            assert store.usage().bytes <= CAPACITY
        with pytest.raises(LimitExceeded):
            second.write(pattern(50_000))
        assert store.usage().bytes <= CAPACITY
        written = second.written
        assert 0 < written <= 400_003
        assert read_all(second, 50_000) == pattern(50_000)
        assert second.written == written
        with pytest.raises(LimitExceeded):
            store.stage("c", Metadata(size=450_000))
        with pytest.raises(StoreError):
            second.commit()
        second.abort()
        first.write(pattern(600_000))
        entry = first.commit()
        assert entry is not None
        entry.close()
        assert store.usage().bytes == 600_000

    def test_an_object_that_can_never_fit_is_refused_and_costs_nobody_else(self, store: Store) -> None:
        put(store, "k", b"abc")
        with pytest.raises(LimitExceeded):
            store.stage("big", Metadata(size=CAPACITY + 1))
        assert fetch(store, "k") == b"abc"
        assert store.usage().stagings == 0

    def test_an_object_of_exactly_the_capacity_fits(self, store: Store) -> None:
        put(store, "k", pattern(CAPACITY))
        assert fetch(store, "k") == pattern(CAPACITY)
        put(store, "k", pattern(CAPACITY // 3))
        assert store.usage().bytes == CAPACITY // 3

    def test_fewer_bytes_than_announced_give_the_rest_back(self, store: Store) -> None:
        staging = store.stage("k", Metadata(size=900_000))
        staging.write(b"abc")
        entry = staging.commit()
        assert entry is not None
        entry.close()
        assert (store.usage().bytes, entry.size) == (3, 3)

    # -- optional members ----------------------------------------------------------------------------------

    def test_peek_at_gives_what_readinto_at_gives(self, store: Store) -> None:
        body = pattern(700_001)
        put(store, "k", body)
        entry: Any = store.open("k")
        assert entry is not None
        if hasattr(entry, "peek_at"):
            for offset, size in ((0, 700_001), (0, 10**9), (5, 100), (PIECE - 1, 2), (PIECE, PIECE), (700_001, 1)):
                assert entry.peek_at(offset, size) == body[offset : offset + size]
        entry.close()

    def test_a_path_and_a_descriptor_name_exactly_the_body(self, store: Store) -> None:
        body = pattern(300_000)
        put(store, "k", body)
        entry: Any = store.open("k")
        assert entry is not None
        if hasattr(entry, "verify"):
            entry.verify()
        if hasattr(entry, "fileno"):
            import os

            assert os.pread(entry.fileno(), 10**6, 0) == body
        if hasattr(entry, "path"):
            with open(entry.path, "rb") as file:
                assert file.read() == body
        entry.close()

    def test_restamp_changes_metadata_and_keeps_the_bytes(self, store: Store) -> None:
        """New metadata, same bytes; who has it open keeps what they saw; absent keys and a guard say False."""
        restamp = getattr(store, "restamp", None)
        if restamp is None:
            return
        assert restamp("k", Metadata(etag='"new"')) is False
        put(store, "k", pattern(300_000), etag='"old"')
        entry = store.open("k")
        assert entry is not None
        assert restamp("k", Metadata(etag='"no"'), guard=lambda: False) is False
        assert restamp("k", Metadata(etag='"new"', stored_at=7.0)) is True
        assert store.stat("k") == Metadata(size=300_000, etag='"new"', stored_at=7.0)
        assert entry.metadata.etag == '"old"'
        assert read_all(entry, 300_000) == pattern(300_000) == fetch(store, "k")
        entry.close()
        assert store.usage().bytes == 300_000
        assert store.delete("k") is True
        assert restamp("k", Metadata()) is False

    # -- closing -------------------------------------------------------------------------------------------

    def test_close_ends_everything_and_may_be_repeated(self, store: Store) -> None:
        """Entries and stagings end; every later call says that the store was closed."""
        put(store, "k", b"abc")
        entry = store.open("k")
        staging = store.stage("s", Metadata())
        staging.write(b"abc")
        assert entry is not None
        store.close()
        store.close()
        view = memoryview(bytearray(3))
        calls: list[Any] = [
            lambda: store.open("k"), lambda: store.stat("k"), lambda: store.stage("x", Metadata()),
            lambda: store.delete("k"), lambda: list(store.keys()), store.usage,
            lambda: entry.readinto_at(0, view), lambda: staging.readinto_at(0, view),
            lambda: staging.write(b"x"), staging.commit,
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(Closed):
                call()
        entry.close()
        staging.abort()

    # -- threads -------------------------------------------------------------------------------------------

    def test_many_threads_read_a_staging_while_it_is_written_and_committed(self, store: Store) -> None:
        """Every reader sees every byte right, before, during and after the commit."""
        body = pattern(900_000)
        staging = store.stage("k", Metadata())
        grown = threading.Condition()
        over = threading.Event()

        def follow(step: int) -> bytes:
            out = bytearray(len(body))
            at = 0
            while at < len(body):
                got = staging.readinto_at(at, memoryview(out)[at : at + step])
                at += got
                if not got:
                    with grown:
                        assert grown.wait_for(lambda: staging.written > at or over.is_set(), timeout=30)  # noqa: B023 - called before `at` moves on
            return bytes(out)

        with ThreadPoolExecutor(6) as pool:
            readers = [pool.submit(follow, 7_000 + 9_000 * number) for number in range(6)]
            for at in range(0, len(body), 23_000):
                staging.write(memoryview(body)[at : at + 23_000])
                with grown:
                    grown.notify_all()
            entry = staging.commit()
            over.set()
            with grown:
                grown.notify_all()
            assert entry is not None
            assert all(reader.result(30) == body for reader in readers)
            entry.close()

    def test_an_abort_while_others_read_gives_right_bytes_or_closed(self, store: Store) -> None:
        body = pattern(300_000)
        for _ in range(20):
            staging = store.stage("k", Metadata())
            staging.write(body)
            start = threading.Barrier(3)

            def read(staging: Any = staging, start: threading.Barrier = start) -> None:
                start.wait(30)
                for _ in range(50):
                    try:
                        assert read_all(staging, len(body)) == body
                    except Closed:
                        return

            with ThreadPoolExecutor(2) as pool:
                readers = [pool.submit(read) for _ in range(2)]
                start.wait(30)
                staging.abort()
                for reader in readers:
                    reader.result(30)

    def test_replacing_deleting_and_evicting_never_mix_bytes(self, store: Store) -> None:
        """Under all of it at once, every open yields one committed body, whole."""
        bodies = [pattern(90_000 + 7 * seed, seed) for seed in range(4)]
        stop = threading.Event()

        def read() -> int:
            count = 0
            while not stop.is_set() or not count:
                entry: Entry | None = store.open(f"k{count % 3}")
                count += 1
                if entry is not None:
                    assert read_all(entry, entry.size, 40_000) in bodies
                    entry.close()
            return count

        def write(number: int) -> None:
            for turn in range(60):
                key = f"k{(turn + number) % 3}"
                if turn % 7 == 3:
                    store.delete(key)
                elif turn % 7 == 5:
                    put(store, f"filler{number}", pattern(300_000))
                else:
                    put(store, key, bodies[(turn + number) % 4], 50_000)
                assert store.usage().bytes <= CAPACITY

        with ThreadPoolExecutor(5) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            writers = [pool.submit(write, number) for number in range(3)]
            try:
                for writer in writers:
                    writer.result(60)
            finally:
                stop.set()
            for reader in readers:
                reader.result(60)
        usage = store.usage()
        assert usage.stagings == 0
        assert usage.bytes == sum((store.stat(key) or Metadata()).size or 0 for key in list(store.keys()))

    def test_concurrent_commits_of_one_key_leave_exactly_one(self, store: Store) -> None:
        start = threading.Barrier(4)

        def commit(seed: int) -> None:
            staging = store.stage("k", Metadata(size=100_000))
            staging.write(pattern(100_000, seed))
            start.wait(30)
            entry = staging.commit()
            assert entry is not None
            assert read_all(entry, 100_000) == pattern(100_000, seed)
            entry.close()

        with ThreadPoolExecutor(4) as pool:
            for result in [pool.submit(commit, seed) for seed in range(4)]:
                result.result(30)
        assert fetch(store, "k") in [pattern(100_000, seed) for seed in range(4)]
        assert store.usage().bytes == 100_000
        assert store.usage().entries == 1
