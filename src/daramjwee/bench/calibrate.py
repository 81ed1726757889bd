"""Calibration: measure this machine, choose its thresholds, and say so as a table and as TOML.

Invariant: what is chosen is decided by `thresholds.decide`, from the figures that the table shows.
Threads: one.
Design: docs/design/bench.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from daramjwee.bench import curve
from daramjwee.bench.report import figure, machine
from daramjwee.bench.thresholds import Choice, decide, settings
from daramjwee.units import KIB, MIB, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daramjwee.bench.curve import Measured

PAIRS = (curve.FILE_TO_FILE, curve.PLAIN_TO_FILE, curve.FILE_TO_SOCKET, curve.PLAIN_TO_SOCKET)
WAYS = (curve.CHOSEN, *curve.CHUNKED, curve.POOLED, curve.DIRECT)
SIZES = (64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB)
QUICK_SIZES = (256 * KIB, MIB, 4 * MIB)


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured (GB/s, a row for each pair of ends, way and size), and what follows from it."""

    version: str
    quick: bool
    machine: dict[str, str]
    choices: tuple[Choice, ...]
    figures: tuple[dict[str, Any], ...]

    @property
    def settings(self) -> dict[str, str]:
        """The arguments of a `BufferPoolConfig`."""
        return settings(self.choices)


def calibrate(*, quick: bool, tell: Callable[[str], None] = lambda _: None) -> Calibration:
    """Measure this machine: about a minute, `quick` some seconds."""
    if quick:
        return calibration(_measured(QUICK_SIZES, 7, 0.006, tell), quick=True)
    return calibration(_measured(SIZES, 15, 0.02, tell), quick=False)


def calibration(measured: Measured, *, quick: bool) -> Calibration:
    """The same for figures that are there already."""
    import daramjwee
    from daramjwee.buffers import BufferPoolConfig

    return Calibration(
        version=daramjwee.__version__,
        quick=quick,
        machine=machine(),
        choices=decide(measured, BufferPoolConfig()),
        figures=tuple(
            {**cell._asdict(), **curve.speed(cell.size, seconds)._asdict()} for cell, seconds in measured.items()
        ),
    )


def _measured(sizes: Sequence[int], rounds: int, seconds: float, tell: Callable[[str], None]) -> Measured:
    measured: dict[curve.Cell, list[float]] = {}
    for pair in PAIRS:
        tell(f"measuring {pair} ...")
        measured |= curve.measure((pair,), WAYS, sizes, rounds=rounds, seconds=seconds)
    return measured


def to_text(found: Calibration) -> str:
    """The table of each pair of ends, and the choices with their reasons."""
    lines = [f"daramjwee {found.version}, calibration{', quick' if found.quick else ''}"]
    lines += [f"{name}: {value}" for name, value in found.machine.items()]
    for pair in dict.fromkeys(row["pair"] for row in found.figures):
        lines += ["", *_table(pair, [row for row in found.figures if row["pair"] == pair])]
    lines += [
        "",
        *_columns([("setting", "value", "default", "gain", "why"), *map(_choice_cells, found.choices)], left=1),
    ]
    return "\n".join(lines) + "\n"


def _table(pair: str, rows: list[dict[str, Any]]) -> list[str]:
    sizes = sorted({row["size"] for row in rows})
    cells = [(f"{pair}, GB/s", *(format_size(size) for size in sizes))]
    for way in dict.fromkeys(row["way"] for row in rows):
        by_size = {row["size"]: row for row in rows if row["way"] == way}
        cells.append((way, *(_spread(by_size[size]) for size in sizes)))
    return _columns(cells, left=1)


def _spread(row: dict[str, Any]) -> str:
    return f"{figure(row['median'])} ({figure(row['low'])}..{figure(row['high'])})"


def _choice_cells(choice: Choice) -> tuple[str, ...]:
    gain = f"{choice.gain:.2f} x" if choice.changed else ""
    return (choice.field, _shown(choice.value), _shown(choice.default), gain, choice.reason)


def _shown(value: int | str | None) -> str:
    return "chosen" if value is None else value if isinstance(value, str) else format_size(value)


def _columns(cells: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Lines of a table, a rule below its heading: the first `left` columns and a last one of words to the left."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    words = cells[0][-1] == "why"
    lines = []
    for row in cells:
        parts = [
            cell.ljust(width) if at < left or (words and at == len(row) - 1) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return lines


def to_toml(found: Calibration) -> str:
    """The settings as a TOML table `[buffers]`, whose keys are the fields of `BufferPoolConfig`."""
    how = "daramjwee bench --calibrate" + (" --quick" if found.quick else "")
    changed = [choice for choice in found.choices if choice.changed]
    gains = ", ".join(f"{choice.field} {choice.gain:.2f} x" for choice in changed if choice.gain > 1)
    lines = [
        f"# Measured by {how}, daramjwee {found.version}",
        f"# on {'; '.join(found.machine.values())}.",
        f"# Gain: {gains or 'none beyond the noise, these are the defaults'}.",
        "[buffers]",
    ]
    kept = found.settings
    for choice in found.choices:
        comment = f"{choice.gain:.2f} x: {choice.reason}" if choice.changed else f"the default: {choice.reason}"
        setting = (
            f'{choice.field} = "{kept[choice.field]}"' if choice.field in kept else f"# {choice.field} is left out"
        )
        lines.append(f"{setting}  # {comment}")
    return "\n".join(lines) + "\n"


def to_json(found: Calibration) -> bytes:
    """The calibration as one JSON document."""
    plain = {**msgspec.to_builtins(found), "settings": found.settings}
    return msgspec.json.format(msgspec.json.encode(plain), indent=2) + b"\n"
