"""What is legal but unwise: each rule with a configuration that breaks it and one that only just does not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee import Freshness
from daramjwee.config import CacheConfig, FileTier, MemoryTier, Unwise, unwise
from daramjwee.config.draft import leaves

HTTP = {"type": "http", "base": "https://example.org"}
SECRET = {"headers": {"authorization": {"env": "TOKEN"}}}
FRESH = {"fresh": "5m"}


def memory(capacity="64MiB", **fields):
    return {"type": "memory", "capacity": capacity, **fields}


def file(folder="/srv/cache", capacity="20GiB", **fields):
    return {"type": "file", "folder": folder, "capacity": capacity, **fields}


# (field, unwise settings, settings that are not, a word of the reason)
CASES = [
    ("tiers[0].capacity", {"tiers": [memory("513MiB")]}, {"tiers": [memory("448MiB")]}, "never full"),
    ("tiers[0].capacity", {"tiers": [memory("513MiB")], "buffers": None}, {"tiers": [memory("512MiB")]}, "never full"),
    (
        "memory_limit",
        {"tiers": [memory("1MiB"), file()], "memory_limit": "64MiB"},
        {"tiers": [file()], "memory_limit": "64MiB"},
        "entries are evicted",
    ),
    ("tiers[0].max_entries", {"tiers": [file(max_entries=1)]}, {"tiers": [memory(max_entries=1)]}, "never fill"),
    ("tiers[1].capacity", {"tiers": [memory("200MiB"), memory("313MiB")]}, {}, "memory tiers together"),
    ("memory_limit", {"tiers": [memory("449MiB")]}, {"tiers": [memory("448MiB")]}, "do not fit into it together"),
    ("memory_limit", {"tiers": [memory("449MiB")]}, {"tiers": [memory("449MiB")], "buffers": None}, "evicted"),
    ("buffers.max_pool_bytes", {"buffers": {"max_pool_bytes": "513MiB"}}, {"buffers": {"max_pool_bytes": "512MiB"}}, "never"),
    ("workers", {"workers": 65}, {"workers": 64}, "wait for each other"),
    ("tiers[1]", {"tiers": [file(), memory()]}, {"tiers": [memory(), file()]}, "slow one is asked first"),
    ("tiers[1]", {"tiers": [memory(), memory("65MiB")]}, {"tiers": [file(), file("/mnt/cache")]}, "second memory tier"),
    ("tiers[1].capacity", {"tiers": [memory(), file(capacity="64MiB")]}, {"tiers": [memory(), file(capacity="65MiB")]}, "no more"),
    ("tiers", {"tiers": [memory("63MiB")]}, {"tiers": [memory("64MiB")]}, "there is no file tier"),
    ("tiers", {"tiers": [memory(max_object_size="1MiB")]}, {"tiers": [memory(max_object_size="1MiB"), file()]}, "not kept"),
    ("tiers[0].capacity", {"tiers": [memory(256), file()]}, {"tiers": [memory("1MiB"), file()]}, "without a unit is bytes"),
    ("tiers[0].max_entries", {"tiers": [file(max_entries=19)]}, {"tiers": [file(max_entries=20)]}, "never fill"),
    (
        "tiers[0].max_entries",
        {"tiers": [file(capacity="1GiB", max_entries=9, max_object_size="100MiB")]},
        {"tiers": [file(capacity="1GiB", max_entries=11, max_object_size="100MiB")]},
        "none may have more than 100MiB",
    ),
    ("tiers[0].verify", {"tiers": [file(verify="off")]}, {"tiers": [file(verify="always")]}, "damaged"),
    ("tiers[0].free_space_floor", {"tiers": [file(free_space_floor=0)]}, {"tiers": [file(free_space_floor=1)]}, "disk"),
    ("tiers[0].folder", {"tiers": [file("/dev/shm/x")]}, {"tiers": [file("/dev/shmem")]}, "memory_limit does not count"),
    ("tiers[0].folder", {"tiers": [file("/run/user/1/x")]}, {"tiers": [file("/var/cache/run")]}, "after a restart"),
    ("tiers[1].folder", {"tiers": [file("/a"), file("/a/b")]}, {"tiers": [file("/a"), file("/ab")]}, "lie in each other"),
    ("tiers[1].folder", {"tiers": [file("/a/b"), file("/a")]}, {"tiers": [file("/a/b"), file("/a/c")]}, "lie in each other"),
    ("origin.folder", {"tiers": [file("/a")], "origin": "file:/a"}, {"tiers": [file("/a")], "origin": "file:/b"}, "tiers[0]"),
    ("freshness.fresh", {"origin": HTTP}, {"origin": HTTP, "freshness": FRESH}, "never asked for again"),
    ("freshness.fresh", {"origin": HTTP}, {"origin": "file:/x"}, "Cache-Control"),
    ("origin.verify", {"origin": HTTP | {"verify": False}}, {"origin": HTTP | {"verify": "/ca.pem"}}, "not checked"),
    ("origin.base", {"origin": HTTP | SECRET | {"base": ""}}, {"origin": HTTP | {"base": ""}}, "every host"),
    ("origin.base", {"origin": HTTP | SECRET | {"base": ""}}, {"origin": HTTP | SECRET}, "authorization"),
    ("origin.base", {"origin": HTTP | SECRET | {"base": "http://h"}}, {"origin": HTTP | {"base": "http://h"}}, "in the clear"),
    ("origin.base", {"origin": HTTP | SECRET | {"base": "HTTP://h/"}}, {"origin": HTTP | SECRET | {"base": "http://[::1]:8/"}}, "clear"),
    ("origin.timeout", {"origin": HTTP | {"timeout": 30_000}}, {"origin": HTTP | {"timeout": 600}}, "for 8.3h"),
    ("origin.connect_timeout", {"origin": HTTP | {"connect_timeout": 601}}, {"origin": HTTP | {"connect_timeout": 600}}, "stalls"),
    ("origin.retries", {"origin": HTTP | {"retries": 11}}, {"origin": HTTP | {"retries": 10}}, "away"),
    ("freshness.stale_while_revalidate", {"freshness": {"stale_while_revalidate": 1}},
     {"freshness": FRESH | {"stale_while_revalidate": 1}}, "without fresh"),
    ("freshness.stale_if_error", {"freshness": {"stale_if_error": 1}},
     {"freshness": {"stale_if_error": 0}}, "origin says its lifetime"),
    ("freshness.negative", {"freshness": {"negative": "61m"}}, {"freshness": {"negative": "60m"}}, "not seen for up to 61.0m"),
    ("buffers.enabled", {"buffers": None}, {"buffers": {}}, "memory of its own"),
    ("buffers.chunk_size", {"buffers": {"chunk_size": "65KiB"}}, {"buffers": {"chunk_size": "64KiB"}}, "when memory is short"),
    ("buffers.chunk_size", {"buffers": {"chunk_size": "1MiB", "large_object_strategy": "chunked"}},
     {"buffers": {"chunk_size": "1MiB", "large_object_strategy": "direct"}}, "obeyed always"),
    ("buffers.acquire_timeout", {"buffers": {"acquire_timeout": 0}}, {"buffers": {"acquire_timeout": "1ms"}}, "nothing waits"),
    ("buffers.acquire_timeout", {"buffers": {"acquire_timeout": 601}}, {"buffers": {"acquire_timeout": 600}}, "callers wait"),
    ("buffers.leak_detection", {"buffers": {"leak_detection": "full"}}, {"buffers": {"leak_detection": "off"}}, "finding a leak"),
    ("buffers.max_idle_age", {"buffers": {"max_idle_age": 0}}, {"buffers": {"max_idle_age": 1}}, "pays for its pages"),
    ("buffers.metrics_interval", {"buffers": {"metrics_interval": "99ms"}}, {"buffers": {"metrics_interval": "100ms"}}, "all the time"),
    ("buffers.large_object_threshold", {"buffers": {"large_object_threshold": "31KiB"}},
     {"buffers": {"large_object_threshold": "32KiB"}}, "small objects take their turn"),
    ("buffers.large_object_strategy", {"buffers": {"large_object_strategy": "pooled"}},
     {"buffers": {"large_object_strategy": "adaptive"}}, "whole"),
    ("buffers.max_concurrent_large_ops", {"buffers": {"max_concurrent_large_ops": 257}},
     {"buffers": {"max_concurrent_large_ops": 256}}, "256 run"),
    ("buffers.max_concurrent_large_ops", {"memory_limit": "8MiB", "tiers": [file()], "buffers": {"max_concurrent_large_ops": 33}},
     {"memory_limit": "8MiB", "tiers": [file()], "buffers": {"max_concurrent_large_ops": 32}}, "32 run"),
]  # fmt: skip


def found(settings, field):
    return [warning for warning in unwise(CacheConfig(**settings)) if warning.field == field]


@pytest.mark.parametrize(("field", "bad", "good", "word"), CASES)
def test_what_is_unwise_is_told_with_its_reason_and_what_to_do(field, bad, good, word):
    """And what only just is not, is not."""
    (warning,) = found(bad, field)
    assert word in warning.reason and warning.mend
    assert str(warning).startswith(f"{field} = ") and warning.mend in str(warning)
    assert found(good, field) == []


def test_the_defaults_are_wise():
    """Also with the tiers of the first example of the documentation."""
    assert unwise(CacheConfig()) == ()
    assert unwise(CacheConfig(tiers="memory:256MiB;file:cache?capacity=20GiB", freshness=FRESH, origin=HTTP)) == ()


def test_a_pool_that_is_switched_off_is_not_judged_further():
    """Its other settings do nothing."""
    off = {"enabled": False, "leak_detection": "full", "max_pool_bytes": "1GiB", "acquire_timeout": 0}
    assert [warning.field for warning in unwise(CacheConfig(buffers=off))] == ["buffers.enabled"]


def test_tiers_that_a_program_made_are_not_judged():
    """Nothing is known of them."""
    assert unwise(CacheConfig(tiers=[{"type": "given", "name": "a"}, {"type": "given", "name": "b"}])) == ()


def test_values_are_as_the_configuration_has_them():
    """For programs; the text has sizes as people write them."""
    config = CacheConfig(
        tiers=[MemoryTier(capacity="1GiB"), FileTier(folder="/x", capacity="2GiB", free_space_floor=0)]
    )
    first, second = unwise(config)
    assert first == Unwise("tiers[0].capacity", 1 << 30, first.reason, first.mend)
    assert str(first).startswith("tiers[0].capacity = 1GiB: it may hold 1GiB")
    assert str(second).startswith("tiers[1].free_space_floor = 0B: ")


SIZES = st.sampled_from([1, 4096, 1 << 20, 1 << 26, 1 << 30, 1 << 40])
DURATIONS = st.sampled_from([None, 0, 0.01, 5, 3600, 1e6])
TIERS = st.lists(
    st.builds(memory, SIZES, max_entries=st.none() | st.integers(1, 1 << 20))
    | st.builds(file, st.sampled_from(["/a", "/a/b", "b", "/dev/shm"]), SIZES, verify=st.sampled_from(["off", "first"]))
    | st.just({"type": "given", "name": "x"}),
    min_size=1,
    max_size=4,
    unique_by=lambda tier: tier.get("folder", id(tier)),
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "tiers": TIERS,
            "origin": st.sampled_from([None, HTTP, HTTP | SECRET, "file:/a", {"type": "given", "name": "x"}]),
            "freshness": st.fixed_dictionaries(dict.fromkeys(Freshness.__slots__, DURATIONS)),
            "buffers": st.sampled_from([None, {}, {"chunk_size": "1MiB"}, {"acquire_timeout": 0}]),
            "memory_limit": st.sampled_from(["4MiB", "1GiB", "1TiB"]),
            "workers": st.integers(1, 1024),
        },
    )
)
def test_whatever_is_legal_can_be_judged(settings):
    """Each warning names a field that there is, and its value."""
    config = CacheConfig(**settings)
    mapping = dict(leaves("", config.to_mapping()))
    for warning in unwise(config):
        assert str(warning)
        if warning.field != "tiers" and not re.fullmatch(r"tiers\[\d\]", warning.field):
            assert mapping[warning.field] == warning.value


def test_no_warning_shows_a_secret(monkeypatch):
    """Only the names of headers."""
    monkeypatch.setenv("TOKEN", "m4rker-of-a-secret")
    config = CacheConfig(origin=HTTP | SECRET | {"base": "http://h", "verify": False})
    assert "m4rker" not in "".join(map(str, unwise(config))) and len(unwise(config)) == 3
