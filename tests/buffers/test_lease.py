"""Leases: exact, aligned, caught when misused, poisoned in debug mode, taken back in every ending."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import subprocess
import sys

import pytest

from daramjwee.buffers import BufferPool, BufferPoolConfig
from daramjwee.buffers.sizes import PAGE_BYTES
from daramjwee.errors import LeaseError

KIB, MIB = 1024, 1024 * 1024


def address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


SURVIVORS = {
    "slice": lambda view: view[10:20],
    "slice of a slice": lambda view: view[5:50][5:10],
    "stepped": lambda view: view[::3],
    "cast": lambda view: view.cast("H"),
    "view of the view": lambda view: memoryview(view),
    "read-only": lambda view: view.toreadonly(),
    "array": lambda view: (ctypes.c_char * 100).from_buffer(view),
    "array over a slice": lambda view: (ctypes.c_char * 10).from_buffer(view[5:]),
    "pickle buffer": lambda view: pickle.PickleBuffer(view),
}


@pytest.mark.parametrize("size", [4096, 100, 262144], ids=["whole", "part", "whole of another class"])
@pytest.mark.parametrize("kind", SURVIVORS)
def test_every_kind_of_survivor_keeps_its_chunk_from_others(pool, kind, size):
    """Quarantine until it is gone; its bytes stay, and the mapping too."""
    lease = pool.acquire(size)
    lease.view[:] = b"k" * size
    survivor = SURVIVORS[kind](lease.view)
    place = address(lease.view)
    gc.collect()
    lease.release()
    assert pool.stats().quarantined == 1
    others = [pool.acquire(size) for _ in range(70)]
    for other in others:
        assert address(other.view) != place
        other.view[:] = b"o" * size
    gc.collect()
    assert set(bytes(survivor)) == {ord("k")}
    pool.relieve(3)
    pool.relieve(0)
    assert set(bytes(survivor)) == {ord("k")}
    for other in others:
        other.release()
    del survivor
    gc.collect()
    assert pool.stats().quarantined == 0


def test_a_released_view_that_is_kept_is_no_survivor(pool):
    """It is dead: the chunk is free at once."""
    with pool.acquire(5000) as lease:
        view = lease.view
    assert pool.stats().quarantined == 0
    with pytest.raises(ValueError, match="released"):
        view[0]


def test_a_lease_is_not_copied_or_pickled(pool):
    """Its memory would come back twice."""
    with pool.acquire(10) as lease:
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="a lease cannot be"):
                attempt(lease)


@pytest.mark.parametrize("kept", [False, True])
def test_full_leak_detection_poisons_what_comes_back(kept):
    """Filled with 0xDB when it is free again, and not while a slice of it lives."""
    with BufferPool(BufferPoolConfig(leak_detection="full")) as pool:
        lease = pool.acquire(70_000)
        lease.view[:] = b"s" * 70_000
        raw = (ctypes.c_char * 70_000).from_address(address(lease.view))
        gc.collect()
        survivor = lease.view[5:7] if kept else None
        lease.release()
        if survivor is not None:
            assert raw.raw == b"s" * 70_000
            del survivor
            pool.stats()
        assert raw.raw == b"\xdb" * 70_000
        with pool.acquire(70_000) as again:
            assert bytes(again.view) == b"\xdb" * 70_000


def test_without_debug_mode_nothing_is_overwritten(pool):
    """It would cost as much as the copy that the memory is for."""
    with pool.acquire(10_000) as lease:
        lease.view[:] = b"s" * 10_000
    with pool.acquire(10_000) as lease:
        assert bytes(lease.view) == b"s" * 10_000


def test_development_mode_poisons():
    """`python -X dev`, whatever the configuration says."""
    program = (
        "from daramjwee.buffers import BufferPool\n"
        "pool = BufferPool()\n"
        "with pool.acquire(100) as lease: lease.view[:] = b's' * 100\n"
        "with pool.acquire(100) as lease: print(bytes(lease.view) == b'\\xdb' * 100)\n"
        "pool.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize("size", [0, 1, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, 262143, 262144, 262145, MIB])
def test_at_every_edge_of_a_class_a_lease_is_exact(pool, size):
    """First from fresh memory, then from reused: never less or more than was asked."""
    for _ in range(3):
        with pool.acquire(size) as lease:
            assert len(lease.view) == lease.size == size
            if size:
                assert address(lease.view) % PAGE_BYTES == 0
                lease.view[size - 1] = 1
            gc.collect()


def test_of_a_lease_whose_view_was_released_by_hand_the_chunk_comes_back(pool):
    """Odd, and harmless."""
    lease = pool.acquire(100)
    lease.view.release()
    assert pool.stats().active_buffers == 1
    lease.release()
    assert pool.stats().active_buffers == 0
    with pytest.raises(LeaseError):
        lease.release()
