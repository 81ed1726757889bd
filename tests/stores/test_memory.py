"""The memory tier: the store suite, plus what only memory promises (sharing, the ledger, `hot`)."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.buffers import MemoryLedger
from daramjwee.buffers.charge import Grip, Held
from daramjwee.errors import Closed, ConfigError, LimitExceeded, StoreError
from daramjwee.model import NULL_OBSERVER, Metadata
from daramjwee.stores import MemoryStore
from daramjwee.stores.segments import SEGMENT_BYTES, WHOLE_BYTES, Spool
from daramjwee.testing.clock import ManualClock
from daramjwee.testing.store_suite import CAPACITY, StoreSuite, fetch, pattern, put, read_all


class CountingLedger:
    """A bound and a count, as plain as can be: what the store charges must come back."""

    epoch = 0
    noted = ()

    def __init__(self, limit):
        self.limit, self.held, self.peak, self.reclaimers = limit, 0, 0, []

    def try_charge(self, count):
        if self.held + count > self.limit:
            return False
        self.held += count
        self.peak = max(self.peak, self.held)
        return True

    def note_credit(self, item):
        self.held -= item.bytes if isinstance(item, Held) else item
        assert self.held >= 0

    def note_credits(self, items):
        for item in items:
            self.note_credit(item)

    def add_reclaimer(self, function):
        self.reclaimers.append(function)


def attached(capacity=CAPACITY, limit=10 * CAPACITY, **given):
    store, ledger, clock = MemoryStore(capacity, **given), CountingLedger(limit), ManualClock()
    store.attach(ledger=ledger, observer=NULL_OBSERVER, clock=clock)
    return store, ledger, clock


class TestMemoryStore(StoreSuite):
    def make_store(self, tmp_path):
        return MemoryStore(CAPACITY)


class TestMemoryStoreWithLru(StoreSuite):
    def make_store(self, tmp_path):
        return MemoryStore(CAPACITY, policy="lru")


class TestMemoryStoreInACache(StoreSuite):
    """With a ledger; at the end of every test all it charged has come back."""

    def make_store(self, tmp_path):
        store, self.ledger, _ = attached()
        return store

    @pytest.fixture(autouse=True)
    def nothing_stays_charged(self, store):
        yield
        store.close()
        gc.collect()
        assert self.ledger.held == 0


def test_all_wrong_arguments_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        MemoryStore("many", max_entries=0, policy="mru", max_object_size=-1)
    assert [p.field for p in caught.value.problems] == ["capacity", "max_entries", "policy", "max_object_size"]
    with pytest.raises(ConfigError, match="must not exceed capacity"):
        MemoryStore("1MiB", max_object_size="2MiB")
    with pytest.raises(ConfigError, match="at least 1 byte"):
        MemoryStore(0)


def test_limits_for_one_object():
    assert (MemoryStore(8000).largest_fill, MemoryStore(8000).max_object_size) == (1000, 8000)
    store = MemoryStore(8000, max_object_size=3000)
    assert (store.largest_fill, store.max_object_size) == (3000, 3000)
    with pytest.raises(LimitExceeded, match="max_object_size"):
        store.stage("k", Metadata(size=3001))
    staging = store.stage("k", Metadata())
    with pytest.raises(LimitExceeded):
        staging.write(bytes(3001))
    staging.abort()


def test_the_number_of_entries_is_bounded_also_when_they_have_no_bytes():
    """`max_entries` as given; without it still a bound, or remembered absences would pile up."""
    store = MemoryStore("1KiB", max_entries=3)
    for number in range(9):
        put(store, f"k{number}", b"")
    assert (store.usage().entries, store.usage().evictions, store.usage().max_entries) == (3, 6, 3)
    store = MemoryStore("1KiB")
    for number in range(1500):
        put(store, f"k{number}", b"", negative=True)
    assert (store.usage().entries, store.usage().max_entries) == (1024, None)


def test_bytes_set_whole_are_shared_and_never_copied():
    store = MemoryStore("64MiB")
    for size in (1, 1000, 5 * SEGMENT_BYTES + 1):
        body = pattern(size)
        for known in (size, None) if size >= SEGMENT_BYTES else (size,):
            staging = store.stage("k", Metadata(size=known))
            staging.write(body)
            staging.commit().close()
            assert store.hot("k").whole is body
            assert store.open("k").peek_at(0, size) is body


@pytest.mark.parametrize("size", [0, 1, WHOLE_BYTES])
def test_a_body_up_to_one_mib_ends_as_one_segment(size):
    store = MemoryStore("64MiB")
    put(store, "k", pattern(size), piece=100_000)
    assert store.hot("k").whole == pattern(size)


def test_a_large_body_is_kept_in_segments():
    store = MemoryStore("64MiB")
    put(store, "k", pattern(WHOLE_BYTES + 1), piece=10_000)
    hot = store.hot("k")
    assert hot.whole is None and hot.size == WHOLE_BYTES + 1
    assert all(len(segment) >= SEGMENT_BYTES for segment in hot.body.segments[:-1])
    assert len(hot.body.segments) == 5


def test_hot_finds_everything_a_hit_needs():
    """metadata, whole, size, and until: armed by whoever judges freshness, disarmed by new metadata."""
    store = MemoryStore("1MiB")
    put(store, "k", b"abc", ttl=60.0)
    hot = store.hot("k")
    assert (hot.whole, hot.size, hot.metadata.ttl, hot.until) == (b"abc", 3, 60.0, 0.0)
    assert hot.visited is False
    judged = hot.metadata
    store.arm(hot, judged, 7.0)
    assert hot.until == 7.0
    store.restamp("k", Metadata(ttl=5.0))
    assert (hot.metadata.ttl, hot.until) == (5.0, 0.0)
    store.arm(hot, judged, 8.0)
    assert hot.until == 0.0, "armed by a judgement of metadata that was replaced meanwhile"
    put(store, "gone", b"", negative=True)
    assert store.hot("gone").whole is None
    assert store.hot("nobody") is None


def test_a_visited_entry_survives_and_lru_has_no_hot_path():
    store = MemoryStore(300)
    for key in "abc":
        put(store, key, bytes(100))
    store.hot("a").visited = True
    put(store, "d", bytes(100))
    assert sorted(store.keys()) == ["a", "c", "d"]
    lru = MemoryStore(300, policy="lru")
    assert lru.hot is None
    for key in "abc":
        put(lru, key, bytes(100))
    lru.open("a").close()
    put(lru, "d", bytes(100))
    assert sorted(lru.keys()) == ["a", "c", "d"]


def test_an_evicted_body_stays_charged_until_its_last_reader_lets_go():
    store, ledger, _ = attached(1000)
    put(store, "a", bytes(900))
    entry = store.open("a")
    put(store, "b", bytes(900))
    assert ledger.held == 1800 and store.usage().bytes == 900
    assert read_all(entry, 900) == bytes(900)
    entry.close()
    assert ledger.held == 900


def test_when_the_ledger_refuses_own_entries_leave_first_and_then_the_write_is_refused():
    store, ledger, _ = attached(100_000, limit=50_000)
    put(store, "a", bytes(30_000))
    put(store, "b", bytes(40_000))
    assert list(store.keys()) == ["b"] and ledger.held == 40_000
    with pytest.raises(LimitExceeded, match="memory_limit"):
        store.stage("c", Metadata(size=60_000))
    assert ledger.held == 0 and store.usage().bytes == 0
    staging = store.stage("d", Metadata())
    with pytest.raises(LimitExceeded):
        for _ in range(1000):
            staging.write(bytes(100))
    assert staging.written and read_all(staging, staging.written) == bytes(staging.written)
    with pytest.raises(StoreError, match="abort it"):
        staging.commit()
    staging.abort()
    assert ledger.held == 0 and ledger.peak <= 50_000


def test_the_ledger_gets_memory_back_by_eviction():
    """`reclaim` counts only what nobody reads: the rest comes with its last reader."""
    store, ledger, _ = attached(1000)
    for key in "abc":
        put(store, key, bytes(300))
    entry = store.open("a")
    entry.close()
    reader = store.open("b")
    assert ledger.reclaimers == [store.reclaim]
    assert store.reclaim(1) == 300
    assert store.reclaim(10**9) == 300
    assert ledger.held == 300 and store.usage().entries == 0
    reader.close()
    assert ledger.held == 0


def test_a_store_filled_before_it_was_attached_is_charged_as_far_as_memory_goes():
    store, ledger = MemoryStore(1000), CountingLedger(500)
    for key in "abc":
        put(store, key, bytes(200))
    store.attach(ledger=ledger, observer=NULL_OBSERVER, clock=ManualClock())
    assert sorted(store.keys()) == ["b", "c"] and ledger.held == 400
    store.close()
    gc.collect()
    assert ledger.held == 0


def test_joining_a_small_body_is_skipped_when_there_is_no_memory_for_it():
    """The bytes are right either way; only `whole` needs the copy."""
    size = 2 * SEGMENT_BYTES
    store, ledger, _ = attached(2 * size, limit=size + 1000)
    put(store, "k", pattern(size))
    assert store.hot("k").whole is None and fetch(store, "k") == pattern(size)
    assert ledger.held == size


@given(
    sizes=st.lists(st.one_of(st.integers(0, 9000), st.integers(200_000, 300_000)), max_size=12),
    known=st.booleans(),
    cut=st.integers(0, 2000),
)
def test_a_spool_equals_the_concatenation_of_its_writes(sizes, known, cut):
    """Whatever the sizes of the writes, any range read at any time is that range of what was written."""
    held = [0]
    parts = [pattern(size, seed) for seed, size in enumerate(sizes)]
    total = b"".join(parts)

    def give_back(count):
        held[0] -= count

    def charge(count):
        held[0] += count
        return Grip(give_back, count)

    spool, done = Spool(len(total) if known else None, charge), 0
    for part in parts:
        spool.append(memoryview(part))
        done += len(part)
        offset = max(0, done - cut - 1)
        view = memoryview(bytearray(3000))
        got = spool.readinto_at(offset, view)
        assert bytes(view[:got]) == total[offset : min(done, offset + 3000)]
    segments = spool.finish()
    assert b"".join(segments) == total and held[0] == 0
    if len(total) <= WHOLE_BYTES:
        assert len(segments) <= 1


def test_a_store_tells_its_state():
    store = MemoryStore("1MiB")
    put(store, "k", bytes(1024))
    assert repr(store) == "<MemoryStore 1 entry, 1KiB of 1MiB, 0 stagings>"
    assert repr(store.open("k")) == "<MemoryEntry open, 1KiB>"
    assert repr(store.stage("secret", Metadata())) == "<MemoryStaging 'secret' open, 0B>"
    store.close()
    assert repr(store) == "<MemoryStore closed>"


def in_child(function):
    """What `function` returned, or raised as text, in a forked child."""
    import os

    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = repr(function())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


def test_a_forked_child_has_the_entries_and_none_of_the_stagings():
    """The child's tier is usable at once, also when the parent's threads were in the middle of something."""
    store, ledger = MemoryStore(CAPACITY), MemoryLedger(10 * CAPACITY)
    store.attach(ledger=ledger, observer=NULL_OBSERVER, clock=ManualClock())
    put(store, "k", b"abc")
    staging = store.stage("s", Metadata(size=1000))

    def child():
        try:
            staging.write(b"x")
        except Closed:
            staging.abort()
        put(store, "new", b"1234")
        return fetch(store, "k"), fetch(store, "new"), store.usage().stagings, ledger.held

    assert in_child(child) == repr((b"abc", b"1234", 0, 4))
    staging.write(bytes(1000))
    staging.commit().close()
    assert fetch(store, "s") == bytes(1000) and store.open("new") is None
