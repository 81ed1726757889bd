"""`daramjwee regress`: see `daramjwee.bench.regress`.

Invariant: what is wrong with the arguments is said before anything is measured; a baseline is written whole or not at
all, and after everything else.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from daramjwee.cli.options import expanded, folder_problem
from daramjwee.cli.render import print_json, show, tell
from daramjwee.errors import ConfigError, Problem

SLOWER_STATUS = 10
FAILED_STATUS = 1


def regress(
    against: Annotated[
        str | None, typer.Option("--against", metavar="GIT_REV", help="Compare with this revision of the checkout.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="FILE", help="Compare exact counters with this kept file.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="A scenario, any number of times; else all.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", metavar="", help="With --against: fewer turns, half the time.")
    ] = False,
    instructions: Annotated[
        bool, typer.Option("--instructions", metavar="", help="Count instructions, too, where valgrind is installed.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print what was found as one JSON document.")
    ] = False,
    write_baseline: Annotated[
        str | None, typer.Option("--write-baseline", metavar="FILE", help="Write today's counters to this file.")
    ] = None,
) -> int:
    """Find out whether this checkout got slower.

    With --against, scenarios of both trees run in turns on this machine, in processes that are started again and again,
    until it is clear for each whether it is slower, or nearly so. With --baseline, what can be counted exactly (page
    faults, calls, fetches, blocks) is compared with a file that --write-baseline wrote.

    Exits with 10 when anything is slower or a counter grew.
    """
    problems = _problems(against, baseline, write_baseline, quick=quick)
    if problems:
        raise ConfigError(problems, subject="regress")
    if against is not None:
        return _against(against, only or [], quick=quick, instructions=instructions, json=json)
    return _baseline(baseline, write_baseline, only or [], instructions=instructions, json=json)


def _problems(against: str | None, baseline: str | None, write_baseline: str | None, *, quick: bool) -> list[Problem]:
    problems = []
    if against is None and baseline is None and write_baseline is None:
        problems.append(Problem("--against", None, "say what to compare with: --against GIT_REV or --baseline FILE"))
    if against is not None and (baseline is not None or write_baseline is not None):
        problems.append(Problem("--against", against, "needs no file; leave --baseline and --write-baseline out"))
    if quick and against is None:
        problems.append(Problem("--quick", True, "goes with --against; counting is quick anyway"))
    if write_baseline is not None:
        path = expanded(write_baseline)
        if not path or os.path.isdir(path) or path.endswith("/"):
            problems.append(Problem("--write-baseline", write_baseline, "is no name of a file; name one"))
        elif (problem := folder_problem(os.path.dirname(path))) is not None:
            problems.append(Problem("--write-baseline", write_baseline, problem))
    return problems


def _against(revision: str, only: list[str], *, quick: bool, instructions: bool, json: bool) -> int:
    from daramjwee.bench.regress import guard, trees
    from daramjwee.bench.regress.report import comparison_text, to_data

    names = guard.chosen(only)
    root = trees.checkout()
    with guard.workplace() as place:
        old = trees.copy_revision(root, revision, place / "tree-1")
        new = trees.copy_now(root, place / "tree-2")
        found = guard.compare_trees(
            old, new, place, names, pace=guard.QUICK if quick else guard.WHOLE, title=revision, tell=tell,
            instructions=instructions,
        )  # fmt: skip
    if json:
        print_json(to_data(found))
    else:
        show(comparison_text(found), end="")
    if found.failures:
        return FAILED_STATUS
    return SLOWER_STATUS if found.slower else 0


def _baseline(
    baseline: str | None, write_baseline: str | None, only: list[str], *, instructions: bool, json: bool
) -> int:
    from daramjwee.bench.regress import baseline as kept_file
    from daramjwee.bench.regress import guard, trees
    from daramjwee.bench.regress.report import held_text, to_data

    names = guard.chosen(only)
    kept = None if baseline is None else kept_file.load(expanded(baseline))
    root = trees.checkout()
    with guard.workplace() as place:
        tree = trees.copy_now(root, place / "tree-1")
        if baseline is None or kept is None:
            now = kept_file.count(tree, place, names, times=True, instructions=instructions, tell=tell)
            found = None
        else:
            found = kept_file.measured(
                tree, place, names, file=baseline, kept=kept, instructions=instructions, tell=tell
            )
            now = found.now
    if write_baseline is not None:
        _write(expanded(write_baseline), kept_file.to_bytes(now))
    if found is None:
        if json:
            print_json(now)
        else:
            show(f"written to {write_baseline}")
        return 0
    if json:
        print_json(to_data(found))
    else:
        show(held_text(found), end="")
    return SLOWER_STATUS if found.slower else 0


def _write(path: str, content: bytes) -> None:
    from daramjwee.cli.output import replacing

    with replacing(path) as file:
        file.write(content)
