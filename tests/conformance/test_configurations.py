"""Configurations, up and down: what earlier releases took is taken, what a later one writes is refused and left alone, and
a migrated file has a way back."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import msgspec
import pytest

from daramjwee import BufferPoolConfig, Cache, CacheConfig, ConfigError
from daramjwee.config.load import examine, load
from daramjwee.config.migrate import migrate, rollback

FIXTURES = Path(__file__).parents[1] / "fixtures"
# What a program of each age kept its settings in.
GO = '{"Enabled": true, "DefaultBufferSize": 65536, "MaxBufferSize": 131072, "LargeObjectStrategy": 3}'
PLAIN = 'enabled = true\ndefault_buffer_size = "64KiB"\n'
POOL = '[buffers]\nchunk_size = "512KiB"\nlarge_object_strategy = "chunked"\n'


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "text", "schema"), [("a.json", GO, 0), ("a.toml", PLAIN, 1), ("a.toml", POOL, 2)])
def test_a_file_of_every_age_is_read_as_it_stands(tmp_path, name, text, schema):
    """Without being migrated, below the environment and arguments like any other."""
    path = write(tmp_path / name, text)
    examined = examine(
        path, environ={"DARAMJWEE_BUFFERS_MAX_CONCURRENT_LARGE_OPS": "3"}, changes={"buffers.max_idle_age": "5s"}
    )
    assert (examined.problems, examined.schema) == ((), schema)
    assert (examined.config.buffers.max_concurrent_large_ops, examined.config.buffers.max_idle_age) == (3, 5.0)
    with Cache.from_config(path, environ={}) as cache:
        assert cache.config == load(path, environ={}).config


@pytest.mark.parametrize("text", ["schema = 4\n", 'schema = 4\nmemory_limit = "1GiB"\n\n[[rings]]\ncolour = "red"\n'])
def test_a_file_of_a_later_schema_is_refused_and_not_touched(tmp_path, text):
    """By the number alone: nothing in it is guessed at, nothing of it is written over."""
    path = write(tmp_path / "cache.toml", text)
    for act in (
        lambda: load(path, environ={}),
        lambda: migrate(str(path)),
        lambda: Cache.from_config(path, environ={}),
    ):
        with pytest.raises(ConfigError) as caught:
            act()
        (problem,) = caught.value.problems
        assert (problem.field, problem.value) == ("schema", 4)
        assert "upgrade daramjwee" in problem.mend
    with pytest.raises(ConfigError):
        rollback(str(path))
    assert [path.read_text() for path in tmp_path.iterdir()] == [text]


def test_settings_of_a_pool_that_this_release_writes_are_those_that_0_1_0_knew():
    """Down again: the table `buffers` of a file of today, given to `BufferPoolConfig` of that release."""
    known = json.loads((FIXTURES / "0.1.0" / "buffers.json").read_text())
    written = CacheConfig(buffers=BufferPoolConfig(chunk_size="512KiB", leak_detection="full")).to_mapping()["buffers"]
    assert written.keys() <= known.keys()
    for name, value in written.items():
        # Bytes, seconds and words, as that release has them in its own file.
        assert isinstance(value, type(known[name])), name


@pytest.mark.parametrize("name", ["a.json", "a.toml"])
def test_a_migrated_file_goes_back_to_what_the_older_release_reads(tmp_path, name):
    """`BufferPoolConfig` of 0.1.0 took the file's fields as they are; it takes them again."""
    fields = {"chunk_size": 524288, "acquire_timeout": 5.0}
    text = json.dumps(fields) if name == "a.json" else "chunk_size = 524288\nacquire_timeout = 5.0\n"
    path = write(tmp_path / name, text)
    migrate(str(path))
    assert path.read_text() != text
    rollback(str(path))
    found = json.loads(path.read_text()) if name == "a.json" else tomllib.loads(path.read_text())
    assert msgspec.convert(found, BufferPoolConfig) == BufferPoolConfig(**fields)
