"""What the tests of the file tier share: making one, and looking into its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from daramjwee.stores import FileStore


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
