"""The store that docs/guide.md teaches keeps every promise of a store."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from daramjwee import Closed, LimitExceeded, StoreError, Usage
from daramjwee.testing import CAPACITY, StoreSuite

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"


@pytest.fixture(scope="module")
def taught():
    """The names that the guide's fence about a store defines; its last lines, which use them, left out."""
    fences = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (code,) = [fence for fence in fences if "class DictStore:" in fence]
    names = {name.__name__: name for name in (Closed, LimitExceeded, StoreError, Usage)} | {"threading": threading}
    exec(compile(code.partition("\n\nwith Cache(")[0], str(GUIDE), "exec"), names)
    return names


class TestStoreOfTheGuide(StoreSuite):
    """A reader may copy it as it stands."""

    @pytest.fixture(autouse=True)
    def _taught(self, taught):
        self.store_class = taught["DictStore"]

    def make_store(self, tmp_path):
        return self.store_class(CAPACITY)
