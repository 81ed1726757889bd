"""Sizes and durations: "64MiB" and "2h" parsed to numbers, and numbers printed for people.

Sizes are bytes (int); KiB, MiB, GiB, TiB are powers of 1024, KB, MB, GB, TB powers of 1000. Durations are
seconds (float).
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TypeAlias

# What a caller may give for a size or a duration.
Size: TypeAlias = int | str
Duration: TypeAlias = float | str | timedelta

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_SIZE_UNITS = {
    "": 1, "b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "tib": 1024 * GIB,
    "k": KIB, "m": MIB, "g": GIB, "t": 1024 * GIB,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
_DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
# Nothing in it can be read in two ways: it stays linear, whatever the text is.
_NUMBER_AND_UNIT = re.compile(r"([0-9]+)(\.[0-9]+)?\s*([A-Za-z]*)")
# Below this many digits an int says exactly what was written; from there on a float says "too large" as well.
_EXACT_DIGITS = 30

SIZE_MEND = 'give bytes as an int, or text such as "64KiB", "256MiB", "20GiB"'
DURATION_MEND = 'give seconds, a timedelta, or text such as "30s", "5m", "1h", "7d"'


def parse_size(value: Size) -> int:
    """Bytes meant by `value` (an int, or text with a unit). `ValueError` says what was expected."""
    if isinstance(value, bool):
        raise ValueError(SIZE_MEND)
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"must not be negative; {SIZE_MEND}")
        return value
    number, unit = _split(value, _SIZE_UNITS, SIZE_MEND)
    if isinstance(number, int):
        return number * _SIZE_UNITS[unit]
    if not math.isfinite(number * _SIZE_UNITS[unit]):
        raise ValueError(f"is more than a number can say; mind the unit, and {SIZE_MEND}")
    if unit in ("", "b") and number % 1:  # half a byte is a slip: a share was meant, or a unit is missing
        raise ValueError(f"is no whole number of bytes; {SIZE_MEND}")
    return int(number * _SIZE_UNITS[unit])


def parse_duration(value: Duration) -> float:
    """Seconds meant by `value` (a number, a timedelta, or text with a unit). `ValueError` as `parse_size`."""
    if isinstance(value, bool):
        raise ValueError(DURATION_MEND)
    seconds: object = value
    if isinstance(value, str):
        number, unit = _split(value, _DURATION_UNITS, DURATION_MEND)
        seconds = number * _DURATION_UNITS[unit]
    elif hasattr(value, "total_seconds"):
        seconds = value.total_seconds()
    try:
        if not isinstance(seconds, int | float) or not math.isfinite(seconds):
            raise ValueError(DURATION_MEND)
    except OverflowError:  # an int that no float holds
        raise ValueError(f"is more than a number can say; mind the unit, and {DURATION_MEND}") from None
    if seconds < 0:
        raise ValueError(f"must not be negative; {DURATION_MEND}")
    return float(seconds) + 0.0  # no negative zero


def counted(count: int, one: str, many: str = "") -> str:
    """So many of something, for people: "1 tier", "2,000 tiers". `many`: where `one` with an s is not it."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def format_size(count: float) -> str:
    """`count` bytes for people: "0B", "1.5MiB", exact where the unit divides it."""
    for unit, size in (("TiB", 1024 * GIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if abs(count) >= size:
            scaled = count / size
            return f"{scaled:.0f}{unit}" if scaled == int(scaled) else f"{scaled:.1f}{unit}"
    return f"{count:.0f}B"


def format_duration(seconds: float) -> str:
    """`seconds` for people: "850us", "12.0ms", "1.50s", "2.0m", "3.0h"."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f}us"
    if seconds < 1:
        return f"{seconds * 1e3:.1f}ms"
    if seconds < 120:
        return f"{seconds:.2f}s"
    return f"{seconds / 60:.1f}m" if seconds < 7200 else f"{seconds / 3600:.1f}h"


def _split(value: object, units: dict[str, int] | dict[str, float], mend: str) -> tuple[int | float, str]:
    match = _NUMBER_AND_UNIT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[3].lower() not in units:
        raise ValueError(mend)
    whole, fraction, unit = match.groups()
    exact = fraction is None and len(whole) < _EXACT_DIGITS
    return int(whole) if exact else float(whole + (fraction or "")), unit.lower()
