"""`daramjwee config migrate`: what it prints, what it exits with, and what it leaves on the disk."""

from __future__ import annotations

import json
import os
import tomllib

import pytest

from daramjwee.cli.config_migrate import to_lines
from daramjwee.config.migrate import migrate as run

OLD = """\
# tuned in March
Enabled = true
DefaultBufferSize = 16384
MaxBufferSize = 32768
EnableLogging = false
"""


@pytest.fixture
def old(tmp_path):
    """A file of the Go library's names; its path."""
    path = tmp_path / "cache.toml"
    path.write_text(OLD)
    path.chmod(0o640)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def words(output):
    return " ".join(output.decode().split())


def test_a_dry_run_then_the_migration_then_the_way_back(daramjwee, old):
    """As a person does it: see what would change, change it, use it, change it back."""
    before = os.stat(old)
    dry = daramjwee("config", "migrate", old, "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, b"")
    assert b"schema 0 -> 3, dry run: nothing is written\n" in dry.stdout
    assert 'renamed DefaultBufferSize = 16384 -> buffers.default_buffer_size = "16KiB"' in words(dry.stdout)
    assert "default MinBufferSize left out -> buffers.min_buffer_size" in words(dry.stdout)
    assert "dropped EnableLogging = false -> dropped: alerts are always logged" in words(dry.stdout)
    assert b"comments of the file are not carried over" in dry.stdout
    promised = dry.stdout.decode().partition("\n\n")[2]
    assert (old.read_text(), os.listdir(old.parent).count("cache.toml.schema0.bak")) == (OLD, 0)

    done = daramjwee("config", "migrate", old)
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"daramjwee config migrate --rollback {old}" in done.stdout.decode()
    assert old.read_text() == promised
    assert tomllib.loads(promised)["buffers"]["max_buffer_size"] == "32KiB"

    shown = daramjwee("config", "show", old, "--json")
    assert json.loads(shown.stdout)["config"]["buffers"]["max_buffer_size"] == 32768
    again = daramjwee("config", "migrate", old)
    assert (again.returncode, words(again.stdout)) == (0, f"{old}: schema 3 already, nothing to do")

    back = daramjwee("config", "migrate", "--rollback", old)
    assert (back.returncode, words(back.stdout)) == (0, f"{old}: schema 3 -> 0, put cache.toml.schema0.bak back")
    after = os.stat(old)
    assert old.read_text() == OLD
    assert (after.st_mode, after.st_mtime_ns, after.st_ino) == (before.st_mode, before.st_mtime_ns, before.st_ino)


def test_json_says_the_same_to_programs(daramjwee, old):
    """One document: schemas, every field, the new text."""
    done = daramjwee("config", "migrate", old, "--json", "--dry-run")
    document = json.loads(done.stdout)
    assert (document["action"], document["dry_run"], document["before"], document["after"]) == ("migrate", True, 0, 3)
    assert tomllib.loads(document["text"])["schema"] == 3
    changes = {change["old"]: change for change in document["changes"]}
    assert changes["MaxBufferSize"] == {
        "kind": "renamed", "old": "MaxBufferSize", "given": 32768, "new": "buffers.max_buffer_size", "value": "32KiB",
        "reason": "",
    }  # fmt: skip
    assert changes["EnableLogging"]["new"] is None
    assert "given" not in changes["MinBufferSize"]


def test_a_file_with_problems_is_status_2_and_stays(daramjwee, old):
    """All of them, by the names in the file; standard output stays empty."""
    old.write_text("Enabled = 1\nChunkSise = 3\n")
    for option in ("--json", "--dry-run"):
        done = daramjwee("config", "migrate", old, option)
        assert (done.returncode, done.stdout) == (2, b"")
        assert "Enabled = 1: must be True or False" in words(done.stderr)
        assert "ChunkSise = 3: is no field; did you mean ChunkSize?" in words(done.stderr)
    assert old.read_text() == "Enabled = 1\nChunkSise = 3\n"


def test_what_cannot_be_rolled_back_is_status_2(daramjwee, old):
    """No backup; or the file was changed since."""
    done = daramjwee("config", "migrate", "--rollback", old)
    assert done.returncode == 2
    assert "(cache.toml.schemaN.bak): there is nothing to roll back" in words(done.stderr)
    run(str(old))
    old.write_text(old.read_text() + "workers = 2\n")
    done = daramjwee("config", "migrate", "--rollback", old)
    assert done.returncode == 2
    assert "was changed since it was migrated" in words(done.stderr)


def test_a_file_that_is_not_there_is_status_2(daramjwee, tmp_path):
    """As with the other commands of a configuration, with the name and the system's reason."""
    for option in ("--dry-run", "--rollback"):
        done = daramjwee("config", "migrate", tmp_path / "no.toml", option)
        assert (done.returncode, done.stdout) == (2, b"")
        assert f"FILE = '{tmp_path}/no.toml': cannot be read: No such file or directory" in words(done.stderr)


def test_a_name_cannot_upset_the_terminal(tmp_path):
    """Values of the file are shown as JSON has them."""
    path = tmp_path / "cache.json"
    path.write_text('{"WorkerStrategy": "\\u001b[31mred"}')
    assert "\x1b" not in "\n".join(to_lines(run(str(path), dry_run=True)))
