"""What `open` and `get` promise, over one, two and three tiers."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from daramjwee import (
    Cache,
    CacheMiss,
    Closed,
    ConfigError,
    FetchError,
    FetchResult,
    FileStore,
    Freshness,
    LimitExceeded,
    MemoryStore,
    NotFound,
    Status,
)
from daramjwee.testing.leaks import no_leaks
from daramjwee.testing.origin import Gate, ScriptedOrigin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from daramjwee.testing.clock import ManualClock

BIG = os.urandom(3 * 1024 * 1024 + 17)


def pieces(data: bytes, size: int = 100_000) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def test_the_log_says_of_each_miss_why(
    cache: Cache, origin: ScriptedOrigin, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG: the key and the reason; a copy that is served while it is renewed, too."""
    caplog.set_level("DEBUG", logger="daramjwee.engine")
    origin.script("k", b"hello")
    cache.get("k")
    clock.advance("1h")
    cache.open("k", freshness=Freshness(fresh="1m")).close()
    assert [record.getMessage() for record in caplog.records if "miss" in record.getMessage()] == [
        "miss: 'k' (absent)",
        "miss: 'k' (expired)",
    ]
    clock.advance("1h")
    cache.open("k", freshness=Freshness(fresh="1m", stale_while_revalidate="2h")).close()
    assert "stale: 'k' is served, and renewed in the background" in caplog.text


def test_a_miss_streams_from_the_origin_and_the_next_open_is_a_hit(cache: Cache, origin: ScriptedOrigin) -> None:
    """One fetch; the same bytes both times; the statuses say which was which."""
    origin.script("k", b"hello ", b"world", etag='"1"')
    with cache.open("k") as stream:
        assert stream.status is Status.MISS
        assert stream.read() == b"hello world"
    with cache.open("k") as stream:
        assert stream.status is Status.HIT
        assert stream.size == 11
        assert stream.metadata.etag == '"1"'
        assert stream.read() == b"hello world"
    assert cache.get("k") == b"hello world"
    assert origin.fetches() == 1
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.origin_fetches) == (2, {"absent": 1}, 1)


@pytest.mark.parametrize("sized", [True, False])
def test_a_big_object_of_known_or_unknown_size_is_kept_whole(cache: Cache, origin: ScriptedOrigin, sized: bool) -> None:
    """Bodies of many pieces are staged as they come and read back exactly, by any mix of calls."""
    origin.script("big", *pieces(BIG), size="right" if sized else None)
    with cache.open("big") as stream:
        first = stream.read(10)
        rest = b"".join(stream)
    assert first + rest == BIG
    with cache.open("big") as stream:
        assert stream.status is Status.HIT
        buffer = bytearray(len(BIG))
        assert stream.readinto(buffer) == len(BIG)
        assert stream.read() == b""
    assert buffer == BIG
    assert origin.fetches() == 1


@pytest.mark.parametrize(
    "body",
    [
        lambda data: data,
        bytearray,
        memoryview,
        io.BytesIO,
        lambda data: pieces(data, 7),
        lambda data: FetchResult(data, etag='"x"'),
        lambda data: FetchResult(iter(pieces(data, 7)), size=len(data)),
        lambda data: FetchResult(io.BytesIO(data), digest="sha256:" + hashlib.sha256(data).hexdigest()),
    ],
)
def test_every_form_of_body_works(cache: Cache, body: Callable[[bytes], object]) -> None:
    """Buffers, readables, iterables, and results around them."""
    data = b"any form of body"
    assert cache.get("k", lambda request: body(data)) == data
    assert cache.get("k") == data


@pytest.mark.parametrize("data", [b"", b"x"])
def test_the_smallest_objects_are_objects_too(cache: Cache, origin: ScriptedOrigin, data: bytes) -> None:
    """An empty object is kept and found, not taken for a missing one."""
    origin.script("k", data)
    for status in (Status.MISS, Status.HIT):
        with cache.open("k") as stream:
            assert (stream.status, stream.read(), stream.size) == (status, data, len(data))
    assert cache.get("k") == data


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (5, 5), (5, 1), (100, 200_000), (3_000_000, None), (10**8, None)])
def test_a_range_gives_its_bytes_cold_and_warm(
    cache: Cache, origin: ScriptedOrigin, start: int, stop: int | None
) -> None:
    """[start, stop) of the object, from a running fill and from a tier; positions count from its start."""
    origin.script("big", *pieces(BIG))
    for _ in range(2):
        with cache.open("big", start=start, stop=stop) as stream:
            assert stream.tell() == 0
            assert stream.read() == BIG[start:stop]
            assert stream.size == len(BIG[start:stop])
    with cache.open("big", start=start, stop=stop) as stream:
        assert b"".join(stream) == BIG[start:stop]


def test_a_stream_seeks_like_a_file(cache: Cache, origin: ScriptedOrigin) -> None:
    """Set, current, end; back and forth; before the start is refused."""
    origin.script("big", *pieces(BIG))
    for _ in range(2):
        with cache.open("big") as stream:
            assert stream.seekable()
            assert stream.seek(-10, os.SEEK_END) == len(BIG) - 10
            assert stream.read() == BIG[-10:]
            assert stream.seek(5) == 5
            assert stream.read(3) == BIG[5:8]
            assert stream.seek(2, os.SEEK_CUR) == 10
            assert stream.read1(4)[:1] == BIG[10:11]
            with pytest.raises(ValueError, match="negative"):
                stream.seek(-1)
            with pytest.raises(TypeError, match="integer"):
                stream.seek(1.5)  # type: ignore[arg-type]  # what is refused
            assert stream.read(1) == BIG[stream.tell() - 1 : stream.tell()]
    with cache.open("big", start=10, stop=20) as stream:
        assert stream.seek(0, os.SEEK_END) == 10
        assert stream.seek(3) == 3
        assert stream.read() == BIG[13:20]


def test_copy_to_writes_everything_from_the_position_on(cache: Cache, origin: ScriptedOrigin, tmp_path: Path) -> None:
    """Into a file and into memory, cold, warm and once verified; from a position and for a range."""
    origin.script("big", *pieces(BIG))
    for attempt in range(3):
        with cache.open("big") as stream, (tmp_path / f"out{attempt}").open("wb") as out:
            out.write(b"head")
            assert stream.copy_to(out) == len(BIG)
            out.write(b"tail")
        assert (tmp_path / f"out{attempt}").read_bytes() == b"head" + BIG + b"tail"
    with cache.open("big", start=7, stop=1_000_000) as stream:
        assert stream.read(3) == BIG[7:10]
        sink = io.BytesIO()
        assert stream.copy_to(sink) == 1_000_000 - 10
        assert sink.getvalue() == BIG[10:1_000_000]


def test_a_path_is_a_plain_file_until_the_stream_closes(
    make_cache: Callable[..., Cache], origin: ScriptedOrigin
) -> None:
    """Where a tier keeps files; it waits for the fill, and a delete does not take the file away under a reader."""
    cache = make_cache()
    origin.script("big", *pieces(BIG))
    has_files = any(isinstance(tier.store, FileStore) for tier in cache._engine.tiers)
    for _ in range(2):
        with cache.open("big") as stream:
            if not has_files:
                with pytest.raises(io.UnsupportedOperation, match="FileStore"):
                    stream.path()
                continue
            path = stream.path()
            cache.delete("big")
            with open(path, "rb") as file:
                assert file.read() == BIG
            assert stream.read() == BIG
        assert not os.path.exists(path)


def test_get_refuses_what_is_too_large_and_says_so(cache: Cache, origin: ScriptedOrigin) -> None:
    """`max_bytes` is a limit for known and unknown sizes."""
    origin.script("a", b"x" * 2000)
    origin.script("b", b"x" * 2000, size=None)
    for key in ("a", "b"):
        with pytest.raises(LimitExceeded, match="max_bytes"):
            cache.get(key, max_bytes="1KiB")
        assert len(cache.get(key)) == 2000


def test_without_an_origin_a_miss_is_a_key_error(make_cache: Callable[..., Cache]) -> None:
    """`CacheMiss`, or the default; it names the key."""
    cache = make_cache(origin=None)
    with pytest.raises(CacheMiss, match="'nothing'"):
        cache.get("nothing")
    with pytest.raises(KeyError):
        cache.open("nothing")
    assert cache.get("nothing", default=None) is None
    assert cache.stats().misses == {"absent": 2 + 1}


def test_what_does_not_exist_is_remembered_when_asked_for(
    make_cache: Callable[..., Cache], origin: ScriptedOrigin, clock: ManualClock
) -> None:
    """Negative entries answer for their lifetime, are no keys, and give way to a value."""
    cache = make_cache(freshness=Freshness(negative="30s"))
    for _ in range(3):
        with pytest.raises(NotFound):
            cache.open("gone")
    assert cache.get("gone", default=b"-") == b"-"
    assert origin.fetches() == 1
    assert "gone" not in cache
    assert list(cache.keys()) == []
    assert cache.stats().negative == 3
    clock.advance("31s")
    origin.script("gone", b"back")
    assert cache.get("gone") == b"back"
    assert origin.fetches() == 2


def test_what_does_not_exist_is_asked_again_by_default(cache: Cache, origin: ScriptedOrigin) -> None:
    """Without `negative` nothing is remembered, and an older copy does not survive the news."""
    for _ in range(2):
        with pytest.raises(NotFound):
            cache.open("gone")
    assert origin.fetches() == 2


def test_an_expired_entry_is_asked_for_conditionally(
    make_cache: Callable[..., Cache], origin: ScriptedOrigin, clock: ManualClock
) -> None:
    """Unchanged: the copy is fresh again, without its bytes being sent. Changed: the new bytes replace it."""
    cache = make_cache(freshness=Freshness(fresh="1m"))
    origin.script("k", b"old", etag='"1"')
    assert cache.get("k") == b"old"
    clock.advance("59s")
    assert cache.get("k") == b"old"
    assert origin.fetches() == 1
    clock.advance("2s")
    with cache.open("k") as stream:
        assert stream.status is Status.REVALIDATED
        assert stream.read() == b"old"
    with cache.open("k") as stream:
        assert stream.status is Status.HIT
    assert origin.fetches() == 2
    assert origin.requests[1].previous is not None
    assert origin.requests[1].previous.etag == '"1"'
    clock.advance("2m")
    origin.script("k", b"new", etag='"2"')
    with cache.open("k") as stream:
        assert stream.status is Status.MISS
        assert stream.read() == b"new"
    assert cache.get("k") == b"new"
    assert cache.stats().revalidated == 1


def test_the_short_way_of_get_and_the_plan_give_the_same_answers(
    make_cache: Callable[..., Cache], origin: ScriptedOrigin, clock: ManualClock
) -> None:
    """At every age, with and without a ttl of its own, `get` finds fresh exactly what `open` finds fresh."""
    cache = make_cache(freshness=Freshness(fresh="10s"))
    for key, ttl in (("own", "5s"), ("default", None), ("none", 0)):
        origin.script(key, b"data", ttl=ttl)
        for age in (0, 4.99, 5, 9.99, 10, 100):
            cache.delete(key)
            cache.get(key)
            clock.advance(age)
            with_open = origin.fetches()
            cache.open(key, freshness=None).close()
            open_fetched = origin.fetches() - with_open
            cache.delete(key)
            cache.get(key)
            clock.advance(age)
            with_get = origin.fetches()
            assert cache.get(key) == b"data"
            assert origin.fetches() - with_get == open_fetched, (key, age)


def test_a_stale_copy_is_served_while_it_is_renewed(
    make_cache: Callable[..., Cache], origin: ScriptedOrigin, clock: ManualClock
) -> None:
    """Readers do not wait for the origin; the renewed copy is there afterwards, and one fetch was enough."""
    cache = make_cache(freshness=Freshness(fresh="1m", stale_while_revalidate="1h"))
    origin.script("k", b"old")
    assert cache.get("k") == b"old"
    clock.advance("2m")
    gate = Gate()
    origin.script("k", gate, b"new")
    for _ in range(3):
        with cache.open("k") as stream:
            assert stream.status is Status.STALE
            assert stream.read() == b"old"
    gate.open()
    assert cache._engine.flights.workers.wait_idle(30)
    for flight in cache._engine.flights.running():
        assert flight.finish(30)
    assert cache.get("k") == b"new"
    assert origin.fetches() == 2


def test_a_stale_copy_is_served_when_the_origin_fails(
    make_cache: Callable[..., Cache], origin: ScriptedOrigin, clock: ManualClock
) -> None:
    """Within `stale_if_error` only, and visibly."""
    cache = make_cache(freshness=Freshness(fresh="1m", stale_if_error="1h"))
    origin.script("k", b"old")
    assert cache.get("k") == b"old"
    origin.script("k", ConnectionError("down"))
    clock.advance("2m")
    with cache.open("k") as stream:
        assert stream.status is Status.STALE
        assert stream.read() == b"old"
    clock.advance("2h")
    with pytest.raises(FetchError, match="down"):
        cache.get("k")


def test_an_uncacheable_answer_is_streamed_and_not_kept(cache: Cache, origin: ScriptedOrigin) -> None:
    """BYPASS, each time anew."""
    origin.script("k", *pieces(BIG), cacheable=False)
    for _ in range(2):
        with cache.open("k") as stream:
            assert stream.status is Status.BYPASS
            assert b"".join(stream) == BIG
    assert "k" not in cache
    assert origin.fetches() == 2
    assert cache.stats().bypassed == 2


def test_progress_is_told_as_the_stream_is_read(cache: Cache, origin: ScriptedOrigin) -> None:
    """Bytes so far and in all, never going back."""
    origin.script("big", *pieces(BIG))
    seen: list[tuple[int, int | None]] = []
    with cache.open("big", progress=lambda done, total: seen.append((done, total))) as stream:
        for _ in stream:
            pass
    assert seen[-1] == (len(BIG), len(BIG))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("size", ["right", None])
def test_progress_is_told_while_a_path_is_waited_for(tmp_path: Path, size: str | None) -> None:
    """As the object arrives, from its start to its end; the position of the stream stays."""
    origin, halfway = ScriptedOrigin(), Gate()
    origin.script("big", BIG[:1_000_000], halfway, *pieces(BIG[1_000_000:]), size=size)
    seen: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        seen.append((done, total))
        if done > 700_000:
            halfway.open()  # told by then, or the origin would stand here for its patience

    with Cache(FileStore(tmp_path, capacity="64MiB"), origin=origin) as cache:
        for _ in ("MISS", "HIT"):
            with cache.open("big", progress=progress) as stream:
                with open(stream.path(), "rb") as file:
                    assert file.read() == BIG
                assert seen[-1] == (len(BIG), len(BIG))
                assert stream.tell() == 0
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) == len(BIG) // (256 * 1024) + 2
    assert {total for _, total in seen} <= {len(BIG), None}


def test_a_path_is_had_though_the_copy_of_the_fill_takes_the_place_of_the_one_that_was_found(
    origin: ScriptedOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the same object once more."""
    with Cache(MemoryStore("8MiB"), FileStore(tmp_path, capacity="64MiB"), origin=origin) as cache:
        engine = cache._engine
        locate, found = engine.locate, []

        def locate_and_copy(key: str) -> Any:
            found.append(locate(key))
            if len(found) == 1:
                engine.tiers.transfer(key, engine.tiers[0], engine.tiers[1], guard=None, pool=engine.pool)
            return found[-1]

        origin.script("k", b"data")
        assert cache.get("k") == b"data"
        assert engine.flights.workers.wait_idle(30)
        monkeypatch.setattr(engine, "locate", locate_and_copy)
        with cache.open("k") as stream:
            with open(stream.path(), "rb") as file:
                assert file.read() == b"data"
            assert len(found) == 2
    assert len(list(tmp_path.rglob("*.body"))) == 1


def test_a_path_that_cannot_be_had_leaves_the_stream_to_be_read(origin: ScriptedOrigin, tmp_path: Path) -> None:
    """The tier is full half-way: no bytes were let go of for the sake of progress."""
    halfway = Gate()
    origin.script("big", BIG[:1_000_000], halfway, *pieces(BIG[1_000_000:]), size=None)
    with Cache(FileStore(tmp_path, capacity="2MiB"), origin=origin) as cache:
        with cache.open("big", progress=lambda done, total: halfway.open()) as stream:
            with pytest.raises(io.UnsupportedOperation, match="only pass through"):
                stream.path()
            assert stream.read() == BIG


def test_a_timeout_ends_the_wait_and_not_the_fill(cache: Cache, origin: ScriptedOrigin) -> None:
    """The reader gets an error that says so; the bytes arrive for the next one."""
    gate = Gate()
    origin.script("k", b"first", gate, b"second")
    with cache.open("k") as patient:
        assert patient.read(5) == b"first"  # from here on, only the second part is waited for
        with cache.open("k", timeout=0.05) as stream:
            assert stream.read(5) == b"first"
            with pytest.raises(FetchError, match=r"0\.05 s"):
                stream.read()
    gate.open()
    assert cache.get("k") == b"firstsecond"
    assert origin.fetches() == 1


def test_a_timeout_holds_while_the_origin_is_being_asked(cache: Cache) -> None:
    """A fetcher that does not answer does not hold a caller with a time limit."""
    answer = threading.Event()

    def fetch(request: object) -> bytes:
        assert answer.wait(30)
        return b"late"

    with pytest.raises(FetchError, match=r"0\.05 s"):
        cache.open("k", fetch, timeout=0.05)
    answer.set()
    assert cache.get("k", fetch) == b"late"


@pytest.mark.parametrize("key", ["a/b", "../../etc/passwd", "nul\0key", "\U0001f43f emoji", "k" * 65536, " ", "."])
def test_keys_are_any_text_exactly(cache: Cache, origin: ScriptedOrigin, key: str) -> None:
    """Of any content and length, and told apart to the last character."""
    origin.script(key, b"of " + key[:5].encode())
    assert cache.get(key) == b"of " + key[:5].encode()
    assert key in cache
    assert list(cache.keys()) == [key]
    assert (key + "x") not in cache


@pytest.mark.parametrize("key", ["", b"bytes", "lone \ud800 surrogate", None, 7])
def test_what_is_no_key_is_refused_before_anything_happens(cache: Cache, origin: ScriptedOrigin, key: object) -> None:
    """A clear error, and the origin is not asked."""
    with pytest.raises(ConfigError, match="key"):
        cache.open(key)
    with pytest.raises(ConfigError, match="key"):
        cache.set(key, b"x")
    assert origin.fetches() == 0


def test_two_unicode_forms_are_two_keys(cache: Cache) -> None:
    """Keys are compared as they are, not normalised."""
    cache.set("\u00e9", b"one")
    cache.set("e\u0301", b"two")
    assert cache.get("\u00e9") == b"one"
    assert cache.get("e\u0301") == b"two"


@pytest.mark.parametrize(
    "arguments",
    [
        {"start": -1},
        {"stop": 1.5},
        {"timeout": "soon"},
        {"on_orphan": "maybe"},
        {"fetch": "https://example.org"},
        {"freshness": "5m"},
        {"progress": 3},
        {"start": None},
        {"start": "x", "stop": -1, "timeout": -1, "on_orphan": True, "fetch": 7, "freshness": {}, "progress": 1},
    ],
)
def test_bad_arguments_are_named(cache: Cache, origin: ScriptedOrigin, arguments: dict[str, object]) -> None:
    """`ConfigError` names each field at once, whether the key is there or not, and nothing was fetched."""
    for _ in range(2):
        with pytest.raises(ConfigError) as refused:
            cache.open("k", **arguments)
        assert {problem.field for problem in refused.value.problems} == set(arguments)
        assert origin.fetches() == 0
        cache.set("k", b"there")


def test_an_end_that_is_none_and_a_prefix_that_is_no_text_are_refused(cache: Cache) -> None:
    """The cache stays open."""
    for drain in (True, "abort", None):
        with pytest.raises(ConfigError, match="drain = "):
            cache.close(drain)  # type: ignore[arg-type]  # what is refused
    for prefix in (b"k", 5, None):
        with pytest.raises(ConfigError, match="prefix = "):
            cache.keys(prefix)  # type: ignore[arg-type]  # what is refused
    cache.set("k", b"data")
    assert list(cache.keys("k")) == ["k"]


def test_what_refresh_refuses_is_said_of_refresh(cache: Cache, origin: ScriptedOrigin) -> None:
    """The error names the call that was made."""
    for arguments in ({"timeout": "soon"}, {"fetch": 7}, {"fetch": 7, "timeout": -1}):
        with pytest.raises(ConfigError, match=f"refresh has {len(arguments)} problem") as refused:
            cache.refresh("k", **arguments)
        assert [problem.field for problem in refused.value.problems] == list(arguments)
    assert origin.fetches() == 0


@pytest.mark.parametrize("sized", [True, False])
def test_get_says_how_large_an_object_is_that_it_refuses(cache: Cache, origin: ScriptedOrigin, sized: bool) -> None:
    """With the size where it is known, the limit, and the way out; `default` is not for this."""
    origin.script("big", *pieces(BIG), size="right" if sized else None)
    said = "'big' has 3.0MiB, more than max_bytes=1MiB: " if sized else "'big' has more than max_bytes=1MiB: "
    with pytest.raises(LimitExceeded, match=said):
        cache.get("big", max_bytes="1MiB", default=None)


def test_a_coroutine_function_is_refused_by_the_sync_door(cache: Cache) -> None:
    """`TypeError` that names the way out; no coroutine is left unawaited."""

    async def fetch(request: object) -> bytes:
        return b""

    with pytest.raises(TypeError, match="no asynchronous door"):
        cache.get("k", fetch)


def test_a_lost_stream_warns_with_the_place_that_opened_it(cache: Cache, origin: ScriptedOrigin) -> None:
    """`ResourceWarning` names this file; the cache is none the worse."""
    origin.script("big", *pieces(BIG))
    for _ in range(2):
        stream = cache.open("big")
        stream.read(1)
        with pytest.warns(ResourceWarning, match="test_reading"):
            del stream
        assert cache.get("big") == BIG


def test_a_closed_stream_says_so(cache: Cache) -> None:
    """`Closed` from every call, which is a `ValueError`, as of every closed file; closing twice is fine."""
    cache.set("k", b"data")
    stream = cache.open("k")
    stream.close()
    stream.close()
    assert stream.closed
    for call in (stream.read, stream.tell, stream.path, lambda: stream.readinto(bytearray(1)), lambda: next(stream)):
        with pytest.raises(Closed) as raised:
            call()
        assert isinstance(raised.value, ValueError)


def test_a_closed_cache_says_so(make_cache: Callable[..., Cache]) -> None:
    """Every call raises `Closed` and tells of the cache, not of a tier of it; closing twice is fine."""
    cache = make_cache()
    cache.set("k", b"data")
    cache.close()
    cache.close()
    for call in (
        lambda: cache.open("k"),
        lambda: cache.get("k"),
        lambda: cache.set("k", b""),
        lambda: cache.delete("k"),
        lambda: "k" in cache,
        lambda: cache.writer("k"),
        lambda: cache.stats(),
    ):
        with pytest.raises(Closed, match="the cache is closed; make a new one"):
            call()


@pytest.mark.filterwarnings("error")
def test_reading_leaves_nothing_behind(make_cache: Callable[..., Cache], origin: ScriptedOrigin) -> None:
    """Leases, flights, bodies, descriptors and, once closed, threads."""
    with no_leaks(descriptors=True):
        cache = make_cache()
        origin.script("big", *pieces(BIG))
        with no_leaks(cache, threads=False):
            for key in ("big", "gone"):
                for _ in range(2):
                    cache.get(key, default=None)
            with cache.open("big") as stream:
                stream.read(100)
        assert cache._engine.flights.fillers.wait_idle(30)  # readers wake before the body is closed
        assert origin.open_bodies == 0
        cache.close()


def test_a_cache_is_shown_with_its_state() -> None:
    """`repr` tells tiers, flights and memory."""
    with Cache(MemoryStore("8MiB", policy="lru"), memory_limit="64MiB") as cache:
        assert repr(cache).startswith("<Cache open, memory, 0 flights, memory ")
    assert repr(cache).startswith("<Cache closed")
