"""Reconfiguring a pool that is in use: all or nothing, and nobody loses a lease, a place in line, or a byte."""

from __future__ import annotations

import gc
import io
import threading

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPool, BufferPoolConfig, MemoryLedger, arenas, chunks, holdings
from daramjwee.errors import Closed, DaramjweeError, LimitExceeded, Overloaded

KIB, MIB = 1024, 1024 * 1024


def in_thread(pool: BufferPool, size: int) -> tuple[threading.Thread, list[object]]:
    """A thread that waits in line for a lease and gives it back; what it got."""
    outcome: list[object] = []
    before = pool.stats().waiting

    def borrow() -> None:
        try:
            with pool.acquire(size, timeout=30) as lease:
                outcome.append(lease.size)
        except DaramjweeError as error:
            outcome.append(type(error))

    thread = threading.Thread(target=borrow)
    thread.start()
    while pool.stats().waiting == before and thread.is_alive():
        thread.join(0.001)
    return thread, outcome


def test_leases_that_are_out_finish_and_new_ones_follow_the_new_configuration():
    """Other sizes, another default, another bound of the pool's own ledger."""
    with BufferPool() as pool:
        lease = pool.acquire(MIB)
        lease.view[:] = b"a" * MIB
        new = BufferPoolConfig(max_buffer_size="128KiB", default_buffer_size="100KiB", max_pool_bytes="4MiB")
        pool.reconfigure(new)
        assert pool.config == new and pool.ledger.limit == 4 * MIB
        assert bytes(lease.view[-1:]) == b"a"
        with pool.acquire() as other:
            assert other.size == 100 * KIB
        with pool.acquire(MIB):
            assert pool.stats().private_bytes == MIB
        lease.release()
        assert {row.size for row in pool.stats().chunks if row.kept} == {4096, 16384, 65536, 102400, 131072}
        assert pool.stats().arena_bytes == 200 * KIB
        stats = pool.stats()
        assert stats.total_gets == stats.total_puts == 3


def test_a_copy_under_way_finishes_with_the_chunk_it_has():
    """The configuration changes between two of its chunks."""
    with BufferPool(BufferPoolConfig(chunk_size="64KiB")) as pool:
        seen: list[int] = []

        class Source:
            left = 10

            def readinto(self, view: memoryview) -> int:
                seen.append(len(view))
                self.left -= 1
                if self.left == 5:
                    pool.reconfigure(BufferPoolConfig(chunk_size="16KiB", enabled=False))
                view[:] = b"z" * len(view)
                return len(view) if self.left else 0

        sink = io.BytesIO()
        pool.copy(Source(), sink)
        assert seen == [64 * KIB] * 10 and sink.getvalue() == b"z" * (9 * 64 * KIB)
        assert pool.stats().arena_bytes == 0 and pool.ledger.held == 0


def test_the_idle_age_and_leak_detection_change():
    """Memory is poisoned from then on; what is idle goes by the new age."""
    with BufferPool() as pool:
        with pool.acquire(4096) as lease:
            lease.view[:] = b"s" * 4096
        pool.reconfigure(pool.config.replace(leak_detection="full", max_idle_age=0))
        for expected in (b"\0", b"\xdb"):
            with pool.acquire(4096) as lease:
                if expected == b"\xdb":
                    assert bytes(lease.view) == expected * 4096
        assert pool.maintain() > 0 and pool.ledger.held == 0


def test_disabling_and_enabling_again():
    """A disabled pool keeps nothing, from the next lease on."""
    with BufferPool() as pool:
        lease = pool.acquire(65536)
        pool.reconfigure(pool.config.replace(enabled=False))
        with pool.acquire(10):
            assert pool.stats().private_bytes == 4096
        lease.release()
        assert pool.ledger.held == 0
        pool.reconfigure(pool.config.replace(enabled=True))
        pool.acquire(65536).release()
        assert pool.stats().arena_bytes > 0 == pool.stats().private_bytes


def test_what_is_no_configuration_changes_nothing():
    """All or nothing."""
    with BufferPool() as pool:
        before = pool.config
        with pytest.raises(DaramjweeError):
            pool.reconfigure(pool.config.replace(max_buffer_size="1KiB"))
        with pytest.raises(TypeError, match="BufferPoolConfig"):
            pool.reconfigure({"enabled": False})
        assert pool.config is before and pool.ledger.limit == before.max_pool_bytes


def test_who_waits_is_served_by_a_higher_limit():
    """In its place in the line."""
    with BufferPool(BufferPoolConfig(max_pool_bytes="1MiB")) as pool:
        first = pool.acquire(MIB)
        thread, outcome = in_thread(pool, MIB)
        pool.reconfigure(pool.config.replace(max_pool_bytes="2MiB"))
        thread.join(30)
        assert outcome == [MIB] and pool.ledger.peak == 2 * MIB
        first.release()


def test_who_waits_for_what_can_never_be_any_more_is_told():
    """`LimitExceeded`, at once; who can still be served goes on waiting, and is."""
    with BufferPool(BufferPoolConfig(max_pool_bytes="4MiB")) as pool:
        first = pool.acquire(4 * MIB)
        large, told = in_thread(pool, 3 * MIB)
        small, served = in_thread(pool, 64 * KIB)
        pool.reconfigure(pool.config.replace(max_pool_bytes="2MiB"))
        large.join(30)
        assert told == [LimitExceeded] and not served
        assert pool.ledger.held == 4 * MIB, "nothing that is held is taken back"
        first.release()
        small.join(30)
        assert served == [64 * KIB] and pool.stats().waiting == 0 and pool.ledger.held <= 2 * MIB


def test_a_lower_bound_sheds_what_is_idle_beyond_it():
    """Also where the ledger is shared, whose limit stays."""
    ledger = MemoryLedger("64MiB")
    with BufferPool(ledger=ledger) as pool:
        leases = [pool.acquire(MIB) for _ in range(8)]
        for lease in leases[1:]:
            lease.release()
        mapped = ledger.held
        pool.reconfigure(pool.config.replace(max_pool_bytes="2MiB"))
        assert ledger.limit == 64 * MIB and ledger.held <= 4 * MIB < mapped
        leases[0].release()
        assert ledger.held <= 2 * MIB


def test_an_interrupt_in_the_middle_leaves_one_configuration_or_the_other(monkeypatch):
    """Never a part of each: what was decided is carried out by whoever comes next."""
    for nth in range(1, 60):
        pool = BufferPool()
        lease = pool.acquire(MIB)
        calls = 0

        def interrupt(name: str, real, nth: int = nth):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == nth:
                    raise KeyboardInterrupt
                return real(*args, **kwargs)

            return call

        new = BufferPoolConfig(default_buffer_size="128KiB", max_pool_bytes="2MiB", leak_detection="full")
        old = pool.config
        with monkeypatch.context() as patch:
            for owner, name in (
                (arenas.ChunkClass, "settle_at"),
                (holdings, "ChunkClass"),
                (holdings, "table_by_pages"),
                (chunks, "class_sizes"),
                (chunks.Chunks, "attend"),
            ):
                patch.setattr(owner, name, interrupt(name, getattr(owner, name)))
            try:
                pool.reconfigure(new)
            except KeyboardInterrupt:
                pass
        assert pool.config in (old, new)
        assert pool.ledger.limit == pool.config.max_pool_bytes
        with pool.acquire() as other:
            assert other.size == pool.config.default_buffer_size
        lease.release()
        stats = pool.stats()
        assert stats.total_gets == stats.total_puts == 2
        pool.close()
        assert pool.ledger.held == 0
        if calls < nth:
            break
    else:
        pytest.fail("never came through without an interrupt")


def test_a_closed_pool_is_not_reconfigured():
    """As everything else of a closed pool."""
    pool = BufferPool()
    pool.close()
    with pytest.raises(Closed):
        pool.reconfigure(BufferPoolConfig())


def test_a_timeout_still_ends_a_wait_after_a_reconfigure():
    """Re-examined, and not forgotten."""
    with BufferPool(BufferPoolConfig(max_pool_bytes="1MiB")) as pool:
        first = pool.acquire(MIB)
        pool.reconfigure(pool.config.replace(default_buffer_size="64KiB"))
        with pytest.raises(Overloaded):
            pool.acquire(timeout=0.01)
        first.release()


def test_the_gate_follows_a_ledger_that_others_resize():
    """A shared ledger gets another limit from its owner: who waits in the gate for its bytes is let in."""
    ledger = MemoryLedger("4MiB")
    with AdaptiveBufferPool(ledger=ledger) as pool:
        first = pool.acquire(3 * MIB)
        got: list[int] = []

        def second() -> None:
            with pool.acquire(3 * MIB, timeout=30) as lease:
                got.append(lease.size)

        thread = threading.Thread(target=second)
        thread.start()
        while pool.gate.stats().waiting == 0:
            thread.join(0.001)
        ledger.resize("16MiB")
        thread.join(30)
        assert got == [3 * MIB]
        first.release()
        assert pool.gate.stats().active == 0
        ledger.resize("2MiB")
        with pytest.raises(LimitExceeded):
            pool.acquire(3 * MIB)


def test_a_ledger_forgets_pools_that_are_gone():
    """What follows a ledger is referred to weakly."""
    ledger = MemoryLedger("4MiB")
    for _ in range(100):
        AdaptiveBufferPool(ledger=ledger).close()
    gc.collect()
    AdaptiveBufferPool(ledger=ledger).close()
    assert len(ledger._followers) <= 2
    ledger.resize("8MiB")
