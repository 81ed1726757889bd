"""Tiers as one line of text: "memory:256MiB;file:./cache?capacity=20GiB&verify=always", and back.

Each part is a kind, a colon, the one thing that a tier of that kind must have (the capacity of a memory tier, the folder
of a file tier), and its other fields after a question mark. "%", ";", "?" and "&" in a folder are written as in a URL
(%25, %3B, %3F, %26).

Threads: any; pure.
Design: docs/settings.md
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from daramjwee.config.secret import shown
from daramjwee.config.settings import BY_PATH, Kind
from daramjwee.config.tiers import TIER_KINDS, FileTier, GivenTier, MemoryTier
from daramjwee.config.words import name_of, unknown_field, unknown_kind
from daramjwee.errors import HIDDEN, ConfigError, Problem
from daramjwee.units import GIB, KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daramjwee.config.tiers import AnyTier

EXAMPLE = "memory:256MiB;file:cache?capacity=20GiB"
# The field that stands before the question mark.
_FIRST = {"memory": "capacity", "file": "folder"}
# What may stand in a folder as it is.
_SAFE = "/:@!$'()*+=~"
# Stands in the place of what could not be read, so that the tiers after it keep theirs. No rule is about it.
_UNREAD = GivenTier(name="unread")


def tiers_of_url(text: str) -> tuple[AnyTier, ...]:
    """The tiers that `text` names. `ConfigError` lists every problem."""
    from daramjwee.config.model import CacheConfig

    try:
        return CacheConfig(tiers=text).tiers
    except ConfigError as error:
        raise ConfigError(error.problems, subject="tiers") from None


def url_of_tiers(tiers: Sequence[AnyTier]) -> str:
    """The text that names `tiers`. `ConfigError` where one was made by a program: nothing names it."""
    given = [index for index, tier in enumerate(tiers) if not isinstance(tier, MemoryTier | FileTier)]
    if given:
        mend = "was made by a program; no text stands for it"
        raise ConfigError([Problem(f"tiers[{index}]", tiers[index], mend) for index in given], subject="tiers")
    return ";".join(_text_of(tier) for tier in tiers if isinstance(tier, MemoryTier | FileTier))


def tables_of_url(text: str, problems: list[Problem]) -> list[Any]:
    """The tables of the tiers that `text` names, not checked yet; what cannot be read is appended to `problems`."""
    found: list[Problem] = []
    if not text.strip():
        problems.append(Problem("tiers", text, f"is empty; give at least one, such as {EXAMPLE}"))
        return [_UNREAD]
    tables = [_table(f"tiers[{index}]", part.strip(), found) for index, part in enumerate(text.split(";"))]
    # A password with a semicolon in it is in two parts that do not look like one.
    problems += [problem._replace(value=HIDDEN) if "@" in text else problem for problem in found]
    return tables


def folder_of_url(rest: str) -> str:
    """The folder that "file:" + `rest` names. `ValueError` says what is wrong with it."""
    from urllib.parse import unquote

    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host.lower() not in {"", "localhost"}:
            raise ValueError("names a host before the folder; write file:folder, or file:///folder from the root")
        rest = slash + path
    return unquote(rest, errors="surrogateescape")


def _table(field: str, part: str, problems: list[Problem]) -> Any:
    kind, colon, rest = part.partition(":")
    kind = kind.strip().lower()
    if not part or not colon:
        mend = f"give a kind and a colon, such as {EXAMPLE}" if part else "is empty; leave out the ; that is too many"
        problems.append(Problem(field, shown(part), mend))
        return _UNREAD
    if kind not in _FIRST:
        problems.append(Problem(field, shown(part), unknown_kind(kind, _FIRST, "tier")))
        return _UNREAD
    if re.search(r",\s*(?:memory|file):", rest):
        problems.append(Problem(field, shown(part), "tiers are joined by ; (a comma in a folder before these is %2C)"))
        return _UNREAD
    first, question, query = rest.partition("?")
    table: dict[str, Any] = {"type": kind}
    if first.strip():
        try:
            table[_FIRST[kind]] = folder_of_url(first) if kind == "file" else _value(kind, "capacity", first)
        except ValueError as error:
            problems.append(Problem(field, shown(part), str(error)))
            return _UNREAD
    for pair in query.split("&") if question else ():
        _add(field, table, pair, problems)
    return table


def _add(field: str, table: dict[str, Any], pair: str, problems: list[Problem]) -> None:
    from urllib.parse import unquote

    kind = table["type"]
    name, equals, value = pair.partition("=")
    name = name.strip()
    at = f"{field}.{name_of(name)}"
    if not equals or not name:
        problems.append(Problem(field, shown(pair), "give field=value after the question mark, joined by &"))
    elif name == "type":
        problems.append(Problem(at, shown(value), f"stands before the colon; write {_FIRST[kind]} there"))
    elif name in table:
        problems.append(
            Problem(at, shown(value, name), f"is given twice (before: {shown(table[name])!r}); give it once")
        )
    elif name not in TIER_KINDS[kind].__struct_fields__:
        problems.append(Problem(at, shown(value, name), unknown_field(name, TIER_KINDS[kind].__struct_fields__)))
    else:
        table[name] = _value(kind, name, unquote(value, errors="surrogateescape"))


def _value(kind: str, name: str, text: str) -> Any:
    return BY_PATH[f"tiers.{kind}.{name}"].value_of(text)


def _text_of(tier: MemoryTier | FileTier) -> str:
    from urllib.parse import quote

    kind = "memory" if isinstance(tier, MemoryTier) else "file"
    pairs = []
    for name in tier.__struct_fields__:
        value = getattr(tier, name)
        setting = BY_PATH[f"tiers.{kind}.{name}"]
        text = _size_text(value) if setting.kind is Kind.SIZE and value is not None else str(value)
        if name != _FIRST[kind] and value is not None and text != setting.default:
            pairs.append(f"{name}={quote(text, safe='')}")
    if isinstance(tier, MemoryTier):
        first = _size_text(tier.capacity)
    else:
        # Two slashes, or a folder that begins with two would be taken for a host.
        root = "//" if tier.folder.startswith("/") else ""
        first = root + quote(tier.folder, safe=_SAFE, errors="surrogateescape")
    return f"{kind}:{first}{'?' if pairs else ''}{'&'.join(pairs)}"


def _size_text(count: int) -> str:
    """Bytes in the largest unit that leaves nothing over."""
    for unit, size in (("TiB", 1024 * GIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return str(count)
