"""Runs scenarios, each in a process of its own, and gathers their rows into one report.

Invariant: one scenario's memory, caches and failures do not reach another; a failure is reported beside the rest.
Threads: one.
Design: docs/design/bench.md
"""

from __future__ import annotations

import os
import sys
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from daramjwee.bench.report import Report, load, machine, to_json, to_text
from daramjwee.bench.samples import Row
from daramjwee.bench.timing import ChildFailed, in_child
from daramjwee.errors import ConfigError, Problem

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence

# In the order they run: what needs a quiet machine most comes first. Each is a module of `scenarios` with
# `run(*, quick: bool) -> list[Row]`.
SCENARIOS = (
    "import",
    "hit",
    "lease",
    "pool",
    "copies",
    "matrix",
    "mixed",
    "bounded",
    "metrics",
    "file",
    "paths",
    "endtoend",
    "fill",
)
# What `--keep` calls the report.
REPORT_FILE = "report.json"
# `import` is no name for a module.
_MODULES = {"import": "imports", "file": "filehit"}


def run(names: Iterable[str] = (), *, quick: bool = False, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Measure the scenarios called `names` (all when there are none). `tell` is given a line before each."""
    import daramjwee

    wanted = tuple(dict.fromkeys(names)) or SCENARIOS
    unknown = [name for name in wanted if name not in SCENARIOS]
    if unknown:
        known = ", ".join(SCENARIOS)
        problems = [Problem("SCENARIO", name, f"is no scenario; choose from {known}") for name in unknown]
        raise ConfigError(problems, subject="bench")
    rows: list[Row] = []
    failures: dict[str, str] = {}
    took: dict[str, float] = {}
    before = load()
    begin = perf_counter()
    for name in wanted:
        tell(f"measuring {name} ...")
        started = perf_counter()
        try:
            found = in_child("daramjwee.bench.runner:run_one", name=name, quick=quick)
        except ChildFailed as error:
            failures[name] = str(error)
        else:
            rows += [msgspec.structs.replace(row, only=name) for row in msgspec.convert(found, list[Row])]
        took[name] = perf_counter() - started
    return Report(
        version=daramjwee.__version__, quick=quick, machine=machine(), seconds=perf_counter() - begin, rows=tuple(rows),
        failures=failures, took=took, load=before,
    )  # fmt: skip


def run_one(name: str, *, quick: bool) -> list[Row]:
    """The rows of one scenario, measured in this process."""
    import importlib

    module = importlib.import_module(f"daramjwee.bench.scenarios.{_MODULES.get(name, name)}")
    rows: list[Row] = module.run(quick=quick)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m daramjwee.bench`; the exit status.

    0: measured. 1: a scenario failed, or with --strict a target was missed. 2: wrong arguments.
    """
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m daramjwee.bench", description="Measure daramjwee beside its rivals; targets beside figures."
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help=f"some of: {', '.join(SCENARIOS)}")
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds: some four minutes for all, figures less sure"
    )
    parser.add_argument("--json", metavar="FILE", help='write the report as JSON; "-" prints it instead of the table')
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument(
        "--keep", metavar="FOLDER",
        help=f"also write the report there, as {REPORT_FILE}, and its pictures where they can be drawn (extra bench)",
    )  # fmt: skip
    parser.add_argument(
        "--pictures", metavar="FOLDER", help="draw speed against object size as SVG there, instead (extra bench)"
    )
    parser.add_argument("--page", metavar="FILE", help="write the page of a report there, instead; see --from")
    parser.add_argument("--from", metavar="FILE", dest="source", help="the report, as JSON, that --page is about")
    options = parser.parse_args(argv)
    _check(parser, options)
    try:
        if options.page is not None:
            return _page(options.page, options.source)
        if options.pictures is not None:
            return _pictures(options.pictures, quick=options.quick)
        if options.keep is not None:
            os.makedirs(options.keep, exist_ok=True)  # a folder that cannot be is said before anything is measured
        report = run(options.only, quick=options.quick, tell=_tell)
    except (ConfigError, OSError) as error:
        parser.error(str(error))
    if options.json == "-":
        sys.stdout.buffer.write(to_json(report))
    else:
        sys.stdout.write(to_text(report))
    if options.json and options.json != "-":
        _write(options.json, to_json(report))
    if options.keep is not None:
        _keep(options.keep, report)
    return int(bool(report.failures) or (options.strict and bool(report.missed)))


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse what does not go together. (`--keep` stands in every `make bench`, so it goes with everything.)"""
    runs = bool(options.only or options.json or options.strict)
    if options.pictures is not None and runs:
        parser.error("--pictures goes with --quick only: it draws curves and runs no scenario")
    if options.page is not None and (runs or options.quick or options.pictures is not None):
        parser.error("--page goes with --from only: it measures nothing")
    if options.page is not None and options.source is None:
        parser.error("--page needs --from FILE: the report, as JSON, that the page is about")
    if options.source is not None and options.page is None:
        parser.error("--from goes with --page: it names the report that the page is about")


def _page(path: str, source: str) -> int:
    from daramjwee.bench.page import make

    print(*make(path, source), sep="\n")
    return 0


def _pictures(folder: str, *, quick: bool) -> int:
    from daramjwee.bench.pictures import make

    print(*make(folder, quick=quick, tell=_tell), sep="\n")
    return 0


def _keep(folder: str, report: Report) -> None:
    """The report, and its pictures; what cannot be drawn does not take the report with it."""
    from daramjwee.bench import pictures

    path = os.path.join(folder, REPORT_FILE)
    _write(path, to_json(report))
    _tell(f"written to {path}")
    try:
        for drawn in pictures.of_report(folder, report):
            _tell(f"written to {drawn}")
    except ConfigError as error:
        _tell(f"no pictures: {error}")


def _write(path: str, text: bytes) -> None:
    with open(path, "wb") as file:
        file.write(text)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
