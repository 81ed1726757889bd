"""The runner: which scenarios run, what becomes of one that fails, and the command line."""

from __future__ import annotations

import json

import pytest

from daramjwee.bench import runner
from daramjwee.bench.timing import ChildFailed
from daramjwee.errors import ConfigError


@pytest.fixture
def child(monkeypatch):
    """Stands in for a process that measures; records what it was asked for."""
    asked = []

    def in_child(function, *, name, quick):
        asked.append((function, name, quick))
        if name == "pool":
            raise ChildFailed("pool: no room")
        wanted = 1.0 if name == "hit" else 3.0
        return [{"scenario": name, "name": "figure", "seen": 2.0, "target": {"relation": "<=", "wanted": wanted}}]

    monkeypatch.setattr(runner, "in_child", in_child)
    return asked


def test_every_scenario_runs_once_in_a_process_of_its_own(child):
    """All of them when none is named."""
    told = []
    report = runner.run(quick=True, tell=told.append)
    assert [name for _, name, _ in child] == list(runner.SCENARIOS)
    assert {function for function, _, _ in child} == {"daramjwee.bench.runner:run_one"}
    assert all(quick for _, _, quick in child)
    assert len(told) == len(runner.SCENARIOS)
    assert report.quick


def test_only_what_was_asked_for_runs_and_only_once(child):
    """In the order asked for."""
    report = runner.run(["file", "hit", "file"])
    assert [row.scenario for row in report.rows] == ["file", "hit"]


def test_an_unknown_scenario_is_refused_before_anything_runs(child):
    """Every wrong name is listed, with those that exist."""
    with pytest.raises(ConfigError, match=r"2 problems(.|\n)*speed(.|\n)*choose from import, hit(.|\n)*joy"):
        runner.run(["speed", "hit", "joy"])
    assert child == []


def test_a_scenario_that_fails_does_not_stop_the_others(child):
    """The report has the rows of the rest, and says what failed."""
    report = runner.run()
    assert report.failures == {"pool": "pool: no room"}
    assert {row.scenario for row in report.rows} == set(runner.SCENARIOS) - {"pool"}


def test_exit_status_tells_failure_from_missed_targets(child, capsys):
    """A missed target is a figure, not a failure, unless --strict says so."""
    assert runner.main(["--only", "file"]) == 0
    assert runner.main(["--only", "hit"]) == 0
    assert runner.main(["--only", "hit", "--strict"]) == 1
    assert runner.main(["--only", "pool"]) == 1
    assert "missed: hit: figure" in capsys.readouterr().out


def test_wrong_arguments_end_with_status_two_and_the_reason(child, capsys):
    """As command lines do."""
    with pytest.raises(SystemExit) as ended:
        runner.main(["--only", "speed"])
    assert ended.value.code == 2
    assert "only = 'speed': is no scenario" in capsys.readouterr().err


def test_json_goes_to_a_file_beside_the_table_or_alone_to_standard_output(child, capsysbinary, tmp_path):
    """`--json FILE` keeps the table for people; `--json -` prints nothing else."""
    file = tmp_path / "report.json"
    runner.main(["--only", "hit", "--json", str(file)])
    assert b"figure" in capsysbinary.readouterr().out
    assert json.loads(file.read_bytes())["rows"][0]["met"] is False
    runner.main(["--only", "hit", "--json", "-"])
    assert json.loads(capsysbinary.readouterr().out)["rows"][0]["seen"] == 2.0
