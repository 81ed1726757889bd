"""The page of a report: what was measured and what to expect of it, in Markdown.

Invariant: every figure on the page is in the report, and the same report gives the same text: no date, no name of a machine.
What was missed is said first.
Threads: one.
Design: docs/design/bench.md
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daramjwee.bench import pictures
from daramjwee.bench.expectations import EXPECT, EXPECT_NOT
from daramjwee.bench.report import figure, quantity, read, to_json
from daramjwee.bench.scenarios import matrix
from daramjwee.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daramjwee.bench.expectations import Saying
    from daramjwee.bench.report import Report
    from daramjwee.bench.samples import Row

PICTURES = "pictures"
COMMAND = 'make bench ARGS="--only {}"'
HEADING = """\
# Performance

What daramjwee promises about speed and memory, as measured: every figure with its spread (the middle half of its runs), the
number of runs, what was wanted, and the command that shows it. Nobody writes on this page: it is made of
[{json}]({json}), the report that `make bench` wrote, by

    python -m daramjwee.bench --page docs/{page} --from docs/{json}

and a test holds it to that file. [How figures are made](design/bench.md) says what is behind each."""
QUICK = """\
**The report is of a quick run** (`make bench ARGS="--quick"`): few and short rounds, so take its spreads seriously."""
BUSY = """\
**The machine was not quiet**: on average {load} processes wanted to run in the minute before. Whatever is a time may be off,
counts are not."""
# A quiet machine has a little going on.
BUSY_FROM = 0.5
RATIOS = """\
Compare ratios, not seconds: absolute figures move by a factor of two with the machine and with its neighbours. A ratio is
taken between two figures of one round, and `x` means "times"."""
STRATEGIES = """\
Each cell: how many times as quick as the best of what a user would write, which the last column names with its time. The
pool's own choice is the column "adaptive"; the others are for the curious, and for those who set `large_object_strategy`.
A dash: that way cannot serve there, and falls back."""
BY_SIZE = """\
Each size by itself, with the spread and the number of runs in brackets{wanted}. What misses that is in bold. What
was measured beside it is in the report."""
IN_DETAIL = "The same in detail:"
HEADS = ("what", "seen", "spread", "runs", "wanted", "met", "")
COUNTS = """\
Exact counts of one copy, the same for every run: page faults, then calls that read and calls that write as the kernel counts
them (what a socket sends is none, a `sendfile` one of each)."""


def make(path: str, source: str) -> list[str]:
    """Write the page of the report `source` to `path`, the report itself beside it, and its pictures; the paths written."""
    report = read(source)
    kept = f"{os.path.splitext(path)[0]}.json"
    drawn = pictures.of_report(os.path.join(os.path.dirname(path), PICTURES), report)
    _write(kept, to_json(report))
    _write(path, page_of(report, os.path.basename(path)).encode())
    return [path, kept, *drawn]


def page_of(report: Report, name: str) -> str:
    """The page, as it is kept under `name` beside its report."""
    kept = f"{os.path.splitext(name)[0]}.json"
    parts = [
        HEADING.format(json=kept, page=name),
        *([QUICK] if report.quick else []),
        *([BUSY.format(load=figure(report.load))] if report.load is not None and report.load >= BUSY_FROM else []),
        *_missed(report),
        "## What to expect",
        *_sayings(report, EXPECT),
        "## What not to expect",
        *_sayings(report, EXPECT_NOT),
        *_machine(report),
        "## Every figure",
        RATIOS,
    ]
    for only in dict.fromkeys(row.only for row in report.rows):
        parts += _scenario(report, only)
    return "\n\n".join(part for part in parts if part) + "\n"


# -- parts ----------------------------------------------------------------------------------------------------------


def _missed(report: Report) -> list[str]:
    """Everything that is not as it should be."""
    stated = [row for row in report.rows if row.target is not None]
    unknown = [row for row in stated if row.met is None]
    parts = ["## What was missed"]
    met = sum(row.met is True for row in stated)
    count = f"{met} of {counted(len(stated), 'target')} {'is' if met == 1 else 'are'} met."
    if report.missed:
        heads = ("what", "seen", "spread", "runs", "wanted", "command")
        cells = [(f"{row.scenario}: {row.name}", *_figures(row), _command(row.only)) for row in report.missed]
        parts += [f"{count} {'This is' if len(report.missed) == 1 else 'These are'} not:", _table(heads, cells)]
    else:
        parts.append(f"{count} None is missed.")
    parts += [f"{row.scenario}: {row.name}: has a target and no figure ({row.note})." for row in unknown]
    parts += [f"**{_command(only)} failed**: {_cell(reason)}" for only, reason in report.failures.items()]
    rivals = sorted({f"{row.scenario}: {row.name}: {row.note}" for row in report.rows if _failed(row)})
    return parts + ([f"Without a figure: {'; '.join(rivals)}."] if rivals else [])


def _failed(row: Row) -> bool:
    """Whether a rival should have a figure, and has none."""
    return row.seen is None and row.note.startswith(("failed", "not installed"))


def _sayings(report: Report, sayings: Iterable[Saying]) -> list[str]:
    rows = {(row.only, row.name): row for row in report.rows}
    lines = []
    for saying in sayings:
        found = [rows.get(place) for place in saying.figures]
        if any(row is not None for row in found):
            lines.append("- " + saying.text.format(*map(_said, found)))
    return ["\n".join(lines) or "This report has none of the figures for it."]


def _said(row: Row | None) -> str:
    if row is None or row.seen is None:
        return "(no figure)"
    return f"**{quantity(row.seen, row.unit)}**"


def _machine(report: Report) -> list[str]:
    cells = [*report.machine.items(), ("daramjwee", report.version)]
    took = ", ".join(f"{only} {seconds:.0f}" for only, seconds in report.took.items())
    whole = (
        f"`make bench` took {report.seconds:.0f} s: {took}." if took else f"`make bench` took {report.seconds:.0f} s."
    )
    return ["## The machine", _table(("", ""), cells), whole]


def _scenario(report: Report, only: str) -> list[str]:
    rows = [row for row in report.rows if row.only == only]
    head = f"### {rows[0].scenario.capitalize()}\n\n{_command(only)}"
    table = _table(HEADS, [_line(row) for row in rows if not row.detail])
    return [head, table, *(_strategies(rows) if only == "matrix" else _details(rows))]


def _line(row: Row) -> tuple[str, ...]:
    beside = ", ".join(f"{name} {figure(value)}" for name, value in row.beside.items())
    note = "; ".join(part for part in (row.note, beside) if part)
    return (row.name, *_figures(row), {True: "yes", False: "**no**", None: ""}[row.met], note)


def _figures(row: Row) -> tuple[str, str, str, str]:
    """Seen, spread, runs, wanted."""
    spread = "" if row.low is None or row.high is None else f"{figure(row.low)} to {figure(row.high)}"
    wanted = "" if row.target is None else f"{row.target.relation} {quantity(row.target.wanted, row.unit)}"
    return ("-" if row.seen is None else quantity(row.seen, row.unit), spread, str(row.runs or ""), wanted)


def _details(rows: list[Row]) -> list[str]:
    """Rows of which there are many: by path, threads and size as one table, all others as they are."""
    details = [row for row in rows if row.detail]
    cells = {(row.labels["path"], row.labels["threads"], row.labels["size"]): row for row in details if _in_grid(row)}
    parts = []
    if cells:
        sizes = list(dict.fromkeys(size for _, _, size in cells))
        lines = [
            (path, threads, *(_cell_of_grid(cells.get((path, threads, size))) for size in sizes))
            for path, threads in dict.fromkeys((path, threads) for path, threads, _ in cells)
        ]
        wanted = sorted({f"{row.target.relation} {figure(row.target.wanted)}" for row in cells.values() if row.target})
        said = BY_SIZE.format(wanted=f"; wanted is {' or '.join(wanted)}" if wanted else "")
        parts += [said, _table(("what", "threads", *sizes), lines)]
    others = [_line(row) for row in details if not _in_grid(row)]
    return [*parts, *([IN_DETAIL, _table(HEADS, others)] if others else [])]


def _in_grid(row: Row) -> bool:
    return {"path", "threads", "size"} <= row.labels.keys()


def _cell_of_grid(row: Row | None) -> str:
    if row is None or row.seen is None:
        return "-"
    _, spread, runs, _ = _figures(row)
    seen = f"**{figure(row.seen)}**" if row.met is False else figure(row.seen)
    return f"{seen} ({spread}, {runs})"


# -- strategies -----------------------------------------------------------------------------------------------------


def _strategies(rows: list[Row]) -> list[str]:
    """The cells as tables: a row for each size, a column for each way."""
    cells = {(row.labels["pair"], row.labels["size"], row.labels["way"]): row for row in rows if row.labels}
    parts = [STRATEGIES]
    for pair in dict.fromkeys(pair for pair, _, _ in cells):
        sizes = dict.fromkeys(size for each, size, _ in cells if each == pair)
        of_pair = {(size, way): row for (each, size, way), row in cells.items() if each == pair}
        parts.append(f"**{pair[0].upper()}{pair[1:]}**")
        if pair in pictures.REPORT_TITLES:
            parts.append(
                f"![{pictures.REPORT_TITLES[pair]}: speed by object size]({PICTURES}/{pictures.file_of(pair)})"
            )
        parts.append(_table(("size", *matrix.STRATEGIES, "best of a user's"), [_speeds(s, of_pair) for s in sizes]))
    parts.append(COUNTS)
    ways = (*matrix.STRATEGIES, *matrix.USERS)
    counts = [
        (pair, size, *(_counts(cells.get((pair, size, way))) for way in ways))
        for pair, size in dict.fromkeys((pair, size) for pair, size, _ in cells)
    ]
    return [*parts, _table(("ends", "size", *ways), counts)]


def _speeds(size: str, cells: dict[tuple[str, str], Row]) -> tuple[str, ...]:
    shown = [_judged(cells.get((size, way))) for way in matrix.STRATEGIES]
    adaptive = cells.get((size, matrix.ADAPTIVE))
    user = "" if adaptive is None else adaptive.note.rpartition("best: ")[2]
    theirs = cells.get((size, user))
    time = "" if theirs is None or "us" not in theirs.beside else f", {figure(theirs.beside['us'])} us"
    of_class = "" if adaptive is None else f" ({adaptive.labels['class'].replace('_', ' ')})"
    return (f"{size}{of_class}", *shown, f"`{user}`{time}" if user else "")


def _judged(row: Row | None) -> str:
    """The figure, and what was wanted where that is missed."""
    if row is None or row.seen is None:
        return "-"
    missed = row.target is not None and row.met is False
    return figure(row.seen) + (f" (wanted {figure(row.target.wanted)})" if missed and row.target is not None else "")


def _counts(row: Row | None) -> str:
    if row is None or row.seen is None:
        return "-"
    faults, reads, writes = (row.beside.get(name) for name in ("faults", "reads", "writes"))
    calls = "?" if reads is None or writes is None else f"{figure(reads)} + {figure(writes)}"
    return f"{'?' if faults is None else figure(faults)}; {calls}"


# -- Markdown -------------------------------------------------------------------------------------------------------


def _command(only: str) -> str:
    return f"`{COMMAND.format(only)}`"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Text that does not end its cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _write(path: str, text: bytes) -> None:
    with open(path, "wb") as file:
        file.write(text)
