"""AdaptiveBufferPool: what is large passes a gate, in line and by priority; everything else is a BufferPool."""

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import threading
import warnings

import pytest

from daramjwee import Cache, MemoryStore
from daramjwee.buffers import (
    AdaptiveBufferPool,
    BufferPool,
    BufferPoolConfig,
    MemoryLedger,
    PressureLevel,
    Priority,
    Strategy,
)
from daramjwee.errors import Closed, ConfigError, LeaseError, LimitExceeded, Overloaded

LARGE = 256 * 1024


def adaptive(**settings) -> AdaptiveBufferPool:
    return AdaptiveBufferPool(BufferPoolConfig(**settings))


class Counting:
    """A source of zeros that knows how many of its kind are being read at once, and waits for `go`."""

    running = 0
    most = 0
    lock = threading.Lock()

    def __init__(self, size: int, go: threading.Event | None = None) -> None:
        self.left = size
        self.go = go
        self.began = threading.Event()

    def readinto(self, view) -> int:
        kind = type(self)
        if not self.began.is_set():
            with self.lock:
                kind.running += 1
                kind.most = max(kind.most, kind.running)
            self.began.set()
            if self.go is not None:
                assert self.go.wait(30)
        count = min(len(view), self.left)
        self.left -= count
        if not count:
            with self.lock:
                kind.running -= 1
        return count


@pytest.fixture
def counting():
    return type("Counted", (Counting,), {"running": 0, "most": 0, "lock": threading.Lock()})


class Nowhere:
    def write(self, piece) -> int:
        return len(piece)


def in_thread(work) -> tuple[threading.Thread, list]:
    outcome: list = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:  # the test looks at it
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def wait_for_line(pool: AdaptiveBufferPool, count: int) -> None:
    """Until so many wait in the gate: asked again and again, without a sleep."""
    while pool.gate.stats().waiting != count:
        threading.Event().wait(0.001)


def test_it_has_the_interface_of_the_plain_pool():
    """Whatever works with a BufferPool works with this one: every public call has the same parameters."""
    for name, member in inspect.getmembers(BufferPool, inspect.isfunction):
        if not name.startswith("_") or name in ("__init__", "__enter__", "__exit__"):
            own = inspect.signature(getattr(AdaptiveBufferPool, name)).parameters
            assert list(own) == list(inspect.signature(member).parameters), name


def test_no_more_large_copies_run_than_configured(counting):
    """16 copies in 16 threads with three places: never four at once, and all of them run (a full gate does not just
    copy anyway)."""
    with adaptive(max_concurrent_large_ops=3) as pool:
        sources = [counting(2 * LARGE) for _ in range(16)]
        threads = [in_thread(lambda source=source: pool.copy(source, Nowhere(), 2 * LARGE)) for source in sources]
        for thread, outcome in threads:
            thread.join(30)
            assert outcome[0].bytes == 2 * LARGE
        gate = pool.gate.stats()
        assert counting.most <= 3 and gate.entered == 16 and gate.active == gate.waiting == 0


def test_a_full_gate_holds_a_copy_back_and_then_refuses_it(counting):
    """With its one place taken a second copy waits, then raises Overloaded, and has not touched its ends."""
    go = threading.Event()
    with adaptive(max_concurrent_large_ops=1) as pool:
        first = counting(LARGE, go)
        thread, outcome = in_thread(lambda: pool.copy(first, Nowhere(), LARGE))
        assert first.began.wait(30)
        second = counting(LARGE)
        with pytest.raises(Overloaded, match="max_concurrent_large_ops") as caught:
            pool.copy(second, Nowhere(), LARGE, timeout=0.01)
        assert caught.value.retry_after > 0 and not second.began.is_set() and second.left == LARGE
        go.set()
        thread.join(30)
        assert outcome[0].bytes == LARGE
        assert pool.copy(second, Nowhere(), LARGE, timeout=0.01).bytes == LARGE


def test_a_full_line_refuses_at_once(counting):
    """With one place and a line of one, the third is told to come back later, without a wait."""
    go = threading.Event()
    with adaptive(max_concurrent_large_ops=1, max_queued_large_ops=1) as pool:
        first = counting(LARGE, go)
        running = in_thread(lambda: pool.copy(first, Nowhere(), LARGE))
        assert first.began.wait(30)
        waiting = in_thread(lambda: pool.copy(counting(LARGE), Nowhere(), LARGE))
        wait_for_line(pool, 1)
        with pytest.raises(Overloaded, match="wait"):
            pool.copy(counting(LARGE), Nowhere(), LARGE, timeout=3600)
        go.set()
        for thread, outcome in (running, waiting):
            thread.join(30)
            assert outcome[0].bytes == LARGE


def test_small_objects_and_work_with_a_place_of_its_own_pass_by(counting):
    """With no place free: small leases and copies run, and large ones that say priority=None do."""
    with adaptive(max_concurrent_large_ops=1) as pool, pool.acquire(LARGE):
        with pool.acquire(LARGE - 1, timeout=0), pool.acquire(LARGE, timeout=0, priority=None):
            pass
        assert pool.copy(io.BytesIO(bytes(1000)), Nowhere(), 1000, timeout=0).bytes == 1000
        assert pool.copy(counting(LARGE), Nowhere(), LARGE, timeout=0, priority=None).bytes == LARGE
        for size in (None, LARGE):  # of unknown size counts as large
            with pytest.raises(Overloaded):
                pool.copy(counting(LARGE), Nowhere(), size, timeout=0)


def test_leases_are_served_by_priority():
    """While one lease holds the only place, HIGH goes before NORMAL before LOW, whatever the order they came in."""
    with adaptive(max_concurrent_large_ops=1) as pool:
        order: list[Priority] = []

        def work(priority: Priority) -> None:
            with pool.acquire(LARGE, priority=priority):
                order.append(priority)

        threads = []
        with pool.acquire(LARGE):
            for count, priority in enumerate((Priority.LOW, Priority.NORMAL, Priority.HIGH), start=1):
                threads.append(in_thread(lambda priority=priority: work(priority)))
                wait_for_line(pool, count)
        for thread, outcome in threads:
            thread.join(30)
            assert outcome == [None]
        assert order == [Priority.HIGH, Priority.NORMAL, Priority.LOW]


def test_sync_and_async_leases_stand_in_one_line():
    """A thread and a task that wait for the same place get it in the order in which they came."""
    order = []
    with adaptive(max_concurrent_large_ops=1) as pool:

        def in_a_thread() -> None:
            with pool.acquire(LARGE):
                order.append("thread")

        async def in_a_task(name: str) -> None:
            with await pool.acquire_async(LARGE) as lease:
                assert lease.size == LARGE
                order.append(name)

        async def main() -> None:
            held = await pool.acquire_async("256KiB")
            first = asyncio.create_task(in_a_task("task 1"))
            await asyncio.to_thread(wait_for_line, pool, 1)
            thread, outcome = in_thread(in_a_thread)
            await asyncio.to_thread(wait_for_line, pool, 2)
            second = asyncio.create_task(in_a_task("task 2"))
            await asyncio.to_thread(wait_for_line, pool, 3)
            held.release()
            await asyncio.gather(first, second)
            await asyncio.to_thread(thread.join, 30)
            assert outcome == [None]

        asyncio.run(main())
        assert order == ["task 1", "thread", "task 2"]
        assert pool.stats().active_buffers == 0 and pool.gate.stats().active == 0


def test_a_lease_gives_its_place_back_once():
    """By release, by the end of the block after it, and twice is an error that gives nothing back again."""
    with adaptive(max_concurrent_large_ops=2) as pool:
        with pool.acquire(LARGE) as lease:
            assert pool.gate.stats().active == 1
            lease.release()
            assert pool.gate.stats().active == 0
        with pytest.raises(LeaseError):
            lease.release()
        with pytest.raises(LeaseError):
            len(lease.view)
        assert pool.gate.stats().active == 0
        with pool.acquire(LARGE), pool.acquire(LARGE), pytest.raises(Overloaded):
            pool.acquire(LARGE, timeout=0)


def test_a_lost_lease_gives_memory_and_place_back():
    """Garbage collected without release: said once for the memory, and both are there for the next."""
    with adaptive(max_concurrent_large_ops=1) as pool:
        lease = pool.acquire(LARGE)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del lease
            gc.collect()
        assert any("a lease of 256KiB was lost" in str(warning.message) for warning in caught)
        with pool.acquire(LARGE, timeout=1):
            assert pool.gate.stats().active == 1
        assert pool.stats().active_buffers == 0


def test_what_memory_refuses_leaves_the_place_free():
    """A lease that passed the gate and found no memory gives its place back with the error."""
    ledger = MemoryLedger("2MiB")
    with AdaptiveBufferPool(BufferPoolConfig(max_concurrent_large_ops=1), ledger=ledger) as pool:
        ledger.charge(1024 * 1024 + 1)
        with pytest.raises(Overloaded):
            pool.acquire("1MiB", timeout=0)
        with pytest.raises(LimitExceeded):
            pool.acquire("3MiB")
        ledger.credit(1024 * 1024 + 1)
        with pool.acquire("1MiB", timeout=0):
            assert pool.gate.stats().active == 1
        assert pool.gate.stats().active == 0


def test_a_disabled_pool_has_no_gate():
    """enabled=False serves everything as no pool would."""
    with adaptive(enabled=False, max_concurrent_large_ops=1) as pool, pool.acquire(LARGE), pool.acquire(LARGE):
        assert pool.copy(io.BytesIO(bytes(2 * LARGE)), Nowhere(), timeout=0).strategy is Strategy.DIRECT


def test_reconfigure_changes_how_many_run_at_once():
    """More places let in who waits; fewer only hold back those who come later; what is out stays out."""
    with adaptive(max_concurrent_large_ops=1) as pool:
        first = pool.acquire(LARGE)
        thread, outcome = in_thread(lambda: pool.acquire(LARGE))
        wait_for_line(pool, 1)
        pool.reconfigure(pool.config.replace(max_concurrent_large_ops=2))
        thread.join(30)
        second = outcome[0]
        pool.reconfigure(pool.config.replace(max_concurrent_large_ops=1))
        first.release()
        with pytest.raises(Overloaded):
            pool.acquire(LARGE, timeout=0)
        second.release()
        with pool.acquire(LARGE, timeout=0):
            assert repr(pool).endswith("gate 1/1 busy, 0 waiting, pressure NORMAL>")
        pool.reconfigure(pool.config.replace(large_object_threshold="512KiB"))
        with pool.acquire(LARGE), pool.acquire(LARGE):
            assert pool.gate.stats().active == 0


def test_close_sends_away_who_waits_in_the_gate():
    """Closed for the one in line; the lease that is out stays valid."""
    pool = adaptive(max_concurrent_large_ops=1)
    lease = pool.acquire(LARGE)
    thread, outcome = in_thread(lambda: pool.acquire(LARGE))
    wait_for_line(pool, 1)
    pool.close()
    thread.join(30)
    assert isinstance(outcome[0], Closed)
    lease.view[:3] = b"abc"
    lease.release()
    assert pool.ledger.held == 0 and repr(pool).startswith("<AdaptiveBufferPool closed, 0 leased")


def test_its_repr_tells_its_state():
    """What is leased, how busy the gate is, who waits, and the pressure."""
    with adaptive(max_concurrent_large_ops=4) as pool, pool.acquire("1MiB"):
        pool.relieve(PressureLevel.ELEVATED)
        expected = "<AdaptiveBufferPool open, 1 leased (1MiB of 64MiB), gate 1/4 busy, 0 waiting, pressure ELEVATED>"
        assert repr(pool) == expected


def test_fills_and_streams_of_a_cache_pass_the_gate():
    """With the only place taken, a miss fills the tiers, and its reader copies it out."""
    body = bytes(range(256)) * 8192
    config = BufferPoolConfig(max_concurrent_large_ops=1, acquire_timeout="10ms")
    with Cache(MemoryStore("16MiB"), buffers=config) as cache:
        assert isinstance(cache.buffers, AdaptiveBufferPool)
        with cache.buffers.acquire(LARGE):
            sink = io.BytesIO()
            with cache.open("k", lambda request: io.BytesIO(body)) as stream:
                stream.copy_to(sink)
            assert sink.getvalue() == body
            cache.set("other", io.BytesIO(body))
            assert cache.get("other") == body
            with pytest.raises(Overloaded):
                cache.buffers.acquire(LARGE)


def test_back_pressure_shows_in_the_statistics(counting):
    """Who is under way, waits, was sent away; a reset counts from now on and forgets nothing that is out."""
    go = threading.Event()
    with adaptive(max_concurrent_large_ops=1, max_queued_large_ops=1) as pool:
        first = counting(LARGE, go)
        running = in_thread(lambda: pool.copy(first, Nowhere(), LARGE))
        assert first.began.wait(30)
        waiting = in_thread(lambda: pool.copy(counting(LARGE), Nowhere(), LARGE, priority=Priority.LOW))
        wait_for_line(pool, 1)
        with pytest.raises(Overloaded):
            pool.copy(counting(LARGE), Nowhere(), LARGE)
        gate = pool.stats().gate
        assert (gate.active, gate.waiting, gate.waiting_low, gate.entered, gate.refused) == (1, 1, 1, 1, 1)
        pool.reset_stats()
        gate = pool.stats().gate
        assert (gate.active, gate.waiting, gate.entered, gate.refused) == (1, 1, 0, 0)
        go.set()
        for thread, outcome in (running, waiting):
            thread.join(30)
            assert outcome[0].bytes == LARGE
        gate = pool.stats().gate
        assert (gate.active, gate.waiting, gate.entered, gate.waited) == (0, 0, 1, 1) and gate.wait_seconds > 0


def test_what_is_no_priority_is_refused_also_where_nobody_waits(counting):
    """A text, say: for a lease and for a copy, before anything is taken."""
    with adaptive() as pool:
        source = counting(LARGE)
        for call in (
            lambda: pool.acquire(LARGE, priority="high"),
            lambda: pool.copy(source, Nowhere(), LARGE, priority="high"),
        ):
            with pytest.raises(ConfigError, match="priority = 'high'"):
                call()
        assert source.left == LARGE and pool.stats().total_gets == pool.gate.stats().active == 0
