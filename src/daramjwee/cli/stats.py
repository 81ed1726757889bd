"""`daramjwee stats`: what running processes tell of their pools and caches.

Invariant: nothing is changed but that the sockets of dead processes are removed. One process that does not answer hides
no other.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event
from typing import Annotated, Any, NamedTuple

import msgspec
import typer

from daramjwee.cli.options import expanded, seconds_of
from daramjwee.cli.render import flush_stdout, is_terminal, print_json, show, tell
from daramjwee.cli.stats_view import Page, drawing_of, page_of, text_of
from daramjwee.errors import ConfigError, DaramjweeError, Problem

LEAST_INTERVAL = 0.1
MOST_NAMED = 5
ENDED = "the process has ended, or offers no dashboard any more"


def stats(
    place: Annotated[
        str | None,
        typer.Argument(metavar="FOLDER|SOCKET", help="The folder of a file tier, or a socket.", show_default=False),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", metavar="", help="Show it again and again, until Ctrl-C.")
    ] = False,
    interval: Annotated[str, typer.Option(metavar="DURATION", help="With --watch: how often.")] = "1s",
    pid: Annotated[
        int | None, typer.Option(metavar="PID", help="Of several processes, this one only.", show_default=False)
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", metavar="", help="Print the document itself; with --watch one a line for each process."),
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", metavar="", help="Print the JSON schema of the document, and nothing else.")
    ] = False,
) -> int:
    """Show what running processes tell of themselves: rates, operations, memory, gate, pressure, alerts, advice.

    A process is seen when it offers its dashboard: `cache.offer_dashboard()` puts a socket into the folder of its file
    tier, where FOLDER finds it; only the same user can read it. Rates are those of the last second or so while somebody
    looks, and of the last `metrics_interval` when asked once.

    Exits with 4 when no process offers a dashboard there, with --watch also when the last one has ended.
    """
    from daramjwee.observe.document import schema as schema_of

    if schema:
        print_json(schema_of())
        return 0
    problems: list[Problem] = []
    seconds = seconds_of("--interval", interval, problems)
    if not problems and seconds < LEAST_INTERVAL:
        problems.append(Problem("--interval", interval, f"must be at least {LEAST_INTERVAL:g} s"))
    if not place:
        problems.append(Problem("FOLDER|SOCKET", place, "name the folder of a file tier, or the socket of a process"))
    if problems or place is None:
        raise ConfigError(problems, subject="stats")
    source = _Source(expanded(place), pid)
    if watch:
        _watch(source, seconds, json=json)
        return 0
    return _show_once(source, json=json)


class _Answer(NamedTuple):
    """What one process said: its document, or why there is none."""

    socket: str
    body: bytes
    error: DaramjweeError | None


def sockets_in(folder: str) -> list[str]:
    """The sockets in a folder whose names processes were told, whoever they are of. For a hint: at most a few."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:  # what cannot be looked at is no hint
        found = [entry.path for entry in entries if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)]
    return sorted(found)[:MOST_NAMED]


class _Source:
    """The processes that were asked for."""

    def __init__(self, place: str, pid: int | None) -> None:
        self._place = place
        self._pid = pid

    def sockets(self) -> tuple[str, ...]:
        """Those there now; an error says why there is none."""
        from daramjwee.observe import NoDashboard, find
        from daramjwee.observe.place import pid_in

        found = find(self._place)
        if not found:
            named = sockets_in(self._place)
            raise NoDashboard(
                f"no process offers its dashboard in {self._place}: call cache.offer_dashboard() in the one you want to "
                "see, with this folder as its file tier, or name the socket that it was told"
                + (f"; there is {', '.join(named)}" if named else "")
            )
        if self._pid is None:
            return found
        wanted = tuple(path for path in found if pid_in(os.path.basename(path)) in (self._pid, None))
        if not wanted:
            there = ", ".join(str(pid_in(os.path.basename(path))) for path in found)
            raise NoDashboard(f"process {self._pid} offers no dashboard in {self._place}; those that do: {there}")
        return wanted

    def answers(self) -> list[_Answer]:
        """What each says. Whoever ended meanwhile is left out, and when all did that is the error."""
        from daramjwee.observe import NoDashboard, ask

        said: list[_Answer] = []
        gone: NoDashboard | None = None
        for path in self.sockets():
            try:
                said.append(_Answer(path, ask(path), None))
            except NoDashboard as error:
                gone = error
            except DaramjweeError as error:
                said.append(_Answer(path, b"", error))
        if not said and gone is not None:
            raise gone
        return said


def _page(answer: _Answer) -> Page:
    from daramjwee.observe.client import decode

    return page_of(decode(answer.body))


def _show_once(source: _Source, *, json: bool) -> int:
    answers = source.answers()
    if json:
        _print_one(answers)
        return 0
    pages, errors = _pages(answers)
    if len(answers) == 1 and errors:
        raise errors[0]
    for error in errors:
        tell(f"daramjwee: {error}")
    if is_terminal(sys.stdout):
        from rich.console import Console

        Console(highlight=False).print(drawing_of(pages))
    else:
        show("\n\n".join(map(text_of, pages)))
    return max((error.exit_status for error in errors), default=0)


def _pages(answers: list[_Answer]) -> tuple[list[Page], list[DaramjweeError]]:
    pages: list[Page] = []
    errors: list[DaramjweeError] = []
    for answer in answers:
        try:
            if answer.error is not None:
                raise answer.error
            pages.append(_page(answer))
        except DaramjweeError as error:
            errors.append(error)
    return pages, errors


def _print_one(answers: list[_Answer]) -> None:
    if len(answers) != 1:
        named = ", ".join(os.path.basename(answer.socket) for answer in answers)
        mend = (
            f"one document is printed, and there are {len(answers)} processes ({named}): choose one with --pid, or add "
        )
        raise ConfigError([Problem("--json", True, f"{mend}--watch, which prints a line for each")], subject="stats")
    print_json(_checked(answers[0]))


def _checked(answer: _Answer) -> Any:
    """The document as it was sent, with fields that only its process knows."""
    from daramjwee.observe.client import decode

    if answer.error is not None:
        raise answer.error
    decode(answer.body)
    return msgspec.json.decode(answer.body)


def _watch(source: _Source, seconds: float, *, json: bool) -> None:
    """Show it until Ctrl-C; `NoDashboard` when the last process has ended."""
    from daramjwee.observe import NoDashboard

    pause = Event()
    answers = source.answers()  # what is wrong is said before the screen changes
    with _screen(json=json) as draw:
        while True:
            draw(answers)
            pause.wait(seconds)
            try:
                answers = source.answers()
            except NoDashboard as error:
                raise NoDashboard(ENDED) from error


@contextmanager
def _screen(*, json: bool) -> Iterator[Any]:
    """What shows the answers of one moment."""
    if json:
        yield _draw_lines
    elif is_terminal(sys.stdout) and os.environ.get("TERM") != "dumb":
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:

            def draw(answers: list[_Answer]) -> None:
                pages, errors = _pages(answers)
                live.update(drawing_of(pages, map(str, errors)), refresh=True)

            yield draw
    else:
        yield _draw_blocks


def _draw_lines(answers: list[_Answer]) -> None:
    for answer in answers:
        try:
            document = _checked(answer)
        except DaramjweeError as error:
            tell(f"daramjwee: {error}")
        else:
            show(msgspec.json.encode(document).decode())
    flush_stdout()


def _draw_blocks(answers: list[_Answer]) -> None:
    pages, errors = _pages(answers)
    for error in errors:
        tell(f"daramjwee: {error}")
    for page in pages:
        show(text_of(page) + "\n")
    flush_stdout()
