"""A configuration being put together: fields from several sources, the later ones winning, each knowing whence it came.

Invariant: what is put is not changed; every problem found is in `problems`, none is raised.
Threads: one. Pure, but that a relative path may be joined to the folder that is given for it.
Design: docs/settings.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.buffers.config import BufferPoolConfig
from daramjwee.config.model import CacheConfig
from daramjwee.config.read import table_of
from daramjwee.config.secret import shown
from daramjwee.config.settings import SETTINGS
from daramjwee.config.tables import anchored, anchored_secret, copied, joined, table_of_origin, tables_of_tiers
from daramjwee.config.tiers import TIER_KINDS
from daramjwee.config.words import name_of, outlandish, unknown_field
from daramjwee.errors import HIDDEN, ConfigError, Problem
from daramjwee.model import Freshness
from daramjwee.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT = "default"
# Parts whose fields are merged; the others are replaced as a whole.
MERGED = ("freshness", "buffers")
_TIER_BY_PLACE = re.compile(r"tiers\[(\d{1,9})\]\.([^.\[\]]+)", re.ASCII)
_TIER_BY_KIND = re.compile(r"tiers\.([^.\[\]]+)\.([^.\[\]]+)", re.ASCII)
_SCALARS = ("memory_limit", "workers")
# Longer than any name, that of a header included. What is done for one grows with the square of its dots.
LONGEST_PATH = 1000
# Each costs a check of the whole. A person mends these first, and is told of the rest then.
MOST_UNCOVERED = 100


class Overridden(NamedTuple):
    """A value that a later source replaced."""

    path: str
    value: Any
    source: str


class Draft:
    """Fields as they were given, by the place they have in a `CacheConfig`.

    `tree`: arguments of a `CacheConfig`. `given`: dotted field to source, of what is no default.
    """

    def __init__(self, start: CacheConfig | None = None) -> None:
        self.tree: dict[str, Any] = {}
        self.given: dict[str, str] = {}
        self.overridden: list[Overridden] = []
        self.problems: list[Problem] = []
        # What could not be read of a part that a later source may replace.
        self._faults: dict[str, list[Problem]] = {}
        if start is not None:
            self.tree = start.to_mapping()
            del self.tree["schema"]

    def put(self, path: str, value: Any, source: str, anchor: str | None = None) -> None:
        """Set the field `path`, or a whole part. A relative folder is taken from `anchor` (None: left as it is)."""
        odd = outlandish(value)
        if odd is None and len(path) > LONGEST_PATH:
            odd = "is longer than the name of any setting"
        if odd is not None:
            self._refuse(name_of(path), HIDDEN, odd, source)
            return
        if path in MERGED:
            self._merge(path, value, source, anchor)
        elif path in {"tiers", "origin"}:
            self._replace(path, value, source, anchor)
        elif path in _SCALARS:
            self._set(self.tree, path, path, value, source)
        elif path.partition(".")[0] in MERGED:
            part, _, name = path.partition(".")
            self._set(self.tree.setdefault(part, {}), name, path, value, source)
        elif path.startswith("origin."):
            self._put_in_origin(path, value, source, anchor)
        elif path.startswith(("tiers.", "tiers[")):
            self._put_in_tier(path, value, source, anchor)
        else:
            self._refuse(name_of(path), shown(value, path), _unknown(path), source)

    def settle(self) -> CacheConfig | None:
        """The configuration that all of it comes to; None after its problems were appended."""
        config, found = None, []
        try:
            config = CacheConfig(**self.tree)
        except ConfigError as error:
            found = list(error.problems)
        found += [problem for faults in self._faults.values() for problem in faults]
        self.problems += [said_of(problem, self.source_of(problem.field)) for problem in found]
        self.problems += self._uncovered(found)
        return None if self.problems else config

    def source_of(self, field: str) -> str:
        """Where a field, or what it is a part of, came from."""
        while field and field not in self.given:
            field = field[: max(field.rfind("."), field.rfind("["), 0)]
        return self.given.get(field, DEFAULT)

    # -- the parts -----------------------------------------------------------------------------------------

    def _merge(self, part: str, value: Any, source: str, anchor: str | None) -> None:
        if value is None and part == "buffers":
            value = BufferPoolConfig(enabled=False)
        if isinstance(value, Freshness | BufferPoolConfig):
            # Settings that are made already are meant as a whole.
            value = table_of(value)
            self._forget(part)
            self.tree[part] = {}
        if not isinstance(value, Mapping):
            self._refuse(part, shown(value), "must be a table of fields", source)
            return
        self.given[part] = source
        for name, inner in value.items():
            self.put(f"{part}.{name}", inner, source, anchor)

    def _replace(self, part: str, value: Any, source: str, anchor: str | None) -> None:
        if part in self.given:
            self.overridden.append(Overridden(part, self.tree[part], self.given[part]))
        self._forget(part)
        faults: list[Problem] = []
        read = tables_of_tiers if part == "tiers" else table_of_origin
        value = read(value, faults, anchor)
        self._faults[part] = faults
        self.tree[part] = value
        self.given[part] = source
        for leaf, _ in leaves(part, value):
            self.given[leaf] = source

    def _put_in_origin(self, path: str, value: Any, source: str, anchor: str | None) -> None:
        origin = self.tree.get("origin")
        if not isinstance(origin, dict):
            mend = "there is no origin whose field it could be; give one, such as origin = https://example.org/"
            self._refuse(path, HIDDEN, mend, source)
            return
        _, _, name = path.partition(".")
        if name.startswith("headers.") and origin.get("type") == "http" and _holds_headers(origin):
            self._set(origin["headers"], name.partition(".")[2], path, anchored_secret(value, anchor), source)
        else:
            self._set(origin, name, path, anchored({name: value}, anchor)[name], source)
            if name == "headers":
                self._forget(path)
                self.given |= dict.fromkeys((path, *(leaf for leaf, _ in leaves(path, value))), source)

    def _put_in_tier(self, path: str, value: Any, source: str, anchor: str | None) -> None:
        by_place, by_kind = _TIER_BY_PLACE.fullmatch(path), _TIER_BY_KIND.fullmatch(path)
        tiers = self.tree.get("tiers")
        if not isinstance(tiers, list):
            # Of a list that is none something is said already; a field of the default is one all the same.
            tiers = [table_of(tier) for tier in CacheConfig().tiers]
            if "tiers" not in self.tree:
                self.tree["tiers"] = tiers
        if by_place is not None:
            name = by_place[2]
            places = [int(by_place[1])] if int(by_place[1]) < len(tiers) else []
            wrong = f"is beyond {counted(len(tiers), 'tier')}, counted from 0"
        elif by_kind is not None:
            kind, name = by_kind[1], by_kind[2]
            places = [i for i, tier in enumerate(tiers) if isinstance(tier, dict) and tier.get("type") == kind]
            wrong = f"there are {len(places)} tiers of type {kind}; say which, such as tiers[0].{name_of(name)}"
            if kind not in TIER_KINDS:
                wrong = f"is no kind of tier; give tiers[0].{name_of(name)}, or tiers.memory or tiers.file before it"
        else:
            places, name, wrong = [], "", "is no field of a tier; write tiers[0].capacity, or tiers.memory.capacity"
        if len(places) != 1:
            self._refuse(path, shown(value, path), wrong, source)
        elif isinstance(tiers[places[0]], dict):
            if name == "folder" and anchor is not None:
                value = joined(value, anchor)
            self._set(tiers[places[0]], name, f"tiers[{places[0]}].{name}", value, source)

    def _set(self, table: dict[Any, Any], name: Any, path: str, value: Any, source: str) -> None:
        if path in self.given and name in table:
            self.overridden.append(Overridden(path, table[name], self.given[path]))
        table[name] = value
        self.given[path] = source

    def _forget(self, part: str) -> None:
        for field in [field for field in self.given if field == part or field.startswith((f"{part}.", f"{part}["))]:
            del self.given[field]

    def _refuse(self, field: str, value: Any, mend: str, source: str) -> None:
        self.problems.append(said_of(Problem(field, value, mend), source))

    def _uncovered(self, found: list[Problem]) -> Iterator[Problem]:
        """Problems of values that a faulty one replaced: they would be seen only when that one is taken away."""
        fields = {problem.field for problem in found}
        faulty = (it for it in self.overridden if any(_within(field, it.path) for field in fields))
        for path, value, source in islice(faulty, MOST_UNCOVERED):
            other = Draft()
            other.tree, other.given = copied(self.tree), dict(self.given)
            other.put(path, value, source)
            other.overridden, other.problems = [], []
            other.settle()
            yield from (problem for problem in other.problems if _within(problem.field, path))


def said_of(problem: Problem, source: str) -> Problem:
    """The problem, saying where its value came from."""
    return problem if source == DEFAULT else problem._replace(mend=f"{problem.mend} ({source})")


def in_order(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Whole parts before single fields of them: "tiers" would replace "tiers[0].capacity" again."""
    return sorted(fields.items(), key=lambda field: "." in field[0])


def leaves(field: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Each field below `field` that has a value of its own, dotted, as `sources` of an examination has them."""
    if isinstance(value, Mapping) and value and not set(value) <= {"env", "file"}:
        for name, inner in value.items():
            yield from leaves(f"{field}.{name}" if field else str(name), inner)
    elif isinstance(value, list | tuple) and value:
        for index, inner in enumerate(value):
            yield from leaves(f"{field}[{index}]", inner)
    else:
        yield field, value


def _holds_headers(origin: dict[str, Any]) -> bool:
    return isinstance(origin.setdefault("headers", {}), dict)


def _unknown(path: str) -> str:
    """What to say of a name that is no field: it may be one of a part."""
    top = [setting.path for setting in SETTINGS if "." not in setting.path] + list(MERGED)
    inner = [setting.path for setting in SETTINGS if setting.path.rpartition(".")[2] == path]
    if inner:
        return f"is no field of its own; did you mean {' or '.join(inner)}?"
    return unknown_field(path, top)


def _within(field: str, path: str) -> bool:
    return field == path or field.startswith((f"{path}.", f"{path}["))
