"""docs/troubleshooting.md quotes messages as the code says them, and leads to checks that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()


def test_every_quoted_message_is_in_the_code():
    """A message that was reworded is found out here."""
    # Joined as the compiler joins adjacent literals.
    code = "\n".join(re.sub(r'"\s*\n\s*f?"', "", path.read_text()) for path in (ROOT / "src/daramjwee").rglob("*.py"))
    table = re.findall(r'^\| [^|]*?"([^"|]+)"', PAGE, re.MULTILINE)
    assert len(table) >= 10
    assert [quoted for quoted in table if quoted not in code] == []


def test_every_check_of_the_doctor_that_it_names_is_one():
    named = re.findall(r"`daramjwee doctor`: ((?:`\w+`(?:, )?)+)", PAGE)
    checks = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/monitoring.md").read_text(), re.MULTILINE))
    wanted = {check for checks_named in named for check in re.findall(r"\w+", checks_named)}
    assert wanted and wanted <= checks
