"""The page of promises names what there is: every row, every file that makes a promise, every test that can break it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "daramjwee"
PAGE = ROOT / "docs" / "design" / "promises.md"
CODE = re.compile(r"`([^`]+)`")
# The promises that hold at every moment, what it is for, and the rows of what it does.
ROWS = [
    *(str(number) for number in range(1, 9)),
    *(f"R{number}" for number in range(1, 6)),
    *(f"{part}.{row}" for part, rows in enumerate((3, 3, 3, 3, 4, 3, 12), start=1) for row in range(1, rows + 1)),
]


class Row(NamedTuple):
    """One promise of the page. `subject`: its number and words."""

    subject: str
    where: list[str]
    tests: list[str]

    @property
    def number(self) -> str:
        return self.subject.split(" ", 1)[0]


def rows_of(page: str) -> list[Row]:
    found = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("| ") or cells[0] == "promise":
            continue
        assert len(cells) == 4, f"a row has four cells: {line}"
        subject, where, tests, _ = cells
        found.append(Row(subject, CODE.findall(where), CODE.findall(tests)))
    return found


def fault_of(name: str, root: Path = ROOT) -> str:
    """What is wrong with the name of a test, as the page gives it: a file, or a file and a test in it. "" if nothing is."""
    path, _, test = name.partition("::")
    file = (root if path.startswith("tests/") else root / "src" / "daramjwee") / path
    if not file.is_file():
        return f"{name}: there is no such file"
    text = file.read_text(encoding="utf-8")
    if test:
        return (
            "" if re.search(rf"^ *(?:async )?def {re.escape(test)}\(", text, re.MULTILINE) else f"{name}: no such test"
        )
    return "" if re.search(r"^ *(?:async )?def test_|StoreSuite\)", text, re.MULTILINE) else f"{name}: it has no test"


ON_PAGE = rows_of(PAGE.read_text(encoding="utf-8"))


def test_every_row_is_there_once_and_in_order() -> None:
    """Whoever looks a row up by its number finds it."""
    assert [row.number for row in ON_PAGE] == ROWS


@pytest.mark.parametrize("row", ON_PAGE, ids=lambda row: row.number)
def test_what_a_row_names_exists(row: Row) -> None:
    """The files that make the promise, and the tests that can break it; at least one of each."""
    assert row.where and any(name.partition("::")[0].endswith(".py") for name in row.tests), row.subject
    assert [name for name in row.where if not (SOURCE / name).is_file()] == []
    commands = [name for name in row.tests if name.startswith("make ")]
    assert [fault for name in row.tests if name not in commands and (fault := fault_of(name))] == []


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("tests/house/test_promises.py", ""),
        ("tests/house/test_promises.py::test_every_row_is_there_once_and_in_order", ""),
        ("testing/store_suite.py::test_absence_is_none_and_not_an_error", ""),
        ("tests/house/test_promise.py", "there is no such file"),
        ("tests/house/test_promises.py::test_every_row", "no such test"),
        ("tests/conftest.py", "it has no test"),
        ("testing/clock.py", "it has no test"),
    ],
)
def test_a_name_that_leads_nowhere_is_found(name: str, fault: str) -> None:
    """Also one that is only the beginning of a test's name, and a file without tests."""
    assert fault_of(name).endswith(fault) and bool(fault_of(name)) is bool(fault)
