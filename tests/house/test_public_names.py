"""Public names are decisions: what modules offer equals the checked-in list."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
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


MISSPELT = """\
from daramjwee import Cachee
from daramjwee.stores import FileStor
from daramjwee.testing import StoreSweet
import daramjwee
daramjwee.Cachee
"""
RIGHT = """\
from typing import assert_type
from daramjwee import Cache, CacheWriter, Clock, Fetcher, MemoryStore, Usage
from daramjwee.model import Body
from daramjwee.units import Duration, Size
with Cache(MemoryStore("1MiB")) as cache:
    assert_type(cache.get("k"), bytes)
    assert_type(cache.get("k", default=None), bytes | None)
    assert_type(cache.get("k", default=7, max_bytes="1MiB"), bytes | int)
"""


def test_a_type_checker_knows_every_name_and_no_misspelt_one(tmp_path):
    """Names that are imported when first asked for must not make any name look right."""
    (tmp_path / "misspelt.py").write_text(MISSPELT, encoding="utf-8")
    (tmp_path / "right.py").write_text(RIGHT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "misspelt.py", "right.py"],
        cwd=tmp_path, env=os.environ | {"MYPYPATH": str(LIST.parents[2] / "src")},
        capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(lines) == 4, done.stdout + done.stderr
    assert all(line.startswith("misspelt.py:") and "has no attribute" in line for line in lines), done.stdout


def test_the_store_suite_without_pytest_says_what_to_install():
    """Everything else of the room works without it."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from daramjwee.testing import ManualClock, ScriptedOrigin, no_leaks\n"
        "from daramjwee.testing import StoreSuite"
    )
    environment = os.environ | {"PYTHONPATH": str(LIST.parents[2] / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=150)
    assert "pip install pytest" in done.stderr.splitlines()[-1]
