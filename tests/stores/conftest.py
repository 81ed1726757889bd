"""What the tests of the file tier share: looking into a folder, and calls of the system that fail on order."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from daramjwee.stores import FileStore
from daramjwee.stores.file.files import Files

CALLS = [name for name in vars(Files) if not name.startswith("_")]


class FaultyFiles(Files):
    """Counts the calls, and lets the nth of them (or the nth of one name) fail with `number`."""

    def __init__(self, fail_call=0, number=errno.EIO, only=None, then_always=False):
        self.calls, self.log = 0, []
        for name in CALLS:
            setattr(self, name, self._wrap(name, getattr(os, name), fail_call, number, only, then_always))

    def _wrap(self, name, real, fail_call, number, only, then_always):
        def call(*args, **kwargs):
            if only is None or name == only:
                self.calls += 1
                self.log.append((name, args))
                if self.calls == fail_call or (then_always and self.calls > fail_call):
                    raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        return call


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.events = []

    def notice(self, event):
        self.events.append(event)

    def kinds(self):
        return [event.kind for event in self.events]


@pytest.fixture
def make(tmp_path):
    """Make a file tier in one folder of this test; with `files` or an observer of the test's own."""
    made = []

    def make_store(files=None, observer=None, folder=tmp_path / "tier", **given):
        kind = FileStore if files is None else type("FaultyStore", (FileStore,), {"files": files})
        store = kind(folder, **{"capacity": "64MiB"} | given)
        if observer is not None:
            store.attach(ledger=None, observer=observer, clock=None)
        made.append(store)
        return store

    yield make_store
    for store in made:
        store.close()


def files_in(folder: Path) -> list[str]:
    """Every file below a folder, as relative paths."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def tier(tmp_path):
    return tmp_path / "tier"


@pytest.fixture
def objects(tier):
    """Names of files below objects/."""
    return lambda suffix="": [name for name in files_in(tier / "objects") if name.endswith(suffix)]


@pytest.fixture
def staged(tier):
    """Names of files below staging/, without the locks of living owners."""
    return lambda: [name for name in files_in(tier / "staging") if not name.endswith(".lock")]
