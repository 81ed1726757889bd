"""`daramjwee config`: what a configuration comes to, what is wrong with it, and what a running process advises.

Invariant: nothing is created or changed, and no secret is shown.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import typer

from daramjwee.cli.config_view import DEFAULT, Field, columns, fields_of, source_of, text_of, value_of
from daramjwee.cli.doctor import PROBLEM_STATUS
from daramjwee.cli.options import expanded
from daramjwee.cli.render import is_terminal, print_json, printable, show
from daramjwee.config.secret import shown
from daramjwee.config.settings import PREFIX, SETTINGS
from daramjwee.errors import ConfigError, Problem
from daramjwee.units import counted

if TYPE_CHECKING:
    from daramjwee.cli.config_machine import Seen
    from daramjwee.config.load import Examined
    from daramjwee.config.warnings import Unwise

HELP = "Show a configuration, check it, have it judged by what a running process has done, or bring it up to date."
# "memory:256MiB", where no file is called that.
_URL = re.compile(r"[a-z]+:", re.ASCII | re.IGNORECASE)
# How a problem says where its value came from.
_SOURCE = re.compile(r" \((argument|environment \w+|file [^\n]+)\)\Z")
_PARTS = frozenset(setting.path.partition(".")[0] for setting in SETTINGS)
_FILES = (".toml", ".json")

Source = Annotated[
    str | None,
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help='A TOML or JSON file, or the tiers as text such as "memory:256MiB;file:./cache"; else $DARAMJWEE_CONFIG.',
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Set a field, as arguments of Cache.from_config do."),
]


def show_config(
    source: Source = None,
    changes: Changes = None,
    changed: Annotated[bool, typer.Option("--changed", metavar="", help="Only what is no default.")] = False,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print it as one JSON document.")] = False,
) -> int:
    """Show every setting: the value that counts, and where it comes from.

    What --set gives counts before the environment (DARAMJWEE_...), that before SOURCE, that before the default. Of secrets
    it shows where they are.
    """
    examined = examined_of(source, changes or [], "config show")
    config = sound(examined, source)
    fields = [field for field in fields_of(config, examined.sources) if not changed or field.source != DEFAULT]
    if json:
        print_json({"schema": examined.schema, "config": config.to_mapping(), "fields": fields_as_data(fields)})
    elif not fields:
        show("every setting has its default")
    elif is_terminal(sys.stdout):
        _draw(fields)
    else:
        show(columns([("setting", "value", "source"), *((field.field, field.text, field.source) for field in fields)]))
    return 0


def check_config(
    source: Source = None,
    changes: Changes = None,
    strict: Annotated[
        bool, typer.Option("--strict", metavar="", help="Exit with 10 when a setting is legal but unwise.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print it as one JSON document.")] = False,
) -> int:
    """Check a configuration: every problem, what is legal but unwise, and what this machine lacks for it.

    Exits with 2 when a cache cannot be made of it, with 10 when this machine is not fit for it, else with 0.
    """
    examined = examined_of(source, changes or [], "config check")
    seen: tuple[Seen, ...] = ()
    if examined.config is not None:
        from daramjwee.cli.config_machine import look

        seen = look(examined.config)
    lacking = [answer for answer in seen if answer.check.state != "ok"]
    problems = [answer for answer in lacking if answer.check.state == "problem"]
    if json:
        print_json(_report(examined, lacking))
    else:
        show("\n".join(_lines(examined, lacking, len(seen))))
    if examined.problems:
        return ConfigError.exit_status
    return PROBLEM_STATUS if problems or (strict and unwise_of(examined, lacking)) else 0


def examined_of(source: str | None, changes: Iterable[str], subject: str) -> Examined:
    """What `source` and the environment come to with `changes` made; `ConfigError` for arguments that are none."""
    from daramjwee.config.load import examine

    problems: list[Problem] = []
    if source is not None and not source.strip():
        problems.append(Problem("SOURCE", source, "is empty; name a file, or leave it out"))
    values = changes_of(changes, "--set", problems)
    if problems:
        raise ConfigError(problems, subject=subject)
    return examine(source_given(source), changes=values)


def source_given(source: str | None) -> Any:
    """What was typed for a SOURCE, as `examine` takes it."""
    if source is None:
        return None
    path = expanded(source)
    if _URL.match(source) and not source.endswith(_FILES) and not os.path.exists(path):
        return {"tiers": source}
    return path


def changes_of(texts: Iterable[str], option: str, problems: list[Problem]) -> dict[str, Any]:
    """Fields and values of texts "field=value", the later ones counting."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if equals and name.strip():
            values[name.strip()] = value_of(value.strip())
        else:
            problems.append(Problem(option, shown(text), "give FIELD=VALUE, such as buffers.chunk_size=512KiB"))
    return values


def sound(examined: Examined, source: str | None) -> Any:
    """The configuration; `ConfigError` with all its problems where it has some."""
    if examined.config is None:
        # What was typed as text may hold anything; a path is there to be known by.
        named = isinstance(source_given(source), str)
        raise ConfigError(examined.problems, subject=shown(source) if source and named else "configuration")
    return examined.config


# -- show ----------------------------------------------------------------------------------------------------------


def fields_as_data(fields: Iterable[Field]) -> list[dict[str, Any]]:
    return [field._asdict() for field in fields]


def _draw(fields: Sequence[Field]) -> None:
    """A table on a terminal, what is no default standing out."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("setting", "value", "source", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for field in fields:
        style = "" if field.source == DEFAULT else "bold"
        table.add_row(
            *(Text(printable(text), style) for text in (field.field, field.text)), Text(printable(field.source))
        )
    Console(highlight=False).print(table)


# -- check ---------------------------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """A problem, with where its value came from apart from what to do."""

    field: str
    value: Any
    mend: str
    source: str


def problems_of(examined: Examined) -> list[Fault]:
    return [_fault_of(problem, examined) for problem in examined.problems]


def _fault_of(problem: Problem, examined: Examined) -> Fault:
    said = _SOURCE.search(problem.mend)
    if said is not None:
        return Fault(problem.field, problem.value, problem.mend[: said.start()], said[1])
    if problem.field.startswith(PREFIX):
        source = f"environment {problem.field}"
    elif re.split(r"[.\[]", problem.field)[0] in _PARTS and not problem.field.endswith(_FILES):
        source = source_of(problem.field, examined.sources)
    else:  # a file as a whole
        source = f"file {problem.field}"
    return Fault(problem.field, problem.value, problem.mend, source)


def unwise_of(examined: Examined, lacking: Sequence[Seen]) -> list[tuple[Unwise, str]]:
    """What is legal but unwise, and where it came from. Secrets that are not there are the machine's to tell."""
    told = {answer.field for answer in lacking if answer.check.name == "secret"}
    return [
        (it, source_of(it.field, examined.sources))
        for it in examined.warnings
        if it.field.rpartition(".")[0] not in told
    ]


def shown_value(fault: Fault) -> str:
    """The value as an error shows it."""
    return str(Problem(fault.field, fault.value, ""))[len(f"{fault.field} = ") : -len(": ")]


def _lines(examined: Examined, lacking: Sequence[Seen], looks: int) -> list[str]:
    """A line for each thing found, one for what to do about it, and the sums."""
    found = [("problem", f"{it.field} = {shown_value(it)}", it.source, it.mend) for it in problems_of(examined)]
    found += [
        ("unwise", f"{it.field} = {text_of(it.field, plain(it.value))}: {it.reason}", source, it.mend)
        for it, source in unwise_of(examined, lacking)
    ]
    found += [
        (answer.check.state.value, f"{answer.field}: {answer.check.seen}", "this machine", answer.check.remedy)
        for answer in lacking
    ]
    lines = []
    for kind, text, source, mend in found:
        lines += [f"{kind:<9}{printable(text)} ({printable(source)})", f"{'':<9}-> {printable(mend)}"]
    problems, unwise = len(examined.problems), len(unwise_of(examined, lacking))
    if examined.config is None:
        return [*lines, f"{_some(problems, 'problem')}: no cache can be made of it; the machine was not looked at"]
    bad = sum(answer.check.state == "problem" for answer in lacking)
    machine = f"this machine: {_some(looks, 'check')}, {_some(bad, 'problem')}"
    return [*lines, f"no problem, {_some(unwise, 'unwise setting')}; {machine}"]


def _some(count: int, what: str) -> str:
    return counted(count, what) if count else f"no {what}"


def _report(examined: Examined, lacking: Sequence[Seen]) -> dict[str, Any]:
    return {
        "schema": examined.schema,
        "problems": [{**it._asdict(), "value": plain(it.value)} for it in problems_of(examined)],
        "unwise": [
            {"field": it.field, "value": plain(it.value), "reason": it.reason, "mend": it.mend, "source": source}
            for it, source in unwise_of(examined, lacking)
        ],
        "machine": [
            {"field": answer.field, **msgspec.to_builtins(answer.check)} for answer in lacking
        ],
    }  # fmt: skip


def plain(value: Any) -> Any:
    """A value of any kind as JSON may have it."""
    return msgspec.to_builtins(value, enc_hook=repr, str_keys=True)
