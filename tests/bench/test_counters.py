"""Counting what operations cost, with operations whose cost is known."""

from __future__ import annotations

import gc
import itertools
import mmap
import os
import statistics
import subprocess
import sys
import threading
from contextlib import suppress

import msgspec
import pytest

from daramjwee.bench import counters
from daramjwee.bench.counters import Counts, counted

TRIES = 5


def usual(operation, times):
    """The middle of some countings, count by count: whatever else this process does (a thread of another test ends, malloc
    gives memory back) is in one or two of them."""
    seen = [counted(operation, times) for _ in range(TRIES)]
    return Counts(
        **{name: statistics.median_low([getattr(one, name) for one in seen]) for name in Counts.__struct_fields__}
    )


linux = pytest.mark.skipif(sys.platform != "linux", reason="the counts of calls are Linux's")
PAGE = mmap.PAGESIZE


@pytest.mark.parametrize("times", [1, 7, 1000])
def test_an_operation_that_does_nothing_costs_nothing(times):
    """Looking at the counters is not charged to what is looked at, however often it runs."""
    seen = usual(lambda: None, times)
    assert (seen.minor_faults, seen.read_calls, seen.write_calls) == (0, 0, 0)
    assert seen.collections == 0
    assert abs(seen.allocated_blocks) <= 2  # one that the look before had kept, say, and not each of a thousand


@linux
def test_reads_and_writes_are_counted_one_by_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)

    def operation():
        file = os.open(path, os.O_RDWR)
        os.read(file, 10)
        os.pread(file, 10, 0)
        os.write(file, b"y")
        os.close(file)

    operation()
    seen = usual(operation, 50)
    assert (seen.read_calls, seen.write_calls) == (100, 50)


@linux
@pytest.mark.parametrize("busy", range(counters.LOOKS))
def test_what_another_thread_calls_while_looking_is_not_taken_off_the_operation(monkeypatch, tmp_path, busy):
    """Of the looks that say what looking costs, one had company: ten reads of somebody else are in it."""
    (tmp_path / "file").write_bytes(b"x")
    looks = itertools.cycle(range(-1, counters.LOOKS))  # the first of each counting does not count

    def nothing():
        if next(looks) == busy:
            for _ in range(10):
                os.pread(file, 1, 0)

    monkeypatch.setattr(counters, "_nothing", nothing)
    with open(tmp_path / "file", "rb", buffering=0) as opened:
        file = opened.fileno()
        seen = usual(lambda: os.pread(file, 1, 0), 1)
    assert next(looks) == -1, "each counting looks as often as this test thinks"
    assert seen.read_calls == 1


@linux
def test_what_other_threads_and_children_call_counts(tmp_path):
    """As long as the thread, or the child, is waited for."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    file = os.open(path, os.O_RDONLY)

    def in_a_thread():
        thread = threading.Thread(target=os.pread, args=(file, 1, 0))
        thread.start()
        thread.join()

    in_a_thread()
    assert usual(in_a_thread, 5).read_calls == 5
    os.close(file)
    in_a_child = [sys.executable, "-S", "-c", "import os; file = os.open('/proc/self/stat', 0); os.read(file, 1)"]
    assert counted(lambda: subprocess.run(in_a_child, check=True), 1).read_calls >= 1


@linux
def test_a_copy_by_the_kernel_is_a_read_and_a_write(tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 10 * 8 * TRIES)
    source = os.open(tmp_path / "source", os.O_RDONLY)
    target = os.open(tmp_path / "target", os.O_WRONLY | os.O_CREAT)
    offsets = itertools.count(0, 10)
    seen = usual(lambda: os.copy_file_range(source, target, 10, next(offsets), 0), 8)
    assert (seen.read_calls, seen.write_calls) == (8, 8)
    os.close(source)
    os.close(target)


def test_each_page_that_is_touched_first_is_a_fault():
    pages, rounds = 16, 32
    with mmap.mmap(-1, pages * rounds * TRIES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        offsets = iter(range(0, len(memory), PAGE))

        def touch():
            for _ in range(pages):
                memory[next(offsets)] = 1

        assert usual(touch, rounds).minor_faults == pages * rounds


def test_pages_that_were_touched_before_are_no_fault():
    with mmap.mmap(-1, 16 * PAGE) as memory:

        def touch():
            for offset in range(0, 16 * PAGE, PAGE):
                memory[offset] = 1

        touch()
        assert usual(touch, 32).minor_faults == 0


def test_blocks_that_are_kept_are_counted_and_those_given_back_are_not():
    """A list of its own size never moves: each operation keeps one object more, of one block."""
    kept = [None] * 100 * TRIES
    places = iter(range(100 * TRIES))

    def keep():
        kept[next(places)] = object()

    def drop():
        object()

    assert usual(drop, 100).allocated_blocks == 0
    assert usual(keep, 100).allocated_blocks == 100


def test_garbage_that_waits_for_the_collector_is_not_kept():
    def cycle():
        around = []
        around.append(around)

    cycle()
    gc.disable()
    try:
        seen = usual(cycle, 100)
    finally:
        gc.enable()
    assert (seen.collections, seen.allocated_blocks) == (0, 0)


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_runs_of_the_collector_are_counted_whatever_they_collect(generation):
    assert usual(lambda: gc.collect(generation), 5).collections == 5


@linux
def test_the_peak_is_what_rose_above_the_start_and_was_given_back():
    size = 32 << 20

    def hold():
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            for offset in range(0, size, PAGE):
                memory[offset] = 1

    peak = counted(hold, 3).peak_bytes
    assert peak is not None
    assert 0.5 * size < peak < 1.5 * size
    assert counted(lambda: None, 1).peak_bytes < 8 << 20


def test_what_the_system_does_not_tell_is_none_and_named(monkeypatch, tmp_path):
    monkeypatch.setattr(counters, "CALLS", str(tmp_path / "nothing"))
    monkeypatch.setattr(counters, "forget_peak", lambda: False)
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delattr(sys, "getallocatedblocks")
    seen = counted(gc.collect, 2)
    assert seen == Counts(
        minor_faults=None, read_calls=None, write_calls=None, collections=2, allocated_blocks=None, peak_bytes=None
    )
    assert seen.unknown == ("minor_faults", "read_calls", "write_calls", "allocated_blocks", "peak_bytes")


def test_a_file_of_counts_that_opens_and_cannot_be_read_is_unknown(monkeypatch, tmp_path):
    """The kernel asks for the right to read it at the read."""
    monkeypatch.setattr(counters, "CALLS", str(tmp_path))
    assert counted(lambda: None, 1).unknown == ("read_calls", "write_calls")


def test_an_operation_that_fails_is_heard_and_leaves_no_file_open():
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        counted(fail, 3)
    if sys.platform == "linux":  # by name: what other threads have open comes and goes
        assert [path for path in open_files() if path.endswith("/io")] == []
        file = counters._open_calls()
        assert [path for path in open_files() if path.endswith("/io")] != []
        os.close(file)


def open_files():
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # it was that of the list
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


def test_no_operations_cannot_be_counted():
    with pytest.raises(ValueError, match="0 operations cannot be counted: name at least one"):
        counted(lambda: None, 0)


def test_counts_are_plain_data():
    seen = counted(lambda: None, 1)
    assert msgspec.json.decode(msgspec.json.encode(seen), type=Counts) == seen
