"""docs/tutorial.md is followed as a newcomer would: its files are saved, its commands run, their output compared."""

from __future__ import annotations

import doctest
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(python|toml|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
# What the page has run in terminals of their own.
STAY = ("python origin.py", "python busy.py")
TIME = re.compile(r"\d+\.\d+ s\b")


class Step(NamedTuple):
    """A file to save, or a command to run; and the text of it, or what it has to print."""

    kind: str
    name: str
    text: str


def steps() -> list[Step]:
    """The fences of the page, in order."""
    found = []
    for kind, text in FENCE.findall((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")):
        if kind == "console":
            found += [Step("run", command, output) for command, output in COMMAND.findall(text)]
        else:
            found.append(Step("save", text.partition("\n")[0].removeprefix("# "), text))
    return found


class Terminals:
    """A folder in which commands run as on the page, and the processes that stay."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tutorial"
        self.folder.mkdir()
        tools = folder / "bin"
        tools.mkdir()
        for name, rest in (("python", ""), ("daramjwee", " -c 'from daramjwee.cli.main import run; run()'")):
            (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{rest} "$@"\n', encoding="utf-8")
            (tools / name).chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = str(probe.getsockname()[1])
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DARAMJWEE_")}
        self.environment = kept | {
            "PATH": f"{tools}:/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "error", "COLUMNS": "100",
        }  # fmt: skip
        self.log = (folder / "log").open("w")
        self.staying: list[subprocess.Popen[str]] = []

    def save(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text.replace("8000", self.port), encoding="utf-8")

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=150,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        return done.stdout

    def stay(self, command: str, lines: int) -> str:
        """The first lines of what goes on running."""
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"], cwd=self.folder, env=self.environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.log, text=True,
        )  # fmt: skip
        self.staying.append(process)
        assert process.stdout is not None
        return "".join(process.stdout.readline() for _ in range(lines))

    def close(self) -> None:
        for process in self.staying:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
        self.log.close()


@pytest.fixture
def terminals(tmp_path):
    terminals = Terminals(tmp_path)
    yield terminals
    terminals.close()


def test_tutorial_prints_what_it_says(terminals):
    """Every program, command and output of the page, from an empty folder to the end; times may differ."""
    checker = doctest.OutputChecker()
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    ran = 0
    for kind, name, text in steps():
        if kind == "save":
            terminals.save(name, text)
            continue
        wanted = text.replace("8000", terminals.port)
        seen = terminals.stay(name, wanted.count("\n")) if name in STAY else terminals.run(name)
        assert checker.check_output(TIME.sub("N s", wanted), TIME.sub("N s", seen), flags), f"$ {name}\n{seen}"
        ran += 1
    assert ran > 10
