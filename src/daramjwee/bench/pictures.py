"""Speed against object size as a picture: an SVG for each pair of ends, a line for each way to copy. Drawn of a curve that is
measured for it, and of a report that has the scenario "matrix".

Invariant: the same figures give the same bytes. A picture carries no date and no name of a machine.
Threads: one. Needs the extra `bench` (matplotlib), imported when something is drawn.
Design: docs/design/bench.md
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from daramjwee.bench import curve
from daramjwee.bench.report import machine
from daramjwee.bench.scenarios import matrix
from daramjwee.errors import ConfigError, Problem
from daramjwee.units import KIB, MIB, format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from daramjwee.bench.curve import Measured
    from daramjwee.bench.report import Report

    # Of each way: object size and GB/s.
    Lines = dict[str, list[tuple[int, float]]]

PAIRS = (curve.FILE_TO_FILE, curve.PLAIN_TO_FILE, curve.FILE_TO_SOCKET)
WAYS = (curve.CHOSEN, curve.POOLED, *curve.CHUNKED, curve.DIRECT, curve.COPYFILEOBJ, curve.READ_WRITE)
SIZES = (64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB)
FIGURES_FILE = "curve.json"


# How wide the line of our own choice is; it lies above the others.
OURS = 2.6


class Style(NamedTuple):
    """How the line of a way looks, and what it is called."""

    label: str
    colour: str
    line: str = "-"
    width: float = 1.3
    mark: str = "o"


# Chunk sizes are one family: one hue, darker as they grow. What a user would write is grey.
STYLES = {
    curve.CHOSEN: Style("as the pool chooses", "#111111", width=OURS, mark="o"),
    curve.POOLED: Style("pooled: one buffer", "#d55e00", mark="s"),
    **{
        way: Style(way, colour, mark="^")
        for way, colour in zip(curve.CHUNKED, ("#9ecae1", "#6baed6", "#3182bd", "#08519c", "#08306b"), strict=True)
    },
    curve.DIRECT: Style("direct: the kernel", "#009e73", mark="D"),
    curve.COPYFILEOBJ: Style("shutil.copyfileobj", "#7f7f7f", line="--", mark="x"),
    curve.READ_WRITE: Style("write(read())", "#7f7f7f", line=":", mark="+"),
}
TITLES = {
    curve.FILE_TO_FILE: "A file to a new file",
    curve.PLAIN_TO_FILE: "An object with readinto only to a new file",
    curve.FILE_TO_SOCKET: "A file to a unix socket",
}
# The same for a report. What a user would write is grey there, too.
REPORT_STYLES = {
    "adaptive": STYLES[curve.CHOSEN]._replace(label="adaptive"),
    "pooled": STYLES[curve.POOLED]._replace(label="pooled"),
    "chunked": Style("chunked", "#3182bd", mark="^"),
    "direct": STYLES[curve.DIRECT]._replace(label="direct"),
    matrix.COPYFILEOBJ: STYLES[curve.COPYFILEOBJ],
    matrix.READ_WRITE: STYLES[curve.READ_WRITE],
    matrix.BYTEARRAY: Style("fresh bytearray", "#7f7f7f", line="-.", mark="d"),
}
REPORT_TITLES = {
    matrix.FILE_TO_FILE: "A file over another file",
    matrix.PLAIN_TO_FILE: "An object with readinto only over a file",
    matrix.FILE_TO_SOCKET: "A file to a unix socket",
    matrix.PLAIN_TO_SOCKET: "An object with readinto only to a unix socket",
}


def make(folder: str, *, quick: bool, tell: Callable[[str], None] = lambda _: None) -> list[str]:
    """Measure, and write the pictures and their figures into `folder`; the paths written."""
    return write(folder, _measured, rounds=5 if quick else 15, seconds=0.01 if quick else 0.03, tell=tell)


def write(
    folder: str, measured: Callable[..., Measured], *, rounds: int, seconds: float, tell: Callable[[str], None]
) -> list[str]:
    """The same for any source of figures: `measured(pair, rounds=, seconds=)`."""
    check(folder)
    os.makedirs(folder, exist_ok=True)
    paths = []
    plain: list[dict[str, object]] = []
    for pair in PAIRS:
        tell(f"measuring {pair} ...")
        figures = measured(pair, rounds=rounds, seconds=seconds)
        path = os.path.join(folder, f"{pair.replace(' ', '-')}.svg")
        with open(path, "wb") as file:
            file.write(draw(pair, figures))
        paths.append(path)
        for cell, each in figures.items():
            seen = curve.speed(cell.size, each)._asdict()
            plain.append({**cell._asdict(), **{name: round(value, 3) for name, value in seen.items()}})
    path = os.path.join(folder, FIGURES_FILE)
    with open(path, "wb") as file:
        document = {"machine": machine(), "unit": "GB/s", "figures": plain}
        file.write(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return [*paths, path]


def check(folder: str) -> None:
    """Refuse, before anything is measured, what could not be drawn or written."""
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        mend = 'drawing needs matplotlib, of the extra bench: pip install "daramjwee[bench]"'
        raise ConfigError([Problem("--pictures", folder, mend)], subject="bench")
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ConfigError([Problem("--pictures", folder, "is a file; name a folder")], subject="bench")


def _measured(pair: str, *, rounds: int, seconds: float) -> Measured:
    return curve.measure((pair,), ways_of(pair), SIZES, rounds=rounds, seconds=seconds)


def ways_of(pair: str) -> tuple[str, ...]:
    """The lines of a picture. Without a descriptor there is nothing the kernel could copy by itself."""
    return tuple(way for way in WAYS if not (way == curve.DIRECT and pair == curve.PLAIN_TO_FILE))


def of_report(folder: str, report: Report) -> list[str]:
    """The pictures of a report, into `folder`; the paths written. None, where it has no scenario "matrix"."""
    lines = lines_of(report)
    if not lines:
        return []
    check(folder)
    os.makedirs(folder, exist_ok=True)
    paths = []
    for pair, of_pair in lines.items():
        path = os.path.join(folder, file_of(pair))
        with open(path, "wb") as file:
            file.write(_drawn(REPORT_TITLES[pair], REPORT_STYLES, of_pair))
        paths.append(path)
    return paths


def file_of(pair: str) -> str:
    """What the picture of a pair of ends is called."""
    return f"{pair.replace(' ', '-')}.svg"


def lines_of(report: Report) -> dict[str, Lines]:
    """What is drawn of a report, by pair of ends. Pure."""
    found: dict[str, Lines] = {}
    for row in report.rows:
        if row.labels.get("pair") in REPORT_TITLES and "us" in row.beside:
            size = parse_size(row.labels["size"])
            lines = found.setdefault(row.labels["pair"], {})
            lines.setdefault(row.labels["way"], []).append((size, size / row.beside["us"] / 1e3))
    return found


def draw(pair: str, figures: Measured) -> bytes:
    """The picture of one pair of ends."""
    sizes = sorted({cell.size for cell in figures})
    lines: Lines = {}
    for way in (way for way in WAYS if any(cell.way == way for cell in figures)):
        lines[way] = [(size, curve.speed(size, figures[curve.Cell(pair, way, size)]).median) for size in sizes]
    return _drawn(TITLES[pair], STYLES, lines)


def _drawn(title: str, styles: dict[str, Style], lines: Lines) -> bytes:
    """Of each style the line that goes by its name, where there is one."""
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure

    fixed: Any = {
        "svg.fonttype": "none",  # letters stay letters: small, and readable by machines
        "svg.hashsalt": "daramjwee",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # measured by; drawn by what the viewer has
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "path.simplify": False,
    }
    with mpl.rc_context({**mpl.rcParamsDefault, **fixed}):
        figure = Figure(figsize=(8.2, 4.6), facecolor="white")
        axes = figure.add_axes((0.075, 0.125, 0.63, 0.785))
        for way in (way for way in styles if way in lines):
            _line(axes, styles[way], lines[way])
        _dress(axes, title, sorted({size for points in lines.values() for size, _ in points}))
        figure.legend(loc="center left", bbox_to_anchor=(0.715, 0.52), frameon=False, handlelength=2.6, fontsize=9)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    return out.getvalue()


def _line(axes: Any, style: Style, points: Sequence[tuple[int, float]]) -> None:
    axes.plot(
        [size for size, _ in points], [speed for _, speed in points], label=style.label, color=style.colour,
        linestyle=style.line, linewidth=style.width, marker=style.mark, markersize=4.5,
        zorder=3 if style.width >= OURS else 2,
    )  # fmt: skip


def _dress(axes: Any, title: str, sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [format_size(size) for size in sizes])
    axes.minorticks_off()
    axes.tick_params(axis="x", labelsize=8)  # neighbours an octave apart would touch
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(f"{title}: speed by object size", loc="left", fontsize=11)
    axes.set_xlabel("object size")
    axes.set_ylabel("GB/s, median")
