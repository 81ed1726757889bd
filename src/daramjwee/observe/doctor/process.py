"""Checks of the interpreter.

Threads: any.
Design: docs/monitoring.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daramjwee.observe.doctor.case import Check, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daramjwee.observe.doctor.case import Case

# What the tests run on.
OLDEST, NEWEST = (3, 11), (3, 13)


def python(case: Case) -> Iterator[Check]:
    """Whether the library is tested on this interpreter."""
    run = case.runtime
    name = f"{run.implementation} {'.'.join(map(str, run.version))}" + ("" if run.stage == "final" else f" {run.stage}")
    tested = f"CPython {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    if run.implementation != "cpython":
        seen = f"{name}: buffers that are still in use are told by CPython's reference counts"
        yield Check("python", State.PROBLEM, seen, f"use {tested}")
    elif not OLDEST <= run.version[:2] <= NEWEST or run.stage != "final":
        yield Check("python", State.NOTE, f"{name}: not tested", f"use {tested}")
    else:
        yield Check("python", State.OK, name)


def gil(case: Case) -> Iterator[Check]:
    """Whether the interpreter has its lock: free-threaded builds are not claimed."""
    run = case.runtime
    if not run.gil:
        seen = "off: what relies on it (free chunks are taken and given back without a lock) is not tested"
        yield Check("gil", State.PROBLEM, seen, "set PYTHON_GIL=1, or use an ordinary build")
    elif run.free_threaded:
        yield Check("gil", State.NOTE, "on, in a free-threaded build", "keep it on (PYTHON_GIL=1)")
    else:
        yield Check("gil", State.OK, "on")


def python_build(case: Case) -> Iterator[Check]:
    """Whether something slows every call: a debug build, the development mode, a tracer."""
    run = case.runtime
    slow = [
        name
        for name, holds in (
            ("a debug build", run.debug_build),
            ("development mode (-X dev, PYTHONDEVMODE)", run.dev_mode),
            ("a tracer (coverage, a debugger, tracemalloc)", run.traced),
        )
        if holds
    ]
    if slow:
        seen = f"{', '.join(slow)}: figures of speed mean little"
        yield Check("python_build", State.NOTE, seen, "measure without")
    else:
        yield Check("python_build", State.OK, "nothing that slows it")


def checksums(case: Case) -> Iterator[Check]:
    """Whether the processor computes the checksums of a file tier: 36 us/MiB, without it 410."""
    found = case.crc32c()
    if found.missing:
        seen = f"crc32c cannot be imported: {found.missing}"
        yield Check(
            "checksums", State.PROBLEM, seen, "pip install --force-reinstall crc32c; no file tier works without"
        )
    elif not found.right:
        seen = "crc32c computes wrong sums: what a file tier holds would be taken for damaged"
        yield Check("checksums", State.PROBLEM, seen, "pip install --force-reinstall crc32c")
    elif not found.hardware:
        forced = case.environ.get("CRC32C_SW_MODE")
        seen = "CRC-32C in software, ten times slower" + (f" (CRC32C_SW_MODE={forced})" if forced else "")
        remedy = "unset CRC32C_SW_MODE" if forced else 'reads are checked once (verify="first"); "off" does without'
        yield Check("checksums", State.NOTE, seen, remedy)
    else:
        yield Check("checksums", State.OK, "CRC-32C by the processor")
