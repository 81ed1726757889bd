"""The runner: which scenarios run, what becomes of one that fails, and the command line."""

from __future__ import annotations

import json

import pytest

from daramjwee.bench import pictures, runner
from daramjwee.bench.timing import ChildFailed
from daramjwee.errors import ConfigError, Problem


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
    assert "SCENARIO = 'speed': is no scenario" in capsys.readouterr().err


def test_json_goes_to_a_file_beside_the_table_or_alone_to_standard_output(child, capsysbinary, tmp_path):
    """`--json FILE` keeps the table for people; `--json -` prints nothing else."""
    file = tmp_path / "report.json"
    runner.main(["--only", "hit", "--json", str(file)])
    assert b"figure" in capsysbinary.readouterr().out
    assert json.loads(file.read_bytes())["rows"][0]["met"] is False
    runner.main(["--only", "hit", "--json", "-"])
    assert json.loads(capsysbinary.readouterr().out)["rows"][0]["seen"] == 2.0


def test_what_is_kept_is_the_report_beside_the_table(child, capsys, tmp_path):
    """As `make bench` does it; `--json -` and everything else stay as they are."""
    folder = tmp_path / "build" / "bench"
    assert runner.main(["--only", "hit", "--keep", str(folder)]) == 0
    said = capsys.readouterr()
    assert "figure" in said.out
    assert f"written to {folder / 'report.json'}" in said.err
    assert json.loads((folder / "report.json").read_bytes())["rows"][0]["only"] == "hit"
    runner.main(["--only", "hit", "--keep", str(folder), "--json", "-"])
    assert json.loads(capsys.readouterr().out)["took"]["hit"] >= 0


def test_a_folder_that_cannot_be_is_said_before_anything_is_measured(child, capsys, tmp_path):
    """Twelve minutes are too long to learn it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        runner.main(["--keep", str(tmp_path / "file")])
    assert "File exists" in capsys.readouterr().err
    assert child == []


def test_pictures_that_cannot_be_drawn_take_nothing_with_them(child, capsys, monkeypatch, tmp_path):
    """Without matplotlib the report is there all the same."""

    def refuse(folder, report):
        raise ConfigError([Problem("--pictures", folder, "needs matplotlib")], subject="bench")

    monkeypatch.setattr(pictures, "of_report", refuse)
    assert runner.main(["--only", "hit", "--keep", str(tmp_path)]) == 0
    assert "needs matplotlib" in capsys.readouterr().err
    assert (tmp_path / "report.json").exists()


def test_a_page_is_made_of_a_report_and_measures_nothing(child, capsys, tmp_path):
    """The report as `--json` wrote it."""
    source, target = tmp_path / "report.json", tmp_path / "page.md"
    runner.main(["--only", "hit", "--json", str(source)])
    child.clear()
    capsys.readouterr()
    assert runner.main(["--page", str(target), "--from", str(source)]) == 0
    assert capsys.readouterr().out.split() == [str(target), str(tmp_path / "page.json")]
    assert "hit: figure" in target.read_text()
    assert child == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--page", "p.md"], "--page needs --from"),
        (["--from", "r.json"], "--from goes with --page"),
        (["--page", "p.md", "--from", "r.json", "--quick"], "it measures nothing"),
        (["--page", "p.md", "--from", "r.json", "--only", "hit"], "it measures nothing"),
        (["--page", "p.md", "--from", "r.json"], "is no report of the bench"),
        (["--pictures", "f", "--strict"], "runs no scenario"),
    ],
)
def test_what_does_not_go_together_is_refused(child, capsys, monkeypatch, tmp_path, arguments, reason):
    """With the reason, before anything is measured."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        runner.main(arguments)
    assert ended.value.code == 2
    assert reason in " ".join(capsys.readouterr().err.split())
    assert child == []
    assert list(tmp_path.iterdir()) == []
