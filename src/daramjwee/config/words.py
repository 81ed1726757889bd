"""Words of the problems that every part of a configuration may have.

Threads: any; pure.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from daramjwee.errors import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable


_PLAIN = re.compile(r"[\w.\[\]-]{1,80}", re.ASCII)


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that `name` is most likely a slip of, if any."""
    # What is long is no slip; comparing it would take long, too.
    near = difflib.get_close_matches(name, list(known), n=1) if isinstance(name, str) and len(name) < 200 else []
    return near[0] if near else None


def unknown_field(name: object, known: Iterable[str]) -> str:
    """What to say of a field that there is not: the nearest first, as it is mostly a slip of the finger."""
    known = tuple(known)
    near = nearest(name, known)
    return f"is no field; {f'did you mean {near}? ' if near else ''}the fields are {', '.join(known)}"


def unknown_kind(kind: object, known: Iterable[str], what: str) -> str:
    """What to say of a `type` that there is not."""
    known = tuple(known)
    near = nearest(kind, known)
    return f"is no kind of {what}; {f'did you mean {near}? ' if near else ''}give {' or '.join(known)}"


def name_of(value: object) -> str:
    """A name that was given, fit to be a part of the field of a problem."""
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else shorten(str(value))
