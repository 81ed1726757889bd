"""Where the system says how short memory is: control groups, stalls, available memory; and the ledger.

Invariant: reading never raises. A source that is not there, may not be read or says something that cannot be is left
out, and `found` says why.
Threads: one at a time.
Design: docs/design/pressure.md
"""

from __future__ import annotations

import importlib
import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.buffers.pressure_files import LARGEST_NUMBER, Garbled, parse_number, read_text, shown, why
from daramjwee.buffers.pressure_groups import GroupV1, GroupV2, own_group
from daramjwee.buffers.pressure_kernel import Measure, Sample
from daramjwee.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from daramjwee.buffers.ledger import MemoryLedger

    Reader = Callable[[], list[Sample]]

# Sources are looked for again after so long, as a process may be moved to another group, or a group get a limit. Already at
# the next read after the first time (what starts a process often moves it, or sets its limit, a moment later), and when
# one was missed that was there.
LOOK_AGAIN_SECONDS = 60.0


class Source(NamedTuple):
    """One source: `found` or not; `detail`: where it is and what it says, or why it is not used."""

    name: str
    found: bool
    detail: str


class Sources:
    """The sources of this process below `root`, found at the first `read`."""

    def __init__(self, root: str | os.PathLike[str], ledger: MemoryLedger | None) -> None:
        self._root = os.path.abspath(os.fspath(root)).rstrip("/")
        self._ledger = ledger
        self._readers: dict[str, Reader] = {}
        self._found: dict[str, Source] = {}
        self._looked_at: float | None = None
        self._look_again = 0.0  # seconds after that

    @property
    def found(self) -> tuple[Source, ...]:
        if not self._found:
            self._look()
        return tuple(self._found.values())

    def read(self, now: float) -> list[Sample]:
        """What every source says now."""
        if self._looked_at is None or not 0 <= now - self._looked_at < self._look_again:
            before = self._found
            self._look()
            missed = any(source.found and not self._found[name].found for name, source in before.items())
            self._look_again = 0.0 if missed or self._looked_at is None else LOOK_AGAIN_SECONDS
            self._looked_at = now
        samples: list[Sample] = []
        for name, read in self._readers.items():
            try:
                samples += read()
            except (OSError, ValueError) as error:
                self._found[name] = Source(name, False, why(error))
                self._looked_at = None  # look for it, or for what took its place, at the next read
        return samples

    def _look(self) -> None:
        """Find the sources, by reading each once."""
        finders: dict[str, Callable[[], tuple[Reader, str]]] = {
            "cgroup": self._find_groups,
            "psi": self._find_stalls,
            "meminfo": self._find_machine,
            "ledger": self._find_ledger,
        }
        if not os.path.exists(f"{self._root}/proc"):
            finders["psutil"] = self._find_psutil
        readers: dict[str, Reader] = {}
        found: dict[str, Source] = {}
        for name, find in finders.items():
            try:
                reader, detail = find()
                reader()
            except (OSError, ValueError, ImportError) as error:
                found[name] = Source(name, False, why(error))
            else:
                readers[name] = reader
                found[name] = Source(name, True, detail)
        self._readers, self._found = readers, found

    def _find_groups(self) -> tuple[Reader, str]:
        tried = []
        for version, kind in ((2, GroupV2), (1, GroupV1)):
            place = own_group(self._root, version)
            if place is None:
                tried.append(f"no version {version} hierarchy is mounted")
                continue
            groups = [kind(folder, name, own=not depth) for depth, (folder, name) in enumerate(place.ancestry())]
            usable = []
            for group in groups:
                try:
                    if group.read() or group.limited:
                        usable.append(group)
                except FileNotFoundError as error:
                    # The topmost group has no limit, nor has one above those that memory is counted in.
                    if group.own:
                        tried.append(why(error))
                except (OSError, ValueError) as error:
                    tried.append(why(error))
            if usable:
                where = f"version {version}, {place.folder}"
                limits = [group.describe() for group in usable if group.limited]
                detail = f"{where}: {'; '.join(limits) or 'no limit'}"
                return partial(_read_all, usable), detail
        raise Garbled("; ".join(tried))

    def _find_stalls(self) -> tuple[Reader, str]:
        place = own_group(self._root, 2)
        paths = [f"{self._root}/proc/pressure/memory"]
        if place is not None:
            # What the group waits for is what concerns us: the machine's figure has its neighbours' in it, too.
            paths.insert(0, f"{place.folder}/memory.pressure")
        reasons = []
        for path in paths:
            try:
                read_stalls(path)
            except (OSError, ValueError) as error:
                reasons.append(why(error))
            else:
                return partial(read_stalls, path), path
        raise Garbled("; ".join(reasons))

    def _find_machine(self) -> tuple[Reader, str]:
        path = f"{self._root}/proc/meminfo"
        return partial(read_machine, path), path

    def _find_ledger(self) -> tuple[Reader, str]:
        ledger = self._ledger
        if ledger is None:
            raise Garbled("none was given")
        return partial(read_ledger, ledger), f"limit {format_size(ledger.limit)}"

    def _find_psutil(self) -> tuple[Reader, str]:
        if self._root:
            raise Garbled(f"not asked: it knows this machine, not {self._root}")
        # By name: it has no type hints, and is not there on Linux.
        psutil = importlib.import_module("psutil")
        return partial(read_psutil, psutil), "psutil.virtual_memory()"


def _read_all(groups: Iterable[GroupV1 | GroupV2]) -> list[Sample]:
    return [sample for group in groups for sample in group.read()]


def read_stalls(path: str) -> list[Sample]:
    """Shares of the last 10 s in which some, or all, tasks stood still for want of memory."""
    samples = []
    for line in read_text(path).splitlines():
        kind, _, rest = line.partition(" avg10=")
        if kind not in ("some", "full"):
            continue
        try:
            percent = float(rest.split(" ", 1)[0])
        except ValueError:
            percent = math.nan
        if not 0 <= percent <= 100:
            raise Garbled(f"{path} says {shown(line)}")
        who = "some tasks" if kind == "some" else "all tasks"
        samples.append(Sample("psi", Measure(kind), percent / 100, f"{who} stalled {percent:g}% of the last 10 s"))
    if not samples:
        raise Garbled(f"{path} has no avg10")
    return samples


def read_machine(path: str) -> list[Sample]:
    """What is not available, of the machine's memory."""
    figures: dict[str, int] = {}
    for line in read_text(path).splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            figures[name] = parse_number(rest.removesuffix(" kB"), path) * 1024
            if len(figures) == 2:
                break
    total, available = figures.get("MemTotal", 0), figures.get("MemAvailable")
    if available is None or not 0 < total <= LARGEST_NUMBER:
        raise Garbled(f"{path} has no MemAvailable, or no MemTotal")
    return [_machine("meminfo", total, available)]


def read_psutil(psutil: Any) -> list[Sample]:
    """The same where there is no /proc."""
    try:
        memory = psutil.virtual_memory()
        total, available = int(memory.total), int(memory.available)
    except Exception as error:
        # What it raises differs from system to system; that it cannot say is all that matters here.
        raise Garbled(f"psutil.virtual_memory() failed: {error!r}") from error
    if available < 0 or total <= 0:
        raise Garbled(f"psutil says {available} available of {total}")
    return [_machine("psutil", total, available)]


def _machine(source: str, total: int, available: int) -> Sample:
    detail = f"{format_size(available)} available of {format_size(total)}"
    return Sample(source, Measure.MACHINE, max(0.0, 1 - available / total), detail)


def read_ledger(ledger: MemoryLedger) -> list[Sample]:
    """What is held of the ledger's limit, and how many wait."""
    held, limit, waiting = ledger.held, ledger.limit, ledger.waiting
    detail = f"{format_size(held)} held of {format_size(limit)}, {waiting} waiting"
    return [Sample("ledger", Measure.LEDGER, max(0, held) / limit, detail, waiting=waiting)]
