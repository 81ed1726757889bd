"""Folders of the file tier, up and down: what this release writes is read by the rules of 0.1.0, what a later one writes is
left alone."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import struct
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daramjwee import Cache, CacheMiss, ConfigError, FileStore, Freshness, NotFound

_spec = importlib.util.spec_from_file_location("reference", Path(__file__).with_name("reference.py"))
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)

FIXTURES = Path(__file__).parents[1] / "fixtures"
BLOCK = 256 * 1024
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
SIZES = st.sampled_from([0, 1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])


def content(key, size):
    return (hashlib.sha256(key.encode()).digest() * (size // 32 + 1))[:size]


def opened(folder, **given):
    return Cache(FileStore(folder, **{"capacity": "64MiB"} | given), freshness=Freshness(negative="1d"))


def tree(folder):
    """Every file with its bytes, mode and time of change."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            path.is_file() and path.read_bytes(),
        )
        for path in sorted(folder.rglob("*"))
    }


def metas(folder):
    return sorted((folder / "objects").rglob("*.meta"))


def test_the_reference_reads_what_0_1_0_wrote():
    """Or it would prove nothing: the folder that release left, with every byte and field."""
    release = FIXTURES / "0.1.0"
    entries = reference.read_folder(release / "tier")
    expected = json.loads((release / "expected.json").read_text())
    found = {key: hashlib.sha256(entry.data).hexdigest() for key, entry in entries.items() if key != "absent"}
    assert found == expected
    for key, entry in entries.items():
        if key == "absent":
            assert entry.metadata["negative"] is True
        else:
            assert entry.metadata["etag"] == '"1"' and entry.metadata["tags"] == ["tag"]


STEPS = st.lists(
    st.tuples(st.sampled_from(["set", "delete", "stream", "negative", "reopen"]), st.integers(0, 3), SIZES), max_size=12
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    steps=STEPS,
    keys=st.lists(KEYS, min_size=4, max_size=4, unique=True),
    durability=st.sampled_from(["flush", "fsync"]),
)
def test_what_this_release_writes_is_read_by_the_rules_of_0_1_0(tmp_path_factory, steps, keys, durability):
    """After any steps, while the folder is in use and after: the same keys, bytes and metadata, and no strange name."""
    folder = tmp_path_factory.mktemp("tier")
    expected = {}
    cache = opened(folder, durability=durability)
    try:
        for act, which, size in steps:
            key = keys[which]
            if act == "set":
                cache.set(key, content(key, size), etag='"e"', ttl="1d", tags=("t",), attributes={"a": "b"})
                expected[key] = content(key, size)
            elif act == "stream":
                with cache.writer(key) as writer:
                    writer.write(content(key, size)[: size // 2])
                    writer.write(content(key, size)[size // 2 :])
                expected[key] = content(key, size)
            elif act == "delete":
                cache.delete(key)
                expected.pop(key, None)
            elif act == "negative" and key not in expected:
                with pytest.raises(NotFound):
                    cache.get(key, absent)
                expected[key] = None
            elif act == "reopen":
                cache.close()
                cache = opened(folder, durability=durability)
        hold(folder, expected)
    finally:
        cache.close()
    hold(folder, expected)
    shutil.rmtree(folder)


def absent(_request):
    raise NotFound("not there")


def hold(folder, expected):
    entries = reference.read_folder(folder)
    assert {key: None if entry.metadata.get("negative") else entry.data for key, entry in entries.items()} == expected
    for entry in entries.values():
        if entry.metadata.get("etag"):
            assert {**entry.metadata, "stored_at": 0} == {
                "size": len(entry.data), "stored_at": 0, "etag": '"e"', "ttl": 86400.0, "tags": ["t"], "attributes": {"a": "b"},
            }  # fmt: skip
    assert reference.strange_names(folder) == []


def test_a_fill_that_is_running_is_no_entry_by_the_rules_of_0_1_0(tmp_path):
    """What is being written is in the staging area, and nowhere else."""
    folder = tmp_path / "tier"
    with opened(folder) as cache:
        cache.set("k", b"old")
        with cache.writer("k") as writer:
            writer.write(b"new")
            hold(folder, {"k": b"old"})
        hold(folder, {"k": b"new"})


def test_a_folder_goes_up_and_comes_down_again(tmp_path):
    """What 0.1.0 wrote, opened, added to and closed by this release, is still read by the rules of 0.1.0."""
    folder = tmp_path / "tier"
    shutil.copytree(FIXTURES / "0.1.0" / "tier", folder)
    before = reference.read_folder(folder)
    with opened(folder) as cache:
        for key in cache.keys():
            cache.get(key)
        cache.set("new", content("new", BLOCK + 5))
        cache.delete("small")
    after = reference.read_folder(folder)
    assert after.pop("new").data == content("new", BLOCK + 5)
    del before["small"]
    assert after == before
    # A checkout of the fixture has modes of its own.
    assert reference.strange_names(folder, modes=False) == []


# -- what a later release may write ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["daramjwee file tier\nformat 2\n", "daramjwee file tier\nformat 17\n"])
def test_a_folder_of_a_later_format_is_refused_and_not_touched(tmp_path, text):
    """Clearly, before anything is made, swept or evicted; the rules of 0.1.0 refuse it as well. It opens again where it
    came from."""
    folder = tmp_path / "tier"
    with opened(folder) as cache:
        cache.set("k", content("k", 1000))
    marker = folder / "DARAMJWEE"
    marker.write_text(text)
    (folder / "staging" / "1f-0123456789ab.lock").touch(0o600)  # a dead owner: a sweep would remove it
    before = tree(folder)
    with pytest.raises(ConfigError) as caught:
        FileStore(folder, capacity="1KiB")
    (problem,) = caught.value.problems
    assert problem.field == "folder" and "upgrade" in problem.mend and text.split()[-1] in problem.mend
    assert tree(folder) == before
    with pytest.raises(reference.Refused):
        reference.read_folder(folder)
    marker.write_text(reference.MARKER)
    with opened(folder) as cache:
        assert cache.get("k") == content("k", 1000)


def test_a_record_of_a_later_version_is_not_used_and_not_removed(tmp_path):
    """Nor is its body, by any sweep, delete of another key or eviction; it counts again when it is known again."""
    folder = tmp_path / "tier"
    with opened(folder) as cache:
        cache.set("later", content("later", 1000))
        cache.set("now", content("now", 1000))
    (path,) = [meta for meta in metas(folder) if reference.decode(meta.read_bytes())["key"] == "later"]
    original = path.read_bytes()
    raised = bytearray(original)
    struct.pack_into("<H", raised, 4, 2)
    struct.pack_into("<I", raised, 12, crc32c(bytes(raised[16:]), crc32c(bytes(raised[:12]))))
    path.write_bytes(raised)
    body = path.parent / reference.decode(original)["body"]
    with opened(folder) as cache:
        with pytest.raises(CacheMiss):
            cache.get("later")
        assert cache.get("now") == content("now", 1000)
        cache.delete("now")
    assert path.read_bytes() == bytes(raised)
    assert body.read_bytes() == content("later", 1000)
    with pytest.raises(reference.Unknown):
        reference.read_folder(folder)
    path.write_bytes(original)
    with opened(folder) as cache:
        assert cache.get("later") == content("later", 1000)


def test_unknown_fields_of_a_record_are_passed_over(tmp_path):
    """A later release may add some without a new version; this one reads on."""
    import msgspec

    folder = tmp_path / "tier"
    with opened(folder) as cache:
        cache.set("k", b"data")
    (path,) = metas(folder)
    record = reference.decode(path.read_bytes())
    record["colour"] = "red"
    record["metadata"]["shape"] = {"round": True}
    payload = msgspec.msgpack.encode(record)
    head = struct.pack("<4sHHI", b"DJME", 1, 0, len(payload))
    path.write_bytes(head + struct.pack("<I", crc32c(payload, crc32c(head))) + payload)
    with opened(folder) as cache:
        assert cache.get("k") == b"data"
    assert reference.read_folder(folder)["k"].data == b"data"
