"""Words of the problems that every part of a configuration may have.

Threads: any; pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from daramjwee.config.secret import shown
from daramjwee.errors import HIDDEN, Problem, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable


# Beyond these Python itself refuses to print a value.
DEEPEST = 20
LONGEST_INT_BITS = 4096
_PLAIN = re.compile(r"[\w.\[\]-]{1,80}", re.ASCII)


# What others call our fields.
_ALSO_CALLED = {
    "size": "capacity", "max_size": "capacity", "max_bytes": "capacity", "limit": "capacity",
    "path": "folder", "dir": "folder", "directory": "folder", "root": "folder",
    "url": "base", "uri": "base", "base_url": "base",
    "ttl": "fresh", "max_age": "fresh", "expires": "fresh",
    "threads": "workers", "max_workers": "workers",
    "stores": "tiers", "cache": "tiers", "eviction": "policy", "pool": "buffers", "memory": "memory_limit",
}  # fmt: skip


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that `name` most likely stands for, if any."""
    import difflib

    known = list(known)
    if isinstance(name, str) and _ALSO_CALLED.get(name.lower()) in known:
        return _ALSO_CALLED[name.lower()]
    # What is long is no slip; comparing it would take long, too.
    near = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) and len(name) < 200 else []
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


def outlandish(value: object) -> str | None:
    """Why a value is none of any field, and could not even be shown; None for what may be looked at."""
    depth, level = 0, [value]
    while level:
        if depth > DEEPEST:
            return "is nested deeper than any setting"
        if any(isinstance(inner, int) and inner.bit_length() > LONGEST_INT_BITS for inner in level):
            return "has a number larger than any setting"
        # Each once: what holds itself would be many otherwise.
        level = list(
            {
                id(inner): inner
                for outer in level
                if isinstance(outer, Mapping | list | tuple)
                for inner in ((*outer, *outer.values()) if isinstance(outer, Mapping) else outer)
            }.values()
        )
        depth += 1
    return None


def told_apart(mapping: Mapping[Any, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The fields of a mapping that can be looked at, and a problem for each other one."""
    fields: dict[str, Any] = {}
    problems = []
    for name, value in mapping.items():
        odd = outlandish(name) or outlandish(value)
        if not isinstance(name, str):
            shape = f"a name of type {type(name).__name__}"
            problems.append(Problem(shape if odd else name_of(name), HIDDEN, "is no name: names are text"))
        elif odd is not None:
            problems.append(Problem(name_of(name), HIDDEN, odd))
        else:
            fields[name] = value
    return fields, problems


def name_of(value: object) -> str:
    """A name that was given, fit to be a part of the field of a problem. It may be a secret that stands in the wrong place."""
    text = shown(str(value))
    return text if isinstance(value, str) and _PLAIN.fullmatch(text) else shorten(text)
