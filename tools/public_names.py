"""Print the public names as tests/house/public_names.txt has them, or with --check how they differ from it."""

from __future__ import annotations

import difflib
import importlib
import sys
from pathlib import Path

LIST = Path(__file__).parents[1] / "tests" / "house" / "public_names.txt"
MODULES = ("daramjwee", "daramjwee.buffers", "daramjwee.stores", "daramjwee.policies", "daramjwee.config")


def render() -> str:
    """The whole file: a section for each module, its names in order."""
    lines = ["# Every name a user may rely on. A change here is a decision: docs and changelog follow."]
    for module in MODULES:
        lines += ["", f"[{module}]", *sorted(importlib.import_module(module).__all__)]
    return "\n".join(lines) + "\n"


def main() -> int:
    """1 when --check finds a difference."""
    seen = render()
    if "--check" not in sys.argv:
        sys.stdout.write(seen)
        return 0
    listed = LIST.read_text(encoding="utf-8")
    sys.stdout.writelines(difflib.unified_diff(listed.splitlines(True), seen.splitlines(True), "listed", "offered"))
    return int(listed != seen)


if __name__ == "__main__":
    sys.exit(main())
