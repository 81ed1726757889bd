"""`daramjwee bench`: see `daramjwee.bench.runner`.

Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

from typing import Annotated

import typer

from daramjwee.cli.render import show, tell


def bench(
    scenario: Annotated[
        list[str] | None, typer.Argument(metavar="SCENARIO", help="Which to measure; all when none is named.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", metavar="", help="Fewer rounds: about a minute, figures less sure.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", metavar="", help="Exit with 1 when a target is missed.")] = False,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print the report as one JSON document.")] = False,
) -> int:
    """Measure daramjwee beside its rivals, pairs in turns, each figure beside its target.

    The rivals must be installed (the extra `dev`); one that is missing is named in the report. Exits with 1 when a
    scenario failed, and with --strict when a target is missed.
    """
    from daramjwee.bench.report import to_json, to_text
    from daramjwee.bench.runner import run

    report = run(scenario or (), quick=quick, tell=tell)
    show(to_json(report).decode() if json else to_text(report), end="")
    return int(bool(report.failures) or (strict and bool(report.missed)))
