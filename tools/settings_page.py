"""Write the second half of docs/settings.md, a paragraph for each setting, from `daramjwee.config.settings.SETTINGS`.

Usage: python tools/settings_page.py [--check]. With --check nothing is written: it exits with 1 and shows the difference
when the page is not what the table gives.
"""

from __future__ import annotations

import difflib
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from daramjwee.config.settings import REQUIRED, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daramjwee.config.settings import Setting

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
# Above it the page is written by hand.
FIRST = "## Every setting"
INTRODUCTION = """\
Made from the table that the code has (`python tools/settings_page.py`). *Live*: `cache.reconfigure` changes it while the
cache runs; the others need a new `Cache`.
"""


def group_of(setting: Setting) -> str:
    """The heading it stands under: its path without the field."""
    return setting.path.rpartition(".")[0]


def lines_of(setting: Setting) -> Iterator[str]:
    """A heading to link to, a line of facts, what it is, what it trades for what, when to change it."""
    yield f"#### `{setting.path}`"
    yield ""
    facts = ["no default" if setting.default == REQUIRED else f"default `{default_of(setting)}`"]
    facts.append(f"`{setting.env}`" if setting.env else "in no variable of its own")
    facts.append("live" if setting.live else "needs a new `Cache`")
    yield f"{sentence('; '.join(facts))}"
    yield ""
    yield f"{sentence(setting.meaning)}"
    yield f"*Trade*: {sentence(setting.trade, keep=True)}"
    if not setting.change_when.startswith("always"):
        yield f"*Change it when* {sentence(setting.change_when, keep=True)}"
    yield ""


def default_of(setting: Setting) -> str:
    words = {None: "none", True: "true", False: "false"}
    return (
        words[setting.default] if setting.default is None or isinstance(setting.default, bool) else str(setting.default)
    )


def sentence(text: str, *, keep: bool = False) -> str:
    """With a full stop and, unless it goes on from something, a capital letter."""
    first = text[0] if keep else text[0].upper()
    return first + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def render(page: str) -> str:
    """The page with all below its hand-written head made anew."""
    head = page[: page.index(FIRST)] if FIRST in page else page.rstrip() + "\n\n"
    lines = [FIRST, "", INTRODUCTION]
    for group, settings in groupby(SETTINGS, key=group_of):
        lines += [f"### {f'`{group}`' if group else 'The cache'}", ""]
        for setting in settings:
            lines += lines_of(setting)
    return head + "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """1 when --check finds a difference."""
    page = PAGE.read_text(encoding="utf-8")
    made = render(page)
    if "--check" not in sys.argv:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    sys.stdout.writelines(difflib.unified_diff(page.splitlines(True), made.splitlines(True), "docs", "table"))
    return int(page != made)


if __name__ == "__main__":
    sys.exit(main())
