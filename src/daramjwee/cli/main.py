"""The entry point of the `daramjwee` command.

Invariant: this module imports without the extra `cli`, only to say that it is missing. A command that is ended by a
signal says so at once, then goes through its `finally` blocks.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import atexit
import math
import os
import signal
import sys
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from types import FrameType

NEEDED = ("typer", "rich")
MISSING_STATUS = 2
INTERRUPTED_STATUS = 128 + signal.SIGINT
# A terminal or `timeout` sends a signal to the group and to the process: that is one wish. A later one is another.
SAME_SIGNAL_SECONDS = 2.0


class Interrupted(KeyboardInterrupt):
    """A signal wants the command to end. Its argument is the exit status. One kind for all signals: whatever is careful
    about a Ctrl-C in its midst is so about a plain kill, too."""


def status_of(error: KeyboardInterrupt) -> int:
    """What to exit with."""
    return error.args[0] if isinstance(error, Interrupted) else INTERRUPTED_STATUS


def run() -> NoReturn:
    """Run the command that `sys.argv` names, and exit with its status."""
    import importlib.util

    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(f'daramjwee: the command line needs {" and ".join(missing)}: pip install "daramjwee[cli]"\n')
        sys.exit(MISSING_STATUS)
    try:
        import daramjwee.cli.render  # noqa: F401 - before the handlers, which use it

        _end_on_signals()
        from daramjwee.cli.app import start
    except KeyboardInterrupt as error:
        sys.exit(status_of(error))
    sys.exit(start(sys.argv[1:]))


def _end_on_signals() -> None:
    """Say at once that it is over, and leave by an exception, so that files and child processes are cleaned away."""
    asked_at = -math.inf

    def leave(number: int, _frame: FrameType | None) -> None:
        nonlocal asked_at
        if monotonic() - asked_at < SAME_SIGNAL_SECONDS:
            return
        asked_at = monotonic()
        _say("interrupted" if number == signal.SIGINT else f"interrupted ({signal.Signals(number).name})")
        raise Interrupted(128 + number)

    for name, usual in (
        ("SIGINT", signal.default_int_handler), ("SIGTERM", signal.SIG_DFL), ("SIGHUP", signal.SIG_DFL),
    ):  # fmt: skip
        number = getattr(signal, name, None)
        # Whoever started us may want it otherwise: nohup does, and a shell for what it runs in the background.
        if number is not None and signal.getsignal(number) is usual:
            signal.signal(number, leave)
            # The interpreter gives signals back to the system as it ends: the same wish once more would kill us then,
            # with another status, though all has been cleaned away.
            atexit.register(signal.signal, number, signal.SIG_IGN)


def _say(text: str) -> None:
    """A line on standard error, from a signal handler: the signal may have come in the middle of another line."""
    from daramjwee.cli.render import tell

    try:
        tell(text)
    except RuntimeError:  # "reentrant call": past the buffer, then
        with suppress(OSError):
            os.write(2, f"\n{text}\n".encode())


def __getattr__(name: str) -> Any:
    if name == "app":  # for whoever wants to look at the commands
        from daramjwee.cli.app import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
