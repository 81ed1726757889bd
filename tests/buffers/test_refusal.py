"""Memory that the system refuses: less, then the kernel, then the reserve, then a clear error; never a byte lost."""

from __future__ import annotations

import asyncio
import errno
import gc
import mmap
import os
import random
import threading

import pytest

from daramjwee.buffers import (
    AdaptiveBufferPool,
    BufferPool,
    BufferPoolConfig,
    MemoryLedger,
    Strategy,
    arenas,
    chunked,
    chunked_copy,
)
from daramjwee.buffers.holdings import Refused
from daramjwee.buffers.pressure import PressureLevel
from daramjwee.buffers.reserve import RESERVE_BYTES, Reserve, reserve
from daramjwee.errors import Overloaded

pytestmark = pytest.mark.usefixtures("unkept")

KIB, MIB = 1024, 1024 * 1024
CONTENT = random.Random(3).randbytes(MIB + 17)


class System:
    """Maps memory, or refuses: what `refuses(nth, size)` says."""

    def __init__(self) -> None:
        self.asked = 0
        self.refuses = lambda nth, size: False
        self.real = arenas._map

    def map(self, size: int):
        self.asked += 1
        if self.refuses(self.asked, size):
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return self.real(size)


@pytest.fixture
def system(monkeypatch):
    made = System()
    monkeypatch.setattr(arenas, "_map", made.map)
    reserve.lay_by()
    return made


@pytest.fixture
def pool():
    with AdaptiveBufferPool() as made:
        yield made
        stats = made.stats()
        assert stats.active_buffers == stats.quarantined == 0
        assert made.ledger.held == stats.arena_bytes + stats.private_bytes
    assert made.ledger.held == 0


def everything(nth: int, size: int) -> bool:
    return True


def test_a_copy_goes_through_a_smaller_chunk_when_that_is_all_there_is(system, pool, endpoints):
    system.refuses = lambda nth, size: size > 64 * KIB
    sink = endpoints.sink()
    result = pool.copy(endpoints.source(CONTENT), sink)
    stats = pool.stats()
    assert sink.data == CONTENT and result.bytes == len(CONTENT)
    assert result.chunks == -(-len(CONTENT) // (64 * KIB))
    assert (stats.fallbacks, stats.reserve_uses) == (1, 0) and stats.refusals > 0


def test_pressure_is_critical_from_the_moment_of_the_refusal_and_what_is_idle_goes_back(system, pool, endpoints):
    heard = []
    pool.monitor.listen(heard.append)
    pool.acquire(MIB).release()
    assert pool.stats().idle_bytes > 0
    system.refuses = everything
    pool.copy(endpoints.source(CONTENT), endpoints.sink())  # through the chunk of 1 MiB
    assert pool.pressure is PressureLevel.CRITICAL
    pool.look_after()
    assert pool.stats().arena_bytes == 0
    assert [alert.metric for alert in heard] == ["pressure", "refusals"] and "Cannot allocate memory" in heard[
        0
    ].message


def test_a_free_chunk_of_a_larger_size_serves_before_anything_is_given_back(system, pool):
    pool.acquire(MIB).release()
    system.refuses = everything
    with pool.acquire(300_000) as lease:
        assert len(lease.view) == 300_000
    assert pool.stats().refusals > 0


def test_with_no_memory_at_all_a_copy_goes_through_the_reserve(system, pool, caplog, endpoints):
    system.refuses = everything
    for number in (1, 2):
        sink = endpoints.sink()
        assert pool.copy(endpoints.source(CONTENT), sink).bytes == len(CONTENT)
        assert sink.data == CONTENT
        assert (pool.stats().reserve_uses, pool.stats().fallbacks) == (number, number)
    assert pool.stats().arena_bytes == 0 and not reserve.turn.locked()


def test_a_file_goes_by_the_kernel_before_it_goes_through_the_reserve(system, tmp_path):
    """Chunked is configured: without a chunk the kernel still can."""
    system.refuses = everything
    (tmp_path / "from").write_bytes(CONTENT)
    with AdaptiveBufferPool(BufferPoolConfig(large_object_strategy="chunked")) as pool:
        with (tmp_path / "from").open("rb") as src, (tmp_path / "to").open("wb") as dst:
            result = pool.copy(src, dst)
        assert (tmp_path / "to").read_bytes() == CONTENT
        assert result.strategy is Strategy.DIRECT
        assert (pool.stats().fallbacks, pool.stats().reserve_uses) == (1, 0)


@pytest.mark.parametrize("size", [100, 70_000, MIB])
def test_a_short_copy_of_a_file_is_served_like_any_other(system, pool, tmp_path, size):
    system.refuses = everything
    (tmp_path / "from").write_bytes(CONTENT[:size])
    with (tmp_path / "from").open("rb") as src, (tmp_path / "to").open("wb") as dst:
        assert pool.copy(src, dst).bytes == size
    assert (tmp_path / "to").read_bytes() == CONTENT[:size]


def test_a_lease_that_cannot_be_had_says_what_the_system_said_and_what_to_do(system, pool):
    system.refuses = everything
    with pytest.raises(Overloaded) as caught:
        pool.acquire(300_000)
    assert "the system gives no 512KiB of memory: [Errno 12] Cannot allocate memory" in str(caught.value)
    assert "daramjwee doctor" in str(caught.value) and "max_pool_bytes" in str(caught.value)
    assert pool.stats().gate.active == 0 and pool.ledger.held == 0
    system.refuses = lambda nth, size: False
    pool.acquire(300_000).release()


def test_a_tee_reads_through_the_reserve_and_does_not_keep_it(system, pool, endpoints):
    system.refuses = everything
    sink = endpoints.sink()
    with pool.tee(endpoints.source(CONTENT), sink) as tee:
        assert tee.read(100) == CONTENT[:100]
        assert not reserve.turn.locked()
        with pool.tee(endpoints.source(CONTENT), endpoints.sink()) as other:
            assert other.read() == CONTENT
        assert tee.read() == CONTENT[100:]
    assert sink.data == CONTENT
    stats = pool.stats()
    assert (stats.copies, stats.fallbacks) == (2, 2) and stats.reserve_uses >= 2


def test_a_tee_goes_on_with_chunks_when_there_is_memory_again(system, pool, endpoints):
    system.refuses = everything
    with pool.tee(endpoints.source(CONTENT), endpoints.sink()) as tee:
        tee.read(10)
        system.refuses = lambda nth, size: False
        assert tee.read() == CONTENT[10:]
        assert pool.stats().reserve_uses == 1


@pytest.mark.parametrize("pooled", [True, False])
def test_a_chunked_copy_takes_less(monkeypatch, system, pool, pooled, endpoints):
    system.refuses = everything
    real = mmap.mmap

    class Scarce:
        MAP_PRIVATE, MAP_ANONYMOUS, PAGESIZE = mmap.MAP_PRIVATE, mmap.MAP_ANONYMOUS, mmap.PAGESIZE

        @staticmethod
        def map(fd, size, **flags):
            if size > 16 * KIB:
                raise OSError(errno.ENOMEM, "Cannot allocate memory")
            return real(fd, size, **flags)

    Scarce.mmap = Scarce.map
    monkeypatch.setattr(chunked, "mmap", Scarce)
    sink = endpoints.sink()
    result = chunked_copy(endpoints.source(CONTENT), sink, pool=pool if pooled else None)
    assert sink.data == CONTENT
    assert result.chunks == -(-len(CONTENT) // (RESERVE_BYTES if pooled else 16 * KIB))


def test_copies_take_turns_in_the_reserve(system, pool, endpoints):
    """16 at once; never two in it, and none is left out."""
    system.refuses = everything
    inside = threading.Lock()
    wrong = []

    class Alone(endpoints.source):
        def readinto(self, view) -> int:
            if not inside.acquire(blocking=False):
                wrong.append("two in the reserve at once")
                return super().readinto(view)
            try:
                return super().readinto(view)
            finally:
                inside.release()

    def work() -> None:
        sink = endpoints.sink()
        pool.copy(Alone(CONTENT), sink, timeout=30)
        if sink.data != CONTENT:
            wrong.append("other bytes came out")

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and pool.stats().reserve_uses == 16 == pool.stats().copies


def test_who_waits_for_the_reserve_in_vain_gets_the_error_of_the_system(system, pool, endpoints):
    system.refuses = everything
    room = reserve.borrow(0)
    assert room is not None
    with room, pytest.raises(Refused, match="the system gives no"):
        pool.copy(endpoints.source(CONTENT), endpoints.sink(), timeout=0.01)
    pool.copy(endpoints.source(CONTENT), endpoints.sink())


def test_who_waits_for_the_reserve_is_served_by_memory_that_is_to_be_had_meanwhile(system, pool, endpoints):
    system.refuses = lambda nth, size: nth <= 8
    room = reserve.borrow(0)
    assert room is not None
    with room:
        sink = endpoints.sink()
        pool.copy(endpoints.source(CONTENT), sink, timeout=60)
    assert sink.data == CONTENT and pool.stats().reserve_uses == 0


def test_what_serves_instead_of_the_reserve_is_as_large_as_it_says(system, pool):
    """Only 16 KiB are to be had: the lease has those, and no more."""
    system.refuses = lambda nth, size: size > 16 * KIB
    room = reserve.borrow(0)
    assert room is not None
    with room, pool.lend_reserve(30, Refused(1, "no memory")) as lease:
        assert lease.size == len(lease.view) == 16 * KIB


def test_memory_that_a_sink_kept_is_never_lent_again(system, pool, endpoints):
    system.refuses = everything
    kept = []

    class Keeps:
        def write(self, data) -> int:
            kept.append(memoryview(data))
            return len(data)

    before = reserve.chunk
    pool.copy(endpoints.source(CONTENT), Keeps())
    assert reserve.chunk is not before and not reserve.turn.locked()
    seen = bytes(kept[0])
    system.refuses = lambda nth, size: False
    reserve.lay_by()
    system.refuses = everything
    pool.copy(endpoints.source(bytes(MIB)), endpoints.sink())
    assert bytes(kept[0]) == seen


def test_a_reserve_lost_by_an_interrupt_comes_back():
    own = Reserve()
    own.lay_by()
    room = own.borrow(0)
    assert room is not None and own.borrow(0) is None
    del room
    gc.collect()
    again = own.borrow(0)
    assert again is not None
    again.release()
    again.release()


def test_no_reserve_to_be_had_is_no_failure_and_the_next_user_tries_again(monkeypatch):
    own = Reserve()
    with monkeypatch.context() as patch:
        patch.setattr(arenas, "_map", lambda size: (_ for _ in ()).throw(OSError(errno.ENOMEM, "no")))
        own.lay_by()
    assert own.chunk is None and own.borrow(0) is None and not own.turn.locked()
    own.lay_by()
    assert own.chunk is not None


def test_a_forked_child_has_a_reserve_of_its_own():
    """One that is taken in the parent, by a thread that the child does not have, holds up nobody there."""
    reserve.lay_by()
    room = reserve.borrow(0)
    assert room is not None
    with room:
        child = os.fork()
        if not child:
            status = 1
            try:
                assert reserve.chunk is None
                with BufferPool() as pool:
                    pool.acquire(10).release()
                mine = reserve.borrow(0)
                status = 0 if mine is not None else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


def lease_some(pool, endpoints) -> bytes:
    for size in (100, 5000, 70_000, 300_000, MIB, 3 * MIB):
        pool.acquire(size).release()
    return CONTENT


def lease_in_a_task(pool, endpoints) -> bytes:
    async def work() -> None:
        for size in (100, 300_000, 3 * MIB):
            (await pool.acquire_async(size)).release()

    asyncio.run(work())
    return CONTENT


def copy_plain(pool, endpoints) -> bytes:
    sink = endpoints.sink()
    pool.copy(endpoints.source(CONTENT), sink)
    return sink.data


def copy_chunked(pool, endpoints) -> bytes:
    sink = endpoints.sink()
    chunked_copy(endpoints.source(CONTENT), sink, pool=pool)
    return sink.data


def tee(pool, endpoints) -> bytes:
    sink = endpoints.sink()
    with pool.tee(endpoints.source(CONTENT), sink) as reader:
        assert reader.read() == CONTENT
    return sink.data


LEASES = (lease_some, lease_in_a_task)


@pytest.mark.parametrize("work", [lease_some, lease_in_a_task, copy_plain, copy_chunked, tee])
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_each_mapping_in_turn_is_refused(system, work, lasting, endpoints):
    """The first, the second, ... until a run asks for fewer: right bytes or a clear error, and nothing is left."""
    for nth in range(1, 1000):
        system.asked = 0
        system.refuses = (lambda n, _, at=nth: n >= at) if lasting else (lambda n, _, at=nth: n == at)
        ledger = MemoryLedger(8 * MIB)
        with AdaptiveBufferPool(ledger=ledger) as pool:
            # A lease may fail, with the words of the system; what can go through any chunk may not.
            said = []
            try:
                assert work(pool, endpoints) == CONTENT
            except Overloaded as error:
                said.append(str(error))
            assert not said or (work in LEASES and "the system gives no" in said[0])
            stats = pool.stats()
            assert stats.active_buffers == stats.gate.active == stats.waiting == 0
            assert stats.total_gets == stats.total_puts
            assert ledger.held == stats.arena_bytes + stats.private_bytes
            assert (stats.refusals > 0) == (system.asked >= nth)
        assert ledger.held == 0
        if system.asked < nth:
            return
    raise AssertionError("it never ended")


def test_who_waits_in_line_and_is_then_refused_leaves_nothing(system):
    """Room in the ledger comes, but no memory."""
    ledger = MemoryLedger(MIB)
    ledger.charge(MIB)
    with BufferPool(ledger=ledger) as pool:
        errors = []

        def wait() -> None:
            try:
                pool.acquire(700_000, timeout=30).release()
            except Overloaded as error:
                errors.append(str(error))

        waiter = threading.Thread(target=wait)
        waiter.start()
        while not ledger.waiting and waiter.is_alive():
            pass
        system.refuses = everything
        ledger.credit(MIB)
        waiter.join(30)
        assert "the system gives no" in errors[0] and pool.pressure is PressureLevel.CRITICAL
        stats = pool.stats()
        assert (stats.active_buffers, stats.waiting, stats.overloads, stats.refusals) == (0, 0, 0, 1)
        assert ledger.held == ledger.waiting == 0
