"""What fork makes of buffer memory that is on loan: the child begins anew, the parent notices nothing."""

from __future__ import annotations

import gc
import io
import os
import random
import signal
import sys
import threading
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from daramjwee.buffers import AdaptiveBufferPool, AllocationStats, BufferPoolConfig, LargeOperationGate, MemoryLedger
from daramjwee.errors import Closed, LeaseError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from daramjwee.buffers import BufferPoolStats

KIB, MIB = 1024, 1024 * 1024
CONTENT = random.Random(5).randbytes(3 * MIB)
# A child that waits for a lock of a thread that it does not have is killed by then.
CHILD_SECONDS = 30


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked child; its exit status, 0 when it returned true, -SIGALRM when it hung."""
    pid = os.fork()
    if pid == 0:
        sys.settrace(None)  # a thread of the parent may have held the lock of what measures coverage
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(CHILD_SECONDS)
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Held:
    """A source that stops after its first piece until `go`: a copy that is under way as long as the test wants."""

    def __init__(self, data: bytes) -> None:
        self.rest = memoryview(data)
        self.began = threading.Event()
        self.go = threading.Event()

    def readinto(self, view: memoryview) -> int:
        if self.began.is_set():
            assert self.go.wait(CHILD_SECONDS)
        count = min(len(view), len(self.rest), 50_000)
        view[:count], self.rest = self.rest[:count], self.rest[count:]
        self.began.set()
        return count


class Checksum:
    def __init__(self) -> None:
        self.crc = self.count = 0

    def write(self, piece: Any) -> None:
        self.crc = zlib.crc32(piece, self.crc)
        self.count += len(piece)


class Plain:
    """Only `readinto`, so that a copy of it needs a chunk."""

    def __init__(self, data: bytes) -> None:
        self.readinto = io.BytesIO(data).readinto


def works_as_new(pool: AdaptiveBufferPool) -> bool:
    """Whether this process has all of the pool's memory and places: leases, copies and tees of its own."""
    places = pool.config.max_concurrent_large_ops
    limit = pool.ledger.limit
    leases = [pool.acquire(limit // places, timeout=0) for _ in range(places)]
    try:
        pool.acquire(MIB, timeout=0)
        return False  # the limit is not kept
    except Overloaded:
        pass
    for lease in leases:
        lease.view[:5] = b"child"
        lease.release()
    sink = Checksum()
    if pool.copy(Plain(CONTENT), sink).bytes != len(CONTENT) or sink.crc != zlib.crc32(CONTENT):
        return False
    with pool.tee(Plain(CONTENT), io.BytesIO()) as tee:
        if tee.read() != CONTENT:
            return False
    stats, gate = pool.stats(), pool.gate.stats()
    return (
        (stats.active_buffers, stats.lost_leases, gate.active, gate.waiting) == (0, 0, 0, 0)
        and stats.total_gets == stats.total_puts == places + 2
        and (stats.copies, stats.copied_bytes) == (2, 2 * len(CONTENT))
        and pool.ledger.held == stats.arena_bytes + stats.private_bytes
    )


@pytest.fixture
def pool():
    """A pool with room for three MiB-leases and their likes; afterwards nothing is on loan and nothing charged."""
    config = BufferPoolConfig(max_concurrent_large_ops=8)
    with AdaptiveBufferPool(config, ledger=MemoryLedger(16 * MIB)) as made:
        yield made
        stats, gate = made.stats(), made.gate.stats()
        assert (stats.active_buffers, stats.quarantined, stats.lost_leases) == (0, 0, 0)
        assert stats.total_gets == stats.total_puts and (gate.active, gate.lost) == (0, 0)
        assert made.ledger.held == stats.arena_bytes + stats.private_bytes
    assert made.ledger.held == 0


def at_rest(stats: BufferPoolStats) -> BufferPoolStats:
    """Without what goes on by itself: the clock, the faults of the process."""
    return msgspec.structs.replace(stats, seconds=0.0, allocation=AllocationStats())


def test_a_child_has_an_empty_pool_and_readable_leases(pool):
    """Leases small, large and mapped for themselves, a slot, a half-read tee and a copy under way: the child reads what
    it inherited, gives it back without harm, and has the whole limit for itself. The parent has all as it was."""
    small, large, huge = pool.acquire(5000), pool.acquire(MIB), pool.acquire(2 * MIB)
    for lease in (small, large, huge):
        lease.view[:] = CONTENT[: lease.size]
    slot = pool.gate.acquire(MIB)
    tee_sink = io.BytesIO()
    tee = pool.tee(Plain(CONTENT), tee_sink)
    assert tee.read(100) == CONTENT[:100]
    source, sink = Held(CONTENT), Checksum()
    copy = threading.Thread(target=pool.copy, args=(source, sink))
    copy.start()
    assert source.began.wait(30)
    before = at_rest(pool.stats())

    def child() -> bool:
        if any(bytes(lease.view) != CONTENT[: lease.size] for lease in (small, large, huge)):
            return False
        if pool.stats().active_buffers or pool.ledger.held or pool.gate.stats().active:
            return False
        if not works_as_new(pool) or tee.read() != CONTENT[100:]:
            return False
        large.view[:] = bytes(large.size)  # its own copy of the memory
        small.release()
        large.release()
        slot.release()
        try:
            small.release()
        except LeaseError:
            pass
        else:
            return False
        # What was given back was the parent's: it is neither counted nor lent here.
        stats = pool.stats()
        if stats.active_buffers or stats.total_puts != stats.total_gets or pool.gate.stats().active:
            return False
        with pool.acquire(5000) as mine:
            mine.view[:] = bytes(5000)
        pool.close()
        return pool.ledger.held == 0 and bytes(huge.view) == CONTENT[: huge.size]

    assert in_child(child) == 0
    assert at_rest(pool.stats()) == before
    assert all(bytes(lease.view) == CONTENT[: lease.size] for lease in (small, large, huge))
    assert tee.read() == CONTENT[100:] and tee_sink.getvalue() == CONTENT
    tee.close()
    source.go.set()
    copy.join(30)
    assert (sink.crc, sink.count) == (zlib.crc32(CONTENT), len(CONTENT))
    for held in (small, large, huge, slot):
        held.release()


def test_a_child_may_drop_and_credit_what_it_inherited(pool):
    """Leases that are collected there unreleased are not lost, so nobody is warned; what the parent had charged and the
    child credits is counted in neither."""
    leases = [pool.acquire(size) for size in (5000, MIB, 2 * MIB)]
    pool.ledger.charge(5000)
    held = pool.ledger.held
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()  # what other tests have left is no concern of the child's

    def child() -> bool:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            leases.clear()
            gc.collect()
            pool.ledger.credit(5000)
            return not caught and pool.ledger.held == 0 and works_as_new(pool) and pool.maintain() >= 0

    assert in_child(child) == 0
    assert pool.ledger.held == held
    pool.ledger.credit(5000)
    for lease in leases:
        lease.release()


def test_a_child_that_just_ends_with_leases_out_is_silent_and_harmless(pool):
    """Exit by the end of the work, with everything inherited still there and more leased: the parent's counts stay."""
    with pool.acquire(MIB) as lease, pool.gate.acquire():
        lease.view[:5] = b"first"

        def child() -> bool:
            mine = pool.acquire(MIB)
            mine.view[:5] = lease.view[:5] = b"child"
            return True

        for _ in range(3):
            assert in_child(child) == 0
        assert bytes(lease.view[:5]) == b"first" and pool.stats().active_buffers == 1


def test_a_child_of_a_closed_pool_has_a_closed_pool(pool):
    """It does not come to life again."""
    other = AdaptiveBufferPool(ledger=pool.ledger)
    other.close()

    def child() -> bool:
        try:
            other.acquire(1000, timeout=0)
        except Closed:
            return True
        return False

    assert in_child(child) == 0


def test_a_child_has_the_gates_limits_and_none_of_its_places():
    """Who waits in the parent's line is not in the child's."""
    gate = LargeOperationGate(2, "1MiB")
    # The first needs more than its share of the bytes, and so has a place of another kind than the second.
    slots = [gate.acquire(600 * KIB), gate.acquire(300 * KIB)]
    waiting = threading.Thread(target=lambda: gate.acquire(timeout=CHILD_SECONDS).release())
    waiting.start()
    while not gate.stats().waiting:
        pass

    def child() -> bool:
        mine = [gate.acquire(MIB // 2, timeout=0), gate.acquire(MIB // 2, timeout=0)]
        if gate.try_acquire() is not None:
            return False
        for slot in (*slots, *mine):
            slot.release()
        stats = gate.stats()
        return (stats.active, stats.active_bytes, stats.waiting, stats.entered) == (0, 0, 0, 2)

    assert in_child(child) == 0
    assert (gate.stats().active, gate.stats().waiting) == (2, 1)
    for slot in slots:
        slot.release()
    waiting.join(CHILD_SECONDS)
    assert not waiting.is_alive() and gate.stats().active == 0
    gate.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(2))
def test_a_child_forked_in_the_midst_of_leasing_and_copying_works(seed):
    """Locks may be held, chunks half-way between two owners, waiters in line: each of many children has its own of all
    of them, and the parent's counts are exact in the end."""
    stop = threading.Event()
    done: list[tuple[int, int]] = []
    # Tight, so that some always wait for memory and some for a place.
    config = BufferPoolConfig(max_concurrent_large_ops=4, max_pool_bytes="6MiB", acquire_timeout=60)
    with AdaptiveBufferPool(config, ledger=MemoryLedger(8 * MIB)) as pool:

        def load(number: int) -> None:
            chance = random.Random(seed * 100 + number)
            copies = moved = 0
            while not stop.is_set():
                with pool.acquire(chance.choice([100, 64 * KIB, MIB, 2 * MIB])) as lease:
                    lease.view[:4] = b"mine"
                data = CONTENT[: chance.choice([10_000, 400_000])]
                sink = Checksum()
                if chance.random() < 0.5:
                    pool.copy(Plain(data), sink, chance.choice([None, len(data)]))
                else:
                    with pool.tee(Plain(data), sink) as tee:
                        assert tee.read() == data
                assert (sink.crc, sink.count) == (zlib.crc32(data), len(data))
                copies, moved = copies + 1, moved + len(data)
                if chance.random() < 0.1:
                    pool.maintain()
                    pool.stats()
            done.append((copies, moved))

        threads = [threading.Thread(target=load, args=(number,)) for number in range(8)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(0.00002)  # so that threads are often in the midst of something at the fork
        for thread in threads:
            thread.start()
        try:
            for _ in range(30):
                assert in_child(lambda: works_as_new(pool)) == 0
        finally:
            sys.setswitchinterval(interval)
            stop.set()
            for thread in threads:
                thread.join()
        stats, gate = pool.stats(), pool.gate.stats()
        assert len(done) == 8 and all(copies for copies, _ in done)
        assert (stats.copies, stats.copied_bytes) == (sum(c for c, _ in done), sum(m for _, m in done))
        assert stats.total_gets == stats.total_puts
        assert (stats.active_buffers, stats.waiting, stats.lost_leases) == (0, 0, 0)
        assert (gate.active, gate.active_bytes, gate.waiting, gate.lost) == (0, 0, 0, 0)
    assert pool.ledger.held == 0
