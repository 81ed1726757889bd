"""Lost leases: where they were acquired is kept, and told by the pool's health."""

from __future__ import annotations

import gc

import pytest

from daramjwee.buffers import BufferPool, BufferPoolConfig
from daramjwee.buffers.holdings import MOST_PLACES, OTHER_PLACES, UNKNOWN_PLACE

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
