"""Configurations of earlier schemas: told apart, read with their own defaults, refused in their own names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.buffers.config import BufferPoolConfig
from daramjwee.config import schema0, schemas
from daramjwee.config.change import Kind, duration_text, size_text, spelled, written
from daramjwee.config.model import CacheConfig
from daramjwee.config.schemas import schema_of, upgraded
from daramjwee.errors import ConfigError
from daramjwee.model import MOST_WORKERS
from daramjwee.units import parse_duration, parse_size

KIB, MIB = 1024, 1024 * 1024
ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
# The fields of the Go library's two structs, by its own names; nothing here is taken from the code.
GO_BUFFERS = (
    "Enabled", "DefaultBufferSize", "MaxBufferSize", "MinBufferSize", "EnableLogging", "LoggingInterval",
    "LargeObjectThreshold", "VeryLargeObjectThreshold", "LargeObjectStrategy", "ChunkSize", "MaxConcurrentLargeOps",
    "EnableDetailedMetrics",
)  # fmt: skip
GO_CONFIG = (
    "HotStore", "ColdStore", "WorkerStrategy", "WorkerPoolSize", "WorkerQueueSize", "WorkerJobTimeout",
    "DefaultTimeout", "ShutdownTimeout", "PositiveFreshFor", "NegativeFreshFor", "BufferPool",
)  # fmt: skip
GO_DEFAULTS = {
    "enabled": True,
    "default_buffer_size": 32 * KIB,
    "min_buffer_size": 4 * KIB,
    "max_buffer_size": 64 * KIB,
    "large_object_threshold": 256 * KIB,
    "very_large_object_threshold": MIB,
    "large_object_strategy": "adaptive",
    "chunk_size": 64 * KIB,
    "max_concurrent_large_ops": 4,
    "enable_detailed_metrics": False,
}


def config_of(mapping):
    """The cache that a mapping of any age describes."""
    new = upgraded(mapping).mapping
    assert new.pop("schema") == 3
    return CacheConfig(**new)


def buffers_of(mapping):
    return msgspec.to_builtins(config_of(mapping).buffers)


def fate(mapping, old):
    """What became of a field: (kind, new name, value)."""
    return [(change.kind, change.new, change.value) for change in upgraded(mapping).notes if change.old == old]


def problems_of(mapping):
    with pytest.raises(ConfigError) as caught:
        upgraded(mapping)
    return {problem.field: problem for problem in caught.value.problems}


# -- which schema it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapping", "schema"),
    [
        ({"Enabled": True}, 0),
        ({"ChunkSize": 65536, "Typo": 1}, 0),
        ({"BufferPool": {"Enabled": True}}, 0),
        ({"WorkerPoolSize": 2}, 0),
        ({"enabled": False}, 1),
        ({"default_buffer_size": "64KiB", "min_buffer_size": 4096, "max_buffer_size": "1MiB", "enabled": True}, 1),
        ({"enabled": True, "chunk_size": "256KiB"}, 2),
        ({"large_object_strategy": "direct"}, 2),
        ({"buffers": {"default_buffer_size": "256KiB"}}, 2),
        ({"buffers": {}}, 2),
        ({"buffers": None}, 3),
        ({"buffers": {"enabled": True}, "workers": 2}, 3),
        ({"memory_limit": "1GiB"}, 3),
        ({}, 3),
        ({"memory_limt": "1GiB"}, 3),
        ({"schema": 3}, 3),
        ({"schema": 3, "Enabled": True}, 3),
        ({"schema": 2, "enabled": True}, 2),
        ({"schema": 1, "enabled": True}, 1),
        ({"schema": 0, "enabled": True}, 0),
    ],
    ids=str,
)
def test_the_age_of_a_configuration_is_told_from_its_names_unless_it_says_so(mapping, schema):
    """What it states decides; else the names do; what nobody knows is left to the check of today."""
    assert schema_of(mapping) == schema


@pytest.mark.parametrize(
    ("mapping", "faulty"),
    [
        ({"Enabled": True, "chunk_size": 1}, {"Enabled"}),
        ({"Enabled": True, "workers": 1}, {"Enabled"}),
        ({"enabled": True, "workers": 1}, {"enabled"}),
        ({"enabled": True, "ChunkSize": 3, "tiers": []}, {"enabled", "ChunkSize"}),
        ({"enabled": True, "buffers": {}}, {"enabled"}),
        ({"WorkerPoolSize": 1, "buffers": {}}, {"WorkerPoolSize"}),
    ],
    ids=str,
)
def test_names_of_two_ages_are_refused_and_not_guessed_at(mapping, faulty):
    """Each older name is a problem that says of which schema it is, and which other it stands beside."""
    found = problems_of(mapping)
    assert set(found) == faulty
    for problem in found.values():
        assert "is a name of schema" in problem.mend and "beside" in problem.mend
    flat = found.get("enabled")
    if flat and len(found) == 1:
        assert flat.mend.endswith("; fields of the pool belong into the table buffers")


@pytest.mark.parametrize(
    ("value", "words"), [(4, "upgrade daramjwee"), (-1, "0 to 3"), ("3", "0 to 3"), (True, "0 to 3"), (None, "0 to 3")]
)
def test_a_schema_that_is_none_is_refused(value, words):
    """A later one says so: this release cannot know what is in it."""
    assert words in problems_of({"schema": value})["schema"].mend


def test_a_mapping_of_today_comes_back_with_its_number():
    """Nothing is said of it, and it is not the same object: whoever changes it changes no file."""
    given = {"memory_limit": "1GiB", "buffers": {"chunk_size": "64KiB"}}
    up = upgraded(given)
    assert up == ({"schema": 3, **given}, ())
    assert up.mapping is not given and "schema" not in given


# -- schema 0: the Go library ----------------------------------------------------------------------------------------


def test_every_field_of_the_go_library_has_a_place():
    """A field of today, or a reason why not; none is unknown, none is passed over."""
    assert set(GO_BUFFERS) == schema0.BUFFER_NAMES
    assert set(GO_CONFIG) <= schema0.CONFIG_NAMES
    dump = {
        "Enabled": True, "DefaultBufferSize": 32768, "MaxBufferSize": 65536, "MinBufferSize": 4096,
        "EnableLogging": True, "LoggingInterval": 300_000_000_000, "LargeObjectThreshold": 262144,
        "VeryLargeObjectThreshold": 1048576, "LargeObjectStrategy": 3, "ChunkSize": 65536, "MaxConcurrentLargeOps": 4,
        "EnableDetailedMetrics": False,
    }  # fmt: skip
    config = {
        "HotStore": {}, "ColdStore": None, "WorkerStrategy": "pool", "WorkerPoolSize": 1, "WorkerQueueSize": 500,
        "WorkerJobTimeout": 30_000_000_000, "DefaultTimeout": 30_000_000_000, "ShutdownTimeout": 30_000_000_000,
        "PositiveFreshFor": 0, "NegativeFreshFor": 0, "BufferPool": dump,
    }  # fmt: skip
    notes = upgraded(config).notes
    assert {change.old.removeprefix("BufferPool.") for change in notes} | {"BufferPool"} == {*GO_BUFFERS, *GO_CONFIG}
    assert all(change.reason for change in notes if change.kind is Kind.DROPPED)
    assert buffers_of(config) == msgspec.to_builtins(BufferPoolConfig(**GO_DEFAULTS, metrics_interval="5m"))


def test_what_a_go_file_leaves_out_has_the_go_librarys_default_and_is_written_out():
    """Not today's, which is another for most fields."""
    new = upgraded({"Enabled": True}).mapping
    assert msgspec.to_builtins(BufferPoolConfig(**new["buffers"])).items() >= GO_DEFAULTS.items()
    assert set(new["buffers"]) == set(GO_DEFAULTS)
    assert set(new) == {"schema", "buffers"}


@pytest.mark.parametrize(
    "field", ["LargeObjectThreshold", "VeryLargeObjectThreshold", "ChunkSize", "MaxConcurrentLargeOps"]
)
@pytest.mark.parametrize("value", [0, -1])
def test_zero_stands_for_the_default_where_the_go_library_says_so(field, value):
    """A Go struct that was written out has 0 where nothing was set."""
    assert buffers_of({field: value}) == buffers_of({"Enabled": True})
    assert fate({field: value}, field)[0][0] is Kind.DEFAULT


def test_a_pool_that_is_off_may_have_zeros():
    """`BufferPoolConfig{}`, written out: nothing but off."""
    dump = dict.fromkeys(GO_BUFFERS, 0) | {"Enabled": False, "EnableLogging": False, "EnableDetailedMetrics": False}
    expected = msgspec.to_builtins(
        BufferPoolConfig(**GO_DEFAULTS | {"enabled": False, "large_object_strategy": "pooled"})
    )
    assert buffers_of(dump) == expected
    assert set(problems_of(dump | {"Enabled": True})) == {"DefaultBufferSize", "MinBufferSize", "MaxBufferSize"}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (0, "pooled"), (1, "chunked"), (2, "direct"), (3, "adaptive"), (7, "adaptive"), (-1, "adaptive"),
        ("direct", "direct"), ("StrategyChunked", "chunked"), ("Adaptive", "adaptive"),
    ],
)  # fmt: skip
def test_a_strategy_is_a_number_or_a_name(given, name):
    """The numbers count in the order of the Go library's constants."""
    assert buffers_of({"LargeObjectStrategy": given})["large_object_strategy"] == name


@pytest.mark.parametrize("given", ["fast", True, None, 1.0])
def test_what_is_no_strategy_is_refused(given):
    assert (
        "must be 0 to 3, or one of 'pooled', 'chunked', 'direct', 'adaptive'"
        in problems_of({"LargeObjectStrategy": given})["LargeObjectStrategy"].mend
    )


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (300_000_000_000, 300.0), ("5m0s", 300.0), ("1h2m3.5s", 3723.5), ("1.5h", 5400.0), ("500ms", 0.5),
        ("250µs", 0.00025), ("250us", 0.00025), ("250\u03bcs", 0.00025), ("100ns", 1e-7), (" 30s ", 30.0), (".5s", 0.5),
    ],
)  # fmt: skip
def test_durations_are_read_as_the_go_library_writes_them(given, seconds):
    """Nanoseconds in JSON, text such as "5m0s" elsewhere."""
    assert buffers_of({"EnableLogging": True, "LoggingInterval": given})["metrics_interval"] == seconds


@pytest.mark.parametrize("given", ["5 minutes", "", "5", "m", "7d", -1, "-5s", 1.5, True, None])
def test_what_is_no_duration_is_refused(given):
    """Also where nothing would come of it: a typing error is better known."""
    assert "nanoseconds" in problems_of({"LoggingInterval": given})["LoggingInterval"].mend


@pytest.mark.parametrize(
    ("logging", "interval"), [(False, 0), (False, "5m0s"), (True, 0), (True, "0"), (None, "5m0s"), (True, None)]
)
def test_an_interval_that_logged_nothing_is_dropped_with_its_reason(logging, interval):
    """And the metrics go on at today's interval."""
    dump = {"Enabled": True, "EnableLogging": logging, "LoggingInterval": interval}
    dump = {name: value for name, value in dump.items() if value is not None}
    assert buffers_of(dump)["metrics_interval"] == 10.0
    for name in dump.keys() - {"Enabled"}:
        assert fate(dump, name) == [(Kind.DROPPED, None, msgspec.UNSET)]


@pytest.mark.parametrize(
    ("dump", "expected"),
    [
        # What was left out follows what was given.
        ({"DefaultBufferSize": 16 * KIB, "MaxBufferSize": 32 * KIB}, {"chunk_size": 32 * KIB}),
        ({"DefaultBufferSize": 256 * KIB, "MinBufferSize": 128 * KIB, "MaxBufferSize": 512 * KIB}, {"chunk_size": 128 * KIB}),
        # A chunk size that was given is obeyed.
        ({"ChunkSize": 128 * KIB}, {"chunk_size": 128 * KIB, "max_buffer_size": 128 * KIB}),
        ({"ChunkSize": 2 * KIB}, {"chunk_size": 2 * KIB, "min_buffer_size": 2 * KIB}),
        # The Go library's pool has no bound.
        ({"MaxBufferSize": 100 * MIB}, {"max_buffer_size": 100 * MIB, "max_pool_bytes": 100 * MIB}),
        ({"ChunkSize": 80 * MIB}, {"chunk_size": 80 * MIB, "max_buffer_size": 80 * MIB, "max_pool_bytes": 80 * MIB}),
        ({"MaxBufferSize": 64 * MIB}, {"max_buffer_size": 64 * MIB, "max_pool_bytes": 64 * MIB}),
        ({"MaxBufferSize": 1 << 50}, {"max_buffer_size": 1 << 50, "max_pool_bytes": 1 << 50}),
    ],
    ids=str,
)  # fmt: skip
def test_what_was_legal_in_the_go_library_and_would_not_be_today_is_made_so(dump, expected):
    """With a line that says what was changed and why; nothing else changes."""
    assert buffers_of(dump) == msgspec.to_builtins(BufferPoolConfig(**GO_DEFAULTS | schema0_names(dump) | expected))
    changed = {change.new: change.reason for change in upgraded(dump).notes if change.kind is Kind.CHANGED}
    assert all(changed.values())


def test_a_chunk_size_of_zero_was_not_chosen():
    """It follows the bounds, as one that is left out does."""
    small = {"DefaultBufferSize": 16 * KIB, "MaxBufferSize": 32 * KIB}
    assert buffers_of({"ChunkSize": 0, **small}) == buffers_of(small)
    assert "max_pool_bytes" not in upgraded({"MaxBufferSize": 64 * MIB}).mapping["buffers"]


def test_a_chunk_size_at_the_bounds_changes_nothing():
    """And is said to be what it was."""
    for name, bound in (("MaxBufferSize", 64 * KIB), ("MinBufferSize", 4 * KIB)):
        notes = upgraded({"ChunkSize": bound, name: bound}).notes
        assert not [change for change in notes if change.kind is Kind.CHANGED]


def schema0_names(dump):
    return {schema0.BUFFERS[old].new: value for old, value in dump.items()}


def test_what_no_age_allows_is_told_in_the_names_of_the_file():
    """Every problem at once, with the value as it stands there; of a default that was left out, that it is one."""
    found = problems_of(
        {
            "DefaultBufferSize": 131072, "LargeObjectThreshold": 1048576, "Foo": 1, "MaxConcurrentLargeOps": 5_000_000,
            "LargeObjectStrategy": "fast", "LoggingInterval": "soon", "Enabled": "yes", "EnableLogging": 1,
        }
    )  # fmt: skip
    assert {name: problem.value for name, problem in found.items()} == {
        "DefaultBufferSize": 131072, "LargeObjectThreshold": 1048576, "Foo": 1, "MaxConcurrentLargeOps": 5_000_000,
        "LargeObjectStrategy": "fast", "LoggingInterval": "soon", "Enabled": "yes", "EnableLogging": 1,
    }  # fmt: skip
    assert "MaxBufferSize (64KiB)" in found["DefaultBufferSize"].mend
    assert "left out, and so the Go library's default: MaxBufferSize = 64KiB" in found["DefaultBufferSize"].mend
    assert "VeryLargeObjectThreshold" in found["LargeObjectThreshold"].mend
    assert not any("_" in problem.mend for problem in found.values())


def test_problems_in_the_nested_table_are_named_with_it():
    """A whole `Config` of the Go library: its pool's fields below BufferPool, and nowhere else."""
    found = problems_of({"BufferPool": {"MinBufferSize": 131072, "Enable": True}, "ChunkSize": 1, "WorkerPoolSize": 0})
    assert set(found) == {"BufferPool.MinBufferSize", "BufferPool.Enable", "ChunkSize", "WorkerPoolSize"}
    assert "BufferPool.MaxBufferSize" in found["BufferPool.MinBufferSize"].mend
    assert "Enabled?" in found["BufferPool.Enable"].mend
    assert "table BufferPool" in found["ChunkSize"].mend
    assert set(problems_of({"BufferPool": 3})) == {"BufferPool"}
    assert set(problems_of({"WorkerPoolSize": 1, "Workers": 2})) == {"Workers"}


def test_the_settings_around_the_pool_keep_their_meaning():
    """The Go library serves what is stale at once and renews it in the background, for as long as it has it."""
    config = config_of(
        {"BufferPool": None, "PositiveFreshFor": "5m0s", "NegativeFreshFor": 30_000_000_000, "Workers": 3}
    )
    assert (config.workers, config.freshness.fresh, config.freshness.negative) == (3, 300.0, 30.0)
    assert config.freshness.stale_while_revalidate == config.freshness.stale_if_error == 3650 * 86400.0
    assert buffers_of({"WorkerPoolSize": 1}) == buffers_of({"Enabled": True})
    config = config_of({"WorkerStrategy": "pool"})
    assert (config.workers, config.freshness.fresh, config.freshness.negative) == (1, 0.0, None)


def test_workers_are_as_many_as_a_cache_may_have():
    """The rule of today, in the name of the file."""
    assert [config_of({"Workers": count}).workers for count in (1, MOST_WORKERS)] == [1, MOST_WORKERS]
    for count in (0, MOST_WORKERS + 1, True, "2"):
        assert f"from 1 to {MOST_WORKERS}" in problems_of({"Workers": count})["Workers"].mend


def test_reasons_fit_what_was_given():
    """A default is called one, and what logged nothing says which of the two fields said so."""
    left_out = {change.new: change for change in upgraded({"WorkerPoolSize": 2}).notes}
    assert "written out" in left_out["freshness.fresh"].reason
    chosen = {change.new: change for change in upgraded({"PositiveFreshFor": "1m0s"}).notes}
    assert (chosen["freshness.fresh"].kind, chosen["freshness.fresh"].reason) == (Kind.RENAMED, "")
    for dump, words in (
        ({"LoggingInterval": "1s"}, "nothing was logged"),
        ({"LoggingInterval": 0, "EnableLogging": True}, "0 meant"),
    ):
        (reason,) = [change.reason for change in upgraded(dump).notes if change.old == "LoggingInterval"]
        assert words in reason


def test_what_is_dropped_shows_no_secret():
    """A store's description may have its password in it."""
    notes = upgraded({"HotStore": {"url": "redis://:hunter2@host/", "password": "hunter2"}}).notes
    assert any(change.old == "HotStore" for change in notes)
    assert "hunter2" not in "".join(map(str, notes))


def test_the_page_about_migration_has_every_field_with_its_defaults():
    """Name there, default there, name today, default today: held to the code."""
    page = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    table = {name: row[1:] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert {*table, "BufferPool"} >= schema0.BUFFER_NAMES | schema0.CONFIG_NAMES
    today = msgspec.to_builtins(BufferPoolConfig())
    for old, field in schema0.BUFFERS.items():
        before, new, now = (cell.strip() for cell in table[old])
        assert new.startswith(f"`buffers.{field.new}`")
        expected = today[field.new]
        assert before == spelled(written(field.new, field.default)).strip('"'), old
        assert now == ("chosen" if expected is None else spelled(written(field.new, expected)).strip('"')), old
    for old, new in schema0.SETTINGS.items():
        assert f"`{new}`" in table[old][1]
    order = [f"{number} `{name}`" for number, name in enumerate(schema0.STRATEGIES)]
    assert ", ".join(order) in table["LargeObjectStrategy"][1]


# -- schemas 1 and 2 -------------------------------------------------------------------------------------------------


def test_a_file_of_the_plain_pool_has_its_defaults_written_out():
    """The four fields; everything else is as it always was."""
    new = upgraded({"enabled": True, "default_buffer_size": "64KiB"}).mapping
    assert new["buffers"] == {
        "enabled": True, "default_buffer_size": "64KiB", "min_buffer_size": "4KiB", "max_buffer_size": "1MiB",
    }  # fmt: skip
    assert buffers_of({"enabled": False}) == msgspec.to_builtins(BufferPoolConfig(enabled=False))
    (later,) = problems_of({"schema": 1, "enabled": True, "chunk_size": "64KiB"}).values()
    assert later.field == "chunk_size" and "is a field of schema 2 (BufferPoolConfig): say schema = 2" in later.mend


def test_the_defaults_of_schema_2_are_those_that_release_0_1_0_wrote():
    """Held to the file that it left, so that they cannot drift with today's."""
    wrote = json.loads((FIXTURES / "0.1.0" / "buffers.json").read_text())
    given = {"chunk_size": 512 * KIB, "acquire_timeout": 5.0, "max_pool_bytes": 32 * MIB}
    assert wrote == schemas.DEFAULTS | given


@pytest.mark.parametrize("nested", [False, True])
def test_a_default_that_changes_later_is_written_out_for_an_old_file(monkeypatch, nested):
    """An old file goes on meaning what it meant."""
    monkeypatch.setitem(schemas.DEFAULTS, "max_idle_age", 5.0)
    monkeypatch.setitem(schemas.DEFAULTS, "max_pool_bytes", 32 * MIB)
    given = {"chunk_size": "512KiB"}
    up = upgraded({"buffers": given} if nested else given)
    assert up.mapping["buffers"] == {"chunk_size": "512KiB", "max_idle_age": 5.0, "max_pool_bytes": "32MiB"}
    assert [change.kind for change in up.notes][1:] == [Kind.DEFAULT, Kind.DEFAULT]


def test_values_of_schema_2_stay_as_they_were_written():
    """ "64KiB" stays "64KiB"; null stays null."""
    given = {"chunk_size": None, "default_buffer_size": "64KiB", "acquire_timeout": "5s", "enabled": True}
    assert upgraded(given).mapping == {"schema": 3, "buffers": given}
    assert upgraded({"buffers": given}).mapping == {"schema": 3, "buffers": given}
    assert {change.kind for change in upgraded({"buffers": given}).notes} == {Kind.KEPT}


def test_problems_of_schema_2_are_told_in_the_names_of_the_file():
    """All at once, the unknown with what was meant, secrets hidden."""
    found = problems_of({"max_buffer_size": "64KiB", "chunk_sise": 1, "enabled": 1, "api_token": "hunter2"})
    assert set(found) == {"default_buffer_size", "chunk_sise", "enabled", "api_token"}
    assert "chunk_size?" in found["chunk_sise"].mend
    assert "hunter2" not in str(found["api_token"])
    assert set(problems_of({"schema": 2, "buffers": {}, "workers": 3})) == {"workers"}
    for odd in ({"buffers": {}, "enabled": True}, {"buffers": "none"}):
        (problem,) = problems_of({"schema": 2, **odd}).values()
        assert problem.field == "buffers" and "must be a table" in problem.mend


# -- how values are written ------------------------------------------------------------------------------------------


@given(
    st.integers(0, 1 << 60) | st.integers(0, 4096).map(lambda n: n * KIB) | st.integers(0, 4096).map(lambda n: n * MIB)
)
def test_a_size_is_written_so_that_it_is_read_the_same(count):
    """In the unit people read where that is exact."""
    assert parse_size(size_text(count)) == count


@given(st.floats(0, 1e9) | st.integers(0, 10**7).map(float))
def test_a_duration_is_written_so_that_it_is_read_the_same(seconds):
    """ "5m", or the seconds."""
    assert parse_duration(duration_text(seconds)) == seconds


def test_what_became_of_a_field_is_said_in_one_line():
    """Before, after, and why."""
    go = upgraded({"Enabled": True, "MaxConcurrentLargeOps": 2048, "EnableLogging": False}).notes
    said = [str(change) for change in (*go, *upgraded({"buffers": {"chunk_size": "64KiB"}}).notes)]
    for line in (
        "Enabled = true -> buffers.enabled = true",
        'ChunkSize left out -> buffers.chunk_size = "64KiB": the Go library\'s default, written out',
        "MaxConcurrentLargeOps = 2048 -> buffers.max_concurrent_large_ops = 2048",
        "EnableLogging = false -> dropped: alerts are always logged, figures are asked for: `daramjwee stats`",
        'buffers.chunk_size = "64KiB": kept',
    ):
        assert line in said
    wide = {change.old: str(change) for change in upgraded({"ChunkSize": 131072}).notes}
    assert wide["MaxBufferSize"].endswith('= "128KiB": raised to ChunkSize: chunks are pooled memory now')


def test_values_are_written_in_the_units_people_read():
    """And stay numbers where no unit is exact."""
    assert [size_text(count) for count in (0, 1000, 1024, 1025, 65536, 3 * MIB // 2)] == [
        0,
        1000,
        "1KiB",
        1025,
        "64KiB",
        "1.5MiB",
    ]
    assert [duration_text(each) for each in (0.0, 0.5, 30.0, 90.0, 300.0, 7200.0, 86400.0)] == [
        "0s", 0.5, "30s", "90s", "5m", "2h", "1d",
    ]  # fmt: skip


def test_whatever_stands_in_a_file_can_be_shown():
    """As JSON, or as Python has it."""
    assert spelled({"a": [1, None]}) == '{"a":[1,null]}'
    assert spelled("\ud800")
    assert spelled(set) == "<class 'set'>"
