"""`daramjwee bench`: the runner's report, as a table and as JSON."""

from __future__ import annotations

import json
import tomllib

import pytest

from daramjwee.buffers import BufferPoolConfig


def test_one_scenario_is_measured_and_reported_in_json(daramjwee):
    """Rows with figures and targets on standard output; what is going on, on standard error."""
    done = daramjwee("bench", "import", "--quick", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert report["quick"] is True
    assert report["rows"]
    assert all(row["scenario"].startswith("import") for row in report["rows"])
    assert b"measuring import" in done.stderr


def test_an_unknown_scenario_is_a_usage_error(daramjwee):
    """Status 2, and the names to choose from."""
    done = daramjwee("bench", "nonsense")
    assert done.returncode == 2
    assert b"nonsense" in done.stderr
    assert b"import" in done.stderr


def test_calibration_writes_settings_that_a_configuration_takes(monkeypatch, tmp_path, capsys):
    """From measuring to the file, with tiny turns; the table is what it was decided from."""
    from daramjwee.bench import calibrate, curve
    from daramjwee.cli.bench import bench

    measure = curve.measure
    monkeypatch.setattr(calibrate, "QUICK_SIZES", (256 * 1024,))
    monkeypatch.setattr(curve, "measure", lambda *args, rounds, seconds: measure(*args, rounds=3, seconds=seconds / 20))
    file = tmp_path / "buffers.toml"
    assert bench(calibrate=True, quick=True, output=str(file)) == 0
    BufferPoolConfig(**tomllib.loads(file.read_text())["buffers"])
    said = capsys.readouterr()
    for words in ("file to file, GB/s", "chunks of 512KiB", "plain to socket, GB/s", "large_object_strategy"):
        assert words in said.out
    assert said.out.endswith(f"written to {file}\n")
    assert "measuring file to socket" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibrate", "--output", "{there}"], "is there already; name another file, or say --force"),
        (["--calibrate", "--output", "{folder}"], "is a folder"),
        (["--calibrate", "--output", "{folder}/no/such.toml"], "does not exist; make it first"),
        (["--calibrate", "--output="], "is empty; name a file"),
        (["--calibrate", "hit"], "measures no scenario"),
        (["--calibrate", "--strict"], "has no targets"),
        (["--output", "x.toml"], "goes with --calibrate"),
        (["--force"], "goes with --calibrate --output FILE"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_measured(daramjwee, tmp_path, arguments, message):
    """Status 2, and what was there stays as it was."""
    there = tmp_path / "there.toml"
    there.write_text("mine")
    done = daramjwee("bench", *(each.format(there=there, folder=tmp_path) for each in arguments))
    assert done.returncode == 2
    assert message in " ".join(done.stderr.decode().split())
    assert b"measuring" not in done.stderr
    assert there.read_text() == "mine"


@pytest.fixture
def measured(monkeypatch):
    """Calibration without the minute."""
    from daramjwee.bench import calibrate

    found = calibrate.calibration({}, quick=True)
    monkeypatch.setattr(calibrate, "calibrate", lambda **_: found)
    return found


def test_force_replaces_a_file_and_only_a_file(measured, tmp_path, capsys):
    """Whole, or not at all."""
    from daramjwee.cli.bench import bench

    file = tmp_path / "buffers.toml"
    file.write_text("mine")
    assert bench(calibrate=True, output=str(file), force=True) == 0
    assert tomllib.loads(file.read_text())["buffers"]["default_buffer_size"] == "256KiB"
    assert [path.name for path in tmp_path.iterdir()] == ["buffers.toml"]


def test_a_file_that_appears_meanwhile_is_not_overwritten(monkeypatch, measured, tmp_path):
    """Somebody else's file is worth more than a minute."""
    from daramjwee.bench import calibrate
    from daramjwee.cli.bench import bench
    from daramjwee.errors import ConfigError

    file = tmp_path / "buffers.toml"
    monkeypatch.setattr(calibrate, "calibrate", lambda **_: (file.write_text("mine"), measured)[1])
    with pytest.raises(ConfigError, match="appeared while it was measured"):
        bench(calibrate=True, output=str(file))
    assert file.read_text() == "mine"


def test_settings_are_printed_where_no_file_is_named_and_json_has_all(measured, capsys):
    """The TOML ends the output, so that it can be copied; JSON is one document."""
    from daramjwee.cli.bench import bench

    assert bench(calibrate=True) == 0
    text = capsys.readouterr().out
    assert tomllib.loads(text[text.index("# Measured by") :])["buffers"]["large_object_strategy"] == "adaptive"
    assert bench(calibrate=True, json=True) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["large_object_threshold"] == "256KiB"
