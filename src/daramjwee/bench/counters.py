"""What operations cost in counts: page faults, calls of the system, collector runs, blocks kept, memory at the peak.

Invariant: an operation that does nothing costs nothing: what reading the counters costs is measured beside it, and taken off.
Threads: one at a time. All figures are of the whole process, so whatever other threads do meanwhile counts, too.
Design: docs/design/bench.md
"""

from __future__ import annotations

import gc
import os
import sys
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from daramjwee.bench.timing import forget_peak, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Calls of this process, its threads that ended, and its children that were waited for.
CALLS = "/proc/self/io"

# How often an operation that does nothing is counted. What other threads do meanwhile only adds calls, so the least of
# these is what looking costs; taken from a single look, it would make the operation itself seem to cost less than none.
LOOKS = 3


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Totals around some operations; None is what this system does not tell.

    minor_faults: pages that were mapped without reading from a disk.
    read_calls, write_calls: as the kernel counts them (`syscr`, `syscw`). A `copy_file_range` is one of each; what a
    socket does with `send` and `recv` is none.
    collections: runs of the cycle collector, of any generation.
    allocated_blocks: blocks of Python's small-object allocator that are still there after a full collection.
    peak_bytes: how far resident memory rose above what it was before. The kernel keeps this figure only roughly.
    """

    minor_faults: int | None
    read_calls: int | None
    write_calls: int | None
    collections: int | None
    allocated_blocks: int | None
    peak_bytes: int | None

    @property
    def unknown(self) -> tuple[str, ...]:
        """The names of what this system does not tell."""
        return tuple(name for name in self.__struct_fields__ if getattr(self, name) is None)


def counted(operation: Callable[[], object], times: int) -> Counts:
    """What `times` operations cost, all together. The first operation of a process costs more than the others: run
    it before, where that does not belong to the question."""
    if times < 1:
        raise ValueError(f"{times} operations cannot be counted: name at least one")
    calls = _open_calls()
    try:
        _around(_nothing, 1, calls)  # what only a first look costs
        looks = [_around(_nothing, 1, calls) for _ in range(LOOKS)]
        measurable = forget_peak()
        resident = resident_bytes()
        seen = _around(operation, times, calls)
        peak = resident_bytes("VmHWM") if measurable else None
    finally:
        if calls is not None:
            os.close(calls)
    return Counts(
        minor_faults=seen.faults,
        read_calls=_less(seen.reads, _least(look.reads for look in looks)),
        write_calls=_less(seen.writes, _least(look.writes for look in looks)),
        collections=seen.collections,
        allocated_blocks=_less(seen.blocks, looks[-1].blocks),
        peak_bytes=None if peak is None or resident is None else max(0, peak - resident),
    )


class _Seen(NamedTuple):
    faults: int | None
    reads: int | None
    writes: int | None
    collections: int | None
    blocks: int | None


def _nothing() -> None:
    """The operation that costs nothing."""


def _around(operation: Callable[[], object], times: int, calls: int | None) -> _Seen:
    # From the same state of the collector each time; and what is only waiting for it is not kept.
    gc.collect()
    rounds = repeat(None, times)
    blocks = _blocks()
    runs = _collections()
    reads, writes = _calls(calls)
    faults = _faults()
    for _ in rounds:
        operation()
    more_faults = _faults()
    more_reads, more_writes = _calls(calls)
    more_runs = _collections()
    gc.collect()
    more_blocks = _blocks()
    return _Seen(
        _less(more_faults, faults), _less(more_reads, reads), _less(more_writes, writes), _less(more_runs, runs),
        _less(more_blocks, blocks),
    )  # fmt: skip


def _least(figures: Iterable[int | None]) -> int | None:
    known = [figure for figure in figures if figure is not None]
    return min(known) if known else None


def _less(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def _faults() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _open_calls() -> int | None:
    try:
        return os.open(CALLS, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None  # another system, or a sandbox that hides it


def _calls(file: int | None) -> tuple[int | None, int | None]:
    """Calls that read and that wrote, until now. Looking is one that reads; it counts only after what it shows."""
    if file is None:
        return None, None
    try:
        text = os.pread(file, 1024, 0)
    except OSError:
        return None, None  # it opens for anyone; whether it may be read is asked here
    fields = dict(line.split(b": ") for line in text.splitlines())
    return int(fields[b"syscr"]), int(fields[b"syscw"])


def _collections() -> int | None:
    return int(sum(generation["collections"] for generation in gc.get_stats()))


def _blocks() -> int | None:
    look = getattr(sys, "getallocatedblocks", None)  # CPython only
    return None if look is None else int(look())
