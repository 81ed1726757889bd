"""docs/settings.md says what the table of the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from daramjwee.config.settings import SETTINGS

ROOT = Path(__file__).parents[2]


def tool():
    """tools/settings_page.py, which is no package."""
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "tools" / "settings_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_table_gives():
    """After a change of the table: python tools/settings_page.py"""
    made = tool()
    page = made.PAGE.read_text(encoding="utf-8")
    assert made.render(page) == page


def test_the_hand_written_part_is_left_as_it_is():
    """Whatever stands above the list stays, and a page without one gets it."""
    made = tool()
    page = made.render("# Settings\n\nBy hand.\n")
    assert page.startswith("# Settings\n\nBy hand.\n\n## Every setting\n")
    assert made.render(page) == page


def test_every_setting_has_a_paragraph_with_its_facts():
    """Default, variable, whether it changes while running, what it is, what it trades, when to change it."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    paragraphs = dict(re.findall(r"^#### `([^`]+)`\n\n(.+?)(?=\n\n#|\Z)", page, re.MULTILINE | re.DOTALL))
    assert paragraphs.keys() == {setting.path for setting in SETTINGS}
    for setting in SETTINGS:
        text = paragraphs[setting.path]
        assert (setting.env is None) != (f"`{setting.env}`" in text)
        assert ("; live." in text) == setting.live
        assert "*Trade*: " in text
