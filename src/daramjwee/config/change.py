"""What becomes of one field when a configuration of an earlier schema is read: a value, and the same in plain words.

Invariant: sizes and durations are spelled so that reading them gives the very same number.
Threads: any; nothing here changes.
Design: docs/migration.md
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from daramjwee.units import format_size, parse_size

NOT_GIVEN = msgspec.UNSET
# Beyond it no unit helps, and floats are not exact.
LARGEST_SPELLED = 1 << 50
_DURATION_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


# Fields of `BufferPoolConfig` that are bytes.
SIZE_FIELDS = frozenset(
    (
        "default_buffer_size", "min_buffer_size", "max_buffer_size", "large_object_threshold",
        "very_large_object_threshold", "chunk_size", "max_pool_bytes",
    )
)  # fmt: skip


class Kind(enum.StrEnum):
    """KEPT: same name, same value. RENAMED: the same under another name. DEFAULT: left out, or given in a way that stood
    for the default; the old schema's own default is written out. CHANGED: another value, `reason` says why.
    DROPPED: nothing of today does the same, `reason` says what to use."""

    KEPT = "kept"
    RENAMED = "renamed"
    DEFAULT = "default"
    CHANGED = "changed"
    DROPPED = "dropped"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One field. `old`, `given`: its name and value in the old file (`NOT_GIVEN`: left out, or made from nothing).
    `new`, `value`: the same in schema 3 (`NOT_GIVEN`: dropped)."""

    kind: Kind
    old: str
    given: Any = NOT_GIVEN
    new: str | None = None
    value: Any = NOT_GIVEN
    reason: str = ""

    def __str__(self) -> str:
        before = f"{self.old} left out" if self.given is NOT_GIVEN else f"{self.old} = {spelled(self.given)}"
        after = "dropped" if self.new is None else f"{self.new} = {spelled(self.value)}"
        if self.kind is Kind.KEPT:
            return f"{before}: kept"
        return f"{before} -> {after}{f': {self.reason}' if self.reason else ''}"


def spelled(value: object) -> str:
    """`value` on one line, as JSON writes it (and mostly TOML, too)."""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError):  # a date of TOML in the wrong place, a lone surrogate
        return repr(value)


def size_text(count: int) -> int | str:
    """`count` bytes for people where that is exact ("64KiB"), else the number."""
    if not 1024 <= count <= LARGEST_SPELLED:
        return count
    text = format_size(count)
    return text if parse_size(text) == count else count


def written(field: str, value: Any) -> Any:
    """`value` of a field of `BufferPoolConfig` as a file shows it: sizes in the unit people read."""
    return size_text(value) if field in SIZE_FIELDS and type(value) is int else value


def duration_text(seconds: float) -> float | str:
    """`seconds` for people where that is exact ("5m", "1h"), else the number."""
    for unit, length in _DURATION_UNITS:
        if seconds >= length and seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    return "0s" if seconds == 0 else seconds
