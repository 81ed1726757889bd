"""ChunkedTeeReader against a model: ends that are short, not ready or broken at any byte, and any mix of calls.

The model is one number: how far the caller is in the source. From it follows what each call may hand out, what the sink
must have, and what the statistics say.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daramjwee.buffers import BufferPool, BufferPoolConfig
from daramjwee.buffers.pressure import PressureLevel
from daramjwee.errors import Closed, LeaseError

SMALL = BufferPoolConfig(
    min_buffer_size=16, default_buffer_size=64, max_buffer_size=256, large_object_threshold=128,
    very_large_object_threshold=512, max_pool_bytes="1MiB",
)  # fmt: skip
END = 1 << 20
NOT_READY = -1
FAILS = -2


@dataclass
class Source:
    """Over `data`; each call does what is next in `script`: at most so many bytes, NOT_READY or FAILS."""

    data: bytes
    script: list[int]
    answers_none: bool
    position: int = 0
    calls: int = 0
    brought: int = 0
    events: set[int] = field(default_factory=set)  # since the last look

    def _some(self, most: int) -> bytes | None:
        self.calls += 1
        step = self.script.pop() if self.script else END
        if step == FAILS:
            self.events.add(FAILS)
            raise ConnectionResetError(f"source failed at {self.position}")
        if step == NOT_READY:
            self.events.add(NOT_READY)
            if self.answers_none:
                return None
            raise BlockingIOError(errno.EAGAIN, "source not ready")
        piece = self.data[self.position : self.position + min(most, step)]
        self.position += len(piece)
        self.brought += bool(piece)
        return piece


class Filling(Source):
    def readinto(self, view) -> int | None:
        piece = self._some(len(view))
        if piece is None:
            return None
        view[: len(piece)] = piece
        return len(piece)


class Returning(Source):
    def read(self, size: int) -> bytes | None:
        return self._some(size)


class Sink(io.RawIOBase):
    """Each call does what is next in `script`; at byte `fail_at` it fails for good."""

    def __init__(self, script: list[int], fail_at: int | None, says_how_many: bool) -> None:
        self.data = bytearray()
        self.script = script
        self.fail_at = fail_at
        self.says_how_many = says_how_many
        self.events: set[int] = set()

    def write(self, piece) -> int | None:
        step = self.script.pop() if self.script else END
        if self.fail_at is not None and len(self.data) >= self.fail_at:
            self.events.add(FAILS)
            raise OSError(errno.ENOSPC, "sink is full")
        count = min(len(piece), END if step == NOT_READY else step)
        if self.fail_at is not None:
            count = min(count, self.fail_at - len(self.data))
        if step != NOT_READY:
            self.data += piece[:count]
            return count
        self.events.add(NOT_READY)
        if not self.says_how_many:
            return None
        # As a buffered writer does: a part was taken, and the error says how much.
        part = count // 2
        self.data += piece[:part]
        raise BlockingIOError(errno.EAGAIN, "sink not ready", part)


@dataclass
class Run:
    """A tee, its ends, and what the caller has got. `look` checks what must hold after every call."""

    source: Source
    sink: Sink
    tee: object
    drop: bool
    got: bytes = b""
    failed: bool = False
    owed: bool = False  # the source failed, and nobody was told yet
    ahead: int = 0  # what the sink had when a call last raised because an end was not ready

    def call(self, name: str, size: int) -> None:
        self.source.events.clear()
        self.sink.events.clear()
        calls = self.source.calls
        was_failed = self.failed
        rest = self.source.data[len(self.got) :]
        try:
            piece = self._ask(name, size)
        except OSError as error:
            self.owed |= FAILS in self.source.events
            self.look_after_error(error, was_failed)
            return
        self.owed |= FAILS in self.source.events
        assert not was_failed, "a read went on with a broken sink"
        if name == "peek":
            assert rest.startswith(piece) and bool(piece) == bool(rest)
        else:
            assert rest.startswith(piece)
            self.got += piece
            self.look_after_piece(name, size, piece, rest)
        if name.endswith("1"):
            assert self.source.calls - calls <= 1
        if self.sink_counts():
            assert len(self.sink.data) == max(len(self.got), self.ahead)
            assert self.source.data.startswith(bytes(self.sink.data))
        self.look()

    def _ask(self, name: str, size: int) -> bytes:
        if name.startswith("readinto"):
            buffer = bytearray(size)
            count = getattr(self.tee, name)(buffer)
            return bytes(buffer[:count])
        if name == "next":
            return next(self.tee, b"")
        return getattr(self.tee, name)(size)

    def look_after_piece(self, name: str, size: int, piece: bytes, rest: bytes) -> None:
        if name in ("readline", "next"):
            most = len(rest) if name == "next" or size < 0 else size
            line = rest[: rest.find(b"\n") + 1 or len(rest)][:most]
            assert piece == line or self.owed
        elif name in ("read1", "readinto1"):
            assert bool(piece) == bool(rest and size)
            assert len(piece) <= size or size < 0
        else:
            whole = len(rest) if size < 0 else min(size, len(rest))
            assert len(piece) == whole or (piece and (self.owed or NOT_READY in self.source.events))

    def look_after_error(self, error: Exception, was_failed: bool) -> None:
        if was_failed:
            assert error is self.tee.stats.sink_error
        elif isinstance(error, BlockingIOError):
            assert NOT_READY in self.source.events or (NOT_READY in self.sink.events and not self.drop)
            self.ahead = len(self.sink.data)
        elif isinstance(error, ConnectionResetError):
            # What came before it was handed out first.
            assert self.owed and self.source.position == len(self.got)
            self.owed = False
        else:
            assert FAILS in self.sink.events and not self.drop
            self.failed = True
        # What the sink has beyond the caller is what comes next.
        assert self.source.data.startswith(bytes(self.sink.data))
        assert self.dropped or bytes(self.sink.data).startswith(self.got)
        self.look()

    @property
    def dropped(self) -> bool:
        return self.drop and self.tee.stats.sink_error is not None

    def sink_counts(self) -> bool:
        """Whether the sink has to be where the caller is."""
        return not self.failed and not self.dropped

    def look(self) -> None:
        stats = self.tee.stats
        assert stats.bytes == len(self.got)
        assert stats.sink_bytes == len(self.sink.data)
        assert stats.chunks == self.source.brought and 0 <= stats.reused <= max(0, stats.chunks - 1)
        assert self.source.data.startswith(self.got)
        assert self.source.position >= len(self.got)


STEPS = st.lists(st.sampled_from([1, 2, 7, 40, 64, 100, END, NOT_READY]), min_size=3, max_size=25)
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["read", "read1", "readinto", "readinto1", "readline", "next", "peek"]),
        st.one_of(st.sampled_from([0, 1, 3, 63, 64, 65, 129, 257]), st.integers(0, 300)),
    ),
    min_size=2,
    max_size=25,
)
DATA = st.integers(0, 900).map(lambda size: b"".join(b"line %d\n" % n for n in range(size // 6 + 1))[:size])


@settings(max_examples=500)
@given(
    data=DATA,
    said=st.none() | st.integers(0, 1500),
    calls=CALLS,
    fills=st.booleans(),
    source_steps=STEPS,
    source_fails=st.none() | st.integers(0, 12),
    sink_steps=STEPS,
    sink_fails=st.none() | st.integers(0, 900),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    closes=st.booleans(),
)
@example(
    data=b"abc" * 100, said=None, calls=[("read", 200), ("read", 3)], fills=True, source_steps=[], source_fails=None,
    sink_steps=[], sink_fails=100, flags=(False, False, False), closes=False,
)  # fmt: skip
def test_the_caller_gets_the_source_whatever_the_ends_do(
    data, said, calls, fills, source_steps, source_fails, sink_steps, sink_fails, flags, closes
):
    """After every call: the caller has a prefix of the source, the sink has the same (or, after an error, its share of
    what comes next), the statistics are exact; in the end nothing is lost, doubled or leased."""
    drop, source_says_none, sink_says_how_many = flags
    if source_fails is not None:
        source_steps.insert(min(source_fails, len(source_steps)), FAILS)
    source = (Filling if fills else Returning)(data, source_steps, source_says_none)
    sink = Sink(sink_steps, sink_fails, sink_says_how_many)
    with BufferPool(SMALL) as pool:
        with pool.tee(source, sink, said, on_sink_error="drop" if drop else "raise") as tee:
            run = Run(source, sink, tee, drop)
            for name, size in calls:
                run.call(name, size)
            if not closes:
                finish(run)
        run.look()
        with pytest.raises(Closed):
            tee.read(1)
        stats = pool.stats()
        assert (stats.copies, stats.chunked_operations, stats.copied_bytes) == (1, 1, len(run.got))
        assert stats.active_buffers == stats.quarantined == 0 and stats.total_gets == stats.total_puts
        assert stats.total_gets <= (1 if said is None or said >= len(data) else 2) and (fills or not stats.total_gets)
    assert pool.ledger.held == 0


def finish(run: Run) -> None:
    """Let the ends be ready from now on, and read the rest: all of it must come, from the exact byte."""
    run.source.script.clear()
    run.sink.script.clear()
    rest = run.source.data[len(run.got) :]
    for _ in range(5):  # pieces, an error of the source that was kept, one of the sink, the rest, the end
        try:
            run.got += run.tee.read()
        except ConnectionResetError:
            continue
        except OSError:
            run.failed = True
            assert isinstance(run.tee.drop_sink(), OSError)
    assert run.got.endswith(rest) and run.got == run.source.data and run.source.position == len(run.got)
    if run.sink_counts():
        assert bytes(run.sink.data) == run.source.data
    else:
        assert bytes(run.sink.data) == run.source.data[: len(run.sink.data)]
    assert run.tee.read1() == b"" == run.tee.readline() and run.tee.readinto(bytearray(70)) == 0


@settings(max_examples=150)
@given(size=st.integers(0, 400), sink_fails=st.integers(0, 399), name=st.sampled_from(["read", "readinto", "readline"]))
def test_after_a_failed_sink_is_dropped_reading_goes_on_at_the_exact_byte(size, sink_fails, name):
    """What the failed read had taken comes first; the sink keeps what it had, and gets no more."""
    data = bytes(range(256)) * 2
    sink = Sink([], sink_fails, says_how_many=False)
    with BufferPool(SMALL) as pool, pool.tee(Filling(data, [50] * 9, answers_none=False), sink) as tee:
        run = Run(Filling(data, [], answers_none=False), sink, tee, drop=False)
        got = b""
        with pytest.raises(OSError, match="sink is full"):
            while True:
                got += run._ask(name, size + 1)
        assert tee.stats.bytes == len(got) <= sink_fails == tee.stats.sink_bytes == len(sink.data)
        assert isinstance(tee.drop_sink(), OSError)
        assert got + run._ask(name, 77) + tee.read() == data and bytes(sink.data) == data[:sink_fails]


@pytest.mark.parametrize("name", ["read", "readinto"])
@pytest.mark.parametrize("drop", [False, True])
def test_an_interrupted_write_loses_no_byte_and_is_not_repeated(pool, name, drop):
    """The interrupt passes through in both modes; afterwards the sink counts as failed, the bytes come once."""
    data = bytes(range(200))

    class Interrupted(Sink):
        def write(self, piece):
            if self.data:
                raise KeyboardInterrupt
            return super().write(piece)

    sink = Interrupted([], None, says_how_many=False)
    tee = pool.tee(Filling(data, [], answers_none=False), sink, on_sink_error="drop" if drop else "raise")
    run = Run(Filling(data, [], answers_none=False), sink, tee, drop=drop)
    with tee:
        first = run._ask(name, 60)
        with pytest.raises(KeyboardInterrupt):
            run._ask(name, 100)
        assert isinstance(tee.stats.sink_error, InterruptedError) and "KeyboardInterrupt" in str(tee.stats.sink_error)
        if not drop:
            with pytest.raises(InterruptedError, match="nobody knows after how many bytes"):
                run._ask(name, 1)
            tee.drop_sink()
        assert first + run._ask(name, 7) + tee.read() == data and bytes(sink.data) == data[:60]


def test_a_sink_that_works_can_be_dropped_too(pool):
    """From then on it gets nothing, and the caller everything."""
    sink = io.BytesIO()
    with pool.tee(io.BytesIO(b"0123456789"), sink) as tee:
        assert tee.read(4) == b"0123" and tee.drop_sink() is None and tee.read() == b"456789"
        assert tee.stats.sink_error is None and tee.stats.sink_bytes == 4
        tee.close()
        tee.drop_sink()
        with pytest.raises(Closed):
            tee.read()
    assert sink.getvalue() == b"0123"


def test_a_sink_that_keeps_the_callers_memory_has_failed(pool):
    """An array made over the view would show the next bytes as these: the read says so, and loses nothing."""
    kept = []

    class Keeper:
        def write(self, piece):
            if isinstance(piece, memoryview):
                kept.append(pickle.PickleBuffer(piece))

    data = bytes(300_000)
    with pool.tee(Filling(data, [], answers_none=False), Keeper()) as tee:
        with pytest.raises(LeaseError, match=r"Keeper.write kept the memory it was given"):
            tee.readinto(bytearray(1000))
        tee.drop_sink()
        assert tee.read() == data


def test_a_chunk_is_leased_once_and_used_for_every_read(pool):
    """By the pool's counters and the address of the memory: one lease, the same memory each time, given back when the
    end is seen, before the tee is closed."""
    import ctypes

    places = []

    class Watched(Filling):
        def readinto(self, view):
            places.append((ctypes.addressof(ctypes.c_char.from_buffer(view)), len(view)))
            return super().readinto(view)

    data = bytes(range(250)) * 8000
    source, sink = Watched(data, [], answers_none=False), Sink([], None, says_how_many=False)
    with pool.tee(source, sink, len(data)) as tee:
        assert pool.stats().total_gets == 0
        got = b"".join(iter(lambda: tee.read(1000), b""))
        stats = pool.stats()
        assert (stats.total_gets, stats.total_puts, stats.active_buffers) == (1, 1, 0)
        assert (stats.copies, stats.chunked_operations, stats.copied_bytes) == (1, 1, len(data))
        assert tee.stats.chunks == 8 and tee.stats.reused == 7
    assert got == data == bytes(sink.data)
    assert len(places) == 9 and set(places) == {places[0]} and places[0][1] == 256 * 1024
    assert pool.stats().copies == 1


@pytest.mark.parametrize("buffering", [-1, 0])
def test_large_reads_of_a_plain_file_need_no_chunk_and_mix_with_those_that_do(pool, tmp_path, buffering):
    """Its own bytes are handed out; a smaller read goes on in the chunk at the exact byte, and a huge one is no more
    than what there is."""
    data = bytes(range(250)) * 12_000
    (tmp_path / "file").write_bytes(data)
    sink = Sink([], None, says_how_many=False)
    with open(tmp_path / "file", "rb", buffering=buffering) as file, pool.tee(file, sink) as tee:
        got = tee.read(300_000)
        assert (pool.stats().total_gets, file.tell(), tee.stats.reused) == (0, 300_000, 0)
        for size in (10, 700_000, 262_144, 5, 400_000):
            got += tee.read(size)
            assert bytes(sink.data) == got == data[: len(got)]
        assert tee.stats.bytes == len(got) and pool.stats().total_gets == 1
        got += tee.read(1 << 40)
        assert got == data == bytes(sink.data) and file.tell() == len(data)
    assert pool.stats().copied_bytes == len(data)


def test_an_object_larger_than_was_said_does_not_go_on_in_small_pieces(pool):
    """The chunk fits what was said; when more comes, it is given back for one that fits the unknown."""
    data = bytes(2_000_000)
    source = Filling(data, [], answers_none=False)
    with pool.tee(source, Sink([], None, says_how_many=False), 100) as tee:
        assert len(b"".join(iter(lambda: tee.read(5000), b""))) == len(data)
    assert source.calls <= 10
    assert (pool.stats().total_gets, pool.stats().active_buffers) == (2, 0)


@pytest.mark.parametrize(
    ("level", "chunk"), [(PressureLevel.NORMAL, 256), (PressureLevel.HIGH, 128), (PressureLevel.CRITICAL, 64)]
)
def test_the_chunk_is_smaller_while_memory_is_short(pool, level, chunk):
    """By the level that the pool was told last."""
    pool.relieve(level)
    source = Filling(bytes(1_000_000), [], answers_none=False)
    with pool.tee(source, Sink([], None, says_how_many=False)) as tee:
        assert tee.read(1) == bytes(1) and source.position == chunk * 1024


def test_elapsed_is_the_time_in_the_source_and_the_sink_alone(pool, monkeypatch):
    """On a clock that only the two ends move."""
    now = [0.0]
    monkeypatch.setattr("daramjwee.buffers.tee.perf_counter", lambda: now[0])
    monkeypatch.setattr("daramjwee.buffers.tee_sink.perf_counter", lambda: now[0])

    class Slow(Filling):
        def readinto(self, view):
            now[0] += 2.0
            return super().readinto(view)

    class SlowSink(Sink):
        def write(self, piece):
            now[0] += 0.25
            return super().write(piece)

    source, sink = Slow(b"x" * 100, [40, 40], answers_none=False), SlowSink([], 90, says_how_many=False)
    with pool.tee(source, sink, on_sink_error="drop") as tee:
        assert tee.read(60) == b"x" * 60 and tee.stats.elapsed == 2 * 2.0 + 0.25
        assert tee.read() == b"x" * 40 and tee.stats.elapsed == 4 * 2.0 + 3 * 0.25


def test_a_lost_tee_is_not_counted(pool):
    """A finalizer takes no lock: only a tee that came to its end, or was closed, is in the pool's statistics."""
    tee = pool.tee(io.BytesIO(b"0123456789"), io.BytesIO())
    tee.read(3)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del tee
    stats = pool.stats()
    assert (stats.copies, stats.active_buffers, stats.lost_leases) == (0, 0, 0)


@pytest.mark.parametrize("buffering", [-1, 0])
@pytest.mark.parametrize("size", [10, 1 << 20, -1])
def test_a_pipe_that_would_block_is_not_taken_for_its_end(pool, buffering, size):
    """Whatever is asked for: what comes later is handed out later."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    sink = io.BytesIO()
    with open(reading, "rb", buffering=buffering) as source, pool.tee(source, sink) as tee:
        with pytest.raises(BlockingIOError):
            tee.read(size)
        os.write(writing, b"0123456789")
        assert tee.read(size) == b"0123456789" == sink.getvalue()
        with pytest.raises(BlockingIOError):
            tee.read(size)
        os.write(writing, b"later")
        os.close(writing)
        assert tee.read(size) + tee.read(size) == b"later" and tee.read(size) == b""
        assert sink.getvalue() == b"0123456789later"
