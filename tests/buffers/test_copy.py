"""BufferPool.copy: every byte, once and in order, whatever the ends do."""

from __future__ import annotations

import gzip
import io
import logging
import socket
import subprocess
import sys
import threading
from pickle import PickleBuffer  # a plain exporter of the buffer it is given; nothing is pickled

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daramjwee.buffers import BufferPool, BufferPoolConfig, Strategy, chunked_copy, moving
from daramjwee.errors import ConfigError, LeaseError

KIB, MIB = 1024, 1024 * 1024
SMALL = BufferPoolConfig(
    min_buffer_size=16, default_buffer_size=64, max_buffer_size=256, large_object_threshold=128,
    very_large_object_threshold=512, max_pool_bytes="1MiB",
)  # fmt: skip


def content(size: int) -> bytes:
    return (b"0123456789abcdef-" * (size // 17 + 1))[:size]


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(0, 3000),
    said=st.none() | st.integers(0, 4000),
    limit=st.none() | st.integers(0, 3500),
    seeds=st.tuples(st.none() | st.integers(0, 9), st.none() | st.integers(0, 9)),
    only_read=st.booleans(),
    answers_none=st.booleans(),
    strategy=st.sampled_from(Strategy),
)
def test_a_copy_equals_the_model(endpoints, size, said, limit, seeds, only_read, answers_none, strategy):
    """Short reads, short writes, a size that lies, a limit: the sink has exactly the first bytes of the source, and
    the source stands right behind them."""
    data = content(size)
    source = (endpoints.read_only if only_read else endpoints.source)(data, seed=seeds[0])
    sink = endpoints.sink(seed=None if answers_none else seeds[1], answers_none=answers_none)
    with BufferPool(SMALL.replace(large_object_strategy=strategy)) as pool:
        told: list[int] = []
        result = pool.copy(source, sink, said, limit=limit, progress=lambda done, total: told.append(done))
        assert pool.stats().active_buffers == 0
    expected = data if limit is None else data[:limit]
    assert bytes(sink.data) == expected and result.bytes == len(expected)
    assert told == sorted(set(told)) and told[-1] == result.bytes and len(told) <= result.chunks + 1
    assert (source.source if only_read else source).position == len(expected)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 3000),
    fail_at=st.integers(0, 3000),
    seed=st.none() | st.integers(0, 9),
    sink_fails=st.booleans(),
)
def test_a_failing_end_loses_nothing_that_was_written(endpoints, size, fail_at, seed, sink_fails):
    """The error passes through as it is; the sink has a prefix; the lease is back."""
    data = content(size)
    fail_at = min(fail_at, size - 1)
    source = endpoints.source(data, seed=seed, fail_at=None if sink_fails else fail_at)
    sink = endpoints.sink(seed=seed, fail_at=fail_at if sink_fails else None)
    with BufferPool(SMALL) as pool:
        with pytest.raises(OSError, match="sink is full" if sink_fails else "source failed"):
            pool.copy(source, sink, size)
        assert pool.stats().active_buffers == 0 and pool.stats().copies == 0
    assert bytes(sink.data) == data[:fail_at]


@pytest.mark.parametrize("position", [0, 5, 100_000, 300_000, 400_000])
@pytest.mark.parametrize("limit", [None, 0, 7, 262144])
def test_bytesio_is_written_from_its_own_memory(pool, endpoints, position, limit):
    """One write that shares its bytes, from where it stands; it stands behind them afterwards."""
    data = content(300_000)
    source, sink = io.BytesIO(data), endpoints.sink()
    source.seek(position)
    result = pool.copy(source, sink, limit=limit)
    expected = data[position:] if limit is None else data[position:][:limit]
    assert bytes(sink.data) == expected and result.bytes == len(expected) and result.strategy is Strategy.DIRECT
    assert source.tell() == position + len(expected)
    assert pool.stats().arena_bytes == 0


def test_bytesio_hands_its_very_object_to_the_sink(pool):
    """At position 0 nothing is copied on the way."""
    source, seen = io.BytesIO(content(MIB)), []

    class Sink:
        def write(self, data) -> None:
            seen.append(data)

    pool.copy(source, Sink())
    assert type(seen[0]) is bytes and seen[0] is source.getvalue()


def test_a_configured_strategy_is_obeyed(endpoints):
    """Chunked means chunked, for what could be copied directly too; pooled means one buffer."""
    data = content(MIB)
    for strategy, chunks in (("chunked", 4), ("pooled", 1)):
        with BufferPool(BufferPoolConfig(large_object_strategy=strategy)) as pool:
            sink = io.BytesIO()
            result = pool.copy(io.BytesIO(data), sink, MIB)
            assert sink.getvalue() == data
            assert (result.strategy.value, result.chunks) == (strategy, chunks)
            stats = pool.stats()
            assert getattr(stats, f"{strategy}_operations") == 1 and stats.copied_bytes == MIB
    with BufferPool(BufferPoolConfig(large_object_strategy="direct")) as pool:
        result = pool.copy(endpoints.source(data), io.BytesIO(), MIB)
        assert result.strategy is Strategy.DIRECT and pool.stats().arena_bytes == 0 == pool.ledger.held


def test_a_decision_is_logged_at_debug_level_only(pool, endpoints, caplog):
    """With its reason in numbers; silent otherwise."""
    pool.copy(endpoints.source(b"x"), endpoints.sink())
    assert not caplog.records
    with caplog.at_level(logging.DEBUG, logger="daramjwee.buffers.copy"):
        pool.copy(endpoints.source(b"x" * 100), endpoints.sink(), 100)
    assert "copy of 100 bytes from PlainSource to PlainSink: pooled, 4096 at a time: it fits into one" in caplog.text


def test_cancel_ends_the_copy_where_it_is(pool, endpoints, monkeypatch):
    """What was copied is told; the source stands right behind it. An event will do, too."""
    data = content(MIB)
    for source in (endpoints.source(data), io.BytesIO(data)):
        sink, stop = endpoints.sink(), threading.Event()
        stop.set()
        assert pool.copy(source, sink, cancel=stop).bytes == 0
    monkeypatch.setattr(moving, "PROGRESS_SECONDS", 0)
    source, sink, stop = endpoints.source(data), endpoints.sink(), threading.Event()
    result = pool.copy(source, sink, cancel=stop, progress=lambda done, size: stop.set())
    assert result.bytes == 256 * KIB == source.position and bytes(sink.data) == data[: 256 * KIB]


def test_an_exception_of_progress_passes_through(pool, endpoints):
    """It is the caller's code; the lease is back."""

    def progress(done: int, size: int | None) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        pool.copy(endpoints.source(b"x" * 10), endpoints.sink(), progress=progress)


def test_a_sink_that_keeps_what_it_is_given_is_told(pool, endpoints):
    """It would see the next chunk's bytes: an export is an error, a kept view is dead."""
    kept = []

    class Keeper:
        def write(self, piece) -> int:
            kept.append(piece)
            return len(piece)

    class Exporter:
        def write(self, piece) -> int:
            kept.append(PickleBuffer(piece))
            return len(piece)

    pool.copy(endpoints.source(b"data"), Keeper())
    with pytest.raises(ValueError, match="released"):
        kept[0][0]
    with pytest.raises(LeaseError, match=r"Exporter.write kept the memory"):
        pool.copy(endpoints.source(b"data"), Exporter())
    kept.clear()


class Stutter(io.RawIOBase):
    """A raw, non-blocking end: nothing is ready every other time, and it takes or gives three bytes at most."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.turn = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, view) -> int | None:
        self.turn += 1
        if self.turn % 2 == 0:
            return None
        piece = self.data[: min(3, len(view))]
        del self.data[: len(piece)]
        view[: len(piece)] = piece
        return len(piece)

    def write(self, piece) -> int | None:
        self.turn += 1
        if self.turn % 2 == 0:
            return None
        self.data += piece[:3]
        return len(piece[:3])


def go_on(pool, source, sink) -> int:
    """Copy again and again until it ends; the sum of what the errors said."""
    done = 0
    for _ in range(1000):
        try:
            return done + pool.copy(source, sink).bytes
        except BlockingIOError as error:
            done += error.characters_written
    raise AssertionError("no end")


def test_an_end_that_would_block_says_exactly_how_far_it_came(pool, endpoints, tmp_path):
    """`characters_written` adds up to the whole, and a source that can seek is put back to the exact byte."""
    data = content(100)
    sink = endpoints.sink()
    assert go_on(pool, Stutter(data), sink) == 100 and bytes(sink.data) == data
    (tmp_path / "in").write_bytes(data)
    for buffering in (None, -1, 0):
        with io.BytesIO(data) if buffering is None else open(tmp_path / "in", "rb", buffering=buffering) as source:
            slow = Stutter()
            assert go_on(pool, source, slow) == 100 and bytes(slow.data) == data


def test_what_cannot_be_put_back_is_named_in_the_error(pool, endpoints):
    """A source that cannot seek has lost what the sink did not take: the error says how much."""
    with pytest.raises(BlockingIOError, match="stopped after 3 bytes, and 97 more were read") as caught:
        pool.copy(endpoints.source(content(100)), Stutter())
    assert caught.value.characters_written == 3
    with pytest.raises(OSError, match="sink is full") as failed:
        pool.copy(endpoints.source(content(100)), endpoints.sink(fail_at=3))
    assert failed.value.__notes__ == [
        "97 more were read that the source cannot take back",
        "3 bytes were copied before",
    ]
    with pytest.raises(OSError, match="sink is full") as failed:
        pool.copy(endpoints.source(content(2)), endpoints.sink(fail_at=1))
    assert failed.value.__notes__ == [
        "1 more was read that the source cannot take back",
        "1 byte was copied before",
    ]


@pytest.mark.parametrize("lie", [-1, 7, "three", True])
def test_a_write_that_lies_is_an_error(pool, endpoints, lie):
    """More than it was given, less than nothing, no number: the copy cannot be exact, so it stops."""

    class Liar:
        def write(self, piece):
            return lie

    with pytest.raises(ValueError, match="write said it took"):
        pool.copy(endpoints.source(b"data"), Liar())


def test_a_sink_that_takes_nothing_is_an_error_and_no_endless_loop(pool, endpoints):
    """A write of 0 bytes is not progress."""

    class Full:
        def write(self, piece) -> int:
            return 0

    with pytest.raises(OSError, match="takes no more bytes: 0 of 4"):
        pool.copy(endpoints.source(b"data"), Full())


def test_a_read_that_lies_is_an_error(pool, endpoints):
    """More than was asked for would be bytes past the limit, or past the chunk."""

    class Into:
        def readinto(self, view) -> int:
            return len(view) + 1

    class Read:
        def read(self, size: int) -> bytes:
            return b"x" * (size + 1)

    for liar in (Into(), Read()):
        with pytest.raises(ValueError, match=r"readinto of Into said|more than it was asked for"):
            pool.copy(liar, endpoints.sink(), limit=10)


def test_ends_that_are_none_are_refused_with_what_is_missing(pool, endpoints, tmp_path):
    """`TypeError`, before a byte is moved."""
    with pytest.raises(TypeError, match=r"cannot copy from bytes: .*wrap bytes in io.BytesIO"):
        pool.copy(b"bytes", endpoints.sink())
    with pytest.raises(TypeError, match="cannot copy to list: it has no write"):
        pool.copy(endpoints.source(b"x"), [])
    with open(tmp_path / "text", "w+") as text:
        text.write("words")
        text.seek(0)
        for move in (pool.copy, pool.tee, chunked_copy):
            with pytest.raises(TypeError, match=r"copy from TextIOWrapper: it has text, .* or use its .buffer"):
                move(text, endpoints.sink())
            source = io.BytesIO(b"x")
            with pytest.raises(TypeError, match=r"copy to StringIO: it has text, .* or use io.BytesIO"):
                move(source, io.StringIO())
            assert source.tell() == 0
        assert text.read() == "words"

    class Words:
        def read(self, size: int) -> str:
            return "words"

    with pytest.raises(TypeError, match="cannot copy from Words: its read gave text, not bytes"):
        pool.copy(Words(), io.BytesIO())
    for arguments in ({"size": -1}, {"limit": "x"}, {"timeout": "soon"}):
        with pytest.raises(ConfigError, match=next(iter(arguments))):
            pool.copy(endpoints.source(b"x"), endpoints.sink(), **arguments)


def test_descriptors_that_lie_are_read_as_objects(pool, tmp_path):
    """`fileno()` of a gzip file is that of the packed bytes: the unpacked ones are copied, both ways."""
    data = content(300_000)
    with gzip.open(tmp_path / "x.gz", "wb") as packed:
        assert pool.copy(io.BytesIO(data), packed).bytes == 300_000
    with gzip.open(tmp_path / "x.gz", "rb") as packed, open(tmp_path / "x", "wb") as plain:
        assert pool.copy(packed, plain, 300_000).bytes == 300_000
    assert (tmp_path / "x").read_bytes() == data


def test_sockets_are_ends_both_ways(pool):
    """`recv_into` and `send`, until the other side closes."""
    data = content(2 * MIB)
    left, right = socket.socketpair()
    with left, right:
        received = io.BytesIO()
        reader = threading.Thread(target=lambda: pool.copy(right, received))
        reader.start()
        assert pool.copy(io.BufferedReader(io.BytesIO(data)), left).bytes == len(data)
        left.shutdown(socket.SHUT_WR)
        reader.join()
    assert received.getvalue() == data


def test_many_copies_at_once_keep_memory_small(endpoints):
    """16 threads, mixed sizes: every byte arrives, counters are exact, and the limit holds."""
    with BufferPool(BufferPoolConfig(max_pool_bytes="4MiB")) as pool:
        sizes = (100, 40_000, 300_000, 5 * MIB)
        wrong: list[int] = []

        def work(seed: int) -> None:
            for turn in range(6):
                data = content(sizes[(seed + turn) % 4])
                sink = endpoints.sink()
                pool.copy(endpoints.source(data, seed=None), sink, len(data))
                if bytes(sink.data) != data:
                    wrong.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = pool.stats()
        assert not wrong and stats.copies == 96 == stats.pooled_operations + stats.chunked_operations
        assert stats.copied_bytes == 24 * sum(sizes) and stats.active_buffers == 0
        assert pool.ledger.peak <= 4 * MIB and stats.memory_efficiency > 1


@pytest.mark.parametrize("takes", [0, 100, 400])
@pytest.mark.parametrize("kind", ["bytesio", "file", "raw file"])
def test_an_interrupt_in_the_sink_leaves_the_source_at_what_it_took(pool, tmp_path, kind, takes):
    """Not only an error: what ends a copy is also Ctrl-C, or a task that is cancelled inside of the sink."""

    class Interrupted(io.RawIOBase):
        def __init__(self) -> None:
            self.taken = bytearray()

        def write(self, piece) -> int:
            if len(self.taken) >= takes:
                raise KeyboardInterrupt
            self.taken += piece[:100]
            return len(piece[:100])

    data = content(100_000)
    (tmp_path / "in").write_bytes(data)
    with (
        io.BytesIO(data)
        if kind == "bytesio"
        else open(tmp_path / "in", "rb", 0 if kind == "raw file" else -1) as source
    ):
        source.read(7)
        sink = Interrupted()
        with pytest.raises(KeyboardInterrupt):
            pool.copy(source, sink)
        assert source.tell() == 7 + takes and sink.taken == data[7 : 7 + takes]
    assert pool.stats().active_buffers == pool.stats().quarantined == 0


def test_a_kept_error_of_a_disk_that_is_full_in_the_middle_keeps_no_chunk(pool, tmp_path):
    """Whoever keeps the error keeps its frames, and nothing of the pool in them."""
    (tmp_path / "in").write_bytes(content(MIB))
    script = (
        "import resource, signal, sys\n"
        "from daramjwee.buffers import BufferPool\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_007, 300_007))\n"
        "kept = []\n"
        "with BufferPool() as pool:\n"
        "    for _ in range(3):\n"
        "        with open(sys.argv[1], 'rb') as source, open(sys.argv[2], 'wb') as sink:\n"
        "            try:\n"
        "                pool.copy(source, sink)\n"
        "            except OSError as error:\n"
        "                kept.append(error)\n"
        "            print(source.tell(), sink.tell(), kept[-1].__notes__[0].split()[0], pool.stats().quarantined)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "in", tmp_path / "out"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "300007 300007 300007 0\n" * 3
