"""`CacheConfig` and its parts: what may be given, what is kept, and every problem at once."""

from __future__ import annotations

import copy
import json
import os
import pickle
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee import BufferPoolConfig, ConfigError, Freshness, HttpOrigin
from daramjwee.config import (
    CacheConfig,
    FileOriginConfig,
    FileTier,
    GivenOrigin,
    GivenTier,
    HttpOriginConfig,
    MemoryTier,
    Secret,
)
from daramjwee.config.read import FRESHNESS_FIELDS
from daramjwee.engine.arguments import LEAST_MEMORY, MOST_WORKERS

KIB, MIB, GIB = 1024, 1024**2, 1024**3
HTTP = {"type": "http", "base": "https://example.org/objects/"}
FILE = {"type": "file", "folder": "cache", "capacity": "1GiB"}


def problems_of(**settings):
    """What a `CacheConfig` of these refuses: field to (value, mend)."""
    with pytest.raises(ConfigError) as caught:
        CacheConfig(**settings)
    assert len({problem.field for problem in caught.value.problems}) == len(caught.value.problems)
    return {problem.field: (problem.value, problem.mend) for problem in caught.value.problems}


# -- what may be given ----------------------------------------------------------------------------------------


def test_the_defaults_are_the_documented_ones():
    """What counts when nothing is given."""
    config = CacheConfig()
    assert config.tiers == (MemoryTier(capacity="256MiB"),)
    assert (config.origin, config.freshness, config.buffers) == (None, Freshness(), BufferPoolConfig())
    assert (config.memory_limit, config.workers) == (512 * MIB, 4)


def test_sizes_and_durations_may_be_text_and_are_kept_as_numbers():
    """In the units people write."""
    config = CacheConfig(
        tiers=[
            MemoryTier(capacity="8MiB", max_object_size="1 MiB"),
            FileTier(folder="x", capacity="1GB", max_entries=5),
        ],
        origin=HttpOriginConfig(base="https://example.org", timeout="2m", connect_timeout=timedelta(seconds=3)),
        memory_limit="64MiB",
    )
    assert config.tiers[0] == MemoryTier(capacity=8 * MIB, max_object_size=MIB)
    assert (config.tiers[1].capacity, config.tiers[1].free_space_floor) == (10**9, 64 * MIB)
    assert (config.origin.timeout, config.origin.connect_timeout) == (120.0, 3.0)
    assert config.memory_limit == 64 * MIB


def test_a_mapping_stands_for_the_part_it_describes():
    """As in a file: of any kind of mapping, of lists and tuples."""
    config = CacheConfig(
        tiers=({"type": "memory", "capacity": "8MiB"}, MappingProxyType(FILE)),
        origin={**HTTP, "headers": {"x-a": "b", "authorization": {"env": "TOKEN"}}},
        freshness={"fresh": "5m"},
        buffers={"chunk_size": "64KiB"},
    )
    assert config.tiers == (MemoryTier(capacity="8MiB"), FileTier(folder="cache", capacity="1GiB"))
    assert config.origin.headers == {"x-a": "b", "authorization": Secret(env="TOKEN")}
    assert config.freshness == Freshness("5m") and config.buffers == BufferPoolConfig(chunk_size="64KiB")


def test_tiers_and_origin_may_be_text():
    """One line for what most need."""
    config = CacheConfig(tiers="memory:8MiB;file:cache?capacity=1GiB", origin="https://example.org/objects/")
    assert config.tiers == (MemoryTier(capacity="8MiB"), FileTier(folder="cache", capacity="1GiB"))
    assert config.origin == HttpOriginConfig(base="https://example.org/objects/")
    assert CacheConfig(origin="file:///srv/models").origin == FileOriginConfig(folder="/srv/models")


def test_no_buffers_are_a_pool_that_is_switched_off():
    """As for `Cache(buffers=None)`."""
    assert CacheConfig(buffers=None).buffers == BufferPoolConfig(enabled=False)


def test_a_home_folder_is_expanded_wherever_a_path_stands(monkeypatch):
    """A store would make a folder called ~."""
    monkeypatch.setenv("HOME", "/home/somebody")
    config = CacheConfig(
        tiers=[FileTier(folder=Path("~/cache"), capacity=1)],
        origin=HttpOriginConfig(base="", verify="~/ca.pem", headers={"x-a": Secret(file="~/token")}),
    )
    assert config.tiers[0].folder == "/home/somebody/cache"
    assert config.origin.verify == "/home/somebody/ca.pem"
    assert config.origin.headers["x-a"].file == "/home/somebody/token"
    assert FileOriginConfig(folder="~/x").folder == "/home/somebody/x"
    assert "there is no user ~nobody-of-that-name" in problems_of(
        tiers=[FILE | {"folder": "~nobody-of-that-name/x"}]
    )["tiers[0].folder"][1]  # fmt: skip


# -- what is refused ------------------------------------------------------------------------------------------


def test_every_problem_of_every_part_is_told_at_once_with_the_value_as_given():
    """Dotted fields; what is right beside it is not mentioned."""
    found = problems_of(
        tiers=[
            {"type": "memory", "capacity": "no", "policy": "fifo", "max_entries": 0},
            {"type": "file", "folder": "", "capacity": "1GiB", "max_object_size": "2GiB", "verify": "never"},
            {"type": "file", "folder": "x", "capacity": 1, "free_space_floor": "-1", "durability": 3},
        ],
        origin={**HTTP, "timeout": 0, "retries": -1, "pool_size": True, "headers": {"authorization": "Bearer x"}},
        freshness={"fresh": "soon", "negative": -1},
        buffers={"min_buffer_size": "2MiB", "leak_detection": "maybe"},
        memory_limit="1MiB",
        workers=0,
    )
    assert {field: value for field, (value, _) in found.items()} == {
        "tiers[0].capacity": "no",
        "tiers[0].policy": "fifo",
        "tiers[0].max_entries": 0,
        "tiers[1].folder": "",
        "tiers[1].max_object_size": "2GiB",
        "tiers[1].verify": "never",
        "tiers[2].free_space_floor": "-1",
        "tiers[2].durability": 3,
        "origin.timeout": 0,
        "origin.retries": -1,
        "origin.pool_size": True,
        "origin.headers.authorization": "***",
        "freshness.fresh": "soon",
        "freshness.negative": -1,
        "buffers.min_buffer_size": "2MiB",
        "buffers.leak_detection": "maybe",
        "memory_limit": "1MiB",
        "workers": 0,
    }
    assert all(mend for _, mend in found.values())


def test_parts_alone_name_their_fields_without_a_path():
    """Each is checked when it is made."""
    for make, field in (
        (lambda: MemoryTier(capacity=0), "capacity"),
        (lambda: FileTier(folder="a", capacity=1, verify=None), "verify"),
        (lambda: HttpOriginConfig(base="ftp://example.org"), "base"),
        (lambda: FileOriginConfig(folder="\0"), "folder"),
        (lambda: GivenTier(name=""), "name"),
        (lambda: GivenOrigin(name=3), "name"),
        (lambda: Secret(), "env"),
    ):
        with pytest.raises(ConfigError) as caught:
            make()
        assert [problem.field for problem in caught.value.problems] == [field]


@pytest.mark.parametrize(
    ("field", "settings", "said"),
    [
        ("tiers", {"tiers": []}, "at least one"),
        ("tiers", {"tiers": {"type": "memory"}}, "list of tables"),
        ("tiers", {"tiers": None}, "list of tables"),
        ("tiers", {"tiers": MemoryTier(capacity=1)}, "list of tables"),
        ("tiers[0]", {"tiers": ["memory"]}, "table with type"),
        ("tiers[0].type", {"tiers": [{"capacity": 1}]}, "is missing; give memory or file"),
        ("tiers[0].type", {"tiers": [{"type": "memry", "capacity": 1}]}, "did you mean memory? give memory or file"),
        ("tiers[0].dir", {"tiers": [FILE | {"dir": "x"}]}, "did you mean folder?"),
        ("origin.URL", {"origin": HTTP | {"URL": "x"}}, "did you mean base?"),
        ("freshness.ttl", {"freshness": {"ttl": "5m"}}, "did you mean fresh?"),
        ("tiers[0].type", {"tiers": [{"type": ["memory"], "capacity": 1}]}, "is no kind of tier"),
        ("tiers[0].capacity", {"tiers": [{"type": "memory"}]}, "is missing"),
        ("tiers[0].capacity", {"tiers": [{"type": "memory", "capacity": 1 << 61}]}, "mind the unit"),
        ("tiers[0].capacity", {"tiers": [{"type": "memory", "capacity": "9" * 400}]}, "give bytes"),
        ("tiers[0].folder", {"tiers": [{"type": "file", "capacity": 1}]}, "is missing"),
        ("tiers[0].folder", {"tiers": [FILE | {"folder": "\ud800"}]}, "no path"),
        ("tiers[0].folder", {"tiers": [FILE | {"folder": ["x"]}]}, "must be a path"),
        ("tiers[0].capasity", {"tiers": [FILE | {"capasity": 1}]}, "did you mean capacity?"),
        ("tiers[0].folder", {"tiers": [{"type": "memory", "capacity": 1, "folder": "x"}]}, "no field of type memory"),
        ("tiers[1].folder", {"tiers": [FILE, FILE | {"folder": "./x/../cache/"}]}, "folder of tiers[0] too"),
        ("origin", {"origin": 3}, "table with type"),
        ("origin", {"origin": "example.org"}, "http, https or file URL"),
        ("origin", {"origin": "file"}, "http, https or file URL"),
        ("origin", {"origin": "https"}, "http, https or file URL"),
        ("origin", {"origin": "file://host/x"}, "names a host"),
        ("origin.type", {"origin": {"base": "https://example.org"}}, "is missing; give http or file"),
        ("origin.base", {"origin": {"type": "http"}}, "is missing"),
        ("origin.folder", {"origin": {"type": "file", "folder": 3}}, "must be a path"),
        ("origin.base", {"origin": "https://example.org\\objects"}, "has a backslash"),
        ("tiers", {"tiers": ""}, "give at least one"),
        ("origin.timeut", {"origin": HTTP | {"timeut": 3}}, "did you mean timeout?"),
        ("origin.timeout", {"origin": HTTP | {"timeout": "9" * 400}}, "give seconds"),
        ("origin.timeout", {"origin": HTTP | {"timeout": "400d"}}, "a year"),
        ("origin.verify", {"origin": HTTP | {"verify": "yes"}}, "without quotes"),
        ("origin.verify", {"origin": HTTP | {"verify": 1}}, "path of a bundle"),
        ("origin.headers", {"origin": HTTP | {"headers": ["x"]}}, "table of names"),
        ("origin.headers.x-a", {"origin": HTTP | {"headers": {"x-a": 3}}}, "must be text"),
        ("origin.headers.x-a", {"origin": HTTP | {"headers": {"x-a": "b\r\nc: d"}}}, "without line breaks"),
        ("origin.headers.x...", {"origin": HTTP | {"headers": {"x a": "b"}}}, "no name of a header"),
        ("origin.headers.Range", {"origin": HTTP | {"headers": {"Range": "b"}}}, "set by the origin itself"),
        ("origin.headers.X-A", {"origin": HTTP | {"headers": {"x-a": "b", "X-A": "c"}}}, "given twice"),
        ("origin.headers.x.evn", {"origin": HTTP | {"headers": {"x": {"evn": "A"}}}}, "did you mean env?"),
        ("origin.headers.x.env", {"origin": HTTP | {"headers": {"x": {}}}}, "is missing"),
        ("origin.headers.x.env", {"origin": HTTP | {"headers": {"x": {"env": "A", "file": "b"}}}}, "one of the two"),
        ("freshness", {"freshness": "5m"}, "table of durations"),
        ("freshness", {"freshness": None}, "table of durations"),
        ("freshness.frish", {"freshness": {"frish": 3}}, "did you mean fresh?"),
        ("freshness.fresh", {"freshness": {"fresh": 10**400}}, "mind the unit"),
        ("buffers", {"buffers": False}, "table of fields"),
        ("buffers.chunksize", {"buffers": {"chunksize": 1}}, "did you mean chunk_size?"),
        ("memory_limit", {"memory_limit": LEAST_MEMORY - 1}, "at least 4MiB"),
        ("memory_limit", {"memory_limit": "9" * 400}, "mind the unit"),
        ("memory_limit", {"memory_limit": 1 << 61}, "mind the unit"),
        ("memory_limit", {"memory_limit": None}, "give bytes"),
        ("workers", {"workers": MOST_WORKERS + 1}, "from 1 to 1024"),
        ("workers", {"workers": True}, "from 1 to 1024"),
        ("workers", {"workers": "4"}, "from 1 to 1024"),
        ("workers", {"workers": 10**5000}, "larger than any"),
    ],
)
def test_a_setting_that_cannot_be_is_one_problem_of_its_field(field, settings, said):
    """Each fault alone, with what to do about it."""
    found = problems_of(**settings)
    assert list(found) == [field]
    assert said in found[field][1]


def test_what_a_field_that_there_is_not_was_given_is_shown_but_for_secrets():
    """It helps to find it."""
    found = problems_of(tiers=[FILE | {"size_": "1GiB", "note": "https://u:p@h", "api_key": "x"}], buffers={"x": [1]})
    assert {field: value for field, (value, _) in found.items()} == {
        "tiers[0].size_": "1GiB", "tiers[0].note": "***", "tiers[0].api_key": "***", "buffers.x": [1],
    }  # fmt: skip


def test_what_is_right_at_the_edge_is_taken():
    """The least and the most."""
    assert CacheConfig(origin=HTTP | {"retries": 1 << 20, "timeout": "366d"})
    assert set(problems_of(origin=HTTP | {"retries": (1 << 20) + 1})) == {"origin.retries"}
    for settings in (
        {"memory_limit": LEAST_MEMORY},
        {"workers": 1},
        {"workers": MOST_WORKERS},
        {"memory_limit": "4MiB"},
    ):
        assert CacheConfig(**settings)
    assert CacheConfig(origin=HTTP | {"retries": 0, "redirects": 0, "base": ""}).origin.base == ""


def test_a_rule_is_not_asked_about_what_is_faulty_already():
    """A folder that is none cannot be another's, a capacity that is none cannot be exceeded."""
    found = problems_of(
        tiers=[FILE | {"folder": ""}, FILE | {"folder": "", "capacity": "x", "max_object_size": "9TiB"}]
    )
    assert set(found) == {"tiers[0].folder", "tiers[1].folder", "tiers[1].capacity"}


def test_a_tier_of_no_kind_is_checked_for_what_every_kind_has():
    """So that the next attempt does not uncover it."""
    assert set(problems_of(tiers=[{"type": "disk", "capacity": 0, "policy": "x", "folder": 3}])) == {
        "tiers[0].type", "tiers[0].capacity", "tiers[0].policy",
    }  # fmt: skip


@pytest.mark.parametrize(
    "base",
    [
        "example.org", "//example.org", "ftp://example.org", "https://", "https:///x", "https://h:0/", "https://h:x/",
        "https://h/?q", "https://h/#f", "https://h/a b", "https://h\n", "https://[::1", 3, None, b"https://h",
    ],
)  # fmt: skip
def test_a_base_that_no_request_can_go_to_is_refused(base):
    """By the rules that can be told without a client."""
    assert set(problems_of(origin=HTTP | {"base": base})) == {"origin.base"}


@pytest.mark.parametrize("base", ["http://h", "HTTPS://h:8080/x", "https://[::1]:8/x/", "https://h/@a/b:c@d"])
def test_a_base_that_is_one_is_kept_as_it_is(base):
    """An @ in the path is no secret."""
    assert CacheConfig(origin=HTTP | {"base": base}).origin.base == base


# -- mapping, replacing, copying --------------------------------------------------------------------------------


def whole():
    return CacheConfig(
        tiers=[MemoryTier(capacity="8MiB", policy="lru"), FileTier(folder="x", capacity=5), GivenTier(name="mine")],
        origin=HTTP | {"headers": {"a": "b", "authorization": {"file": "/run/x"}, "x-key": {"env": "K"}}},
        freshness={"fresh": 300, "stale_if_error": "1d"},
        buffers={"large_object_strategy": "chunked", "leak_detection": "off", "chunk_size": "1MiB"},
    )


@pytest.mark.parametrize(
    "config",
    [
        CacheConfig(),
        whole(),
        CacheConfig(origin=FileOriginConfig(folder="/x")),
        CacheConfig(origin=GivenOrigin(name="f")),
    ],
)
def test_the_mapping_is_plain_data_that_gives_an_equal_configuration(config):
    """Every field is in it, through JSON and back."""
    mapping = json.loads(json.dumps(config.to_mapping()))
    assert mapping == config.to_mapping()
    assert mapping.pop("schema") == 3
    assert set(mapping) == set(CacheConfig.__struct_fields__)
    assert set(mapping["buffers"]) == set(BufferPoolConfig.__struct_fields__)
    assert set(mapping["freshness"]) == set(FRESHNESS_FIELDS) == set(Freshness.__slots__)
    assert CacheConfig(**mapping) == config


def test_a_configuration_is_immutable_and_survives_copies():
    """Two that say the same are equal."""
    config = whole()
    with pytest.raises(AttributeError):
        config.workers = 3
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
    assert config != config.replace(workers=5)


def test_replacing_changes_what_is_named_and_checks_the_whole():
    """A mapping changes fields of buffers and freshness; the original stays."""
    config = whole()
    changed = config.replace(
        buffers={"chunk_size": None}, freshness={"fresh": None}, workers=9, origin=None, memory_limit="64MiB"
    )
    assert changed.buffers == config.buffers.replace(chunk_size=None)
    assert changed.freshness == Freshness(stale_if_error="1d")
    assert (changed.workers, changed.origin, changed.memory_limit) == (9, None, 64 * MIB)
    assert changed.tiers == config.tiers and config == whole()


def test_a_part_that_is_made_already_replaces_the_whole_part():
    """Its defaults count, too."""
    changed = whole().replace(buffers=BufferPoolConfig(chunk_size="64KiB"), freshness=Freshness(negative=1))
    assert changed.buffers == BufferPoolConfig(chunk_size="64KiB")
    assert changed.freshness == Freshness(negative=1)
    assert whole().replace(buffers=None).buffers == BufferPoolConfig(enabled=False)
    assert whole().replace(tiers="memory:4MiB").tiers == (MemoryTier(capacity="4MiB"),)


def test_one_field_is_changed_by_its_dotted_name():
    """Of a tier by its place, or by its kind where there is one of it."""
    changed = whole().replace(
        **{
            "tiers[1].max_entries": 7,
            "tiers.memory.capacity": "9MiB",
            "buffers.max_pool_bytes": "32MiB",
            "freshness.negative": "1s",
            "origin.timeout": 5,
            "origin.headers.x-key": {"env": "OTHER"},
        }
    )
    assert (changed.tiers[1].max_entries, changed.tiers[0].capacity) == (7, 9 * MIB)
    assert (changed.buffers.max_pool_bytes, changed.freshness.negative) == (32 * MIB, 1.0)
    assert changed.origin.timeout == 5.0 and changed.origin.headers["x-key"] == Secret(env="OTHER")
    assert changed.buffers.chunk_size == MIB and changed.origin.headers["a"] == "b"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrokers", "did you mean workers?"),
        ("chunk_size", "did you mean buffers.chunk_size?"),
        ("capacity", "did you mean tiers.memory.capacity or tiers.file.capacity?"),
        ("buffers.chunksize", "did you mean chunk_size?"),
        ("freshness.x", "is no field"),
        ("origin.x", "is no field of type http"),
        ("tiers[0].folder", "is no field of type memory"),
        ("tiers[3].capacity", "is beyond 3 tiers, counted from 0"),
        ("tiers.redis.capacity", "is no kind of tier"),
        ("tiers.capacity", "write tiers[0].capacity"),
        ("tiers[0]", "write tiers[0].capacity"),
        ("buffers.a.b", "is no field"),
        ("", "is no field"),
    ],
)
def test_replacing_what_there_is_not_is_refused_by_its_name(name, said):
    """With the nearest name that there is."""
    with pytest.raises(ConfigError) as caught:
        whole().replace(**{name: 3})
    assert len(caught.value.problems) == 1
    assert said in str(caught.value)


def test_a_kind_that_several_tiers_are_of_does_not_say_which():
    """Nothing is guessed."""
    config = CacheConfig(tiers="memory:4MiB;memory:8MiB")
    with pytest.raises(ConfigError, match=r"there are 2 tiers of type memory; say which, such as tiers\[0\].capacity"):
        config.replace(**{"tiers.memory.capacity": 1})
    with pytest.raises(ConfigError, match="there is no origin"):
        config.replace(**{"origin.timeout": 1})


def test_replacing_tells_every_problem_at_once():
    """Of names and of values."""
    with pytest.raises(ConfigError) as caught:
        whole().replace(workers=0, memory_limit=1, nothing=1, buffers={"chunk_size": "x"}, freshness=3)
    assert {p.field for p in caught.value.problems} == {
        "workers", "memory_limit", "nothing", "buffers.chunk_size", "freshness",
    }  # fmt: skip


# -- secrets --------------------------------------------------------------------------------------------------


def test_a_secret_is_read_from_where_it_stands_when_it_is_needed(tmp_path, monkeypatch):
    """Line ends after it do not count; what is not there is told by name."""
    path = tmp_path / "token"
    secret = Secret(file=path)
    assert secret.missing().field == "file" and "No such file" in secret.missing().mend
    path.write_text("s3cret\n")
    assert secret.reveal() == "s3cret" and secret.missing() is None
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="no text"):
        secret.reveal()
    path.write_text("\n")
    assert "is empty" in secret.missing().mend
    path.write_text("x" * 70_000)
    assert "longer than" in secret.missing().mend
    monkeypatch.setenv("A_TOKEN", "other")
    assert Secret(env="A_TOKEN").reveal() == "other"
    monkeypatch.setenv("A_TOKEN", "")
    assert "set to nothing" in Secret(env="A_TOKEN").missing().mend
    monkeypatch.delenv("A_TOKEN")
    with pytest.raises(ConfigError, match=r"A_TOKEN.*is not set"):
        Secret(env="A_TOKEN").reveal()


def test_headers_are_revealed_together_and_every_secret_that_is_missing_is_named(monkeypatch):
    """All of them at once."""
    headers = {"a": "b", "authorization": Secret(env="FIRST_ONE"), "x-key": Secret(env="SECOND_ONE")}
    origin = HttpOriginConfig(base="", headers=headers)
    with pytest.raises(ConfigError) as caught:
        origin.revealed_headers()
    assert [p.field for p in caught.value.problems] == ["headers.authorization.env", "headers.x-key.env"]
    monkeypatch.setenv("FIRST_ONE", "1")
    monkeypatch.setenv("SECOND_ONE", "2")
    assert origin.revealed_headers() == {"a": "b", "authorization": "1", "x-key": "2"}


MARKER = "m4rker-of-a-secret"
INLINE = [
    {"headers": {"Authorization": MARKER}},
    {"headers": {"authorization": f"Bearer {MARKER}"}},
    {"headers": {"cookie": MARKER}},
    {"headers": {"Proxy-Authorization": MARKER}},
    {"headers": {"x-api-key": MARKER}},
    {"headers": {"x-auth": MARKER}},
    {"headers": {"my-token-1": MARKER}},
    {"headers": {"the_password": MARKER}},
    {"headers": {"client.secret": MARKER}},
    {"headers": {"harmless": f"Bearer {MARKER}"}},
    {"headers": {"harmless": f"https://user:{MARKER}@example.org"}},
    {"headers": {"harmless": [MARKER]}},
    {"headers": {"harmless": {"value": MARKER}}},
    {"headers": {"harmless": {"env": f"{MARKER}"}}},
    {"headers": {"harmless": {"env": "A", "file": MARKER}}},
    {"headers": f"authorization: {MARKER}"},
    {"headers": [MARKER]},
    {"headers": {"bad name": MARKER}},
    {"headers": {"range": MARKER}},
    {"header": {"authorization": MARKER}},
    {"token": MARKER},
    {"credentials_file_or_so": MARKER},
    {"hdr": [MARKER]},
    {"base": f"https://user:{MARKER}@example.org"},
    {"base": f"https://{MARKER}@example.org"},
    {"base": f"https://user:pass/{MARKER}@example.org"},
    {"base": f"https://user:{MARKER}/x@example.org"},
    {"base": f"user:{MARKER}@example.org"},
    {"base": f"https://example.org/?token={MARKER}"},
    {"base": f"https://example.org/#{MARKER}"},
    {"base": f"https://user:{MARKER}/"},
    {"base": f"//user:{MARKER}@example.org/"},
    *(
        {"headers": {name: MARKER}}
        for name in ("x-session-id", "X-JWT", "bearer", "x-hmac", "x-pwd", "X-PIN", "pass", "x_sid")
    ),
    *({"headers": {"harmless": f"{scheme} {MARKER}"}} for scheme in ("Token", "digest", "Negotiate")),
    {"headers": {"harmless": f"eyJhbGciOi.{MARKER}"}},
    {"headers": {"harmless": f"https://example.org/?a=1&access_token={MARKER}"}},
    {"headers": {"harmless": f"sv=2020&sig={MARKER}"}},
]


@pytest.mark.parametrize("part", INLINE, ids=repr)
def test_a_secret_that_is_given_itself_is_refused_and_never_shown(part):
    """Neither as a value nor in words."""
    with pytest.raises(ConfigError) as caught:
        CacheConfig(origin=HTTP | part)
    assert MARKER not in f"{caught.value}{caught.value!r}{caught.value.problems}"


def test_a_secret_that_is_given_itself_is_told_how_to_be_given():
    """By reference."""
    for part in INLINE[:11] + INLINE[23:27]:
        mends = [mend for _, mend in problems_of(origin=HTTP | part).values()]
        assert any('{ env = "NAME" } or { file = "/run/secrets/x" }' in mend for mend in mends), part


@pytest.mark.parametrize(
    "header",
    [
        ("x-compass", "north"), ("x-spinner", "on"), ("accept", "text/html; level=1, */*"), ("x-basic", "basically"),
        ("referer", "https://example.org/a?design=1&monkey=2"), ("via", "1.1 a:8080"),
    ],
)  # fmt: skip
def test_a_header_that_only_looks_a_little_like_a_secret_is_kept(header):
    """As it is."""
    name, value = header
    assert CacheConfig(origin=HTTP | {"headers": {name: value}}).origin.headers == {name: value}


@pytest.mark.parametrize("origin", [f"https://u:{MARKER}@h", f"ftp://u:{MARKER}@h", f"{MARKER}", [MARKER]])
def test_an_origin_that_is_no_url_is_not_shown(origin):
    """It may be anything."""
    with pytest.raises(ConfigError) as caught:
        CacheConfig(origin=origin)
    assert MARKER not in f"{caught.value}{caught.value.problems}"


def test_nothing_but_reveal_shows_a_secret(tmp_path, monkeypatch):
    """Neither repr, nor mapping, nor pickle."""
    path = tmp_path / "x"
    path.write_text(MARKER)
    monkeypatch.setenv("A_SECRET", MARKER)
    config = CacheConfig(
        origin=HTTP | {"headers": {"authorization": {"env": "A_SECRET"}, "cookie": {"file": str(path)}}}
    )
    assert MARKER not in f"{config}{config!r}{config.to_mapping()}{config.origin}"
    assert MARKER.encode() not in pickle.dumps(config)
    assert config.to_mapping()["origin"]["headers"] == {
        "authorization": {"env": "A_SECRET"},
        "cookie": {"file": str(path)},
    }
    assert sorted(config.origin.revealed_headers().values()) == [MARKER, MARKER]


# -- anything at all ------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(
    ["memory", "file", "http", "1MiB", "5m", "x", "https://h", 10**400, "9" * 400 + "s", -1, 0, "true"]
)  # fmt: skip
NAMES = st.sampled_from(
    [
        "type", "capacity", "folder", "base", "headers", "timeout", "verify", "fresh", "negative", "chunk_size",
        "enabled", "max_entries", "policy", "env", "file", "name", "min_buffer_size", "leak_detection", "workers",
    ]
) | st.text(max_size=5)  # fmt: skip
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4))
TABLES = st.dictionaries(NAMES, JSON, max_size=6)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "tiers": JSON | st.lists(TABLES, max_size=3),
        "origin": JSON | TABLES,
        "freshness": JSON | TABLES,
        "buffers": JSON | TABLES,
        "memory_limit": JSON,
        "workers": JSON,
    },
)


@given(SETTINGS)
def test_whatever_is_given_is_a_configuration_or_a_list_of_problems(settings):
    """Nothing else is raised, and nothing given is changed."""
    before = repr(settings)
    problems, config = (), None
    try:
        config = CacheConfig(**settings)
    except ConfigError as error:
        problems = error.problems
    if config is None:
        assert problems and all(problem.field and problem.mend for problem in problems)
    else:
        again = config.to_mapping()
        del again["schema"]
        assert CacheConfig(**again) == config
    assert repr(settings) == before


@given(
    st.text(max_size=12).map("https://".__add__) | st.text("htps:/@.[]:0x?#% \n", max_size=14).map("http://h".__add__),
    st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=2),
)
def test_what_is_taken_here_the_origin_takes_too(base, headers):
    """It has rules of its own, and says so when it is made: too late."""
    try:
        config = HttpOriginConfig(base=base, headers=headers)
    except ConfigError:
        return
    HttpOrigin(config.base, headers=config.revealed_headers()).close()


def test_what_holds_itself_or_is_nested_without_end_is_refused():
    """Python itself could not print it."""
    loop = []
    loop += [loop, loop]
    deep = {}
    for _ in range(3000):
        deep = {"a": deep}
    assert "nested deeper" in problems_of(workers=loop)["workers"][1]
    assert "nested deeper" in problems_of(origin=deep)["origin"][1]
    with pytest.raises(ConfigError, match="nested deeper"):
        CacheConfig().replace(freshness=deep)


def test_the_working_folder_may_be_gone(tmp_path, monkeypatch):
    """Two relative folders are compared as they are written."""
    monkeypatch.chdir(tmp_path)
    os.rmdir(tmp_path)
    assert "tiers[1].folder" in problems_of(tiers=[FILE, FILE | {"folder": "./cache"}])
    assert CacheConfig(tiers=[FILE, FILE | {"folder": "other"}])


def test_a_secret_in_a_pipe_is_refused_and_not_waited_for(tmp_path):
    """Nobody writes to it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="no regular file"):
        Secret(file=tmp_path / "pipe").reveal()
