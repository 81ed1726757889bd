"""`daramjwee config migrate`: an old configuration file brought to today's schema, and back.

Threads: one.
Design: docs/migration.md
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from daramjwee.cli.options import expanded
from daramjwee.cli.render import print_json, printable, show

if TYPE_CHECKING:
    from daramjwee.config.migrate import Outcome


def migrate(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The configuration file (.toml or .json).")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Say what would change, field by field; write nothing.")
    ] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", metavar="", help="Put the old file back: the same bytes, mode and times.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON document.")] = False,
) -> int:
    """Bring a configuration file of an earlier release, or of the Go library, to today's schema.

    One line for each field says what became of it. The old file stays beside the new one, as FILE.schemaN.bak; the new
    one takes its place in one step, with its mode and owner. A file of today's schema is left alone. Exits with 2 when
    there is no such file or it has problems, when there is a backup already, and when a file to roll back was changed since.
    """
    from daramjwee.config import migrate as work

    run = work.rollback if rollback else work.migrate
    outcome = run(expanded(file), dry_run=dry_run)
    if json:
        print_json(outcome)
    else:
        show("\n".join(printable(line) for line in to_lines(outcome)))
    return 0


def to_lines(outcome: Outcome) -> list[str]:
    """The outcome for a person."""
    path = outcome.path
    would = outcome.dry_run
    if outcome.action == "nothing":
        return [f"{path}: schema {outcome.after} already, nothing to do"]
    backup = os.path.basename(outcome.backup or "")
    steps = f"schema {outcome.before} -> {outcome.after}"
    if outcome.action == "roll back":
        return [f"{path}: {steps}, {'would put' if would else 'put'} {backup} back"]
    lines = [f"{path}: {steps}{', dry run: nothing is written' if would else ''}"]
    lines += [f"  {change.kind:<8} {change}" for change in outcome.changes]
    lines += [f"  note     {remark}" for remark in outcome.remarks]
    if would:
        return [*lines, "", *(outcome.text or "").rstrip("\n").split("\n")]
    return [*lines, f"the old file is {backup}; to go back: daramjwee config migrate --rollback {path}"]
