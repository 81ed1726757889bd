"""Counts beside counts: what grew, what fell, and what is not compared; and this tree beside the kept file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from daramjwee.bench.regress import baseline, guard
from daramjwee.bench.regress.counts import Counted, Kept, comparable, compare, python
from daramjwee.bench.regress.worker import COUNTED, SCENARIOS
from daramjwee.errors import ConfigError

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).with_name("baseline.json")


def one(times=100, **counts):
    return {"copy": Counted(times=times, counts=counts)}


def kept(scenarios, **fields):
    return Kept(**{"version": "1", "python": python(), "machine": {}, "scenarios": scenarios} | fields)


@pytest.mark.parametrize(
    ("counter", "was", "now", "found"),
    [
        ("minor_faults", 0, 0, None),
        ("minor_faults", 0, 1, True),  # none must stay none
        ("read_calls", 500, 500, None),
        ("read_calls", 500, 501, True),
        ("read_calls", 500, 499, False),
        ("fetches", 100, 101, True),
        ("collections", 0, 1, True),
        ("allocated_blocks", 0, 32, None),
        ("allocated_blocks", 0, 100, True),  # one block for each operation
        ("allocated_blocks", -500, 20, None),  # blocks that were given back are nothing to be held to
        ("allocated_blocks", 200, 0, None),
        ("peak_bytes", 0, 4 << 20, None),
        ("peak_bytes", 0, 5 << 20, True),
        ("instructions", 1000, 1019, None),
        ("instructions", 1000, 1021, True),
        ("instructions", 1000, 900, False),
        ("read_calls", None, 5, None),  # this system tells, that one did not
        ("read_calls", 5, None, None),
    ],
)
def test_a_count_has_grown_when_it_exceeds_its_tolerance(counter, was, now, found):
    growths = compare(one(**{counter: was}), one(**{counter: now}))
    assert [growth.grew for growth in growths] == ([] if found is None else [found])


def test_counts_of_more_operations_are_compared_by_the_operation():
    assert compare(one(100, read_calls=500), one(200, read_calls=1000)) == ()
    (growth,) = compare(one(100, read_calls=500), one(200, read_calls=1200))
    assert (growth.was, growth.now, growth.grew) == (5, 6, True)


def test_what_is_on_one_side_only_is_not_compared_and_is_named():
    was = kept({**one(read_calls=1), "gone": Counted(times=1, counts={"read_calls": 1})})
    now = kept({"copy": Counted(times=100, counts={"read_calls": None}), "new": Counted(times=1, counts={})})
    held = baseline.hold("file", was, now, ["copy", "new", "gone"], seconds=0)
    assert held.growths == ()
    assert held.missing == ("new",)
    assert held.lost == ("copy: read_calls", "gone: read_calls")
    assert held.slower == ()


def test_instructions_of_another_interpreter_are_not_compared():
    file = kept(one(instructions=1000, read_calls=7), python="CPython 2.7.18 vax")
    assert comparable(file)["copy"].counts == {"read_calls": 7}
    assert comparable(kept(one(instructions=1000)))["copy"].counts == {"instructions": 1000}


def test_a_file_that_is_no_baseline_is_refused_and_the_mend_is_named(tmp_path):
    """Missing, not JSON, JSON of something else, and one of another schema."""
    path = tmp_path / "baseline.json"
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file.*--write-baseline FILE makes one"):
        baseline.load(str(path))
    for content in (b"{", b"[]", b'{"schema": 1}'):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="is no baseline"):
            baseline.load(str(path))
    path.write_bytes(baseline.to_bytes(kept({}, schema=2)))
    with pytest.raises(ConfigError, match="has schema 2, and this version reads 1"):
        baseline.load(str(path))


def test_this_tree_counts_no_more_than_the_kept_file():
    """The gate: no page fault, call, fetch, block or collection more than tests/bench/baseline.json has. After a change on
    purpose: make regress ARGS="--write-baseline tests/bench/baseline.json"."""
    names = tuple(COUNTED)
    with guard.workplace() as place:
        now = baseline.count(ROOT / "src", place, names, times=False, instructions=False, tell=lambda _: None)
    held = baseline.hold(KEPT.name, baseline.load(str(KEPT)), now, names, seconds=0)
    assert set(now.scenarios) == set(SCENARIOS) - {"import"}
    assert [growth for growth in held.growths if growth.grew and not by_chance(growth)] == []
    assert held.missing == ()


def by_chance(growth):
    """Where a round takes seconds, what the pool's own thread reads once in a while is in each of them. One more for each
    operation would be ten at least."""
    return growth.counter != "fetches" and (growth.now - growth.was) * COUNTED[growth.scenario] < 5


def test_the_kept_file_has_every_scenario_and_reads_back_as_it_was_written():
    file = baseline.load(str(KEPT))
    assert set(file.scenarios) == set(COUNTED)
    assert msgspec.json.decode(baseline.to_bytes(file), type=Kept) == file
    assert {name: one.times for name, one in file.scenarios.items()} == COUNTED
