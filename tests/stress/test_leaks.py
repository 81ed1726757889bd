"""Leases that are lost while everything runs: each is reported once, with its place, and its memory comes back."""

from __future__ import annotations

import gc
import random
import sys
import threading
import warnings
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig, MemoryLedger, PressureLevel
from daramjwee.buffers.upkeep import upkeep
from daramjwee.units import KIB, MIB

LOST, THREADS = 1000, 64
OPERATIONS = 300  # of each thread, those that are lost among them
SIZES = (
    1,
    4 * KIB,
    10_000,
    64 * KIB,
    200_000,
    256 * KIB,
    300_000,
    MIB,
)  # the larger ones also have a place in the gate
# Little for 64 threads: some wait for memory, also for what is lost and not yet collected.
LIMIT = 5 * MIB
LOCK_TYPES = (type(threading.Lock()), type(threading.RLock()))
ENTER = 6  # one of so many entries of a lock is followed by a run of the collector, in the locked region


class CollectingLock:
    """A lock in whose region the collector runs, again and again: finalizers run where they would find it taken."""

    inside = threading.local()
    collections = 0

    def __init__(self, lock, seed):
        self.lock = lock
        self.chance = random.Random(seed)

    def acquire(self, *args, **kwargs):
        if not self.lock.acquire(*args, **kwargs):
            return False
        self.inside.depth = getattr(self.inside, "depth", 0) + 1
        if self.chance.randrange(ENTER) == 0:
            CollectingLock.collections += 1
            gc.collect()
        return True

    def release(self):
        # A lock that another thread may release (a signal, that is) is no region of ours.
        self.inside.depth = max(0, getattr(self.inside, "depth", 0) - 1)
        self.lock.release()

    def locked(self):
        return self.lock.locked()

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *error):
        self.release()


def collect_inside(*owners):
    """Replace every lock that `owners`, and what of daramjwee they refer to, have; the names of those replaced."""
    names, seen, todo = [], set(), list(owners)
    while todo:
        owner = todo.pop()
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        slots = {name for kind in type(owner).__mro__ for name in getattr(kind, "__slots__", ())}
        for name in sorted(slots | set(getattr(owner, "__dict__", ()))):
            value = getattr(owner, name, None)
            if isinstance(value, LOCK_TYPES):
                setattr(owner, name, CollectingLock(value, len(names)))
                names.append(f"{type(owner).__name__}.{name}")
            elif type(value).__module__.startswith("daramjwee"):
                todo.append(value)
    return names


class Owner:
    """Something that has a lease and forgets it. In a cycle only the collector finds it."""

    def __init__(self, lease, *, keeps_view):
        self.lease = lease
        self.view = lease.view[:1] if keeps_view else None

    def tie(self):
        self.me = self


def leaser(number):
    """A function of its own file and line that leases: (function, "file:line")."""
    line = number % 7 + 2
    code = "\n" * (line - 2) + "def lease(pool, size):\n    return pool.acquire(size)\n"
    namespace = {"__name__": "somebody"}
    exec(compile(code, f"somebody_{number}.py", "exec"), namespace)
    return namespace["lease"], f"somebody_{number}.py:{line}"


class Reports:
    """Every warning, as its text, and how many came while their thread was in a locked region."""

    def __init__(self):
        self.texts = deque()
        self.inside = deque()

    def show(self, message, category, filename, lineno, file=None, line=None):
        assert category is ResourceWarning
        self.texts.append(str(message))
        if getattr(CollectingLock.inside, "depth", 0):
            self.inside.append(str(message))


@pytest.fixture
def reports(monkeypatch):
    """Warnings are noted from here on, each time anew."""
    found = Reports()
    with warnings.catch_warnings():
        warnings.simplefilter("always", ResourceWarning)
        monkeypatch.setattr(warnings, "showwarning", found.show)
        yield found


@pytest.fixture
def eager_collector():
    """The collector runs at nearly every new object; what is there already is none of its concern, then and afterwards, or
    it would take seconds."""
    thresholds = gc.get_threshold()
    interval = sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    gc.set_threshold(1, 1, 1)
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)


@pytest.mark.timeout(50)  # a deadlock ends with the stacks of all threads
@pytest.mark.parametrize("seed", [1, 2])
def test_every_lost_lease_is_reported_once_with_its_place_and_its_memory_comes_back(
    seed, reports, eager_collector, monkeypatch
):
    """1,000 at random moments, in four ways of being lost, among 64 threads that lease and release, while memory is
    short, the pool is looked after, and the collector runs inside of locked regions."""
    ledger = MemoryLedger(LIMIT)
    config = BufferPoolConfig(leak_detection="full", max_concurrent_large_ops=8, max_idle_age=0.01)
    pool = AdaptiveBufferPool(config, ledger=ledger)
    locks = collect_inside(pool, ledger)
    assert len(locks) >= 4, locks
    monkeypatch.setattr(upkeep, "_lock", CollectingLock(upkeep._lock, len(locks)))
    CollectingLock.collections = 0
    leasers = [leaser(number) for number in range(LOST)]
    passed_on = deque()  # what the main thread drops
    start = threading.Barrier(THREADS + 1)

    def lose(number, chance):
        lease_here, _ = leasers[number]
        owner = Owner(lease_here(pool, chance.choice(SIZES)), keeps_view=chance.random() < 0.3)
        way = chance.randrange(4)
        if way == 0:
            owner.tie()
        elif way == 1:
            passed_on.append(owner)
        elif way == 2:
            try:
                raise RuntimeError(owner)
            except RuntimeError as error:
                owner.error = error  # a cycle through a traceback and its frames
        # else: gone when this function ends

    def work(thread):
        chance = random.Random(f"{seed} {thread}")
        mine = range(thread, LOST, THREADS)
        lost_at = dict(zip(chance.sample(range(OPERATIONS), len(mine)), mine, strict=True))
        start.wait(30)
        for operation in range(OPERATIONS):
            if operation in lost_at:
                lose(lost_at[operation], chance)
            else:
                with pool.acquire(chance.choice(SIZES)) as lease:
                    lease.view[0] = 1

    with ThreadPoolExecutor(THREADS) as threads:
        running = [threads.submit(work, thread) for thread in range(THREADS)]
        start.wait(30)
        chance = random.Random(seed)
        while wait(running, timeout=0.01).not_done:  # in between, what others do to a pool
            chance.choice((pool.stats, pool.maintain, ledger.settle, lambda: ledger.reclaim(MIB)))()
            pool.relieve(chance.choice(tuple(PressureLevel)))
            passed_on.clear()
        for future in running:
            future.result()
    passed_on.clear()
    gc.collect()
    pool.relieve(PressureLevel.NORMAL)
    pool.maintain()

    expected = Counter(place for _, place in leasers)
    found = Counter(text.partition("acquired at ")[2].partition(")")[0] for text in reports.texts)
    assert found == expected
    assert all("was lost without release" in text for text in reports.texts)
    stats = pool.stats()
    assert stats.lost_leases == LOST
    assert stats.total_gets == stats.total_puts == THREADS * OPERATIONS
    assert (stats.active_buffers, stats.quarantined, stats.waiting) == (0, 0, 0)
    assert (stats.gate.active, stats.gate.waiting) == (0, 0)
    # The test would mean nothing otherwise.
    assert CollectingLock.collections > 100
    assert len(reports.inside) > 20, f"only {len(reports.inside)} were found in a locked region"
    assert stats.gate.waited > 0 and stats.maps > 100
    pool.close()
    assert ledger.held == 0
    assert (pool.stats().arena_bytes, pool.stats().private_bytes) == (0, 0)


@pytest.mark.parametrize("place_is_older", [True, False])
def test_a_large_lease_lost_in_a_cycle_is_reported_once_and_its_place_comes_back_once(reports, place_is_older):
    """The collector finalizes what is in a cycle in any order: the place in the gate before its lease, or after it."""
    with AdaptiveBufferPool() as pool:
        gc.collect()
        gc.disable()
        taken = []
        try:
            pool.acquire(MIB).release()  # makes the places that are handed on, which are older than any lease to come
            if not place_is_older:
                taken += [pool.acquire(MIB) for _ in range(pool.config.max_concurrent_large_ops)]
                pool.gate.reconfigure(64, None, 64)  # the next place is made for its lease
            Owner(pool.acquire(MIB), keeps_view=False).tie()
            gc.collect()
        finally:
            gc.enable()
            while taken:
                taken.pop().release()
        assert [text.partition(" (")[0] for text in reports.texts] == ["a lease of 1MiB was lost without release"]
        stats = pool.stats()
        assert (stats.lost_leases, stats.active_buffers) == (1, 0)
        assert (stats.gate.active, stats.gate.active_bytes) == (0, 0)
        pool.gate.reconfigure(2, None, 8)  # takes every free place back: one that is not what it seems is found out


def test_the_locks_of_a_pool_are_really_replaced():
    """Bookkeeping of chunks, the ledger and the gate: those that a finalizer could find taken."""
    ledger = MemoryLedger(LIMIT)
    with AdaptiveBufferPool(ledger=ledger) as pool:
        names = collect_inside(pool, ledger)
        assert {"Chunks._lock", "MemoryLedger._lock", "LargeOperationGate._lock"} <= set(names)
        before = CollectingLock.collections
        for _ in range(20 * ENTER):
            pool.maintain()
        assert CollectingLock.collections > before
