"""Findings: something a person should know or change, with the figures that show it.

Pure: values.
Design: docs/monitoring.md
"""

from __future__ import annotations

import enum

import msgspec


class Severity(enum.StrEnum):
    """How much a finding or an alert matters. INFO: worth knowing; WARNING: costs time or memory; CRITICAL: work fails."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


def were(count: int) -> str:
    """The verb of so many."""
    return "was" if count == 1 else "were"


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was seen, and what to do about it.

    `code`: its name, stable; `severity`: how urgent it is; `seen`: what was seen, with its figures; `remedy`: what to do, in words. Advice also names
    the `field` of the configuration, its `current` value and the `proposed` one, and what that should `gain`; `figures`:
    what `seen` says, for programs.
    """

    code: str
    severity: Severity
    seen: str
    remedy: str
    field: str | None = None
    current: object = None
    proposed: object = None
    gain: str = ""
    figures: dict[str, float] = {}

    @property
    def direction(self) -> str | None:
        """What to do with the field: "raise" or "lower" a number, "set" what is none; None without a field."""
        if self.field is None:
            return None
        now, then = self.current, self.proposed
        if isinstance(now, (int, float)) and isinstance(then, (int, float)) and not isinstance(now, bool):
            return "raise" if then > now else "lower"
        return "set"

    def __str__(self) -> str:
        return f"{self.severity.value}: {self.seen}; {self.remedy}"
