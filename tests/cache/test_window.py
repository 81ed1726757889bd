"""Objects that no tier has room for: streamed through a bounded window, for any number of readers."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from daramjwee import Cache, FillAborted, MemoryStore, Status
from daramjwee.buffers.pressure import EFFECTS, PressureLevel
from daramjwee.fills import flight as flight_module
from daramjwee.fills.window import PIECE_BYTES
from daramjwee.testing.leaks import no_leaks
from daramjwee.testing.origin import Gate, ScriptedOrigin

if TYPE_CHECKING:
    from collections.abc import Iterator

BIG = os.urandom(6 * 1024 * 1024 + 11)
WINDOW_BYTES = EFFECTS[PressureLevel.NORMAL].reads_ahead * PIECE_BYTES
STEPS = [BIG[i : i + 200_000] for i in range(0, len(BIG), 200_000)]


@pytest.fixture
def origin() -> ScriptedOrigin:
    return ScriptedOrigin()


@pytest.fixture
def cache(origin: ScriptedOrigin) -> Iterator[Cache]:
    with Cache(MemoryStore("1MiB"), origin=origin, memory_limit="32MiB") as cache:
        yield cache


@pytest.mark.parametrize("size", ["right", None])
def test_an_object_larger_than_every_tier_is_streamed_whole(
    cache: Cache, origin: ScriptedOrigin, size: str | None
) -> None:
    """Of known size it never touches the tier; of unknown size it moves to the window when the tier is full."""
    origin.script("big", *STEPS, size=size)
    with no_leaks(cache, threads=False):
        for _ in range(2):
            with cache.open("big") as stream:
                assert stream.read(100) == BIG[:100]
                assert b"".join(stream) == BIG[100:]
    assert "big" not in cache
    stats = cache.stats()
    assert stats.tiers[0].usage.stagings == 0
    assert stats.memory_used <= 8 * 1024 * 1024
    assert cache._engine.flights.fillers.wait_idle(30)  # readers wake before the body is closed
    assert origin.open_bodies == 0


@pytest.mark.parametrize("size", ["right", None])
def test_readers_share_the_window_and_all_get_every_byte(
    cache: Cache, origin: ScriptedOrigin, size: str | None
) -> None:
    """One fetch for all that came before the window moved on; the others fetch for themselves, visibly."""
    gate = Gate()
    origin.script("big", STEPS[0], gate, *STEPS[1:], size=size)
    barrier = threading.Barrier(6, action=gate.open)

    def read(number: int) -> tuple[Status, bytes]:
        with cache.open("big") as stream:
            barrier.wait(30)
            return stream.status, b"".join(iter(lambda: stream.read(10_000 * (number + 1)), b""))

    with ThreadPoolExecutor(6) as pool, no_leaks(cache, threads=False):
        results = list(pool.map(read, range(6)))
    assert all(data == BIG for _, data in results)
    assert sorted(status.name for status, _ in results) == ["JOINED"] * 5 + ["MISS"]
    assert origin.fetches() == 1


def test_the_pump_waits_for_the_slowest_reader(cache: Cache, origin: ScriptedOrigin) -> None:
    """What is held for a reader that does not read stays within the window."""
    origin.script("big", *STEPS)
    with cache.open("big") as slow, cache.open("big") as fast:
        fast.read(WINDOW_BYTES)
        (flight,) = cache._engine.flights.running()
        assert len(flight.window) <= WINDOW_BYTES + PIECE_BYTES
        assert slow.read(10) == BIG[:10]


@pytest.mark.parametrize("level", PressureLevel)
def test_a_fill_runs_less_far_ahead_when_memory_is_short(
    cache: Cache, origin: ScriptedOrigin, level: PressureLevel
) -> None:
    """What is kept for the slowest reader follows the level, and follows it back when that has passed."""
    origin.script("big", *STEPS)
    step = len(STEPS[0])
    most = EFFECTS[level].reads_ahead * PIECE_BYTES
    cache._engine.pool.relieve(level)
    with cache.open("big") as slow, cache.open("big") as fast:
        # The fast one gets all that the fill pulls while the slow one holds the window: then it would wait.
        got = 0
        while got < max(most, step):
            got += len(fast.read1(PIECE_BYTES))
        (flight,) = cache._engine.flights.running()
        assert got == len(flight.window) == -(-max(most, 1) // step) * step
        assert flight.window.short is (level is PressureLevel.CRITICAL)
        assert (cache._engine.ledger.held > PIECE_BYTES) is bool(most)
        cache._engine.pool.relieve(PressureLevel.NORMAL)
        assert slow.read(got) == BIG[:got]
        start = got
        while got - start < WINDOW_BYTES:
            got += len(fast.read1(PIECE_BYTES))
        assert len(flight.window) == got - start
        slow.close()
        assert fast.read() == BIG[got:]


def test_a_late_comer_fetches_for_itself(cache: Cache, origin: ScriptedOrigin) -> None:
    """Once the window has moved on, a new reader cannot join; it is a counted BYPASS with all the bytes."""
    origin.script("big", *STEPS)
    with cache.open("big") as first:
        first.read(3 * WINDOW_BYTES)
        with cache.open("big") as late:
            assert late.status is Status.BYPASS
            assert late.read() == BIG
        assert first.read() == BIG[3 * WINDOW_BYTES :]
    assert origin.fetches() == 2
    assert cache.stats().bypassed == 1


def test_a_windowed_stream_is_not_seekable(cache: Cache, origin: ScriptedOrigin) -> None:
    """And says why."""
    origin.script("big", *STEPS)
    with cache.open("big") as stream:
        assert not stream.seekable()
        with pytest.raises(OSError, match="no tier has room"):
            stream.seek(0)


def test_a_reader_that_stands_still_is_detached_for_the_others(
    cache: Cache, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others wait at the head of a full window: after a while the one that blocks them is let go, and told."""
    monkeypatch.setattr(flight_module, "SLOW_READER_SECONDS", 0.5)
    monkeypatch.setattr(flight_module, "FILLER_LOOK_SECONDS", 0.1)
    origin.script("big", *STEPS)
    with cache.open("big") as slow, cache.open("big") as fast:
        assert fast.read() == BIG
        with pytest.raises(FillAborted, match="too slow"):
            slow.read()
    assert cache.stats().events["reader_detached"] == 1


def test_a_lost_reader_does_not_hold_the_window(
    cache: Cache, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that was garbage collected unread counts as gone at the filler's next look."""
    monkeypatch.setattr(flight_module, "FILLER_LOOK_SECONDS", 0.1)
    origin.script("big", *STEPS)
    lost = cache.open("big")
    with cache.open("big") as stream:
        stream.read(WINDOW_BYTES)
        with pytest.warns(ResourceWarning, match="unclosed"):
            del lost
        assert stream.read() == BIG[WINDOW_BYTES:]


def test_the_last_reader_of_a_window_ends_its_fill(cache: Cache, origin: ScriptedOrigin) -> None:
    """Nobody reads and nothing can be kept: the origin is not asked for the rest."""
    origin.script("big", *STEPS)
    with no_leaks(cache, threads=False), cache.open("big") as stream:
        stream.read(10)
    assert cache.stats().flights == 0
    assert cache._engine.flights.fillers.wait_idle(30)  # readers wake before the body is closed
    assert origin.open_bodies == 0
