"""Chunks: sizes that follow use, statistics of each size, idle memory under pressure."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import threading
from collections import deque

import msgspec
import pytest

from daramjwee.buffers import BufferPool, BufferPoolConfig, ChunkClassStats, MemoryLedger
from daramjwee.buffers.pressure import EFFECTS, PressureLevel
from daramjwee.buffers.sizes import PAGE_BYTES, class_sizes

KIB, MIB = 1024, 1024 * 1024
LEARNED = 300 * KIB


def address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def sizes(pool: BufferPool) -> set[int]:
    return {row.size for row in pool.stats().chunks if row.kept}


def use(pool: BufferPool, size: int, times: int) -> None:
    for _ in range(times):
        pool.acquire(size).release()


def check_sums(pool: BufferPool) -> None:
    stats = pool.stats()
    rows = stats.chunks
    assert sum(row.hits for row in rows) == stats.pool_hits
    assert sum(row.misses for row in rows) == stats.pool_misses
    assert sum(row.puts for row in rows) == stats.total_puts
    assert sum(row.active for row in rows) == stats.active_buffers
    assert sum(row.arena_bytes for row in rows) == stats.arena_bytes + stats.private_bytes == pool.ledger.held


def fields(row: ChunkClassStats) -> tuple[object, ...]:
    return msgspec.structs.astuple(row)[1:]


def test_each_size_has_its_figures_and_their_sums_are_the_totals(pool):
    """Exact at rest; what was mapped for one lease is a row of its own, of size 0."""
    leases = [pool.acquire(size) for size in (1, 4096, 65_537, 3 * MIB)]
    rows = {row.size: row for row in pool.stats().chunks}
    assert fields(rows[4 * KIB]) == (1, 1, 0, 2, 62, 256 * KIB, True)
    assert fields(rows[256 * KIB]) == (0, 1, 0, 1, 0, 256 * KIB, True)
    assert fields(rows[0]) == (0, 1, 0, 1, 0, 3 * MIB, False)
    assert fields(rows[MIB]) == (0, 0, 0, 0, 0, 0, True)
    check_sums(pool)
    for lease in leases:
        lease.release()
    rows = {row.size: row for row in pool.stats().chunks}
    assert fields(rows[4 * KIB]) == (1, 1, 2, 0, 64, 256 * KIB, True)
    assert fields(rows[0]) == (0, 1, 1, 0, 0, 0, False)
    check_sums(pool)


def test_a_popular_size_becomes_a_class_and_its_memory_fits():
    """Steady use on the fast path is noticed too; every lease is exact and page-aligned, then as before."""
    with BufferPool() as pool:
        use(pool, LEARNED, 64 * 140)
        assert sizes(pool) == {*class_sizes(pool.config), LEARNED}
        held = [pool.acquire(LEARNED) for _ in range(4)]
        places = [address(lease.view) for lease in held]
        for mark, lease in enumerate(held):
            assert len(lease.view) == LEARNED
            lease.view[:] = bytes([mark]) * LEARNED
        assert all(place % PAGE_BYTES == 0 for place in places) and len(set(places)) == 4
        assert [lease.view[LEARNED - 1] for lease in held] == [0, 1, 2, 3]
        row = next(row for row in pool.stats().chunks if row.size == LEARNED)
        assert row.active == 4 and row.hits > 0
        gc.collect()
        for lease in held:
            lease.release()
        check_sums(pool)


@pytest.mark.parametrize("learned", [(), (LEARNED, 24 * KIB)])
def test_with_every_class_at_hand_each_size_gets_all_it_asked_for(learned):
    """The trap of an earlier pool, whose chunked get returned less: every page's edge, each way, from free chunks."""
    with BufferPool() as pool:
        if learned:
            pool._chunks._wanted = (pool.config, tuple(sorted({*class_sizes(pool.config), *learned})))
            pool._chunks.attend()
        for size in sizes(pool):
            pool.acquire(size).release()
        for pages in (*range(1, 257), *range(256, 0, -1)):
            for size in (pages * PAGE_BYTES - 1, pages * PAGE_BYTES, pages * PAGE_BYTES + 1):
                with pool.acquire(size) as lease:
                    assert len(lease.view) == size == lease.size
                    assert address(lease.view) % PAGE_BYTES == 0
        gc.collect()
        check_sums(pool)


def test_a_size_nobody_uses_any_more_is_dropped_and_unmapped_as_it_comes_home():
    """Leases of it stay valid; who takes up the size again gets a larger chunk."""
    with BufferPool() as pool:
        use(pool, LEARNED, 64 * 140)
        lease = pool.acquire(LEARNED)
        lease.view[:] = b"x" * LEARNED
        idle = pool.acquire(LEARNED)
        idle.release()
        use(pool, 256 * KIB, 64 * 1400)
        assert sizes(pool) == set(class_sizes(pool.config))
        row = next(row for row in pool.stats().chunks if row.size == LEARNED)
        assert not row.kept and row.active == 1
        assert bytes(lease.view[-2:]) == b"xx"
        before = pool.ledger.held
        lease.release()
        assert pool.ledger.held < before, "unmapped as it comes home, and not when somebody looks"
        row = next(row for row in pool.stats().chunks if row.size == LEARNED)
        assert (row.active, row.free, row.arena_bytes) == (0, 0, 0)
        check_sums(pool)


def test_retained_sizes_keep_their_memory_when_others_come_and_go():
    """A recalibration unmaps nothing that is still of use."""
    with BufferPool() as pool:
        with pool.acquire(MIB) as lease:
            place = address(lease.view)
            gc.collect()
        use(pool, LEARNED, 64 * 140)
        assert LEARNED in sizes(pool)
        with pool.acquire(MIB) as lease:
            assert address(lease.view) == place
            gc.collect()


def test_under_pressure_idle_memory_goes_at_once_and_is_not_kept():
    """`relieve` gives back what is idle; what comes back idle later goes with the next slow request or `maintain`."""
    with BufferPool() as pool:
        lease = pool.acquire(MIB)
        use(pool, 65536, 3)
        assert pool.relieve(PressureLevel.ELEVATED) == 0 and pool.pressure is PressureLevel.ELEVATED
        assert pool.relieve(PressureLevel.CRITICAL) == 256 * KIB
        assert pool.ledger.held == MIB
        lease.release()
        assert pool.maintain() == MIB and pool.ledger.held == 0
        pool.acquire(65536).release()
        assert pool.ledger.held == 64 * KIB, "no more than was asked for"
        pool.acquire(MIB).release()
        assert pool.ledger.held == MIB
        assert pool.relieve(PressureLevel.NORMAL) == 0
        use(pool, 65536, 2)
        pool.maintain()
        assert pool.ledger.held == MIB + 256 * KIB
        assert [effect.keeps_idle for effect in EFFECTS] == [True, True, False, False]


def test_sixty_four_threads_of_everything_leave_exact_counts():
    """Leases of all sizes while sizes, configuration and pressure change: nothing is lost, handed out twice, or above
    the limit."""
    ledger = MemoryLedger("48MiB")
    plain = BufferPoolConfig(max_pool_bytes="24MiB")
    configs = [
        plain,
        plain.replace(max_pool_bytes="8MiB", leak_detection="full"),
        plain.replace(min_buffer_size="64KiB", chunk_size="200KiB"),
        plain.replace(enabled=False),
        plain.replace(max_idle_age=0),
    ]
    wrong: list[object] = []
    turns = 60
    with BufferPool(plain, ledger=ledger) as pool:
        start = threading.Barrier(64)

        def change(chooser: random.Random) -> None:
            for _ in range(turns):
                what = chooser.randrange(4)
                if what == 0:
                    pool.reconfigure(chooser.choice(configs))
                elif what == 1:
                    pool.relieve(chooser.choice(list(PressureLevel)))
                elif what == 2:
                    for size in (24 * KIB, 300 * KIB, 700 * KIB):
                        pool._chunks.sample(chooser.choice((size, 256 * KIB)), 64)
                    pool._chunks._recalibrate(0.0)
                else:
                    pool.maintain()
                stats = pool.stats()
                if stats.total_puts > stats.total_gets or ledger.held > ledger.limit:
                    wrong.append(stats)

        def borrow(chooser: random.Random, seed: int) -> None:
            for turn in range(turns):
                size = chooser.choice((1, 5000, 24 * KIB, 300 * KIB, 700 * KIB, 2 * MIB))
                mark = bytes([seed, turn])
                with pool.acquire(size, timeout=60) as lease:
                    if len(lease.view) != size or ledger.held > ledger.limit:
                        wrong.append((size, len(lease.view)))
                    lease.view[:2] = mark[: min(2, size)]
                    if bytes(lease.view[:2]) != mark[: min(2, size)]:
                        wrong.append((seed, turn))

        def work(seed: int) -> None:
            chooser = random.Random(seed)
            start.wait()
            try:
                change(chooser) if seed % 16 == 0 else borrow(chooser, seed)
            except Exception as error:  # told below
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        pool.relieve(PressureLevel.NORMAL)
        stats = pool.stats()
        assert stats.total_gets == stats.total_puts == 60 * turns == stats.pool_hits + stats.pool_misses
        assert (stats.active_buffers, stats.quarantined, stats.waiting, stats.lost_leases) == (0, 0, 0, 0)
        check_sums(pool)
        pool.relieve(PressureLevel.CRITICAL)
        assert ledger.held == 0, "nothing idle is forgotten"
    assert ledger.held == 0 and ledger.peak <= ledger.limit


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_fork_with_leases_out_also_during_a_reconfigure(moment):
    """The child has an empty pool with the configuration that holds; the parent is untouched."""
    pool = BufferPool()
    lease = pool.acquire(1000)
    lease.view[:] = b"p" * 1000
    wanted = BufferPoolConfig(default_buffer_size="128KiB", max_pool_bytes="2MiB")
    if moment == "before":
        pool.reconfigure(wanted)
        pid = os.fork()
    else:
        with pool._chunks._lock:  # decided by another thread, and not yet carried out
            pool._chunks._wanted = (wanted, class_sizes(wanted))
            pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ok = pool.config == wanted and pool.ledger.limit == 2 * MIB and pool.ledger.held == 0
            ok = ok and bytes(lease.view) == b"p" * 1000
            lease.release()
            with pool.acquire() as fresh:
                ok = ok and fresh.size == 128 * KIB
            ok = ok and pool.stats().total_puts == 1
            status = 0 if ok else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    lease.release()
    pool.close()
    assert pool.ledger.held == 0


def test_what_was_asked_for_can_be_looked_at_while_others_ask():
    """A look that finds the samples changing looks again, and does not fail."""

    class Restless(deque):
        looks = 0

        def __iter__(self):
            Restless.looks += 1
            if Restless.looks < 4:
                raise RuntimeError("deque mutated during iteration")
            return super().__iter__()

    with BufferPool() as pool:
        pool.acquire(100).release()
        pool._chunks.samples = Restless(pool._chunks.samples)
        (share,) = pool.stats().sizes
        assert share.size == PAGE_BYTES and Restless.looks == 4


def test_memory_goes_back_though_other_threads_doom_more_of_it_meanwhile():
    """The queue of what is to be unmapped changes under the eyes of who unmaps."""

    class Restless(deque):
        looks = 0

        def __iter__(self):
            Restless.looks += 1
            if Restless.looks < 4:
                raise RuntimeError("deque mutated during iteration")
            return super().__iter__()

    with BufferPool() as pool:
        pool._chunks._doomed = Restless(pool._chunks._doomed)
        pool.acquire(3 * MIB).release()
        assert pool.ledger.held == 0 and Restless.looks >= 4
