"""`daramjwee demo`: see `daramjwee.cli.demo`.

Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from daramjwee.cli.demo.record import Settings, settings_of
from daramjwee.cli.options import expanded, folder_problem
from daramjwee.cli.render import is_terminal, print_json
from daramjwee.errors import ConfigError, Problem


def demo(
    size: Annotated[str, typer.Option(metavar="SIZE", help="The big object.")] = "256MiB",
    readers: Annotated[int, typer.Option(metavar="N", help="How many open it together.")] = 32,
    latency: Annotated[str, typer.Option(metavar="DURATION", help="The origin's, to its first byte.")] = "50ms",
    bandwidth: Annotated[str, typer.Option(metavar="SIZE", help="The origin's, a second and response.")] = "64MB",
    folder: Annotated[
        str | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            help="Where to put the cache while it runs, about three times SIZE; else where temporary files go.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON document instead.")] = False,
) -> int:
    """Show the main job on real input, every figure measured and checked in this run.

    Starts an HTTP origin that is slow on purpose, serving files of this Python installation and one big object. Then:
    a cold read; warm reads from each tier; many readers opening the big object together; a reader that leaves half-way;
    range reads; a delete and a replacement that race a fill. Exits with 1 when a figure is not what it has to be, and
    leaves nothing behind.
    """  # fmt: skip
    settings = settings_of(size=size, readers=readers, latency=latency, bandwidth=bandwidth)
    if folder is not None:
        folder = expanded(folder)
        problem = folder_problem(folder) if folder else "is empty; name a folder"
        if problem is not None:
            raise ConfigError([Problem("--folder", folder, problem)], subject="demo")
    return show(settings, folder=folder, json=json)


def show(settings: Settings, *, folder: str | None, json: bool) -> int:
    """Play, show it, and say with the exit status whether everything was right."""
    # Late: `get` has to be quick, and does without all this.
    from daramjwee.cli.demo.play import play
    from daramjwee.cli.demo.screen import Live, Silent, screen_for

    if json:
        screen: Silent = Live(sys.stderr) if is_terminal(sys.stderr) else Silent()
    else:
        screen = screen_for(sys.stdout)
    report = None
    try:
        report = play(settings, screen, folder=folder)
    finally:
        screen.close(None if json else report)
    if json:
        print_json(report)
    return 0 if report.ok else 1
