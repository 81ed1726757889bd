"""Log records of the pool carry an event and fields, as the page about watching a pool says."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Of the room that looks from outside, only what an operator sees.
ROOMS = {"buffers": set(), "observe": {"debug"}}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
TAKEN = set(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime"}


def calls() -> list[tuple[str, ast.Call, Path]]:
    """Every call of a logger in these rooms: where, the call, its module."""
    found = []
    for room, quiet in ROOMS.items():
        for path in sorted((ROOT / "src" / "daramjwee" / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(func=ast.Attribute(value=ast.Name(id="logger"), attr=level)) if (
                        level in LEVELS - quiet
                    ):
                        found.append((f"{path.relative_to(ROOT)}:{node.lineno}", node, path))
    return found


def fields_of(call: ast.Call, path: Path) -> tuple[str, set[str]]:
    """The event and the other fields of a call: its `extra`, or the dict that was given the name just before."""
    extra = next((word.value for word in call.keywords if word.arg == "extra"), None)
    if isinstance(extra, ast.Name):
        before = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Assign) and node.lineno < call.lineno
            if isinstance(node.targets[0], ast.Name) and node.targets[0].id == extra.id
        ]
        extra = max(before, key=lambda node: node.lineno).value if before else None
    if not isinstance(extra, ast.Dict):
        return "", set()
    named = {ast.literal_eval(key): value for key, value in zip(extra.keys, extra.values, strict=True) if key}
    event = named.pop("event", None)
    return (ast.literal_eval(event) if isinstance(event, ast.Constant) else ""), set(named)


def documented() -> dict[str, set[str]]:
    """The rows of the table: event to fields."""
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    section = page.split("\n## Logs\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(pool\.\w+)` \|[^|]*\|([^|]*)\|", section, re.MULTILINE)
    return {event: set(re.findall(r"`(\w+)`", fields)) for event, fields in rows}


def test_every_record_has_an_event_and_fields_that_the_page_lists():
    """Both ways: nothing is logged that is not on the page, and nothing is on the page that is not logged."""
    seen: dict[str, set[str]] = {}
    bare = []
    for where, call, path in calls():
        event, fields = fields_of(call, path)
        if not event:
            bare.append(where)
        assert not fields & TAKEN, f"{where}: {sorted(fields & TAKEN)} belong to logging itself"
        seen[event] = seen.get(event, set()) | fields
    assert not bare, f"log calls without an event: {bare}"
    assert seen == documented()
