"""docs/troubleshooting.md quotes messages as the code says them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_quoted_message_is_in_the_code():
    """A message that was reworded is found out here."""
    # Joined as the compiler joins adjacent literals.
    code = "\n".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text()) for path in (ROOT / "src/daramjwee/buffers").rglob("*.py")
    )
    table = re.findall(r'^\| [^|]*?"([^"|]+)"', (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(table) >= 7
    assert [quoted for quoted in table if quoted not in code] == []
