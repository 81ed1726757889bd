"""The commands, and what becomes of their errors.

Invariant: whatever a command raises ends as one message on standard error and one documented exit status; a
traceback is shown with `--debug` only.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import daramjwee
from daramjwee.cli.bench import bench
from daramjwee.cli.config import HELP, check_config, show_config
from daramjwee.cli.config_migrate import migrate
from daramjwee.cli.config_recommend import recommend
from daramjwee.cli.demo.command import demo
from daramjwee.cli.doctor import doctor
from daramjwee.cli.get import get
from daramjwee.cli.main import status_of
from daramjwee.cli.regress import regress
from daramjwee.cli.render import flush_stdout, printable, show, tell
from daramjwee.cli.stats import stats
from daramjwee.errors import DaramjweeError

UNEXPECTED_STATUS = 1
# What a shell reports of a command that a closed pipe ended.
BROKEN_PIPE_STATUS = 128 + 13

EPILOG = (
    "Exit status: 0 done; 1 unexpected error, or a figure was wrong (demo); 2 usage or configuration; 3 not in the "
    "cache; 4 does not exist, or no process tells (stats, config recommend); 5 the origin failed; 6 could not be kept; 7 damaged; "
    "8 overloaded; 9 too large; 10 a problem was found (doctor, config check), or something is slower (regress); 130 interrupted."
)


class _Plain:
    """Help that shows no type beside a flag, and names an argument as everybody does."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]  # a mixin: its base is typer's
        if option is not None:
            option.metavar = ""
        return option

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]  # type: ignore[misc]  # as above


class _Command(_Plain, TyperCommand):
    """One command."""


class _Group(_Plain, TyperGroup):
    """All of them."""


app = typer.Typer(
    name="daramjwee",
    cls=_Group,
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="markdown",  # paragraphs are wrapped to the screen, whatever lines the source has
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Stderr(logging.StreamHandler[Any]):
    """Writes to whatever `sys.stderr` is now: a progress bar puts itself between, to keep its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    def filter(self, record: logging.LogRecord) -> Any:
        # A command that fails or is interrupted drops its fills on purpose; one message says why it ended.
        ending = record.name == "daramjwee.engine.lifecycle" and sys.exc_info()[0] is not None
        return not ending and super().filter(record)

    @property
    def stream(self) -> Any:
        return sys.stderr


def _show_version(wanted: bool) -> None:
    if wanted:
        show(f"daramjwee {daramjwee.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[  # noqa: ARG001 - its callback has answered by now
        bool,
        typer.Option(
            "--version", metavar="", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", metavar="", help="Log every decision, and show where an error is from.")
    ] = False,
) -> None:
    """Streams that cache themselves: read at once, fetch once, keep every byte inside one memory limit."""
    handler = _Stderr()
    style = "%(levelname)s %(name)s: %(message)s" if debug else "daramjwee: %(message)s"
    handler.setFormatter(logging.Formatter(style))
    logger = logging.getLogger("daramjwee")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)


def _guarded(command: Callable[..., int | None]) -> Callable[..., None]:
    """The command with its errors turned into a message and an exit status."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            status = command(*args, **kwargs) or 0
        except KeyboardInterrupt as error:  # the handler of the signal has said so
            status = status_of(error)
        except BrokenPipeError:
            status = BROKEN_PIPE_STATUS
        except DaramjweeError as error:
            status = error.exit_status
            _report(error, str(error) or type(error).__name__)
        except OSError as error:
            status = UNEXPECTED_STATUS
            _report(error, _words_of(error))
        except (typer.Exit, typer.BadParameter, typer.Abort):
            raise
        except Exception as error:  # noqa: BLE001 - the last border: a person gets a message, not a traceback
            status = UNEXPECTED_STATUS
            _report(error, f"unexpected {type(error).__name__}: {error} (daramjwee --debug ... shows where)")
        raise typer.Exit(status)

    return guarded


def _report(error: BaseException, message: str) -> None:
    if logging.getLogger("daramjwee").isEnabledFor(logging.DEBUG):
        import traceback

        tell("".join(traceback.format_exception(error)).rstrip())
    tell("daramjwee: " + printable(message, keep="\n"))


for _command in (get, demo, bench, regress, doctor, stats):
    app.command(name=_command.__name__, cls=_Command, no_args_is_help=_command is get)(_guarded(_command))

config = typer.Typer(cls=_Group, no_args_is_help=True, rich_markup_mode="markdown", help=HELP)
_CONFIG: dict[str, Callable[..., int]] = {
    "show": show_config, "check": check_config, "recommend": recommend, "migrate": migrate,
}  # fmt: skip
for _name, _part in _CONFIG.items():
    config.command(name=_name, cls=_Command)(_guarded(_part))
app.add_typer(config, name="config")


def start(arguments: Sequence[str]) -> int:
    """Run one command line; its exit status."""
    status = 0
    try:
        try:
            typer.main.get_command(app)(list(arguments), prog_name="daramjwee")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else UNEXPECTED_STATUS
        except OSError as error:  # of help, which is printed outside of any command
            status = UNEXPECTED_STATUS
            _report(error, f"standard output: {error.strerror or error}")
        flush_stdout()
    except KeyboardInterrupt as error:
        return status_of(error)
    except BrokenPipeError:
        return status or BROKEN_PIPE_STATUS
    except OSError as error:
        if not status:  # else it has been told why
            _report(error, _words_of(error))
        return status or UNEXPECTED_STATUS
    return status


def _words_of(error: OSError) -> str:
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return where + (error.strerror or str(error))
