"""Tiers as one line of text, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee import ConfigError
from daramjwee.config import FileTier, GivenTier, MemoryTier, tiers_of_url, url_of_tiers

MIB, GIB = 1024**2, 1024**3


@pytest.mark.parametrize(
    ("text", "tiers"),
    [
        ("memory:256MiB", [MemoryTier(capacity="256MiB")]),
        (" Memory: 256 MiB ", [MemoryTier(capacity="256MiB")]),
        ("memory:1000000", [MemoryTier(capacity=10**6)]),
        ("memory:?capacity=1MiB&policy=lru", [MemoryTier(capacity="1MiB", policy="lru")]),
        ("memory:8MiB?max_entries=100&max_object_size=1MiB", [MemoryTier(capacity="8MiB", max_entries=100, max_object_size=MIB)]),
        ("memory:8MiB?max_entries=none", [MemoryTier(capacity="8MiB")]),
        ("file:cache?capacity=20GiB", [FileTier(folder="cache", capacity="20GiB")]),
        ("file:./cache?capacity=1&verify=always&durability=fsync&free_space_floor=0",
         [FileTier(folder="./cache", capacity=1, verify="always", durability="fsync", free_space_floor=0)]),
        ("file:/srv/cache?capacity=1", [FileTier(folder="/srv/cache", capacity=1)]),
        ("file:///srv/cache?capacity=1", [FileTier(folder="/srv/cache", capacity=1)]),
        ("file://localhost/srv/cache?capacity=1", [FileTier(folder="/srv/cache", capacity=1)]),
        ("file:a%3Bb%3Fc%25 d+e?capacity=1", [FileTier(folder="a;b?c% d+e", capacity=1)]),
        ("file:?folder=a%26b&capacity=1", [FileTier(folder="a&b", capacity=1)]),
        ("file:a,b?capacity=1", [FileTier(folder="a,b", capacity=1)]),
        ("file:a%2Cfile:b?capacity=1", [FileTier(folder="a,file:b", capacity=1)]),
        ("file:true?capacity=1", [FileTier(folder="true", capacity=1)]),
        ("file:7?capacity=1", [FileTier(folder="7", capacity=1)]),
        ("memory:8MiB;file:./cache?capacity=20GiB&verify=always",
         [MemoryTier(capacity="8MiB"), FileTier(folder="./cache", capacity="20GiB", verify="always")]),
    ],
)  # fmt: skip
def test_a_text_names_tiers(text, tiers):
    """A kind, a colon, what that kind must have, and other fields after a question mark."""
    assert tiers_of_url(text) == tuple(tiers)


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("", "tiers", "is empty"),
        ("memory:1MiB;", "tiers[1]", "is empty"),
        ("256MiB", "tiers[0]", "give a kind and a colon"),
        ("disk:x", "tiers[0]", "is no kind of tier"),
        ("flie:x", "tiers[0]", "did you mean file?"),
        ("given:x", "tiers[0]", "is no kind of tier"),
        ("file://host/x?capacity=1", "tiers[0]", "names a host"),
        ("memory:1MiB,file:x?capacity=1", "tiers[0]", "are joined by ;"),
        ("memory:", "tiers[0].capacity", "is missing"),
        ("file:x", "tiers[0].capacity", "is missing"),
        ("file:?capacity=1", "tiers[0].folder", "is missing"),
        ("memory:lots", "tiers[0].capacity", "give bytes"),
        ("memory:1MiB?capacity=2MiB", "tiers[0].capacity", "is given twice"),
        ("memory:1MiB?policy=lru&policy=sieve", "tiers[0].policy", "is given twice"),
        ("memory:1MiB?polici=lru", "tiers[0].polici", "did you mean policy?"),
        ("memory:1MiB?policy", "tiers[0]", "give field=value"),
        ("memory:1MiB?", "tiers[0]", "give field=value"),
        ("memory:1MiB?=3", "tiers[0]", "give field=value"),
        ("memory:1MiB?type=file", "tiers[0].type", "stands before the colon"),
        ("memory:1MiB?max_entries=many", "tiers[0].max_entries", "int of at least 1"),
        ("memory:1MiB?folder=x", "tiers[0].folder", "is no field"),
        ("file:x%00?capacity=1", "tiers[0].folder", "NUL"),
        ("file:x?capacity=1;file:./x?capacity=1", "tiers[1].folder", "folder of tiers[0] too"),
    ],
)
def test_a_text_that_names_no_tiers_says_why(text, field, said):
    """One problem of the tier that it is about."""
    with pytest.raises(ConfigError) as caught:
        tiers_of_url(text)
    assert caught.value.subject == "tiers"
    assert [problem.field for problem in caught.value.problems] == [field]
    assert said in caught.value.problems[0].mend


def test_every_fault_of_a_text_is_told_and_tiers_keep_their_places():
    """What cannot be read does not shift the others."""
    with pytest.raises(ConfigError) as caught:
        tiers_of_url("what;memory:0?polici=lru;file:x?capacity=1&verify=maybe")
    assert {problem.field for problem in caught.value.problems} == {
        "tiers[0]", "tiers[1].polici", "tiers[1].capacity", "tiers[2].verify",
    }  # fmt: skip


def test_a_text_shows_no_secret_that_was_put_where_tiers_are_due():
    """A URL of an origin, say."""
    with pytest.raises(ConfigError) as caught:
        tiers_of_url("https://user:m4rker@example.org;memory:1?token=m4rker")
    assert "m4rker" not in f"{caught.value}{caught.value.problems}"


LIMITS = {
    "capacity": st.integers(1, 1 << 60) | st.sampled_from([MIB, 3 * GIB, 1024 * GIB]),
    "max_entries": st.none() | st.integers(1, 1 << 40),
    "policy": st.sampled_from(["sieve", "lru"]),
}
SPECIAL = st.sampled_from(["a,file:b", "a, memory:", "7", "none", "//", "a b", "%3B", "\udcff", "?", "&a=b"])
FOLDERS = SPECIAL | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda text: text.strip() and not text.startswith("~"))
MEMORY = st.builds(MemoryTier, **LIMITS)
FILES = st.builds(
    FileTier,
    folder=FOLDERS | FOLDERS.map(lambda folder: "/" + folder) | FOLDERS.map(lambda folder: "//" + folder),
    free_space_floor=st.integers(0, 1 << 60),
    durability=st.sampled_from(["flush", "fsync"]),
    verify=st.sampled_from(["first", "always", "off"]),
    **LIMITS,
)


@given(st.lists(MEMORY, max_size=2), FILES)
def test_tiers_survive_the_way_to_text_and_back(memory, file):
    """Whatever their folders are called."""
    tiers = (*memory, file)
    assert tiers_of_url(url_of_tiers(tiers)) == tiers


def test_a_text_is_as_short_as_it_can_be():
    """Defaults are left out, sizes are in their largest unit."""
    tiers = (
        MemoryTier(capacity=256 * MIB),
        FileTier(folder="/srv/cache", capacity=20 * GIB, verify="always", max_object_size=1001),
    )
    assert url_of_tiers(tiers) == "memory:256MiB;file:///srv/cache?capacity=20GiB&verify=always&max_object_size=1001"


def test_a_tier_that_a_program_made_has_no_text():
    """It could not be made from it."""
    with pytest.raises(ConfigError, match=r"tiers\[1\]"):
        url_of_tiers((MemoryTier(capacity=1), GivenTier(name="mine")))


@given(
    st.text(max_size=30)
    | st.lists(st.sampled_from(["memory:", "file:", "1MiB", "?", "&", "=", ";", "policy", "%", "x"])).map("".join)
)
def test_any_text_is_tiers_or_a_list_of_problems(text):
    """Nothing else is raised."""
    try:
        tiers = tiers_of_url(text)
    except ConfigError as error:
        tiers = ()
        assert error.problems  # noqa: PT017 - either way is right
    assert all(isinstance(tier, MemoryTier | FileTier) for tier in tiers)


@pytest.mark.parametrize("text", ["redis://u:hunter2;x@h/0", "redis://u:a;hunter2@h/0", "memory:1MiB;x:hunter2;y@h"])
def test_a_password_with_a_semicolon_in_it_is_not_shown(text):
    """It is in two parts, and neither looks like one."""
    with pytest.raises(ConfigError) as caught:
        tiers_of_url(text)
    assert "hunter2" not in f"{caught.value}{caught.value.problems}"
