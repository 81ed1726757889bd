"""Copies between real ends of every kind, held to a model: the bytes, the count, and where both ends stand afterwards."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daramjwee.buffers import BufferPool, BufferPoolConfig, MemoryLedger, Strategy, clone, copy, moving
from daramjwee.errors import Overloaded

KIB, MIB = 1024, 1024 * 1024
DATA = bytes(range(251)) * 800  # 200,800 bytes; no piece of it looks like another
HEAD, TAIL = b"head-", b"-tail"


def direct_pool(strategy: str = "direct", *, ledger: MemoryLedger | None = None, **settings) -> BufferPool:
    config = BufferPoolConfig(large_object_strategy=strategy, large_object_threshold=1, **settings)
    return BufferPool(config, ledger=ledger)


class Ends(contextlib.ExitStack):
    """Makes sources and sinks of every kind, and closes them."""

    def __init__(self, folder) -> None:
        super().__init__()
        self.folder = folder
        self.threads: list[threading.Thread] = []

    def thread(self, work) -> None:
        thread = threading.Thread(target=work)
        thread.start()
        self.threads.append(thread)

    def source(self, kind: str, data: bytes):
        if kind == "bytesio":
            return io.BytesIO(data)
        if kind in ("raw file", "buffered file", "random file"):
            path = self.folder / "source"
            path.write_bytes(data)
            mode = "r+b" if kind == "random file" else "rb"
            return self.enter_context(open(path, mode, buffering=0 if kind == "raw file" else -1))
        if kind == "socket":
            left, right = socket.socketpair()
            self.enter_context(right)
            self.thread(lambda: (left.sendall(data), left.close()))
            return right
        reading, writing = os.pipe()
        self.thread(lambda: write_and_close(writing, data))
        return self.enter_context(open(reading, "rb", buffering=0 if kind == "raw pipe" else -1))

    def sink(self, kind: str):
        """The sink, and a call that ends it and says what it got."""
        if kind == "bytesio":
            made = io.BytesIO()
            return made, made.getvalue
        if kind.endswith("file"):
            path = self.folder / "sink"
            path.write_bytes(b"")
            mode = {"append file": "ab", "random file": "r+b"}.get(kind, "wb")
            made = self.enter_context(open(path, mode, buffering=0 if kind == "raw file" else -1))  # noqa: SIM115 - ends with the stack
            return made, lambda: (made.flush(), path.read_bytes())[1]
        parts: list[bytes] = []
        if kind == "socket":
            left, right = socket.socketpair()
            self.enter_context(left)
            self.thread(lambda: (parts.extend(iter(lambda: right.recv(65536), b"")), right.close()))
            made, end = left, lambda: left.shutdown(socket.SHUT_WR)
        else:
            reading, writing = os.pipe()
            made = self.enter_context(open(writing, "wb", buffering=0 if kind == "raw pipe" else -1))  # noqa: SIM115 - ends with the stack
            self.thread(lambda: (parts.extend(iter(lambda: os.read(reading, 65536), b"")), os.close(reading)))
            end = made.close
        return made, lambda: (end(), self.join(), b"".join(parts))[2]

    def join(self) -> None:
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


def write_and_close(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except BrokenPipeError:
        pass  # the test wanted no more
    finally:
        os.close(descriptor)


def take(source, count: int) -> bytes:
    """Exactly `count` bytes, or all that are left for -1, by the object's own reads."""
    read = source.recv if isinstance(source, socket.socket) else source.read
    parts: list[bytes] = []
    while count:
        part = read(65536 if count < 0 else count)
        if not part:
            break
        parts.append(part)
        count -= len(part) if count > 0 else 0
    return b"".join(parts)


def put(sink, data: bytes) -> None:
    if isinstance(sink, socket.socket):
        sink.sendall(data)
    else:
        assert sink.write(data) == len(data)


SOURCES = ["raw file", "buffered file", "random file", "raw pipe", "buffered pipe", "socket", "bytesio"]
SINKS = ["raw file", "buffered file", "random file", "append file", "raw pipe", "buffered pipe", "socket", "bytesio"]


@settings(max_examples=80, deadline=None)
@given(
    source_kind=st.sampled_from(SOURCES),
    sink_kind=st.sampled_from(SINKS),
    strategy=st.sampled_from(["direct", "direct", "adaptive", "chunked", "pooled"]),
    start=st.sampled_from([0, 1, 17, 8192, 100_000]),
    size=st.sampled_from([0, 1, 5000, 65_536, 130_000, len(DATA)]),
    said=st.none() | st.integers(0, 300_000),
    limit=st.none() | st.integers(0, 220_000),
    asks=st.none() | st.integers(0, 6),
    told=st.booleans(),
)
def test_every_pair_of_ends_equals_the_model(
    tmp_path_factory, source_kind, sink_kind, strategy, start, size, said, limit, asks, told
):
    """From where both stand, buffered bytes included: the sink has a prefix of the rest, as long as the result says;
    the source goes on right behind it, and so does the sink."""
    data = DATA[: max(size, start)]
    calls: list[int] = []
    progress = (lambda done, total: calls.append(done)) if told else None
    asked = iter(range(1000))
    cancel = None if asks is None else (lambda: next(asked) >= asks)
    with Ends(tmp_path_factory.mktemp("ends")) as ends, direct_pool(strategy, max_pool_bytes="4MiB") as pool:
        source = ends.source(source_kind, data)
        sink, finish = ends.sink(sink_kind)
        assert take(source, start) == data[:start]
        put(sink, HEAD)
        result = pool.copy(source, sink, said, limit=limit, progress=progress, cancel=cancel)
        put(sink, TAIL)
        rest = data[start:]
        if cancel is None:
            assert result.bytes == len(rest if limit is None else rest[:limit])
        else:
            assert result.bytes <= len(rest if limit is None else rest[:limit])
        assert take(source, -1) == rest[result.bytes :]
        assert finish() == HEAD + rest[: result.bytes] + TAIL
        ends.join()
        stats = pool.stats()
        assert stats.active_buffers == 0 and stats.quarantined == 0 and stats.copied_bytes == result.bytes
    if told:
        assert calls == sorted(set(calls)) and calls[-1] == result.bytes


@settings(max_examples=40, deadline=None)
@given(
    source_kind=st.sampled_from(["raw file", "buffered file", "raw pipe", "buffered pipe", "bytesio"]),
    buffered=st.booleans(),
    strategy=st.sampled_from(["direct", "adaptive", "chunked"]),
    drains=st.lists(st.integers(9000, 70_000), min_size=1, max_size=5),
    start=st.sampled_from([0, 17]),
)
def test_a_sink_that_would_block_stops_the_copy_at_the_exact_byte(
    tmp_path_factory, source_kind, buffered, strategy, drains, start
):
    """A full pipe that does not wait: the errors' counts add up, and a source that can seek, or is spliced, goes on."""
    with Ends(tmp_path_factory.mktemp("ends")) as ends, direct_pool(strategy) as pool:
        source = ends.source(source_kind, DATA)
        assert take(source, start) == DATA[:start]
        keeps = strategy == "direct" or "pipe" not in source_kind
        if not keeps:
            return  # what a loop has read from a pipe cannot be put back; the error says so
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        os.set_blocking(reading, False)
        sink = open(writing, "wb", buffering=-1 if buffered else 0)  # noqa: SIM115 - closed when drained
        done, got, turn = 0, b"", 0
        while True:
            try:
                done += pool.copy(source, sink).bytes
                break
            except BlockingIOError as error:
                done += error.characters_written
                if "file" in source_kind or source_kind == "bytesio":
                    assert source.tell() == start + done
                got += os.read(reading, drains[turn % len(drains)])
                turn += 1
        while True:
            try:
                sink.flush()
                break
            except BlockingIOError:
                got += os.read(reading, 65536)
        sink.close()
        got += b"".join(iter(lambda: os.read(reading, 65536), b""))
        os.close(reading)
        assert done == len(DATA) - start and got == DATA[start:]


@settings(max_examples=40, deadline=None)
@given(
    sink_kind=st.sampled_from(["raw file", "buffered file", "raw pipe", "socket", "bytesio"]),
    buffered=st.booleans(),
    strategy=st.sampled_from(["direct", "adaptive", "pooled"]),
    pieces=st.lists(st.integers(1, 40_000), max_size=6),
)
def test_a_source_that_would_block_stops_the_copy_at_the_exact_byte(
    tmp_path_factory, sink_kind, buffered, strategy, pieces
):
    """A pipe that has nothing yet, and does not wait: what came so far is in the sink, and the error counts it."""
    with Ends(tmp_path_factory.mktemp("ends")) as ends, direct_pool(strategy) as pool:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        source = ends.enter_context(open(reading, "rb", buffering=-1 if buffered else 0))  # noqa: SIM115 - ends with the stack
        sink, finish = ends.sink(sink_kind)
        sent = 0
        for piece in pieces:
            assert os.write(writing, DATA[sent : sent + piece]) == len(DATA[sent : sent + piece])
            with pytest.raises(BlockingIOError, match="stopped after") as caught:
                pool.copy(source, sink)
            assert caught.value.characters_written == len(DATA[sent : sent + piece])
            sent = min(len(DATA), sent + piece)
        os.close(writing)
        assert pool.copy(source, sink).bytes == 0
        assert finish() == DATA[:sent]


@pytest.mark.parametrize("strategy", ["direct", "adaptive", "chunked"])
@pytest.mark.parametrize("kind", ["raw file", "buffered file", "bytesio"])
def test_a_pipe_that_nobody_reads_any_more_leaves_the_source_at_what_it_took(tmp_path, strategy, kind):
    """`BrokenPipeError`, with the count in its note; the source stands right behind that."""
    with Ends(tmp_path) as ends, direct_pool(strategy) as pool:
        source = ends.source(kind, DATA * 3)
        reading, writing = os.pipe()
        ends.thread(lambda: (os.read(reading, 50_000), os.close(reading)))
        with open(writing, "wb", buffering=0) as sink, pytest.raises(BrokenPipeError) as caught:
            pool.copy(source, sink)
        ends.join()
        assert caught.value.__notes__ == [f"{source.tell()} bytes were copied before"]
        assert 0 < source.tell() < len(DATA) * 3 and pool.stats().active_buffers == 0


@pytest.mark.parametrize("strategy", ["direct", "adaptive", "pooled"])
def test_a_full_disk_leaves_the_source_where_it_was(tmp_path, strategy):
    """The error passes through, nothing is leased, and the copy can be made elsewhere."""
    with Ends(tmp_path) as ends, direct_pool(strategy) as pool:
        source = ends.source("buffered file", DATA)
        source.read(7)
        with open("/dev/full", "wb", buffering=0) as sink, pytest.raises(OSError, match="No space left") as caught:
            pool.copy(source, sink)
        assert source.tell() == 7 and caught.value.__notes__ == ["0 bytes were copied before"]
        good = io.BytesIO()
        assert pool.copy(source, good).bytes == len(DATA) - 7 and good.getvalue() == DATA[7:]
        assert pool.stats().active_buffers == pool.stats().quarantined == 0


@pytest.mark.parametrize(("source_kind", "sink_kind"), [("raw pipe", "raw file"), ("buffered pipe", "socket")])
def test_pipes_are_spliced(tmp_path, monkeypatch, source_kind, sink_kind):
    """Directly means by the kernel, and without memory of the pool."""
    moved: list[int] = []
    real = os.splice
    monkeypatch.setattr(os, "splice", lambda *a, **k: (moved.append(real(*a, **k)), moved[-1])[1])
    with Ends(tmp_path) as ends, direct_pool() as pool:
        sink, finish = ends.sink(sink_kind)
        result = pool.copy(ends.source(source_kind, DATA), sink)
        assert finish() == DATA and result.strategy is Strategy.DIRECT
        assert pool.stats().total_gets == 0 and sum(moved) >= len(DATA) - 64 * KIB and moved[-1] == 0


def test_a_socket_that_waited_in_vain_loses_nothing_of_a_pipe(tmp_path):
    """`TimeoutError` after the socket's own time; what was not sent is still in the pipe."""
    left, right = socket.socketpair()
    with Ends(tmp_path) as ends, direct_pool() as pool, left, right:
        source = ends.source("raw pipe", DATA * 8)
        left.settimeout(0.05)
        with pytest.raises(TimeoutError, match="timed out") as caught:
            pool.copy(source, left)
        sent = int(caught.value.__notes__[0].split()[0])
        left.shutdown(socket.SHUT_WR)
        got = b"".join(iter(lambda: right.recv(65536), b""))
        assert len(got) == sent and got + take(source, -1) == DATA * 8


def test_another_file_system_is_served_by_sendfile(tmp_path, monkeypatch):
    """Where copy_file_range says EXDEV, the kernel has another way; positions are as exact."""

    def refuse(*arguments):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    for kind in ("raw file", "buffered file", "random file"):
        with Ends(tmp_path) as ends, direct_pool() as pool:
            source = ends.source("buffered file", DATA)
            source.read(10)
            sink, finish = ends.sink(kind)
            put(sink, HEAD)
            assert pool.copy(source, sink, limit=150_000).strategy is Strategy.DIRECT
            assert pool.stats().total_gets == 0 and source.tell() == 150_010 and sink.tell() == 150_005
            put(sink, TAIL)
            assert finish() == HEAD + DATA[10:150_010] + TAIL


# -- blocks that are shared --------------------------------------------------------------------------------


@pytest.fixture
def ioctl(monkeypatch):
    """A file system that shares blocks, or refuses with `error`."""

    class Ioctl:
        error: int | None = None
        calls = 0

        def __call__(self, descriptor: int, request: int, argument: bytes) -> None:
            import struct

            fd, offset, count, to = struct.unpack("=qQQQ", argument)
            self.calls += 1
            assert request == clone.FICLONERANGE and count and not offset % 4096 and not to % 4096
            assert not count % 4096 or offset + count == os.fstat(fd).st_size, "EINVAL: a part of a block"
            if self.error is not None:
                raise OSError(self.error, "refused")
            assert os.pwrite(descriptor, os.pread(fd, count, offset), to) == count

    made = Ioctl()
    monkeypatch.setattr(clone, "_ioctl", made)
    monkeypatch.setattr(clone, "refusing", set())
    return made


@pytest.mark.parametrize("limit", [None, 8192, 100_000, len(DATA) + 1])
@pytest.mark.parametrize("start", [0, 4096, 17])
@pytest.mark.parametrize("kind", ["raw file", "buffered file", "random file"])
def test_blocks_are_shared_where_the_file_system_can(tmp_path, ioctl, limit, start, kind):
    """The whole, or whole blocks of it and the rest through a chunk; both ends stand right behind."""
    with Ends(tmp_path) as ends, BufferPool() as pool:
        source = ends.source("buffered file", DATA)
        source.seek(start)
        sink, finish = ends.sink(kind)
        wanted = DATA[start:][:limit]
        result = pool.copy(source, sink, limit=limit)
        assert result.bytes == len(wanted) and source.tell() == start + len(wanted) and sink.tell() == len(wanted)
        put(sink, TAIL)
        assert finish() == wanted + TAIL
        shared = start % 4096 == 0 and len(wanted) >= 64 * KIB
        assert ioctl.calls == shared and (result.strategy is Strategy.DIRECT) == shared


@pytest.mark.parametrize(("error", "asked"), [(95, 1), (25, 1), (18, 1), (22, 3)])
def test_a_refusal_is_remembered_where_it_is_for_good(tmp_path, ioctl, error, asked):
    """EOPNOTSUPP, ENOTTY and EXDEV once for a device; EINVAL is about this range only. The bytes arrive regardless."""
    ioctl.error = error
    with Ends(tmp_path) as ends, BufferPool() as pool:
        for _ in range(3):
            sink, finish = ends.sink("buffered file")
            result = pool.copy(ends.source("buffered file", DATA), sink)
            assert result.bytes == len(DATA) and result.strategy is not Strategy.DIRECT and finish() == DATA
        assert ioctl.calls == asked and pool.stats().total_gets == 3


# -- the gate, memory, and who is told -----------------------------------------------------------------------


class Slot:
    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        self.released += 1

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.release()


class Busy:
    def take_free(self, need) -> None:
        """There is no place at once: whoever wants one must ask, and wait."""


class GatedPool(BufferPool):
    def __init__(self, *arguments, full: bool = False) -> None:
        super().__init__(*arguments)
        self.asked: list[tuple] = []
        self.slot = Slot()
        self.full = full
        self._gate, self._gated_from = Busy(), 0

    def _admit(self, size, need, timeout, priority):
        self.asked.append((size, need, timeout, priority))
        if self.full:
            raise Overloaded("full", retry_after=1.0)
        assert self.stats().active_buffers == 0, "asked while holding"
        return self.slot


@pytest.mark.parametrize("kind", ["buffered file", "raw pipe", "bytesio"])
@pytest.mark.parametrize("strategy", ["adaptive", "direct", "chunked"])
def test_the_gate_is_asked_once_and_its_place_is_free_at_every_end(tmp_path, kind, strategy):
    """Before any byte, with what will be leased; given back after success and after an error alike."""
    config = BufferPoolConfig(large_object_strategy=strategy)
    with Ends(tmp_path) as ends, GatedPool(config) as pool:
        pool.copy(ends.source(kind, DATA), io.BytesIO(), timeout=5)
        assert len(pool.asked) == 1 == pool.slot.released and pool.asked[0][2] == 5
        assert pool.asked[0][0] == (None if kind == "raw pipe" else len(DATA))
        assert pool.asked[0][1] == 0 or kind != "bytesio"
        ends.join()

        class Failing:
            def write(self, piece):
                raise KeyError("mine")

        with pytest.raises(KeyError):
            pool.copy(ends.source(kind, DATA), Failing())
        assert len(pool.asked) == 2 == pool.slot.released
        assert pool.stats().active_buffers == 0


@pytest.mark.parametrize("kind", ["buffered file", "raw file", "bytesio"])
def test_a_full_gate_does_not_just_copy_anyway(tmp_path, kind):
    """`Overloaded`, and neither end has moved."""
    with Ends(tmp_path) as ends, GatedPool(full=True) as pool:
        source, sink = ends.source(kind, DATA), io.BytesIO()
        with pytest.raises(Overloaded):
            pool.copy(source, sink)
        assert source.tell() == 0 == sink.tell() and pool.stats().total_gets == 0


def test_a_copy_leases_one_chunk_and_the_next_reuses_it(endpoints):
    """Chunks are used, and used again: one lease a copy, from the second on without mapping memory."""
    with BufferPool() as pool:
        for turn in range(1, 4):
            assert pool.copy(endpoints.source(bytes(MIB)), endpoints.sink()).chunks == 4
            stats = pool.stats()
            assert (stats.total_gets, stats.pool_hits, stats.pool_misses) == (turn, turn - 1, 1)


def test_progress_is_told_at_most_twenty_times_a_second_and_always_at_the_end(endpoints, monkeypatch):
    """By the clock, whatever a piece weighs."""
    now = [0.0]
    monkeypatch.setattr(moving, "monotonic", lambda: now[0])

    class Slow(endpoints.source):
        def readinto(self, view) -> int:
            now[0] += 0.02
            return super().readinto(view[:1000])

    with BufferPool() as pool:
        told: list[int] = []
        pool.copy(Slow(bytes(10_500)), endpoints.sink(), progress=lambda done, size: told.append(done))
    assert told == [3000, 6000, 9000, 10_500]


def test_a_configured_way_that_cannot_serve_is_counted_and_told_once(endpoints, caplog):
    """As a warning the first time, at debug level after that; the copy is whole."""
    copy._told_fallbacks.clear()
    with direct_pool("pooled", max_pool_bytes=MIB) as pool:
        for _ in range(3):
            assert pool.copy(endpoints.source(bytes(2 * MIB)), endpoints.sink(), 2 * MIB).bytes == 2 * MIB
        assert pool.stats().fallbacks == 3
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage() for record in warned] == [
        "fallback of a copy: pooled is configured, but the object is larger than the pool"
    ]


def test_direct_stays_direct_where_only_the_chunk_is_cut(endpoints, tmp_path):
    """A `chunk_size` beyond all memory is a fallback; the strategy is obeyed all the same, and nothing is pooled."""
    (tmp_path / "in").write_bytes(DATA)
    with open(tmp_path / "in", "rb") as file:
        for source in (file, io.BytesIO(DATA), endpoints.source(DATA)):
            sink = endpoints.sink()
            with direct_pool(chunk_size="512KiB", ledger=MemoryLedger(128 * KIB)) as pool:
                assert pool.copy(source, sink).strategy is Strategy.DIRECT and bytes(sink.data) == DATA
                stats = pool.stats()
                assert (stats.fallbacks, stats.direct_operations, stats.arena_bytes) == (1, 1, 0)
