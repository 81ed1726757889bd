"""BufferPool and Lease: memory on loan, under the ledger, in every ending."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import io
import os
import random
import resource
import statistics
import threading
import warnings

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPool, BufferPoolConfig, Lease, MemoryLedger, PressureLevel
from daramjwee.buffers.sizes import PAGE_BYTES, arena_plans, class_sizes
from daramjwee.buffers.upkeep import upkeep
from daramjwee.errors import Closed, ConfigError, LeaseError, LimitExceeded, Overloaded

KIB, MIB = 1024, 1024 * 1024


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    monotonic = now


def address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


@pytest.mark.parametrize("size", [1, 5, 4096, 5000, 65536, 65537, 262144, 300_000, MIB, MIB + 1, 3 * MIB])
def test_a_lease_is_writable_page_aligned_and_exactly_as_large_as_asked(pool, size):
    """Misaligned memory makes the kernel's copy up to ten times slower."""
    leases = [pool.acquire(size) for _ in range(5)]
    places = []
    for lease in leases:
        assert len(lease.view) == lease.size == size and not lease.view.readonly and lease.view.format == "B"
        places.append(address(lease.view))
        lease.view[:] = bytes([len(places)]) * size
    assert all(place % PAGE_BYTES == 0 for place in places)
    assert [lease.view[size - 1] for lease in leases] == [1, 2, 3, 4, 5], "chunks overlap"
    gc.collect()
    for lease in leases:
        lease.release()


def test_nothing_is_mapped_and_no_thread_runs_before_the_first_request():
    """A pool that is never used costs nothing; from the first request on, the process's one thread of upkeep runs."""
    before = set(threading.enumerate())
    with BufferPool() as pool:
        assert pool.ledger.held == 0 and pool.stats().arena_bytes == 0 and not pool.kept
        assert set(threading.enumerate()) <= before
        pool.acquire(1).release()
        assert pool.ledger.held == 256 * KIB
        assert {thread.name for thread in {*threading.enumerate()} - before} <= {"daramjwee-upkeep"}


def test_a_released_chunk_is_used_again(pool):
    """The second lease is a hit in the same memory."""
    with pool.acquire(100_000) as lease:
        first = address(lease.view)
        gc.collect()
    with pool.acquire(120_000) as lease:
        assert address(lease.view) == first
        gc.collect()
    stats = pool.stats()
    assert (stats.pool_hits, stats.pool_misses, stats.arena_bytes) == (1, 1, 256 * KIB)


def test_releasing_twice_and_using_afterwards_are_errors(pool):
    """`LeaseError`; the view itself is dead as well."""
    lease = pool.acquire(10)
    view = lease.view
    lease.release()
    with pytest.raises(LeaseError, match="released before"):
        lease.release()
    with pytest.raises(LeaseError, match="acquire a new lease"):
        lease.view  # noqa: B018
    with pytest.raises(ValueError, match="released"):
        view[0]
    assert lease.released and repr(lease) == "<Lease of 10B, released>"
    assert pool.stats().total_puts == 1


def test_an_early_release_inside_with_is_fine(pool):
    """The end of the block finds nothing to do."""
    with pool.acquire(10) as lease:
        lease.release()


def test_of_many_threads_that_release_one_lease_exactly_one_succeeds(pool):
    """A chunk that came back twice would be handed to two borrowers."""
    for _ in range(50):
        lease = pool.acquire(10)
        start = threading.Barrier(4)
        outcomes: list[bool] = []

        def release(lease: Lease = lease, start: threading.Barrier = start, outcomes: list = outcomes) -> None:
            start.wait()
            try:
                lease.release()
            except LeaseError:
                outcomes.append(False)
            else:
                outcomes.append(True)

        threads = [threading.Thread(target=release) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == [False, False, False, True]


def test_a_chunk_is_not_reused_while_a_slice_of_it_lives(pool):
    """It waits in quarantine, charged and counted, and is free again when the slice is gone."""
    lease = pool.acquire(262144)
    survivor = lease.view[10:20]
    survivor[:] = b"mine mine!"
    lease.release()
    assert pool.stats().quarantined == 1 and pool.stats().active_buffers == 0
    with pool.acquire(262144) as other:
        other.view[:] = bytes(262144)
    assert bytes(survivor) == b"mine mine!"
    mapped = pool.ledger.held
    pool.maintain()
    assert pool.ledger.held == mapped
    del survivor
    assert pool.stats().quarantined == 0


def test_an_array_over_the_view_puts_its_chunk_in_quarantine(pool):
    """What makes `view.release()` itself fail is a survivor like any other."""
    lease = pool.acquire(100)
    array = (ctypes.c_char * 100).from_buffer(lease.view)
    lease.release()
    assert pool.stats().quarantined == 1
    array[0] = b"x"
    del array
    gc.collect()
    assert pool.stats().quarantined == 0


def test_a_lost_lease_is_reported_once_and_its_memory_taken_back(pool):
    """The warning names the place that acquired it (a chunk's first lease is always recorded)."""
    lease = pool.acquire(1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del lease
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    text = str(caught[0].message)
    assert "a lease of 1000B was lost without release" in text and f"{__file__}:" in text
    stats = pool.stats()
    assert (stats.active_buffers, stats.lost_leases, stats.total_puts) == (0, 1, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pool.acquire(1000).release()
        gc.collect()
    assert not caught and pool.stats().lost_leases == 1


@pytest.mark.parametrize(
    ("mode", "recorded"), [("off", [False, False]), ("sampled", [True, False]), ("full", [True] * 2)]
)
def test_leak_detection_says_how_often_the_place_is_recorded(mode, recorded):
    """`off` never, `sampled` for a chunk's first lease and some later, `full` always."""
    with BufferPool(BufferPoolConfig(leak_detection=mode)) as pool:
        seen = []
        for _ in recorded:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                pool.acquire(262144)
                gc.collect()
            seen.append("acquired at" in str(caught[0].message))
            pool.stats()
        assert seen == recorded


def test_a_view_of_a_lost_lease_stays_as_it_is(pool):
    """The lease is gone, the memory is not handed out while the view lives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        view = pool.acquire(262144).view
    view[:4] = b"kept"
    with pool.acquire(262144) as other:
        other.view[:4] = b"over"
    assert bytes(view[:4]) == b"kept" and pool.stats().quarantined == 1
    del view
    assert pool.stats().quarantined == 0


def test_above_the_largest_buffer_memory_is_mapped_for_one_lease(pool):
    """Charged while it is on loan, given back at once."""
    with pool.acquire("5MiB") as lease:
        assert lease.size == 5 * MIB and pool.ledger.held == 5 * MIB == pool.stats().private_bytes
    assert pool.ledger.held == 0 and pool.stats().private_bytes == 0


def test_a_disabled_pool_has_the_same_face_and_keeps_nothing():
    """`enabled=False`: private memory for every lease."""
    with BufferPool(BufferPoolConfig(enabled=False)) as pool:
        with pool.acquire(10) as lease:
            assert len(lease.view) == 10 and pool.ledger.held == PAGE_BYTES
        assert pool.ledger.held == 0
        sink = io.BytesIO()
        assert pool.copy(io.BufferedReader(io.BytesIO(b"x" * 100_000)), sink).bytes == 100_000
        assert pool.ledger.held == 0 and "disabled" in repr(pool)


def test_a_wait_in_vain_is_overloaded_and_changes_nothing():
    """Everything is on loan: the next one waits, is refused, and the line is empty again."""
    with BufferPool(BufferPoolConfig(max_pool_bytes="1MiB")) as pool:
        held = [pool.acquire(MIB)]
        with pytest.raises(Overloaded, match="memory came free"):
            pool.acquire(262144, timeout=0)
        stats = pool.stats()
        assert (stats.waiting, stats.overloads, stats.total_gets) == (0, 1, 1)
        with pytest.raises(LimitExceeded):
            pool.acquire(2 * MIB)
        held.pop().release()
        pool.acquire(262144, timeout=0).release()
        assert pool.ledger.peak == MIB


def test_a_waiter_gets_the_chunk_that_comes_back():
    """The release of another thread serves it, whatever else is in the line."""
    with BufferPool(BufferPoolConfig(max_pool_bytes="1MiB", default_buffer_size="64KiB")) as pool:
        first = pool.acquire(MIB)
        sizes: list[int] = []

        def wait_for_one() -> None:
            with pool.acquire(200_000, timeout=30) as lease:
                sizes.append(lease.size)

        threads = [threading.Thread(target=wait_for_one) for _ in range(3)]
        for thread in threads:
            thread.start()
        while pool.stats().waiting < 3:
            threads[0].join(0.001)
        first.release()
        for thread in threads:
            thread.join()
        assert sizes == [200_000] * 3 and pool.stats().active_buffers == 0
        assert pool.ledger.peak <= MIB


def test_idle_memory_of_one_class_serves_another():
    """One class's idle arenas must not starve the others."""
    with BufferPool(BufferPoolConfig(max_pool_bytes="1MiB")) as pool:
        for size in (MIB, 4096, 262144, 65536, MIB):
            with pool.acquire(size, timeout=0):
                assert pool.ledger.held <= MIB


def test_idle_arenas_make_room_for_whoever_charges_the_ledger():
    """A pool is a reclaimer of its ledger; what is on loan stays."""
    ledger = MemoryLedger("4MiB")
    with BufferPool(ledger=ledger) as pool:
        leases = [pool.acquire(MIB) for _ in range(3)]
        for lease in leases[1:]:
            lease.release()
        assert not ledger.try_charge(3 * MIB)
        ledger.charge(3 * MIB, timeout=0)
        leases[0].view[:] = bytes(MIB)
        leases[0].release()
        ledger.credit(3 * MIB)
    assert ledger.held == 0


def test_a_release_frees_an_arena_that_the_ledger_waits_for():
    """The waiter is not at the pool but at the ledger: the release looks there too."""
    ledger = MemoryLedger("1MiB")
    with BufferPool(ledger=ledger) as pool:
        lease = pool.acquire(MIB)
        waiting = threading.Thread(target=ledger.charge, args=(MIB,), kwargs={"timeout": 30})
        waiting.start()
        while not ledger.waiting:
            waiting.join(0.001)
        lease.release()
        waiting.join()
        assert ledger.held == MIB and pool.stats().arena_bytes == 0
        ledger.credit(MIB)


def test_what_nobody_used_for_the_idle_age_goes_back():
    """`maintain` unmaps arenas unused for `max_idle_age`, and no others."""
    clock = Clock()
    with BufferPool(BufferPoolConfig(max_idle_age="60s"), clock=clock) as pool:
        pool.acquire(262144).release()
        kept = pool.acquire(MIB)
        assert pool.maintain() == 0
        clock.time += 59
        assert pool.maintain() == 0
        clock.time += 1
        assert pool.maintain() == 256 * KIB
        assert pool.stats().arena_bytes == MIB
        kept.release()
        assert pool.maintain() == 0
        clock.time += 61
        assert pool.maintain() == MIB and pool.ledger.held == 0


def test_counters_are_exact_after_sixteen_threads():
    """Mixed sizes, views kept, private leases: nothing is lost, and memory stays inside the limit."""
    ledger = MemoryLedger("16MiB")
    with BufferPool(BufferPoolConfig(max_pool_bytes="8MiB"), ledger=ledger) as pool:
        start = threading.Barrier(16)
        wrong: list[object] = []
        turns = 400

        def work(seed: int) -> None:
            chooser = random.Random(seed)
            start.wait()
            for turn in range(turns):
                size = chooser.choice((1, 4096, 60_000, 262144, MIB, 2 * MIB))
                mark = bytes([seed + 1, turn % 256])
                with pool.acquire(size, timeout=30) as lease:
                    lease.view[: min(2, size)] = mark[: min(2, size)]
                    if turn % 16 == 0:
                        stats = pool.stats()
                        if stats.total_puts > stats.total_gets or ledger.held > ledger.limit:
                            wrong.append(stats)
                    if bytes(lease.view[: min(2, size)]) != mark[: min(2, size)]:
                        wrong.append((seed, turn))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = pool.stats()
        assert not wrong
        assert stats.total_gets == stats.total_puts == 16 * turns == stats.pool_hits + stats.pool_misses
        assert (stats.active_buffers, stats.quarantined, stats.waiting, stats.overloads) == (0, 0, 0, 0)
        assert ledger.held == stats.arena_bytes <= 8 * MIB and ledger.peak <= ledger.limit
    assert ledger.held == 0


def test_reset_forgets_counters_and_not_what_is_held(pool):
    """Leases that are out count as made since, so that puts never exceed gets."""
    lease = pool.acquire(10)
    pool.acquire(10).release()
    pool.reset_stats()
    stats = pool.stats()
    assert (stats.total_gets, stats.total_puts, stats.pool_hits, stats.active_buffers) == (1, 0, 0, 1)
    lease.release()
    stats = pool.stats()
    assert (stats.total_gets, stats.total_puts, stats.active_buffers) == (1, 1, 0)
    assert stats.arena_bytes > 0


def test_close_leaves_leases_valid_and_their_memory_follows():
    """Closing twice is fine; new leases are refused; who waits is told."""
    pool = BufferPool(BufferPoolConfig(max_pool_bytes="1MiB"))
    lease = pool.acquire(MIB)
    failures: list[BaseException] = []

    def wait_for_one() -> None:
        try:
            pool.acquire(10, timeout=30)
        except Closed as error:
            failures.append(error)

    thread = threading.Thread(target=wait_for_one)
    thread.start()
    while not pool.stats().waiting:
        thread.join(0.001)
    pool.close()
    pool.close()
    thread.join()
    assert len(failures) == 1
    lease.view[:] = b"y" * MIB
    assert pool.ledger.held == MIB and "closed, 1 leased" in repr(pool)
    lease.release()
    assert pool.ledger.held == 0
    with pytest.raises(Closed):
        pool.acquire(10)
    with pytest.raises(Closed):
        pool.copy(io.BytesIO(b"x"), io.BytesIO())


def test_a_pool_that_is_dropped_gives_its_memory_back():
    """Without `close`, by garbage collection."""
    ledger = MemoryLedger("8MiB")
    pool = BufferPool(ledger=ledger)
    pool.acquire(262144).release()
    lease = pool.acquire(3 * MIB)
    del pool
    with upkeep._looking:  # while it looks, the thread refers to the pool
        gc.collect()
    lease.view[0] = 1
    lease.release()
    del lease
    with upkeep._looking:
        gc.collect()
    assert ledger.held == 0


def test_a_forked_child_has_an_empty_pool_and_readable_leases():
    """Inherited leases stay readable and their release does nothing; the parent's memory is its own."""
    pool = BufferPool()
    lease, private = pool.acquire(1000), pool.acquire(3 * MIB)
    lease.view[:] = b"p" * 1000
    private.view[-1] = 7
    with pool._chunks._lock:  # as if another thread were in the middle of something
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ok = bytes(lease.view) == b"p" * 1000 and private.view[-1] == 7
            ok = ok and pool.stats().active_buffers == 0 and pool.ledger.held == 0
            lease.view[:] = b"c" * 1000
            lease.release()
            private.release()
            ok = ok and pool.ledger.held == 0 and pool.stats().total_puts == 0
            with pool.acquire(1000) as fresh:
                fresh.view[:] = b"f" * 1000
            ok = ok and pool.stats().total_puts == 1
            status = 0 if ok else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert bytes(lease.view) == b"p" * 1000, "the child wrote into the parent's memory"
    lease.release()
    private.release()
    pool.close()
    assert pool.ledger.held == 0


@pytest.mark.parametrize("size", [-1, "much", 1.5, True])
def test_a_size_that_cannot_be_is_refused(pool, size):
    """`ConfigError` names it; nothing is on loan."""
    with pytest.raises(ConfigError, match="size"):
        pool.acquire(size)


def test_steady_use_causes_no_page_fault(pool):
    """Reuse wins by not faulting: exactly 0 minor faults over hundreds of leases and copies."""
    source = bytes(MIB)

    class Source:
        position = 0

        def readinto(self, view: memoryview) -> int:
            count = min(len(view), len(source) - self.position)
            view[:count] = memoryview(source)[self.position : self.position + count]
            self.position += count
            return count

    with open(os.devnull, "wb", buffering=0) as sink:

        def work() -> None:
            for size in (4096, 60_000, 262144, MIB):
                with pool.acquire(size) as lease:
                    lease.view[::4096] = b"x" * len(lease.view[::4096])
            pool.copy(Source(), sink, MIB)

        # Garbage collection off: its own bookkeeping may fault, and is not what is measured.
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):  # the interpreter's own memory has to be warm, too
                work()
            rounds = []
            for _ in range(5):
                before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
                for _ in range(100):
                    work()
                rounds.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)
        finally:
            gc.enable()
    # One fault in any operation would be a hundred in every round; the interpreter itself may need memory in one of them.
    assert statistics.median(rounds) == 0, rounds


def test_classes_cover_the_configured_bounds_in_whole_pages():
    """Every configured size has a class, and the first arena of a class is small."""
    assert class_sizes(BufferPoolConfig()) == (4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 512 * KIB, MIB)
    odd = BufferPoolConfig(min_buffer_size=1, max_buffer_size="3MiB", chunk_size=100_000)
    assert class_sizes(odd) == (4 * KIB, 16 * KIB, 64 * KIB, 102_400, 256 * KIB, 512 * KIB, MIB, 3 * MIB)
    assert arena_plans(256 * KIB, 0) == (256 * KIB,)
    assert arena_plans(256 * KIB, 1) == (2 * MIB, 256 * KIB)
    assert arena_plans(4 * KIB, 9) == (256 * KIB, 4 * KIB)
    assert arena_plans(MIB, 1) == (2 * MIB, MIB)
    assert arena_plans(3 * MIB, 5) == (3 * MIB,)


def test_a_chunk_lost_to_an_interrupt_is_taken_up_again(pool):
    """Between taking it and making the lease nobody has it: `maintain` finds it."""
    pool.acquire(262144).release()
    pool._chunks.table[63].pop()
    with pytest.raises(IndexError):
        pool._chunks.table[63].pop()
    pool.maintain()
    assert len(pool._chunks.table[63]) == 1


def test_repr_tells_the_state(pool):
    """What a person sees in a debugger."""
    with pool.acquire(1000) as lease:
        assert repr(lease) == "<Lease of 1000B>"
        assert repr(pool) == ("<BufferPool open, 1 leased (256KiB mapped, ledger 256KiB of 64MiB), 0 waiting>")


def test_a_level_that_is_none_is_refused_and_leaves_the_pool_as_it_was(pool):
    """Before it is noted: every copy afterwards would look it up."""
    for level in ("HIGH", 9, -1, None):
        with pytest.raises(ConfigError, match=r"level = .*: must be a PressureLevel, such as PressureLevel.HIGH"):
            pool.relieve(level)
        assert pool.pressure is PressureLevel.NORMAL
    assert pool.copy(io.BytesIO(b"data"), io.BytesIO()).bytes == 4
    pool.relieve(2)
    assert pool.pressure is PressureLevel.HIGH


@pytest.mark.parametrize("kind", [BufferPool, AdaptiveBufferPool])
def test_a_pool_of_wrong_parts_is_refused_with_what_it_takes(kind):
    """Where it is made, not where it is used."""
    with pytest.raises(TypeError, match="config of a buffer pool is a BufferPoolConfig, not '64MiB'"):
        kind("64MiB")
    with pytest.raises(TypeError, match="ledger of a buffer pool is a MemoryLedger, not '64MiB'"):
        kind(ledger="64MiB")
    with pytest.raises(TypeError, match=r"clock of a buffer pool is a Clock, with now\(\) and monotonic\(\), not 3"):
        kind(clock=3)
    with pytest.raises(TypeError, match=r"^config of .*; ledger of .*; pressure of .*; clock of "):
        kind(1, ledger=2, pressure=3, clock=4)


def test_a_reset_in_the_midst_of_a_look_makes_nothing_negative(monkeypatch):
    """The look is taken from the base that held when it began, not from one that came after its figures."""
    with BufferPool() as pool:
        pool.acquire(5000).release()
        snapshot = pool._snapshot

        def overtaken():
            seen = snapshot()
            monkeypatch.undo()
            pool.acquire(5000).release()
            pool.reset_stats()
            return seen

        monkeypatch.setattr(pool, "_snapshot", overtaken)
        stats = pool.stats()
        assert (stats.total_gets, stats.total_puts, stats.total_operations) == (1, 1, 1) and stats.seconds >= 0


@pytest.mark.parametrize("how", ["large", "async", "small"])
def test_whatever_maps_memory_has_the_pool_looked_after(how):
    """On the adaptive pool, large leases and those of tasks have ways of their own."""
    with AdaptiveBufferPool() as pool:
        if how == "async":

            async def lease() -> None:
                (await pool.acquire_async(5000)).release()

            asyncio.run(lease())
        else:
            pool.acquire(5000 if how == "small" else 300 * KIB).release()
        assert pool._chunks.mapped and upkeep.alive
        with upkeep._looking:  # it is not marked while it is looked at
            assert pool.kept
