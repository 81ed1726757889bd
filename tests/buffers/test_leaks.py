"""Lost leases: where they were acquired is kept, and told by the pool's health."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading

import pytest

from daramjwee.buffers import BufferPool, BufferPoolConfig
from daramjwee.buffers.holdings import MOST_PLACES, OTHER_PLACES, UNKNOWN_PLACE
from daramjwee.testing import ManualClock

pytestmark = pytest.mark.filterwarnings("ignore:a lease of:ResourceWarning")


def lose(pool: BufferPool, times: int) -> None:
    for _ in range(times):
        lease = pool.acquire(100)
        del lease
        gc.collect()


def test_places_of_lost_leases_are_counted():
    """Under the line that acquired them, each once; health can be asked."""
    with BufferPool(BufferPoolConfig(leak_detection="full")) as pool:
        lose(pool, 3)
        assert pool.stats().lost_leases == 3
        ((place, count),) = pool._chunks.lost_places()
        assert "test_leaks.py:" in place and count == 3
        assert any("test_leaks.py:" in str(finding) for finding in pool.health())


def test_without_leak_detection_they_are_counted_all_the_same():
    """As of a place that is not known."""
    with BufferPool(BufferPoolConfig(leak_detection="off")) as pool:
        lose(pool, 2)
        pool.maintain()
        assert pool._chunks.lost_places() == ((UNKNOWN_PLACE, 2),)


def test_only_so_many_places_are_told_apart():
    """The rest is counted together."""
    with BufferPool(BufferPoolConfig(leak_detection="full")) as pool:
        for line in range(MOST_PLACES + 5):
            exec(compile("\n" * line + "pool.acquire(100)", f"place{line}.py", "exec"), {"pool": pool})
            gc.collect()
        pool.maintain()
        places = dict(pool._chunks.lost_places())
        assert len(places) == MOST_PLACES + 1 and places[OTHER_PLACES] == 5
        assert sum(places.values()) == MOST_PLACES + 5


def inner(pool: BufferPool) -> None:
    pool.acquire(100)


def outer(pool: BufferPool) -> None:
    inner(pool)


@pytest.mark.parametrize(("level", "frames"), [("off", 0), ("sampled", 0), ("full", 8)])
def test_the_warning_has_the_stack_where_every_lease_is_recorded(level, frames):
    """Up to 8 frames, innermost first, none of the library's own at the top."""
    with BufferPool(BufferPoolConfig(leak_detection=level)) as pool:
        with pytest.warns(ResourceWarning, match="a lease of") as found:
            outer(pool)
        told, *stack = str(found[0].message).splitlines()
        assert ("acquired at" in told) == (level != "off")
        assert len(stack) == frames
        if stack:
            assert f"acquired at {stack[0].strip().partition(' in ')[0]})" in told
            assert [line.rpartition(" in ")[2] for line in stack[:2]] == ["inner", "outer"]


def records(caplog) -> list[tuple[int, str]]:
    return [
        (record.count, record.place)
        for record in caplog.records
        if getattr(record, "event", "") == "pool.lost_leases" and record.levelname == "WARNING"
    ]


def test_the_log_hears_of_lost_leases_once_and_not_too_often(caplog, unkept):
    """What was not told is in the next record; the most frequent place is named."""
    clock = ManualClock()
    with BufferPool(BufferPoolConfig(leak_detection="full"), clock=clock) as pool:
        held = [pool.acquire(100) for _ in range(3)]
        del held
        gc.collect()
        assert records(caplog) == []  # a finalizer tells nobody
        pool.stats()
        pool.stats()
        ((count, place),) = records(caplog)
        assert count == 3 and "test_leaks.py:" in place
        lose(pool, 2)
        clock.advance(5)
        pool.maintain()
        assert len(records(caplog)) == 1
        clock.advance(6)
        pool.acquire(5000).release()
        assert [count for count, _ in records(caplog)] == [3, 2]


def test_a_million_leases_with_their_stacks_grow_nothing(unkept):
    """A place is kept for each chunk, and for nothing else."""
    with BufferPool(BufferPoolConfig(leak_detection="full")) as pool:
        for _ in range(1000):
            pool.acquire(100).release()
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(20_000):
            pool.acquire(100).release()
        gc.collect()
        assert sys.getallocatedblocks() - before < 500


def test_the_stack_of_a_lease_lost_in_a_task_and_in_a_thread_is_its_own(recwarn):
    async def in_a_task(pool: BufferPool) -> None:
        await pool.acquire_async(100)

    def in_a_thread(pool: BufferPool) -> None:
        pool.acquire(5000)

    with BufferPool(BufferPoolConfig(leak_detection="full")) as pool:
        asyncio.run(in_a_task(pool))
        thread = threading.Thread(target=in_a_thread, args=(pool,))
        thread.start()
        thread.join()
        gc.collect()
        told = [str(warning.message) for warning in recwarn.list if "lost without release" in str(warning.message)]
        assert len(told) == 2 and pool.stats().lost_leases == 2
        assert told[0].splitlines()[1].endswith(".in_a_task") and told[1].splitlines()[1].endswith(".in_a_thread")


def test_a_chunk_that_was_leased_again_tells_of_the_lease_that_is_lost(recwarn):
    with BufferPool(BufferPoolConfig(leak_detection="full")) as pool:
        pool.acquire(100).release()

        def second() -> None:
            pool.acquire(100)

        second()
        gc.collect()
        (told,) = [str(warning.message) for warning in recwarn.list]
        assert ".second" in told.splitlines()[1]
