"""What a check looks at and what it answers.

Invariant: a check sees the world only through its `Case`, so that a test can show it any other.
Threads: any.
Design: docs/monitoring.md
"""

from __future__ import annotations

import enum
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from daramjwee.buffers.config import BufferPoolConfig
from daramjwee.errors import Problem
from daramjwee.model import SYSTEM_CLOCK, Clock
from daramjwee.observe.doctor import probes
from daramjwee.stores.file.files import Files
from daramjwee.units import KIB, MIB

# What a cache may hold when nothing is said: the default of `memory_limit`.
MEMORY_LIMIT = 512 * MIB
# What a tier in a folder leaves free on its disk: the default of `free_space_floor`.
FREE_SPACE_FLOOR = 64 * MIB
# What a process needs beside the cache: the bare interpreter with the library has 19 MiB resident (VmRSS after
# `import daramjwee`), a program's own modules a few times that.
PROCESS_BYTES = 64 * MIB


class State(enum.StrEnum):
    """OK: nothing to do. NOTE: worth knowing, works all the same. PROBLEM: something will fail or be lost."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


class Check(msgspec.Struct, frozen=True):
    """One answer: `name` of the check, its `state`, what was `seen`, and a `remedy` unless all is well."""

    name: str
    state: State
    seen: str
    remedy: str = ""


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """The interpreter and what is built into it. The defaults are those of this process."""

    implementation: str = sys.implementation.name
    version: tuple[int, int, int] = sys.version_info[:3]
    stage: str = sys.version_info.releaselevel
    free_threaded: bool = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    gil: bool = msgspec.field(default_factory=probes.gil_is_on)
    debug_build: bool = hasattr(sys, "gettotalrefcount")
    dev_mode: bool = sys.flags.dev_mode
    traced: bool = msgspec.field(default_factory=probes.is_traced)
    page_bytes: int = msgspec.field(default_factory=lambda: os.sysconf("SC_PAGE_SIZE"))
    libc: str = msgspec.field(default_factory=probes.libc)
    tick_seconds: float = msgspec.field(default_factory=lambda: time.get_clock_info("monotonic").resolution)
    cpus: int = msgspec.field(default_factory=probes.cpus)
    uid: int = msgspec.field(default_factory=os.getuid)


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo: the part that is shown, where, its own options, its kind, those of the whole."""

    root: str
    point: str
    options: tuple[str, ...]
    kind: str
    on_the_whole: tuple[str, ...]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Where the checks look.

    `root`: where /proc and /sys are. `folder`: that of a file tier, or None. `memory_limit`, `processes`: what each
    cache may hold and how many processes have one. `config`: the settings of the pool, `config_problems` what is wrong
    with those that were given. The rest is asked of the system, and is there to be replaced in tests.
    """

    root: str = "/"
    environ: Mapping[str, str] = msgspec.field(default_factory=lambda: os.environ)
    folder: str | None = None
    memory_limit: int = MEMORY_LIMIT
    free_space_floor: int = FREE_SPACE_FLOOR
    processes: int = 1
    config: BufferPoolConfig = msgspec.field(default_factory=BufferPoolConfig)
    config_problems: tuple[Problem, ...] = ()
    runtime: Runtime = msgspec.field(default_factory=Runtime)
    clock: Clock = SYSTEM_CLOCK
    # Wall clock and monotonic clock when the examination began.
    began: tuple[float, float] = (0.0, 0.0)
    files: Files = msgspec.field(default_factory=Files)
    advise_huge: Callable[[], probes.HugePage] = probes.advise_huge
    lease_addresses: Callable[[BufferPoolConfig], Mapping[int, int]] = probes.lease_addresses
    crc32c: Callable[[], probes.Crc] = probes.crc32c
    share_blocks: Callable[[str], int] = probes.share_blocks
    try_lock: Callable[[int], None] = probes.try_lock

    @property
    def needed_bytes(self) -> int:
        """What all processes together may come to hold in memory."""
        return self.processes * (self.memory_limit + PROCESS_BYTES)

    def read(self, path: str) -> str | None:
        """The text of a file of the system, None where it is not there or not ours to read."""
        try:
            with open(os.path.join(self.root, path), encoding="utf-8", errors="replace") as file:
                return file.read(1024 * KIB)
        except OSError:
            return None  # absent, or hidden from us: the check says that it is not known

    def fields(self, path: str) -> dict[str, str]:
        """Lines of "Name: value" as a dict; empty where the file cannot be read."""
        lines = (line.partition(":") for line in (self.read(path) or "").splitlines())
        return {name.strip(): value.strip() for name, colon, value in lines if colon}

    def mounts(self) -> list[Mount]:
        """What is mounted, in order; empty where that cannot be read."""
        found = []
        for line in (self.read("proc/self/mountinfo") or "").splitlines():
            left, dash, right = line.partition(" - ")
            fields, whole = left.split(), right.split()
            if dash and len(fields) > 5 and len(whole) > 2:
                options, more = tuple(fields[5].split(",")), tuple(whole[2].split(","))
                found.append(Mount(_unescaped(fields[3]), _unescaped(fields[4]), options, whole[0], more))
        return found


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def kilobytes(text: str | None) -> int | None:
    """Bytes meant by "1234 kB", as /proc has them."""
    number = (text or "").split()
    return int(number[0]) * KIB if number and number[0].isdigit() else None
