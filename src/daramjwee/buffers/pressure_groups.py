"""Control groups: where this process is, which limits hold there and above, and how near they are.

Invariant: what a group uses is its working set: page cache that the kernel can take back counts for nothing.
Threads: one at a time.
Design: docs/design/pressure.md
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.buffers.pressure_files import NO_LIMIT, Garbled, read_counts, read_limit, read_number, read_text
from daramjwee.buffers.pressure_kernel import Measure, Sample
from daramjwee.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

# Groups deeper than this are no real hierarchy.
DEEPEST = 32
KILLS_V2 = ("max", "oom", "oom_kill", "oom_group_kill")
KILLS_V1 = ("oom_kill",)
EVENTS_V2 = frozenset({*KILLS_V2, "high"})
STAT_V2 = frozenset({"inactive_file", "active_file", "file_dirty", "file_writeback", "slab_reclaimable"})
STAT_V1 = frozenset(
    {"hierarchical_memory_limit", "total_inactive_file", "total_active_file", "total_dirty", "total_writeback"}
)


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


def own_group(root: str, version: int) -> Place | None:
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
        counts = {} if self._events is None else read_counts(self._events, EVENTS_V2)
        used = self._working_set() if self.limited else 0
        samples = []
        if self.limit is not None or self.own:
            kills = tuple((name, counts[name]) for name in KILLS_V2 if name in counts)
            samples.append(_usage(Measure.LIMIT, used, self.limit, self.name, kills))
        if self.high is not None:
            highs = (("high", counts["high"]),) if "high" in counts else ()
            samples.append(_usage(Measure.THROTTLE, used, self.high, self.name, highs))
        return samples

    def _working_set(self) -> int:
        path = f"{self.folder}/memory.stat"
        stat = read_counts(path, STAT_V2)
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
            counts.update(read_counts(self._control, KILLS_V1))
        kills = tuple((name, counts[name]) for name in ("failcnt", "oom_kill") if name in counts)
        usage = read_number(f"{self.folder}/memory.usage_in_bytes")
        cache = stat["total_inactive_file"] + stat.get("total_active_file", 0)
        used = max(0, usage - max(0, cache - stat.get("total_dirty", 0) - stat.get("total_writeback", 0)))
        return [_usage(Measure.LIMIT, used, self.limit, self.name, kills)]

    def _stat(self) -> dict[str, int]:
        path = f"{self.folder}/memory.stat"
        stat = read_counts(path, STAT_V1)
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
