"""`daramjwee doctor`: the report, its exit status, and what it is told to look at."""

from __future__ import annotations

import json
import re

import pytest

from daramjwee.cli import doctor as command
from daramjwee.observe.doctor import CHECKS, Check, State


def report(done):
    """The checks of a `--json` run by name; of those with several lines, the last."""
    return {check["name"]: check for check in json.loads(done.stdout)}


def test_this_machine_is_examined_without_a_folder(daramjwee):
    """One line for each check that needs none, and the sums at the end."""
    done = daramjwee("doctor")
    assert done.returncode in {0, command.PROBLEM_STATUS}, done.stderr
    lines = done.stdout.decode().splitlines()
    names = [line.split()[1] for line in lines[:-1] if not line.startswith(" ")]
    assert names == [name for name in CHECKS if not name.startswith("folder")]
    assert re.fullmatch(r"\d+ ok, \d+ notes?, \d+ problems?", lines[-1])
    assert done.stderr == b""


def test_a_folder_and_json(daramjwee, folder):
    """The same as data; the folder adds its checks and is left as it was."""
    folder.mkdir(mode=0o700)
    done = daramjwee("doctor", folder, "--json")
    checks = report(done)
    assert set(checks) == set(CHECKS)
    assert checks["folder"] == {"name": "folder", "state": "ok", "seen": f"{folder} is empty", "remedy": ""}
    assert checks["folder_operations"]["state"] == "ok"
    assert list(folder.iterdir()) == []


def test_a_problem_ends_with_its_own_status_and_says_what_to_do(daramjwee, tmp_path):
    """Here a folder of somebody else's files."""
    (tmp_path / "diary.txt").write_text("")
    done = daramjwee("doctor", tmp_path)
    assert done.returncode == command.PROBLEM_STATUS
    text = done.stdout.decode()
    assert re.search(r"^problem +folder +\S+ holds \d+ other files", text, re.MULTILINE)
    assert re.search(r"^ +-> give an empty or a new folder", text, re.MULTILINE)


def test_settings_are_checked_all_at_once(daramjwee, tmp_path):
    """From options and files, each problem a line with its mend."""
    settings = tmp_path / "buffers.toml"
    settings.write_text('[buffers]\nchunk_size = "soon"\n')
    done = daramjwee("doctor", "--buffers", settings, "--buffers", "min_buffer_size=2MiB", "--json")
    assert done.returncode == command.PROBLEM_STATUS
    found = [check for check in json.loads(done.stdout) if check["name"] == "configuration"]
    assert [check["state"] for check in found] == ["problem", "problem"]
    assert {check["seen"] for check in found} == {"chunk_size = 'soon'", "min_buffer_size = '2MiB'"}


def test_processes_and_their_memory_are_added_up(daramjwee, monkeypatch):
    """By option, or by what a server's environment says; what is no number there is left to the server."""
    needed = report(daramjwee("doctor", "--json", "--processes", "4000000"))["machine_memory"]
    assert needed["state"] == "problem"
    assert "4000000 processes may need 512MiB" in needed["seen"]
    monkeypatch.setenv(command.PROCESSES_VARIABLE, "3")
    seen = report(daramjwee("doctor", "--json", "--memory-limit", "1MiB"))["machine_memory"]["seen"]
    assert "3 processes may need 1MiB of cache" in seen
    monkeypatch.setenv(command.PROCESSES_VARIABLE, "many")
    assert "a process may need" in report(daramjwee("doctor", "--json"))["machine_memory"]["seen"]


@pytest.mark.parametrize("arguments", [("--memory-limit", "much"), ("",), ("--processes", "0"), ("--processes", "two")])
def test_arguments_that_cannot_be_are_usage_errors(daramjwee, arguments):
    """Status 2, before anything is looked at."""
    done = daramjwee("doctor", *arguments)
    assert done.returncode == 2
    assert done.stdout == b""


def test_names_of_files_cannot_move_the_cursor():
    """A line stays one line, whatever a path is called."""
    text = command.to_text([Check("folder", State.PROBLEM, "a\x1b[31m\nb", "mend"), Check("gil", State.NOTE, "x", "y")])
    assert text.splitlines() == [
        "problem  folder  a\\x1b[31m\\nb", " " * 17 + "-> mend", "note     gil     x", " " * 17 + "-> y",
        "0 ok, 1 note, 1 problem",
    ]  # fmt: skip


def test_the_docs_name_the_status_of_a_problem():
    """docs/cli.md and the help say the same number."""
    from pathlib import Path

    from daramjwee.cli.app import EPILOG

    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert f"| {command.PROBLEM_STATUS} | `doctor` found a problem; `config check`:" in page
    assert f"{command.PROBLEM_STATUS} a problem was found (doctor, config check)" in EPILOG
