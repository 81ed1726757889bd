"""Wrong arguments: every problem of a call at once, before a byte moves."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading

import pytest

from daramjwee.buffers import (
    AdaptiveBufferPool,
    BufferPool,
    BufferPoolConfig,
    ChunkedTeeReader,
    LargeOperationGate,
    MemoryLedger,
    chunked_copy,
)
from daramjwee.errors import Closed, ConfigError

KINDS = pytest.mark.parametrize("kind", [BufferPool, AdaptiveBufferPool])
DATA = b"some bytes"


def problems_of(call) -> dict[str, object]:
    """The fields that `call` is refused for, with their values."""
    with pytest.raises(ConfigError) as caught:
        call()
    return {problem.field: problem.value for problem in caught.value.problems}


@KINDS
@pytest.mark.parametrize("warm", [False, True])
def test_all_that_is_wrong_with_a_lease_is_told_at_once(kind, warm):
    """Whether a chunk lies ready or not."""
    with kind() as pool:
        if warm:
            pool.acquire(1024).release()
        wrong = {"size": -1, "timeout": -1, "priority": 3}
        assert problems_of(lambda: pool.acquire(-1, timeout=-1, priority=3)) == wrong
        assert problems_of(lambda: asyncio.run(pool.acquire_async(-1, timeout=-1, priority=3))) == wrong
        for size in (1024, "1KiB", None, 1 << 20):
            assert problems_of(lambda size=size: pool.acquire(size, priority="high")) == {"priority": "high"}
        for size in (True, 1.5, "x", -1):
            assert problems_of(lambda size=size: pool.acquire(size)) == {"size": size}
        assert problems_of(lambda: pool.acquire(1024, timeout="x")) == {"timeout": "x"}
        assert pool.stats().active_buffers == 0


@KINDS
def test_all_that_is_wrong_with_a_copy_is_told_at_once(kind, endpoints):
    """And nothing was read."""
    source, sink = endpoints.source(DATA), endpoints.sink()
    with kind() as pool:
        wrong = {"size": -1, "limit": -1, "timeout": "x", "priority": "high", "progress": 3, "cancel": 7}
        given = {name: value for name, value in wrong.items() if name != "size"}
        assert problems_of(lambda: pool.copy(source, sink, -1, **given)) == wrong
        assert problems_of(lambda: chunked_copy(source, sink, -1, pool=pool, **given)) == wrong
        for name, value in wrong.items():
            assert problems_of(lambda one={name: value}: pool.copy(source, sink, **one)) == {name: value}
        for size in (True, 1.5, "x"):
            assert problems_of(lambda size=size: pool.copy(source, sink, size)) == {"size": size}
    assert source.position == 0 and not sink.data


@KINDS
def test_what_may_be_given_is_taken(kind, endpoints):
    """Sizes and durations as text, an event as a cancel, a priority and none."""
    with kind() as pool:
        for given in (
            {"size": "1KiB"},
            {"limit": "1KiB", "timeout": "1s"},
            {"priority": None},
            {"cancel": threading.Event()},
            {"progress": lambda done, size: None, "timeout": 1},
        ):
            sink = endpoints.sink()
            assert pool.copy(endpoints.source(DATA), sink, **given).bytes == len(DATA)
            assert sink.data == DATA
        with pool.acquire("1KiB", timeout="1s", priority=None) as lease:
            assert lease.size == 1024


@KINDS
def test_a_tee_is_refused_when_it_is_made(kind, endpoints):
    """For all that is wrong with it, or because its pool is closed: not by its first read."""
    source, sink = endpoints.source(DATA), endpoints.sink()
    with kind() as pool:
        wrong = {"size": -1, "on_sink_error": "x"}
        assert problems_of(lambda: pool.tee(source, sink, -1, on_sink_error="x")) == wrong
        assert problems_of(lambda: ChunkedTeeReader(source, sink, pool, -1, on_sink_error="x")) == wrong
        with pool.tee(source, sink, "1KiB") as reader:
            assert reader.read() == DATA
    with pytest.raises(Closed):
        pool.tee(source, sink)


@pytest.mark.parametrize(
    "make",
    [BufferPool, AdaptiveBufferPool, lambda: MemoryLedger("1MiB"), lambda: LargeOperationGate(1, 1 << 20)],
    ids=["pool", "adaptive", "ledger", "gate"],
)
@pytest.mark.parametrize("attempt", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_belongs_to_this_process_is_neither_pickled_nor_copied(make, attempt):
    """And says what to send instead."""
    with pytest.raises(TypeError, match=r"cannot be pickled or copied: .*; send its .*make "):
        attempt(make())


def test_what_is_said_to_be_sent_can_be_sent():
    """A pool's configuration makes the same pool elsewhere."""
    config = BufferPoolConfig(max_pool_bytes="8MiB")
    assert pickle.loads(pickle.dumps(config)) == config


def test_all_that_is_wrong_with_an_entry_is_told_at_once():
    """Whether a place is free or not, by threads and tasks alike; nobody has entered."""
    gate = LargeOperationGate(1, 100)
    wrong = {"need": -1, "priority": "high", "timeout": "x"}
    for call in (gate.acquire, lambda *given, **named: asyncio.run(gate.acquire_async(*given, **named))):
        for given in (wrong, {"need": "x"}, {"priority": "high"}, {"timeout": "x"}, {"need": 1, "priority": None}):
            expected = {name: value for name, value in given.items() if value != 1}
            assert problems_of(lambda call=call, given=given: call(**given)) == expected
    assert gate.stats().entered == 0
