"""The limits every tier takes, checked together: capacity, number of entries, policy, largest object.

Invariant: a `Limits` is consistent; whoever holds one need not check again.
Threads: any; pure.
Design: docs/design/stores.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.errors import ConfigError, Problem
from daramjwee.policies import POLICY_NAMES
from daramjwee.units import format_size, parse_size

if TYPE_CHECKING:
    from daramjwee.units import Size

# Without a stated `max_entries` the number of entries is bounded all the same, or entries without bytes (a
# remembered "not found") would pile up for ever: one per so many bytes of capacity, and never fewer than this.
BYTES_PER_IMPLIED_ENTRY = 256
LEAST_IMPLIED_ENTRIES = 1024


class Limits(NamedTuple):
    """Checked limits. `max_entries` is what was given, `entry_bound` what is kept to."""

    capacity: int
    max_entries: int | None
    entry_bound: int
    policy: str
    max_object_size: int
    explicit_max_object_size: bool

    def settings(self) -> dict[str, Any]:
        """The arguments of a store with these limits."""
        largest = self.max_object_size if self.explicit_max_object_size else None
        return {
            "capacity": self.capacity, "max_entries": self.max_entries, "policy": self.policy, "max_object_size": largest,
        }  # fmt: skip


def check_limits(
    capacity: Size, max_entries: int | None, policy: str, max_object_size: Size | None, problems: list[Problem]
) -> Limits | None:
    """The limits, or None after every fault found was appended to `problems`."""
    before = len(problems)
    room = check_size("capacity", capacity, problems)
    if room == 0:
        problems.append(Problem("capacity", capacity, "must be at least 1 byte; leave the tier out to go without"))
    counted = isinstance(max_entries, int) and not isinstance(max_entries, bool)
    if max_entries is not None and (not counted or max_entries < 1):
        problems.append(Problem("max_entries", max_entries, "must be an int of at least 1, or None for no limit"))
    if policy not in POLICY_NAMES:
        problems.append(Problem("policy", policy, f"must be one of {', '.join(POLICY_NAMES)}"))
    largest = room
    if max_object_size is not None:
        largest = check_size("max_object_size", max_object_size, problems)
        if largest == 0:
            problems.append(Problem("max_object_size", max_object_size, "must be at least 1 byte, or None"))
        if room and largest is not None and largest > room:
            mend = f"must not exceed capacity ({format_size(room)}); lower it or raise the other"
            problems.append(Problem("max_object_size", max_object_size, mend))
    if len(problems) > before or room is None or largest is None:
        return None
    bound = max_entries if max_entries is not None else max(LEAST_IMPLIED_ENTRIES, room // BYTES_PER_IMPLIED_ENTRY)
    return Limits(room, max_entries, bound, policy, largest, max_object_size is not None)


def limits_or_refuse(
    subject: str, capacity: Size, max_entries: int | None, policy: str, max_object_size: Size | None
) -> Limits:
    """The limits, or `ConfigError` about `subject` with every fault."""
    problems: list[Problem] = []
    limits = check_limits(capacity, max_entries, policy, max_object_size, problems)
    if limits is None:
        raise ConfigError(problems, subject=subject)
    return limits


def check_size(field: str, value: Size, problems: list[Problem]) -> int | None:
    """The bytes meant, or None after the fault was appended to `problems`."""
    try:
        return parse_size(value)
    except ValueError as error:
        problems.append(Problem(field, value, str(error)))
        return None
