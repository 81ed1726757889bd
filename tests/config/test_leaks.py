"""Secrets in places where none belongs: what is told of them shows none, in words, in `repr` and in tracebacks."""

from __future__ import annotations

import json
import traceback

import pytest

from daramjwee import ConfigError
from daramjwee.config import CacheConfig, FileTier, examine, load
from daramjwee.config.migrate import migrate
from daramjwee.config.secret import shown
from daramjwee.config.words import name_of

MARKER = "Hunter2Zq"
BEARER = f"Bearer {MARKER}"
URL = f"https://u:{MARKER}@example.org"
QUERY = f"https://example.org/?token={MARKER}"


def http(**fields):
    return {"origin": {"type": "http", "base": "https://example.org/", **fields}}


def headers(found):
    return http(headers=found)


def memory(**fields):
    return {"tiers": [{"type": "memory", "capacity": "1MiB", **fields}]}


SHAPES = [
    headers({"authorization": BEARER}),
    headers({"authorization": [BEARER]}),
    headers({"authorization": {"env": {"x": MARKER}}}),
    headers({"authorization": {"env": BEARER}}),
    headers({"authorization": {"env": f"{MARKER}!"}}),
    headers({"authorization": {"file": f"\0{MARKER}"}}),
    headers({"authorization": {"value": MARKER}}),
    headers({"authorization": {"env": "A", "password": MARKER}}),
    headers({"authorization": {BEARER: "x"}}),
    headers({f"authorization: {BEARER}": ""}),
    headers({f"x {MARKER}": "v"}),
    headers({URL: "x"}),
    headers({"cookie": f"sid={MARKER}"}),
    headers({"x-a": f"Basic {MARKER}"}),
    headers({"x-a": f"eyJhbGciOi.{MARKER}"}),
    headers({"x-a": f"é{MARKER}"}),
    headers(f"authorization: {MARKER}"),
    headers([["authorization", MARKER]]),
    http(base=URL),
    http(base=f"https://u:{MARKER}/x@example.org/"),
    http(base=QUERY),
    http(base=f"https://example.org/#{MARKER}"),
    http(base=f"https://example.org:{MARKER}/"),
    http(base=f"https://example.org/ {MARKER}"),
    http(password=MARKER),
    http(anything=MARKER),
    http(timeout=URL, retries=BEARER, verify=f"{URL}\0"),
    http(**{URL: 1}),
    *({"origin": value} for value in (URL, QUERY, f"s3://key:{MARKER}@bucket", MARKER, [MARKER], {"type": BEARER})),
    {"origin": f"file://u:{MARKER}@host/x"},
    {"origin": "https://example.org/", "origin.headers.authorization": BEARER},
    {"origin": "https://example.org/", "origin.password": MARKER},
    {"origin.headers.authorization": BEARER},
    {"password": MARKER, "api_key": MARKER, "headers": {"authorization": MARKER}},
    {"x": {"y": [{"password": MARKER}]}},
    {"tiers": [{"type": "redis", "url": f"redis://:{MARKER}@h/"}]},
    *(
        {"tiers": text}
        for text in (
            f"redis:redis://:{MARKER}@h/", f"memory:1MiB;redis://u:{MARKER}@h", f"redis://u:a;{MARKER}@h",
            f"memory:1MiB?password={MARKER}", f"memory:1MiB?{MARKER}@h", f"password={MARKER}",
        )
    ),
    {"tiers": [{"type": "file", "capacity": "1MiB", "folder": URL}] * 2},
    {"tiers": [{"type": "file", "capacity": "1MiB", "folder": {"token": MARKER}}]},
    {"tiers": [{"type": URL}]},
    memory(policy=URL),
    memory(token=MARKER),
    memory(capacity={"token": MARKER}),
    memory(capacity=[BEARER]),
    memory(**{URL: 1}),
    {"buffers": {"secret": MARKER, "chunk_size": {"token": MARKER}, "large_object_strategy": URL, URL: 1}},
    {"buffers": URL},
    {"freshness": {"fresh": {"token": MARKER}, "negative": URL}},
    *(
        {"memory_limit": value, "workers": value}
        for value in (URL, BEARER, QUERY, [URL], {"password": MARKER}, {BEARER: 1}, f"u:{MARKER}@h", f"pwd={MARKER}", f"key: {MARKER}")
    ),
    {"schema": URL},
    {"schema": 1, "chunk_size": URL},
    {"schema": 2, "chunk_size": URL},
    {"buffers": URL, "chunk_size": 1},
    {"Enabled": True, "Password": MARKER, "LargeObjectStrategy": URL, "EnableLogging": URL, "LoggingInterval": URL},
    {"Enabled": {"token": MARKER}, "DefaultBufferSize": URL},
    {"BufferPool": URL},
    {"BufferPool": {"password": MARKER}, "WorkerPoolSize": URL, "PositiveFreshFor": URL},
    {"WorkerPoolSize": 1, "Workers": URL},
    {"Enabled": True, "workers": 1, "chunk_size": URL},
    {URL: 1, BEARER: 1, f"password={MARKER}": 1},
]  # fmt: skip


@pytest.mark.parametrize("mapping", SHAPES, ids=range(len(SHAPES)))
def test_no_message_shows_a_secret_wherever_it_stands(tmp_path, mapping):
    """From a mapping, from a file, and when the file is migrated."""
    path = tmp_path / "cache.json"
    path.write_text(json.dumps(mapping))
    for source in (mapping, path):
        found = examine(source, environ={})
        assert found.problems
        assert MARKER not in f"{found!r} {[*map(str, found.problems)]}"
        with pytest.raises(ConfigError) as caught:
            load(source, environ={})
        said = "".join(traceback.TracebackException.from_exception(caught.value).format())
        assert MARKER not in said + repr(caught.value) + repr(getattr(caught.value, "__notes__", ""))
    try:
        said = migrate(str(path), dry_run=True).action
    except ConfigError as error:
        said = repr(error) + "".join(traceback.TracebackException.from_exception(error).format())
    # What is of today's schema is left alone: to check it is for `config check`.
    assert MARKER not in said and (said == "nothing" or "ConfigError" in said)


@pytest.mark.parametrize("value", [URL, BEARER, QUERY, f"redis://:{MARKER}@h/0", f"u:{MARKER}@h", f"password={MARKER}"])
@pytest.mark.parametrize(
    "name", ["ORIGIN", "TIERS", "MEMORY_LIMIT", "BUFFERS_CHUNK_SIZE", "FRESHNESS_FRESH", "PASSWORD", "CONFIG", "ORIGIN_HEADERS_X"]
)  # fmt: skip
def test_no_message_shows_what_a_variable_holds(name, value):
    """Variables are where secrets belong, under another name."""
    found = examine(environ={f"DARAMJWEE_{name}": value})
    assert found.problems
    assert MARKER not in f"{found!r} {[*map(str, found.problems)]}"


@pytest.mark.parametrize(
    "path", [f"{URL}/a.toml", f"{QUERY}.toml", f"u:{MARKER}@h.toml", f"token={MARKER}.toml", BEARER]
)
def test_no_message_shows_a_path_that_is_a_secret(path):
    """A URL, or what was pasted by mistake."""
    for act in (lambda: load(path, environ={}), lambda: migrate(path)):
        with pytest.raises(ConfigError) as caught:
            act()
        said = "".join(traceback.TracebackException.from_exception(caught.value).format())
        assert MARKER not in said + repr(caught.value)


def test_a_configuration_made_by_a_program_shows_none_either():
    """Whoever makes one may have read its fields from anywhere."""
    for make in (
        lambda: CacheConfig(memory_limit=URL, workers=BEARER),
        lambda: CacheConfig().replace(**{"buffers.chunk_size": URL, URL: 1}),
    ):
        with pytest.raises(ConfigError) as caught:
            make()
        assert MARKER not in f"{caught.value!r} {caught.value} {caught.value.problems!r}"


def test_a_url_is_no_folder():
    """It would be made, below the working folder, with the password in its name."""
    with pytest.raises(ConfigError, match="is a URL; give a path"):
        FileTier(folder="s3://bucket/cache", capacity="1MiB")
    assert FileTier(folder="a:b/c", capacity="1MiB").folder == "a:b/c"


def test_what_is_no_secret_is_shown():
    """A person has to see what was wrong."""
    for plain in (
        "256 MiB",
        "soon",
        "C:\\cache",
        "/srv/keys/cache",
        "memory:1MiB?policy=lru",
        "monkey",
        "a=b",
        "12:30",
        "",
    ):
        assert shown(plain) == plain
    assert shown({"a": ["b", ("c",)], 1: None}) == {"a": ["b", ("c",)], 1: None}
    assert name_of("tiers[0].capacity") == "tiers[0].capacity" and name_of("x y") == "'x y'"
