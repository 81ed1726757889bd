"""chunked_copy: through one chunk, whatever is configured, with or without a pool."""

from __future__ import annotations

import io
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daramjwee.buffers import (
    AdaptiveBufferPool,
    BufferPool,
    BufferPoolConfig,
    MemoryLedger,
    PressureLevel,
    Strategy,
    chunked_copy,
)
from daramjwee.errors import Closed, ConfigError, Overloaded

KIB, MIB = 1024, 1024 * 1024
DATA = bytes(range(251)) * 4000  # 1,004,000 bytes


class Pieces(io.RawIOBase):
    """A sink that notes how large the pieces are."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, piece) -> int:
        self.sizes.append(len(piece))
        self.data += piece
        return len(piece)


@settings(max_examples=80, deadline=None)
@given(
    size=st.integers(0, 3000),
    said=st.none() | st.integers(0, 4000),
    chunk=st.none() | st.integers(1, 500),
    limit=st.none() | st.integers(0, 3500),
    seeds=st.tuples(st.none() | st.integers(0, 9), st.none() | st.integers(0, 9)),
    asks=st.none() | st.integers(0, 5),
    only_read=st.booleans(),
    pooled=st.booleans(),
)
def test_a_chunked_copy_equals_the_model(endpoints, size, said, chunk, limit, seeds, asks, only_read, pooled):
    """Short reads and writes, sizes that lie, limits, cancels: a prefix of the source, as long as the result says."""
    source = (endpoints.read_only if only_read else endpoints.source)(DATA[:size], seed=seeds[0])
    sink = endpoints.sink(seed=seeds[1])
    asked, told = iter(range(10_000)), []
    with BufferPool() as pool:
        result = chunked_copy(
            source,
            sink,
            said,
            pool=pool if pooled else None,
            chunk_size=chunk,
            limit=limit,
            progress=lambda done, total: told.append(done),
            cancel=None if asks is None else lambda: next(asked) >= asks,
        )
        stats = pool.stats()
        assert stats.active_buffers == 0 and stats.copied_bytes == (result.bytes if pooled else 0)
        assert stats.chunked_operations == pooled and stats.total_gets == (pooled and not only_read)
    wanted = DATA[:size][:limit]
    assert bytes(sink.data) == wanted[: result.bytes] and result.strategy is Strategy.CHUNKED
    assert result.bytes == len(wanted) or asks is not None
    assert (source.source if only_read else source).position == result.bytes == told[-1]


def test_the_chunk_size_is_obeyed_and_else_follows_size_ends_and_pressure(endpoints):
    """A given one against any configuration; a chosen one as `select_strategy` says."""
    with BufferPool(BufferPoolConfig(large_object_strategy="direct", chunk_size="128KiB")) as pool:
        for given_size, wanted in (("100KiB", 100 * KIB), (None, 128 * KIB)):
            sink = Pieces()
            chunked_copy(io.BytesIO(DATA), sink, pool=pool, chunk_size=given_size)
            assert sink.sizes[0] == wanted and bytes(sink.data) == DATA
    with BufferPool() as pool:
        pool.relieve(PressureLevel.CRITICAL)
        sink = Pieces()
        chunked_copy(endpoints.source(DATA), sink, len(DATA), pool=pool)
        assert sink.sizes[0] == 64 * KIB
    sink = Pieces()
    assert chunked_copy(endpoints.source(DATA), sink).chunks == 4 and sink.sizes[0] == 256 * KIB


def test_files_go_through_the_chunk_too(tmp_path):
    """Not by the kernel, and both ends stand right behind the copy."""
    (tmp_path / "s").write_bytes(DATA)
    with open(tmp_path / "s", "rb") as source, open(tmp_path / "t", "wb") as sink, BufferPool() as pool:
        source.read(11)
        sink.write(b"head-")
        result = chunked_copy(source, sink, pool=pool, chunk_size="64KiB")
        assert result.chunks >= 15 and pool.stats().total_gets == 1
        assert source.tell() == len(DATA) and sink.tell() == len(DATA) - 6
    assert (tmp_path / "t").read_bytes() == b"head-" + DATA[11:]


def test_without_a_free_chunk_a_small_one_serves(endpoints):
    """Nothing is lost or repeated, and it is counted as a fallback. With not even that free: Overloaded, neither end
    has moved, and nothing was taken beyond the limit."""
    ledger = MemoryLedger("1MiB")
    with BufferPool(ledger=ledger) as pool:
        ledger.charge(1020 * KIB)
        sink = Pieces()
        assert chunked_copy(endpoints.source(DATA), sink, pool=pool, timeout=0).bytes == len(DATA)
        assert sink.sizes[0] == pool.config.min_buffer_size and bytes(sink.data) == DATA
        pool.relieve(PressureLevel.CRITICAL)
        pool.relieve(PressureLevel.NORMAL)
        ledger.charge(4 * KIB)
        source, sink = endpoints.source(DATA), Pieces()
        with pytest.raises(Overloaded):
            chunked_copy(source, sink, pool=pool, timeout=0)
        assert source.position == 0 and not sink.data
        ledger.credit(MIB)
        stats = pool.stats()
        assert stats.fallbacks == 1 == stats.chunked_operations and stats.active_buffers == 0
        sink = Pieces()
        assert chunked_copy(endpoints.source(DATA), sink, pool=pool, chunk_size="8MiB", timeout=0).bytes == len(DATA)
        assert sink.sizes[0] == pool.config.min_buffer_size, "8 MiB can never be had here"
        assert ledger.peak <= MIB
    assert ledger.held == 0


def test_behind_a_gate_too_a_small_chunk_serves_for_one_that_can_never_be(endpoints):
    """The gate is asked for no more than there can be, and the fallback is the same as without it."""
    with AdaptiveBufferPool(BufferPoolConfig(max_pool_bytes="1MiB")) as pool:
        sink = Pieces()
        assert chunked_copy(endpoints.source(DATA), sink, pool=pool, chunk_size="4MiB").bytes == len(DATA)
        assert bytes(sink.data) == DATA and sink.sizes[0] == pool.config.min_buffer_size
        stats = pool.stats()
        assert (stats.fallbacks, stats.gate.entered, stats.gate.active, stats.active_buffers) == (1, 1, 0, 0)


def test_a_full_gate_does_not_just_copy_anyway(endpoints):
    """Back-pressure is no lack of a chunk: `Overloaded`, and neither end has moved."""

    class Full(BufferPool):
        def _admit(self, size, need, timeout, priority):
            raise Overloaded("full", retry_after=1.0)

    source, sink = endpoints.source(DATA), endpoints.sink()
    with Full() as pool, pytest.raises(Overloaded):
        chunked_copy(source, sink, pool=pool)
    assert source.position == 0 and not sink.data


@pytest.mark.parametrize("pooled", [True, False])
def test_a_failing_end_ends_it_with_everything_given_back(endpoints, pooled):
    """What was written stays written, and the memory is nobody's any more."""
    with BufferPool() as pool:
        sink = endpoints.sink(fail_at=300_000)
        with pytest.raises(OSError, match="sink is full") as caught:
            chunked_copy(endpoints.source(DATA), sink, pool=pool if pooled else None)
        assert "300000 bytes were copied before" in caught.value.__notes__
        assert bytes(sink.data) == DATA[:300_000]
        assert pool.stats().active_buffers == pool.stats().quarantined == 0


def test_bad_arguments_are_named():
    """Before anything is read."""
    for arguments in (
        {"size": -1},
        {"limit": "x"},
        {"timeout": "soon"},
        {"chunk_size": 0},
        {"chunk_size": 1 << 70},
        {"pool": 3},
    ):
        with pytest.raises(ConfigError, match=f"chunked_copy(.|\n)*{next(iter(arguments))}"):
            chunked_copy(io.BytesIO(b"x"), io.BytesIO(), **arguments)
    source = io.BytesIO(b"x")
    wrong = {
        "size": -1, "limit": "1 parsec", "chunk_size": 0, "timeout": "soon", "progress": 3, "cancel": 4, "priority": "high",
        "pool": 5,
    }  # fmt: skip
    with pytest.raises(ConfigError) as refused:
        chunked_copy(source, io.BytesIO(), **wrong)
    assert {problem.field: problem.value for problem in refused.value.problems} == wrong and source.tell() == 0
    pool = BufferPool()
    pool.close()
    with pytest.raises(Closed):
        chunked_copy(io.BytesIO(b"x"), io.BytesIO(), pool=pool)


@pytest.mark.parametrize(("given", "chunk", "reason"), [(None, 256 * KIB, "chosen"), ("64KiB", 64 * KIB, "given")])
@pytest.mark.parametrize("pooled", [True, False])
def test_each_copy_is_told_to_the_log_at_debug_with_its_reason(caplog, pooled, given, chunk, reason):
    """As of `BufferPool.copy`: the same event, the same fields."""
    with AdaptiveBufferPool() as pool, caplog.at_level(logging.DEBUG, logger="daramjwee"):
        chunked_copy(io.BytesIO(DATA), Pieces(), pool=pool if pooled else None, chunk_size=given)
    (record,) = (record for record in caplog.records if getattr(record, "event", "") == "pool.copy")
    assert (record.size, record.source, record.sink) == (len(DATA), "BytesIO", "Pieces")
    assert (record.strategy, record.chunk_size) == ("chunked", chunk) and reason in record.reason
    assert f"chunked, {chunk} at a time" in record.getMessage()
