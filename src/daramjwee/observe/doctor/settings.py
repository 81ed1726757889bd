"""The check of settings of the pool, and how they are read from what was typed.

Threads: any.
Design: docs/monitoring.md
"""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING, Any

import msgspec

from daramjwee.buffers.config import BufferPoolConfig
from daramjwee.errors import ConfigError, Problem
from daramjwee.model import LEAST_MEMORY
from daramjwee.observe.doctor.case import Check, State
from daramjwee.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from daramjwee.observe.doctor.case import Case

# The table of a file that holds them, as `daramjwee bench --calibrate` writes it.
TABLE = "buffers"
WORDS = {"true": True, "false": False, "none": None, "null": None}


def configuration(case: Case) -> Iterator[Check]:
    """Whether the settings of the pool are sound, and fit `memory_limit`: one line for each problem."""
    if case.memory_limit < LEAST_MEMORY:
        seen = f"memory_limit = {format_size(case.memory_limit)}: no cache can be made with it"
        yield Check("configuration", State.PROBLEM, seen, f"raise it to {format_size(LEAST_MEMORY)} or more")
    if case.config_problems:
        for problem in case.config_problems:
            field = f"{problem.field} = {problem.value!r}" if problem.field else repr(problem.value)
            yield Check("configuration", State.PROBLEM, field, problem.mend)
        return
    config = case.config
    changed = [name for name in config.__struct_fields__ if getattr(config, name) != getattr(BufferPoolConfig(), name)]
    if case.memory_limit < LEAST_MEMORY:
        return  # what else could be said of it is no use
    if config.enabled and config.max_pool_bytes > case.memory_limit:
        seen = (
            f"max_pool_bytes = {format_size(config.max_pool_bytes)} is above memory_limit "
            f"({format_size(case.memory_limit)}): it is never reached"
        )
        yield Check("configuration", State.NOTE, seen, "lower it or raise the other")
        return
    yield Check("configuration", State.OK, f"sound; set: {', '.join(changed)}" if changed else "the defaults")


def read_settings(given: Iterable[str]) -> tuple[BufferPoolConfig, tuple[Problem, ...]]:
    """The settings that `given` names, each a field=value or a file (.toml, .json), the later ones counting; and every
    problem with them. With problems the settings are the defaults."""
    fields: dict[str, Any] = {}
    problems: list[Problem] = []
    for text in given:
        name, equals, value = text.partition("=")
        if equals and not os.path.exists(text):
            fields[name.strip()] = _value(value.strip())
        else:
            fields |= _file(text, problems)
    known = BufferPoolConfig.__struct_fields__
    problems += [Problem(name, value, _unknown(name, known)) for name, value in fields.items() if name not in known]
    fields = {name: value for name, value in fields.items() if name in known}
    try:
        config = BufferPoolConfig(**fields)
    except ConfigError as error:
        problems += error.problems
    return (BufferPoolConfig() if problems else config), tuple(problems)


def _unknown(name: str, known: tuple[str, ...]) -> str:
    """What to say of a field that there is not: the nearest first, as it is mostly a slip of the finger."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"is no field; {f'did you mean {near[0]}? ' if near else ''}the fields are {', '.join(known)}"


def _value(text: str) -> object:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return int(text)
    except ValueError:
        return text


def _file(path: str, problems: list[Problem]) -> dict[str, Any]:
    mend = "give field=value, or a TOML or JSON file"
    try:
        with open(path, "rb") as file:
            data = file.read()
        found = msgspec.json.decode(data) if path.endswith(".json") else _toml(data)
    except OSError as error:
        problems.append(Problem("--buffers", path, f"{error.strerror}; {mend}"))
        return {}
    except ValueError as error:
        problems.append(Problem("--buffers", path, f"cannot be read ({error}); {mend}"))
        return {}
    found = found.get(TABLE, found) if isinstance(found, dict) else found
    if not isinstance(found, dict):
        problems.append(Problem("--buffers", path, f"holds no table of fields; {mend}"))
        return {}
    return found


def _toml(data: bytes) -> Any:
    import tomllib

    return tomllib.loads(data.decode("utf-8"))
