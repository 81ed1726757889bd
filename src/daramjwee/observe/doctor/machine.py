"""Checks of the machine: processors, descriptors, clocks.

Threads: any.
Design: docs/monitoring.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daramjwee.observe.doctor import cgroup
from daramjwee.observe.doctor.case import Check, State
from daramjwee.observe.doctor.memory import soft_limit
from daramjwee.stores.file.store import KEPT_DESCRIPTORS
from daramjwee.units import counted, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daramjwee.observe.doctor.case import Case

# With the kept descriptors of a file tier, so many leave a few dozen streams.
FEW_DESCRIPTORS = 4 * KEPT_DESCRIPTORS
# What a system gives that nobody touched.
USUAL_DESCRIPTORS = 1024
# glibc makes up to 8 arenas a processor that it sees, which may be many more than the container may use.
MANY_CPUS = 8
CLOCK_SOURCE = "sys/devices/system/clocksource/clocksource0/current_clocksource"
# A reading of these is a call of the system, about 1 us: others are read in 60 ns.
SLOW_SOURCES = ("hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit")
COARSE_TICK_SECONDS = 0.001
# 2026-01-01: before the first release, so no clock that is right says less.
EARLIEST_WALL = 1_767_225_600.0
# A clock that is steered gently gains or loses at most 0.5 ms/s; more in an examination of a second is a jump.
JUMP_SECONDS = 0.5


def container_cpus(case: Case) -> Iterator[Check]:
    """How much processor time the container gives."""
    limit, cpus = cgroup.cpu_limit(case), case.runtime.cpus
    if limit is None:
        known = cgroup.is_known(case)
        seen = f"{counted(cpus, 'processor')}, " + ("no limit" if known else "whether there is a limit is not known")
        state, remedy = (State.OK, "") if known else (State.NOTE, "on Linux mount /proc")
        yield Check("container_cpus", state, seen, remedy)
        return
    seen = f"{limit.value:.2f} of {counted(cpus, 'processor')} ({limit.file})"
    if limit.value < 1:
        remedy = "threads stand still together when it is used up: give it at least 1"
        yield Check("container_cpus", State.NOTE, seen, remedy)
    elif cpus > MANY_CPUS * limit.value and "MALLOC_ARENA_MAX" not in case.environ:
        remedy = "malloc keeps memory for each processor that it sees: set MALLOC_ARENA_MAX=2"
        yield Check("container_cpus", State.NOTE, seen, remedy)
    else:
        yield Check("container_cpus", State.OK, seen)


def open_files(case: Case) -> Iterator[Check]:
    """How many files may be open: each stream from a file tier has one, and the tier keeps some open."""
    limit = soft_limit(case, "Max open files")
    if limit is None:
        known = case.read("proc/self/limits") is not None
        seen = "no limit" if known else "not known: /proc/self/limits cannot be read"
        yield Check("open_files", State.OK if known else State.NOTE, seen, "" if known else "see ulimit -n")
        return
    seen = f"{limit:,} at a time; a file tier keeps up to {KEPT_DESCRIPTORS}, each stream and each fill one more"
    if limit >= USUAL_DESCRIPTORS:
        yield Check("open_files", State.OK, seen)
        return
    state = State.PROBLEM if limit < FEW_DESCRIPTORS else State.NOTE
    yield Check("open_files", state, seen, f"raise it: ulimit -n {4 * USUAL_DESCRIPTORS}, or LimitNOFILE= of a service")


def clock(case: Case) -> Iterator[Check]:
    """How fine the clock of durations is, and what reading it costs."""
    source = (case.read(CLOCK_SOURCE) or "").strip()
    seen = f"a tick of {_tick(case.runtime.tick_seconds)}" + (f", from {source}" if source else "")
    if case.runtime.tick_seconds > COARSE_TICK_SECONDS:
        yield Check("clock", State.NOTE, seen, "latencies below the tick are shown as 0; nothing else depends on it")
    elif source in SLOW_SOURCES:
        remedy = "each reading is a call of the system: choose tsc or the clock of the hypervisor, if it is offered"
        yield Check("clock", State.NOTE, seen, remedy)
    else:
        yield Check("clock", State.OK, seen)


def _tick(seconds: float) -> str:
    return f"{seconds * 1e9:.0f}ns" if seconds < 1e-6 else format_duration(seconds)


def wall_clock(case: Case) -> Iterator[Check]:
    """Whether the time of day is plausible and does not jump: lifetimes of entries are judged by it."""
    wall, monotonic = case.clock.now(), case.clock.monotonic()
    shown = _date(wall)
    if wall < EARLIEST_WALL:
        seen = f"{shown}: that is before this library was written"
        remedy = "set the clock (timedatectl set-ntp true): entries seem to be from the future, and stay fresh too long"
        yield Check("wall_clock", State.PROBLEM, seen, remedy)
        return
    began_wall, began_monotonic = case.began
    jump = (wall - began_wall) - (monotonic - began_monotonic) if began_wall else 0.0
    if abs(jump) > JUMP_SECONDS:
        seen = f"{shown}; it jumped by {jump:+.1f} s while it was looked at"
        remedy = "have one service set the clock, by slewing: a jump makes entries expire early or late"
        yield Check("wall_clock", State.NOTE, seen, remedy)
        return
    yield Check("wall_clock", State.OK, f"{shown}; no jump while it was looked at (earlier ones cannot be known)")


def _date(wall: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
