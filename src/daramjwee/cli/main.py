"""The entry point of the `daramjwee` command.

Invariant: this module imports without the extra `cli`, only to say that it is missing. A command that is ended by a
signal goes through its `finally` blocks first.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from types import FrameType

NEEDED = ("typer", "rich")
MISSING_STATUS = 2
INTERRUPTED_STATUS = 128 + signal.SIGINT


def run() -> NoReturn:
    """Run the command that `sys.argv` names, and exit with its status."""
    import importlib.util

    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(f'daramjwee: the command line needs {" and ".join(missing)}: pip install "daramjwee[cli]"\n')
        sys.exit(MISSING_STATUS)
    try:
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                _end_on(getattr(signal, name))
        from daramjwee.cli.app import start
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_STATUS)
    sys.exit(start(sys.argv[1:]))


def _end_on(number: signal.Signals) -> None:
    """Leave by an exception, so that temporary files and child processes are cleaned away."""
    if signal.getsignal(number) is not signal.SIG_DFL:
        return  # whoever started us (nohup, for one) wants it otherwise

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(number, leave)


def __getattr__(name: str) -> Any:
    if name == "app":  # for whoever wants to look at the commands
        from daramjwee.cli.app import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
