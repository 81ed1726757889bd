"""Parts of a configuration as tables, whatever they were given as; relative paths in them joined to a folder.

Invariant: what was given is not changed. What is no part at all is handed on as it is: who checks the field says so.
Threads: any; pure, but that `~` is expanded.
Design: docs/settings.md
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from daramjwee.config.origin import is_word
from daramjwee.config.read import table_of
from daramjwee.config.secret import is_url
from daramjwee.config.url import folder_of_url, tables_of_url
from daramjwee.errors import HIDDEN, Problem
from daramjwee.units import counted

# A read asks one tier after the other: nobody wants so many. Comparing each with each takes long then.
MOST_TIERS = 64


def copied(value: Any) -> Any:
    """Tables and lists anew, whatever they hold as it is."""
    if isinstance(value, Mapping):
        return {name: copied(inner) for name, inner in value.items()}
    return [copied(inner) for inner in value] if isinstance(value, list | tuple) else value


def tables_of_tiers(value: Any, faults: list[Problem], anchor: str | None) -> Any:
    """The tiers of a text or a list as a list of tables."""
    if isinstance(value, str):
        value = tables_of_url(value, faults)
    if not isinstance(value, list | tuple):
        return value
    if len(value) > MOST_TIERS:
        faults.append(Problem("tiers", counted(len(value), "tier"), f"are more than {MOST_TIERS}; leave some out"))
    return [anchored(_plain(tier), anchor) for tier in value[:MOST_TIERS]]


def table_of_origin(value: Any, faults: list[Problem], anchor: str | None) -> Any:
    """The origin of a URL, a table or settings that are made already as a table; None, after a fault, too."""
    if isinstance(value, str):
        scheme, colon, rest = value.partition(":")
        if scheme.strip().lower() in {"http", "https"} and colon:
            value = {"type": "http", "base": value.strip()}
        elif scheme.strip().lower() == "file" and colon:
            try:
                value = {"type": "file", "folder": folder_of_url(rest.strip())}
            except ValueError as error:
                faults.append(Problem("origin", HIDDEN, str(error)))
                return None
        else:
            faults.append(Problem("origin", HIDDEN, "must be an http, https or file URL, or a table with a type"))
            return None
    return anchored(_plain(value), anchor)


def _plain(value: Any) -> Any:
    """A part as a table that may be changed."""
    if isinstance(value, msgspec.Struct):
        return table_of(value)
    return copied(value) if isinstance(value, Mapping) else value


def anchored(table: Any, anchor: str | None) -> Any:
    """The table with its relative paths taken from `anchor`."""
    if anchor is None or not isinstance(table, dict):
        return table
    found = dict(table)
    if "folder" in found:
        found["folder"] = joined(found["folder"], anchor)
    # That of a file tier is a word, and that of an origin may be one by mistake.
    if found.get("type", "http") == "http" and "verify" in found and not is_word(found["verify"]):
        found["verify"] = joined(found["verify"], anchor)
    if isinstance(found.get("headers"), Mapping):
        found["headers"] = {name: anchored_secret(value, anchor) for name, value in found["headers"].items()}
    return found


def anchored_secret(value: Any, anchor: str | None) -> Any:
    """The value of a header, the file of a secret taken from `anchor`."""
    if anchor is not None and isinstance(value, Mapping) and "file" in value:
        return {**value, "file": joined(value["file"], anchor)}
    return value


def joined(value: Any, anchor: str) -> Any:
    """A path taken from `anchor`; what is none as it is."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text.strip() or "\0" in text or is_url(text):
        return value  # no path: that is said where it is checked
    text = os.path.expanduser(text)
    return text if text.startswith("~") else os.path.normpath(os.path.join(anchor, text))
