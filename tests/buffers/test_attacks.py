"""Attacks on the buffers: debuggers that hold references, errors that are kept, sizes that cannot be, interrupts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from daramjwee.buffers import BufferPool, MemoryLedger
from daramjwee.errors import DaramjweeError

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
