"""What earlier releases wrote is read by this one: folders of the file tier and configurations."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import pytest

from daramjwee import BufferPoolConfig, Cache, FileStore, Freshness, NotFound, Status

RELEASES = sorted(path for path in (Path(__file__).parent.parent / "fixtures").iterdir() if path.is_dir())


def test_there_is_something_to_read() -> None:
    """The first release left its folder here."""
    assert [release.name for release in RELEASES][:1] == ["0.1.0"]


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
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


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_a_configuration_that_a_release_wrote_is_read(release: Path) -> None:
    """With the values it was written with."""
    config = msgspec.json.decode((release / "buffers.json").read_bytes(), type=BufferPoolConfig)
    assert (config.chunk_size, config.acquire_timeout, config.max_pool_bytes) == (524288, 5.0, 33554432)
