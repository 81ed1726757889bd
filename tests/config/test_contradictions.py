"""Contradictory configurations: every fault is named and none invented, held to the rules as rules_model.py tells them."""

from __future__ import annotations

import copy
import importlib.util
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daramjwee.config.load import examine
from daramjwee.config.model import CacheConfig
from daramjwee.config.settings import BY_PATH
from daramjwee.errors import ConfigError

# Beside this file: tests are no package, and parameters are wanted before there are fixtures.
_spec = importlib.util.spec_from_file_location("rules_model", Path(__file__).with_name("rules_model.py"))
model = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(model)

KIB, MIB = 1024, 1024 * 1024
SEEDS = range(100)
BAD_SIZES = [0, -1, True, 1.5, "", "12 parsec", "-4KiB", [], "0B", "9" * 400 + "GiB", (1 << 60) + 1]
BAD_COUNTS = [0, -3, 2.5, True, "8", None, []]
BAD_DURATIONS = [-1, "soon", True, float("nan"), float("inf"), [], "", "-5s", "5 fortnights", "9" * 400 + "d"]
BAD_WORDS = ["", "maybe", 3, True, [], "first "]
BAD_SWITCHES = [0, 1, "yes", None, "true"]
BAD_TEXTS = ["", 3, None, True, []]


# -- configurations without a fault --------------------------------------------------------------------------------


def sound(pick):
    """A configuration that has nothing wrong with it, each field given or left out. `pick`: a random.Random."""
    config = {"tiers": [sound_tier(pick, index) for index in range(pick.randint(1, 3))]}
    config |= some(pick, memory_limit=["4MiB", 64 * MIB, "2GiB", "512 MiB"], workers=[1, 4, 1024])
    if pick.random() < 0.7:
        config["origin"] = sound_origin(pick)
    if pick.random() < 0.7:
        durations = [None, 0, "30s", 1.5, "7d", "2 h"]
        config["freshness"] = some(
            pick, fresh=durations, stale_while_revalidate=durations, stale_if_error=durations, negative=durations
        )
    if pick.random() < 0.8:
        config["buffers"] = sound_buffers(pick)
    return config


def some(pick, **choices):
    """About half of the fields, each with one of its values."""
    return {name: pick.choice(values) for name, values in choices.items() if pick.random() < 0.5}


def sound_tier(pick, index):
    kind = pick.choice(["memory", "file", "file"])
    tier = {"type": kind, "capacity": pick.choice(["256MiB", "20GiB", 1 << 30, "1.5 GB"])}
    tier |= some(
        pick, max_entries=[None, 1, 5000], policy=["sieve", "lru"], max_object_size=[None, 1, "64MiB", tier["capacity"]]
    )
    if kind == "file":
        tier["folder"] = f"/srv/daramjwee/{index}"
        tier |= some(
            pick,
            free_space_floor=[0, "1GiB"],
            durability=["flush", "fsync"],
            verify=["first", "always", "off"],
        )
    return tier


def sound_origin(pick):
    if pick.random() < 0.3:
        return {"type": "file", "folder": "/srv/models"}
    origin = {"type": "http", "base": pick.choice(["https://example.org/objects/", "http://[::1]:8080"])}
    origin |= some(
        pick, timeout=["30s", 5], connect_timeout=["500ms", 2.5], retries=[0, 3], redirects=[0, 10], pool_size=[1, 64],
        verify=[True, False], headers=[{}, {"accept": "*/*"}, {"authorization": {"env": "TOKEN"}, "x-shard": "7"}],
    )  # fmt: skip
    return origin


def sound_buffers(pick):
    if pick.random() < 0.1:
        return None
    low = pick.choice([1024, "4KiB", "16KiB"])
    high = pick.choice(["512KiB", MIB, "4MiB"])
    within = ["64KiB", 128 * KIB, "512KiB"]
    large = pick.choice([("64KiB", "1MiB"), (256 * KIB, "2MiB"), ("4MiB", "5MiB")])
    buffers = {"min_buffer_size": low, "max_buffer_size": high, "max_pool_bytes": pick.choice(["4MiB", "1GiB"])}
    buffers |= {"large_object_threshold": large[0], "very_large_object_threshold": large[1]}
    return buffers | some(
        pick, default_buffer_size=within, chunk_size=[None, *within], enabled=[True, False],
        large_object_strategy=["adaptive", "pooled", "chunked", "direct"], max_concurrent_large_ops=[1, 16],
        max_queued_large_ops=[1, 4096], acquire_timeout=[0, "1m"], max_idle_age=[0, 90.5], metrics_interval=["1s", 60],
        leak_detection=["off", "sampled", "full"], enable_detailed_metrics=[True, False],
    )  # fmt: skip


# -- faults: each changes a sound configuration and says which field it made wrong ---------------------------------


def table_of(config, name):
    """The table `name`, made where it was left out or None."""
    if not config.get(name):
        config[name] = {}
    return config[name]


def bad_pool_size(config, pick):
    field = pick.choice(["default_buffer_size", "large_object_threshold", "max_buffer_size", "max_pool_bytes"])
    table_of(config, "buffers")[field] = pick.choice([*BAD_SIZES, 1 << 60, "2048TiB", None])
    return f"buffers.{field}"


def bad_pool_count(config, pick):
    field = pick.choice(["max_concurrent_large_ops", "max_queued_large_ops"])
    table_of(config, "buffers")[field] = pick.choice([*BAD_COUNTS, 1 << 21])
    return f"buffers.{field}"


def bad_pool_duration(config, pick):
    field = pick.choice(["acquire_timeout", "max_idle_age", "metrics_interval"])
    bad = [*BAD_DURATIONS, "400d", None, *([0] if field == "metrics_interval" else [])]
    table_of(config, "buffers")[field] = pick.choice(bad)
    return f"buffers.{field}"


def bad_pool_word(config, pick):
    field = pick.choice(["large_object_strategy", "leak_detection"])
    table_of(config, "buffers")[field] = pick.choice([word for word in BAD_WORDS if word != "first "])
    return f"buffers.{field}"


def bad_pool_switch(config, pick):
    field = pick.choice(["enabled", "enable_detailed_metrics"])
    table_of(config, "buffers")[field] = pick.choice(BAD_SWITCHES)
    return f"buffers.{field}"


def bounds_crossed(config, pick):
    table_of(config, "buffers").update(min_buffer_size="8MiB", max_buffer_size=pick.choice(["1MiB", 4096]))
    return "buffers.min_buffer_size"


def default_out_of_bounds(config, pick):
    table_of(config, "buffers")["default_buffer_size"] = pick.choice([1, "512B", "8MiB"])
    return "buffers.default_buffer_size"


def chunk_out_of_bounds(config, pick):
    table_of(config, "buffers")["chunk_size"] = pick.choice([1, "512B", "8MiB"])
    return "buffers.chunk_size"


def thresholds_crossed(config, pick):
    large = pick.choice(["1MiB", "3MiB"])
    table_of(config, "buffers").update(large_object_threshold=large, very_large_object_threshold="1MiB")
    return "buffers.large_object_threshold"


def pool_below_its_largest(config, pick):
    table_of(config, "buffers")["max_pool_bytes"] = pick.choice([1, "256KiB"])
    return "buffers.max_pool_bytes"


def bad_freshness(config, pick):
    field = pick.choice(["fresh", "stale_while_revalidate", "stale_if_error", "negative"])
    table_of(config, "freshness")[field] = pick.choice(BAD_DURATIONS)
    return f"freshness.{field}"


def bad_memory_limit(config, pick):
    config["memory_limit"] = pick.choice([*BAD_SIZES, 1, "3MiB", 4 * MIB - 1, None])
    return "memory_limit"


def bad_workers(config, pick):
    config["workers"] = pick.choice([*BAD_COUNTS, 1025])
    return "workers"


def one_tier(config, pick, *kinds):
    """One of the tiers of some kind with its place; the first becomes one where there is none."""
    places = [index for index, tier in enumerate(config["tiers"]) if tier["type"] in kinds]
    if not places:
        config["tiers"][0] = {"type": "file", "folder": "/srv/daramjwee/0", "capacity": "20GiB"}
        places = [0]
    index = pick.choice(places)
    return config["tiers"][index], f"tiers[{index}]"


def bad_capacity(config, pick):
    tier, name = one_tier(config, pick, "memory", "file")
    tier["capacity"] = pick.choice([*BAD_SIZES, None])
    return f"{name}.capacity"


def no_capacity(config, pick):
    tier, name = one_tier(config, pick, "memory", "file")
    tier.pop("capacity", None)
    return f"{name}.capacity"


def bad_max_entries(config, pick):
    tier, name = one_tier(config, pick, "memory", "file")
    tier["max_entries"] = pick.choice([bad for bad in BAD_COUNTS if bad is not None])
    return f"{name}.max_entries"


def bad_largest(config, pick):
    tier, name = one_tier(config, pick, "memory", "file")
    tier["max_object_size"] = pick.choice(BAD_SIZES)
    return f"{name}.max_object_size"


def object_above_capacity(config, pick):
    tier, name = one_tier(config, pick, "memory", "file")
    tier["max_object_size"] = pick.choice(["21GiB", 1 << 45])
    return f"{name}.max_object_size"


def bad_tier_word(config, pick):
    tier, name = one_tier(config, pick, "file")
    field = pick.choice(["policy", "durability", "verify"])
    tier[field] = pick.choice(BAD_WORDS)
    return f"{name}.{field}"


def bad_floor(config, pick):
    tier, name = one_tier(config, pick, "file")
    tier["free_space_floor"] = pick.choice([bad for bad in BAD_SIZES if bad not in (0, "0B")])
    return f"{name}.free_space_floor"


def bad_folder(config, pick):
    tier, name = one_tier(config, pick, "file")
    tier["folder"] = pick.choice(BAD_TEXTS)
    return f"{name}.folder"


def folder_twice(config, pick):
    config["tiers"].append({"type": "file", "folder": "/srv/daramjwee/twice", "capacity": "1GiB"})
    config["tiers"].append({"type": "file", "folder": "/srv/daramjwee/twice", "capacity": "2GiB"})
    return f"tiers[{len(config['tiers']) - 1}].folder"


def unknown_in_tier(config, pick):
    tier, name = one_tier(config, pick, "memory", "file")
    field = pick.choice(["capacty", "colour", "max_entry"])
    tier[field] = 1
    return f"{name}.{field}"


def file_field_in_memory(config, pick):
    config["tiers"].append({"type": "memory", "capacity": "1MiB", "verify": "first"})
    return f"tiers[{len(config['tiers']) - 1}].verify"


def tier_of_no_kind(config, pick):
    config["tiers"].append(pick.choice([{"type": "tape"}, {"capacity": "1GiB"}, {"type": 3, "capacity": "1GiB"}]))
    return f"tiers[{len(config['tiers']) - 1}].type"


def tier_that_is_none(config, pick):
    config["tiers"].append(pick.choice([3, True, None, ["memory"]]))
    return f"tiers[{len(config['tiers']) - 1}]"


def no_tiers(config, pick):
    config["tiers"] = pick.choice([[], 3, True])
    return "tiers"


def http_origin(config):
    if (config.get("origin") or {}).get("type") != "http":
        config["origin"] = {"type": "http", "base": "https://example.org/"}
    return config["origin"]


def bad_base(config, pick):
    http_origin(config)["base"] = pick.choice(
        ["example.org", "ftp://example.org/", "https://", "https://example.org/?page=1", "https://example.org/#top", 3]
    )
    return "origin.base"


def secret_in_base(config, pick):
    http_origin(config)["base"] = pick.choice(["https://joe:hunter2@example.org/", "https://hunter2@example.org/a"])
    return "origin.base"


def bad_origin_duration(config, pick):
    field = pick.choice(["timeout", "connect_timeout"])
    http_origin(config)[field] = pick.choice([*BAD_DURATIONS, 0, "0s", None])
    return f"origin.{field}"


def bad_origin_count(config, pick):
    field = pick.choice(["retries", "redirects", "pool_size"])
    http_origin(config)[field] = pick.choice([bad for bad in BAD_COUNTS if bad != 0 or field == "pool_size"])
    return f"origin.{field}"


def bad_certificates(config, pick):
    http_origin(config)["verify"] = pick.choice([3, None, [], ""])
    return "origin.verify"


def header_with_secret(config, pick):
    name = pick.choice(["authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token", "my-password"])
    http_origin(config).setdefault("headers", {})
    config["origin"]["headers"] |= {name: "hunter2"}
    return f"origin.headers.{name}"


def bad_header(config, pick):
    http_origin(config).setdefault("headers", {})
    config["origin"]["headers"] |= {
        "x-shard": pick.choice([3, None, "a\r\nb", [], "Bearer hunter2", "https://joe:hunter2@example.org/"])
    }
    return "origin.headers.x-shard"


def bad_reference(config, pick):
    value, part = pick.choice(
        [
            ({}, "env"),
            ({"env": "A", "file": "/b"}, "env"),
            ({"env": ""}, "env"),
            ({"file": 3}, "file"),
            ({"vault": "a"}, "vault"),
        ]
    )
    http_origin(config).setdefault("headers", {})
    config["origin"]["headers"] |= {"x-token": value}
    return f"origin.headers.x-token.{part}"


def unknown_in_origin(config, pick):
    http_origin(config)["user_agent"] = "squirrel"
    return "origin.user_agent"


def origin_of_no_kind(config, pick):
    config["origin"] = pick.choice([{"type": "gopher", "base": "x"}, {"base": "https://example.org/"}, {"type": True}])
    return "origin.type"


def origin_that_is_none(config, pick):
    config["origin"] = pick.choice([3, True, []])
    return "origin"


def origin_without_folder(config, pick):
    config["origin"] = pick.choice([{"type": "file"}, {"type": "file", "folder": ""}, {"type": "file", "folder": 3}])
    return "origin.folder"


def unknown_at_the_top(config, pick):
    field = pick.choice(["worker", "memory", "tier", "colour"])
    config[field] = pick.choice([1, "1MiB", {}])
    return field


def unknown_in_table(config, pick):
    name, field = pick.choice(
        [("buffers", "chunksize"), ("freshness", "fres"), ("buffers", "ttl"), ("freshness", "ttl")]
    )
    table_of(config, name)[field] = 1
    return f"{name}.{field}"


def table_that_is_none(config, pick):
    name = pick.choice(["buffers", "freshness"])
    config[name] = pick.choice([3, True, []])
    return name


FAULTS = [
    bad_pool_size, bad_pool_count, bad_pool_duration, bad_pool_word, bad_pool_switch, bounds_crossed,
    default_out_of_bounds, chunk_out_of_bounds, thresholds_crossed, pool_below_its_largest, bad_freshness,
    bad_memory_limit, bad_workers, bad_capacity, no_capacity, bad_max_entries, bad_largest, object_above_capacity,
    bad_tier_word, bad_floor, bad_folder, folder_twice, unknown_in_tier, file_field_in_memory, tier_of_no_kind,
    tier_that_is_none, no_tiers, bad_base, secret_in_base, bad_origin_duration, bad_origin_count, bad_certificates,
    header_with_secret, bad_header, bad_reference, unknown_in_origin, origin_of_no_kind, origin_that_is_none, origin_without_folder,
    unknown_at_the_top, unknown_in_table, table_that_is_none,
]  # fmt: skip


# They replace what others change, so they come after them.
LAST = [
    tier_of_no_kind, tier_that_is_none, no_tiers, origin_of_no_kind, origin_that_is_none, origin_without_folder,
    table_that_is_none,
]  # fmt: skip


def contradictory(seed):
    """A configuration with 1 to 6 faults, and which were made. One that would undo another, or hide it by design, is not
    made: the model says which. Of as many seeds as there are faults, each fault is in one for certain."""
    pick = random.Random(seed)
    certain = FAULTS[seed % len(FAULTS)]
    made = {}
    while certain not in made:
        config, made = sound(pick), {}
        chosen = {certain, *pick.sample(FAULTS, pick.randint(0, 5))}
        for fault in sorted(chosen, key=lambda fault: (fault in LAST, FAULTS.index(fault))):
            tried = copy.deepcopy(config)
            name = fault(tried, pick)
            if name not in made.values() and model.faults_of(tried) == {*made.values(), name}:
                config, made[fault] = tried, name
    return config, made


# -- held to the model ---------------------------------------------------------------------------------------------


def told(config):
    """The fields that the library names, in order."""
    examined = examine(config, environ={})
    assert (examined.config is None) == bool(examined.problems)
    assert all(problem.mend for problem in examined.problems)
    return sorted(problem.field for problem in examined.problems)


def assert_same(config):
    """Named by both: each field once."""
    assert told(config) == sorted(model.faults_of(config)), json.dumps(config, indent=1, default=str)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_contradictory_configuration_is_told_all_its_faults_and_no_other(seed):
    """1 to 6 faults at once, of every kind, in configurations that are sound otherwise."""
    config, made = contradictory(seed)
    assert told(config) == sorted(made.values()), json.dumps(config, indent=1, default=str)


def test_the_hundred_have_every_kind_of_fault_and_every_number():
    """Else they would not show what they are to show."""
    made = [contradictory(seed)[1] for seed in SEEDS]
    assert {fault for faults in made for fault in faults} == set(FAULTS)
    assert {len(faults) for faults in made} == {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@settings(max_examples=12)  # for each of them
@given(pick=st.randoms(use_true_random=False))
def test_each_fault_is_named_when_it_is_the_only_one(fault, pick):
    """Whatever the rest of the configuration is."""
    config = sound(pick)
    name = fault(config, pick)
    assert_same(config)
    assert name in told(config)


@given(pick=st.randoms(use_true_random=False))
def test_a_configuration_without_a_fault_has_no_problem(pick):
    """Nothing is invented, and what comes out says the same as what went in."""
    config = sound(pick)
    assert model.faults_of(config) == set()
    examined = examine(config, environ={})
    assert examined.problems == ()
    assert examined.config == CacheConfig(**config)
    mapping = examined.config.to_mapping()
    assert examine(mapping, environ={}).config == examined.config


@given(pick=st.randoms(use_true_random=False))
def test_whatever_is_given_for_a_field_the_rules_and_the_library_agree(pick):
    """Values of all kinds anywhere, good and bad, so that rules meet fields that are faulty already."""
    config = sound(pick)
    anything = [*BAD_SIZES, *BAD_DURATIONS, None, {}, "4KiB", "256KiB", "1MiB", 1 << 60, 1, "lru", "off", "file", False]
    tables = [table for table in (config, *config["tiers"], config.get("buffers"), config.get("freshness")) if table]
    for _ in range(pick.randint(1, 12)):
        table = pick.choice(tables)
        field = pick.choice(sorted(table))
        if field not in ("tiers", "origin", "freshness", "buffers", "type"):
            table[field] = pick.choice(anything)
    assert_same(config)


@pytest.mark.parametrize("seed", range(0, 100, 7))
def test_a_file_is_told_the_same_as_a_mapping_and_an_error_has_all_of_it(seed, tmp_path):
    """By way of JSON, and as the arguments of the struct."""
    config, made = contradictory(seed)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert {problem.field for problem in examine(path, environ={}).problems} == set(made.values())
    known = {name: value for name, value in config.items() if name in CacheConfig.__struct_fields__}
    if expected := model.faults_of(known):
        with pytest.raises(ConfigError) as caught:
            CacheConfig(**known)
        assert {problem.field for problem in caught.value.problems} == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_wherever_the_fields_come_from_the_faults_are_the_same(seed):
    """Some in the mapping, some as arguments, some in the environment: a relation is asked about what counts in the end."""
    config, made = contradictory(seed)
    pick = random.Random(seed)
    rest, arguments, variables = {"schema": 3}, {}, {}
    for name, value in config.items():
        table = isinstance(value, dict) and name in ("buffers", "freshness")
        for field, inner in (
            [(f"{name}.{field}", inner) for field, inner in value.items()] if table else [(name, value)]
        ):
            place = pick.choice(["mapping", "argument", "environment"])
            setting = BY_PATH.get(field)
            # Text that a variable may hold, and that means there what it means elsewhere.
            fits = isinstance(inner, str) and inner and setting is not None and setting.value_of(inner) == inner
            if place == "environment" and fits and setting.env:
                variables[setting.env] = inner
            elif place == "argument":
                arguments[field] = inner
            elif table:
                rest.setdefault(name, {})[field.partition(".")[2]] = inner
            else:
                rest[name] = inner
    problems = examine(rest, environ=variables, changes=arguments).problems
    assert sorted(problem.field for problem in problems) == sorted(made.values())


def test_a_size_beyond_all_measure_is_told_beside_other_faults_of_its_tier():
    """Two that are so are two problems; and one does not hide behind what else is wrong."""
    huge = (1 << 60) + 1
    both = {"type": "memory", "capacity": huge + 1, "max_object_size": huge}
    beside = {"type": "memory", "capacity": huge, "policy": "fifo"}
    config = {"tiers": [both, beside]}
    assert told(config) == ["tiers[0].capacity", "tiers[0].max_object_size", "tiers[1].capacity", "tiers[1].policy"]
    assert_same(config)


def test_no_message_shows_a_secret():
    """Whatever else is wrong, its value stays out of the error."""
    config = {
        "origin": {
            "type": "http", "base": "https://joe:hunter2@example.org/?sig=hunter2",
            "headers": {"authorization": "hunter2", "x-api-key": "hunter2"},
        },
        "colour": 1,
    }  # fmt: skip
    problems = examine(config, environ={}).problems
    assert len(problems) == 4
    assert "hunter2" not in str(ConfigError(problems))
    assert "hunter2" not in repr(problems)
    assert all("env = " in problem.mend for problem in problems if "headers" in problem.field)
