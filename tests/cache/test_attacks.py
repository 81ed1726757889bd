"""What was found by attacking the cache: each test hung, leaked or gave wrong bytes before its mend. No sleeps."""

from __future__ import annotations

import gc
import io
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from daramjwee import (
    BufferPoolConfig,
    Cache,
    Closed,
    Drain,
    FetchError,
    FetchResult,
    FileStore,
    Freshness,
    MemoryStore,
    Status,
)
from daramjwee.fills.flight import Flight
from daramjwee.testing.clock import ManualClock
from daramjwee.testing.origin import Gate, ScriptedOrigin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daramjwee import FetchRequest

MIB = 1024 * 1024
# Far more than any of these takes, short enough to fail in: what is waited for here once never came.
SOON = 30.0


class Call:
    """A call on a thread of its own, that may hang without hanging the test."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._outcome: list[Any] = []
        self._error: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._outcome.append(call())
        except BaseException as error:
            self._error.append(error)

    def result(self, seconds: float = SOON) -> Any:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "it hangs"
        if self._error:
            raise self._error[0]
        return self._outcome[0]


@pytest.fixture
def closing() -> Iterator[Callable[[Cache], Cache]]:
    """Keeps caches to abort at the end, whatever state an attack has left them in."""
    kept: list[Cache] = []

    def keep(cache: Cache) -> Cache:
        kept.append(cache)
        return cache

    yield keep
    for cache in kept:
        Call(lambda cache=cache: cache.close(Drain.ABORT)).result(40)


def pieces(size: int, step: int = 65_536) -> list[bytes]:
    return [bytes(min(step, size - at)) for at in range(0, size, step)]


# -- what no tier has room for ---------------------------------------------------------------------------------


def test_refreshing_what_no_tier_has_room_for_ends(closing: Callable[[Cache], Cache]) -> None:
    """Nobody reads along, so its window would be full for ever: BYPASS says that it was not kept."""
    origin = ScriptedOrigin()
    origin.script("big", *pieces(5 * MIB))
    cache = closing(Cache(MemoryStore("1MiB"), origin=origin, memory_limit="64MiB"))
    assert Call(lambda: cache.refresh("big")).result() is Status.BYPASS


def test_the_path_of_what_no_tier_has_room_for_is_refused(closing: Callable[[Cache], Cache]) -> None:
    """It cannot wait for a file that never comes, while it keeps the window from moving."""
    origin = ScriptedOrigin()
    origin.script("big", *pieces(5 * MIB))
    cache = closing(Cache(MemoryStore("1MiB"), origin=origin, memory_limit="64MiB"))
    with cache.open("big") as stream, pytest.raises(io.UnsupportedOperation):
        Call(stream.path).result()


def test_a_window_without_a_filler_is_not_held_by_a_lost_reader(
    closing: Callable[[Cache], Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All fillers are busy: the reader that waits sees to the one that was garbage collected."""
    origin = ScriptedOrigin()
    origin.script("big", *pieces(5 * MIB))
    cache = closing(Cache(MemoryStore("1MiB"), origin=origin, memory_limit="64MiB"))
    monkeypatch.setattr(cache._engine.flights.fillers, "submit", lambda job: False)
    lost, stream = cache.open("big"), cache.open("big")
    lost.read(10)
    reading = Call(lambda: len(stream.read()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del lost
        gc.collect()
    assert reading.result() == 5 * MIB
    stream.close()


# -- memory ----------------------------------------------------------------------------------------------------


def test_a_window_needs_no_memory_but_its_lease(
    closing: Callable[[Cache], Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flights that hold a lease and wait for memory of their windows would wait for one another."""
    monkeypatch.setattr("daramjwee.fills.flight.WINDOW_MEMORY_SECONDS", 0.2, raising=False)
    data = b"".join(bytes([i]) * 65_536 for i in range(48))
    origin = ScriptedOrigin()
    origin.script("big", *(data[i : i + 65_536] for i in range(0, len(data), 65_536)))
    cache = closing(Cache(MemoryStore("1MiB"), origin=origin, memory_limit="4MiB"))
    ledger = cache._engine.ledger
    cache.buffers.acquire(256 * 1024).release()  # one chunk is there, and no more memory than that
    held = ledger.limit - ledger.held
    assert ledger.try_charge(held)
    try:
        with cache.open("big") as stream:
            assert stream.read() == data
    finally:
        ledger.credit(held)


def test_what_fills_the_memory_limit_is_still_served(closing: Callable[[Cache], Cache]) -> None:
    """A staging that takes all memory must not leave none to move the bytes through."""
    data = bytes(4 * MIB - 100_000)
    cache = closing(
        Cache(
            MemoryStore("4MiB", max_object_size="4MiB"),
            origin=lambda request: FetchResult(iter([data]), size=len(data)),
            memory_limit="4MiB",
            buffers=BufferPoolConfig(acquire_timeout=0.2),
        )
    )
    assert cache.get("k") == data


# -- background work -------------------------------------------------------------------------------------------


def test_a_renewal_that_no_worker_takes_leaves_its_key_usable(
    closing: Callable[[Cache], Cache], origin: ScriptedOrigin, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flight that was entered for it ends; the next expired open fetches, and what it fetched is kept."""
    origin.script("k", b"bytes")
    freshness = Freshness(fresh="1m", stale_while_revalidate="1h")
    cache = closing(Cache(MemoryStore("8MiB"), origin=origin, clock=clock, freshness=freshness))
    cache.get("k")
    clock.advance("2m")
    with monkeypatch.context() as patch:
        patch.setattr(cache._engine.flights.workers, "submit", lambda job: False)
        assert cache.get("k") == b"bytes"
    assert cache.stats().flights == 0
    assert len(cache._engine.flights.fence) == 0
    clock.advance("5h")
    with cache.open("k") as stream:
        assert stream.status is Status.MISS
        stream.read()
    with cache.open("k") as stream:
        assert stream.status is Status.HIT


def test_a_fetcher_that_exits_takes_no_worker_with_it(closing: Callable[[Cache], Cache], clock: ManualClock) -> None:
    """SystemExit and its like end one renewal, not the thread that others count on."""
    renewed = threading.Event()
    calls: list[str] = []

    def fetch(request: FetchRequest) -> bytes:
        calls.append(request.key)
        if calls.count("a") == 2 and request.key == "a":
            raise SystemExit
        if calls.count("b") == 2:
            renewed.set()
        return b"bytes"

    freshness = Freshness(fresh="1m", stale_while_revalidate="1h")
    cache = closing(Cache(MemoryStore("8MiB"), origin=fetch, clock=clock, freshness=freshness, workers=1))
    cache.get("a")
    cache.get("b")
    clock.advance("2m")
    cache.get("a")
    cache.get("b")
    assert renewed.wait(SOON)


def test_an_uncacheable_answer_after_the_time_limit_is_closed() -> None:
    """Whoever asked has gone; its body must not keep a connection."""
    answer, closed = Gate(), threading.Event()

    class Response:
        def read(self, size: int) -> bytes:
            return b""

        def close(self) -> None:
            closed.set()

    def fetch(request: FetchRequest) -> FetchResult:
        answer.wait()
        return FetchResult(Response(), cacheable=False)

    with Cache(MemoryStore("8MiB"), origin=fetch) as cache:
        with pytest.raises(FetchError, match="timeout"):
            cache.open("k", timeout=0.05)
        answer.open()
        assert closed.wait(SOON)


# -- closing ---------------------------------------------------------------------------------------------------


def test_aborting_ends_readers_whose_origin_stands_still(closing: Callable[[Cache], Cache]) -> None:
    """`Drain.ABORT`: readers get Closed at once, not when the origin sends its next byte."""
    gate, origin = Gate(), ScriptedOrigin()
    origin.script("k", b"first", gate, b"last")
    cache = closing(Cache(MemoryStore("8MiB"), origin=origin))
    stream = cache.open("k")
    reading = Call(stream.read)
    gate.wait_reached()
    ending = Call(lambda: cache.close(Drain.ABORT))
    try:
        with pytest.raises(Closed):
            reading.result()
    finally:
        gate.open()
        ending.result(40)
        stream.close()


def test_closing_ends_whoever_waits_for_a_renewal_that_had_not_begun(
    closing: Callable[[Cache], Cache], clock: ManualClock
) -> None:
    """Its job is dropped from the queue, and nobody else would tell."""
    gate = Gate()
    calls: list[str] = []

    def fetch(request: FetchRequest) -> bytes:
        calls.append(request.key)
        if calls.count("a") > 1:
            gate.wait()
        return b"bytes"

    freshness = Freshness(fresh="1m", stale_while_revalidate="1h")
    cache = closing(Cache(MemoryStore("8MiB"), origin=fetch, clock=clock, freshness=freshness, workers=1))
    cache.get("a")
    cache.get("b")
    clock.advance("2m")
    cache.get("a")  # its renewal keeps the only worker
    gate.wait_reached()
    cache.get("b")  # its renewal waits
    flight = cache._engine.flights._table["b"]
    waiting = Call(lambda: cache.open("b", freshness=Freshness(fresh="1m")))
    while not flight.crowd.waiters:
        assert waiting._thread.is_alive()
    ending = Call(lambda: cache.close(Drain.ABORT))
    try:
        with pytest.raises(Closed):
            waiting.result()
    finally:
        gate.open()
        ending.result(40)


def test_closing_twice_at_once_still_finishes_what_runs() -> None:
    """The second close does nothing; it must not take the buffers from fills that the first waits for."""
    gate = Gate()

    def fetch(request: FetchRequest) -> Iterator[bytes]:
        gate.wait()
        return iter([b"bytes"])

    cache = Cache(MemoryStore("8MiB"), origin=fetch)
    reading = Call(lambda: cache.get("k"))
    gate.wait_reached()
    first = Call(cache.close)
    while not cache._engine.closed:
        assert first._thread.is_alive()
    cache.close()
    gate.open()
    assert reading.result() == b"bytes"
    first.result(40)


# -- one object, its bytes -------------------------------------------------------------------------------------


def test_a_promotion_never_mixes_two_objects(tmp_path: Path) -> None:
    """An entry that is replaced between look-up and promotion: all bytes of one of the two."""
    old, new = b"a" * 10, b"B" * 400_000

    class Racing(FileStore):
        race: Callable[[], object] | None = None

        def open(self, key: str) -> Any:
            entry = super().open(key)
            race, self.race = self.race, None
            if race is not None:
                race()
            return entry

    lower, upper = Racing(tmp_path, capacity="16MiB"), MemoryStore("8MiB")
    with Cache(upper, lower) as cache:
        cache.set("k", iter([old]))
        cache._engine.flights.workers.wait_idle(SOON)
        upper.delete("k")
        lower.race = lambda: cache.set("k", iter([new]))
        with cache.open("k") as stream:
            assert stream.read() in (old, new)


def test_a_path_has_the_bytes_of_its_stream(tmp_path: Path) -> None:
    """Or is refused, when the key was set anew since the stream was opened."""
    clock = ManualClock()
    with Cache(MemoryStore("8MiB"), FileStore(tmp_path, capacity="8MiB"), clock=clock) as cache:
        cache.set("k", b"old")
        with cache.open("k") as stream:
            clock.advance("1s")
            cache.set("k", b"new")
            try:
                with open(stream.path(), "rb") as file:
                    assert file.read() == b"old"
            except io.UnsupportedOperation:
                assert stream.read() == b"old"


def test_a_shorter_lifetime_is_not_answered_by_a_promotion(tmp_path: Path) -> None:
    """An open for which the copy is too old asks the origin, though that copy is on its way up for others."""
    gate, clock = Gate(), ManualClock()

    class Slow(FileStore):
        slow = False

        def open(self, key: str) -> Any:
            entry = super().open(key)
            return SlowEntry(entry) if self.slow and entry is not None else entry

    class SlowEntry:
        def __init__(self, entry: Any) -> None:
            self.entry = entry
            self.metadata, self.size = entry.metadata, entry.size

        def readinto_at(self, offset: int, view: memoryview) -> int:
            gate.wait()
            return int(self.entry.readinto_at(offset, view))

        def close(self) -> None:
            self.entry.close()

    upper, lower = MemoryStore("8MiB"), Slow(tmp_path, capacity="8MiB")
    with Cache(upper, lower, origin=lambda request: b"new", clock=clock) as cache:
        cache.set("k", b"old")
        cache._engine.flights.workers.wait_idle(SOON)
        upper.delete("k")
        clock.advance("1h")
        lower.slow = True
        promoting = Call(lambda: cache.get("k"))
        gate.wait_reached()
        lower.slow = False

        def strict() -> bytes:
            with cache.open("k", freshness=Freshness(fresh="1m")) as stream:
                return stream.read()

        asking = Call(strict)
        flight = cache._engine.flights._table.get("k")
        while asking._thread.is_alive() and flight is not None and not flight.crowd.waiters:
            flight = cache._engine.flights._table.get("k")
        gate.open()
        assert asking.result() == b"new"
        promoting.result()


# -- finalizers and interrupts ---------------------------------------------------------------------------------


def test_a_lost_stream_with_a_path_takes_no_lock_of_its_store(tmp_path: Path) -> None:
    """A finalizer runs wherever garbage is collected: perhaps in a thread that holds that very lock."""
    store = FileStore(tmp_path, capacity="8MiB")
    with Cache(store) as cache:
        cache.set("k", b"bytes")
        box = [cache.open("k")]
        box[0].path()

        def lose() -> None:
            with store.lock, warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                box.clear()

        losing = Call(lose)
        try:
            losing.result()
        except AssertionError:
            store.lock.release()  # let it go on, or nothing here ever ends
            raise


def test_an_interrupt_between_entering_and_starting_a_fill_leaves_the_key_usable(
    closing: Callable[[Cache], Cache], origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler may raise between any two calls: then others ask the origin themselves."""
    origin.script("k", b"bytes")
    cache = closing(Cache(MemoryStore("8MiB"), origin=origin))

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache._engine.flights, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.get("k")
    assert Call(lambda: cache.get("k")).result() == b"bytes"
    assert cache.stats().flights == 0


def test_an_interrupt_with_the_pump_role_ends_the_fill_for_others(
    closing: Callable[[Cache], Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes or an error, never a wait for a pump that is gone."""
    cache = closing(Cache(MemoryStore("8MiB"), origin=lambda request: FetchResult(iter(pieces(500_000)))))
    original = Flight.hand_over
    calls: list[Flight] = []

    def interrupted(flight: Flight) -> None:
        calls.append(flight)
        if len(calls) == 1:
            raise KeyboardInterrupt
        original(flight)

    monkeypatch.setattr(Flight, "hand_over", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.get("k")
    assert Call(lambda: len(cache.get("k"))).result() == 500_000


def test_a_time_limit_of_years_is_a_time_limit(cache: Cache, origin: ScriptedOrigin) -> None:
    """Longer than the system's clocks can wait: that is no reason to fail."""
    origin.script("k", b"bytes")
    with cache.open("k", timeout=1e12) as stream:
        assert stream.read() == b"bytes"


def test_a_key_that_is_promoted_while_it_is_deleted_stays_deleted(tmp_path: Path) -> None:
    """A copy that is found in a tier whose turn has not come yet is not carried up to where it was deleted already."""

    class Racing(FileStore):
        race: Callable[[], object] | None = None

        def delete(self, key: str, *, guard: Callable[[], bool] | None = None) -> bool:
            race, self.race = self.race, None
            if race is not None:
                race()
            return super().delete(key, guard=guard)

    lower = Racing(tmp_path, capacity="8MiB")
    with Cache(MemoryStore("8MiB"), lower) as cache:
        cache.set("k", b"old")
        cache._engine.flights.workers.wait_idle(SOON)
        lower.race = lambda: cache.get("k")
        assert cache.delete("k")
        assert "k" not in cache
        assert cache.get("k", default=None) is None
