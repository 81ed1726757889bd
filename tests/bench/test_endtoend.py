"""The scenario "endtoend" in its tiniest form: every path and side runs, and the rows say what was wanted. Nothing is timed."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from daramjwee import Cache, MemoryStore
from daramjwee.bench import readings
from daramjwee.bench.readings import AGAIN, NEW, NONE, PLAIN, Crew
from daramjwee.bench.scenarios import endtoend
from daramjwee.bench.scenarios.endtoend import WHOLE, Turns
from daramjwee.units import KIB, MIB

COLD, TO_FILE, GET = endtoend.PATHS[0], endtoend.PATHS[1], endtoend.PATHS[2]


def test_every_path_is_read_by_every_side_and_counted(monkeypatch):
    """A row for each path and number of threads; faults and memory where something goes through the pool, for each large
    size and for the mix. (Those are counted with 8 threads in any case.)"""
    monkeypatch.setattr(endtoend, "THREADS", (2,))
    monkeypatch.setattr(endtoend, "MIXED", (32 * KIB, 256 * KIB))
    rows = endtoend.measure(rounds=1, seconds=0.0003, sizes=(256 * KIB,), operations=1)
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert all(row.seen is not None and row.seen > 0 for row in rows if "memory" not in row.name.rpartition(":")[2])
    timed = [row for row in rows if row.labels]
    assert len(timed) == len(endtoend.PATHS) * len(endtoend.THREADS)
    assert all(row.target.wanted == 0.97 and {"us", "/ no pool", "/ plain pool"} <= set(row.beside) for row in timed)
    faults = [row for row in rows if "page faults" in row.name]
    assert len(faults) == 4 * 2
    assert sum(row.target is None for row in faults) == 2  # what a fill leaves in memory is fresh memory
    assert sum("read whole" in row.name for row in rows) == 2 * 2


def turns(wall, processor):
    """Two rounds and more of each side: what each of them took."""
    sides = (NONE, PLAIN, NEW, AGAIN)  # the last one as the one before
    return Turns(
        dict(zip(sides, [*wall, wall[-1]], strict=True)), dict(zip(sides, [*processor, processor[-1]], strict=True))
    )


def test_a_cell_goes_by_the_clock_while_that_can_tell_and_by_the_better_old_one():
    """Other programs make the clock's ratios spread; the processor's own time then says what the code costs."""
    steady = turns([[4.0] * 5, [2.0] * 5, [2.5] * 5], [[4.0] * 5, [2.0] * 5, [2.0] * 5])
    whole, same, cell = endtoend.time_rows(COLD, {(KIB, 1): steady})
    assert (cell.seen, cell.met, cell.note) == (0.8, False, "")
    old = {"/ no pool": 1.6, "/ plain pool": 0.8}
    assert cell.beside == {"us": 2.5e6, **old, "/ new, again": 1.0, "clock": 0.8, "processor": 1.0}
    assert (whole.seen, whole.low, whole.high) == (pytest.approx(0.8), 0.8, 0.8)
    assert (same.seen, same.low, same.high, same.target) == (1, 1, 1, None)
    busy = turns([[4.0] * 6, [1.0, 3.0, 9.0, 2.0, 0.5, 4.0], [2.5] * 6], [[4.0] * 6, [2.0] * 6, [2.0] * 6])
    _, _, cell = endtoend.time_rows(COLD, {(KIB, 1): busy})
    assert (cell.seen, cell.met) == (1.0, True)
    assert cell.note.startswith("processor time: by the clock")


def test_a_cell_below_its_target_is_looked_at_again_and_all_figures_count(monkeypatch):
    """Twice at most, and only while there is time; what is right already is left alone."""
    looks = []

    def take_turns(folder, path, size, readers, **_):
        looks.append((size, readers))
        slow = 2.0 if size == KIB else 1.0
        return turns([[1.0], [1.0], [slow]], [[1.0], [1.0], [slow]])

    monkeypatch.setattr(endtoend, "take_turns", take_turns)
    monkeypatch.setattr(endtoend, "THREADS", (1,))
    for patience, again in ((60, 2), (0, 0)):
        looks.clear()
        sizes = (KIB, 2 * KIB)
        rows = endtoend.measure(rounds=1, seconds=0, sizes=sizes, operations=1, patience=patience, paths=(GET,))
        assert [(row.seen, row.runs) for row in rows if row.labels] == [(0.5, 1 + again), (1.0, 1)]
        assert looks == [(KIB, 1), (2 * KIB, 1)] + [(KIB, 1)] * again


def found(faults, peak):
    return {"operations": 8, "faults": faults, "collections": 0, "blocks": 1, "peak": peak}


def test_faults_and_memory_are_told_as_multiples_of_ours():
    """No fault counts as one; only who reads the object whole is held to five times our memory, and says so in its name."""
    sides = {NONE: found(1600, 4 * MIB), WHOLE: found(900, 64 * MIB), NEW: found(0, 4 * MIB)}
    faults, whole, same = endtoend.exact_rows(TO_FILE, (MIB,), sides)
    assert (faults.seen, faults.met, faults.beside["collector runs"]) == (1600, True, 0)
    assert (whole.seen, whole.met, whole.target.wanted) == (16, True, 5)
    assert (same.seen, same.target) == (1, None)
    assert "chunks" in same.note
    assert [row.detail for row in (faults, whole, same)] == [True] * 3
    assert not any(row.detail for row in endtoend.exact_rows(TO_FILE, (MIB, 2 * MIB), sides))


def test_what_the_system_does_not_tell_has_no_figure():
    """The target is then neither met nor missed."""
    sides = {NONE: found(None, None), NEW: found(1, 1)}
    for row in endtoend.exact_rows(TO_FILE, (MIB,), sides):
        assert (row.seen, row.met, row.note) == (None, None, endtoend.WHY)


def test_an_object_of_another_length_ends_the_run():
    """A quick read that is wrong would be no read."""
    with Crew(2) as crew, pytest.raises(ValueError, match="1,023 bytes came of 1,024"):
        crew.run([partial(readings.read_all, lambda key: 1023, GET, iter(range(9)), [KIB])] * 2)


def test_a_crew_does_its_jobs_at_once_and_ends_with_its_block():
    """As often as it is told to, by the same threads."""
    barrier, seen = threading.Barrier(3), []

    def job():
        barrier.wait(30)  # passes only if all three are at work together
        seen.append(threading.get_ident())

    with Crew(3) as crew:
        assert crew.run([job] * 3) > 0
        crew.run([job] * 3)
        assert len(seen) == 6
        assert len(set(seen)) == 3
    assert not any(thread.ident in seen for thread in threading.enumerate())


def test_the_sides_differ_in_their_buffers_only(tmp_path):
    """And what is hit in memory is the very same object on all of them."""
    from contextlib import ExitStack

    body = {KIB: b"x" * KIB}
    with ExitStack() as stack:
        made = {side: readings.open_cache(stack, str(tmp_path), GET, side, body, 1) for side in (NONE, PLAIN, NEW)}
        assert [type(cache.buffers).__name__ for cache in made.values()] == [
            "AdaptiveBufferPool", "BufferPool", "AdaptiveBufferPool",
        ]  # fmt: skip
        assert [cache.buffers.config.enabled for cache in made.values()] == [False, True, True]
        assert made[NEW].buffers.config == Cache(MemoryStore("1MiB")).buffers.config
        assert all(cache.get(f"{KIB} hit") is body[KIB] for cache in made.values())
