"""The settings of each kind of tier.

Invariant: a tier's settings that exist are those a store of that kind takes; sizes in them are bytes (int).
Threads: any; immutable. Pure: whether a folder is there and can be used is found out when the store is made.
Design: docs/settings.md
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from daramjwee.config.secret import text_of_path
from daramjwee.errors import ConfigError, Problem
from daramjwee.stores.file.store import DURABILITIES, VERIFICATIONS
from daramjwee.stores.limits import check_limits, check_size
from daramjwee.units import MIB, parse_size

if TYPE_CHECKING:
    from typing import TypeAlias

    from daramjwee.units import Size

# More bytes than any tier holds: a larger number is a slip of the unit, and would not go into a file of settings.
LARGEST_NUMBER = 1 << 60
TOO_LARGE = "is more than any machine has; mind the unit"


class MemoryTier(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="memory"):
    """The settings of a `MemoryStore`. Sizes may be given as "256MiB". `ConfigError` lists every problem."""

    capacity: int
    max_entries: int | None = None
    policy: str = "sieve"
    max_object_size: int | None = None

    if TYPE_CHECKING:
        # What may be given is wider than what is kept.
        def __init__(
            self,
            *,
            capacity: Size,
            max_entries: int | None = None,
            policy: str = "sieve",
            max_object_size: Size | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        _settle_limits(self, problems)
        if problems:
            raise ConfigError(problems, subject="MemoryTier")


class FileTier(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="file"):
    """The settings of a `FileStore`. Sizes may be given as "20GiB". `ConfigError` lists every problem.

    `folder`: a path, `~` expanded; it is made when the store is. A relative one counts from the working directory.
    """

    folder: str
    capacity: int
    max_entries: int | None = None
    policy: str = "sieve"
    free_space_floor: int = 64 * MIB
    durability: str = "flush"
    verify: str = "first"
    max_object_size: int | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            folder: str | os.PathLike[str],
            capacity: Size,
            max_entries: int | None = None,
            policy: str = "sieve",
            free_space_floor: Size = "64MiB",
            durability: str = "flush",
            verify: str = "first",
            max_object_size: Size | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        floor: Any = self.free_space_floor
        _settle_limits(self, problems)
        parsed = check_size("free_space_floor", floor, problems)
        if parsed is not None and parsed > LARGEST_NUMBER:
            problems.append(Problem("free_space_floor", floor, TOO_LARGE))
        msgspec.structs.force_setattr(self, "free_space_floor", parsed)
        for field, known in (("durability", DURABILITIES), ("verify", VERIFICATIONS)):
            if getattr(self, field) not in known:
                problems.append(Problem(field, getattr(self, field), f"must be one of {', '.join(known)}"))
        try:
            msgspec.structs.force_setattr(self, "folder", text_of_path(self.folder))
        except ValueError as error:
            problems.append(Problem("folder", self.folder, str(error)))
        if problems:
            raise ConfigError(problems, subject="FileTier")


class GivenTier(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="given"):
    """A store that a program made and gave to its cache; `name` says which. No store can be made from it."""

    name: str

    def __post_init__(self) -> None:
        check_name(self.name, "GivenTier")


AnyTier: TypeAlias = MemoryTier | FileTier | GivenTier
TIER_KINDS: dict[str, type[AnyTier]] = {"memory": MemoryTier, "file": FileTier, "given": GivenTier}


def place_of(folder: str) -> str:
    """The folder as two that are the same have it. Links are not followed: that would be to look."""
    try:
        return os.path.abspath(folder)
    except OSError:
        return os.path.normpath(folder)  # the working directory was deleted


def check_name(name: object, subject: str) -> None:
    """That a name is text."""
    if not isinstance(name, str) or not name:
        raise ConfigError([Problem("name", name, "must be text")], subject=subject)


def _settle_limits(tier: MemoryTier | FileTier, problems: list[Problem]) -> None:
    """Check the limits that every tier has, and keep them as numbers."""
    given: dict[str, Any] = {name: getattr(tier, name) for name in ("capacity", "max_entries", "max_object_size")}
    found: list[Problem] = []
    limits = check_limits(given["capacity"], given["max_entries"], tier.policy, given["max_object_size"], found)
    told = {problem.field for problem in found}
    # Whatever else is wrong: all problems at once.
    found += [
        Problem(field, given[field], TOO_LARGE)
        for field in ("capacity", "max_object_size")
        if field not in told and _is_too_large(given[field])
    ]
    problems += found
    if limits is None:
        return
    msgspec.structs.force_setattr(tier, "capacity", limits.capacity)
    if limits.explicit_max_object_size:
        msgspec.structs.force_setattr(tier, "max_object_size", limits.max_object_size)


def _is_too_large(size: Any) -> bool:
    try:
        return size is not None and parse_size(size) > LARGEST_NUMBER
    except ValueError:
        return False  # no size: that is told already
