"""Attacks on the buffers: debuggers that hold references, errors that are kept, sizes that cannot be, interrupts."""

from __future__ import annotations

import gc
import mmap
import subprocess
import sys
import threading
import time
import weakref

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPool, BufferPoolConfig, MemoryLedger, arenas, waiting
from daramjwee.errors import DaramjweeError, Overloaded

WATCHED = """
import sys
def watch(frame, event, argument):
    # Ours only: Python 3.12's own modules do not all bear it.
    if "daramjwee" in frame.f_code.co_filename:
        frame.f_locals
    return watch
sys.settrace(watch)
from daramjwee.buffers import BufferPool
sys.settrace(None)
pool = BufferPool()
pool.acquire(5000).release()
pool.maintain()
leases = [pool.acquire(5000) for _ in range(40)]
for number, lease in enumerate(leases):
    lease.view[0] = number
print([lease.view[0] for lease in leases] == list(range(40)))
for lease in leases:
    lease.release()
pool.close()
"""


def test_no_memory_is_handed_out_twice_after_an_import_under_a_debugger() -> None:
    """Two leases never share memory, even where a debugger read the locals of every frame during the import."""
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "True"


class Zeros:
    def readinto(self, view: memoryview) -> int:
        return len(view)


class FailsAtTheEnd:
    def __init__(self) -> None:
        self.writes = 0

    def write(self, data: memoryview) -> int:
        self.writes += 1
        if self.writes == 2:
            raise OSError("full")
        return len(data)


def test_an_error_of_a_copy_that_is_kept_keeps_no_memory() -> None:
    """A failed copy gives its chunk back at once, however long its caller keeps the error."""
    kept = []
    with BufferPool() as pool:
        for _ in range(5):
            with pytest.raises(OSError, match="full") as caught:
                pool.copy(Zeros(), FailsAtTheEnd(), limit=300_000)
            kept.append(caught.value)
        assert pool.stats().quarantined == 0


@pytest.mark.parametrize("size", [1 << 62, 1 << 63])
def test_a_size_no_mapping_can_have_leaves_the_ledger_as_it_was(size: int) -> None:
    """What could not be mapped is not charged."""
    ledger = MemoryLedger(1 << 70)
    with BufferPool(ledger=ledger) as pool:
        with pytest.raises(DaramjweeError):
            pool.acquire(size)
        assert ledger.held == 0


def test_an_interrupt_while_memory_is_mapped_leaves_the_ledger_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be mapped is not charged, whatever stopped it."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with BufferPool() as pool:
        monkeypatch.setattr("daramjwee.buffers.arenas.Arena.carve", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.acquire(5000)
        assert pool.ledger.held == 0


def test_memory_that_one_thread_is_unmapping_is_not_credited_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charged until after it is unmapped, also while the system takes its time and others come by."""
    closing, go_on = threading.Event(), threading.Event()

    class Slow(mmap.mmap):
        def close(self) -> None:
            closing.set()
            assert go_on.wait(10)
            super().close()

    monkeypatch.setattr(arenas, "_map", lambda size: Slow(-1, size))
    pool = BufferPool()
    pool.acquire(5000).release()
    held = pool.ledger.held
    closer = threading.Thread(target=pool.close)
    closer.start()
    try:
        assert closing.wait(10)
        pool.maintain()
        assert pool.ledger.held == held > 0
    finally:
        go_on.set()
        closer.join()
    assert pool.ledger.held == 0


class Mine:
    """Something that a caller has at hand."""


def test_a_wait_in_vain_keeps_nothing_of_its_caller() -> None:
    """`Overloaded`, once handled, is gone with all its frames name: leases, too, which nobody would give back."""
    config = BufferPoolConfig(max_concurrent_large_ops=1)

    def wait(pool: AdaptiveBufferPool) -> weakref.ref[Mine]:
        mine = Mine()
        found = weakref.ref(mine)
        try:
            pool.acquire(300_000, timeout=0)
        except Overloaded:
            return found
        raise AssertionError("it was let in")

    with AdaptiveBufferPool(config) as pool, pool.acquire(300_000):
        gc.disable()
        try:
            assert wait(pool)() is None
        finally:
            gc.enable()


def test_a_release_that_is_interrupted_gives_the_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease of a large operation keeps no place in the gate, whatever stops its release, and whoever keeps it."""
    pool = AdaptiveBufferPool()
    leases = [pool.acquire(300_000) for _ in range(2)]

    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("daramjwee.buffers.chunks.Chunks.attend", interrupted)
        pool._chunks.alert = True
        with pytest.raises(KeyboardInterrupt), leases[0]:
            pass
        with pytest.raises(KeyboardInterrupt):
            leases[1].release()
    assert pool.stats().gate.active == 0
    pool.close()
    assert pool.ledger.held == 0


def test_a_large_request_is_served_though_small_ones_never_cease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who needs more than any chunk waits a while, and not for ever, where small requests always stand in line."""
    monkeypatch.setattr("daramjwee.buffers.waiting.PATIENCE_SECONDS", 0.2)
    pool = BufferPool(BufferPoolConfig(max_pool_bytes="4MiB"))
    done, failures = threading.Event(), []

    def ask_again_and_again() -> None:
        try:
            while not done.is_set():
                with pool.acquire(1 << 20, timeout=60):
                    done.wait(0.001)
        except DaramjweeError as error:
            failures.append(error)

    threads = [threading.Thread(target=ask_again_and_again) for _ in range(16)]
    for thread in threads:
        thread.start()
    try:
        while pool.stats().waiting < 8:
            done.wait(0.001)
        pool.acquire(3 << 20, timeout=30).release()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []
    pool.close()
    assert pool.ledger.held == 0


def test_who_waits_long_holds_up_those_behind_half_of_the_time() -> None:
    """Not at first, then by turns: so a large request gathers what it needs, and small ones go on."""
    waiter = waiting.Waiter(5000, 0)
    found = []
    for waited in (0.5, 1.5, 2.5, 3.5):
        waiter.since = time.monotonic() - waited * waiting.PATIENCE_SECONDS
        found.append(waiter.holds_up)
    assert found == [False, True, False, True]


@pytest.mark.parametrize("pool_kind", ["BufferPool", "AdaptiveBufferPool"])
@pytest.mark.parametrize("kept", ["lease", "slice of its view"])
def test_a_pool_and_its_lease_that_are_garbage_together_are_collected(pool_kind, kept):
    """In a cycle that nobody refers to: the interpreter goes on, and says that the lease was lost."""
    script = f"""
import gc, sys
from daramjwee.buffers import {pool_kind}
gc.disable()
pool = {pool_kind}()
lease = pool.acquire(300_000)
part = lease.view[10:20]
cycle = [pool, lease] if {kept == "lease"} else [pool, part]
if {kept != "lease"}:
    lease.release()
cycle.append(cycle)
del pool, lease, part, cycle
gc.collect()
gc.collect()
print("still here")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0 and ended.stdout == "still here\n", ended
    assert "Exception ignored" not in ended.stderr
