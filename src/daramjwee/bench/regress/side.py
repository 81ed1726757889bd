"""One process of the guard: a worker over one tree, asked over pipes.

Invariant: whatever becomes of a worker, its end is waited for, and its last words are part of the error.
Threads: one.
Design: docs/design/bench.md
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from daramjwee.bench.regress import worker
from daramjwee.errors import DaramjweeError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

WORKER = Path(worker.__file__)
COUNTERS = WORKER.parent.parent / "counters.py"
# A batch takes milliseconds; a machine that stands still for longer than this gives no figures anyway.
ANSWER_SECONDS = 120.0
# What would make a process of ours run otherwise than the one beside it.
FOREIGN = (
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPYCACHEPREFIX",
    "PYTHONSTARTUP",
    "PYTHONPROFILEIMPORTTIME",
    "PYTHONTRACEMALLOC",
)


class GuardFailed(DaramjweeError):
    """A comparison could not be finished: a process of it ended, or did not answer. Nothing is left behind."""


class Cannot(NamedTuple):
    """A tree cannot do what it was asked, for this reason."""

    reason: str


class Side:
    """`with Side(tree, shared, own, seed=7) as side`: a process that imports daramjwee from `tree`. `shared`: a folder
    that all sides read from; `own`: the one it writes to. `seed`: of its hashes."""

    def __init__(self, tree: Path, shared: Path, own: Path, *, seed: int) -> None:
        own.mkdir(parents=True, exist_ok=True)
        # Not another pipe: nobody would read it while the process works.
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), str(shared), str(own), str(COUNTERS)],
            env={name: value for name, value in kept.items() if not name.startswith("DARAMJWEE_")}
            | {"PYTHONPATH": str(tree), "PYTHONHASHSEED": str(seed)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, cwd=own, bufsize=0,
        )  # fmt: skip
        self._unread = b""
        self.tree = tree

    def ask(self, what: str, **arguments: object) -> dict[str, Any] | Cannot:
        """What the worker answers."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode({"do": what, **arguments}) + b"\n")
            answer: dict[str, Any] = msgspec.json.decode(self._line(what))
        except BrokenPipeError:
            raise self._failed(f"ended before it was asked for its {what}") from None
        return Cannot(answer["cannot"]) if "cannot" in answer else answer

    def check(self) -> str:
        """The version of what it has imported; that must be its tree."""
        found = self.ask("tree")
        if isinstance(found, Cannot):
            raise self._failed(f"cannot import daramjwee: {found.reason}")
        if not Path(found["path"]).is_relative_to(self.tree):
            raise self._failed(f"imported {found['path']}, which is not of its tree")
        return str(found["version"])

    def _line(self, what: str) -> bytes:
        assert self._process.stdout is not None
        file = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            if not select.select([file], [], [], ANSWER_SECONDS)[0]:
                raise self._failed(f"gave no answer to {what} within {ANSWER_SECONDS:.0f} s")
            more = os.read(file, 65536)
            if not more:
                raise self._failed(f"ended when it was asked for its {what}")
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _failed(self, what: str) -> GuardFailed:
        self.close(kill=True)
        return GuardFailed(f"the process over {self.tree} {what}. Its last words: {self.words or 'none'}")

    def close(self, *, kill: bool = False) -> None:
        """End the process, and wait for it."""
        if self._words.closed:
            return
        if kill:
            self._process.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._words.seek(0)
        self.words = self._words.read().decode(errors="replace").strip()[-2000:]
        self._words.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(kill=kind is not None)
