"""`CacheConfig`: the settings of a whole cache, and one check of them all.

Invariant: a `CacheConfig` that exists is consistent; sizes in it are bytes (int), durations seconds (float), and it
holds no secret, only where one stands.
Threads: any; immutable.
Design: docs/settings.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from daramjwee.buffers.config import BufferPoolConfig
from daramjwee.config.origin import AnyOrigin, FileOriginConfig, GivenOrigin, HttpOriginConfig
from daramjwee.config.read import read_buffers, read_freshness, read_origin, read_tiers, table_of
from daramjwee.config.secret import Secret, text_of_path, without_secrets
from daramjwee.config.tables import table_of_origin
from daramjwee.config.tiers import LARGEST_NUMBER, TOO_LARGE, AnyTier, FileTier, GivenTier, MemoryTier, place_of
from daramjwee.config.url import tables_of_url
from daramjwee.config.words import outlandish
from daramjwee.errors import HIDDEN, ConfigError, Problem
from daramjwee.model import LEAST_MEMORY, MOST_WORKERS, Freshness
from daramjwee.units import MIB, format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daramjwee.units import Size

__all__ = [
    "SCHEMA",
    "CacheConfig",
    "FileOriginConfig",
    "FileTier",
    "GivenOrigin",
    "GivenTier",
    "HttpOriginConfig",
    "MemoryTier",
    "Secret",
]

# The schema of what `to_mapping` gives.
SCHEMA = 3


class CacheConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a cache.

    `tiers`: at least one, fastest first; also as text, "memory:256MiB;file:cache?capacity=20GiB". `origin`: where what
    no tier has comes from, also as an http, https or file URL; None: each open says so itself. `freshness`: lifetimes.
    `buffers`: the buffer pool; None is one that is switched off. `memory_limit`: bytes that buffers, memory tier and
    queues may hold together. `workers`: threads for copies and renewals in the background.

    Each part may also be given as the mapping that stands for it in a file. Sizes may be given as "64MiB", durations as
    "30s". `ConfigError` lists every problem of every part, by dotted field, with the value as it was given.
    """

    tiers: tuple[AnyTier, ...] = (MemoryTier(capacity=256 * MIB),)
    origin: AnyOrigin | None = None
    freshness: Freshness = Freshness()
    buffers: BufferPoolConfig = BufferPoolConfig()
    memory_limit: int = 512 * MIB
    workers: int = 4

    if TYPE_CHECKING:
        # What may be given is wider than what is kept.
        def __init__(
            self,
            *,
            tiers: Sequence[AnyTier | Mapping[str, Any]] | str = ...,
            origin: AnyOrigin | Mapping[str, Any] | str | None = None,
            freshness: Freshness | Mapping[str, Any] = ...,
            buffers: BufferPoolConfig | Mapping[str, Any] | None = ...,
            memory_limit: Size = "512MiB",
            workers: int = 4,
        ) -> None: ...

    def __post_init__(self) -> None:
        problems = [
            Problem(field, HIDDEN, odd)
            for field in self.__struct_fields__
            if (odd := outlandish(getattr(self, field))) is not None
        ]
        if problems:
            raise ConfigError(problems, subject="CacheConfig")
        tiers: Any = self.tiers
        if isinstance(tiers, str):
            tiers = tables_of_url(tiers, problems)
        origin: Any = self.origin
        if isinstance(origin, str):
            origin = table_of_origin(origin, problems, None)
        kept = {
            "tiers": read_tiers(tiers, problems),
            "origin": read_origin(origin, problems),
            "freshness": read_freshness(self.freshness, problems),
            "buffers": read_buffers(self.buffers, problems),
            "memory_limit": _memory_limit(self.memory_limit, problems),
        }
        if type(self.workers) is not int or not 1 <= self.workers <= MOST_WORKERS:
            problems.append(Problem("workers", self.workers, f"must be an int from 1 to {MOST_WORKERS}"))
        problems += _shared_folders(tiers)
        if problems:
            raise ConfigError(without_secrets(problems), subject="CacheConfig")
        for field, value in kept.items():
            msgspec.structs.force_setattr(self, field, value)

    def replace(self, **changes: Any) -> CacheConfig:
        """A configuration with `changes` made, checked as a whole.

        A mapping for `buffers` or `freshness` changes those fields of it, anything else replaces what is there. A single
        field is named by its dotted name, as in `replace(**{"buffers.chunk_size": "1MiB", "tiers[0].capacity": "1GiB"})`.
        An unknown field is a `ConfigError`.
        """
        from daramjwee.config.draft import DEFAULT, Draft, in_order

        draft = Draft(self)
        for name, value in in_order(changes):
            draft.put(name, value, DEFAULT)  # where a fault came from needs no telling: from these
        config = draft.settle()
        if config is None:
            raise ConfigError(without_secrets(draft.problems), subject="CacheConfig")
        return config

    def to_mapping(self) -> dict[str, Any]:
        """Every field as plain JSON data: secrets by reference, `schema` beside them. `CacheConfig` of it (without
        `schema`) is equal to this one."""
        origin = self.origin
        return {
            "schema": SCHEMA,
            "memory_limit": self.memory_limit,
            "workers": self.workers,
            "tiers": [table_of(tier) for tier in self.tiers],
            "origin": None if origin is None else table_of(origin),
            "freshness": table_of(self.freshness),
            "buffers": table_of(self.buffers),
        }


def _memory_limit(value: Any, problems: list[Problem]) -> int:
    try:
        limit = parse_size(value)
        if limit < LEAST_MEMORY:
            raise ValueError(f"must be at least {format_size(LEAST_MEMORY)}, or buffers have no room to move bytes")
        if limit > LARGEST_NUMBER:
            raise ValueError(TOO_LARGE)
    except ValueError as error:
        problems.append(Problem("memory_limit", value, str(error)))
        return 0
    return limit


def _shared_folders(tiers: Any) -> list[Problem]:
    """Two stores in one folder would take each other's files for their own."""
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for index, tier in enumerate(tiers if isinstance(tiers, list | tuple) else ()):
        if isinstance(tier, FileTier):
            folder: Any = tier.folder
        else:
            folder = tier.get("folder") if isinstance(tier, Mapping) and tier.get("type") == "file" else None
        try:
            place = place_of(text_of_path(folder))
        except ValueError:
            continue  # no folder, or it is named already for what it is
        if place in seen:
            mend = f"is the folder of tiers[{seen[place]}] too; give each file tier its own"
            problems.append(Problem(f"tiers[{index}].folder", folder, mend))
        seen.setdefault(place, index)
    return problems
