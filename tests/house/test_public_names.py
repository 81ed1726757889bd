"""Public names are decisions: what modules offer equals the checked-in list."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("public_names.txt")


def listed() -> dict[str, set[str]]:
    """The sections of public_names.txt: a module in brackets, then a name a line."""
    sections: dict[str, set[str]] = {}
    names: set[str] = set()
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            names = sections.setdefault(line.strip("[]"), set())
        elif line and not line.startswith("#"):
            names.add(line)
    return sections


@pytest.mark.parametrize("module", ["daramjwee", "daramjwee.buffers", "daramjwee.stores", "daramjwee.policies"])
def test_a_module_offers_exactly_the_listed_names(module):
    """A name that appears or goes away without a decision breaks somebody's program."""
    offered = set(importlib.import_module(module).__all__)
    wanted = listed()[module]
    assert offered == wanted, (
        f"new: {sorted(offered - wanted)}, gone: {sorted(wanted - offered)}; if meant, edit {LIST.name} and the changelog"
    )


@pytest.mark.parametrize("module", ["daramjwee", "daramjwee.buffers", "daramjwee.stores", "daramjwee.policies"])
def test_every_public_name_exists_and_says_what_it_is(module):
    """Each name resolves; each class and function has a docstring, its own or the one of its promise."""
    loaded = importlib.import_module(module)
    silent = []
    for name in loaded.__all__:
        value = getattr(loaded, name)
        if isinstance(value, type) or (callable(value) and hasattr(value, "__code__")):
            silent += [] if inspect.getdoc(value) else [name]
    assert silent == []


def test_names_offered_for_use_alone_are_the_same_objects_at_the_front_door():
    """`daramjwee.X` and `daramjwee.buffers.X` are one thing."""
    front = importlib.import_module("daramjwee")
    for module in ("daramjwee.buffers", "daramjwee.stores", "daramjwee.policies"):
        loaded = importlib.import_module(module)
        for name in set(loaded.__all__) & set(front.__all__):
            assert getattr(front, name) is getattr(loaded, name), name
