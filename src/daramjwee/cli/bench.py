"""`daramjwee bench`: see `daramjwee.bench.runner`, and `daramjwee.bench.calibrate` for `--calibrate`.

Invariant: a file of settings is there whole or not at all, and one that was there is replaced only with `--force`; what
is wrong with the arguments is said before anything is measured.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from daramjwee.cli.options import expanded, folder_problem
from daramjwee.cli.render import show, tell
from daramjwee.errors import ConfigError, Problem

CALIBRATE = "--calibrate"


def bench(
    scenario: Annotated[
        list[str] | None, typer.Argument(metavar="SCENARIO", help="Which to measure; all when none is named.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", metavar="", help="Fewer rounds: some four minutes for all, figures less sure.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", metavar="", help="Exit with 1 when a target is missed.")] = False,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print the report as one JSON document.")] = False,
    calibrate: Annotated[
        bool, typer.Option(CALIBRATE, metavar="", help="Measure which buffer settings win on this machine, instead.")
    ] = False,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="With --calibrate: write them here, as TOML.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="With --output: replace a file that is there.")
    ] = False,
) -> int:
    """Measure daramjwee beside its rivals, pairs in turns, each figure beside its target.

    The rivals must be installed (the extra `dev`); one that is missing is named in the report. Exits with 1 when a
    scenario failed, and with --strict when a target is missed.

    With --calibrate it measures how this machine moves bytes best, about a minute, and prints the settings that win
    here: a TOML table `[buffers]` with fields of `BufferPoolConfig`.
    """
    path = None if output is None else expanded(output)
    problems = _problems(scenario or [], path, strict=strict, calibrate=calibrate, force=force)
    if problems:
        raise ConfigError(problems, subject="bench")
    if calibrate:
        return _calibrate(path, quick=quick, json=json, force=force)
    from daramjwee.bench.report import to_json, to_text
    from daramjwee.bench.runner import run

    report = run(scenario or (), quick=quick, tell=tell)
    show(to_json(report).decode() if json else to_text(report), end="")
    return int(bool(report.failures) or (strict and bool(report.missed)))


def _problems(scenario: list[str], path: str | None, *, strict: bool, calibrate: bool, force: bool) -> list[Problem]:
    problems = []
    if calibrate and scenario:
        problems.append(
            Problem("SCENARIO", " ".join(scenario), f"{CALIBRATE} measures no scenario; leave one of them out")
        )
    if calibrate and strict:
        problems.append(Problem("--strict", True, f"{CALIBRATE} has no targets; leave one of them out"))
    if path is not None and not calibrate:
        problems.append(Problem("--output", path, f"goes with {CALIBRATE}; redirect standard output of anything else"))
    elif path is not None:
        problem = _file_problem(path, force=force)
        if problem is not None:
            problems.append(Problem("--output", path, problem))
    if force and path is None:
        problems.append(Problem("--force", True, f"goes with {CALIBRATE} --output FILE"))
    return problems


def _file_problem(path: str, *, force: bool) -> str | None:
    """Why no settings can be written to `path`, None when they can."""
    if not path:
        return "is empty; name a file"
    if os.path.isdir(path) or path.endswith("/"):
        return "is a folder; name a file in it"
    if os.path.lexists(path):
        return None if force else "is there already; name another file, or say --force to replace it"
    return folder_problem(os.path.dirname(path))


def _calibrate(path: str | None, *, quick: bool, json: bool, force: bool) -> int:
    from daramjwee.bench.calibrate import calibrate, to_json, to_text, to_toml

    found = calibrate(quick=quick, tell=tell)
    settings = to_toml(found)
    if path is not None:
        _write(path, settings, force=force)
    if json:
        show(to_json(found).decode(), end="")
    else:
        show(to_text(found))
        show(settings if path is None else f"written to {path}", end="" if path is None else "\n")
    return 0


def _write(path: str, settings: str, *, force: bool) -> None:
    """The file appears with all that belongs in it; without `force` only where there is none."""
    if force:
        from daramjwee.cli.output import replacing

        with replacing(path) as file:
            file.write(settings.encode())
        return
    try:
        file = open(path, "x", encoding="utf-8")  # noqa: SIM115 - closed below; what fails here has made nothing
    except FileExistsError:
        mend = "appeared while it was measured; name another file, or say --force to replace it"
        raise ConfigError([Problem("--output", path, mend)], subject="bench") from None
    try:
        with file:
            file.write(settings)
    except BaseException:
        os.unlink(path)
        raise
