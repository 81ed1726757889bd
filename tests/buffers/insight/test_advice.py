"""advise(): each proposal is legal, and a pool that did little or works well gets none."""

from __future__ import annotations

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig
from daramjwee.buffers.insight.advice import advise
from daramjwee.buffers.stats import BufferPoolStats, GateStats
from daramjwee.errors import Overloaded


def test_a_new_pool_gets_no_advice():
    """Nothing is advised on no evidence."""
    with AdaptiveBufferPool() as pool:
        assert advise(pool.stats(), pool.config) == ()


def test_requests_that_wait_in_vain_ask_for_a_larger_pool():
    """Found in the statistics of a real pool; what is proposed is legal."""
    config = BufferPoolConfig(max_pool_bytes="1MiB")
    with AdaptiveBufferPool(config) as pool, pool.acquire("1MiB", priority=None):
        for _ in range(8):
            with pytest.raises(Overloaded):
                pool.acquire("64KiB", timeout=0)
        (finding,) = advise(pool.stats(), config)
    assert (finding.field, finding.direction) == ("max_pool_bytes", "raise")
    assert config.replace(max_pool_bytes=finding.proposed).max_pool_bytes == 2 << 20


def test_a_disabled_pool_with_much_traffic_is_to_be_enabled():
    config = BufferPoolConfig(enabled=False)
    with AdaptiveBufferPool(config) as pool:
        for _ in range(64):
            pool.acquire("64KiB").release()
        (finding,) = advise(pool.stats(), config)
    assert (finding.field, finding.proposed) == ("enabled", True)


@pytest.mark.parametrize(("refused", "found"), [(7, 0), (8, 1)])
def test_a_short_queue_is_advised_from_eight_refusals_on(refused, found):
    config = BufferPoolConfig(max_queued_large_ops=1)
    findings = advise(BufferPoolStats(gate=GateStats(refused=refused)), config)
    assert [finding.field for finding in findings] == ["max_queued_large_ops"] * found
