"""`daramjwee bench`: the runner's report, as a table and as JSON."""

from __future__ import annotations

import json


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
