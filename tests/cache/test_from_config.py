"""A cache from a file, a mapping, a URL and the environment; and in another process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from contextlib import closing
from pathlib import Path

import pytest

from daramjwee import (
    AdaptiveBufferPool,
    Cache,
    ConfigError,
    FileOrigin,
    FileStore,
    HttpOrigin,
    MemoryStore,
    NotFound,
    StoreError,
)
from daramjwee.testing.clock import ManualClock

MIB = 1024 * 1024

TOML = """
memory_limit = "64MiB"

[[tiers]]
type = "memory"
capacity = "8MiB"

[[tiers]]
type = "file"
folder = "tier"
capacity = "16MiB"

[freshness]
fresh = "5m"
negative = "30s"

[buffers]
chunk_size = "64KiB"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cache.toml"
    path.write_text(TOML)
    return path


def test_a_file_makes_the_cache_it_describes(file: Path) -> None:
    """A folder in it lies beside it."""
    with Cache.from_config(file, environ={}) as cache:
        cache.set("k", b"data")
        assert cache.get("k") == b"data"
        assert cache.config.memory_limit == 64 * MIB
        assert cache.config.freshness.negative == 30.0
        assert cache.buffers.config.chunk_size == 65536
    assert (file.parent / "tier" / "DARAMJWEE").exists()


def test_arguments_win_over_the_environment_and_that_over_the_file(file: Path) -> None:
    """Each field from the strongest that names it."""
    environ = {"DARAMJWEE_WORKERS": "2", "DARAMJWEE_MEMORY_LIMIT": "32MiB", "DARAMJWEE_BUFFERS_MAX_POOL_BYTES": "16MiB"}
    with Cache.from_config(file, environ=environ, workers=3) as cache:
        config = cache.config
        assert (config.workers, config.memory_limit) == (3, 32 * MIB)
        assert (config.buffers.chunk_size, config.buffers.max_pool_bytes) == (65536, 16 * MIB)


def test_the_environment_of_the_process_counts(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may also name the file."""
    monkeypatch.setenv("DARAMJWEE_CONFIG", str(file))
    monkeypatch.setenv("DARAMJWEE_WORKERS", "5")
    with Cache.from_config() as cache:
        assert (cache.config.workers, cache.config.memory_limit) == (5, 64 * MIB)


def test_a_program_gives_its_own_fetcher(file: Path) -> None:
    """With everything else from the file."""

    def fetch(request: object) -> bytes:
        raise NotFound("not there")

    with Cache.from_config(file, environ={}, origin=fetch) as cache:
        assert cache.get("k", default=None) is None
        assert cache.stats().origin_fetches == 1


def test_an_origin_may_be_described(tmp_path: Path) -> None:
    """As a URL or as a table."""
    (tmp_path / "a.txt").write_bytes(b"text")
    for origin in ({"type": "file", "folder": str(tmp_path)}, tmp_path.as_uri()):
        with Cache.from_config({"tiers": "memory:8MiB"}, environ={}, origin=origin) as cache:
            assert cache.get("a.txt") == b"text"


def test_the_origin_that_was_made_is_closed_with_the_cache(file: Path) -> None:
    """Nobody else could give its connections back. One that a program gave is the program's."""
    with Cache.from_config(file, environ={}, origin="http://127.0.0.1:9/") as cache:
        made = cache._engine.origin
    assert repr(made).endswith("closed>")
    with closing(HttpOrigin("http://127.0.0.1:9/")) as given:
        with Cache.from_config(file, environ={}, origin=given):
            pass
        assert "closed" not in repr(given)


def test_a_url_makes_a_cache(tmp_path: Path) -> None:
    """Tiers in a line of text."""
    with Cache.from_url(f"memory:8MiB;file:{tmp_path}/tier?capacity=16MiB", environ={}, workers=2) as cache:
        assert [tier.name for tier in cache.stats().tiers] == ["memory", "file"]
        assert cache.config.workers == 2


def test_every_problem_is_told_and_nothing_is_opened(tmp_path: Path) -> None:
    """Also those of the environment and of the arguments."""
    mapping = {"tiers": [{"type": "file", "folder": str(tmp_path / "tier"), "capacity": "0"}], "workers": 0}
    with pytest.raises(ConfigError) as caught:
        Cache.from_config(mapping, environ={"DARAMJWEE_FRESHNESS_FRESH": "soon"}, memory_limit=1)
    fields = {problem.field for problem in caught.value.problems}
    assert {"tiers[0].capacity", "workers", "freshness.fresh", "memory_limit"} <= fields
    assert not (tmp_path / "tier").exists()


def test_a_tier_that_cannot_be_opened_closes_those_before_it(tmp_path: Path) -> None:
    """The folder of the first can be used by the next cache."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="it is a file"):
        Cache.from_url(f"file:{tmp_path}/tier?capacity=1MiB;file:{tmp_path}/file?capacity=1MiB", environ={})
    with Cache(FileStore(tmp_path / "tier", capacity="1MiB")) as cache:
        cache.set("k", b"data")


def test_an_origin_that_cannot_be_made_is_told_by_its_field(tmp_path: Path) -> None:
    """Nothing is opened before."""
    mapping = {
        "tiers": f"file:{tmp_path}/tier?capacity=1MiB",
        "origin": {"type": "file", "folder": str(tmp_path / "no")},
    }
    with pytest.raises(ConfigError, match=r"origin\.folder"):
        Cache.from_config(mapping, environ={})
    assert not (tmp_path / "tier").exists()


def test_what_a_program_made_cannot_be_made_from_its_name() -> None:
    """The configuration of such a cache is for reading."""
    with Cache(MemoryStore("8MiB"), origin=lambda request: b"") as cache:
        config = cache.config
    with pytest.raises(ConfigError, match="origin"):
        Cache.from_config(config, environ={})
    with Cache.from_config(config, environ={}, origin=lambda request: b"other") as again:
        assert again.get("k") == b"other"


# -- in another process --------------------------------------------------------------------------------------


def test_a_cache_is_handed_to_another_process(tmp_path: Path) -> None:
    """It opens a cache of its own by the same configuration, over the same folder."""
    context = multiprocessing.get_context("spawn")
    with Cache.from_url(f"file:{tmp_path}/tier?capacity=16MiB", environ={}, workers=2) as cache:
        cache.set("k", b"data")
        child = context.Process(target=Cache.set, args=(cache, "of the child", b"its data"))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert cache.get("k") == b"data"
    with Cache.from_url(f"file:{tmp_path}/tier?capacity=16MiB", environ={}) as again:
        assert again.get("of the child") == b"its data"
        assert again.get("k") == b"data"


def test_a_pickled_cache_holds_its_settings_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret stays a reference; the other process looks it up for itself, and is not bent by its own environment."""
    monkeypatch.setenv("TOKEN_FOR_TEST", "marker-of-a-secret")
    origin = {"type": "http", "base": "https://example.org", "headers": {"authorization": {"env": "TOKEN_FOR_TEST"}}}
    with Cache.from_config({"tiers": "memory:8MiB"}, environ={}, origin=origin) as cache:
        data = pickle.dumps(cache)
        assert b"marker-of-a-secret" not in data
        monkeypatch.setenv("DARAMJWEE_WORKERS", "9")
        with pickle.loads(data) as again:
            assert again.config == cache.config


def test_an_origin_that_the_program_made_goes_along(tmp_path: Path) -> None:
    """By its own pickling: one of ours with its arguments, a function by its name."""
    (tmp_path / "a.txt").write_bytes(b"text")
    for origin in (FileOrigin(tmp_path), HttpOrigin("https://example.org"), os.path.basename):
        with Cache(MemoryStore("8MiB"), origin=origin) as cache, pickle.loads(pickle.dumps(cache)) as again:
            assert again.config == cache.config
            assert type(again._engine.origin) is type(origin)
            if isinstance(origin, FileOrigin):
                assert again.get("a.txt") == b"text"


def test_a_cache_that_cannot_be_described_refuses_and_says_why() -> None:
    """Each part that a program made is named, with what to do instead."""
    with (
        AdaptiveBufferPool() as pool,
        Cache(MemoryStore("8MiB"), origin=lambda request: b"", buffers=pool, clock=ManualClock()) as cache,
    ):
        with pytest.raises(TypeError, match="make one in each process") as caught:
            pickle.dumps(cache)
        for part in ("origin", "buffers", "clock"):
            assert part in str(caught.value)
