"""The table of settings tells of every field, and nothing else."""

from __future__ import annotations

from daramjwee import BufferPoolConfig, Freshness
from daramjwee.config import SETTINGS, CacheConfig, FileOriginConfig, FileTier, HttpOriginConfig, MemoryTier
from daramjwee.config.setting import REQUIRED, Kind
from daramjwee.config.settings import BY_PATH

PARTS = {
    "": CacheConfig(),
    "tiers.memory": MemoryTier(capacity=1),
    "tiers.file": FileTier(folder="x", capacity=1),
    "origin": HttpOriginConfig(base=""),
    "freshness": Freshness(),
    "buffers": BufferPoolConfig(),
}
LIVE = {"capacity", "max_entries", "max_object_size"}


def fields_of(part):
    return part.__slots__ if isinstance(part, Freshness) else part.__struct_fields__


def test_there_is_a_row_for_each_field_and_no_other():
    """Each once."""
    fields = {f"{name}.{field}".lstrip(".") for name, part in PARTS.items() for field in fields_of(part)}
    fields |= {f"origin.{field}" for field in FileOriginConfig.__struct_fields__}
    fields -= {"freshness", "buffers"}  # their fields are the rows
    assert {setting.path for setting in SETTINGS} == fields
    assert len(BY_PATH) == len(SETTINGS)


def test_defaults_are_those_that_count():
    """As they would be written."""
    config = CacheConfig()
    required = {setting.path for setting in SETTINGS if setting.default == REQUIRED}
    assert required == {
        "tiers.memory.capacity", "tiers.file.capacity", "tiers.file.folder", "origin.base", "origin.folder",
    }  # fmt: skip
    assert CacheConfig(tiers=BY_PATH["tiers"].default, origin=BY_PATH["origin"].default) == config
    changes = {
        s.path: s.default for s in SETTINGS if s.path.startswith(("buffers.", "freshness.")) or "." not in s.path
    }
    assert config.replace(**changes) == config
    for kind, bare in (("memory", MemoryTier(capacity=1)), ("file", FileTier(folder="x", capacity=1))):
        given = {s.path.rpartition(".")[2]: s.default for s in SETTINGS if s.path.startswith(f"tiers.{kind}.")}
        given |= {"capacity": 1} | ({"folder": "x"} if kind == "file" else {})
        assert type(bare)(**given) == bare
    given = {s.path.partition(".")[2]: s.default for s in SETTINGS if s.path.startswith("origin.")}
    del given["folder"]
    assert HttpOriginConfig(**given | {"base": "", "headers": {}}) == HttpOriginConfig(base="")


def test_optional_is_what_none_is_a_value_of():
    """So that a variable can say it."""
    assert {setting.path for setting in SETTINGS if setting.optional} == {
        "tiers.memory.max_entries", "tiers.memory.max_object_size", "tiers.file.max_entries", "tiers.file.max_object_size",
        "origin", "freshness.fresh", "freshness.stale_while_revalidate", "freshness.stale_if_error", "freshness.negative",
        "buffers.chunk_size",
    }  # fmt: skip


def test_what_changes_while_a_cache_runs_is_said():
    """As `Cache.reconfigure` has it."""
    for setting in SETTINGS:
        room, _, name = setting.path.partition(".")
        live = name.rpartition(".")[2] in LIVE if room == "tiers" else room != "origin"
        assert setting.live is live, setting.path


def test_kinds_are_those_of_the_defaults():
    """A size is not a duration."""
    for setting in SETTINGS:
        default = setting.default
        if setting.kind in {Kind.SWITCH, Kind.TRUST}:
            assert isinstance(default, bool)
        elif setting.kind is Kind.COUNT:
            assert default is None or type(default) is int
        elif setting.kind in {Kind.SIZE, Kind.DURATION} and default not in {None, REQUIRED}:
            assert isinstance(default, str) and default[0].isdigit()
            assert default.endswith("B") is (setting.kind is Kind.SIZE)


def test_every_row_says_what_it_is_what_it_costs_and_when_to_change_it():
    """In words that fit a line of a table."""
    for setting in SETTINGS:
        for text in (setting.meaning, setting.trade, setting.change_when):
            assert 8 < len(text) < 140 and "|" not in text and "\n" not in text, (setting.path, text)
