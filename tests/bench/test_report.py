"""What a report shows: the same figures as table and as JSON."""

from __future__ import annotations

import json

import pytest

from daramjwee.bench.report import Report, figure, from_json, load, machine, quantity, to_json, to_text
from daramjwee.bench.samples import Row, at_least, at_most, exactly, row_of


def made_up(**changes):
    rows = (
        row_of("cold fill", "16 readers: wall / 1 reader", [1.01, 1.02, 1.04], target=at_most(1.03), note="5 ms"),
        Row(scenario="cold fill", name="fetches", unit="", seen=2, low=1, high=2, runs=5, target=exactly(1)),
        Row(scenario="hit", name="diskcache", note="not installed"),
        row_of("hit", "share", [0.95], target=at_least(0.9)),
    )
    fields = {
        "version": "9.9",
        "quick": False,
        "machine": {"processor": "abacus, 2 usable"},
        "seconds": 12.0,
        "rows": rows,
    }
    return Report(**(fields | changes))


def test_the_table_has_a_block_for_each_scenario_with_wanted_beside_seen():
    """A person sees what was wanted, what was seen, and whether that is as it should be."""
    lines = to_text(made_up()).splitlines()
    assert lines[:2] == ["daramjwee 9.9", "processor: abacus, 2 usable"]
    wall = next(line for line in lines if "wall / 1 reader" in line)
    assert " ".join(wall.split()) == "16 readers: wall / 1 reader 1.02 x 1.01..1.04 <= 1.03 x yes 3 5 ms"
    fetches = next(line for line in lines if line.startswith("fetches"))
    assert fetches.split() == ["fetches", "2", "1..2", "==", "1", "NO", "5"]
    assert next(line for line in lines if line.startswith("diskcache")).split() == [
        "diskcache",
        "-",
        "not",
        "installed",
    ]


def test_the_table_ends_with_the_count_of_targets_and_names_those_missed():
    """Rows without a target do not count."""
    assert to_text(made_up()).splitlines()[-2:] == ["2 of 3 targets met, in 12 s", "missed: cold fill: fetches"]


def test_columns_line_up_within_a_block():
    """Figures stand under their headings, right-aligned."""
    lines = to_text(made_up()).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("cold fill"))
    heading, _, wall, fetches = lines[start : start + 4]
    right = heading.index("runs") + len("runs")
    assert wall[:right].endswith(" 3")
    assert fetches[:right].endswith(" 5")


def test_a_scenario_that_failed_is_named_with_its_last_words():
    """The rest is reported all the same."""
    text = to_text(made_up(failures={"pool": "MemoryError: no room"}))
    assert "pool FAILED: MemoryError: no room" in text
    assert "fetches" in text


def test_json_has_the_unrounded_figures_and_whether_each_target_is_met():
    """A program need not know the rule of a target."""
    document = json.loads(to_json(made_up()))
    assert document["version"] == "9.9"
    wall, fetches, missing, _ = document["rows"]
    assert (wall["seen"], wall["low"], wall["high"], wall["runs"], wall["met"]) == (1.02, 1.01, 1.04, 3, True)
    assert wall["target"] == {"relation": "<=", "wanted": 1.03}
    assert (fetches["met"], missing["met"], missing["seen"]) == (False, None, None)


def test_a_report_is_the_same_after_json():
    """What makes a page of it later loses nothing."""
    report = made_up(took={"hit": 1.5}, failures={"pool": "no room"})
    assert from_json(to_json(report)) == report


def test_other_figures_stand_behind_the_note_and_details_are_only_counted():
    """Hundreds of rows would hide the few that say something; the JSON has them all."""
    rows = (
        row_of("s", "shown", [2.0], note="best: open", beside={"us": 1.25, "faults": 0}),
        *(row_of("s", f"detail {n}", [1.0], detail=True, labels={"way": "x"}) for n in range(3)),
    )
    report = made_up(rows=rows)
    lines = to_text(report).splitlines()
    assert next(line for line in lines if line.startswith("shown")).endswith("best: open; us 1.25, faults 0")
    assert "and 3 more in the JSON report" in lines
    assert not any(line.startswith("detail") for line in lines)
    assert [row.get("labels") for row in json.loads(to_json(report))["rows"]] == [{}, *[{"way": "x"}] * 3]


def test_only_rows_with_a_missed_target_count_as_missed():
    """What has no target cannot be missed."""
    assert [row.name for row in made_up().missed] == ["fetches"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (1, "1"), (0.0123, "0.012"), (0.456, "0.46"), (9.876, "9.88"), (45.67, "45.7"), (1234.5, "1234")],
)
def test_figures_are_rounded_to_what_a_person_reads(value, shown):
    """Three digits say enough; whole numbers stay whole."""
    assert figure(value) == shown
    assert quantity(value, "ms") == f"{shown} ms"
    assert quantity(value, "") == shown


def test_a_busy_machine_is_said_to_be():
    """Its figures are worth less; a system that does not tell has no line."""
    assert "load: 3.20 when it began" in to_text(made_up(load=3.2)).splitlines()
    assert "load:" not in to_text(made_up())
    seen = load()
    assert seen is None or seen >= 0


def test_the_machine_is_described_without_naming_it():
    """A report can be shown to others: processor, memory, system and Python, no host name and no path."""
    import platform

    described = machine()
    assert set(described) == {"processor", "memory", "system", "python"}
    assert all(described.values())
    assert platform.node() not in " ".join(described.values()) or len(platform.node()) < 3
