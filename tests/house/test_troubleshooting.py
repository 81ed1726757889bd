"""docs/troubleshooting.md knows every error, warning, alert and finding that a user may meet."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from daramjwee import DaramjweeError
from daramjwee import errors as errors_of_the_library
from daramjwee.buffers.insight.monitor import DEFAULT_RULES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")]
SYMPTOMS = [row.split("|")[1] for row in ROWS]
QUOTED = [quoted for row in ROWS for quoted in re.findall(r'"([^"]+)"', row)]
# Rooms that a program meets; the others are commands and helps for tests.
ROOMS = [path for path in (ROOT / "src" / "daramjwee").iterdir() if path.name not in {"bench", "cli", "testing"}]


def test_every_error_has_a_row():
    """By its name, where a reader looks for it."""
    kinds = {
        name
        for name, value in vars(errors_of_the_library).items()
        if isinstance(value, type) and issubclass(value, DaramjweeError)
    }
    # The root is never raised, and a fetcher raises NotModified for the library, which nobody else sees.
    for name in sorted(kinds - {"DaramjweeError", "NotModified"}):
        assert any(f"`{name}`" in symptom for symptom in SYMPTOMS), f"docs/troubleshooting.md has no row for {name}"


def warnings_of(path: Path) -> list[str]:
    """The constant text of each warning and error that a module logs, and of each warning it gives."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case (
                ast.Call(
                    func=ast.Attribute(value=ast.Name(id="logger"), attr="warning" | "error" | "exception"),
                    args=[text, *_],
                )
                | ast.Call(func=ast.Attribute(value=ast.Name(id="warnings"), attr="warn"), args=[text, *_])
            ):
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                found.append(" ".join(str(part.value) for part in parts if isinstance(part, ast.Constant)))
    return found


def test_every_warning_of_the_log_has_a_row():
    """Some row quotes how it begins, or several words of it."""
    modules = [module for room in ROOMS for module in (room.rglob("*.py") if room.is_dir() else [room])]
    messages = [(module.name, text) for module in modules if module.suffix == ".py" for text in warnings_of(module)]
    assert len(messages) > 20
    phrases = [quoted for quoted in QUOTED if " " in quoted]
    begins = tuple(QUOTED)
    unknown = [
        (name, text)
        for name, text in messages
        if not text.startswith(begins) and not any(phrase in text for phrase in phrases)
    ]
    assert unknown == [], "docs/troubleshooting.md has no row that quotes these"


def test_every_alert_and_finding_of_health_leads_somewhere():
    """The last table has each code, of the rules watched from the start and of docs/monitoring.md."""
    index = PAGE.partition("## Alerts, findings, checks")[2]
    monitoring = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    health = monitoring.partition("**Health.**")[2].partition("**Advice.**")[0]
    codes = set(re.findall(r"^\| `(\w+)` \|", health, re.MULTILINE)) | {rule.metric for rule in DEFAULT_RULES}
    assert len(codes) >= 15
    assert {code for code in codes if f"`{code}`" not in index} == set()
