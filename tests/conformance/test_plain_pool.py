"""The plain pool's interface as release 0.1.0 had it: names, parameters and what they do.

A program written for it goes on working: a test that fails here is a change that breaks one. The tables are written from
that release, and are not to follow the code.
"""

from __future__ import annotations

import inspect
import io
import threading

import pytest

import daramjwee
from daramjwee import (
    AdaptiveBufferPool,
    BufferPool,
    BufferPoolConfig,
    BufferPoolStats,
    ChunkedTeeReader,
    Closed,
    ConfigError,
    CopyResult,
    Lease,
    LeaseError,
    LimitExceeded,
    MemoryLedger,
    Overloaded,
    SizeClass,
    Strategy,
)
from daramjwee import buffers as room

KIB, MIB = 1024, 1024 * 1024
NONE = object()  # no default
# Of each call: what may be given by place, then what is given by name only.
CALLS = {
    BufferPool: ({"config": BufferPoolConfig()}, {"ledger": None}),
    BufferPool.acquire: ({"size": None}, {"timeout": None}),
    BufferPool.copy: (
        {"src": NONE, "dst": NONE, "size": None},
        {"limit": None, "timeout": None, "progress": None, "cancel": None},
    ),
    BufferPool.tee: ({"src": NONE, "sink": NONE, "size": None}, {"on_sink_error": "raise"}),
    BufferPool.maintain: ({}, {}),
    BufferPool.stats: ({}, {}),
    BufferPool.reset_stats: ({}, {}),
    BufferPool.close: ({}, {}),
    ChunkedTeeReader: ({"src": NONE, "sink": NONE, "pool": NONE, "size": None}, {"on_sink_error": "raise"}),
    Lease.release: ({}, {}),
    MemoryLedger: ({"limit": NONE}, {}),
    MemoryLedger.try_charge: ({"count": NONE}, {}),
    MemoryLedger.charge: ({"count": NONE}, {"timeout": None}),
    MemoryLedger.credit: ({"count": NONE}, {}),
}
PUBLIC = {
    "BufferPool", "BufferPoolConfig", "BufferPoolStats", "ChunkedTeeReader", "CopyResult", "LeakDetection", "Lease",
    "MemoryLedger", "SizeClass", "Strategy", "TeeStats", "send_file", "size_class",
}  # fmt: skip
AT_THE_FRONT_DOOR = PUBLIC - {"LeakDetection", "TeeStats", "send_file", "size_class"}
STATS = (
    "total_gets", "total_puts", "pool_hits", "pool_misses", "lost_leases", "overloads", "copies", "copied_bytes",
    "pooled_operations", "chunked_operations", "direct_operations", "active_buffers", "quarantined", "arena_bytes",
    "private_bytes", "peak_bytes", "waiting", "memory_efficiency",
)  # fmt: skip
DATA = bytes(range(256)) * 2048


@pytest.fixture(params=[BufferPool, AdaptiveBufferPool])
def kind(request):
    """Both pools have the plain pool's face."""
    return request.param


@pytest.fixture
def pool(kind):
    with kind(BufferPoolConfig(acquire_timeout=0)) as made:
        yield made
        assert made.stats().active_buffers == 0


# -- names and parameters --------------------------------------------------------------------------------------------


def test_every_public_name_is_where_it_was():
    """In the room of the buffers, and those of the front door there, too."""
    assert set(room.__all__) >= PUBLIC
    assert set(daramjwee.__all__) >= AT_THE_FRONT_DOOR
    for name in AT_THE_FRONT_DOOR:
        assert getattr(daramjwee, name) is getattr(room, name)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__qualname__)
def test_every_parameter_is_where_it_was_with_the_default_it_had(call):
    """New ones are given by name, and need not be."""
    check_parameters(call, CALLS[call])


def test_the_adaptive_pool_takes_what_the_plain_one_takes():
    for call, table in CALLS.items():
        if call is BufferPool or call.__qualname__.startswith("BufferPool."):
            check_parameters(
                AdaptiveBufferPool if call is BufferPool else getattr(AdaptiveBufferPool, call.__name__), table
            )


def check_parameters(call, table):
    by_place, by_name = table
    found = [p for p in inspect.signature(call).parameters.values() if p.name != "self"]
    places = [p for p in found if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in places] == list(by_place)
    names = {p.name: p for p in found if p.kind is p.KEYWORD_ONLY}
    assert names.keys() >= by_name.keys()
    for name, default in (by_place | by_name).items():
        parameter = next(p for p in found if p.name == name)
        assert parameter.default == (parameter.empty if default is NONE else default), name
    assert all(names[name].default is not inspect.Parameter.empty for name in names.keys() - by_name.keys())


def test_attributes_are_what_they_were(pool):
    """Of the pool, a lease, the ledger, and what a copy and a tee say."""
    assert pool.config == BufferPoolConfig(acquire_timeout=0)
    assert isinstance(pool.ledger, MemoryLedger) and pool.ledger.limit == pool.config.max_pool_bytes
    assert pool.closed is False
    with pool.acquire(10) as lease:
        assert (lease.size, len(lease.view), lease.released) == (10, 10, False)
    assert CopyResult._fields == ("bytes", "chunks", "strategy", "elapsed")
    assert room.TeeStats._fields == ("bytes", "sink_bytes", "chunks", "reused", "elapsed", "sink_error")
    assert isinstance(pool.ledger.held, int) and isinstance(pool.ledger.peak, int) and pool.ledger.waiting == 0
    stats = pool.stats()
    assert isinstance(stats, BufferPoolStats)
    for name in STATS:
        assert isinstance(getattr(stats, name), int | float), name
        if name != "memory_efficiency":
            assert getattr(BufferPoolStats(), name) == 0
    with pytest.raises(AttributeError):
        stats.total_gets = 3
    assert [each.value for each in Strategy] == ["pooled", "chunked", "direct", "adaptive"]
    assert [each.value for each in SizeClass] == ["small", "medium", "large", "very_large"]


# -- memory ----------------------------------------------------------------------------------------------------------


def test_a_lease_is_writable_memory_of_exactly_the_size_asked_for(pool):
    """As an int or text; without a size, `default_buffer_size`."""
    for size, count in ((1, 1), ("64KiB", 65536), (None, 256 * KIB), (0, 0), (3 * MIB, 3 * MIB)):
        with pool.acquire(size) as lease:
            assert lease.view.nbytes == lease.size == count
            assert (lease.view.format, lease.view.readonly, lease.view.contiguous) == ("B", False, True)
            lease.view[:] = b"x" * count


def test_a_lease_is_released_once(pool):
    """By `release` or the end of its `with`; afterwards neither it nor its view may be used."""
    lease = pool.acquire(100)
    view = lease.view
    lease.release()
    assert lease.released
    with pytest.raises(LeaseError):
        lease.release()
    with pytest.raises(LeaseError):
        _ = lease.view
    with pytest.raises(ValueError):
        view[0]
    with pool.acquire(100) as early:
        early.release()


def test_a_slice_that_is_kept_stays_as_it_is(pool):
    """Its memory is not lent again before it is gone."""
    lease = pool.acquire(64)
    lease.view[:] = b"a" * 64
    kept = lease.view[10:20]
    lease.release()
    assert pool.stats().quarantined == 1
    for _ in range(3):
        with pool.acquire(64) as other:
            other.view[:] = b"b" * 64
    assert bytes(kept) == b"a" * 10
    kept.release()
    assert pool.stats().quarantined == 0


def test_what_is_given_back_is_lent_again(pool):
    """A hit in the counters, and no more memory than before."""
    with pool.acquire("64KiB"):
        mapped = pool.ledger.held
    with pool.acquire("64KiB"):
        assert pool.ledger.held == mapped > 0
    stats = pool.stats()
    assert (stats.total_gets, stats.total_puts, stats.pool_misses, stats.pool_hits) == (2, 2, 1, 1)


def test_memory_that_cannot_be_had_is_refused_clearly(kind):
    """`LimitExceeded` at once when it can never be, `Overloaded` after the wait; nothing is held then."""
    ledger = MemoryLedger("2MiB")
    with kind(BufferPoolConfig(acquire_timeout=0), ledger=ledger) as pool:
        with pytest.raises(LimitExceeded):
            pool.acquire("3MiB")
        with pool.acquire("1500KiB"):
            held = ledger.held
            with pytest.raises(Overloaded) as caught:
                pool.acquire("1MiB", timeout=0)
            assert caught.value.retry_after >= 0
            assert ledger.held == held
        stats = pool.stats()
        # A pool with a gate counts who waited at it in vain there.
        assert stats.overloads + stats.gate.timed_out == 1
    assert ledger.held == 0


def test_wrong_arguments_are_refused_with_their_field(pool):
    for act in (
        lambda: pool.acquire(-1),
        lambda: pool.acquire("much"),
        lambda: pool.tee(io.BytesIO(), io.BytesIO(), on_sink_error="no"),
    ):
        with pytest.raises(ConfigError) as caught:
            act()
        assert caught.value.problems[0].field in {"size", "on_sink_error"}
    assert issubclass(ConfigError, ValueError)


def test_a_ledger_that_is_shared_holds_the_memory_of_both(kind):
    """What one pool keeps idle makes way for the other."""
    ledger = MemoryLedger("1MiB")
    config = BufferPoolConfig(acquire_timeout=0, max_buffer_size="512KiB", default_buffer_size="64KiB")
    with kind(config, ledger=ledger) as one, kind(config, ledger=ledger) as two:
        with one.acquire("512KiB"):
            assert ledger.held >= 512 * KIB
        with two.acquire("512KiB"), two.acquire("256KiB"):
            assert ledger.held <= ledger.limit
    assert ledger.held == 0


def test_charges_of_a_ledger_are_counted_and_bounded():
    ledger = MemoryLedger(100)
    assert ledger.try_charge(60) is True
    assert ledger.try_charge(60) is False
    ledger.charge(40, timeout=0)
    with pytest.raises(Overloaded):
        ledger.charge(1, timeout=0)
    assert (ledger.held, ledger.peak, ledger.limit) == (100, 100, 100)
    ledger.credit(100)
    assert ledger.held == 0


# -- moving bytes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, len(DATA), 10, 10 * len(DATA)])
def test_a_copy_goes_to_the_end_of_the_source_whatever_size_was_expected(pool, size):
    """From where both stand; the result says what was done."""
    source, sink = io.BytesIO(b"before" + DATA), io.BytesIO()
    source.seek(6)
    done = pool.copy(source, sink, size)
    assert sink.getvalue() == DATA
    count, chunks, strategy, elapsed = done
    assert count == len(DATA) and chunks >= 1 and elapsed >= 0
    assert strategy in {Strategy.POOLED, Strategy.CHUNKED, Strategy.DIRECT}
    assert (pool.stats().copies, pool.stats().copied_bytes) == (1, len(DATA))


def test_a_copy_ends_at_its_limit_and_where_it_is_cancelled(pool):
    """What was not copied is still in the source; progress is told, the end always."""
    source, sink = io.BytesIO(DATA), io.BytesIO()
    assert pool.copy(source, sink, limit=1000).bytes == 1000
    assert (sink.getvalue(), source.tell()) == (DATA[:1000], 1000)
    cancelled = threading.Event()
    cancelled.set()
    assert pool.copy(source, sink, cancel=cancelled).bytes == 0
    assert pool.copy(source, sink, cancel=lambda: True).bytes == 0
    seen = []
    pool.copy(source, sink, len(DATA), progress=lambda done, size: seen.append((done, size)))
    assert sink.getvalue() == DATA
    assert seen[-1] == (len(DATA) - 1000, len(DATA))


def test_what_an_end_of_a_copy_raises_comes_through(pool):
    """And the memory comes back."""

    class Failing(io.RawIOBase):
        def readinto(self, _view):
            raise ConnectionResetError("gone")

        def write(self, _data):
            raise BrokenPipeError("full")

    with pytest.raises(ConnectionResetError):
        pool.copy(Failing(), io.BytesIO())
    with pytest.raises(BrokenPipeError):
        pool.copy(io.BytesIO(DATA), Failing())


@pytest.mark.parametrize("strategy", list(Strategy))
def test_files_are_copied_exactly(kind, tmp_path, strategy):
    """Whatever is configured."""
    (tmp_path / "source").write_bytes(DATA)
    with kind(BufferPoolConfig(large_object_strategy=strategy)) as pool:
        with open(tmp_path / "source", "rb") as source, open(tmp_path / "sink", "wb") as sink:
            assert pool.copy(source, sink, len(DATA)).bytes == len(DATA)
    assert (tmp_path / "sink").read_bytes() == DATA


def test_a_tee_writes_what_it_hands_out(pool):
    """A reader like any other; closing it leaves both ends open, and writes nothing that was not read."""
    source, sink = io.BytesIO(DATA), io.BytesIO()
    with pool.tee(source, sink, len(DATA)) as tee:
        assert isinstance(tee, io.BufferedIOBase) and tee.readable()
        assert tee.read(10) == DATA[:10]
        target = bytearray(5)
        assert tee.readinto(target) == 5 and target == DATA[10:15]
        assert tee.read1(3) in {DATA[15:18], DATA[15:17], DATA[15:16]}
        at = tee.stats.bytes
        assert sink.getvalue() == DATA[:at]
    assert not source.closed and not sink.closed
    assert sink.getvalue() == DATA[:at]
    with pool.tee(io.BytesIO(b"one\ntwo\n"), sink := io.BytesIO()) as tee:
        assert list(tee) == [b"one\n", b"two\n"]
    assert (tee.stats.bytes, tee.stats.sink_bytes, tee.stats.sink_error) == (8, 8, None)


def test_a_sink_that_fails_is_raised_or_dropped_as_was_asked(pool):
    class Full(io.RawIOBase):
        def write(self, _data):
            raise OSError(28, "full")

    with pool.tee(io.BytesIO(DATA), Full()) as tee, pytest.raises(OSError, match="full"):
        tee.read(10)
    with pool.tee(io.BytesIO(DATA), Full(), on_sink_error="drop") as tee:
        assert tee.read() == DATA
        assert isinstance(tee.stats.sink_error, OSError)


# -- the whole pool --------------------------------------------------------------------------------------------------


def test_a_pool_that_is_switched_off_does_the_same_and_keeps_nothing(kind):
    """The same face, the same bytes; all memory is private and goes back at once."""
    with kind(BufferPoolConfig(enabled=False)) as pool:
        with pool.acquire(100) as lease:
            lease.view[:] = b"x" * 100
        sink = io.BytesIO()
        assert pool.copy(io.BytesIO(DATA), sink, len(DATA)).bytes == len(DATA)
        with pool.tee(io.BytesIO(DATA), io.BytesIO()) as tee:
            assert tee.read() == DATA
        assert sink.getvalue() == DATA
        assert (pool.ledger.held, pool.stats().arena_bytes, pool.stats().pool_hits) == (0, 0, 0)


def test_counters_begin_anew_when_they_are_reset_and_what_is_held_stays(pool):
    with pool.acquire(100):
        pool.reset_stats()
        stats = pool.stats()
        assert (stats.total_gets, stats.total_puts, stats.active_buffers) == (1, 0, 1)
    assert pool.stats().total_puts == 1
    assert pool.stats().pool_misses == 0


def test_maintain_says_how_much_it_gave_back(kind):
    """What nobody used for `max_idle_age`."""
    with kind(BufferPoolConfig(max_idle_age=0)) as pool:
        pool.acquire("64KiB").release()
        held = pool.ledger.held
        assert pool.maintain() == held > 0
        assert pool.maintain() == pool.ledger.held == 0


def test_a_closed_pool_lends_no_more_and_what_is_on_loan_stays_valid(kind):
    """`close` is allowed twice, `with` closes; memory on loan follows when it is released."""
    pool = kind()
    lease = pool.acquire(100)
    pool.close()
    pool.close()
    assert pool.closed
    lease.view[:] = b"x" * 100
    for act in (lambda: pool.acquire(1), lambda: pool.copy(io.BytesIO(b"x"), io.BytesIO())):
        with pytest.raises(Closed):
            act()
    lease.release()
    assert pool.ledger.held == 0
    assert pool.stats().total_puts == 1
