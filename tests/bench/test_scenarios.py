"""Every scenario runs, in its tiniest form: the rows it promises, each with a figure. Nothing here is timed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from daramjwee.bench import runner
from daramjwee.bench.scenarios import filehit, fill, hit, pool
from daramjwee.bench.timing import child_environment
from daramjwee.units import KIB, MIB

TINY = 256 * KIB


def figures(rows):
    """Name to figure of each row; a row without one has to say why."""
    for row in rows:
        assert row.seen is not None or row.note, row
    return {row.name: row.seen for row in rows}


def test_importing_a_scenario_starts_nothing_and_imports_no_rival():
    """A list of scenarios must be cheap to make, and rivals are optional."""
    code = (
        "import sys, threading; from daramjwee.bench.scenarios import filehit, fill, hit, imports, pool; "
        "print(threading.active_count(), *[n for n in ('cachetools', 'diskcache', 'fsspec', 'urllib3') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(), check=True, capture_output=True, text=True, timeout=50
    )
    assert done.stdout.split() == ["1"]


def test_the_import_scenario_counts_extras_and_threads():
    """From a fresh interpreter, through the runner as `make bench` does it."""
    report = runner.run(["import"], quick=True)
    assert not report.failures
    seen = figures(report.rows)
    assert seen["extras imported"] == 0
    assert seen["threads started"] == 0
    assert seen["bare Python, for comparison"] > 0


def test_sixteen_readers_of_a_cold_object_cost_one_fetch():
    """The figure that everything else rests on is exact, so it may be asserted even here."""
    runs = fill.measure(
        1, rivals_rounds=0, size=MIB, bandwidth=64_000_000, variants=(fill.BARE, fill.ONE, fill.SIXTEEN)
    )
    for found in runs.values():
        assert [(one["fetches"], one["wrong"]) for one in found] == [(1, 0)]
        assert found[0]["wall"] >= found[0]["first"] > 0


@pytest.mark.parametrize("variant", [fill.TWO_TIERS, *fill.RIVALS], ids=lambda v: v.way)
def test_every_way_to_fill_says_how_many_readers_got_the_right_bytes(variant):
    """All of ours. A rival is tried with one reader: fsspec gives some too little when several start together."""
    few = fill.Variant(variant.way, 1 if variant in fill.RIVALS else 3)
    runs = fill.measure(1, rivals_rounds=1, size=TINY, bandwidth=64_000_000, variants=(few,))
    assert len(runs[few]) == 1
    assert runs[few][0]["fetches"] >= 1
    assert runs[few][0]["wrong"] == 0


def test_only_a_rival_may_be_missing(monkeypatch):
    """That daramjwee itself cannot be imported is a failure, and never a row without a figure."""

    def absent(url, folder, stack):
        raise ImportError("no such module")

    monkeypatch.setattr(fill, "WAYS", {"ours": absent, "diskcache, set": absent})
    assert fill.fill("diskcache, set", 1, "http://127.0.0.1:1", TINY) is None
    with pytest.raises(ImportError, match="no such module"):
        fill.fill("ours", 1, "http://127.0.0.1:1", TINY)


def test_rows_of_a_fill_state_what_was_wanted():
    """The targets of the 16 and 64 readers stand beside their figures; a missing rival is said to be missing."""
    one = {"wall": 1.0, "first": 0.01, "extra": 2 * MIB, "fetches": 1, "wrong": 0, "why": ""}
    two = {"wall": 1.1, "first": 0.03, "extra": 9 * MIB, "fetches": 2, "wrong": 1, "why": "half of it"}
    runs = {v: [one, one] for v in (fill.BARE, fill.ONE, fill.MANY, fill.TWO_TIERS)}
    runs |= {fill.SIXTEEN: [one, two]} | {rival: [] for rival in fill.RIVALS}
    rows = {row.name: row for row in fill.rows_of(runs)}
    assert (rows["16 readers: origin fetches"].seen, rows["16 readers: origin fetches"].met) == (2, False)
    assert (rows["16 readers: extra memory"].seen, rows["16 readers: extra memory"].met) == (9, False)
    assert (rows["16 readers: readers given wrong bytes"].seen, rows["16 readers: readers given wrong bytes"].met) == (
        1,
        False,
    )
    assert rows["16 readers: readers given wrong bytes"].note == "half of it"
    assert rows["64 readers: readers given wrong bytes"].met is True
    assert rows["16 readers: wall / 1 reader"].seen == pytest.approx(1.05)
    assert rows["16 readers: first byte / bare HTTP read"].met is True
    assert rows["64 readers: extra memory"].met is True
    assert rows["diskcache, set, 16 readers"].note == "not installed"


def test_memory_that_the_system_does_not_tell_is_said_not_guessed():
    """On such a system the row has no figure and its target is neither met nor missed."""
    one = {"wall": 1.0, "first": 0.01, "extra": None, "fetches": 1, "wrong": 0, "why": ""}
    rows = fill.rows_of(
        {v: [one] for v in (fill.BARE, fill.ONE, fill.SIXTEEN, fill.MANY, fill.TWO_TIERS, *fill.RIVALS)}
    )
    row = next(row for row in rows if row.name == "16 readers: extra memory")
    assert (row.seen, row.met, row.note) == (None, None, "this system does not tell")


def test_the_hit_scenario_compares_with_a_dict_and_with_rivals():
    """At one thread and at eight, and opening what was set whole."""
    seen = figures(hit.measure(rounds=1, seconds=0.0005))
    assert {"cache.get / dict.get", "cache.get, 8 threads / 1 thread", "open + close, 64 MiB / 1 MiB"} <= set(seen)
    assert {f"{rival} / dict.get" for rival in hit.RIVALS} <= set(seen)


def test_the_file_scenario_compares_with_the_bare_read_and_the_kernels_copy(monkeypatch):
    """Verified, first and threaded reads, and copies to a file and a socket."""
    monkeypatch.setattr(filehit, "FIRST_READS", {"1 MiB": 2, "16 MiB": 1})
    seen = figures(filehit.measure(rounds=1, seconds=0.0005))
    assert sum(" copy_to " in f" {name}" for name in seen) == 2
    assert sum("first (verifying) read" in name for name in seen) == 2
    assert sum("8 threads" in name for name in seen) == 1
    assert sum(name.endswith(filehit.RIVALS) for name in seen) == 4


def test_the_pool_scenario_compares_with_what_a_user_would_write():
    """Speed beside copyfileobj and write(read()), page faults, threads; each copy is checked."""
    seen = figures(pool.measure(rounds=1, seconds=0.0005, sizes=(TINY,)))
    assert "copy 256KiB: speed / best of copyfileobj, write(read())" in seen
    assert "copy 256KiB: page faults" in seen
    assert sum(name.startswith("8 threads") for name in seen) == 4
