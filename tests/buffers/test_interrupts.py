"""Interrupts: one at each point where a signal handler can run, and nothing stays charged, mapped, waiting or locked."""

from __future__ import annotations

import asyncio
import gc
import sys
import types
from collections.abc import Callable, Iterable
from contextlib import suppress

import pytest

from daramjwee.buffers import (
    AdaptiveBufferPool,
    BufferPool,
    BufferPoolConfig,
    Lease,
    MemoryLedger,
    PressureLevel,
    arenas,
    waiting,
)
from daramjwee.buffers.reserve import reserve
from daramjwee.buffers.upkeep import upkeep
from daramjwee.errors import DaramjweeError, Overloaded
from daramjwee.units import KIB, MIB

LIMIT = 4 * MIB
# A lease lost to an interrupt says so; an interrupt in a finalizer is said by Python. Both are meant here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.usefixtures("untraced", "unkept", "unsaid"),
]


@pytest.fixture
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupts in finalizers go unsaid: pytest would write the traceback of each of some hundred, and keep it, with its
    frames and the lease in them."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)


class Interrupt:
    """A profiler that raises at the `n`-th entry of a function of the buffers, or end of a C function called there: that
    is where Python runs signal handlers."""

    def __init__(self, n: int) -> None:
        self.left = n
        self.point = ""

    def __call__(self, frame: types.FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event not in ("call", "c_return") or "daramjwee/buffers" not in code.co_filename.replace("\\", "/"):
            return
        self.left -= 1
        if self.left < 0 and not self.point:
            self.point = f"{code.co_filename}:{frame.f_lineno} {event} {getattr(argument, '__name__', '')}"
            sys.setprofile(None)
            raise KeyboardInterrupt


def trouble_of(pool: BufferPool) -> str:
    """What is not at rest in a pool nobody uses; empty where nothing is."""
    ledger = pool.ledger
    locks = [pool._chunks._lock, pool._chunks._calibrating, pool._config_lock, ledger._lock]
    if isinstance(pool, AdaptiveBufferPool):
        locks.append(pool.gate._lock)
    if any(lock.locked() for lock in locks):
        return "a lock is taken"
    with upkeep._looking:  # what it gives back is credited when it has done its look
        pool.maintain()
        stats = pool.stats()
    free = sum(kind.free * kind.size for kind in stats.chunks)
    wrong = [
        (ledger.held, stats.arena_bytes, "held, mapped"),
        (free, stats.arena_bytes, "free, mapped"),
        (stats.total_gets, stats.total_puts, "gets, puts"),
        (stats.waiting + ledger.waiting + stats.gate.waiting + len(pool._chunks._visitors), 0, "waiting"),
        (stats.quarantined + stats.private_bytes + stats.gate.active, 0, "quarantined, private, in the gate"),
    ]
    with upkeep._looking:
        pool.close()
    wrong.append((ledger.held, 0, "held after close"))
    return "; ".join(f"{what}: {one} and {other}" for one, other, what in wrong if one != other)


def interrupt_everywhere(
    make: Callable[[], BufferPool],
    act: Callable[[BufferPool], object],
    tidy: Callable[[], object] = int,
    *,
    before: Iterable[Callable[[BufferPool], object]] = (),
) -> int:
    """Run `act` with an interrupt at every point, one after another; how many there are. `before`: what is done with the
    pool before, undisturbed."""
    for n in range(100_000):
        pool = make()
        for step in before:
            step(pool)
        interrupt = Interrupt(n)
        sys.setprofile(interrupt)
        try:
            act(pool)
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        tidy()
        trouble = trouble_of(pool)
        assert trouble == "", f"interrupt {n} at {interrupt.point}: {trouble}"
        if not interrupt.point:
            return n
    raise AssertionError("it never ended")


@pytest.fixture(params=[BufferPool, AdaptiveBufferPool])
def make(request: pytest.FixtureRequest) -> Callable[[], BufferPool]:
    return lambda: request.param(BufferPoolConfig(max_pool_bytes=LIMIT), ledger=MemoryLedger(LIMIT))


@pytest.mark.timeout(180)
def test_an_interrupt_anywhere_in_leases_leaves_nothing(make) -> None:
    """Leases of every size, what makes room for them, and what follows a new configuration."""

    def lease(pool: BufferPool) -> None:
        for size in (0, 100, 300 * KIB, 2 * MIB):
            with pool.acquire(size):
                pass

    def make_room(pool: BufferPool) -> None:
        pool.acquire(3 * MIB).release()

    def relieve(pool: BufferPool) -> None:
        pool.relieve(PressureLevel.HIGH)
        pool.acquire(70 * KIB).release()
        pool.relieve(PressureLevel.NORMAL)

    def reconfigure(pool: BufferPool) -> None:
        pool.reconfigure(pool.config.replace(max_buffer_size=512 * KIB, max_pool_bytes=3 * MIB))
        pool.acquire(5000).release()

    def look(pool: BufferPool) -> None:
        pool.stats()
        pool.maintain()

    # Each step by itself, after those before it: as one, every point of it would be passed on the way to each later one,
    # under the profiler, and the time grows with their square.
    steps = (lease, make_room, relieve, reconfigure, look, lambda pool: pool.close())
    points = [interrupt_everywhere(make, step, before=steps[:number]) for number, step in enumerate(steps)]
    assert min(points) > 10 and sum(points) > 500, points


@pytest.mark.timeout(180)
def test_an_interrupt_anywhere_where_the_system_refuses_memory_leaves_nothing(make, monkeypatch, endpoints) -> None:
    """Copies by less, by the reserve, a tee by the reserve, and a lease in vain; the reserve's turn comes back, too."""
    real = arenas._map
    most = [0]

    def map_some(size: int):
        if size > most[0]:
            raise OSError(12, "Cannot allocate memory")
        return real(size)

    def act(pool: BufferPool) -> None:
        for most[0] in (64 * KIB, 0):
            pool.copy(endpoints.zeros(300 * KIB), endpoints.nowhere())
        with pool.tee(endpoints.zeros(300 * KIB), endpoints.nowhere()) as reader:
            reader.read()
        with suppress(Overloaded):
            pool.acquire(5000)

    def tidy() -> None:
        gc.collect(1)  # what is young: all of it takes a tenth of a second, a thousand times
        assert not reserve.turn.locked()
        with monkeypatch.context() as patch:
            patch.setattr(arenas, "_map", real)
            reserve.lay_by()

    monkeypatch.setattr(arenas, "_map", map_some)
    assert interrupt_everywhere(make, act, tidy) > 500


@pytest.mark.parametrize(
    ("out", "wanted"),
    [((MIB,) * 4, MIB), ((MIB,) * 4, 2 * MIB), ((3 * MIB,), 2 * MIB)],
    ids=["chunk", "after an arena", "granted"],
)
def test_an_interrupt_anywhere_in_a_wait_leaves_nothing(make, out, wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that ends with a chunk that came back, or with bytes the ledger granted; or never, in between."""
    held = []

    def sleep(waiter: waiting.Waiter, seconds: float) -> None:
        while held:
            held.pop().release()

    monkeypatch.setattr(waiting.Waiter, "sleep", sleep)

    def act(pool: BufferPool) -> None:
        try:
            held.extend(pool.acquire(size, priority=None) for size in out)
            pool.acquire(wanted, priority=None).release()
        finally:
            del held[:]

    assert interrupt_everywhere(make, act) > 300


def test_an_interrupt_anywhere_in_a_wait_in_vain_leaves_nothing(make) -> None:
    """A wait that ends with `Overloaded`."""

    def act(pool: BufferPool) -> None:
        with pool.acquire(3 * MIB), suppress(DaramjweeError):
            pool.acquire(2 * MIB, timeout=0.0001, priority=None)

    assert interrupt_everywhere(make, act) > 300


def test_an_interrupt_anywhere_in_a_cancelled_task_leaves_nothing(make) -> None:
    """Two tasks wait, one is cancelled, the other is given what it waited for."""

    async def run(pool: BufferPool) -> None:
        tasks = [asyncio.create_task(pool.acquire_async(2 * MIB, priority=None)) for _ in range(2)]
        try:
            await asyncio.sleep(0)
            tasks[0].cancel()
            await asyncio.wait(tasks[:1])
            held.pop().release()
            (await tasks[1]).release()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    held: list[Lease] = []

    def act(pool: BufferPool) -> None:
        loop = asyncio.new_event_loop()
        try:
            held.append(pool.acquire(3 * MIB, priority=None))
            loop.run_until_complete(run(pool))
        finally:
            sys.setprofile(None)
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
            del held[:]

    # The task of `run` keeps the interrupt, and with it what its frames had at hand, until it is collected.
    assert interrupt_everywhere(make, act, gc.collect) > 300


def charge_interrupted_at(n: int) -> str:
    """Charge a full ledger, which is credited once the request stands in line; where it was interrupted."""
    ledger = MemoryLedger(LIMIT)
    ledger.charge(LIMIT)
    asked: list[int] = []
    credit = ledger.note_credit

    def reclaim(count: int) -> int:
        asked.append(count)
        if len(asked) == 2:  # in line by now
            credit(LIMIT)
        return 0

    ledger.add_reclaimer(reclaim)
    interrupt = Interrupt(n)
    charged = 0
    sys.setprofile(interrupt)
    try:
        ledger.charge(MIB)
        charged = MIB
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    before = 0 if len(asked) > 1 else LIMIT
    assert ledger.held == before + charged, f"interrupt {n} at {interrupt.point}"
    assert ledger.waiting == 0
    return interrupt.point


def test_an_interrupt_anywhere_in_a_charge_that_waits_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger alone: who is granted bytes in line, and interrupted then, holds nothing."""
    monkeypatch.setattr("daramjwee.buffers.ledger.LOOK_AGAIN_SECONDS", 0.01)  # where the wake-up was interrupted
    n = 0
    while charge_interrupted_at(n):
        n += 1
    assert n > 30
