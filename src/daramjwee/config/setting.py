"""What one setting is, and how its text in an environment variable or a URL is read.

Threads: any; pure.
Design: docs/settings.md
"""

from __future__ import annotations

import enum
from typing import NamedTuple

PREFIX = "DARAMJWEE_"
# Names the file of settings; no setting itself.
CONFIG_VARIABLE = "DARAMJWEE_CONFIG"
# In place of a default: a tier or an origin of that kind must say it.
REQUIRED = "required"


class Kind(enum.Enum):
    """What a setting is, and so how its text in an environment variable or a URL is read."""

    SIZE = "size"
    DURATION = "duration"
    COUNT = "count"
    SWITCH = "true or false"
    CHOICE = "choice"
    PATH = "path"
    PART = "part"  # tiers, an origin, headers: no single value
    TRUST = "true, false or a path"


# In a variable or a URL, where everything is text. What may also be a path has no other words than these two.
_TRUST = {"true": True, "false": False}
_SWITCHES = {**_TRUST, "1": True, "0": False, "yes": True, "no": False, "on": True, "off": False}


class Setting(NamedTuple):
    """One setting.

    `path`: its dotted name, as changes and problems have it; a tier's stands below the kind of the tier (in a file, in
    the table of the tier). `env`: the variable that sets it, if one can. `default`: as it would be written. `live`:
    whether `Cache.reconfigure` changes it while the cache runs. `meaning`: what it is. `trade`: what more and less of it
    cost. `change_when`: when the default is not right. `kind`: what it is read as; `optional`: whether none is a value.
    """

    path: str
    env: str | None
    default: str | int | bool | None
    live: bool
    meaning: str
    trade: str
    change_when: str
    kind: Kind
    optional: bool = False

    def value_of(self, text: str) -> str | int | bool | None:
        """What the `text` of a variable or of a URL stands for. Text that is none of its kind stays text: whoever checks the
        field refuses it as it was written."""
        word = text.strip().lower()
        if self.optional and word in {"none", "null"}:
            return None
        words = _SWITCHES if self.kind is Kind.SWITCH else _TRUST if self.kind is Kind.TRUST else {}
        if word in words:
            return words[word]
        if self.kind in {Kind.COUNT, Kind.SIZE} and word.isascii() and word.isdigit() and len(word) <= 30:
            return int(word)
        return text if self.kind in {Kind.PATH, Kind.TRUST} else text.strip()
