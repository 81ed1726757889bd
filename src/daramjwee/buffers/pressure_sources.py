"""Where the system says how short memory is: control groups, stalls, available memory; and the ledger.

Invariant: reading never raises. A source that is not there, may not be read or says something that cannot be is left
out, and `found` says why.
Threads: one at a time.
Design: docs/design/pressure.md
"""

from __future__ import annotations

import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.buffers.pressure_kernel import Measure, Sample
from daramjwee.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from daramjwee.buffers.ledger import MemoryLedger

    Reader = Callable[[], list[Sample]]

# A limit this large is none: version 1 writes 2^63 less a page for it.
NO_LIMIT = 1 << 60
# What no file says truly: the kernel counts bytes in 64 bits, signed where it can be asked.
LARGEST_NUMBER = (1 << 63) - 1
# Sources are looked for again after so long, as a process may be moved to another group, or a group get a limit.
LOOK_AGAIN_SECONDS = 60.0
# More than any of these files has; a folder or a device that never ends is no source.
LONGEST_FILE = 1 << 20
# Groups deeper than this are no real hierarchy.
DEEPEST = 32


class Source(NamedTuple):
    """One source: `found` or not; `detail`: where it is and what it says, or why it is not used."""

    name: str
    found: bool
    detail: str


class Garbled(ValueError):
    """A file says something that cannot be; the message says which and what."""


class Sources:
    """The sources of this process below `root`, found at the first `read`."""

    def __init__(self, root: str | os.PathLike[str], ledger: MemoryLedger | None) -> None:
        self._root = os.path.abspath(os.fspath(root)).rstrip("/")
        self._ledger = ledger
        self._readers: dict[str, Reader] = {}
        self._found: dict[str, Source] = {}
        self._looked_at: float | None = None

    @property
    def found(self) -> tuple[Source, ...]:
        if not self._found:
            self._look()
        return tuple(self._found.values())

    def read(self, now: float) -> list[Sample]:
        """What every source says now."""
        if self._looked_at is None or not 0 <= now - self._looked_at < LOOK_AGAIN_SECONDS:
            self._look()
            self._looked_at = now
        samples: list[Sample] = []
        for name, read in self._readers.items():
            try:
                samples += read()
            except (OSError, ValueError) as error:
                self._found[name] = Source(name, False, _why(error))
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
                found[name] = Source(name, False, _why(error))
            else:
                readers[name] = reader
                found[name] = Source(name, True, detail)
        self._readers, self._found = readers, found

    def _find_groups(self) -> tuple[Reader, str]:
        tried = []
        for version, kind in ((2, GroupV2), (1, GroupV1)):
            place = _own_group(self._root, version)
            if place is None:
                tried.append(f"no version {version} hierarchy is mounted")
                continue
            groups = [kind(folder, name, own=not depth) for depth, (folder, name) in enumerate(place.ancestry())]
            usable = []
            for group in groups:
                try:
                    if group.read() or group.limited:
                        usable.append(group)
                except (OSError, ValueError) as error:
                    tried.append(_why(error))
            if usable:
                where = f"version {version}, {place.folder}"
                limits = [group.describe() for group in usable if group.limited]
                detail = f"{where}: {'; '.join(limits) or 'no limit'}"
                return partial(_read_all, usable), detail
        raise Garbled("; ".join(tried))

    def _find_stalls(self) -> tuple[Reader, str]:
        place = _own_group(self._root, 2)
        paths = [f"{self._root}/proc/pressure/memory"]
        if place is not None:
            # What the group waits for is what concerns us: the machine's figure has its neighbours' in it, too.
            paths.insert(0, f"{place.folder}/memory.pressure")
        reasons = []
        for path in paths:
            try:
                read_stalls(path)
            except (OSError, ValueError) as error:
                reasons.append(_why(error))
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
        import psutil

        return partial(read_psutil, psutil), "psutil.virtual_memory()"


def _read_all(groups: Iterable[GroupV1 | GroupV2]) -> list[Sample]:
    return [sample for group in groups for sample in group.read()]


# -- control groups --------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a group is: its folder, and the folder of the topmost group that can be seen."""

    folder: str
    top: str

    def ancestry(self) -> Iterator[tuple[str, str]]:
        """The group and those above it, each with its name below the top."""
        folder = self.folder
        for _ in range(DEEPEST):
            yield folder, folder[len(self.top) :] or "/"
            if folder == self.top:
                return
            folder = folder.rpartition("/")[0]


def _own_group(root: str, version: int) -> Place | None:
    """Where this process is in the hierarchy of `version` that counts memory; None where there is none to be seen."""
    try:
        group = _name_of_group(read_text(f"{root}/proc/self/cgroup"), version)
    except OSError:
        group = None
    if group is None:
        return None
    for prefix, mounted in _mounts(root, version):
        top = (root + mounted).rstrip("/")
        # In a container the mount shows a part of the hierarchy, and the name may be as seen from outside of it.
        below = group[len(prefix) :] if prefix != "/" and (group + "/").startswith(prefix + "/") else group
        steps = [step for step in below.split("/") if step]
        folder = "/".join([top, *steps])
        if ".." in steps or not os.path.isdir(folder):
            folder = top
        if os.path.isdir(folder):
            return Place(folder, top)
    return None


def _name_of_group(text: str, version: int) -> str | None:
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if (number == "0" and not controllers) if version == 2 else "memory" in controllers.split(","):
            return name
    return None


def _mounts(root: str, version: int) -> Iterator[tuple[str, str]]:
    """(the group that is shown, where it is mounted) for each mount of the hierarchy."""
    try:
        text = read_text(f"{root}/proc/self/mountinfo")
    except OSError:
        yield "/", "/sys/fs/cgroup" if version == 2 else "/sys/fs/cgroup/memory"
        return
    for line in text.splitlines():
        mount, _, kind = line.partition(" - ")
        fields, kinds = mount.split(" "), kind.split(" ")
        if len(fields) < 5 or len(kinds) < 3:
            continue
        if kinds[0] == "cgroup2" if version == 2 else kinds[0] == "cgroup" and "memory" in kinds[2].split(","):
            yield _unescape(fields[3]), _unescape(fields[4])


def _unescape(path: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, char)
    return path


class GroupV2:
    """One control group of version 2."""

    def __init__(self, folder: str, name: str, *, own: bool) -> None:
        self.folder, self.name, self.own = folder, name, own
        self.limit: int | None = None
        self.high: int | None = None
        # Counts of a group above include what befell our neighbours, but for the local ones.
        events = f"{folder}/memory.events" if own else f"{folder}/memory.events.local"
        self._events = events if os.path.exists(events) else None

    @property
    def limited(self) -> bool:
        return self.limit is not None or self.high is not None

    def describe(self) -> str:
        limits = (("memory.max", self.limit), ("memory.high", self.high))
        return (
            ", ".join(f"{name} {format_size(limit)}" for name, limit in limits if limit is not None)
            + f" of {self.name}"
        )

    def read(self) -> list[Sample]:
        self.limit = read_limit(f"{self.folder}/memory.max")
        self.high = read_limit(f"{self.folder}/memory.high")
        if not (self.limited or self.own):
            return []
        counts = {} if self._events is None else read_counts(self._events)
        used = self._working_set() if self.limited else 0
        samples = []
        if self.limit is not None or self.own:
            kills = tuple(
                (name, counts[name]) for name in ("max", "oom", "oom_kill", "oom_group_kill") if name in counts
            )
            samples.append(_usage(Measure.LIMIT, used, self.limit, self.name, kills))
        if self.high is not None:
            highs = (("high", counts["high"]),) if "high" in counts else ()
            samples.append(_usage(Measure.THROTTLE, used, self.high, self.name, highs))
        return samples

    def _working_set(self) -> int:
        path = f"{self.folder}/memory.stat"
        stat = read_counts(path)
        if "inactive_file" not in stat:
            raise Garbled(f"{path} has no inactive_file")
        current = read_number(f"{self.folder}/memory.current")
        slab = stat.get("slab_reclaimable", 0)
        cache = stat["inactive_file"] + stat.get("active_file", 0)
        return max(0, current - slab - max(0, cache - stat.get("file_dirty", 0) - stat.get("file_writeback", 0)))


class GroupV1:
    """One control group of version 1."""

    def __init__(self, folder: str, name: str, *, own: bool) -> None:
        self.folder, self.name, self.own = folder, name, own
        self.limit: int | None = None
        control = f"{folder}/memory.oom_control"
        self._control = control if own and os.path.exists(control) else None

    @property
    def limited(self) -> bool:
        return self.limit is not None

    def describe(self) -> str:
        return f"limit {format_size(self.limit or 0)} of {self.name}"

    def read(self) -> list[Sample]:
        limit = read_limit(f"{self.folder}/memory.limit_in_bytes")
        stat = self._stat() if self.own or limit is not None else {}
        # A group that cannot be seen from inside a container may be the one with the limit.
        above = stat.get("hierarchical_memory_limit", NO_LIMIT)
        self.limit = min((known for known in (limit, above) if known is not None and known < NO_LIMIT), default=None)
        if not (self.limited or self.own):
            return []
        counts = {"failcnt": read_number(f"{self.folder}/memory.failcnt")}
        if self._control is not None:
            counts.update(read_counts(self._control))
        kills = tuple((name, counts[name]) for name in ("failcnt", "oom_kill") if name in counts)
        usage = read_number(f"{self.folder}/memory.usage_in_bytes")
        cache = stat["total_inactive_file"] + stat.get("total_active_file", 0)
        used = max(0, usage - max(0, cache - stat.get("total_dirty", 0) - stat.get("total_writeback", 0)))
        return [_usage(Measure.LIMIT, used, self.limit, self.name, kills)]

    def _stat(self) -> dict[str, int]:
        path = f"{self.folder}/memory.stat"
        stat = read_counts(path)
        if "total_inactive_file" not in stat:
            raise Garbled(f"{path} has no total_inactive_file")
        return stat


def _usage(measure: Measure, used: int, limit: int | None, group: str, counts: tuple[tuple[str, int], ...]) -> Sample:
    if limit is None:
        return Sample("cgroup", measure, 0.0, f"no limit of {group}", group, counts)
    # Nothing fits into a limit of 0.
    share = used / limit if limit else 1.0
    what = "the limit" if measure is Measure.LIMIT else "memory.high"
    detail = f"working set {format_size(used)}, {share:.0%} of {what} {format_size(limit)} of {group}"
    return Sample("cgroup", measure, share, detail, group, counts)


# -- the other sources ---------------------------------------------------------------------------------------------


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


# -- files ---------------------------------------------------------------------------------------------------------


def read_text(path: str) -> str:
    """All of a small file, of which the system may give a part at a time."""
    # Opened anew each time: a descriptor kept open is closed by programs that turn themselves into daemons, and its
    # number then belongs to another file.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        data = os.read(fd, LONGEST_FILE)
        while piece := os.read(fd, LONGEST_FILE):
            data += piece
            if len(data) > LONGEST_FILE:
                raise Garbled(f"{path} has more than {format_size(LONGEST_FILE)}")
    except OSError as error:
        error.filename = path  # which a read does not say
        raise
    finally:
        os.close(fd)
    return os.fsdecode(data)


def read_number(path: str) -> int:
    return parse_number(read_text(path), path)


def read_limit(path: str) -> int | None:
    """Bytes; None for no limit."""
    text = read_text(path).strip()
    if text == "max":
        return None
    limit = parse_number(text, path)
    return limit if limit < NO_LIMIT else None


def read_counts(path: str) -> dict[str, int]:
    """Lines of a name and a number."""
    counts = {}
    for line in read_text(path).splitlines():
        name, _, number = line.partition(" ")
        counts[name] = parse_number(number, path)
    return counts


def parse_number(text: str, path: str) -> int:
    text = text.strip()
    # Not int() alone: it also takes "-1", "1_0" and digits of other scripts, and a thousand of them slowly.
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or (number := int(text)) > LARGEST_NUMBER:
        raise Garbled(f"{path} says {shown(text)}, where a number of bytes or events is due")
    return number


def shown(text: str) -> str:
    return repr(text[:40]) if text else "nothing"


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return str(error)
