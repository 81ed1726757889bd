"""What copies are measured with: only the copy and the flush are timed, and every end gets the bytes."""

from __future__ import annotations

import os
import socket

import pytest

from daramjwee.bench import ends
from daramjwee.bench.ends import DrainedSocket, Folder, Glance, Source, Summed, copies


def test_a_plain_source_gives_its_bytes_and_shows_no_descriptor():
    """As a decoder does: `readinto`, short at the end, nothing afterwards."""
    source = Source(b"abcdef")
    view = bytearray(4)
    assert (source.readinto(view), bytes(view)) == (4, b"abcd")
    assert source.read() == b"ef"
    with pytest.raises(OSError, match="fileno"):
        source.fileno()


@pytest.mark.parametrize("sink", [Glance(), Summed()])
def test_sinks_take_everything_and_count_it(sink):
    """Also nothing at all."""
    assert [sink.write(memoryview(b"abc")), sink.write(b""), sink.write(b"de")] == [3, 0, 2]
    assert sink.taken == 5


def test_the_sum_depends_on_every_byte():
    """It is what makes the sink read them."""
    sums = set()
    for body in (b"abc", b"abd", b"bbc"):
        sink = Summed()
        sink.write(body)
        sums.add(sink.sum)
    assert len(sums) == 3


def test_a_body_becomes_one_file_and_every_copy_a_new_one():
    """The source stays on the pages it has, the target gets fresh ones."""
    with Folder() as folder:
        path = folder.file_of(b"abc")
        inode = os.stat(path).st_ino
        assert folder.file_of(b"abc") == path and os.stat(path).st_ino == inode
        with folder.new_file() as file:
            file.write(b"12345")
        with folder.same_file() as file:
            file.write(b"ab")
        with open(folder.target, "rb") as file:
            assert file.read() == b"ab345"
            with folder.new_file():
                pass
            assert os.stat(folder.target).st_ino != os.fstat(file.fileno()).st_ino
        assert os.path.getsize(folder.target) == 0
    assert not os.path.exists(path)


def test_opening_and_closing_are_not_timed_and_flushing_is(monkeypatch):
    """With a clock that moves by what each step costs."""
    clock = [0.0]
    monkeypatch.setattr(ends, "perf_counter", lambda: clock[0])

    def costs(seconds):
        clock[0] += seconds

    class Sink(Glance):
        def __init__(self):
            costs(100)

        def flush(self):
            costs(2)

        def close(self):
            costs(100)

    def source():
        costs(100)
        return Source(b"abc")

    timed = copies(lambda source, sink: (sink.write(source.read()), costs(1)), source, Sink)
    assert timed(4) == 4 * (1 + 2)


def test_a_socket_is_left_open_between_copies_and_drained_elsewhere():
    """More than it could hold by itself is taken away, and its end ends the other process."""
    body = b"x" * (4 << 20)
    with DrainedSocket() as near:
        timed = copies(ends.send_whole, lambda: Source(body), lambda: near)
        assert timed(2) > 0
        assert near.fileno() >= 0
    assert near.fileno() == -1


@pytest.mark.parametrize("copy", [ends.read_and_write, ends.copy_file_range])
def test_the_yardsticks_copy_files_whole(copy):
    """A rival that copied less would look quick."""
    with Folder() as folder:
        body = os.urandom(300_000)
        with open(folder.file_of(body), "rb") as source, folder.new_file() as target:
            copy(source, target)
        with open(folder.target, "rb") as file:
            assert file.read() == body


def test_the_kernels_yardstick_sends_the_whole_file():
    """In as many calls as it takes."""
    near, far = socket.socketpair()
    with Folder() as folder, near, far:
        body = os.urandom(50_000)
        with open(folder.file_of(body), "rb") as source:
            ends.sendfile(source, near)
        near.shutdown(socket.SHUT_WR)
        with far.makefile("rb") as file:
            assert file.read() == body


def test_a_source_that_only_returns_bytes_makes_new_ones_each_time():
    """As a decoder must: bytes that are shared would make a copy that moves nothing."""
    body = bytes(range(6))
    source = ends.Reads(body)
    assert [source.read(4), source.read(4), source.read(4)] == [body[:4], body[4:], b""]
    assert not hasattr(source, "readinto")
    with ends.Reads(body) as source:
        whole = source.read()
    assert whole == body
    assert whole is not body


def test_a_file_that_is_written_over_is_not_cut_and_each_size_has_its_own():
    """Cutting it would give its blocks back, which costs more than the copy."""
    with Folder() as folder:
        with folder.over(5) as file:
            file.write(b"12345")
        with folder.over(3) as file:
            file.write(b"abc")
        inode = os.stat(f"{folder.target} of 5").st_ino
        with folder.over(5) as file:
            assert type(file).__name__ == "BufferedWriter"
            file.write(b"xy")
        assert folder.read_over(5) == b"xy345"
        assert folder.read_over(3) == b"abc"
        assert os.stat(f"{folder.target} of 5").st_ino == inode


@pytest.mark.parametrize("through", [ends.through_fresh, ends.send_through_fresh])
def test_a_copy_through_a_fresh_buffer_is_whole_or_an_error(through):
    """Also where the source gives less at a time than it is asked for."""

    class Slow(Source):
        def readinto(self, view, /):
            return super().readinto(memoryview(view)[:2])

    class Sink(Glance):
        def __init__(self):
            self.seen = b""

        def write(self, data):
            self.seen += bytes(data)

        sendall = write

    sink = Sink()
    through(5)(Slow(b"abcde"), sink)
    assert sink.seen == b"abcde"
    with pytest.raises(EOFError, match="ended 1 byte early"):
        through(6)(Slow(b"abcde"), Sink())
