"""What migrating a configuration file does: its old bytes in, its new text and a line for each field out.

Invariant: the new text says what the old bytes say, field by field; a plan exists only where today's rules accept it.
Threads: any; pure.
Design: docs/migration.md
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from daramjwee.config.change import Change
from daramjwee.config.model import CacheConfig
from daramjwee.config.parse import Unread, parsed
from daramjwee.config.schemas import LATEST, SCHEMA, schema_of, upgraded
from daramjwee.config.secret import shown, without_secrets
from daramjwee.config.words import name_of, told_apart, unknown_field
from daramjwee.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOML_TEXT = re.compile(rb'"(?:\\.|[^"\\\n])*"|' + rb"'[^'\n]*'")
COMMENTS = "the comments of the file are not carried over; the old file keeps them"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`before`, `after`: schemas. `text`: the new file; None where there is nothing to do. `changes`: one for each field.
    `remarks`: what else is lost or different."""

    before: int
    after: int = LATEST
    text: str | None = None
    changes: tuple[Change, ...] = ()
    remarks: tuple[str, ...] = ()


def plan_migration(path: str, data: bytes) -> Plan:
    """The plan for the file `path`, which holds `data`. `ConfigError` lists every problem, by the names in the file."""
    kind = kind_of(path)
    mapping = _parsed(path, kind, data)
    try:
        before = schema_of(mapping)
        if before == LATEST:
            _refuse_strangers(mapping)
            return Plan(before=before)
        new, changes = upgraded(mapping)
        CacheConfig(**{name: value for name, value in new.items() if name != SCHEMA})
    except ConfigError as error:
        raise ConfigError(without_secrets(error.problems), subject=path) from None
    remarks = (COMMENTS,) if kind == "toml" and b"#" in _TOML_TEXT.sub(b"", data) else ()
    return Plan(before=before, text=_text(kind, new), changes=changes, remarks=remarks)


def _refuse_strangers(mapping: Mapping[str, Any]) -> None:
    """A file whose names nobody knows is not to pass for one of today's, unless it says that it is one."""
    known = CacheConfig.__struct_fields__
    strange = [Problem(name_of(n), shown(v, n), unknown_field(n, known)) for n, v in mapping.items() if n not in known]
    if strange and SCHEMA not in mapping:
        raise ConfigError(strange)


def kind_of(path: str) -> str:
    """How the file is written, toml or json, by the end of its name."""
    for kind in ("toml", "json"):
        if path.lower().endswith(f".{kind}"):
            return kind
    raise ConfigError([Problem("FILE", path, "must be a file called .toml or .json")], subject="config migrate")


def _parsed(path: str, kind: str, data: bytes) -> Mapping[str, Any]:
    try:
        found = parsed(data, kind)
    except Unread as error:
        problem = Problem("FILE", path, f"{error} ({error.seen})")
        raise ConfigError([problem], subject="config migrate") from error
    if not isinstance(found, dict):
        raise ConfigError([Problem("FILE", path, "holds no table of settings")], subject="config migrate")
    fields, problems = told_apart(found)
    if problems:
        raise ConfigError(without_secrets(problems), subject=path)
    return fields


def _text(kind: str, mapping: dict[str, Any]) -> str:
    if kind == "json":
        return msgspec.json.format(msgspec.json.encode(mapping), indent=2).decode() + "\n"
    try:
        import tomli_w
    except ImportError:
        problem = Problem("FILE", "tomli-w", 'is not installed, and writes TOML: pip install "daramjwee[cli]"')
        raise ConfigError([problem], subject="config migrate") from None
    return tomli_w.dumps(mapping)
