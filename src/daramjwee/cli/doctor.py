"""`daramjwee doctor`: see `daramjwee.observe.doctor`.

Invariant: it changes nothing, and its exit status tells a problem that was found from every error.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from daramjwee.cli.options import expanded, size_of
from daramjwee.cli.render import print_json, printable, show
from daramjwee.errors import ConfigError, Problem
from daramjwee.model import SYSTEM_CLOCK

if TYPE_CHECKING:
    from daramjwee.observe.doctor import Check

# No error of ours ends with it.
PROBLEM_STATUS = 10
# Servers that start several processes of a program take their number from here.
PROCESSES_VARIABLE = "WEB_CONCURRENCY"


def doctor(
    folder: Annotated[
        str | None, typer.Argument(metavar="FOLDER", help="The folder of a file tier to look at too.")
    ] = None,
    buffers: Annotated[
        list[str] | None,
        typer.Option(
            "--buffers", metavar="KEY=VALUE|FILE", help="Settings of the pool to check, or a TOML or JSON file of them."
        ),
    ] = None,
    memory_limit: Annotated[
        str, typer.Option(metavar="SIZE", help="What a cache of yours may hold, as given to Cache.")
    ] = "512MiB",
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER", min=1, help=f"How many processes have such a cache; else ${PROCESSES_VARIABLE}, else 1."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print a list of all checks as one JSON document.")
    ] = False,
) -> int:
    """Look at this machine, this interpreter and a folder: what is not as it should be, and what to do about it.

    One line for each check: ok, note (worth knowing, works all the same) or problem (something will fail or be lost).
    Exits with 10 when there is a problem, with 0 when there is none.
    """
    began = SYSTEM_CLOCK.now(), SYSTEM_CLOCK.monotonic()
    from daramjwee.observe.doctor import Case, State, examine
    from daramjwee.observe.doctor.settings import read_settings

    problems: list[Problem] = []
    limit = size_of("--memory-limit", memory_limit, problems)
    if folder is not None and not folder:
        problems.append(Problem("FOLDER", folder, "is empty; name a folder, or leave it out"))
    if problems:
        raise ConfigError(problems, subject="doctor")
    config, config_problems = read_settings([text if "=" in text else expanded(text) for text in buffers or []])
    checks = examine(
        Case(
            folder=None if folder is None else os.path.abspath(expanded(folder)), memory_limit=limit, began=began,
            processes=processes or _processes(), config=config, config_problems=config_problems,
        )
    )  # fmt: skip
    if json:
        print_json(checks)
    else:
        show(to_text(checks))
    return PROBLEM_STATUS if any(check.state is State.PROBLEM for check in checks) else 0


def _processes() -> int:
    """What the environment says; a server would refuse what is no number, so it is not ours to complain."""
    given = os.environ.get(PROCESSES_VARIABLE, "")
    return int(given) if given.isdecimal() and int(given) else 1


def to_text(checks: Sequence[Check]) -> str:
    """A line for each check, one more for each remedy, and the sums."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.state.value:<9}{check.name:<{width}}  {check.seen}")
        if check.remedy:
            lines.append(f"{'':<{9 + width}}  -> {check.remedy}")
    sums = Counter(check.state.value for check in checks)
    notes, problems = sums["note"], sums["problem"]
    lines.append(
        f"{sums['ok']} ok, {notes} note{'s' if notes != 1 else ''}, {problems} problem{'s' if problems != 1 else ''}"
    )
    return "\n".join(printable(line) for line in lines)
