"""What `set`, `writer`, `delete` and `refresh` promise, over one, two and three tiers."""

from __future__ import annotations

import hashlib
import io
import os
from typing import TYPE_CHECKING

import pytest

from daramjwee import (
    BufferPool,
    BufferPoolConfig,
    Cache,
    CacheMiss,
    Closed,
    ConfigError,
    CorruptEntry,
    FetchError,
    FileStore,
    Freshness,
    LimitExceeded,
    MemoryLedger,
    MemoryStore,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daramjwee.testing.clock import ManualClock
    from daramjwee.testing.origin import ScriptedOrigin

BIG = os.urandom(2 * 1024 * 1024 + 3)


@pytest.mark.parametrize("data", [b"", b"small", BIG])
def test_what_was_set_is_read_back(cache: Cache, data: bytes) -> None:
    """With its metadata, from `get` and from `open`, and without asking the origin."""
    cache.set("k", data, etag='"e"', tags=["t"], attributes={"type": "text/plain"})
    assert cache.get("k") == data
    with cache.open("k") as stream:
        assert stream.status is Status.HIT
        assert stream.metadata.etag == '"e"'
        assert stream.metadata.tags == ("t",)
        assert stream.metadata.attributes == {"type": "text/plain"}
        assert stream.read() == data
    assert "k" in cache
    assert list(cache.keys("k")) == ["k"]
    assert list(cache.keys("other")) == []


@pytest.mark.parametrize("form", [bytes, bytearray, io.BytesIO, lambda d: iter([d[:9], d[9:]]), lambda d: [d]])
def test_every_form_of_data_may_be_set(cache: Cache, form: Callable[[bytes], object]) -> None:
    """Buffers, readables and iterables."""
    cache.set("k", form(BIG))
    assert cache.get("k") == BIG


def test_a_new_value_replaces_the_old_in_every_tier(make_cache: Callable[..., Cache]) -> None:
    """Whatever the sizes, and so the tiers, of the two."""
    cache = make_cache()
    for data in (b"small", BIG, b"small again", BIG + b"!", b""):
        cache.set("k", data)
        assert cache.get("k") == data
        assert cache._engine.flights.workers.wait_idle(30)
        for tier in cache._engine.tiers:
            entry = tier.store.open("k")
            if entry is not None:
                view = bytearray(entry.size)
                entry.readinto_at(0, memoryview(view))
                assert view == data, f"tier {tier.name} has an older value"
                entry.close()


def test_a_body_that_fails_changes_nothing(cache: Cache) -> None:
    """The error of the body comes out, and the key is as before."""

    def failing() -> Iterator[bytes]:
        yield BIG
        raise OSError("the source broke")

    cache.set("k", b"before")
    with pytest.raises((OSError, FetchError), match="the source broke"):
        cache.set("k", failing())
    assert cache.get("k") == b"before"


def test_a_writer_publishes_at_the_end_of_its_block(cache: Cache) -> None:
    """Until then the key answers as before; afterwards the writer is closed."""
    cache.set("k", b"before")
    with cache.writer("k", etag='"w"') as writer:
        for i in range(0, len(BIG), 50_000):
            assert writer.write(BIG[i : i + 50_000]) == len(BIG[i : i + 50_000])
        assert cache.get("k") == b"before"
        assert writer.written == len(BIG)
    assert cache.get("k") == BIG
    with pytest.raises(Closed):
        writer.write(b"more")
    with cache.writer("empty"):
        pass
    assert cache.get("empty") == b""


def test_an_exception_in_a_writer_publishes_nothing(cache: Cache) -> None:
    """Nothing is left of it, in any tier."""
    for data in (b"small", BIG):
        with pytest.raises(RuntimeError, match="changed my mind"), cache.writer("k") as writer:
            writer.write(data)
            raise RuntimeError("changed my mind")
        assert "k" not in cache
    assert all(tier.usage.stagings == 0 and tier.usage.bytes == 0 for tier in cache.stats().tiers)


def test_sizes_and_digests_that_are_said_are_checked(cache: Cache) -> None:
    """A wrong one is refused and keeps nothing; a right one passes."""
    digest = hashlib.sha256(b"data").hexdigest()
    for form in (bytes, io.BytesIO):
        with pytest.raises(ConfigError, match="set of 'k' has 1 problem:\n  size = 5: 4 bytes"):
            cache.set("k", form(b"data"), size=5)
        with pytest.raises(CorruptEntry, match="digest"):
            cache.set("k", form(b"Data"), digest=f"sha256:{digest}")
        assert "k" not in cache
        cache.set("k", form(b"data"), size=4, digest=f"sha256:{digest}")
        assert cache.get("k") == b"data"
        cache.delete("k")
    with pytest.raises(ConfigError, match="writer of 'k' has 1 problem:\n  size = 3: 2 bytes"):
        with cache.writer("k", size=3) as writer:
            writer.write(b"xx")
    assert "k" not in cache


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ttl", "soon"),
        ("size", -1),
        ("digest", "nonsense"),
        ("etag", 7),
        ("tags", [1]),
        ("tags", "abc"),
        ("tags", 5),
        ("attributes", {"a": 1}),
    ],
)
def test_bad_metadata_is_refused_by_name(cache: Cache, field: str, value: object) -> None:
    """`ConfigError` names the call, the key and the field; the key stays as it was."""
    cache.set("k", b"before")
    with pytest.raises(ConfigError, match=f"set of 'k' has 1 problem:\n  {field} = "):
        cache.set("k", b"after", **{field: value})
    if field != "digest":
        with pytest.raises(ConfigError, match=f"writer of 'k' has 1 problem:\n  {field} = "):
            cache.writer("k", **{field: value})
    assert cache.get("k") == b"before"


@pytest.mark.parametrize("data", ["text", None, 7, {}, {b"a": 1}, memoryview(b"every other")[::2]])
def test_what_is_no_body_is_refused_as_bad_input_of_set(cache: Cache, data: object) -> None:
    """No fetcher had a part in it; the key stays as it was."""
    cache.set("k", b"before")
    with pytest.raises(ConfigError, match="set of 'k' has 1 problem:\n  data = "):
        cache.set("k", data)
    assert cache.get("k") == b"before"


def test_tags_may_come_from_any_iterable(cache: Cache) -> None:
    """A generator too; they are kept as a tuple."""
    cache.set("k", b"data", tags=(tag for tag in ("a", "b")))
    with cache.open("k") as stream:
        assert stream.metadata.tags == ("a", "b")


def test_what_no_tier_can_hold_is_refused_before_anything_changes(make_cache: Callable[..., Cache]) -> None:
    """`LimitExceeded` names both sizes; the old value stays."""
    cache = make_cache(origin=None)
    cache.set("k", b"before")
    huge = bytes(65 * 1024 * 1024)
    with pytest.raises(LimitExceeded, match="65MiB"):
        cache.set("k", huge)
    assert cache.get("k") == b"before"


def test_a_ttl_of_its_own_replaces_the_lifetime_of_the_cache(
    make_cache: Callable[..., Cache], clock: ManualClock
) -> None:
    """Shorter or longer."""
    cache = make_cache(freshness=Freshness(fresh="1h"), origin=None)
    cache.set("short", b"s", ttl="1m")
    cache.set("long", b"l", ttl="2h")
    cache.set("default", b"d")
    clock.advance("61s")
    assert "short" not in cache
    assert cache.get("short", default=None) is None
    assert cache.get("long") == b"l"
    clock.advance("1h")
    assert cache.get("default", default=None) is None
    assert sorted(cache.keys()) == ["long"]
    assert cache.stats().misses == {"expired": 2}


def test_a_deleted_key_is_gone_from_every_tier(cache: Cache) -> None:
    """And delete says whether there was anything."""
    for data in (b"small", BIG):
        cache.set("k", data)
        assert cache.delete("k")
        assert not cache.delete("k")
        assert "k" not in cache
        with pytest.raises(CacheMiss):
            Cache.get(cache, "k", None) if cache._engine.origin is None else cache._engine.open(
                _ask_without_origin(cache, "k")
            )


def _ask_without_origin(cache: Cache, key: str) -> object:
    from daramjwee.engine.fetch import Ask

    return Ask(key, None, cache._engine.freshness)


def test_refresh_asks_the_origin_whatever_the_tiers_have(cache: Cache, origin: ScriptedOrigin) -> None:
    """MISS with new bytes, REVALIDATED when unchanged, BYPASS when it may not be kept."""
    origin.script("k", b"one", etag='"1"')
    assert cache.get("k") == b"one"
    assert cache.refresh("k") is Status.REVALIDATED
    origin.script("k", BIG, etag='"2"')
    assert cache.refresh("k") is Status.MISS
    assert cache.get("k") == BIG
    origin.script("k", b"three", cacheable=False)
    assert cache.refresh("k") is Status.BYPASS
    assert cache._engine.flights.fillers.wait_idle(30)  # readers wake before the body is closed
    assert origin.open_bodies == 0
    assert origin.fetches() == 4


def test_a_failed_refresh_leaves_the_copy_at_hand(cache: Cache, origin: ScriptedOrigin) -> None:
    """The error comes out; readers go on with what there is."""
    origin.script("k", b"one")
    assert cache.get("k") == b"one"
    origin.script("k", BIG, fail_at=1_000_000)
    with pytest.raises(FetchError):
        cache.refresh("k")
    assert cache.get("k") == b"one"


def test_refresh_without_an_origin_says_what_is_missing(make_cache: Callable[..., Cache]) -> None:
    """`CacheMiss` that names the way out."""
    with pytest.raises(CacheMiss, match="fetch="):
        make_cache(origin=None).refresh("k")


def test_a_file_tier_is_found_again_by_the_next_cache(tmp_path: Path) -> None:
    """What was kept survives the process; small things too, which went to memory first."""
    with Cache(MemoryStore("8MiB"), FileStore(tmp_path, capacity="64MiB")) as cache:
        cache.set("small", b"s", etag='"1"')
        cache.set("big", BIG)
    with Cache(MemoryStore("8MiB"), FileStore(tmp_path, capacity="64MiB")) as cache:
        assert sorted(cache.keys()) == ["big", "small"]
        with cache.open("small") as stream:
            assert (stream.status, stream.metadata.etag, stream.read()) == (Status.HIT, '"1"', b"s")
        assert cache.get("big") == BIG
        assert cache.stats().tiers[1].hits == 2


def test_a_hit_in_a_lower_tier_fills_the_upper(tmp_path: Path) -> None:
    """The first open comes from the file tier and is promoted on the way, the next comes from memory; what is
    too large for the upper tier stays where it is."""
    with Cache(FileStore(tmp_path, capacity="64MiB")) as cache:
        cache.set("small", b"s" * 1000)
        cache.set("middle", BIG[: 700 * 1024])
        cache.set("large", BIG)
    memory = MemoryStore("8MiB")
    with Cache(memory, FileStore(tmp_path, capacity="64MiB")) as cache:
        for key, promoted in (("small", True), ("middle", True), ("large", False)):
            assert memory.stat(key) is None
            with cache.open(key) as stream:
                assert stream.status is Status.HIT
                stream.read()
            assert (memory.stat(key) is not None) == promoted, key
            with cache.open(key) as stream:
                assert stream.status is Status.HIT
        stats = cache.stats()
        assert (stats.tiers[0].hits, stats.tiers[1].hits) == (2, 4)


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ({"tiers": ()}, ["tiers"]),
        ({"tiers": ("cache",)}, [r"tiers\[0\]"]),
        (
            {"origin": "https://example.org", "workers": 0, "memory_limit": "lots"},
            ["origin", "workers", "memory_limit"],
        ),
        ({"memory_limit": 1024}, ["memory_limit"]),
        ({"freshness": "5m", "buffers": 7}, ["freshness", "buffers"]),
    ],
)
def test_bad_settings_are_all_named_at_once(arguments: dict[str, object], fields: list[str]) -> None:
    """`ConfigError` lists every problem of a constructor."""
    tiers = arguments.pop("tiers", (MemoryStore("1MiB"),))
    with pytest.raises(ConfigError) as caught:
        Cache(*tiers, **arguments)
    assert len(caught.value.problems) == len(fields)
    for field in fields:
        assert caught.match(field)


def test_get_refuses_a_large_object_in_memory_too() -> None:
    """The short way of a hit in memory knows the default limit."""
    data = bytes(65 * 1024 * 1024)
    with Cache(MemoryStore("128MiB")) as cache:
        cache.set("k", data)
        with pytest.raises(LimitExceeded, match="65MiB"):
            cache.get("k")
        assert cache.get("k", max_bytes="65MiB") is data


def test_one_store_twice_is_refused() -> None:
    """A tier above itself would delete its own entries as older copies."""
    store = MemoryStore("1MiB")
    with pytest.raises(ConfigError, match="once"):
        Cache(store, store)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_store_belongs_to_one_cache(tmp_path: Path, kind: str) -> None:
    """A second cache over it is refused while the first is open and after it was closed."""
    store = MemoryStore("1MiB") if kind == "memory" else FileStore(tmp_path, capacity="1MiB")
    with Cache(store) as cache:
        with pytest.raises(ConfigError, match=r"tiers\[0\] = .*another cache"):
            Cache(store)
        cache.set("k", b"data")
        assert cache.get("k") == b"data"
    with pytest.raises(ConfigError, match="was closed"):
        Cache(store)


def test_a_pool_that_cannot_serve_is_refused() -> None:
    """One that was closed, and one whose ledger is smaller than what a fill needs at once; each with what to do."""
    small = BufferPoolConfig(max_buffer_size="64KiB", default_buffer_size="64KiB", max_pool_bytes="128KiB")
    with BufferPool(small) as pool, pytest.raises(ConfigError, match=r"128KiB.*raise its max_pool_bytes"):
        Cache(MemoryStore("1MiB"), buffers=pool)
    with pytest.raises(ConfigError, match="was closed"):
        Cache(MemoryStore("1MiB"), buffers=pool)
    with BufferPool(small, ledger=MemoryLedger("1MiB")) as pool, Cache(MemoryStore("1MiB"), buffers=pool) as cache:
        cache.set("k", iter([bytes(300_000)]))
        assert cache.get("k") == bytes(300_000)


def test_a_construction_that_failed_leaves_its_stores_free() -> None:
    """The next try with right settings works."""
    store = MemoryStore("1MiB")
    with pytest.raises(ConfigError, match="workers"):
        Cache(store, workers=0)
    with Cache(store) as cache:
        cache.set("k", b"data")


def test_a_memory_tier_larger_than_the_limit_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """It works, within the limit; the warning names both sizes. A tier that fits is no news."""
    with Cache(MemoryStore("64MiB"), memory_limit="16MiB"), Cache(MemoryStore("8MiB"), memory_limit="16MiB"):
        pass
    said = [record.getMessage() for record in caplog.records if record.name == "daramjwee.engine.arguments"]
    assert len(said) == 1
    assert "64MiB" in said[0]
    assert "16MiB" in said[0]
