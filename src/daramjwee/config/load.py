"""Settings put together: arguments before the environment, that before a file or mapping, that before the default.

Invariant: `examine` raises for no setting, whatever it is: every problem of every source is in what it returns. No
problem, warning or source shows a secret.
Threads: any. Reads the file that is named, and nothing else is opened or changed.
Design: docs/settings.md
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from daramjwee.config.draft import DEFAULT, Draft, in_order, leaves, said_of
from daramjwee.config.environment import file_named, read_environment
from daramjwee.config.model import SCHEMA, CacheConfig
from daramjwee.config.parse import LARGEST_FILE, Unread, parsed
from daramjwee.config.secret import is_regular, open_at_once, shown, without_secrets
from daramjwee.config.tiers import GivenTier
from daramjwee.config.warnings import Unwise, unwise
from daramjwee.config.words import name_of, told_apart
from daramjwee.errors import ConfigError, Problem
from daramjwee.units import format_size

if TYPE_CHECKING:
    from typing import TypeAlias

# What settings are read from.
Source: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | CacheConfig | None"

ARGUMENT = "argument"
MEND_ENDING = "give a .toml or .json file"


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """What settings came to.

    `config`: the configuration, None where there are problems. `problems`: all that is wrong, each saying where it came
    from. `warnings`: what is legal but unwise. `sources`: dotted field to "default", "file PATH", "environment NAME" or
    "argument". `schema`: that of the file or mapping; the latest where there is none.
    """

    config: CacheConfig | None
    problems: tuple[Problem, ...]
    warnings: tuple[Unwise, ...]
    sources: dict[str, str]
    schema: int


class Loaded(Examined, frozen=True, kw_only=True):
    """An `Examined` without problems."""

    config: CacheConfig


class _Layer(msgspec.Struct):
    """The fields that the file or mapping has, whence they are, and from where its relative folders count."""

    fields: dict[str, Any]
    source: str
    anchor: str | None
    schema: int = SCHEMA
    problems: list[Problem] = []
    warnings: list[Unwise] = []


def load(
    source: Source = None, *, environ: Mapping[str, str] | None = None, changes: Mapping[str, Any] | None = None
) -> Loaded:
    """The settings as `examine` finds them; `source`, `environ` and `changes` as there. `ConfigError` lists every problem of
    every source."""
    found = examine(source, environ=environ, changes=changes)
    if found.config is None:
        # Somebody may give a URL of one, with a password.
        subject = shown(os.fspath(source)) if isinstance(source, str | os.PathLike) else "configuration"
        raise ConfigError(found.problems, subject=subject)
    return Loaded(
        config=found.config,
        problems=found.problems,
        warnings=found.warnings,
        sources=found.sources,
        schema=found.schema,
    )


def examine(
    source: Source = None, *, environ: Mapping[str, str] | None = None, changes: Mapping[str, Any] | None = None
) -> Examined:
    """What `source`, the environment and `changes` come to together; of each field the strongest counts.

    `source`: the path of a .toml or .json file, a mapping, a `CacheConfig`, or None: then the variable DARAMJWEE_CONFIG
    names the file, if it is set. `environ`: None is that of the process, {} is none. `changes`: fields of `CacheConfig`
    or dotted names; they win over the environment, which wins over `source`.
    """
    environ = os.environ if environ is None else environ
    here = _working_folder()
    layer = _layer_of(source, environ, here)
    draft = Draft()
    draft.problems += layer.problems
    for name, value in in_order(layer.fields):
        draft.put(name, value, layer.source, layer.anchor)
    variables, problems = read_environment(environ)
    draft.problems += problems
    for path, value, name in variables:
        draft.put(path, value, f"environment {name}", here)
    for name, value in in_order(changes or {}):
        draft.put(name, value, ARGUMENT, here)
    config = draft.settle()
    given = [] if config is None else _given_in_a_file(config, draft)
    if config is None or given:
        return Examined(
            config=None,
            problems=tuple(without_secrets((*draft.problems, *given))),
            warnings=tuple(layer.warnings),
            # A name that is none may be a secret.
            sources={name: said for name, said in draft.given.items() if name_of(name) == name},
            schema=layer.schema,
        )
    fields = config.to_mapping()
    del fields["schema"]
    return Examined(
        config=config,
        problems=(),
        warnings=(*layer.warnings, *unwise(config)),
        sources={name: draft.given.get(name, DEFAULT) for name, _ in leaves("", fields)}
        | {warning.field: layer.source for warning in layer.warnings},
        schema=layer.schema,
    )


def _working_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None  # it was deleted: relative folders stay relative, and fail where they are used


def _layer_of(source: Any, environ: Mapping[str, str], here: str | None) -> _Layer:
    if isinstance(source, CacheConfig):
        fields = source.to_mapping()
        del fields["schema"]
        return _Layer(fields, ARGUMENT, None)
    if isinstance(source, Mapping):
        return _upgraded(source, _Layer({}, ARGUMENT, here))
    if source is not None:
        return _read_file(source, "")
    named = file_named(environ)
    if named is None:
        return _Layer({}, DEFAULT, here)
    variable, path = named
    if not path.strip():
        mend = "is empty; name a file, or unset the variable to read none"
        return _Layer({}, DEFAULT, here, problems=[Problem(variable, path, mend)])
    return _read_file(path, f"; it is named by {variable}")


def _read_file(source: Any, why: str) -> _Layer:
    """What a file holds. A problem with the file as a whole has its path as field, as the settings have none yet."""
    try:
        given = os.fspath(source)
        path = os.path.expanduser(given)
    except TypeError:
        mend = f"must be the path of a file, a mapping, a CacheConfig, or None{why}"
        return _Layer({}, ARGUMENT, None, problems=[Problem("source", type(source).__name__, mend)])
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        return _Layer(
            {}, ARGUMENT, None, problems=[Problem("source", given, f"must be the path of a file, as text{why}")]
        )
    given = shown(given)  # somebody may give the URL of one
    layer = _Layer({}, f"file {given}", None)
    try:
        layer.anchor = os.path.dirname(os.path.abspath(path))
        found = _parsed(path)
    except OSError as error:
        mend = f"cannot be read; give the path of a file that can{why}"
        layer.problems = [Problem(given, error.strerror or type(error).__name__, mend)]
    except Unread as error:
        layer.problems = [Problem(given, error.seen, f"{error}{why}")]
    else:
        if isinstance(found, dict):
            return _upgraded(found, layer)
        kind = type(found).__name__
        layer.problems = [Problem(given, kind, f"must hold a table of settings{why}")]
    return layer


def _parsed(path: str) -> Any:
    """What a file holds, as its ending says that it is written."""
    ending = os.path.splitext(path)[1].lower()
    if ending not in {".toml", ".json"}:
        raise Unread(ending, f"is an ending that says nothing of how it is written; {MEND_ENDING}")
    with open(path, "rb", opener=open_at_once) as file:
        before = os.fstat(file.fileno())
        if not is_regular(file):
            raise Unread("a pipe or device", f"is no regular file; {MEND_ENDING}")
        data = file.read(LARGEST_FILE + 1)
        after = os.fstat(file.fileno())
    if len(data) > LARGEST_FILE:
        raise Unread(format_size(len(data)), f"is larger than any file of settings; {MEND_ENDING}")
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Unread("another size or time", "was changed while it was read; try again")
    return parsed(data, ending.removeprefix("."))


def _upgraded(mapping: Mapping[Any, Any], layer: _Layer) -> _Layer:
    """The layer with the fields of `mapping`, in the latest schema."""
    from daramjwee.config import schemas

    named, problems = told_apart(mapping)
    layer.problems = [said_of(problem, layer.source) for problem in problems]
    given = {name: value for name, value in named.items() if name != schemas.SCHEMA}
    try:
        layer.schema = schemas.schema_of(named)
        fields = dict(schemas.upgraded(named).mapping)
    except ConfigError as error:
        layer.problems += [said_of(problem, layer.source) for problem in error.problems]
        # What is told already is told once; the rest of it is looked at all the same.
        told = {problem.field for problem in error.problems}
        layer.fields = {name: given[name] for name in given.keys() & set(schemas.TABLES) - told}
        return layer
    fields.pop(schemas.SCHEMA, None)
    layer.fields = fields
    if fields != given:
        reason = f"is an older schema than {SCHEMA}: it is read, but new settings have no place in it"
        mend = "bring it up to date: daramjwee config migrate FILE"
        layer.warnings = [Unwise("schema", layer.schema, reason, mend)]
    return layer


def _given_in_a_file(config: CacheConfig, draft: Draft) -> list[Problem]:
    """A file cannot name what a program makes; a mapping may describe a cache that runs."""
    mend = "was made by a program and cannot be made from its name; describe a tier of type memory or file"
    return [
        said_of(Problem(f"tiers[{index}]", tier.name, mend), draft.source_of(f"tiers[{index}]"))
        for index, tier in enumerate(config.tiers)
        if isinstance(tier, GivenTier) and draft.source_of(f"tiers[{index}]").startswith("file ")
    ]
