"""Waiting for memory in a task: the same line as threads, and nothing left behind by a cancellation or a closed loop."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from daramjwee.buffers import BufferPool, BufferPoolConfig
from daramjwee.errors import Closed, LimitExceeded, Overloaded

KIB, MIB = 1024, 1024 * 1024


@pytest.fixture
def full():
    """A pool of 1 MiB."""
    with BufferPool(BufferPoolConfig(max_pool_bytes="1MiB")) as pool:
        yield pool
        stats = pool.stats()
        assert (stats.active_buffers, stats.waiting, stats.quarantined) == (0, 0, 0)
        assert stats.total_gets == stats.total_puts and not pool._chunks._visitors
    assert pool.ledger.held == 0


async def line_of(pool: BufferPool, count: int) -> None:
    while pool.stats().waiting < count:  # noqa: ASYNC110 - a pool tells nobody of its line
        await asyncio.sleep(0)


def test_a_lease_is_the_same_as_any(full):
    """Exact, a context manager, of the default size when none is given."""

    async def main() -> None:
        with await full.acquire_async("64KiB") as lease:
            assert len(lease.view) == 64 * KIB
        with await full.acquire_async() as lease:
            assert lease.size == 256 * KIB
        with pytest.raises(LimitExceeded):
            await full.acquire_async(2 * MIB)

    asyncio.run(main())


def test_the_loop_runs_on_while_a_task_waits_and_a_thread_can_serve_it(full):
    """A release in another thread wakes the task."""

    async def main() -> None:
        first = full.acquire(MIB)
        task = asyncio.create_task(full.acquire_async(MIB))
        await line_of(full, 1)
        thread = threading.Thread(target=first.release)
        thread.start()
        (await asyncio.wait_for(task, 10)).release()
        thread.join()

    asyncio.run(main())


def test_tasks_and_threads_stand_in_one_line(full):
    """First come, first served, whoever it is."""
    order: list[str] = []

    async def main() -> None:
        first = full.acquire(MIB)

        async def ask(name: str) -> None:
            with await full.acquire_async(MIB):
                order.append(name)

        def ask_in_thread(name: str) -> None:
            with full.acquire(MIB):
                order.append(name)

        tasks, threads = [], []
        for turn in range(6):
            if turn % 2:
                threads.append(threading.Thread(target=ask_in_thread, args=(f"thread {turn}",)))
                threads[-1].start()
            else:
                tasks.append(asyncio.create_task(ask(f"task {turn}")))
            await line_of(full, turn + 1)
        first.release()
        await asyncio.gather(*tasks)
        for thread in threads:
            thread.join()

    asyncio.run(main())
    assert order == [f"{'thread' if turn % 2 else 'task'} {turn}" for turn in range(6)]


def test_a_wait_in_vain_is_overloaded(full):
    """After the timeout, with the line empty again."""

    async def main() -> None:
        first = full.acquire(MIB)
        with pytest.raises(Overloaded):
            await full.acquire_async(MIB, timeout=0.01)
        with pytest.raises(Overloaded):
            await full.acquire_async(MIB, timeout=0)
        first.release()

    asyncio.run(main())
    assert full.stats().overloads == 2


def test_a_cancelled_wait_leaves_the_line_for_the_next(full):
    """Who stands behind is served."""

    async def main() -> None:
        first = full.acquire(MIB)
        gone = asyncio.create_task(full.acquire_async(MIB))
        await line_of(full, 1)
        stays = asyncio.create_task(full.acquire_async(MIB))
        await line_of(full, 2)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert full.stats().waiting == 1
        first.release()
        (await asyncio.wait_for(stays, 10)).release()

    asyncio.run(main())


@pytest.mark.parametrize("size", [MIB, 512 * KIB], ids=["chunk", "smaller"])
def test_a_chunk_given_in_the_moment_of_the_cancellation_goes_back(full, size):
    """The task was woken and cancelled before it ran again."""

    async def main() -> None:
        first = full.acquire(MIB)
        task = asyncio.create_task(full.acquire_async(size))
        await line_of(full, 1)
        first.release()
        assert full.stats().waiting == 0, "it was given the chunk"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        full.acquire(MIB, timeout=0).release()

    asyncio.run(main())
    assert full.stats().total_gets == 2


def test_a_grant_of_the_ledger_in_the_moment_of_the_cancellation_goes_back(full):
    """Not a chunk but room for one."""

    async def main() -> None:
        full.ledger.charge(MIB)
        task = asyncio.create_task(full.acquire_async(MIB))
        await line_of(full, 1)
        full.ledger.credit(MIB)
        assert full.ledger.held == MIB, "it was granted"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert full.ledger.held == 0

    asyncio.run(main())


@pytest.mark.parametrize("when", ["before it is given", "after it was given"])
def test_a_closed_loop_swallows_no_chunk(full, when):
    """Its tasks never run again, even where somebody still holds them."""
    loop = asyncio.new_event_loop()
    first = full.acquire(MIB)
    task = loop.create_task(full.acquire_async(MIB))
    loop.run_until_complete(line_of(full, 1))
    if when == "after it was given":
        first.release()
        assert full.stats().waiting == 0
        loop.close()
    else:
        loop.close()
        first.release()
    with full.acquire(MIB, timeout=0):
        pass
    assert full.stats().waiting == 0
    # What the collector does to a task that is pending for ever.
    task.get_coro().close()
    task._log_destroy_pending = False
    del task
    gc.collect()
    full.acquire(MIB, timeout=0).release()


def test_a_task_that_is_collected_while_the_lock_is_held_neither_blocks_nor_loses(full):
    """The collector may end a waiting coroutine inside of any allocation, also inside of the pool's own work."""
    loop = asyncio.new_event_loop()
    first = full.acquire(MIB)
    task = loop.create_task(full.acquire_async(MIB))
    loop.run_until_complete(line_of(full, 1))
    with full._chunks._lock, full.ledger._lock:
        task.get_coro().close()
    assert full.stats().waiting == 0
    task._log_destroy_pending = False
    loop.close()
    first.release()
    full.acquire(MIB, timeout=0).release()


def test_close_sends_away_who_waits(full):
    """`Closed`, in a task as in a thread."""

    async def main() -> None:
        first = full.acquire(MIB)
        task = asyncio.create_task(full.acquire_async(MIB))
        await line_of(full, 1)
        full.close()
        with pytest.raises(Closed):
            await task
        first.release()

    asyncio.run(main())


def test_a_thousand_tasks_and_sixteen_threads_share_one_mebibyte(full):
    """Everybody is served, within the limit at every look."""
    over: list[int] = []

    def look() -> None:
        if full.ledger.held > MIB:
            over.append(full.ledger.held)

    async def ask(size: int) -> None:
        with await full.acquire_async(size, timeout=60) as lease:
            look()
            lease.view[0] = 1
            await asyncio.sleep(0)

    def ask_in_thread() -> None:
        for turn in range(20):
            with full.acquire(200 * KIB + turn, timeout=60):
                look()

    async def main() -> None:
        await asyncio.gather(*(ask((64 + turn % 700) * KIB) for turn in range(1000)))

    threads = [threading.Thread(target=ask_in_thread) for _ in range(16)]
    for thread in threads:
        thread.start()
    asyncio.run(main())
    for thread in threads:
        thread.join()
    assert not over and full.stats().total_gets == 1000 + 16 * 20
