"""Settings from environment variables: their names to fields, their text to values.

Invariant: of a variable that is no setting only the name is told: what it holds may be a secret.
Threads: any; pure.
Design: docs/settings.md
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.config.settings import CONFIG_VARIABLE, PREFIX, SETTINGS, Setting
from daramjwee.config.words import nearest
from daramjwee.errors import HIDDEN, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

# The first row of a variable is the field that it sets: DARAMJWEE_ORIGIN is a whole origin.
BY_VARIABLE: dict[str, Setting] = {s.env: s for s in reversed(SETTINGS) if s.env is not None}


def plain_name(name: str) -> str:
    """The name of a variable as the table has it: two underscores are one."""
    return re.sub("__+", "_", name)


def file_named(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The variable that names the file of settings, and its text."""
    found = [name for name in sorted(environ) if name.startswith(PREFIX) and plain_name(name) == CONFIG_VARIABLE]
    return (found[0], environ[found[0]]) if found else None


class Variable(NamedTuple):
    """What one variable sets: the dotted field, the value, and the name of the variable."""

    path: str
    value: Any
    name: str


def read_environment(environ: Mapping[str, str]) -> tuple[list[Variable], list[Problem]]:
    """What the variables set, in the order of their names, and every problem with them."""
    found: dict[str, Variable] = {}
    problems: list[Problem] = []
    for name in sorted(name for name in environ if name.startswith(PREFIX)):
        text = environ[name]
        plain = plain_name(name)
        if plain == CONFIG_VARIABLE:
            continue
        setting = BY_VARIABLE.get(plain)
        if setting is None:
            problems.append(Problem(name, HIDDEN, _unknown(plain)))
        elif not text.strip():
            problems.append(Problem(name, text, f"is empty; to leave {setting.path} as it is, unset the variable"))
        elif plain in found and found[plain].value != setting.value_of(text):
            other = found[plain].name
            problems.append(Problem(name, HIDDEN, f"is the same setting as {other}, with another value; unset one"))
        else:
            found.setdefault(plain, Variable(setting.path, setting.value_of(text), name))
    # What sets a whole part comes before what sets a field of it.
    return sorted(found.values(), key=lambda variable: "." in variable.path), problems


def _unknown(name: str) -> str:
    for part, mend in (
        (
            "ORIGIN_HEADERS",
            'headers stand in a file of settings, secrets there as { env = "NAME" } with any other name',
        ),
        ("TIERS_", "tiers are set as a whole, as text in DARAMJWEE_TIERS, or in a file of settings"),
    ):
        if name.startswith(PREFIX + part):
            return f"is no setting: {mend}"
    # Without what all begin with, which would make them all alike.
    known = [variable.removeprefix(PREFIX) for variable in (*BY_VARIABLE, CONFIG_VARIABLE)]
    near = nearest(name.removeprefix(PREFIX).upper(), known)
    hint = f"did you mean {PREFIX}{near}? " if near else ""
    return f"is no setting; {hint}unset it, or give it a name that does not begin with {PREFIX}"
