"""`daramjwee doctor`: see `daramjwee.observe.doctor`.

Invariant: it changes nothing, and its exit status tells a problem that was found from every error.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from daramjwee.cli.config_view import DEFAULT, value_of
from daramjwee.cli.options import expanded, size_of
from daramjwee.cli.render import print_json, printable, show
from daramjwee.errors import ConfigError, Problem
from daramjwee.model import SYSTEM_CLOCK
from daramjwee.units import counted

if TYPE_CHECKING:
    from daramjwee.config import CacheConfig
    from daramjwee.config.load import Examined
    from daramjwee.observe.doctor import Check

# No error of ours ends with it.
PROBLEM_STATUS = 10
# Servers that start several processes of a program take their number from here.
PROCESSES_VARIABLE = "WEB_CONCURRENCY"
TABLE = "buffers."


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
        str | None,
        typer.Option(
            metavar="SIZE",
            show_default=False,
            help="What a cache of yours may hold, as given to Cache; else what a FILE of --buffers says, else 512MiB.",
        ),
    ] = None,
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

    problems: list[Problem] = []
    limit = None if memory_limit is None else size_of("--memory-limit", memory_limit, problems)
    if folder is not None and not folder:
        problems.append(Problem("FOLDER", folder, "is empty; name a folder, or leave it out"))
    if problems:
        raise ConfigError(problems, subject="doctor")
    config, config_problems = settings_of(buffers or [])
    checks = examine(
        Case(
            folder=None if folder is None else os.path.abspath(expanded(folder)), began=began,
            memory_limit=config.memory_limit if limit is None else limit, processes=processes or _processes(),
            config=config.buffers, config_problems=config_problems,
        )
    )  # fmt: skip
    if json:
        print_json(checks)
    else:
        show(to_text(checks))
    return PROBLEM_STATUS if any(check.state is State.PROBLEM for check in checks) else 0


def settings_of(given: Iterable[str]) -> tuple[CacheConfig, tuple[Problem, ...]]:
    """The settings that `given` names, each a field=value of the pool or a file, the later ones counting; and every problem
    with them. With problems the settings are the defaults."""
    from daramjwee.config import CacheConfig
    from daramjwee.config.load import examine

    source: str | None = None
    changes: dict[str, Any] = {}
    files: list[str] = []
    problems: list[Problem] = []
    for text in given:
        name, equals, value = text.partition("=")
        if equals and not os.path.exists(text):
            changes[TABLE + name.strip().removeprefix(TABLE)] = value_of(value.strip())
            continue
        files.append(expanded(text))
        if source is None and not changes:
            source = files[-1]
        else:
            # After others it counts before them, as arguments do.
            found = examine(files[-1], environ={})
            problems += found.problems
            changes |= _given_by(found)
    examined = examine(source, environ={}, changes=changes)
    problems = [_of_option(problem, files) for problem in (*problems, *examined.problems)]
    config = CacheConfig() if problems or examined.config is None else examined.config
    return config, tuple(problems)


def _given_by(found: Examined) -> dict[str, Any]:
    if found.config is None:
        return {}
    values = msgspec.to_builtins(found.config.buffers)
    return {TABLE + name: value for name, value in values.items() if found.sources[TABLE + name] != DEFAULT}


def _of_option(problem: Problem, files: Sequence[str]) -> Problem:
    """By the name of the field alone, as `BufferPoolConfig` tells it; what is wrong with a file is told of the option."""
    if problem.field in files:
        mend = f"{problem.value}: {problem.mend}; give field=value, or a TOML or JSON file"
        return Problem("--buffers", problem.field, mend)
    if problem.field in {"source", TABLE[:-1]}:
        return problem._replace(field="--buffers", mend=f"{problem.mend}; give field=value, or a TOML or JSON file")
    return problem._replace(field=problem.field.removeprefix(TABLE))


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
    lines.append(f"{sums['ok']} ok, {counted(notes, 'note')}, {counted(problems, 'problem')}")
    return "\n".join(printable(line) for line in lines)
