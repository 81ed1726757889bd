"""Settings put together from files, mappings, the environment and arguments."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee import BufferPoolConfig, ConfigError, Freshness
from daramjwee.config import CacheConfig, Examined, FileTier, MemoryTier, Secret, examine, load

MIB, GIB = 1024**2, 1024**3

TOML = """
memory_limit = "64MiB"
workers = 2

[[tiers]]
type = "memory"
capacity = "8MiB"

[[tiers]]
type = "file"
folder = "cache"
capacity = "1GiB"

[origin]
type = "http"
base = "https://example.org/objects/"
verify = "ca.pem"
headers = { x-a = "b", authorization = { file = "token" } }

[freshness]
fresh = "5m"

[buffers]
chunk_size = "64KiB"
"""


@pytest.fixture
def written(tmp_path):
    """A function that writes a file of settings and gives its path."""

    def write(text, name="cache.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def fields_of(problems):
    return sorted(problem.field for problem in problems)


# -- files ----------------------------------------------------------------------------------------------------


def test_a_toml_file_is_a_configuration(written):
    """Its relative paths lie beside it."""
    path = written(TOML)
    config = load(path, environ={}).config
    assert config.tiers == (MemoryTier(capacity="8MiB"), FileTier(folder=path.parent / "cache", capacity="1GiB"))
    assert config.origin.verify == str(path.parent / "ca.pem")
    assert config.origin.headers == {"x-a": "b", "authorization": Secret(file=path.parent / "token")}
    assert (config.memory_limit, config.workers, config.freshness.fresh) == (64 * MIB, 2, 300.0)
    assert config.buffers == BufferPoolConfig(chunk_size="64KiB")


def test_a_json_file_holds_what_a_configuration_says_of_itself(written):
    """Written by a program, read by another."""
    config = load(written(TOML), environ={}).config
    path = written(json.dumps(config.to_mapping()), "cache.json")
    found = load(str(path), environ={})
    assert found.config == config and found.schema == 3


def test_paths_in_a_file_are_taken_from_its_folder_wherever_one_stands(written, tmp_path, monkeypatch):
    """`..` and `~` too; a file named relatively counts from the working directory."""
    monkeypatch.setenv("HOME", "/home/somebody")
    written('tiers = "file:../cache?capacity=1GiB;file:~/cache?capacity=1GiB"\norigin = "file:objects"', "a.toml")
    monkeypatch.chdir(tmp_path.parent)
    config = load(Path(tmp_path.name) / "a.toml", environ={}).config
    assert [tier.folder for tier in config.tiers] == [str(tmp_path.parent / "cache"), "/home/somebody/cache"]
    assert config.origin.folder == str(tmp_path / "objects")


def test_an_empty_file_is_the_defaults(written):
    """Nothing must be said."""
    assert load(written(""), environ={}).config == CacheConfig()
    assert load(written("\ufeff{}", "a.json"), environ={}).config == CacheConfig()


@pytest.mark.parametrize(
    ("name", "text", "value", "said"),
    [
        ("a.toml", "workers = 3\nb = [\n", "line 3", "is no TOML"),
        ("a.toml", "workers = 3\nb = x", "line 2, column 5", "is no TOML"),
        ("a.toml", "a = 1\na = 2", "line 2", "is no TOML"),
        ("a.toml", "a = " + "1" * 5000, "line 1", "is no TOML"),
        ("a.toml", b"a = 1\nb = '\xff'", "line 2", "is no text in UTF-8"),
        ("a.json", '{"workers": 3,\n\n "b": x}', "line 3", "is no JSON"),
        ("a.json", '{"workers": 3', "line 1", "is no JSON"),
        ("a.json", "", "line 1", "is no JSON"),
        ("a.json", "[" * 100_000, "nesting", "is deeper than that of any setting"),
        ("a.json", "[]", "list", "must hold a table"),
        ("a.json", "null", "NoneType", "must hold a table"),
        ("a.yaml", "workers: 3", ".yaml", "give a .toml or .json file"),
        ("a", "workers = 3", "", "give a .toml or .json file"),
        ("a.toml", "#" * (MIB // 4 + 1), "256.0KiB", "larger than any file of settings"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_problem_of_its_path(written, name, text, value, said):
    """With the line, where there is one."""
    path = written(text, name)
    (problem,) = examine(path, environ={}).problems
    assert problem.field == str(path)
    assert problem.value.startswith(value)
    assert said in problem.mend


def test_a_file_that_is_not_there_is_one_problem_of_its_path(tmp_path):
    """And a folder in its place."""
    (tmp_path / "a.toml").mkdir()
    for name, value in (("b.toml", "No such file or directory"), ("a.toml", "Is a directory")):
        (problem,) = examine(tmp_path / name, environ={}).problems
        assert (problem.field, problem.value) == (str(tmp_path / name), value)


@pytest.mark.parametrize("source", [3, ["a"], b"a.toml", "", "a\0.toml"])
def test_a_source_that_is_none_is_a_problem(source):
    """Not a traceback."""
    (problem,) = examine(source, environ={}).problems
    assert problem.field == "source" and "must be the path" in problem.mend


def test_the_environment_names_the_file_when_no_source_is_given(written):
    """What is wrong with it says so."""
    path = written(TOML)
    assert load(environ={"DARAMJWEE_CONFIG": str(path)}).config == load(path, environ={}).config
    assert load(environ={"DARAMJWEE__CONFIG": str(path)}).config == load(path, environ={}).config
    assert load({}, environ={"DARAMJWEE_CONFIG": "/no/where.toml"}).config == CacheConfig()
    (problem,) = examine(environ={"DARAMJWEE_CONFIG": "/no/where.toml"}).problems
    assert problem.field == "/no/where.toml" and "named by DARAMJWEE_CONFIG" in problem.mend
    (problem,) = examine(environ={"DARAMJWEE_CONFIG": "a\0.toml"}).problems
    assert problem.field == "source" and "named by DARAMJWEE_CONFIG" in problem.mend
    (problem,) = examine(environ={"DARAMJWEE_CONFIG": ""}).problems
    assert problem.field == "DARAMJWEE_CONFIG" and "is empty" in problem.mend


def test_the_environment_of_the_process_counts_unless_another_is_given(written, monkeypatch):
    """`{}` ignores it."""
    monkeypatch.setenv("DARAMJWEE_CONFIG", str(written("workers = 9")))
    monkeypatch.setenv("DARAMJWEE_MEMORY_LIMIT", "32MiB")
    assert (load().config.workers, load().config.memory_limit) == (9, 32 * MIB)
    assert load(environ={}).config == CacheConfig()


# -- order and sources ----------------------------------------------------------------------------------------


def test_of_each_field_the_strongest_source_counts_and_is_named(written):
    """Arguments before the environment, that before the file, that before the default."""
    path = written(TOML)
    found = load(
        path,
        environ={"DARAMJWEE_WORKERS": "3", "DARAMJWEE_MEMORY_LIMIT": "32MiB", "DARAMJWEE_FRESHNESS_NEGATIVE": "1s"},
        changes={"workers": 4, "buffers.max_pool_bytes": "16MiB", "tiers[1].max_entries": 7},
    )
    config, sources = found.config, found.sources
    assert (config.workers, config.memory_limit, config.buffers.max_pool_bytes) == (4, 32 * MIB, 16 * MIB)
    assert (config.freshness, config.tiers[1].max_entries) == (Freshness("5m", negative=1), 7)
    assert {field: sources[field] for field in (
        "workers", "memory_limit", "freshness.negative", "freshness.fresh", "buffers.max_pool_bytes", "buffers.chunk_size",
        "buffers.enabled", "tiers[1].max_entries", "tiers[1].folder", "tiers[1].policy", "tiers[0].type",
        "origin.headers.authorization", "origin.retries",
    )} == {
        "workers": "argument",
        "memory_limit": "environment DARAMJWEE_MEMORY_LIMIT",
        "freshness.negative": "environment DARAMJWEE_FRESHNESS_NEGATIVE",
        "freshness.fresh": f"file {path}",
        "buffers.max_pool_bytes": "argument",
        "buffers.chunk_size": f"file {path}",
        "buffers.enabled": "default",
        "tiers[1].max_entries": "argument",
        "tiers[1].folder": f"file {path}",
        "tiers[1].policy": "default",
        "tiers[0].type": f"file {path}",
        "origin.headers.authorization": f"file {path}",
        "origin.retries": "default",
    }  # fmt: skip


def test_every_field_has_a_source():
    """Those of the defaults, too."""
    found = load(environ={})
    assert set(found.sources.values()) == {"default"}
    assert {"workers", "tiers[0].capacity", "origin", "freshness.fresh", "buffers.enabled"} <= set(found.sources)
    assert "buffers" not in found.sources and "schema" not in found.sources


def test_a_name_of_a_name_that_there_is_not_is_told():
    """Also where something of that name was given before."""
    mapping = {"origin": {"type": "file", "folder": "/x", "a": {"b": 1}}}
    found = examine(mapping, environ={}, changes={"origin.a.b": 2, "origin.headers.x": "y"})
    assert fields_of(found.problems) == ["origin.a", "origin.a.b", "origin.headers.x"]


def test_headers_given_as_a_whole_are_all_from_there():
    """None is left over from another source."""
    mapping = {"origin": {"type": "http", "base": "https://h", "headers": {"x-a": "1", "x-b": "2"}}}
    found = load(mapping, environ={}, changes={"origin.headers": {"x-c": "3"}})
    assert found.config.origin.headers == {"x-c": "3"}
    assert {name: source for name, source in found.sources.items() if "headers" in name} == {
        "origin.headers.x-c": "argument"
    }
    found = load(mapping, environ={"DARAMJWEE_ORIGIN_TIMEOUT": "3"}, changes={"origin.headers.x-c": "3"})
    assert found.config.origin.headers == {"x-a": "1", "x-b": "2", "x-c": "3"}
    assert found.sources["origin.timeout"] == "environment DARAMJWEE_ORIGIN_TIMEOUT"


def test_tiers_and_origin_are_replaced_whole_freshness_and_buffers_by_field(written):
    """Two lists of tiers could not be merged by guessing."""
    found = load(
        written(TOML),
        environ={"DARAMJWEE_TIERS": "memory:4MiB", "DARAMJWEE_ORIGIN": "file:///x"},
        changes={"freshness": {"negative": 1}, "buffers": BufferPoolConfig(max_pool_bytes="16MiB")},
    )
    assert found.config.tiers == (MemoryTier(capacity="4MiB"),)
    assert found.config.origin.folder == "/x"
    assert found.config.freshness == Freshness("5m", negative=1)
    assert found.config.buffers == BufferPoolConfig(max_pool_bytes="16MiB")
    assert found.sources["buffers.chunk_size"] == "argument"
    assert found.sources["tiers[0].capacity"] == "environment DARAMJWEE_TIERS"
    assert found.sources["tiers[0].policy"] == "default"


def test_a_whole_part_comes_before_a_field_of_it_in_whatever_order_they_are_given():
    """In one source."""
    changes = {"tiers[0].policy": "lru", "origin.timeout": 3, "tiers": "memory:4MiB", "origin": "https://example.org"}
    config = load(environ={}, changes=changes).config
    assert config.tiers == (MemoryTier(capacity="4MiB", policy="lru"),)
    assert config.origin.timeout == 3.0


def test_a_field_of_the_default_tiers_can_be_changed():
    """Without naming them."""
    found = load(environ={}, changes={"tiers.memory.capacity": "128MiB"})
    assert found.config.tiers == (MemoryTier(capacity="128MiB"),)
    assert (found.sources["tiers[0].capacity"], found.sources["tiers[0].policy"]) == ("argument", "default")


def test_a_configuration_is_taken_as_it_is(tmp_path, monkeypatch):
    """Its relative folders stay so; the environment and arguments count all the same."""
    monkeypatch.chdir(tmp_path)
    config = CacheConfig(tiers=[FileTier(folder="cache", capacity=1)], buffers={"chunk_size": "1MiB"})
    found = load(config, environ={})
    assert found.config == config and set(found.sources.values()) == {"argument"}
    assert load(config, environ={"DARAMJWEE_WORKERS": "3"}, changes={"memory_limit": "1GiB"}).config == config.replace(
        workers=3, memory_limit="1GiB"
    )


def test_relative_folders_of_a_mapping_count_from_the_working_directory(tmp_path, monkeypatch):
    """They do not move when the program goes elsewhere."""
    monkeypatch.chdir(tmp_path)
    mapping = {"tiers": [{"type": "file", "folder": "a", "capacity": 1}], "origin": {"type": "file", "folder": "b"}}
    config = load(mapping, environ={}, changes={"tiers[0].folder": "./c"}).config
    assert (config.tiers[0].folder, config.origin.folder) == (str(tmp_path / "c"), str(tmp_path / "b"))
    assert load(mapping, environ={}).config.tiers[0].folder == str(tmp_path / "a")
    assert mapping["tiers"][0]["folder"] == "a"


@pytest.mark.parametrize("folder", ["", " ", "\0", 3, None])
def test_what_is_no_path_is_not_taken_for_one(folder):
    """Joined to a folder it would be that folder."""
    mapping = {
        "tiers": [{"type": "file", "folder": folder, "capacity": 1}],
        "origin": {"type": "file", "folder": folder},
    }
    assert fields_of(examine(mapping, environ={}).problems) == ["origin.folder", "tiers[0].folder"]


def test_where_there_is_no_working_directory_relative_folders_stay(tmp_path, monkeypatch):
    """Whoever uses them finds out."""
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert load({"tiers": "file:a?capacity=1"}, environ={}).config.tiers[0].folder == "a"


# -- problems -------------------------------------------------------------------------------------------------


def test_problems_of_every_source_are_told_at_once_each_with_whence_it_came(written):
    """A bad file, a bad environment and bad arguments."""
    path = written(TOML.replace('"1GiB"', '"lots"') + "buffer_size = 3\n[nothing]\nx = 1\n")
    found = examine(
        path,
        environ={"DARAMJWEE_FRESHNESS_NEGATIVE": "soon", "DARAMJWEE_WROKERS": "3", "DARAMJWEE_ORIGIN_RETRIES": "many"},
        changes={"memory_limit": 1, "no_such": 3, "tiers[7].capacity": 3, "buffers": {"leak_detection": "maybe"}},
    )
    assert found.config is None
    where = {
        "tiers[1].capacity": f"(file {path})",
        "buffers.buffer_size": f"(file {path})",
        "nothing": f"(file {path})",
        "freshness.negative": "(environment DARAMJWEE_FRESHNESS_NEGATIVE)",
        "DARAMJWEE_WROKERS": "did you mean DARAMJWEE_WORKERS?",
        "origin.retries": "(environment DARAMJWEE_ORIGIN_RETRIES)",
        "memory_limit": "(argument)",
        "no_such": "(argument)",
        "tiers[7].capacity": "(argument)",
        "buffers.leak_detection": "(argument)",
    }
    assert fields_of(found.problems) == sorted(where)
    for problem in found.problems:
        assert where[problem.field] in problem.mend
    with pytest.raises(ConfigError) as caught:
        load(path, environ={"DARAMJWEE_WORKERS": ""}, changes={"no_such": 3})
    assert caught.value.subject == str(path)
    assert fields_of(caught.value.problems) == sorted(
        ["DARAMJWEE_WORKERS", "buffers.buffer_size", "no_such", "nothing", "tiers[1].capacity"]
    )


def test_a_bad_file_does_not_hide_what_else_is_wrong(tmp_path):
    """Nor does it stop the rest from being looked at."""
    found = examine(tmp_path / "no.toml", environ={"DARAMJWEE_WORKERS": "0"}, changes={"memory_limit": 1})
    assert fields_of(found.problems) == sorted([str(tmp_path / "no.toml"), "workers", "memory_limit"])


def test_a_faulty_value_is_no_problem_where_a_sound_one_wins():
    """That is how trouble is mended in a hurry."""
    mapping = {"workers": 0, "tiers": "what", "origin": {"type": "x"}, "buffers": {"chunk_size": "x"}}
    environ = {"DARAMJWEE_WORKERS": "3", "DARAMJWEE_TIERS": "memory:4MiB", "DARAMJWEE_ORIGIN": "none"}
    found = examine(mapping, environ=environ, changes={"buffers.chunk_size": None})
    assert found.problems == () and found.config.workers == 3


def test_where_the_winner_is_faulty_those_that_it_replaced_are_judged_too():
    """Or mending it would only uncover the next."""
    found = examine(
        {"workers": 0, "memory_limit": "64MiB", "tiers": "memory:lots"},
        environ={"DARAMJWEE_WORKERS": "many", "DARAMJWEE_TIERS": "memory:few"},
        changes={"workers": -1, "memory_limit": "none"},
    )
    assert [(problem.field, problem.value) for problem in found.problems] == [
        ("tiers[0].capacity", "few"),
        ("memory_limit", "none"),
        ("workers", -1),
        ("tiers[0].capacity", "lots"),
        ("workers", 0),
        ("workers", "many"),
    ]
    assert [problem.mend.rpartition("(")[2] for problem in found.problems[2:]] == [
        "argument)", "argument)", "argument)", "environment DARAMJWEE_WORKERS)",
    ]  # fmt: skip


def test_a_sound_value_that_a_faulty_one_replaced_is_no_problem():
    """Only the faulty one is."""
    assert fields_of(examine({"workers": 3}, environ={"DARAMJWEE_WORKERS": "0"}).problems) == ["workers"]


@pytest.mark.parametrize("part", ["freshness", "buffers"])
def test_a_part_that_is_no_table_is_told_beside_what_is_wrong_with_its_fields(part):
    """The fields of other sources are looked at."""
    field = {"freshness": "negative", "buffers": "acquire_timeout"}[part]
    found = examine({part: 5}, environ={f"DARAMJWEE_{part}_{field}".upper(): "soon"})
    assert fields_of(found.problems) == sorted([part, f"{part}.{field}"])


def test_names_that_are_no_text_are_told():
    """A mapping of a program may have them."""
    found = examine({3: 4, "buffers": {5: 6}, "tiers": [{"type": "memory", "capacity": 1, None: 2}]}, environ={})
    assert len(found.problems) == 3


def test_a_tier_that_a_program_made_cannot_stand_in_a_file(written):
    """In a mapping it may: that of a cache that runs."""
    mapping = CacheConfig(tiers=[{"type": "given", "name": "mine"}]).to_mapping()
    (problem,) = examine(written(json.dumps(mapping), "a.json"), environ={}).problems
    assert problem.field == "tiers[0]" and "made by a program" in problem.mend
    assert load(mapping, environ={}).config.tiers[0].name == "mine"


def test_what_python_could_not_print_is_told_all_the_same():
    """Numbers and nesting without end."""
    deep = []
    for _ in range(5000):
        deep = [deep]
    found = examine({"workers": 10**5000, "tiers": deep}, environ={}, changes={"buffers": {"chunk_size": deep}})
    assert fields_of(found.problems) == ["buffers", "tiers", "workers"]


# -- schemas and warnings -------------------------------------------------------------------------------------


def test_older_schemas_are_read_and_said_to_be_old(written):
    """What they say means what it did."""
    found = load(written("min_buffer_size = 8192\nmax_buffer_size = 131072\ndefault_buffer_size = 65536"), environ={})
    assert (found.schema, found.config.buffers.min_buffer_size) == (1, 8192)
    (warning,) = found.warnings
    assert warning.field == "schema" and "config migrate" in warning.mend
    assert load(written('[buffers]\nchunk_size = "64KiB"'), environ={}).warnings == ()
    assert load(written("schema = 3\nworkers = 3"), environ={}).schema == 3


def test_what_is_wrong_with_the_schema_is_told_beside_the_rest():
    """By the names that there are."""
    assert fields_of(examine({"schema": 9, "workers": 0}, environ={}).problems) == ["schema", "workers"]
    assert fields_of(examine({"schema": "x", "workers": 0}, environ={}).problems) == ["schema", "workers"]
    found = examine({"chunk_size": 1, "workers": 0}, environ={}, changes={"memory_limit": 1})
    assert fields_of(found.problems) == ["chunk_size", "memory_limit", "workers"]


def test_warnings_come_with_a_configuration_that_is_sound():
    """They are no problems."""
    found = load({"workers": 100}, environ={})
    assert [warning.field for warning in found.warnings] == ["workers"]
    assert isinstance(found, Examined) and found.problems == ()


# -- secrets --------------------------------------------------------------------------------------------------

MARKER = "m4rker-of-a-secret"


def test_a_secret_is_nowhere_to_be_seen(written, monkeypatch, caplog):
    """Given by reference, or by mistake: in a file, a mapping, the environment, an argument."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("A_SECRET", MARKER)
    written(MARKER, "token")
    path = written(
        f"""
        [origin]
        type = "http"
        base = "https://u:{MARKER}@example.org"
        token = "{MARKER}"
        headers = {{ authorization = "Bearer {MARKER}", cookie = {{ file = "token" }}, x-b = {{ env = "A_SECRET" }} }}
        [secrets]
        password = "{MARKER}"
        """
    )
    environ = {
        "DARAMJWEE_ORIGIN_HEADERS_AUTHORIZATION": MARKER,
        "DARAMJWEE_TOKEN": MARKER,
        "DARAMJWEE_ORIGIN": f"https://{MARKER}@example.org",
        "DARAMJWEE_TIERS": f"https://user:{MARKER}@example.org",
        "A_SECRET": MARKER,
    }
    changes = {"origin.headers.x-key": MARKER, "api_key": MARKER, "origin.password": MARKER}
    for found in (
        examine(path, environ={}),
        examine(path, environ=environ),
        examine(path, environ=environ, changes=changes),
        examine({"origin": {"type": "http", "base": "", "headers": [MARKER]}}, environ={}),
        examine({"origin": f"ftp://{MARKER}"}, environ={}),
        examine(written(f'token = "{MARKER}', "b.toml"), environ={}),
        examine(f"https://user:{MARKER}@example.org/a.toml", environ={}),
        examine(written(f'{{"token": "{MARKER}"', "b.json"), environ={}),
    ):
        assert found.problems and MARKER not in f"{found}{ConfigError(found.problems)}"
    good = path.read_text().replace(f"u:{MARKER}@", "").replace(f'token = "{MARKER}"', "").partition("[secrets]")[0]
    good = good.replace(f'authorization = "Bearer {MARKER}", ', "")
    found = load(written(good), environ={"A_SECRET": MARKER})
    assert MARKER not in f"{found}{found.config.to_mapping()}{[str(warning) for warning in found.warnings]}"
    assert sorted(found.config.origin.revealed_headers().values()) == [MARKER, MARKER]
    assert MARKER not in caplog.text


# -- anything at all ------------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        "tiers", "origin", "freshness", "buffers", "memory_limit", "workers", "schema", "Enabled", "enabled", "chunk_size",
        "type", "capacity", "folder", "base", "headers", "timeout", "fresh", "tiers[0].capacity", "tiers.memory.capacity",
        "origin.timeout", "origin.headers.x", "buffers.chunk_size", "freshness.fresh", "env", "file", "BufferPool", "a.b",
    ]
) | st.text(max_size=4)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(
    ["memory:8MiB", "file:x?capacity=1", "https://h", "memory", "file", "http", "1MiB", "5m", 10**400, "~x/y"]
)  # fmt: skip
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5))


@pytest.mark.parametrize("name", ["pipe.toml", "pipe.json"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    """Nobody writes to it."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError, match="no regular file"):
        load(tmp_path / name, environ={})


@pytest.mark.parametrize("source", ["https://u:hunter2@example.org/x.toml", "redis://u:hunter2@example.org/x.json"])
def test_a_url_with_a_password_that_is_given_for_a_file_is_not_shown(source):
    """Nor in the first line of what is wrong."""
    with pytest.raises(ConfigError) as caught:
        load(source, environ={})
    assert "hunter2" not in f"{caught.value}{caught.value!r}"


@given(st.dictionaries(NAMES, JSON, max_size=6), st.dictionaries(NAMES, JSON, max_size=4))
def test_any_mapping_with_any_changes_is_a_configuration_or_a_list_of_problems(mapping, changes):
    """Nothing is raised, nothing given is changed, and each problem says what to do."""
    before = repr((mapping, changes))
    found = examine(mapping, environ={}, changes=changes)
    assert (found.config is None) is bool(found.problems)
    assert all(problem.field is not None and problem.mend and str(problem) for problem in found.problems)
    assert repr((mapping, changes)) == before
    assert str(ConfigError(found.problems))


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode), st.sampled_from([".toml", ".json"]))
def test_any_file_is_a_configuration_or_a_list_of_problems(tmp_path_factory, data, ending):
    """Nothing is raised."""
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(data)
    found = examine(path, environ={})
    assert (found.config is None) is bool(found.problems)


def test_importing_the_room_reads_no_file_and_imports_no_parser():
    """What reads TOML, and what compares names, is imported where it is used."""
    import subprocess

    code = "import sys, daramjwee.config; print(sorted({'tomllib', 'difflib', 'urllib.parse'} & set(sys.modules)))"
    path = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout.strip() == "[]"
