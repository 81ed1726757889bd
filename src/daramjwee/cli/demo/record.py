"""What a run of the demo is told, and what it found. Pure.

Invariant: a step is right only if every check of it is; a run only if every step is, and all of them ran.
Threads: any.
Design: docs/cli.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from daramjwee.cli.options import seconds_of, size_of
from daramjwee.errors import ConfigError, Problem
from daramjwee.units import MIB

# Objects above an eighth of the memory tier belong in the file tier: the big one has to be clearly one of them.
MEMORY_TIER_BYTES = 32 * MIB
MEMORY_LIMIT_BYTES = 64 * MIB
LEAST_BIG_BYTES = 8 * MIB
MOST_READERS = 256
# Of this length the races and the leaving reader take at least; below that a fill would be over before they begin.
LEAST_RACE_BYTES = 4 * MIB


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, durations in seconds. `bandwidth`: bytes a second of one response."""

    big_bytes: int = 256 * MIB
    readers: int = 32
    latency: float = 0.05
    bandwidth: int = 64_000_000
    files: int = 16
    largest_file_bytes: int = 64 * MIB

    @property
    def part_bytes(self) -> int:
        """The size of the object that a reader leaves half-way."""
        return max(LEAST_RACE_BYTES, self.big_bytes // 4)

    @property
    def race_bytes(self) -> int:
        """The size of the objects that are deleted and replaced while they are fetched."""
        return max(LEAST_RACE_BYTES, self.big_bytes // 8)

    @property
    def disk_bytes(self) -> int:
        """What the file tier may hold."""
        return 2 * self.big_bytes + self.part_bytes + 2 * self.race_bytes + self.files * self.largest_file_bytes


def settings_of(*, size: str, readers: int, latency: str, bandwidth: str) -> Settings:
    """Settings from what a person typed. `ConfigError` lists every problem."""
    problems: list[Problem] = []
    big_bytes = size_of("--size", size, problems, least=LEAST_BIG_BYTES)
    bytes_a_second = size_of("--bandwidth", bandwidth, problems)
    seconds = seconds_of("--latency", latency, problems)
    if not 2 <= readers <= MOST_READERS:
        problems.append(Problem("--readers", readers, f"give 2 to {MOST_READERS}"))
    if problems:
        raise ConfigError(problems, subject="demo")
    return Settings(big_bytes=big_bytes, readers=readers, latency=seconds, bandwidth=bytes_a_second)


class Check(msgspec.Struct, frozen=True):
    """One thing that must be so: what, how it has to be, how it was."""

    what: str
    wanted: Any
    seen: Any
    ok: bool


def same(what: str, wanted: Any, seen: Any) -> Check:
    """It must be exactly `wanted`."""
    return Check(what, wanted, seen, wanted == seen)


def at_most(what: str, wanted: float, seen: float) -> Check:
    """It must not be more than `wanted`."""
    return Check(what, wanted, seen, seen <= wanted)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step: what was seen, in words and in figures. `error` is set when it could not be done at all."""

    name: str
    title: str
    seen: str
    ok: bool
    seconds: float
    bytes: int = 0
    origin_fetches: int = 0
    first_byte_ms: float | None = None
    figures: dict[str, Any] = {}
    checks: tuple[Check, ...] = ()
    error: str | None = None


def step_of(
    name: str,
    title: str,
    seen: str,
    checks: Sequence[Check],
    *,
    seconds: float,
    count: int,
    fetches: int,
    first_byte_seconds: float | None = None,
    figures: dict[str, Any] | None = None,
) -> Step:
    """A step that was done, right if its checks are."""
    return Step(
        name=name, title=title, seen=seen, ok=all(check.ok for check in checks), seconds=seconds, bytes=count,
        origin_fetches=fetches, checks=tuple(checks), figures=figures or {},
        first_byte_ms=None if first_byte_seconds is None else round(first_byte_seconds * 1e3, 3),
    )  # fmt: skip


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run. The figures at the top are those of all readers on the cold big object.

    `first_byte_ms`: of the slowest reader. `single_reader_wall_s`: one reader alone on the same object, cold.
    `peak_memory_bytes`: see `peak_memory_means`. None where the step that measures it failed.
    """

    ok: bool
    version: str
    readers: int
    origin_fetches: int | None = None
    digests_right: int | None = None
    first_byte_ms: float | None = None
    wall_s: float | None = None
    single_reader_wall_s: float | None = None
    peak_memory_bytes: int | None = None
    peak_memory_means: str | None = None
    object_bytes: int
    origin: dict[str, Any]
    cache: dict[str, Any]
    seconds: float
    steps: tuple[Step, ...]


def faults_of(steps: tuple[Step, ...]) -> list[str]:
    """Everything that was not as it should be, a line each."""
    faults = []
    for step in steps:
        if step.error is not None:
            faults.append(f"{step.title}: {step.error}")
        faults += [f"{step.title}: {c.what}: wanted {c.wanted}, seen {c.seen}" for c in step.checks if not c.ok]
    return faults
