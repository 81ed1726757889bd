"""Many readers of one fill, and changes that race it, over one, two and three tiers. No sleeps: gates and barriers."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from daramjwee import Cache, Drain, FetchError, FetchResult, FillAborted, Freshness, NotFound, NotModified, Status
from daramjwee.testing.leaks import no_leaks
from daramjwee.testing.origin import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daramjwee import FetchRequest
    from daramjwee.testing.clock import ManualClock
    from daramjwee.testing.origin import ScriptedOrigin

BIG = os.urandom(2 * 1024 * 1024 + 5)
DIGEST = hashlib.sha256(BIG).hexdigest()


def pieces(data: bytes, size: int = 100_000) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("count", [2, 32])
def test_readers_of_one_cold_key_share_one_fetch(cache: Cache, origin: ScriptedOrigin, sized: bool, count: int) -> None:
    """All read every byte, each at its own pace and step; the origin is asked once; all but one have joined."""
    origin.script("big", *pieces(BIG), size="right" if sized else None)
    barrier = threading.Barrier(count)

    def read(number: int) -> tuple[Status, str]:
        barrier.wait(30)
        digest = hashlib.sha256()
        with cache.open("big") as stream:
            while data := stream.read1(997 + number * 7919) if number % 2 else stream.read(3001 + number * 31_676):
                digest.update(data)
            return stream.status, digest.hexdigest()

    with ThreadPoolExecutor(count) as pool, no_leaks(cache, threads=False):
        results = list(pool.map(read, range(count)))
    assert {digest for _, digest in results} == {DIGEST}
    assert origin.fetches() == 1
    statuses = [status for status, _ in results]
    assert statuses.count(Status.MISS) == 1
    assert cache.stats().joined == statuses.count(Status.JOINED)


def test_a_late_reader_gets_every_byte_from_the_start(cache: Cache, origin: ScriptedOrigin) -> None:
    """Joining a running fill gives the whole object, not its rest."""
    gate = Gate()
    origin.script("big", *pieces(BIG[:1_000_000]), gate, *pieces(BIG[1_000_000:]))
    with cache.open("big") as first:
        assert first.read(1_000_000) == BIG[:1_000_000]
        with cache.open("big") as late:
            assert late.status is Status.JOINED
            assert late.read(10) == BIG[:10]
            gate.open()
            assert late.read() == BIG[10:]
        assert first.read() == BIG[1_000_000:]
    assert origin.fetches() == 1


def test_the_first_byte_is_read_before_the_last_has_come(cache: Cache, origin: ScriptedOrigin) -> None:
    """A stream is open while its fill stands still half-way."""
    gate = Gate()
    origin.script("k", b"first", gate, b"last")
    with cache.open("k") as stream:
        assert stream.read1(100) == b"first"
        gate.open()
        assert stream.read() == b"last"


def test_a_fill_goes_on_when_its_starter_leaves(cache: Cache, origin: ScriptedOrigin) -> None:
    """With other readers, and with none."""
    gate = Gate()
    origin.script("big", BIG[:10], gate, *pieces(BIG[10:]))
    with cache.open("big") as starter:
        assert starter.read(10) == BIG[:10]
        other = cache.open("big")
    gate.open()
    with other:
        assert other.read() == BIG
    cache.delete("big")
    cache.open("big").close()
    for flight in cache._engine.flights.running():
        assert flight.finish(30)
    assert "big" in cache
    assert origin.fetches() == 2


def test_an_orphan_ends_when_asked_to(cache: Cache, origin: ScriptedOrigin) -> None:
    """`on_orphan="abort"`: nothing is kept, and the next open begins anew."""
    gate = Gate()
    origin.script("big", BIG[:300_000], gate, BIG[300_000:])
    with no_leaks(cache, threads=False):
        with cache.open("big", on_orphan="abort") as stream:
            stream.read(10)
        gate.open()
    assert "big" not in cache
    assert cache._engine.flights.fillers.wait_idle(30)  # readers wake before the body is closed
    assert origin.open_bodies == 0
    assert cache.get("big") == BIG
    assert origin.fetches() == 2


@pytest.mark.parametrize("fail_at", [0, 1, 5, 262_144, 1_000_000, len(BIG) - 1])
@pytest.mark.parametrize("sized", [True, False])
def test_a_failing_origin_gives_every_reader_an_error_and_publishes_nothing(
    cache: Cache, origin: ScriptedOrigin, fail_at: int, sized: bool
) -> None:
    """Nobody sees a clean end; the error says what happened and has its cause; nothing is left."""
    origin.script("big", *pieces(BIG), fail_at=fail_at, size=len(BIG) if sized else None)
    barrier = threading.Barrier(8)

    def read(number: int) -> BaseException | None:
        barrier.wait(30)
        try:
            with cache.open("big") as stream:
                while stream.read1(50_000):
                    pass
        except FetchError as error:
            return error
        return None

    with ThreadPoolExecutor(8) as pool, no_leaks(cache, threads=False):
        errors = list(pool.map(read, range(8)))
    assert all(isinstance(error, FetchError) for error in errors)
    assert "reset here" in str(errors[0])
    assert "big" not in cache
    assert cache._engine.flights.fillers.wait_idle(30)  # readers wake before the body is closed
    assert origin.open_bodies == 0
    assert all(tier.usage.bytes == 0 and tier.usage.stagings == 0 for tier in cache.stats().tiers)
    origin.script("big", *pieces(BIG))
    assert cache.get("big") == BIG


@pytest.mark.parametrize("said", [len(BIG) - 1, len(BIG) + 1, 0, 10**12])
def test_a_size_that_was_lied_about_is_an_error_on_the_last_read(
    cache: Cache, origin: ScriptedOrigin, said: int
) -> None:
    """More or fewer bytes than said: `FetchError`, never a short or a long object, and nothing is kept."""
    origin.script("big", *pieces(BIG), size=said)
    got = bytearray()
    with pytest.raises(FetchError, match="announced"), cache.open("big") as stream:
        while data := stream.read1(60_000):
            got += data
    assert len(got) < len(BIG)
    assert bytes(got) == BIG[: len(got)]
    assert "big" not in cache


def test_a_reader_that_reads_exactly_the_size_learns_of_the_lie(cache: Cache, origin: ScriptedOrigin) -> None:
    """The last byte is given only when the end was seen: a reader that never asks for the end is safe too."""
    origin.script("k", b"12345", b"6", size=5)
    with pytest.raises(FetchError, match="more than"), cache.open("k") as stream:
        stream.read(5)


def test_another_digest_is_an_error_for_every_reader(cache: Cache, origin: ScriptedOrigin) -> None:
    """Checked before the last byte is given."""
    origin.script("big", *pieces(BIG), digest="sha256:" + hashlib.sha256(b"other").hexdigest())
    with pytest.raises(FetchError, match="sha256"):
        cache.get("big")
    assert "big" not in cache
    origin.script("big", *pieces(BIG), digest="sha256:" + DIGEST.upper())
    assert cache.get("big") == BIG


@pytest.mark.parametrize("change", ["set", "delete", "refresh", "writer"])
@pytest.mark.parametrize("data", [b"old bytes", BIG])
def test_a_fill_that_lost_a_race_never_brings_old_bytes_back(
    cache: Cache, origin: ScriptedOrigin, change: str, data: bytes
) -> None:
    """Its readers get what they began to read; whoever opens after the change gets the new state."""
    gate = Gate()
    origin.script("k", data[:5], gate, data[5:])
    with cache.open("k") as old:
        assert old.read(5) == data[:5]
        origin.script("k", b"new")
        if change == "set":
            cache.set("k", b"new")
        elif change == "writer":
            with cache.writer("k") as writer:
                writer.write(b"new")
        elif change == "refresh":
            assert cache.refresh("k") is Status.MISS
        else:
            cache.delete("k")
            assert "k" not in cache
            assert cache.get("k") == b"new"
        assert cache.get("k") == b"new"
        gate.open()
        assert old.read() == data[5:]
    assert cache.get("k") == b"new"
    assert cache._engine.flights.workers.wait_idle(30)
    for tier in cache._engine.tiers:
        metadata = tier.store.stat("k")
        assert metadata is None or metadata.size == 3, tier.name


def test_deletes_and_sets_that_race_fills_end_in_the_last_change(cache: Cache, origin: ScriptedOrigin) -> None:
    """Readers, fills and changes of one key at once; after a last set nothing else is ever read."""
    origin.script("k", *pieces(BIG[:400_000]))
    stop = threading.Event()
    values = {BIG[:400_000], b"set"}

    def read() -> None:
        while not stop.is_set():
            assert cache.get("k") in values

    def change(number: int) -> None:
        for _ in range(30):
            if number % 2:
                cache.set("k", b"set")
            else:
                cache.delete("k")

    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        for changer in [pool.submit(change, n) for n in range(4)]:
            changer.result(50)
        values.add(b"last")
        cache.set("k", b"last")
        stop.set()
        for reader in readers:
            reader.result(50)
        for _ in range(20):
            assert cache.get("k") == b"last"
    assert len(cache._engine.flights.fence) == 0 or cache._engine.flights.workers.wait_idle(30)
    assert len(cache._engine.flights.fence) == 0


def test_an_interrupted_starter_leaves_its_key_usable(cache: Cache) -> None:
    """`KeyboardInterrupt` in the fetcher reaches its caller; who waited asks again, and so does the next."""
    asked, interrupt = threading.Event(), threading.Event()

    def interrupted(request: object) -> bytes:
        asked.set()
        assert interrupt.wait(30)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: cache.get("k", interrupted))
        assert asked.wait(30)
        second = pool.submit(lambda: cache.get("k", lambda request: b"fine"))
        interrupt.set()
        with pytest.raises(KeyboardInterrupt):
            first.result(30)
        assert second.result(30) == b"fine"
    assert cache.get("k", interrupted) == b"fine"


def test_an_interrupt_while_reading_leaves_the_fill_right(cache: Cache) -> None:
    """A reader that pulls for itself and is interrupted: others get an error, nothing is kept, the key works."""

    def body(last: BaseException | bytes) -> object:
        yield b"first"
        if isinstance(last, BaseException):
            raise last
        yield last

    with pytest.raises(KeyboardInterrupt), cache.open("k", lambda request: body(KeyboardInterrupt())) as stream:
        assert stream.read1(10) == b"first"
        other = cache.open("k")
        stream.read1(10)
    with other, pytest.raises(FillAborted):
        other.read()
    assert cache.get("k", lambda request: body(b"second")) == b"firstsecond"


def test_not_found_reaches_everybody_who_waits(cache: Cache) -> None:
    """One fetch, one answer for all."""
    asked, answer, calls = threading.Event(), threading.Event(), []

    def fetch(request: object) -> bytes:
        calls.append(request)
        asked.set()
        assert answer.wait(30)
        raise NotFound("no such thing")

    def ask(_: int) -> bool:
        try:
            cache.get("k", fetch)
        except NotFound:
            return True
        return False

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ask, n) for n in range(4)]
        assert asked.wait(30)
        answer.set()
        assert all(future.result(30) for future in futures)
    assert 1 <= len(calls) <= 4


def test_closing_finishes_running_fills_or_drops_them(make_cache: Callable[..., Cache], origin: ScriptedOrigin) -> None:
    """FINISH waits for the fill; ABORT ends it, and its reader is told."""
    for drain in (Drain.FINISH, Drain.ABORT):
        cache = make_cache()
        gate = Gate()
        origin.script("k", BIG[:300_000], gate, BIG[300_000:])
        stream = cache.open("k")
        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(cache.close, drain)
            gate.open()
            closing.result(50)
        if drain is Drain.ABORT:
            from daramjwee import Closed

            with stream, pytest.raises((Closed, FetchError)):
                stream.read()
        else:
            stream.close()
        assert origin.open_bodies == 0


def test_a_set_between_look_up_and_revalidation_keeps_its_own_metadata(
    make_cache: Callable[..., Cache], clock: ManualClock
) -> None:
    """The origin confirms the stale copy that it was told of; a value that was set meanwhile is another one."""
    cache = make_cache(freshness=Freshness(fresh="1m"))
    cache.set("k", b"old", etag='"old"')
    clock.advance("2m")
    told: list[object] = []

    def fetch(request: FetchRequest) -> bytes:
        told.append(request.previous and request.previous.etag)
        if len(told) == 1:
            cache.set("k", b"new!", etag='"new"')
        raise NotModified("unchanged, says the origin of the copy it was told of")

    with cache.open("k", fetch) as stream:
        assert stream.read() in (b"old", b"new!")
    with cache.open("k", fetch) as stream:
        assert (stream.read(), stream.metadata.etag) == (b"new!", '"new"')
    assert told == ['"old"']


def test_not_modified_without_a_copy_is_the_fetchers_mistake(cache: Cache) -> None:
    """`FetchError` that says when it may be raised."""

    def fetch(request: FetchRequest) -> bytes:
        raise NotModified("nothing new")

    with pytest.raises(FetchError, match="no copy was at hand"):
        cache.get("k", fetch)


def test_a_fetcher_that_reads_its_own_key_is_told_so(cache: Cache) -> None:
    """Before its body and within it: an error instead of waiting for itself for ever. Other keys are fine."""

    def fetch(request: FetchRequest) -> bytes:
        assert cache.get("other", lambda request: b"other") == b"other"
        return cache.get(request.key, fetch)

    with pytest.raises(FetchError, match="itself"):
        cache.get("k", fetch)

    def body() -> Iterator[bytes]:
        yield b"first"
        yield cache.get("k", fetch)

    with pytest.raises(FetchError, match="itself"):
        cache.get("k", lambda request: body())
    assert cache.get("k", lambda request: b"fine") == b"fine"


@pytest.mark.parametrize("said", [0, 2])
def test_every_way_of_reading_learns_of_a_lie(cache: Cache, said: int) -> None:
    """`read`, `read1`, `readinto`, iteration, `copy_to`, `path`: none takes too long an object for a whole one."""
    ways = {
        "read": lambda stream: stream.read(),
        "read1": lambda stream: [*iter(stream.read1, b"")],
        "readinto": lambda stream: stream.readinto(bytearray(10)),
        "iterate": lambda stream: list(stream),
        "copy_to": lambda stream: stream.copy_to(io.BytesIO()),
        "copy_to from the end": lambda stream: (stream.seek(0, 2), stream.copy_to(io.BytesIO())),
    }
    for name, way in ways.items():
        with pytest.raises(FetchError, match="announced"):
            with cache.open("k", lambda request: FetchResult(iter([b"ab", b"c"]), size=said)) as stream:
                way(stream)
        assert "k" not in cache, name
    assert cache.stats().fetch_errors == len(ways)


def test_an_abort_does_not_wait_for_an_origin_that_stands_still(
    make_cache: Callable[..., Cache], origin: ScriptedOrigin
) -> None:
    """Leaving the `with` block by an exception ends at once; the thread in the origin ends when that answers."""
    gate = Gate()
    origin.script("k", BIG[:300_000], gate, BIG[300_000:])
    began = monotonic()
    with pytest.raises(RuntimeError, match="enough"), make_cache() as cache:
        stream = cache.open("k")
        gate.wait_reached()
        raise RuntimeError("enough")
    assert monotonic() - began < 20  # 30 s would be the patience of a close that finishes
    gate.open()
    stream.close()


def test_a_close_says_nothing_of_a_fill_that_its_reader_had_ended(
    make_cache: Callable[..., Cache], origin: ScriptedOrigin, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread of the fill may stand in its origin still: what the reader wanted is no news of the close."""
    gate = Gate()
    origin.script("k", BIG[:300_000], gate, BIG[300_000:])
    with caplog.at_level(logging.WARNING, "daramjwee"), make_cache() as cache:
        with cache.open("k", on_orphan="abort") as stream:
            assert stream.read(1) == BIG[:1]
            gate.wait_reached()
        fillers = cache._engine.flights.fillers
        end = fillers.close

        def close(patience: float) -> bool:
            gate.open()
            return end(patience)

        fillers.close = close
    assert caplog.records == []


def test_whoever_waits_for_an_uncacheable_answer_fetches_for_itself(cache: Cache) -> None:
    """What belongs to one caller is not shared: BYPASS for each, with a body of its own."""
    asked, answer, calls = threading.Event(), threading.Event(), []

    def fetch(request: FetchRequest) -> FetchResult:
        calls.append(request)
        number = len(calls)
        if number == 1:
            asked.set()
            assert answer.wait(30)
        return FetchResult(iter([b"for caller ", str(number).encode()]), cacheable=False)

    def read() -> tuple[Status, bytes]:
        with cache.open("k", fetch) as stream:
            return stream.status, stream.read()

    with ThreadPoolExecutor(2) as pool, no_leaks(cache, threads=False):
        first = pool.submit(read)
        assert asked.wait(30)
        second = pool.submit(read)
        (flight,) = cache._engine.flights.running()
        while not flight.crowd.waiters:
            assert not second.done()
        answer.set()
        results = [first.result(30), second.result(30)]
    assert results == [(Status.BYPASS, b"for caller 1"), (Status.BYPASS, b"for caller 2")]
    assert cache.stats().bypassed == 2
    assert "k" not in cache


@pytest.mark.parametrize("answer", ["fails", "is not cacheable"])
def test_a_renewal_that_brings_nothing_leaves_the_stale_copy(
    make_cache: Callable[..., Cache], origin: ScriptedOrigin, clock: ManualClock, answer: str
) -> None:
    """Readers go on with what there is, the body is closed, and the next open tries again."""
    cache = make_cache(freshness=Freshness(fresh="1m", stale_while_revalidate="1h"))
    origin.script("k", b"old")
    assert cache.get("k") == b"old"
    clock.advance("2m")
    if answer == "fails":
        origin.script("k", ConnectionError("down"))
    else:
        origin.script("k", b"new", cacheable=False)
    for fetches in (2, 3):
        with cache.open("k") as stream:
            assert (stream.status, stream.read()) == (Status.STALE, b"old")
        assert cache._engine.flights.workers.wait_idle(30)
        assert origin.fetches() == fetches
    assert cache._engine.flights.fillers.wait_idle(30)  # readers wake before the body is closed
    assert origin.open_bodies == 0
    assert cache.stats().flights == 0
