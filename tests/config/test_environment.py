"""Settings from environment variables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee import ConfigError
from daramjwee.config import SETTINGS, FileOriginConfig, HttpOriginConfig, examine, load
from daramjwee.config.environment import BY_VARIABLE, read_environment
from daramjwee.config.setting import Kind


def value_of(name, text):
    """What one variable sets its field to."""
    found, problems = read_environment({name: text})
    assert problems == []
    return found[0].value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("DARAMJWEE_WORKERS", "8", 8),
        ("DARAMJWEE_WORKERS", " 8 ", 8),
        ("DARAMJWEE_WORKERS", "eight", "eight"),
        ("DARAMJWEE_WORKERS", "true", "true"),
        ("DARAMJWEE_WORKERS", "-1", "-1"),
        ("DARAMJWEE_WORKERS", "1" * 5000, "1" * 5000),
        ("DARAMJWEE_MEMORY_LIMIT", "64MiB", "64MiB"),
        ("DARAMJWEE_MEMORY_LIMIT", "67108864", 67108864),
        ("DARAMJWEE_MEMORY_LIMIT", "none", "none"),
        ("DARAMJWEE_BUFFERS_CHUNK_SIZE", "None", None),
        ("DARAMJWEE_BUFFERS_ENABLED", "False", False),
        ("DARAMJWEE_BUFFERS_ENABLED", "true", True),
        ("DARAMJWEE_BUFFERS_ENABLED", "Yes", True),
        ("DARAMJWEE_BUFFERS_ENABLED", "0", False),
        ("DARAMJWEE_BUFFERS_ENABLED", "off", False),
        ("DARAMJWEE_BUFFERS_ENABLED", "2", "2"),
        ("DARAMJWEE_WORKERS", "on", "on"),
        ("DARAMJWEE_BUFFERS_LARGE_OBJECT_STRATEGY", "direct", "direct"),
        ("DARAMJWEE_FRESHNESS_FRESH", "5m", "5m"),
        ("DARAMJWEE_FRESHNESS_FRESH", "none", None),
        ("DARAMJWEE_ORIGIN_TIMEOUT", "1.5", "1.5"),
        ("DARAMJWEE_ORIGIN_VERIFY", "false", False),
        ("DARAMJWEE_ORIGIN_VERIFY", "/etc/ca.pem", "/etc/ca.pem"),
        ("DARAMJWEE_ORIGIN_VERIFY", "off", "off"),
        ("DARAMJWEE_ORIGIN", "none", None),
        ("DARAMJWEE_TIERS", "memory:8MiB", "memory:8MiB"),
    ],
)
def test_text_is_read_by_what_the_field_is(name, text, value):
    """What is none of its kind stays as it was written, and is refused so."""
    read = value_of(name, text)
    assert read == value and type(read) is type(value)


def test_every_setting_with_a_variable_can_be_set_by_it():
    """To another value than its default."""
    values = {
        "tiers": "memory:8MiB", "origin": "https://example.org", "buffers.large_object_strategy": "direct",
        "buffers.leak_detection": "off", "origin.verify": "false", "buffers.enabled": "false",
        "buffers.enable_detailed_metrics": "true", "buffers.max_pool_bytes": "32MiB",
    }  # fmt: skip
    by_kind = {Kind.SIZE: "600KiB", Kind.COUNT: "7", Kind.DURATION: "7s"}
    environ = {"DARAMJWEE_ORIGIN": "https://example.org"}
    for name, setting in BY_VARIABLE.items():
        alone = environ | {name: values.get(setting.path) or by_kind[setting.kind]}
        if setting.path == "memory_limit":
            alone[name] = "300MiB"
        if setting.path in {"buffers.min_buffer_size", "buffers.large_object_threshold"}:
            alone[name] = "200KiB"
        if setting.path == "buffers.very_large_object_threshold":
            alone[name] = "2MiB"
        if setting.path == "buffers.max_buffer_size":
            alone[name] = "3MiB"
        found = load(environ=alone)
        field = {"tiers": "tiers[0].capacity", "origin": "origin.base"}.get(setting.path, setting.path)
        assert found.sources[field] == f"environment {name}", setting
        assert found.config != load(environ={} if setting.path == "origin" else environ).config


def test_names_say_their_fields():
    """Of the settings that a variable can set."""
    for setting in SETTINGS:
        if setting.env not in {None, "DARAMJWEE_ORIGIN"}:
            assert setting.env == "DARAMJWEE_" + setting.path.replace(".", "_").upper()
    assert BY_VARIABLE["DARAMJWEE_ORIGIN"].path == "origin"


def test_two_underscores_are_one():
    """Some tools write a part and its field so."""
    assert value_of("DARAMJWEE_BUFFERS__CHUNK_SIZE", "1MiB") == "1MiB"
    assert value_of("DARAMJWEE__WORKERS", "3") == 3


def test_a_setting_given_twice_may_not_say_two_things():
    """Under both of its names."""
    names = ("DARAMJWEE_BUFFERS_CHUNK_SIZE", "DARAMJWEE_BUFFERS__CHUNK_SIZE")
    assert len(read_environment(dict.fromkeys(names, "1MiB"))[0]) == 1
    assert read_environment(dict.fromkeys(names, "1MiB"))[1] == []
    (problem,) = read_environment(dict(zip(names, ("1MiB", "2MiB"), strict=True)))[1]
    assert "is the same setting as DARAMJWEE_BUFFERS_CHUNK_SIZE" in problem.mend


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("DARAMJWEE_WROKERS", "did you mean DARAMJWEE_WORKERS?"),
        ("DARAMJWEE_CONFIGG", "did you mean DARAMJWEE_CONFIG?"),
        ("DARAMJWEE_workers", "did you mean DARAMJWEE_WORKERS?"),
        ("DARAMJWEE_", "is no setting; unset it"),
        ("DARAMJWEE_X", "is no setting; unset it"),
        ("DARAMJWEE_BUFFERS_CHUNKSIZE", "did you mean DARAMJWEE_BUFFERS_CHUNK_SIZE?"),
        ("DARAMJWEE_TIERS_MEMORY_CAPACITY", "as text in DARAMJWEE_TIERS"),
        ("DARAMJWEE_ORIGIN_HEADERS_AUTHORIZATION", 'secrets there as { env = "NAME" }'),
        ("DARAMJWEE_", "is no setting"),
        ("DARAMJWEE_XYZ", "does not begin with DARAMJWEE_"),
    ],
)
def test_a_name_that_is_none_is_told_without_what_it_holds(name, said):
    """A misspelt one would silently do nothing; what it holds may be a secret."""
    found, (problem,) = read_environment({name: "m4rker"})
    assert found == [] and problem.field == name
    assert said in problem.mend and "m4rker" not in str(problem)


def test_names_of_others_are_left_alone():
    """Also those that differ by case."""
    assert read_environment({"PATH": "x", "daramjwee_workers": "0", "DARAMJWEER": "x"}) == ([], [])


@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_an_empty_variable_is_a_problem(text):
    """Nobody can tell whether it was meant to set nothing."""
    (problem,) = examine(environ={"DARAMJWEE_WORKERS": text}).problems
    assert problem.field == "DARAMJWEE_WORKERS" and "unset the variable" in problem.mend


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://example.org/x", HttpOriginConfig(base="https://example.org/x")),
        ("http://localhost:8080", HttpOriginConfig(base="http://localhost:8080")),
        ("file:///srv/models", FileOriginConfig(folder="/srv/models")),
        ("file:/srv/a%20b", FileOriginConfig(folder="/srv/a b")),
        ("none", None),
    ],
)
def test_an_origin_is_a_url(text, origin):
    """Of a kind that says what it is."""
    mapping = {"origin": "https://elsewhere.example.org"}
    assert load(mapping, environ={"DARAMJWEE_ORIGIN": text}).config.origin == origin


def test_a_relative_folder_counts_from_the_working_directory(tmp_path, monkeypatch):
    """There is no file beside which it could stand."""
    monkeypatch.chdir(tmp_path)
    environ = {"DARAMJWEE_TIERS": "file:cache?capacity=1GiB", "DARAMJWEE_ORIGIN": "file:objects"}
    config = load(environ=environ).config
    assert config.tiers[0].folder == str(tmp_path / "cache")
    assert config.origin.folder == str(tmp_path / "objects")


def test_another_origin_takes_nothing_over_from_the_file():
    """The secrets of one host are not for another."""
    mapping = {"origin": {"type": "http", "base": "https://a.example.org", "headers": {"x-key": {"env": "K"}}}}
    found = load(mapping, environ={"DARAMJWEE_ORIGIN": "https://b.example.org", "DARAMJWEE_ORIGIN_TIMEOUT": "5s"})
    assert found.config.origin == HttpOriginConfig(base="https://b.example.org", timeout=5)
    kept = load(mapping, environ={"DARAMJWEE_ORIGIN_TIMEOUT": "5s"}).config.origin
    assert kept.base == "https://a.example.org" and kept.headers and kept.timeout == 5.0


def test_a_field_of_an_origin_that_is_not_there_is_told():
    """It would do nothing."""
    with pytest.raises(ConfigError, match=r"origin.timeout .*there is no origin.*environment DARAMJWEE_ORIGIN_TIMEOUT"):
        load(environ={"DARAMJWEE_ORIGIN_TIMEOUT": "5s"})
    with pytest.raises(ConfigError, match=r"origin.timeout .*is no field of type file"):
        load({"origin": "file:/x"}, environ={"DARAMJWEE_ORIGIN_TIMEOUT": "5s"})


@given(
    st.dictionaries(
        st.sampled_from([*BY_VARIABLE, "DARAMJWEE_X", "DARAMJWEE_BUFFERS__ENABLED"]),
        st.text(max_size=10) | st.sampled_from(["1MiB", "5s", "true", "none", "0", "file:x?capacity=1", "https://h"]),
    )
)
def test_any_environment_is_settings_or_a_list_of_problems(environ):
    """Nothing else is raised."""
    found = examine(environ=environ)
    assert (found.config is None) is bool(found.problems)
