"""Every scenario runs, in its tiniest form: the rows it promises, each with a figure. Nothing here is timed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from daramjwee.bench import ends, runner
from daramjwee.bench.ends import Folder
from daramjwee.bench.scenarios import bounded, copies, filehit, fill, hit, lease, matrix, metrics, mixed, paths, pool
from daramjwee.bench.timing import ChildFailed, child_environment
from daramjwee.units import KIB, MIB, format_size

TINY = 256 * KIB


def figures(rows):
    """Name to figure of each row; a row without one has to say why."""
    for row in rows:
        assert row.seen is not None or row.note, row
    return {row.name: row.seen for row in rows}


def test_importing_a_scenario_starts_nothing_and_imports_no_rival():
    """A list of scenarios must be cheap to make, and rivals are optional."""
    code = (
        "import sys, threading; from daramjwee.bench.scenarios import (bounded, copies, filehit, fill, hit, imports, lease, "
        "matrix, metrics, mixed, paths, pool); "
        "print(threading.active_count(), *[n for n in ('cachebox', 'cachetools', 'diskcache', 'hishel', 'httpx', 'fsspec', 'matplotlib', 'urllib3') if n in sys.modules])"
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


def test_the_copies_scenario_holds_each_kind_of_target_to_what_is_wanted():
    """To a new file, over a file, to a sink that reads and to a socket; from 4 MiB a new file is held to more, and speed
    per byte is compared with that at 4 MiB."""
    rows = copies.measure(rounds=2, seconds=0.0005, sizes=(TINY, 4 * MIB, 8 * MIB))
    wanted = {row.name: row.target.wanted for row in rows if row.target is not None}
    assert all(row.seen > 0 for row in rows)
    assert wanted["new file, 256KiB: speed / best user's"] == 0.97
    assert "new file, 256KiB: speed / copy_file_range" not in wanted
    assert wanted["new file, 4MiB: speed / copyfileobj"] == 1.1
    assert wanted["new file, 8MiB: speed / copy_file_range"] == 0.95
    assert wanted["new file, (ours / kernel) at 8MiB / the same at 4MiB"] == 0.8
    assert wanted["sink that sums, 256KiB: speed / best user's"] == 0.94
    assert wanted["sink that sums, 8MiB: speed / best user's"] == 1
    assert sum(row.name.startswith("unix socket") for row in rows) == 6
    assert sum(row.name.startswith("over a file") for row in rows) == 3


def test_copies_to_sockets_are_held_to_the_kernels_speed_at_the_stated_sizes():
    """At 1 MiB a copy's fixed cost may show, from 16 MiB on it must not."""
    assert {size: target.wanted for size, target in copies.SOCKET_TARGETS.items()} == {
        MIB: 0.88, 16 * MIB: 0.97, 64 * MIB: 0.97,
    }  # fmt: skip


def test_a_copy_that_is_wrong_is_no_figure():
    """What the pool wrote is compared with what was read, byte by byte."""

    class Liar:
        def copy(self, source, sink):
            sink.write(source.read()[::-1])

    with Folder() as folder, pytest.raises(ValueError, match="not what was copied"):
        copies._check(Liar(), folder, {3: folder.file_of(b"abc")})


def test_the_lease_scenario_compares_with_a_method_and_counts_faults_exactly():
    """Steady state costs no page fault at all: a count, so it may be asserted even here."""
    rows = lease.measure(rounds=3, seconds=0.0005)
    seen = figures(rows)
    # Of five runs the best: on a busy machine the system may move a page of its own accord.
    assert next(row for row in rows if row.name.startswith("page faults of 2,000 leases")).low == 0
    assert sum(name.startswith("select_strategy") for name in seen) == 3
    assert sum("8 threads / 1 thread" in name for name in seen) == 2
    assert "with gate.acquire(1 MiB), uncontended / method" in seen
    assert seen["grow by a 2 MiB slab / by private 4 KiB pages"] > 0


def test_the_metrics_scenario_counts_exactly_whatever_it_times():
    """Counters beside none, detailed metrics beside none; the counts themselves are exact in both."""
    seen = figures(metrics.measure(rounds=3, seconds=0.0005))
    assert seen["1000 copies: counted too many or too few"] == 0
    assert {name for name in seen if name.startswith("copy of 256 KiB: ")} == {
        "copy of 256 KiB: counted / uncounted",
        "copy of 256 KiB: detailed metrics / uncounted",
    }


def test_eight_threads_move_mixed_objects_by_every_side(tmp_path):
    """Each side in a process of its own; the pool touches no more memory than one chunk for each thread."""
    runs = mixed.measure(rounds=1, operations=4)
    assert set(runs) == set(mixed.SIDES)
    for side, (found,) in runs.items():
        assert found["operations"] == 8 * 4, side
        assert found["seconds"] > 0
    # At most one new chunk of 64 pages for each thread, whenever so many copy at once for the first time.
    assert runs["pool"][0]["faults"] <= 8 * 64 + 256
    assert runs["pool"][0]["ledger"] <= MIB // 2


def test_rows_of_mixed_objects_divide_pair_by_pair_and_count_no_fault_as_one():
    """Made-up figures: each target stands beside the ratio it is about."""
    ours = {"operations": 100, "seconds": 1.0, "faults": 0, "peak": 2 * MIB, "ledger": MIB, "kept": MIB // 4}
    fresh = ours | {"seconds": 3.0, "faults": 290, "peak": 40 * MIB}
    kept = ours | {"seconds": 4.0, "faults": 5000, "peak": 50 * MIB}
    runs = {"pool": [ours], "fresh": [fresh], "fresh, 4 kept": [kept], "fresh, dropped first": [ours]}
    rows = {row.name: (row.seen, row.met) for row in mixed.rows_of(runs)}
    assert rows["none kept: operations / fresh"] == (3.0, True)
    assert rows["none kept: fresh page faults / ours"] == (290, False)
    assert rows["none kept: fresh peak memory / ours"] == (20, True)
    assert rows["the last 4 of each thread kept: operations / fresh"] == (4.0, False)
    assert rows["the last 4 of each thread kept: fresh page faults / ours"] == (5000, True)
    assert rows["the last 4 of each thread kept: fresh peak memory / ours"] == (25, False)
    assert rows["kept after maintain(): ledger"] == (1.0, False)
    assert rows["kept afterwards, pool: resident memory"] == (0.25, True)
    silent = {side: [found | {"peak": None, "kept": None}] for side, (found,) in runs.items()}
    assert sum(row.note == "this system does not tell" for row in mixed.rows_of(silent)) == 4


def test_a_thread_that_fails_fails_the_mixed_scenario():
    """And nobody waits for it for ever."""

    def broken(files):
        raise OSError("no such luck")

    with Folder() as folder:
        order = [(folder.file_of(b"abc"), 3)]
        with pytest.raises(OSError, match="no such luck"):
            mixed._together([broken] * mixed.THREADS, [order] * mixed.THREADS)


def test_a_crowd_finishes_within_the_ledger_and_leaves_nothing():
    """A hundredth of the copies and tasks, in all three cases; figures that are exact at any size."""
    rows = bounded.measure(share=100)
    assert len(rows) == 15
    for row in rows:
        if row.name.endswith(("not finished", "after close()")):
            assert row.seen == 0, row
        if row.name.endswith("ledger at most"):
            assert row.seen <= 32, row
            assert not row.note.startswith("0 samples"), row


def test_rows_of_a_crowd_tell_what_went_over():
    """A copy that did not finish, a byte above the limit, a lease that was left: each misses its target."""
    found = {
        "asked": 10,
        "done": 9,
        "held": 33 * MIB,
        "samples": 5,
        "peak": None,
        "left": 1,
        "bytes": 1,
        "seconds": 1.0,
    }
    rows = bounded.rows_of("crowd", found)
    assert [row.met for row in rows] == [False, False, None, False, None]
    assert rows[2].note == "this system does not tell"


def test_the_matrix_has_a_row_for_each_way_between_each_pair_of_ends():
    """Strategies and a user's ways, a figure or the reason why there is none; counts of one copy beside each figure."""
    sizes = (8 * KIB, TINY)
    rows = matrix.measure(rounds=1, seconds=0.0005, sizes=sizes)
    figures(rows)
    cells = {(row.labels["pair"], row.labels["size"], row.labels["way"]): row for row in rows if row.labels}
    ways = matrix.STRATEGIES + matrix.USERS
    assert set(cells) == {(p, format_size(s), w) for p in matrix.PAIRS for s in sizes for w in ways}
    for (_, size, way), row in cells.items():
        assert row.detail == (way != "adaptive"), row
        assert (row.target is not None) == (way == "adaptive" and size == "256KiB"), row
        if row.seen is not None:
            assert row.beside["us"] > 0, row
    without = {(pair, way) for (pair, _, way), row in cells.items() if row.seen is None}
    assert without == {(matrix.READS_TO_FILE, way) for way in ("pooled", "chunked", "fresh bytearray")}
    assert {cells["file to socket", "8KiB", w].labels["class"] for w in ways} == {"small"}
    # Nothing here leaves anything to the collector: a count, so it may be asserted even here.
    assert next(row for row in rows if "collector runs" in row.name).seen == 0


def made_up_copy(way, seconds, faults, **changes):
    """One way with 512 KiB."""
    counts = {"faults": faults, "collections": 0.0}
    return matrix.Found(way=way, size=512 * KIB, seconds=[seconds] * 4, counts=counts, **changes)


def test_rows_of_the_matrix_compare_with_the_best_of_a_users_ways():
    """Made-up figures: the best way is named, targets stand beside figures, and what holds over all cells comes first."""
    found = [
        made_up_copy("adaptive", 2.0, 0.5, chosen="chunked"),
        made_up_copy("pooled", 1.0, 0.0, chosen="pooled"),
        matrix.Found(way="chunked", size=512 * KIB, why_not="cannot serve here: falls back to direct"),
        made_up_copy("direct", 4.0, 0.0, chosen="direct"),
        made_up_copy("copyfileobj", 4.0, 9.0),
        made_up_copy("write(read())", 1.5, 0.0),
        made_up_copy("fresh bytearray", 3.0, 9.0),
    ]
    rows = {row.name: row for row in matrix.rows_of({"file to file": found})}
    cell = rows["file to file, 512KiB: adaptive / best user's"]
    assert (cell.seen, cell.met, cell.note) == (0.75, False, "chunked; best: write(read())")
    assert cell.beside == {"us": 2e6, "faults": 0.5, "collections": 0.0}
    assert (rows["file to file, 512KiB: pooled / best user's"].seen, cell.labels["class"]) == (1.5, "large")
    missing = rows["file to file, 512KiB: chunked / best user's"]
    assert (missing.seen, missing.note) == (None, "cannot serve here: falls back to direct")
    user = rows["file to file, 512KiB: adaptive / copyfileobj"]
    assert (user.seen, user.beside["us"], user.beside["faults"]) == (2, 4e6, 9)
    assert rows["from 512KiB, all ends: adaptive / copyfileobj, geometric mean"].seen == 2
    assert rows["from 512KiB, all ends: adaptive / fresh bytearray, geometric mean"].met is True
    assert rows["from 256KiB, all ends: page faults of a copy beyond the best user's"].met is False


def test_a_matrix_of_small_objects_says_that_it_has_nothing_to_compare():
    """What holds from 256 KiB on cannot be told from smaller ones; that is neither met nor missed."""
    rows = matrix.rows_of({})
    assert [(row.met, row.note) for row in rows] == [(None, "nothing to compare was measured")] * 4


def test_a_copy_of_the_matrix_that_is_wrong_is_no_figure():
    """Each way is checked once before it is timed."""
    with Folder() as folder:
        place = matrix._place(matrix.BYTES_TO_FILE, 8 * KIB, folder, None)
        matrix._once(place, lambda source, sink: sink.write(source.read()[::-1]))
        with pytest.raises(ValueError, match="not what was copied"):
            place.check()
        matrix._once(place, ends.read_and_write)
        place.check()


def test_every_path_has_ours_and_each_rival_or_says_why_not():
    """A set, a look at an absent key, a folder that is opened again; counts of one operation beside each."""
    rows = paths.measure(rounds=1, seconds=0.0005, entries=10)
    seen = figures(rows)
    assert sum(name.endswith(": ours") for name in seen) == 7
    for row in rows:
        assert row.seen is None or row.beside, row
    without = {name: row.note for row in rows if row.seen is None for name in [row.name]}
    assert set(without.values()) == {paths.NO_SET, paths.NO_LOOK}
    assert len(without) == 6
    title = "open a folder of 10 entries, read one, close"
    for rival in ("os.scandir and open", "diskcache", "fsspec filecache", "hishel"):
        assert seen[f"{title}: {rival} / ours"] > 0


def test_an_entry_that_is_not_whole_is_no_restart():
    """Nor one that is not there."""
    paths._whole(bytes(paths.ENTRY_BYTES))
    for data in (None, b"abc"):
        with pytest.raises(ValueError, match="of an entry of 4096 bytes"):
            paths._whole(data)


def test_a_rival_that_fails_to_fill_has_a_row_and_the_others_their_figures(monkeypatch):
    """Ours that fails is a failure of the scenario."""

    def in_child(function, *, way, **arguments):
        if way == failing:
            raise ChildFailed(f"{function}: Traceback\nOSError: no room for {way}")
        return {"wall": 1.0, "first": 0.01, "extra": 2 * MIB, "wrong": 0, "why": ""}

    monkeypatch.setattr(fill, "in_child", in_child)
    failing = "hishel"
    runs = fill.measure(2, rivals_rounds=1, size=TINY, bandwidth=64_000_000)
    rows = {row.name: row for row in fill.rows_of(runs)}
    assert rows["hishel, 16 readers"].note == "failed: OSError: no room for hishel (1 of 1 runs)"
    assert rows["diskcache, set, 16 readers: wall"].seen == 1
    failing = "ours"
    with pytest.raises(ChildFailed, match="no room for ours"):
        fill.measure(1, rivals_rounds=1, size=TINY, bandwidth=64_000_000)
