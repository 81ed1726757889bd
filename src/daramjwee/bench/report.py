"""A finished report: rows and the machine they were measured on, as a plain table and as JSON. Pure but for `machine`.

Invariant: what the table says and what the JSON says are the same figures; the table only rounds.
Threads: any.
Design: docs/design/bench.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from daramjwee.bench.samples import Row
from daramjwee.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one run of the benchmarks found. `failures`: scenarios that ended with an error, and its text. `took`:
    seconds of each scenario. `load`: processes that wanted to run, in the minute before the run began; None: the system
    does not tell."""

    version: str
    quick: bool
    machine: dict[str, str]
    seconds: float
    rows: tuple[Row, ...]
    failures: dict[str, str] = {}
    took: dict[str, float] = {}
    load: float | None = None

    @property
    def missed(self) -> tuple[Row, ...]:
        """The rows whose target is not met."""
        return tuple(row for row in self.rows if row.met is False)


def to_json(report: Report) -> bytes:
    """The report as one JSON document; each row carries `met` beside its figures."""
    plain = msgspec.to_builtins(report)
    for row, shown in zip(report.rows, plain["rows"], strict=True):
        shown["met"] = row.met
    parts = [_line(name, value) for name, value in plain.items() if name != "rows"]
    # A row a line: two reports can be compared line by line.
    parts.append(b'"rows": [\n%s\n]' % b",\n".join(b"  " + msgspec.json.encode(row) for row in plain["rows"]))
    return b"{\n%s\n}\n" % b",\n".join(parts)


def _line(name: str, value: object) -> bytes:
    return msgspec.json.encode(name) + b": " + msgspec.json.encode(value)


def from_json(text: bytes) -> Report:
    """The report of which `to_json` made that document."""
    return msgspec.json.decode(text, type=Report)


def read(path: str) -> Report:
    """The report that is kept there; `ConfigError` says why there is none."""
    try:
        with open(path, "rb") as file:
            return from_json(file.read())
    except (OSError, msgspec.DecodeError) as error:
        mend = f"is no report of the bench ({error}); make one with --json FILE"
        raise ConfigError([Problem("--from", path, mend)], subject="bench") from error


def to_text(report: Report) -> str:
    """The report as a table in plain text, a block for each scenario; rows of detail are counted only."""
    lines = [f"daramjwee {report.version}{', quick' if report.quick else ''}"]
    lines += [f"{name}: {value}" for name, value in report.machine.items()]
    lines += [] if report.load is None else [f"load: {figure(report.load)} when it began"]
    for scenario in dict.fromkeys(row.scenario for row in report.rows):
        lines += ["", *_table(scenario, [row for row in report.rows if row.scenario == scenario])]
    for scenario, reason in report.failures.items():
        lines += ["", f"{scenario} FAILED: {reason}"]
    stated = [row for row in report.rows if row.target is not None]
    met = sum(row.met is True for row in stated)
    lines += ["", f"{met} of {len(stated)} targets met, in {report.seconds:.0f} s"]
    lines += [f"missed: {row.scenario}: {row.name}" for row in report.missed]
    return "\n".join(lines) + "\n"


def _table(scenario: str, rows: Sequence[Row]) -> list[str]:
    cells = [(scenario, "seen", "spread", "wanted", "met", "runs", "")]
    cells += [_cells(row) for row in rows if not row.detail]
    widths = [max(len(line[column]) for line in cells) for column in range(6)]
    out = []
    for line in cells:
        left = line[0].ljust(widths[0])
        middle = "  ".join(cell.rjust(width) for cell, width in zip(line[1:6], widths[1:], strict=True))
        out.append(f"{left}  {middle}  {line[6]}".rstrip())
    out.insert(1, "-" * (sum(widths) + 10))
    details = sum(row.detail for row in rows)
    if details:
        out.append(f"and {details} more in the JSON report")
    return out


def _cells(row: Row) -> tuple[str, str, str, str, str, str, str]:
    spread = "" if row.low is None or row.high is None else f"{figure(row.low)}..{figure(row.high)}"
    wanted = "" if row.target is None else f"{row.target.relation} {quantity(row.target.wanted, row.unit)}"
    met = {True: "yes", False: "NO", None: ""}[row.met]
    seen = "-" if row.seen is None else quantity(row.seen, row.unit)
    beside = ", ".join(f"{name} {figure(value)}" for name, value in row.beside.items())
    note = "; ".join(part for part in (row.note, beside) if part)
    return (row.name, seen, spread, wanted, met, str(row.runs or ""), note)


def quantity(value: float, unit: str) -> str:
    """A figure with its unit."""
    return f"{figure(value)} {unit}".rstrip()


def figure(value: float) -> str:
    """A figure with three significant digits, whole numbers as they are."""
    if value == int(value) and abs(value) < 1e15:
        return f"{value:.0f}"
    size = abs(value)
    return (
        f"{value:.0f}"
        if size >= 100
        else f"{value:.1f}"
        if size >= 10
        else f"{value:.2f}"
        if size >= 0.1
        else f"{value:.2g}"
    )


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    import os
    import platform

    from daramjwee.units import format_size

    processor = platform.processor() or platform.machine()
    total = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        processor = names[0] if names else processor
        total = format_size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (OSError, ValueError):
        pass  # the system has no such file or figure; the processor's family is said above
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    libc = " ".join(platform.libc_ver()).strip()
    return {
        "processor": f"{processor}, {usable} usable",
        "memory": total or "unknown",
        "system": f"{platform.system()} {platform.release()}" + (f", {libc}" if libc else ""),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def load() -> float | None:
    """How many processes wanted to run in the last minute."""
    import os

    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None  # the system does not tell
