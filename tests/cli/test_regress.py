"""`daramjwee regress`: arguments, exit statuses, and what is printed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from daramjwee.bench.regress import guard, trees
from daramjwee.cli.regress import regress
from daramjwee.errors import ConfigError

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="module")
def commit(tmp_path_factory):
    """A checkout of today's tree, one commit old."""
    root = tmp_path_factory.mktemp("git") / "repository"
    package = root / trees.PACKAGE
    shutil.copytree(SOURCE / "daramjwee", package, ignore=shutil.ignore_patterns("__pycache__"))
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run(
            ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false", *arguments],
            cwd=root, check=True, capture_output=True,
        )  # fmt: skip
    return root


@pytest.fixture
def repository(commit, monkeypatch):
    """The same, as the working directory."""
    monkeypatch.chdir(commit)
    return commit


def test_the_same_tree_is_compared_with_its_commit(repository, monkeypatch, capsys):
    """Two restarts are too few to be sure of anything; the counters are exact all the same."""
    monkeypatch.setattr(guard, "QUICK", guard.Pace(restarts=2, turns=2, stages=1))
    assert regress(against="HEAD", only=["lease"], quick=True, json=True) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    (row,) = found["compared"]
    assert row["scenario"] == "lease"
    assert row["verdict"] in {"same", "faster", "not sure"}
    assert row["processor"]["restarts"] == 2
    assert (found["counted"], found["growths"], found["slower"]) == (1, [], [])
    assert "turns of processes 1 of 2" in said.err


def test_counters_are_kept_and_a_tree_that_does_more_exits_with_ten(repository, tmp_path, capsys):
    """Written, read back, and then held to a file that allows less."""
    file = tmp_path / "baseline.json"
    assert regress(write_baseline=str(file), only=["copy-256KiB"]) == 0
    assert regress(baseline=str(file), only=["copy-256KiB"]) == 0
    out = capsys.readouterr().out
    assert "exact counters of 1 scenario: as they were" in out
    assert out.splitlines()[-1].startswith("no counter grew")
    kept = json.loads(file.read_bytes())
    kept["scenarios"]["copy-256KiB"]["counts"]["write_calls"] = 0
    file.write_text(json.dumps(kept))
    assert regress(baseline=str(file), only=["copy-256KiB"]) == 10
    out = capsys.readouterr().out
    assert "copy-256KiB: write_calls GREW from 0 to 1 each" in out
    assert out.splitlines()[-1].startswith("SLOWER: copy-256KiB: write_calls")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "say what to compare with: --against GIT_REV or --baseline FILE"),
        ({"against": "HEAD", "baseline": "x"}, "needs no file; leave --baseline and --write-baseline out"),
        ({"baseline": "x", "quick": True}, "--quick = True: goes with --against"),
        ({"write_baseline": ""}, "is no name of a file"),
        ({"write_baseline": "/"}, "is no name of a file"),
        ({"write_baseline": "no/such/folder/x"}, "does not exist; make it first"),
        ({"against": "HEAD", "only": ["nonsense"]}, "is no scenario; choose from hit"),
        ({"baseline": "no-such-file"}, "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_measured(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        regress(**arguments)
    assert "counting" not in capsys.readouterr().err


def test_outside_of_a_repository_it_is_a_usage_error_with_a_message(daramjwee, tmp_path):
    """As in sources that were unpacked from an archive: status 2, and what to do."""
    package = tmp_path / "unpacked" / trees.PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    done = subprocess.run(
        daramjwee.line("regress", "--against", "HEAD"), cwd=tmp_path / "unpacked", capture_output=True, timeout=50,
        env=daramjwee.environment() | {"GIT_CEILING_DIRECTORIES": str(tmp_path)}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2
    assert b"is no git repository; run it in a clone, or compare with a file: --baseline FILE" in done.stderr
    assert done.stdout == b""


def test_the_page_of_the_command_names_every_scenario():
    """What `--only` takes."""
    page = (SOURCE.parent / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [name for name in guard.SCENARIOS if f"`{name}`" not in page] == []
