"""The short way of a copy beside the long one: the same bytes, the same memory, the same errors, whatever the ends do."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import logging
import random

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig, pool
from daramjwee.errors import ConfigError, Overloaded
from daramjwee.units import KIB, MIB

DATA = random.Random(1).randbytes(2 * MIB)


class Filling(io.RawIOBase):
    """Fills what it is given, at most `step` bytes at a time; at the end it does `last`."""

    def __init__(self, data: bytes, step: int = 1 << 30, last=lambda: 0) -> None:
        self.data, self.at, self.step, self.last = data, 0, step, last

    def readable(self) -> bool:
        return True

    def readinto(self, view) -> int:
        count = min(len(view), self.step, len(self.data) - self.at)
        if not count:
            return self.last()
        view[:count] = self.data[self.at : self.at + count]
        self.at += count
        return count

    def tell(self) -> int:
        return self.at


class Returning:
    """Only returns bytes."""

    def __init__(self, data: bytes, step: int = 1 << 30) -> None:
        self.data, self.at, self.step = data, 0, step

    def read(self, size: int = -1) -> bytes:
        data = self.data[self.at : self.at + min(size, self.step)]
        self.at += len(data)
        return data

    def tell(self) -> int:
        return self.at


def fails(error: BaseException):
    def fail() -> int:
        raise error

    return fail


class Taking:
    """Takes at most `step` bytes at a time, and from the `turn`th write on it does something else."""

    def __init__(self, step: int = 1 << 30, turn: int = -1, then=lambda: 0) -> None:
        self.got, self.step, self.turn, self.then = bytearray(), step, turn, then
        self.pieces: list[int] = []

    def write(self, data):
        if self.turn == len(self.pieces):
            return self.then()
        self.got += data[: self.step]
        self.pieces.append(min(self.step, len(data)))
        return self.pieces[-1]


class RawTaking(Taking, io.RawIOBase):
    """The same, and None from it means that it would block."""

    def writable(self) -> bool:
        return True


class Keeping(Taking):
    """Keeps a view of what it is given."""

    def write(self, data):
        self.kept = memoryview(data)
        return super().write(data)


def opened(path, mode: str = "rb", buffering: int = -1):
    return open(path, mode, buffering=buffering)


SOURCES = {
    "file": lambda file, data: opened(file(data)),
    "raw file": lambda file, data: opened(file(data), buffering=0),
    "file, in the middle": lambda file, data: forwarded(opened(file(b"x" * 5000 + data)), 5000),
    "file, at its end": lambda file, data: forwarded(opened(file(data)), len(data)),
    "both ways": lambda file, data: opened(file(data), "r+b"),
    "gzip": lambda file, data: gzip.GzipFile(file(gzip.compress(data, 0))),
    "bytesio": lambda _, data: io.BytesIO(data),
    "bytesio, in the middle": lambda _, data: forwarded(io.BytesIO(b"x" * 5000 + data), 5000),
    "filling": lambda _, data: Filling(data),
    "filling, short": lambda _, data: Filling(data, 10_000),
    "filling, blocks": lambda _, data: Filling(data, last=lambda: None),
    "filling, would block": lambda _, data: Filling(data, last=fails(BlockingIOError(errno.EAGAIN, "not ready"))),
    "filling, fails": lambda _, data: Filling(data, last=fails(OSError(errno.EIO, "broken"))),
    "filling, too much": lambda _, data: Filling(data, last=lambda: 1 << 30),
    "filling, stops": lambda _, data: Filling(data, last=fails(KeyError("stop"))),
    "returning": lambda _, data: Returning(data),
    "returning, short": lambda _, data: Returning(data, 10_000),
    "text": lambda _, data: io.StringIO("text"),
    "nothing": lambda _, data: object(),
}
SINKS = {
    "file": lambda target: opened(target, "wb"),
    "raw file": lambda target: opened(target, "wb", buffering=0),
    "both ways": lambda target: opened(target, "w+b"),
    "appending": lambda target: opened(target, "ab"),
    "only to read": lambda target: opened(target, "rb"),
    "full": lambda _: opened("/dev/full", "wb", buffering=0),
    "bytesio": lambda _: io.BytesIO(),
    "taking": lambda _: Taking(),
    "taking, short": lambda _: Taking(7000),
    "taking, all by None": lambda _: Taking(turn=1, then=lambda: None),
    "taking, blocks": lambda _: RawTaking(turn=1, then=lambda: None),
    "taking, blocks first": lambda _: RawTaking(turn=0, then=lambda: None),
    "taking, short and blocks": lambda _: RawTaking(7000, turn=2, then=lambda: None),
    "taking, would block": lambda _: Taking(turn=1, then=fails(BlockingIOError(errno.EAGAIN, "not ready", 9))),
    "taking, fails": lambda _: Taking(turn=1, then=fails(OSError(errno.EPIPE, "gone"))),
    "taking, too much": lambda _: Taking(turn=1, then=lambda: 1 << 30),
    "taking, nothing": lambda _: Taking(turn=1, then=lambda: 0),
    "taking, nonsense": lambda _: Taking(turn=0, then=lambda: "all"),
    "taking, stops": lambda _: Taking(turn=1, then=fails(KeyError("stop"))),
    "keeping": lambda _: Keeping(),
    "text": lambda _: io.StringIO(),
    "nothing": lambda _: object(),
}


def forwarded(opened, position: int):
    opened.seek(position)
    return opened


def outcome(folder, source: str, sink: str, data: bytes, told: int | None, **settings) -> tuple:
    """All that can be seen of a copy."""

    def file(content: bytes) -> str:
        (folder / "source").write_bytes(content)
        return str(folder / "source")

    (folder / "target").write_bytes(b"old")
    src, dst = SOURCES[source](file, data), SINKS[sink](folder / "target")
    with AdaptiveBufferPool(BufferPoolConfig(**settings)) as buffers:
        try:
            result: tuple = tuple(buffers.copy(src, dst, told)[:3])
        except Exception as error:
            written = getattr(error, "characters_written", None)
            result = (type(error), str(error), tuple(getattr(error, "__notes__", ())), written)
        position = src.tell() if hasattr(src, "tell") else None
        got = bytes(dst.got) if hasattr(dst, "got") else dst.getvalue() if hasattr(dst, "getvalue") else None
        stats, pieces = buffers.stats(), getattr(dst, "pieces", None)
        for end in (src, dst):
            if hasattr(end, "close"):
                end.close()
        written = (folder / "target").read_bytes()
    memory = stats.total_gets, stats.total_puts, stats.active_buffers, stats.quarantined, stats.arena_bytes
    counts = stats.copies, stats.copied_bytes, stats.fallbacks, stats.gate.entered, stats.gate.active
    return result, position, got, pieces, written, memory, counts


@pytest.fixture(autouse=True)
def shares_nothing(tmp_path):
    """The first copy of a file finds out that the file system shares no blocks."""
    outcome(tmp_path, "file", "file", DATA[: 64 * KIB], None)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("sink", SINKS)
def test_both_ways_do_the_same(tmp_path, monkeypatch, source, sink):
    """Bytes, pieces, memory, places in the gate, errors and what they say, where the source stands after it."""
    # Of a file that fits into one chunk the short way does not ask where it begins, and so not whether anything is left.
    some = random.Random(f"{source} {sink}").sample((0, 100, 262_144, 600_000), 2)
    sizes = [600_000] if source == "file, at its end" else some
    for size in sizes:
        told = random.Random(f"{source} {sink} {size}").choice([None, size])
        short = outcome(tmp_path, source, sink, DATA[:size], told)
        with monkeypatch.context() as patch:
            patch.setattr(pool, "short_way", lambda *_: None)
            assert short == outcome(tmp_path, source, sink, DATA[:size], told)


USUAL = [
    ("file", "file"), ("file", "raw file"), ("raw file", "bytesio"), ("file, in the middle", "taking"), ("bytesio", "file"),
    ("filling", "file"), ("filling, short", "bytesio"), ("filling", "taking, short"), ("gzip", "file"),
    ("returning", "file"), ("returning, short", "taking"),
]  # fmt: skip


@pytest.fixture
def answers(monkeypatch):
    """What the short way answered, each time that it was asked."""
    real, heard = pool.short_way, []

    def asked(*arguments):
        heard.append(real(*arguments))
        return heard[-1]

    monkeypatch.setattr(pool, "short_way", asked)
    return heard


@pytest.mark.parametrize(("source", "sink"), USUAL)
def test_the_usual_ends_go_the_short_way_unless_something_is_configured(tmp_path, answers, source, sink):
    """A chunk's default size is no more than that."""
    for settings in ({}, {"default_buffer_size": "128KiB"}, {"large_object_threshold": "512KiB"}):
        answers.clear()
        outcome(tmp_path, source, sink, DATA[:300_000], 300_000, **settings)
        assert answers != [None] and len(answers) == 1
    for settings in ({"chunk_size": "64KiB"}, {"large_object_strategy": "chunked"}, {"enabled": False}):
        answers.clear()
        outcome(tmp_path, source, sink, DATA[:300_000], 300_000, **settings)
        assert answers == []


def test_who_is_told_or_asked_and_what_limits_or_is_logged_takes_the_long_way(answers, caplog):
    """And what has to wait for a place."""
    with AdaptiveBufferPool(BufferPoolConfig(max_concurrent_large_ops=1)) as buffers:
        for options in ({"limit": 5}, {"timeout": 5}, {"progress": print}, {"cancel": bool}):
            buffers.copy(Filling(DATA), Taking(), **options)
        assert answers == []
        with caplog.at_level(logging.DEBUG, "daramjwee.buffers.copy"):
            buffers.copy(Filling(DATA), Taking())
        assert answers == [None] and "larger than one chunk" not in caplog.text and "unknown size" in caplog.text
        with buffers.acquire("256KiB"), pytest.raises(Overloaded):
            buffers.reconfigure(buffers.config.replace(acquire_timeout=0))
            buffers.copy(Filling(DATA), Taking())
        assert answers == [None, None]
        buffers.copy(Filling(DATA), Taking(), priority=None)
        assert answers[2] is not None and buffers.stats().gate.active == 0


def test_a_priority_that_is_none_is_refused_before_any_byte(answers):
    """Neither way is tried."""
    source = Filling(DATA)
    with AdaptiveBufferPool() as buffers, pytest.raises(ConfigError, match="priority"):
        buffers.copy(source, Taking(), priority="high")
    assert answers == [] and source.at == 0


@pytest.mark.parametrize("source", ["filling", "returning", "bytesio", "file"])
@pytest.mark.parametrize("sink", ["taking", "bytesio", "file"])
@pytest.mark.parametrize("at", range(6))
def test_an_interrupt_at_an_end_leaves_nothing_leased_and_no_place_taken(tmp_path, source, sink, at):
    """Whichever call of an end it comes in; what was said to be written was written."""
    (tmp_path / "s").write_bytes(DATA[:600_000])
    left = [at]

    def call(method):
        def called(*arguments):
            left[0] -= 1
            if left[0] == -1:
                raise KeyboardInterrupt
            return method(*arguments)

        return called

    src = {"filling": lambda: Filling(DATA[:600_000]), "returning": lambda: Returning(DATA[:600_000]),
           "bytesio": lambda: io.BytesIO(DATA[:600_000]), "file": lambda: opened(tmp_path / "s")}[source]()  # fmt: skip
    dst = SINKS[sink](tmp_path / "t")
    if source in {"filling", "returning"}:
        name = "readinto" if source == "filling" else "read"
        setattr(src, name, call(getattr(src, name)))
    if sink == "taking":
        dst.write = call(dst.write)
    with AdaptiveBufferPool() as buffers:
        with contextlib.suppress(KeyboardInterrupt):
            buffers.copy(src, dst, 600_000)
        stats = buffers.stats()
        assert (stats.active_buffers, stats.quarantined, stats.gate.active) == (0, 0, 0)
    for end in (src, dst):
        if hasattr(end, "close"):
            end.close()
