"""A minute under mixed load, in a process of its own (`long_run` of tests/conftest.py): what `make soak` does in ten."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "soak.py"
# Other tests run meanwhile, and other programs: a thread that waits for a processor holds its chunk. An arena more or less
# (2 MiB) is 5 % already; three of them are less than a lease kept by each of the operations, some 60,000 where it is slow.
NOISE_BYTES = 6 << 20


def run(*arguments, timeout):
    """The script in a fresh interpreter, with our source first."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-W", "error", str(TOOL), *arguments], env=environment, capture_output=True, text=True,
        timeout=timeout, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def soak():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("soak", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module  # its structs look their names up there
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["soak"]


@pytest.mark.timeout(300)
def test_a_minute_of_mixed_load_leaves_memory_level_and_counts_exact(long_run):
    """Resident memory as it was, every operation counted once, and idle memory back within `max_idle_age` and one
    `metrics_interval`, by itself."""
    output, errors = long_run.communicate(timeout=150)
    report = json.loads(output)
    grown = report["resident_late"] - report["resident_early"]
    level = grown <= max(NOISE_BYTES, 0.05 * report["resident_early"])
    problems = [problem for problem in report["problems"] if not (level and problem.startswith("resident"))]
    assert (problems, long_run.returncode, errors) == ([], int(not report["ok"]), "")
    assert report["returned_after"] <= report["allowed"] == 10
    assert set(report["kinds"]) == {
        "lease", "plain_to_plain", "file_to_file", "file_to_plain", "plain_to_file", "file_to_socket", "socket_to_plain",
        "tee",
    }  # fmt: skip
    assert report["operations"] > 1000


def test_each_thing_that_can_be_wrong_fails_the_run(soak, tmp_path, monkeypatch):
    """Memory that grows, a count that is off, memory that stays: each is told, and nothing else is."""
    grown = iter(range(50 * 2**20, 2**40, 2**20))
    monkeypatch.setattr(soak, "resident", lambda: next(grown))
    monkeypatch.setattr(soak, "SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr(soak.Worker, "tee", lambda worker: None)  # counted by the load, unknown to the pool
    config = BufferPoolConfig(max_idle_age=0.05, metrics_interval=0.05)
    with AdaptiveBufferPool(config) as pool:
        monkeypatch.setattr(pool.ledger.__class__, "held", property(lambda ledger: 1))
        report = soak.soak(pool, 1.0, 2, 1, tmp_path)
        monkeypatch.undo()
    assert not report.ok
    assert report.returned_after is None
    told = [problem.partition(" ")[0] for problem in report.problems]
    assert told == ["resident", "operations:", "operations", "copies", "0B"]
    assert soak.to_text(report).count("FAILED: ") == len(told)


def test_a_load_whose_bytes_come_out_wrong_fails(soak, tmp_path, monkeypatch):
    """Every copy is checked by its checksum, and the error is shown."""
    monkeypatch.setattr(soak.Sum, "write", lambda self, piece: len(piece))
    with AdaptiveBufferPool(BufferPoolConfig(max_idle_age=0.05, metrics_interval=0.05)) as pool:
        report = soak.soak(pool, 1.0, 1, 1, tmp_path)
    assert any("came out other than they went in" in problem for problem in report.problems)


@pytest.mark.parametrize(
    "arguments", [("--seconds", "soon"), ("--seconds", "1"), ("--threads", "0"), ("--max-idle-age", "x")]
)
def test_arguments_that_cannot_be_are_refused(arguments):
    """At once, with status 2."""
    done = run(*arguments, timeout=50)
    assert done.returncode == 2
    assert "error:" in done.stderr
