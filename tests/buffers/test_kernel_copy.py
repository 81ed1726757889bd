"""The kernel's copy: exact positions before, after and in between, and user space where it cannot serve."""

from __future__ import annotations

import io
import os
import random
import socket
import threading

import pytest

from daramjwee.buffers import BufferPool, BufferPoolConfig, Strategy, kernel_copy, moving, send_file

SIZE = 700_000
DATA = bytes(range(256)) * (SIZE // 256) + b"tail"


@pytest.fixture
def source_path(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def direct():
    """A pool that is told to copy directly: by the kernel, where that has a way."""
    with BufferPool(BufferPoolConfig(large_object_strategy="direct", large_object_threshold=1)) as made:
        yield made
        assert made.stats().active_buffers == 0 and made.ledger.held == 0


@pytest.fixture
def calls(monkeypatch):
    """Counts the kernel's copies, and lets them be cut short or fail."""

    class Calls:
        copied = 0
        short: int | None = None
        fail_after: int | None = None

    made = Calls()

    def wrapped(real):
        def call(first, second, count, *rest):
            if made.fail_after is not None and made.copied >= made.fail_after:
                raise OSError(5, "the kernel gave up")
            if real.__name__ == "copy_file_range":
                moved = real(first, second, min(count, made.short or count), *rest)
            else:
                moved = real(first, second, count, min(rest[0], made.short or rest[0]))
            made.copied += moved
            return moved

        return call

    monkeypatch.setattr(os, "copy_file_range", wrapped(os.copy_file_range))
    monkeypatch.setattr(os, "sendfile", wrapped(os.sendfile))
    return made


@pytest.mark.parametrize("source_buffering", [0, -1])
@pytest.mark.parametrize("sink_mode", [("wb", 0), ("wb", -1), ("r+b", -1), ("w+b", -1)])
@pytest.mark.parametrize("position", [0, 10, 699_900])
def test_files_are_copied_by_the_kernel_from_the_logical_position(
    direct, source_path, tmp_path, calls, source_buffering, sink_mode, position
):
    """What buffers hold is flushed first, and both files go on right behind the copy."""
    target = tmp_path / "target"
    target.write_bytes(b"old content")
    mode, buffering = sink_mode
    with open(source_path, "rb", buffering=source_buffering) as source, open(target, mode, buffering=buffering) as sink:
        assert source.read(position) == DATA[:position]
        sink.write(b"head-")
        result = direct.copy(source, sink)
        assert source.tell() == len(DATA) and source.read(1) == b""
        sink.write(b"-end")
    assert result.bytes == len(DATA) - position
    assert target.read_bytes() == b"head-" + DATA[position:] + b"-end"
    if position < SIZE // 2:
        assert calls.copied == result.bytes and result.strategy is Strategy.DIRECT
        assert direct.stats().total_gets == 0, "no memory at all"


@pytest.mark.parametrize("short", [None, 100_000])
@pytest.mark.parametrize("fail_after", [0, 200_000])
@pytest.mark.parametrize("limit", [None, 333_333])
def test_user_space_goes_on_at_the_exact_byte(direct, source_path, tmp_path, calls, short, fail_after, limit):
    """The kernel gives up before or in the middle: no byte is lost or doubled."""
    calls.short, calls.fail_after = short, fail_after
    with open(source_path, "rb") as source, open(tmp_path / "t", "wb") as sink:
        result = direct.copy(source, sink, limit=limit)
        expected = DATA[:limit]
        assert source.tell() == sink.tell() == len(expected) == result.bytes
    assert (tmp_path / "t").read_bytes() == expected
    assert result.strategy is Strategy.DIRECT and direct.stats().arena_bytes == 0, "a private buffer serves the rest"


def test_append_mode_and_the_same_file_fall_back_exactly(direct, source_path, tmp_path):
    """The kernel refuses the one and would misread the other."""
    target = tmp_path / "log"
    target.write_bytes(b"before ")
    with open(source_path, "rb") as source, open(target, "ab") as sink:
        assert direct.copy(source, sink).bytes == len(DATA)
    assert target.read_bytes() == b"before " + DATA
    with open(source_path, "rb") as source, open(source_path, "r+b") as sink:
        source.seek(600_000)
        assert direct.copy(source, sink).bytes == len(DATA) - 600_000
    assert source_path.read_bytes() == DATA[600_000:] + DATA[len(DATA) - 600_000 :]


def test_files_that_claim_to_be_empty_are_read_to_their_end(direct, tmp_path):
    """Files in /proc have no size and the kernel copies nothing of them."""
    if not os.path.exists("/proc/self/status"):
        pytest.fail("this suite runs on Linux")
    with open("/proc/self/limits", "rb") as source, open(tmp_path / "t", "wb") as sink:
        assert direct.copy(source, sink).bytes > 100
    assert b"Max open files" in (tmp_path / "t").read_bytes()


def test_a_subclass_of_a_file_is_an_object_like_any_other(direct, source_path, tmp_path, calls):
    """It may change what it reads: only exactly a FileIO is taken for its descriptor."""

    class Upper(io.FileIO):
        def readinto(self, view) -> int:
            count = super().readinto(view)
            view[:count] = bytes(view[:count]).upper()
            return count

    (tmp_path / "s").write_bytes(b"abc" * 50_000)
    with Upper(tmp_path / "s") as source, open(tmp_path / "t", "wb") as sink:
        direct.copy(source, sink, 150_000)
    assert (tmp_path / "t").read_bytes() == b"ABC" * 50_000 and calls.copied == 0


def receive(sock: socket.socket, into: list[bytes]) -> threading.Thread:
    thread = threading.Thread(target=lambda: into.extend(iter(lambda: sock.recv(65536), b"")))
    thread.start()
    return thread


@pytest.mark.parametrize("timeout", [None, 5.0])
@pytest.mark.parametrize("short", [None, 50_000])
def test_a_file_goes_to_a_plain_socket_by_the_kernel(direct, source_path, calls, timeout, short):
    """With and without a time-out, in one call or many."""
    calls.short = short
    left, right = socket.socketpair()
    parts: list[bytes] = []
    with left, right, open(source_path, "rb") as source:
        left.settimeout(timeout)
        thread = receive(right, parts)
        source.read(10)
        result = direct.copy(source, left)
        left.shutdown(socket.SHUT_WR)
        thread.join()
        assert source.tell() == len(DATA)
    assert b"".join(parts) == DATA[10:] and calls.copied == result.bytes == len(DATA) - 10


def test_a_socket_that_does_not_wait_stops_at_the_exact_byte(direct, source_path):
    """The error says how much was sent, and the file stands there; going on completes it."""
    left, right = socket.socketpair()
    with left, right, open(source_path, "rb") as source:
        left.setblocking(False)
        sent, received = 0, b""
        while sent < len(DATA):
            try:
                sent += direct.copy(source, left).bytes
            except BlockingIOError as error:
                sent += error.characters_written
            assert source.tell() == sent
            while len(received) < sent:
                received += right.recv(65536)
        assert received == DATA


@pytest.mark.parametrize("strategy", ["direct", "adaptive", "chunked"])
@pytest.mark.parametrize(
    "options", [{}, {"limit": len(DATA)}, {"cancel": lambda: False}], ids=["plain", "limit", "cancel"]
)
def test_a_socket_whose_time_is_up_raises_what_it_always_does(source_path, strategy, options):
    """`TimeoutError`, from a peer that reads nothing; it says how much was sent, and the file stands there."""
    left, right = socket.socketpair()
    config = BufferPoolConfig(large_object_strategy=strategy)
    with left, right, open(source_path, "rb") as source, BufferPool(config) as buffers:
        left.settimeout(0.01)
        source.seek(10)
        with pytest.raises(TimeoutError) as caught:
            buffers.copy(source, left, **options)
        left.shutdown(socket.SHUT_WR)
        sent = sum(iter(lambda: len(right.recv(65536)), 0))
        assert caught.value.__notes__ == [f"{sent} bytes were copied before"]
        assert source.tell() == 10 + sent > 10


def test_send_file_copies_a_range_and_moves_nothing(source_path, tmp_path):
    """For whoever holds a descriptor: the range arrives, the descriptor's own position stays."""
    descriptor = os.open(source_path, os.O_RDONLY)
    try:
        os.lseek(descriptor, 17, os.SEEK_SET)
        with open(tmp_path / "t", "wb") as sink:
            sink.write(b"x")
            assert send_file(descriptor, 1000, 500_000, sink) == 500_000
            assert sink.tell() == 500_001
            assert send_file(descriptor, len(DATA) - 5, 100, sink) == 5, "the file ends before"
            assert send_file(descriptor, 0, 0, sink) == 0
        assert (tmp_path / "t").read_bytes() == b"x" + DATA[1000:501_000] + DATA[-5:]
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 17
        for other in (io.BytesIO(), io.StringIO(), object()):
            assert send_file(descriptor, 0, 10, other) == 0
        with open(source_path, "rb") as not_writable:
            assert send_file(descriptor, 0, 10, not_writable) == 0
    finally:
        os.close(descriptor)


def test_a_pipe_is_no_file_for_the_kernel(pool, source_path):
    """Neither as source nor as sink: user space serves, exactly."""
    reading, writing = os.pipe()
    parts: list[bytes] = []
    with open(reading, "rb") as source, open(writing, "wb") as sink, open(source_path, "rb") as file:
        thread = threading.Thread(target=lambda: parts.append(source.read()))
        thread.start()
        assert pool.copy(file, sink).bytes == len(DATA)
        sink.close()
        thread.join()
    assert parts == [DATA]
    reading, writing = os.pipe()
    os.write(writing, b"few")
    os.close(writing)
    with open(reading, "rb") as source:
        sink_bytes = io.BytesIO()
        assert pool.copy(source, sink_bytes).bytes == 3 and sink_bytes.getvalue() == b"few"


def test_without_these_calls_everything_goes_through_user_space(direct, source_path, tmp_path, monkeypatch):
    """Other systems: the same bytes."""
    monkeypatch.setattr(kernel_copy, "AVAILABLE", False)
    with open(source_path, "rb") as source, open(tmp_path / "t", "wb") as sink:
        assert direct.copy(source, sink).strategy is Strategy.DIRECT
        assert direct.stats().total_gets == 1, "through a private buffer"
    assert (tmp_path / "t").read_bytes() == DATA


def test_progress_and_cancel_work_between_the_kernels_steps(direct, tmp_path, monkeypatch):
    """In steps of some MiB, so that a large copy can be watched and stopped."""
    monkeypatch.setattr(moving, "STEP_BYTES", 200_000)
    monkeypatch.setattr(moving, "PROGRESS_SECONDS", 0)
    (tmp_path / "s").write_bytes(DATA)
    told: list[int] = []
    with open(tmp_path / "s", "rb") as source, open(tmp_path / "t", "wb") as sink:
        result = direct.copy(
            source,
            sink,
            progress=lambda done, size: told.append(done),
            cancel=lambda: bool(told) and told[-1] >= 400_000,
        )
        assert told == [200_000, 400_000] and result.bytes == 400_000 == source.tell() == sink.tell()


@pytest.mark.parametrize("local", [True, False], ids=["a socket of this machine", "a socket of the network"])
@pytest.mark.parametrize(("size", "by_kernel"), [(5 << 20, False), (1 << 20, True)])
def test_a_file_goes_to_a_socket_the_way_that_is_faster_there(pool, tmp_path, local, size, by_kernel):
    """By sendfile to the network, and locally below 4 MiB; from there on through chunks that fit the socket's buffer.
    Every byte arrives, and the file stands at its end."""
    body = random.Random(size).randbytes(size)
    (tmp_path / "source").write_bytes(body)
    if local:
        left, right = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            left = socket.create_connection(server.getsockname())
            right, _ = server.accept()
    received = bytearray()

    def drain() -> None:
        while piece := right.recv(1 << 20):
            received.extend(piece)

    thread = threading.Thread(target=drain)
    thread.start()
    with open(tmp_path / "source", "rb") as source, right:
        with left:
            result = pool.copy(source, left)
            assert source.tell() == size
        thread.join(30)
    assert received == body and result.bytes == size
    assert result.strategy is (Strategy.DIRECT if by_kernel or not local else Strategy.CHUNKED)
