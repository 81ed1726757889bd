"""How a configuration looks: its fields one by one, their values as people write them.

Invariant: a value that is shown, typed in again, gives the same; secrets are shown as their references.
Threads: values only.
Design: docs/cli.md
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.cli.render import printable
from daramjwee.config.settings import SETTINGS, Kind
from daramjwee.units import GIB, KIB, MIB

if TYPE_CHECKING:
    from daramjwee.config.model import CacheConfig

# A name has one kind, wherever it stands.
SIZES = frozenset(setting.path.rpartition(".")[2] for setting in SETTINGS if setting.kind is Kind.SIZE)
DURATIONS = frozenset(setting.path.rpartition(".")[2] for setting in SETTINGS if setting.kind is Kind.DURATION)
_SIZE_UNITS = (("TiB", 1024 * GIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB))
_DURATION_UNITS = (("d", 86400), ("h", 3600), ("m", 60))
DEFAULT = "default"
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}")
_WORDS = {"true": True, "false": False, "none": None, "null": None}


class Field(NamedTuple):
    """One setting: its dotted name, its value as plain data, the value in words, and where it came from."""

    field: str
    value: Any
    text: str
    source: str


def fields_of(config: CacheConfig, sources: Mapping[str, str]) -> list[Field]:
    """Every field of `config` in its order."""
    mapping = config.to_mapping()
    mapping.pop("schema", None)
    return [Field(name, value, text_of(name, value), source_of(name, sources)) for name, value in _leaves("", mapping)]


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value and not _is_reference(value):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, inner in enumerate(value):
            yield from _leaves(f"{name}[{index}]", inner)
    else:
        yield name, value


def _is_reference(value: Mapping[str, Any]) -> bool:
    """Whether it says where a secret is."""
    return {name for name, place in value.items() if place is not None} in ({"env"}, {"file"})


def source_of(name: str, sources: Mapping[str, str]) -> str:
    """Where a field came from: what is said of it, else of what it is a part of."""
    while name not in sources and name:
        name = name[: max(name.rfind("."), name.rfind("["), 0)]
    return sources.get(name, DEFAULT)


def text_of(name: str, value: Any) -> str:
    """A value as people write it."""
    last = name.rpartition(".")[2]
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {place}" for key, place in value.items() if place is not None) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if type(value) is int and last in SIZES:
        return size_text(value)
    if isinstance(value, int | float) and last in DURATIONS:
        return duration_text(value)
    return str(value)


def size_text(count: int) -> str:
    """Bytes in the largest unit that leaves nothing over, and as a number where there is none."""
    return next((f"{count // size}{unit}" for unit, size in _SIZE_UNITS if count and count % size == 0), str(count))


def duration_text(seconds: float) -> str:
    """Seconds in the largest unit that leaves nothing over."""
    whole = next(
        (f"{seconds / size:.0f}{unit}" for unit, size in _DURATION_UNITS if seconds and seconds % size == 0), ""
    )
    # Of a very small or a very large one Python shows an exponent, which nobody could type in again.
    return whole or f"{Decimal(repr(seconds)):f}".removesuffix(".0") + "s"


def value_of(text: str) -> Any:
    """What was typed for a value: true, false, none, a number, a table or list as TOML has it, else the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if text.startswith(("{", "[", '"')):
        from daramjwee.config.parse import Unread, parsed_toml

        try:
            return parsed_toml(f"value = {text}")["value"]
        except Unread:
            return text
    # "1_000" is a number to Python, and so are digits of any script: not here, as in a variable.
    return int(text) if _NUMBER.fullmatch(text) else text


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Lines of aligned text; the last column goes as far as it likes."""
    lines = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def toml_value(name: str, value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return text_of(name, value)
    if isinstance(value, int | float) and name.rpartition(".")[2] not in SIZES | DURATIONS:
        return str(value)
    return f'"{text_of(name, value)}"'
