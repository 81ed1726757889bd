"""How the demo looks: live on a terminal, a line for each step where nobody looks, and a table at the end.

Invariant: every figure on the screen is one of the report; this module only rounds.
Threads: the one that plays; the live bar is drawn by a thread of rich's.
Design: docs/cli.md
"""

from __future__ import annotations

from typing import Any, TextIO

from daramjwee.cli.demo.record import MEMORY_LIMIT_BYTES, MEMORY_TIER_BYTES, Report, Step, faults_of
from daramjwee.cli.demo.stage import Stage
from daramjwee.cli.render import format_rate, is_terminal, polled_progress, printable
from daramjwee.units import counted, format_duration, format_size

# They fit a screen of 80 columns. "fetches": by the origin's own count.
COLUMNS = ("step", "bytes", "fetches", "1st byte", "time", "rate", "ok")

# From here on there is room for more space between the columns.
WIDE = 94


class Silent:
    """Shows nothing."""

    def opened(self, stage: Stage) -> None:
        """Nothing."""

    def began(self, title: str, total: int | None) -> None:
        """Nothing."""

    def moved(self, done: int) -> None:
        """Nothing."""

    def ended(self, step: Step) -> None:
        """Nothing."""

    def close(self, report: Report | None) -> None:
        """Nothing."""


class Lines(Silent):
    """Plain lines: for a pipe, a log, a file."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def opened(self, stage: Stage) -> None:
        for name, text in facts_of(stage):
            self._say(f"{name:<8} {text}")
        self._say("")

    def ended(self, step: Step) -> None:
        self._say(f"{'ok' if step.ok else 'WRONG':<6} {step.title}: {step.seen}; {format_duration(step.seconds)}")

    def close(self, report: Report | None) -> None:
        if report is None:
            return
        rows = [COLUMNS, *(row_of(step) for step in report.steps)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
        self._say("")
        for row in rows:
            cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
            self._say("  ".join(cells).rstrip())
        self._say("")
        for line in closing_of(report):
            self._say(line)

    def _say(self, line: str) -> None:
        print(printable(line), file=self._out, flush=True)


class Live(Silent):
    """For a person at a terminal."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

        # Numbers keep the colour of the line: what stands out is what is wrong.
        self._console = Console(file=out, highlight=False)
        self._progress = polled_progress(
            self._poll, SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=30),
            DownloadColumn(binary_units=True), TimeElapsedColumn(), console=self._console,
        )  # fmt: skip
        self._done = 0

    def opened(self, stage: Stage) -> None:
        from rich.table import Table
        from rich.text import Text

        facts = Table.grid(padding=(0, 2, 0, 0))
        for name, text in facts_of(stage):
            facts.add_row(Text(f"  {name}", style="dim"), Text(printable(text)))
        self._console.print()
        self._console.print(facts)
        self._console.print()
        self._progress.start()

    def began(self, title: str, total: int | None) -> None:
        self._done = 0
        self._progress.add_task(title, total=total)

    def moved(self, done: int) -> None:
        self._done = done

    def _poll(self, progress: Any) -> None:
        for task in progress.task_ids:
            progress.update(task, completed=self._done)

    def ended(self, step: Step) -> None:
        from rich.text import Text

        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        mark = ("  ✓ ", "green") if step.ok else ("  ✗ ", "bold red")
        time = (f"  {format_duration(step.seconds)}", "dim")
        self._console.print(Text.assemble(mark, (step.title, "bold"), time))
        self._print_indented(step.seen, 4, "dim" if step.ok else "red")

    def _print_indented(self, text: str, indent: int, style: str) -> None:
        from rich.padding import Padding
        from rich.text import Text

        self._console.print(Padding(Text(printable(text), style=style), (0, 0, 0, indent)))

    def close(self, report: Report | None) -> None:
        self._progress.stop()
        if report is None:
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        room = 1 if self._console.width >= WIDE else 0
        table = Table(box=box.SIMPLE_HEAD, header_style="dim", padding=(0, room))
        for index, name in enumerate(COLUMNS):
            table.add_column(name, justify="right" if index else "left", no_wrap=True)
        for step in report.steps:
            *cells, right = row_of(step)
            table.add_row(*map(Text, cells), Text(right, style="green" if step.ok else "bold red"))
        self._console.print()
        self._console.print(table)
        for line in closing_of(report):
            self._print_indented(line, 2, "bold" if report.ok else "bold red")
        self._console.print()


def screen_for(out: TextIO | None) -> Silent:
    """What suits `out`, which may have been closed."""
    if out is None:
        return Silent()
    return Live(out) if is_terminal(out) else Lines(out)


def facts_of(stage: Stage) -> list[tuple[str, str]]:
    """What the run is made of, before it begins."""
    settings = stage.settings
    sizes = [file.size for file in stage.files] or [0]
    tiers = f"memory {format_size(MEMORY_TIER_BYTES)}, then files in {stage.folder}"
    source = (
        f"{stage.origin.url}, slow on purpose: {format_duration(settings.latency)} to the first byte, then "
        f"{format_rate(settings.bandwidth, 1)} for each response"
    )
    objects = (
        f"{counted(len(sizes), 'file')} of {stage.served} ({format_size(min(sizes))} to {format_size(max(sizes))}) "
        f"and a made-up one of {format_size(settings.big_bytes)}"
    )
    return [
        ("origin", source),
        ("objects", objects),
        ("cache", f"{tiers}; memory limit {format_size(MEMORY_LIMIT_BYTES)}"),
        ("checked", "files and single reads by SHA-256, many readers each by CRC-32C, the cached file by SHA-256"),
    ]


def row_of(step: Step) -> tuple[str, ...]:
    """A step as a row of the closing table."""
    if step.error is not None:
        return (step.title, "", "", "", format_duration(step.seconds), "", "NO")
    first = "" if step.first_byte_ms is None else format_duration(step.first_byte_ms / 1e3)
    return (
        step.title, format_size(step.bytes), str(step.origin_fetches), first, format_duration(step.seconds),
        format_rate(step.bytes, step.seconds) if step.bytes else "", "yes" if step.ok else "NO",
    )  # fmt: skip


def closing_of(report: Report) -> list[str]:
    """The last lines: the figures that matter, and everything that is wrong."""
    lines = []
    if report.wall_s is not None and report.single_reader_wall_s is not None:
        times = report.wall_s / report.single_reader_wall_s
        peak = format_size(report.peak_memory_bytes or 0)
        lines.append(
            f"{counted(report.readers or 0, 'reader')}, {counted(report.origin_fetches or 0, 'origin fetch', 'origin fetches')}, "
            f"{counted(report.digests_right or 0, 'digest')} right; first byte "
            f"for the slowest after {(report.first_byte_ms or 0):.1f} ms"
        )
        lines.append(
            f"{report.wall_s:.2f} s for all of them, {report.single_reader_wall_s:.2f} s for one alone ({times:.2f} x)"
        )
        lines.append(f"{peak} of memory: {report.peak_memory_means}")
    faults = faults_of(report.steps)
    lines += [f"WRONG: {fault}" for fault in faults]
    if not faults:
        lines.append(f"{counted(len(report.steps), 'step')} in {report.seconds:.1f} s, every figure as it has to be")
    return lines
