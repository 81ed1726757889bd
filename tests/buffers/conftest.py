"""Shared by the tests of the buffers: a pool that must come back to rest, and plain endpoints."""

from __future__ import annotations

import importlib.util
import random
import threading
from functools import partial
from pathlib import Path

import pytest

from daramjwee.buffers import BufferPool


class PlainSource:
    """Only `readinto` and `read`, over bytes: no descriptor. `shorts`: a generator of how much a read may give."""

    def __init__(self, data: bytes, *, seed: int | None = None, fail_at: int | None = None) -> None:
        self.data = memoryview(data)
        self.position = 0
        self.random = random.Random(seed) if seed is not None else None
        self.fail_at = fail_at

    def _some(self, most: int) -> int:
        if self.fail_at is not None:
            if self.position >= self.fail_at:
                raise ConnectionResetError(f"source failed at {self.position}")
            most = min(most, self.fail_at - self.position)
        count = min(most, len(self.data) - self.position)
        if self.random is not None and count > 1:
            count = self.random.randint(1, count)
        return count

    def readinto(self, view) -> int:
        count = self._some(len(view))
        view[:count] = self.data[self.position : self.position + count]
        self.position += count
        return count

    def read(self, size: int = -1) -> bytes:
        count = self._some(len(self.data) - self.position if size < 0 else size)
        piece = bytes(self.data[self.position : self.position + count])
        self.position += count
        return piece


class ReadOnlySource:
    """Only `read`."""

    def __init__(self, *args, **kwargs) -> None:
        self.source = PlainSource(*args, **kwargs)
        self.read = self.source.read


class PlainSink:
    """Only `write`, which may take less than it is given, and may fail at a byte."""

    def __init__(self, *, seed: int | None = None, fail_at: int | None = None, answers_none: bool = False) -> None:
        self.data = bytearray()
        self.random = random.Random(seed) if seed is not None else None
        self.fail_at = fail_at
        self.answers_none = answers_none

    def write(self, piece) -> int | None:
        count = len(piece)
        if self.random is not None and count > 1:
            count = self.random.randint(1, count)
        if self.fail_at is not None:
            if len(self.data) >= self.fail_at:
                raise OSError(28, "sink is full")
            count = min(count, self.fail_at - len(self.data))
        self.data += piece[:count]
        return None if self.answers_none else count


@pytest.fixture
def pool():
    """An open pool; at the end every lease must be back."""
    with BufferPool() as made:
        yield made
        stats = made.stats()
        assert stats.active_buffers == 0 and stats.total_gets == stats.total_puts
        assert made.ledger.held == stats.arena_bytes + stats.private_bytes
    assert made.ledger.held == 0


class Zeros:
    """A source of so many zeros that fills what it is given, and touches none of it."""

    def __init__(self, count: int) -> None:
        self.left = count

    def readinto(self, view) -> int:
        count = min(len(view), self.left)
        self.left -= count
        return count


class Nowhere:
    """A sink that keeps nothing."""

    def write(self, piece) -> int:
        return len(piece)


@pytest.fixture(scope="session")
def endpoints():
    class Endpoints:
        source = PlainSource
        read_only = ReadOnlySource
        sink = PlainSink
        zeros = Zeros
        nowhere = Nowhere

    return Endpoints


class Announced:
    """A lock that says when somebody has found it taken, and with which `limits` that one then waits."""

    def __init__(self, lock) -> None:
        self.lock, self.found_taken, self.limits = lock, threading.Event(), None

    def acquire(self, *limits) -> bool:
        if self.lock.acquire(blocking=False):
            return True
        self.limits = limits
        self.found_taken.set()
        return self.lock.acquire(*limits)

    def release(self) -> None:
        self.lock.release()


@pytest.fixture(scope="session")
def announced():
    return Announced


def _beside(name: str):
    """The module in the file beside this one: tests are no package, and cannot import each other."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def explorer():
    """The module beside this file: `explore` goes every way of a pure model, `Counterexample` is what it finds."""
    return _beside("explorer")


@pytest.fixture
def fake_root(tmp_path):
    """`fake_root(group=..., mounted=...)`: a `FakeRoot`, see there."""
    return partial(_beside("fake_root").FakeRoot, tmp_path)
