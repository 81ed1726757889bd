"""Showing things: lines, JSON, a progress bar. What is read by programs goes to standard output, the rest to error.

Invariant: text that comes from outside (URLs, file names, messages) cannot move the cursor or colour the screen.
Threads: one; a `Bar` may be moved from any thread.
Design: docs/cli.md
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO

import msgspec

from daramjwee.units import format_size


def tell(text: str) -> None:
    """A line for a person, on standard error. Nobody can be told when that is closed or fails; how the command ends
    does not depend on it."""
    if sys.stderr is None:  # `print` would take standard output
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)


def show(text: str, end: str = "\n") -> None:
    """A result, on standard output."""
    try:
        print(text, end=end)
    except OSError as error:
        error.filename = "standard output"
        raise


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    show(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def printable(text: str, keep: str = "") -> str:
    """`text` with control characters shown instead of obeyed."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def flush_stdout() -> None:
    """Write what is left for standard output. Where that fails, what is left goes nowhere: the interpreter would try
    again at its end, and complain in words of its own."""
    if sys.stdout is None:  # closed by whoever started us
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        _silence(sys.stdout)
        error.filename = "standard output"
        raise


def _silence(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at `stream`."""
    return stream is not None and not stream.closed and stream.isatty()


def format_rate(count: float, seconds: float) -> str:
    """Bytes a second, for people."""
    return f"{format_size(count / max(seconds, 1e-9))}/s"


def polled_progress(poll: Callable[[Any], object], *columns: Any, console: Any) -> Any:
    """A rich `Progress`, wiped away at its end, that calls `poll(progress)` before it draws. Whoever moves it only
    notes how far he is: neither a lock nor a lost last step."""
    from rich.progress import Progress

    class Polled(Progress):
        def get_renderables(self) -> Any:
            poll(self)
            return super().get_renderables()

    return Polled(*columns, console=console, transient=True, redirect_stdout=False)


class Bar:
    """A progress bar on standard error while its `with` lasts; nothing when nobody looks."""

    def __init__(self, title: str) -> None:
        self._title = printable(title)
        self._at: tuple[int, int | None] = (0, None)
        self._progress: Any = None

    def moved(self, done: int, total: int | None) -> None:
        """`done` bytes of `total` (None: nobody knows)."""
        self._at = (done, total)

    def __enter__(self) -> Self:
        if is_terminal(sys.stderr):
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

            self._progress = polled_progress(
                self._poll, TextColumn("{task.description}", markup=False), BarColumn(),
                DownloadColumn(binary_units=True), TransferSpeedColumn(), console=Console(stderr=True),
            )  # fmt: skip
            self._progress.add_task(self._title, total=None)
            self._progress.start()
        return self

    def _poll(self, progress: Any) -> None:
        done, total = self._at
        for task in progress.task_ids:
            progress.update(task, completed=done, total=total)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()
