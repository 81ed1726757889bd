"""What earlier releases wrote is read by this one: folders of the file tier and configurations."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path

import msgspec
import pytest

from daramjwee import BufferPoolConfig, Cache, FileStore, Freshness, NotFound, Status
from daramjwee.config.load import load

ROOT = Path(__file__).parents[2]
RELEASES = sorted(path for path in (ROOT / "tests" / "fixtures").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def next_release(tmp_path_factory):
    """What tools/write_fixture.py would leave of this release, were it one."""
    spec = importlib.util.spec_from_file_location("write_fixture", ROOT / "tools" / "write_fixture.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.FIXTURES, tool.__version__ = tmp_path_factory.mktemp("fixtures"), "next"
    assert tool.main() == 0
    assert tool.main() == 1  # what a release wrote is never written again
    return tool.FIXTURES / "next"


@pytest.fixture(params=[*RELEASES, "next"], ids=lambda param: getattr(param, "name", param))
def release(request):
    """The folder of fixtures of each release."""
    return request.getfixturevalue("next_release") if request.param == "next" else request.param


def test_there_is_something_to_read() -> None:
    """The first release left its folder here."""
    assert [release.name for release in RELEASES][:1] == ["0.1.0"]


def test_a_folder_that_a_release_wrote_is_read_whole(release: Path, tmp_path: Path) -> None:
    """Every entry with its bytes and metadata, verified; nothing is dropped, nothing is asked of an origin."""
    shutil.copytree(release / "tier", tmp_path / "tier")
    expected = json.loads((release / "expected.json").read_text())
    with Cache(FileStore(tmp_path / "tier", capacity="16MiB"), freshness=Freshness(negative="3650d")) as cache:
        assert sorted(cache.keys()) == sorted(expected)
        for key, digest in expected.items():
            with cache.open(key) as stream:
                assert stream.status is Status.HIT
                assert hashlib.sha256(stream.read()).hexdigest() == digest
                assert stream.metadata.etag == '"1"'
                assert stream.metadata.tags == ("tag",)
                assert stream.metadata.attributes == {"content-type": "text/plain"}
                assert stream.metadata.digest == f"sha256:{digest}"
        with pytest.raises(NotFound):
            cache.get("absent")
        assert "corrupt" not in cache.stats().events


def test_settings_of_a_pool_that_a_release_wrote_are_read(release: Path) -> None:
    """With the values they were written with: as settings of a pool, and as a file of a whole cache."""
    path = release / "buffers.json"
    config = msgspec.json.decode(path.read_bytes(), type=BufferPoolConfig)
    assert (config.chunk_size, config.acquire_timeout, config.max_pool_bytes) == (524288, 5.0, 33554432)
    loaded = load(path, environ={})
    assert loaded.schema == 2
    assert loaded.config.buffers == config


def test_a_configuration_of_a_cache_that_a_release_wrote_means_what_it_meant(release: Path) -> None:
    """Every field, those that were left out too. The first release knew no such file."""
    if release.name == "0.1.0":
        assert not (release / "cache.toml").exists()
        return
    meant = load(release / "cache.json", environ={})
    loaded = load(release / "cache.toml", environ={})
    assert loaded.schema == meant.schema
    assert loaded.config == meant.config
    if loaded.schema == 3:
        assert loaded.config.to_mapping() == json.loads((release / "cache.json").read_text())
