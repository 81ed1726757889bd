"""ChunkedTeeReader: the caller and the sink get the same bytes, by any mix of calls."""

from __future__ import annotations

import gc
import io
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daramjwee.buffers import BufferPool, BufferPoolConfig
from daramjwee.errors import Closed, ConfigError

SMALL = BufferPoolConfig(
    min_buffer_size=16, default_buffer_size=64, max_buffer_size=256, large_object_threshold=128,
    very_large_object_threshold=512, max_pool_bytes="1MiB",
)  # fmt: skip
CALLS = st.tuples(
    st.sampled_from(["read", "read1", "readinto", "readinto1", "readline", "next", "peek"]), st.integers(0, 200)
)


def content(size: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(size // 6 + 1))[:size]


def call(tee, name: str, size: int) -> bytes:
    """What one call hands out."""
    if name.startswith("readinto"):
        buffer = bytearray(size)
        count = getattr(tee, name)(buffer)
        return bytes(buffer[:count])
    if name == "next":
        return next(tee, b"")
    if name == "peek":
        tee.peek(size)
        return b""
    return getattr(tee, name)(size)


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(0, 2000),
    said=st.none() | st.integers(0, 3000),
    calls=st.lists(CALLS, max_size=30),
    seeds=st.tuples(st.none() | st.integers(0, 9), st.none() | st.integers(0, 9)),
    only_read=st.booleans(),
)
def test_any_mix_of_calls_hands_out_the_source_and_the_sink_keeps_up(endpoints, size, said, calls, seeds, only_read):
    """At every moment the sink has exactly what was handed out; in the end, both have everything."""
    data = content(size)
    source = (endpoints.read_only if only_read else endpoints.source)(data, seed=seeds[0])
    sink = endpoints.sink(seed=seeds[1])
    model = io.BytesIO(data)
    with BufferPool(SMALL) as pool:
        with pool.tee(source, sink, said) as tee:
            got = b""
            for name, count in calls:
                piece = call(tee, name, count)
                got += piece
                if name in ("read", "readinto"):
                    assert len(piece) == min(count, len(data) - len(got) + len(piece))
                assert data.startswith(got) and bytes(sink.data) == got
                model.seek(len(got))
            rest = tee.read()
            assert got + rest == data == bytes(sink.data) and rest == model.read()
            assert tee.read(1) == tee.read1() == tee.readline() == b"" and tee.readinto(bytearray(3)) == 0
            stats = tee.stats
            assert stats.bytes == stats.sink_bytes == size and stats.sink_error is None
        assert pool.stats().active_buffers == 0


def test_lines_are_those_of_a_file(endpoints):
    """Iteration yields lines, across chunk boundaries."""
    data = content(3000)
    with BufferPool(SMALL) as pool, pool.tee(endpoints.source(data, seed=1), endpoints.sink()) as tee:
        assert list(tee) == io.BytesIO(data).readlines()


@settings(max_examples=80, deadline=None)
@given(fail_at=st.integers(0, 499), step=st.integers(1, 300), name=st.sampled_from(["read", "readinto", "read1"]))
def test_a_failing_sink_raises_where_it_failed_and_ever_after(endpoints, fail_at, step, name):
    """The read in which it failed raises; so does every later one; what was handed out before is a prefix."""
    data = content(500)
    sink = endpoints.sink(fail_at=fail_at)
    with BufferPool(SMALL) as pool:
        with pool.tee(endpoints.source(data), sink) as tee:
            got = b""
            with pytest.raises(OSError, match="sink is full"):
                while piece := call(tee, name, step):
                    got += piece
            for again in ("read", "readline", "readinto", "read1"):
                with pytest.raises(OSError, match="sink is full"):
                    call(tee, again, 5)
            assert data.startswith(got) and bytes(sink.data) == data[:fail_at] and len(got) <= fail_at
            assert isinstance(tee.stats.sink_error, OSError)
        assert pool.stats().active_buffers == 0


@pytest.mark.parametrize("fail_at", [0, 1, 64, 300, 499])
def test_a_dropped_sink_does_not_disturb_the_reader(endpoints, fail_at, caplog):
    """With "drop" every byte is handed out; the error is logged once and kept in the statistics."""
    data = content(500)
    sink = endpoints.sink(fail_at=fail_at)
    with BufferPool(SMALL) as pool, pool.tee(endpoints.source(data), sink, on_sink_error="drop") as tee:
        assert tee.read(100) + tee.read() == data
        assert data.startswith(bytes(sink.data)) and "sink is full" in str(tee.stats.sink_error)
    assert caplog.text.count("tee drops its sink") == 1


@pytest.mark.parametrize("name", ["read", "readinto", "read1", "readline"])
def test_a_failing_source_hands_out_what_came_before_and_then_raises(endpoints, name):
    """No byte that was read is lost, and none reaches the sink that did not reach the caller."""
    data = content(500).replace(b"\n", b" ")
    sink = endpoints.sink()
    with BufferPool(SMALL) as pool:
        with pool.tee(endpoints.source(data, fail_at=333), sink) as tee:
            got = b""
            with pytest.raises(ConnectionResetError, match="source failed at 333"):
                while piece := call(tee, name, 400):
                    got += piece
            assert bytes(sink.data) == got
            assert got == data[:333]
        assert pool.stats().active_buffers == 0


def test_an_early_close_leaves_the_ends_open_and_the_sink_exact(endpoints):
    """The sink has what was handed out and no more; the chunk is back; later reads raise `Closed`."""
    source, sink = io.BufferedReader(io.BytesIO(content(500))), io.BytesIO()
    with BufferPool(SMALL) as pool:
        tee = pool.tee(source, sink)
        assert tee.read(10) == content(500)[:10]
        tee.close()
        tee.close()
        assert sink.getvalue() == content(500)[:10] and not source.closed
        assert pool.stats().active_buffers == 0 and repr(tee).startswith("<ChunkedTeeReader closed, 10 bytes")
        for call in (
            tee.read,
            tee.readline,
            tee.peek,
            tee.read1,
            lambda: tee.readinto(bytearray(1)),
            lambda: next(tee),
        ):
            with pytest.raises(Closed) as raised:
                call()
            assert isinstance(raised.value, ValueError), "as a closed file of Python"


def test_small_reads_reuse_one_chunk(pool, endpoints):
    """The source is read in chunks, whatever the caller asks for, and only the first is fresh memory."""
    data = content(1_000_000)
    with pool.tee(endpoints.source(data), endpoints.sink(), len(data)) as tee:
        while tee.read(1000):
            pass
        stats = tee.stats
    assert (stats.bytes, stats.chunks, stats.reused) == (1_000_000, 4, 3) and stats.elapsed > 0
    assert pool.stats().total_gets == 1


def test_large_readinto_goes_straight_to_the_callers_memory(pool, endpoints):
    """No chunk is leased for it."""
    buffer = bytearray(1_000_000)
    sink = endpoints.sink()
    with pool.tee(endpoints.source(content(1_000_000)), sink) as tee:
        assert tee.readinto(buffer) == 1_000_000
    assert buffer == content(1_000_000) == sink.data


def test_a_tee_that_is_lost_unclosed_warns_and_gives_its_chunk_back(pool, endpoints):
    """As every stream."""
    tee = pool.tee(endpoints.source(content(500)), endpoints.sink())
    tee.read(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del tee
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert "unclosed <ChunkedTeeReader open, 1 byte handed out" in str(caught[0].message)
    assert pool.stats().active_buffers == 0


def test_wrong_arguments_are_refused(pool, endpoints):
    """Before anything is read."""
    with pytest.raises(ConfigError, match=r'on_sink_error = .ignore.: must be "raise" or "drop"'):
        pool.tee(endpoints.source(b""), endpoints.sink(), on_sink_error="ignore")
    with pytest.raises(TypeError, match="cannot copy to int"):
        pool.tee(endpoints.source(b""), 3)
    with pytest.raises(ConfigError, match="size"):
        pool.tee(endpoints.source(b""), endpoints.sink(), -1)
    gc.collect()
