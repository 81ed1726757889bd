"""The checks that every test is held to can themselves fail: tried on suites made up here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"


@pytest.fixture
def suite(tmp_path):
    """Runs pytest, with our conftest, over one made-up test file in the folder tests/made_up; gives status and output."""

    def run(code, **replaced):
        folder = tmp_path / "tests" / "made_up"
        folder.mkdir(parents=True)
        conftest = shutil.copy(CONFTEST, tmp_path / "tests" / "conftest.py")
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        (folder / "test_it.py").write_text(code)
        for name, value in replaced.items():
            with open(conftest, "a") as file:
                file.write(f"\n{name} = {value}\n")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:cov"],
            cwd=tmp_path, capture_output=True, text=True, timeout=150, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_run_ends_with_the_seconds_of_each_folder_and_its_budget(suite):
    """Folder, tests, seconds, budget; a run within its budgets passes."""
    status, output = suite("def test_one(): pass\ndef test_two(): pass\n")
    assert status == 0, output
    row = next(line for line in output.splitlines() if line.startswith("tests/made_up "))
    assert row.split()[1] == "2"
    assert row.split()[3] == "60"


def test_a_folder_over_its_budget_fails_a_run_whose_tests_all_passed(suite):
    """Slow suites are noticed on the day they become slow."""
    status, output = suite("def test_one(): pass\n", BUDGETS_SECONDS="defaultdict(float)")
    assert status == 1, output
    assert "1 passed" in output
    assert "OVER BUDGET: tests/made_up" in output


def test_the_whole_suite_has_a_budget_of_its_own(suite):
    """Many folders within their budgets can still be too much together."""
    status, output = suite("def test_one(): pass\n", WHOLE_SUITE_SECONDS="0.0")
    assert status == 1, output
    assert "OVER BUDGET: the whole suite" in output


def test_seconds_in_which_others_had_the_processor_are_not_held_against_a_folder(suite):
    """A busy machine is not a failure: here, the run had next to nothing of it."""
    status, output = suite("def test_one(): pass\n", BUDGETS_SECONDS="defaultdict(lambda: 1e-9)", _share="lambda: 1e-9")
    assert status == 0, output
    assert "This run had 0% of a processor" in output


def test_a_test_that_leaves_a_thread_running_fails_and_the_thread_is_named(suite):
    """Threads that outlive a test disturb the next one, and keep the interpreter from ending."""
    status, output = suite(
        "import threading\n"
        "end = threading.Event()\n"
        "def test_leaves_one():\n"
        "    threading.Thread(target=end.wait, name='forgotten').start()\n"
        "def test_next():\n"
        "    end.set()\n",
        FAREWELL_SECONDS="0.0",
    )
    assert status == 1, output
    assert "left threads running: forgotten" in output


def test_threads_that_end_in_time_and_daemons_are_no_fault(suite):
    """A thread that was told to stop gets time to do so; a daemon may live as long as it likes."""
    status, output = suite(
        "import threading\n"
        "end = threading.Event()\n"
        "def test_starts_two():\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "    threading.Thread(target=end.wait).start()\n"
        "    end.set()\n"
    )
    assert status == 0, output
