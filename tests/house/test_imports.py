"""Imports point down: the rule of rooms, and what `import daramjwee` may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "daramjwee"

# From left to right. Rooms in one tuple of a step are joined by `|`: they do not import each other. Names inside one
# room (a set) may.
STEPS: list[tuple[set[str], ...]] = [
    ({"model", "errors", "units"},),
    ({"buffers"}, {"policies"}),
    ({"stores"},),
    ({"fills"}, {"origins"}, {"fleet"}, {"config"}, {"observe"}),
    ({"engine"},),
    ({"cache", "aio", "group"},),
    ({"gateway"}, {"bench"}, {"testing"}),
    ({"cli"},),
]
PLACE = {name: (step, room) for step, rooms in enumerate(STEPS) for room, names in enumerate(rooms) for name in names}
# `daramjwee/__init__.py` shows what the doors and the rooms below them offer, so it stands beside the doors.
FRONT_DOOR = (5, 0)


def room_of(path: Path) -> str:
    """The top-level name below daramjwee that a file belongs to; "" for the front door."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imported_rooms(source: str) -> list[tuple[int, str]]:
    """(line, room) of every import of ours in `source`, those under TYPE_CHECKING and inside functions too."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "daramjwee":
            names = [f"daramjwee.{a.name}" if a.name in PLACE else "daramjwee" for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"line {node.lineno}: relative import; write the whole name")
        else:
            continue
        for name in names:
            if name == "daramjwee" or name.startswith("daramjwee."):
                found.append((node.lineno, ([*name.split("."), ""])[1]))
    return found


def verdict(importer: str, imported: str) -> str | None:
    """Why `importer` may not import `imported`, or None when it may."""
    for name in (importer, imported):
        if name and name not in PLACE:
            return f"{name} has no place in STEPS: decide where it stands"
    if importer == imported:
        return None
    here = PLACE.get(importer, FRONT_DOOR)
    there = PLACE.get(imported, FRONT_DOOR)
    if there[0] > here[0]:
        return f"{imported or 'the front door'} stands to the right of {importer or 'the front door'}"
    if there[0] == here[0] and (there != here or not imported):
        return f"{importer} and {imported or 'the front door'} stand side by side and do not know each other"
    return None


def test_every_import_points_to_a_room_further_left():
    """STYLE: a room imports only from its left; rooms joined by `|` do not import each other."""
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.name == "__main__.py" and path.parent == SOURCE:
            continue  # `python -m daramjwee` is the command line
        for line, imported in imported_rooms(path.read_text(encoding="utf-8")):
            reason = verdict(room_of(path), imported)
            if reason:
                wrong.append(f"{path.relative_to(SOURCE)}:{line}: {reason}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("stores", "buffers", True),
        ("cache", "errors", True),
        ("errors", "units", True),
        ("cache", "aio", True),
        ("bench", "", True),
        ("", "cache", True),
        ("buffers", "stores", False),
        ("buffers", "policies", False),
        ("fills", "origins", False),
        ("bench", "testing", False),
        ("bench", "cli", False),
        ("", "bench", False),
        ("engine", "", False),
        ("cache", "", False),
        ("stores", "surprise", False),
    ],
)
def test_the_rule_itself_tells_right_from_wrong(importer, imported, allowed):
    """A rule that allows everything would never fail."""
    assert (verdict(importer, imported) is None) is allowed


def test_imports_for_type_checking_and_inside_functions_count():
    """An import that only the type checker sees ties two rooms together all the same."""
    source = (
        "if TYPE_CHECKING:\n    from daramjwee.cache import Cache\n"
        "def f():\n    import daramjwee.cli.main\n    from daramjwee import engine, Cache\n"
    )
    assert imported_rooms(source) == [(2, "cache"), (4, "cli"), (5, "engine"), (5, "")]


# Each of these costs milliseconds (crc32c alone 37), or belongs to an extra.
TOO_DEAR = {
    "asyncio", "crc32c", "ctypes", "dataclasses", "hashlib", "http.client", "inspect", "json", "multiprocessing", "rich",
    "socket", "ssl", "subprocess", "tempfile", "typer", "typing_extensions", "urllib.request", "urllib3",
}  # fmt: skip


def run_bare(code: str) -> str:
    """What a fresh interpreter prints for `code`, with our source first on its path."""
    code = f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r}); {code}"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=50).stdout


def test_importing_daramjwee_imports_no_extra_and_nothing_dear():
    """`import daramjwee` stays within its budget because what is dear is imported where it is used."""
    # msgspec brings inspect and typing_extensions with it; what is there already costs us nothing.
    out = run_bare("import msgspec; before = set(sys.modules); import daramjwee; print(*(set(sys.modules) - before))")
    assert sorted(TOO_DEAR & set(out.split())) == []


def test_importing_daramjwee_starts_no_thread_and_opens_nothing():
    """No thread runs before it is needed, and no descriptor is open."""
    out = run_bare(
        "import os, threading; fds = lambda: len(os.listdir('/dev/fd')); n = fds(); "
        "import daramjwee; print(threading.active_count(), fds() - n)"
    )
    assert out.split() == ["1", "0"]
