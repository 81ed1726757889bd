"""Runs scenarios, each in a process of its own, and gathers their rows into one report.

Invariant: one scenario's memory, caches and failures do not reach another; a failure is reported beside the rest.
Threads: one.
Design: docs/design/bench.md
"""

from __future__ import annotations

import sys
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from daramjwee.bench.report import Report, machine, to_json, to_text
from daramjwee.bench.samples import Row
from daramjwee.bench.timing import ChildFailed, in_child
from daramjwee.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# In the order they run: what needs a quiet machine most comes first. Each is a module of `scenarios` with
# `run(*, quick: bool) -> list[Row]`.
SCENARIOS = ("import", "hit", "lease", "pool", "copies", "mixed", "bounded", "metrics", "file", "fill")
# `import` is no name for a module.
_MODULES = {"import": "imports", "file": "filehit"}


def run(names: Iterable[str] = (), *, quick: bool = False, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Measure the scenarios called `names` (all when there are none). `tell` is given a line before each."""
    import daramjwee

    wanted = tuple(dict.fromkeys(names)) or SCENARIOS
    unknown = [name for name in wanted if name not in SCENARIOS]
    if unknown:
        known = ", ".join(SCENARIOS)
        raise ConfigError([Problem("only", name, f"is no scenario; choose from {known}") for name in unknown])
    rows: list[Row] = []
    failures: dict[str, str] = {}
    begin = perf_counter()
    for name in wanted:
        tell(f"measuring {name} ...")
        try:
            found = in_child("daramjwee.bench.runner:run_one", name=name, quick=quick)
        except ChildFailed as error:
            failures[name] = str(error)
        else:
            rows += msgspec.convert(found, list[Row])
    return Report(
        version=daramjwee.__version__, quick=quick, machine=machine(), seconds=perf_counter() - begin, rows=tuple(rows),
        failures=failures,
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
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a minute or two, figures less sure")
    parser.add_argument("--json", metavar="FILE", help='write the report as JSON; "-" prints it instead of the table')
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument(
        "--pictures", metavar="FOLDER", help="draw speed against object size as SVG there, instead (extra bench)"
    )
    options = parser.parse_args(argv)
    if options.pictures is not None and (options.only or options.json or options.strict):
        parser.error("--pictures goes with --quick only: it draws curves and runs no scenario")
    try:
        if options.pictures is not None:
            from daramjwee.bench.pictures import make

            print(*make(options.pictures, quick=options.quick, tell=_tell), sep="\n")
            return 0
        report = run(options.only, quick=options.quick, tell=_tell)
    except ConfigError as error:
        parser.error(str(error))
    if options.json == "-":
        sys.stdout.buffer.write(to_json(report))
    else:
        sys.stdout.write(to_text(report))
    if options.json and options.json != "-":
        with open(options.json, "wb") as file:
            file.write(to_json(report))
    return int(bool(report.failures) or (options.strict and bool(report.missed)))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
