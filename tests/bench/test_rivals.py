"""A rival that is missing, or fails at any moment, is a row; ours is an error."""

from __future__ import annotations

import pytest

from daramjwee.bench.rivals import MOST_WORDS, Lineup, failure


def steady(loops):
    """Takes a second for each operation, as far as anybody can tell."""
    return float(loops)


def absent():
    raise ImportError("no module named fast")


class Failing:
    """Works so many times, and then no more."""

    def __init__(self, times):
        self.left = times

    def __call__(self, loops):
        self.left -= 1
        if self.left < 0:
            raise OSError("the disk is gone\n")
        return float(loops)


def test_a_rival_that_is_not_installed_has_a_row_that_says_so():
    """And no figures."""
    lineup = Lineup()
    lineup.ours("ours", steady)
    lineup.rival("fast", absent)
    assert lineup.figures(rounds=3, seconds=0.1) == {"ours": [1.0] * 3}
    (row,) = lineup.rows("s", ["ours", "fast"], "1 KiB: {}".format)
    assert (row.name, row.seen, row.note) == ("1 KiB: fast", None, "not installed")


@pytest.mark.parametrize("times", range(9))
def test_a_rival_that_fails_has_no_figures_whenever_it_does(times):
    """Before it is timed, in the warm-up, in any round: the others are measured to the end."""
    lineup = Lineup()
    lineup.ours("ours", steady)
    lineup.rival("fails", lambda: Failing(times))
    lineup.rival("works", lambda: steady)
    seen = lineup.figures(rounds=6, seconds=0.1)
    assert seen == {"ours": [1.0] * 6, "works": [1.0] * 6}
    (row,) = lineup.rows("s", ["fails", "works"])
    assert row.note == "failed: OSError: the disk is gone"


def test_a_rival_that_holds_out_has_all_its_figures():
    """One more time than it is asked is enough."""
    lineup = Lineup()
    lineup.rival("works", lambda: Failing(100))
    assert lineup.figures(rounds=6, seconds=0.1) == {"works": [1.0] * 6}
    assert lineup.rows("s", ["works"]) == []


def test_an_error_of_ours_ends_the_scenario():
    """It is a fault, and no property of a rival."""
    lineup = Lineup()
    lineup.ours("ours", Failing(1))
    with pytest.raises(OSError, match="the disk is gone"):
        lineup.figures(rounds=1, seconds=0.1)


def test_of_a_long_error_the_last_line_is_said():
    """A traceback of a process ends with what was wrong."""
    assert (
        failure("module:name: Traceback\n  File x\nValueError: no reader got it\n")
        == "failed: ValueError: no reader got it"
    )
    assert len(failure("x" * 1000)) == MOST_WORDS
    assert failure("") == "failed: "
