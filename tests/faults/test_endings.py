"""What fails or is ended early leaves nothing: memory goes back when the error is handled, not when garbage is looked for."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from daramjwee import Cache, Closed, CorruptEntry, FetchError, FileStore, Freshness, MemoryStore, NotFound
from daramjwee.engine.lifecycle import Drain
from daramjwee.testing.clock import ManualClock
from daramjwee.testing.origin import ScriptedOrigin

BODY = bytes(range(250)) * 1200


@pytest.fixture
def by_count_alone(untraced: None) -> Iterator[None]:
    """Without the collector: what is not freed by its reference count stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class World:
    """A cache whose origin does wrong, and an entry that has grown old."""

    def __init__(self) -> None:
        self.origin, self.clock = ScriptedOrigin(), ManualClock()
        self.cache = Cache(
            MemoryStore("8MiB"),
            origin=self.origin,
            clock=self.clock,
            freshness=Freshness(fresh=10),
            memory_limit="32MiB",
        )
        self.origin.script("old", BODY, ttl=10)
        assert self.cache.get("old") == BODY
        self.clock.advance(20)
        self.origin.script("old", ConnectionError)
        self.origin.script("broken", BODY, fail_at=len(BODY) - 1)
        self.origin.script("short", BODY, size=len(BODY) + 1)
        self.origin.script("unsized", BODY, BODY, BODY, size=None, fail_at=2 * len(BODY), error=ConnectionError())
        self.origin.script("digest", BODY, digest="sha256:" + "0" * 64)


def read_joined(cache: Cache) -> None:
    with cache.open("unsized") as one, cache.open("unsized") as other:
        for stream in (one, other):
            with suppress(FetchError):
                stream.read()


FAILURES: dict[str, Callable[[Cache], object]] = {
    "an origin that is down": lambda cache: cache.get("old"),
    "a body that breaks off": lambda cache: cache.get("broken"),
    "a body that is too short": lambda cache: cache.get("short"),
    "a body of another digest": lambda cache: cache.get("digest"),
    "a key that does not exist": lambda cache: cache.get("none"),
    "a refresh": lambda cache: cache.refresh("old"),
    "two readers": read_joined,
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_fill_that_fails_leaves_no_cycle_of_references(name: str, by_count_alone: None) -> None:
    """The error, its traceback and the fill know each other; what was open on the way is free once the error is handled."""
    world = World()
    with world.cache as cache:
        for _ in range(3):
            with suppress(FetchError, NotFound):
                FAILURES[name](cache)
        assert cache._engine.flights.fillers.wait_idle(30)
        gc.collect()  # what was made once, on first use
        for _ in range(5):
            with suppress(FetchError, NotFound):
                FAILURES[name](cache)
        assert cache._engine.flights.fillers.wait_idle(30)
        assert gc.collect() == 0
        world.clock.advance(20)
        cache.set("old", b"new")
        cache.delete("old")
        assert cache._engine.ledger.held == cache.buffers.stats().arena_bytes


def test_an_error_in_mid_copy_keeps_no_memory_once_it_is_handled(by_count_alone: None, tmp_path: Path) -> None:
    """The buffer that the copy went through is used again: nothing that the error leads to holds a view of it."""
    origin = ScriptedOrigin()
    origin.script("k", BODY, BODY)
    with Cache(FileStore(tmp_path, capacity="8MiB"), origin=origin) as cache:
        cache.get("k")
        (body,) = tmp_path.rglob("*.body")
        damaged = bytearray(body.read_bytes())
        damaged[-1] ^= 1
        body.write_bytes(damaged)

        class Sink:
            def write(self, piece: memoryview) -> int:
                return len(piece)

        with cache.open("k") as stream:
            stream.read(10)
            with pytest.raises(CorruptEntry):
                stream.copy_to(Sink())
        assert cache.buffers.stats().quarantined == 0


def test_a_closed_stream_that_is_kept_keeps_no_bytes() -> None:
    """Neither of a hit, nor of the fill that it read along with: what was evicted meanwhile is free."""
    origin = ScriptedOrigin({"k": BODY})
    with Cache(MemoryStore("8MiB"), origin=origin, memory_limit="32MiB", buffers=None) as cache:
        kept = [cache.open("k"), cache.open("k")]
        for stream in kept:
            assert stream.read() == BODY
            stream.close()
        kept += [cache.open("k")]
        kept[-1].close()
        assert cache._engine.flights.fillers.wait_idle(30)
        assert cache.stats().memory_used == len(BODY)
        cache.delete("k")
        assert cache.stats().memory_used == 0


class LateFillers:
    """Threads that take every job and begin it when told to."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], object]] = []

    def submit(self, job: Callable[[], object]) -> bool:
        self.jobs.append(job)
        return True

    def close(self, timeout: float) -> bool:
        return True  # what was not begun is dropped


@pytest.mark.parametrize("close_first", [True, False])
def test_an_abort_ends_a_fill_whose_thread_has_not_come_yet(close_first: bool) -> None:
    """Its reader gets `Closed`, its body is closed and its buffer is back, whether or not the thread comes after all."""
    origin, fillers = ScriptedOrigin(), LateFillers()
    origin.script("k", *[BODY] * 4)
    cache = Cache(MemoryStore("8MiB"), origin=origin, memory_limit="32MiB")
    cache._engine.flights.fillers = fillers
    stream = cache.open("k")
    assert stream.read(1) == BODY[:1] and len(fillers.jobs) == 1
    if close_first:
        stream.close()
    cache.close(Drain.ABORT)
    assert origin.open_bodies == 0
    assert cache.buffers.stats().active_buffers == 0
    if not close_first:
        with pytest.raises(Closed):
            stream.read()
        stream.close()
    fillers.jobs[0]()
    assert cache._engine.ledger.held == 0


def test_a_fill_that_is_aborted_while_its_thread_is_being_asked_for_ends() -> None:
    """Between the giving of the job and the noting of it there is a moment too."""
    origin = ScriptedOrigin()
    origin.script("k", *[BODY] * 4)
    cache = Cache(MemoryStore("8MiB"), origin=origin, memory_limit="32MiB")

    class Closing(LateFillers):
        def submit(self, job: Callable[[], object]) -> bool:
            cache.close(Drain.ABORT)
            return super().submit(job)

    cache._engine.flights.fillers = Closing()
    with cache.open("k") as stream, pytest.raises(Closed):
        stream.read()
    assert origin.open_bodies == 0
    assert cache.buffers.stats().active_buffers == 0
