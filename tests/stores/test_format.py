"""The metadata record on disk: what is written is read, what is anything else is refused, and the bytes do not drift."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.model import Metadata
from daramjwee.stores.file import layout
from daramjwee.stores.file.format import BadRecord, MetaRecord, UnknownVersion, decode, encode

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)


def record_of(key, size=5, generation=1, **fields):
    blocks = -(-size // 262_144)
    body = layout.body_name(layout.key_hash(key), "1f-0123456789ab", 7)[3:]
    return MetaRecord(key, Metadata(size=size, **fields), size, 262_144, b"\1\2\3\4" * blocks, generation, body)


def name_of(record):
    return layout.meta_name(layout.key_hash(record.key), record.generation)[3:]


@given(
    key=KEYS,
    size=st.integers(0, 10**8),
    generation=st.integers(1, 2**63),
    etag=st.none() | TEXT,
    ttl=st.none() | st.floats(0, 1e9),
    tags=st.lists(TEXT, max_size=3).map(tuple),
    attributes=st.dictionaries(TEXT, TEXT, max_size=3),
    negative=st.booleans(),
)
def test_a_record_comes_back_as_it_was(key, size, generation, **fields):
    record = record_of(key, size, generation, **fields)
    assert decode(encode(record), name_of(record)) == record


@given(st.data())
def test_any_changed_bit_and_any_cut_is_noticed(data):
    record = record_of("k", tags=("a", "b"))
    good = encode(record)
    at = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[at // 8] ^= 1 << at % 8
    with pytest.raises(BadRecord):
        decode(bytes(bad), name_of(record))
    with pytest.raises(BadRecord):
        decode(good[: at // 8], name_of(record))
    with pytest.raises(BadRecord):
        decode(good + b"\0", name_of(record))


def test_the_bytes_are_those_of_the_format_page():
    """Head as documented; a map with the documented names; a change here is a new version."""
    record = record_of("k", size=3, etag='"e"')
    data = encode(record)
    assert data[:8] == b"DJME\x01\x00\x00\x00"
    assert int.from_bytes(data[8:12], "little") == len(data) - 16
    payload = msgspec.msgpack.decode(data[16:])
    assert payload == {
        "key": "k",
        "metadata": {"size": 3, "etag": '"e"'},
        "size": 3,
        "block_size": 262_144,
        "checksums": b"\1\2\3\4",
        "generation": 1,
        "body": layout.key_hash("k") + ".1f-0123456789ab-7.body",
    }


def test_a_later_version_is_told_apart():
    data = bytearray(encode(record_of("k")))
    data[4] = 2
    with pytest.raises(UnknownVersion, match="version 2"):
        decode(bytes(data), "any")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"key": "other"}, "another name"),
        ({"generation": 2}, "another name"),
        ({"body": "../../../etc/passwd"}, "another key"),
        ({"body": layout.body_name(layout.key_hash("other"), "1f-0123456789ab", 7)[3:]}, "another key"),
        ({"size": 6}, "contradict"),
        ({"block_size": 0}, "contradict"),
        ({"checksums": b""}, "one checksum for each block"),
    ],
)
def test_a_record_that_contradicts_its_name_or_itself_is_refused(change, why):
    """Also one with a right checksum: what it names can only be a body of the same key in the same folder."""
    record = record_of("k")
    name = name_of(record)
    with pytest.raises(BadRecord, match=why):
        decode(encode(msgspec.structs.replace(record, **change)), name)


@given(KEYS)
def test_a_name_never_depends_on_the_key_but_by_its_hash(key):
    name = layout.meta_name(layout.key_hash(key), 1)
    assert layout.parse_meta_name(name[3:]) == (layout.key_hash(key), 1)
    assert set(name) <= set("0123456789abcdef./mt")
    assert name[:2] == name[3:5]


@pytest.mark.parametrize("name", ["", "x.meta", "../" + "0" * 64 + ".00000000000000000001.meta", "0" * 64 + ".1.meta"])
def test_other_names_are_not_ours(name):
    assert layout.parse_meta_name(name) is None
    assert layout.parse_body_name(name) is None
    assert layout.parse_owner_lock(name) is None
