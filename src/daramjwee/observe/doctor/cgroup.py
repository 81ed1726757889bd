"""What the control groups of this process allow it, in either version of the kernel's files.

Invariant: the least limit on the way from the process's group up to the root of what is mounted counts.
Threads: any.
Design: docs/monitoring.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daramjwee.observe.doctor.case import Case

# Version 1 writes "no limit" as the largest multiple of a page below 2^63.
UNLIMITED = 1 << 60


class Limit(NamedTuple):
    """A limit and the file that states it."""

    value: float
    file: str


def is_known(case: Case) -> bool:
    """Whether the system tells which groups this process is in."""
    return case.read("proc/self/cgroup") is not None


def memory_limits(case: Case) -> tuple[Limit | None, Limit | None]:
    """(where the process is killed, where it is slowed down), in bytes; None for no such limit."""
    limits = [limit for name in ("memory.max", "memory.limit_in_bytes") for limit in _stated(case, name)]
    # Version 1 also tells of groups above that cannot be seen from inside a container.
    limits += _hidden(case)
    return min(limits, default=None), min(_stated(case, "memory.high"), default=None)


def cpu_limit(case: Case) -> Limit | None:
    """Processors' worth of time."""
    found = []
    for folder in _folders(case, "cpu"):
        quota, period = _pair(case, folder)
        if quota.isdigit() and period.isdigit() and int(period):
            found.append(Limit(int(quota) / int(period), f"/{folder}"))
    return min(found, default=None)


def _pair(case: Case, folder: str) -> tuple[str, str]:
    both = (case.read(f"{folder}/cpu.max") or "").split()
    if len(both) == 2:
        return both[0], both[1]
    read = (case.read(f"{folder}/cpu.cfs_{name}_us") for name in ("quota", "period"))
    quota, period = ((text or "").strip() for text in read)
    return quota, period


def _stated(case: Case, name: str) -> Iterator[Limit]:
    for folder in _folders(case, "memory"):
        yield from _limit(case.read(f"{folder}/{name}"), f"/{folder}/{name}")


def _hidden(case: Case) -> Iterator[Limit]:
    name = "hierarchical_memory_limit"
    for folder in _folders(case, "memory"):
        for line in (case.read(f"{folder}/memory.stat") or "").splitlines():
            if line.startswith(f"{name} "):
                yield from _limit(line.removeprefix(name), f"{name} in /{folder}/memory.stat")


def _limit(text: str | None, file: str) -> Iterator[Limit]:
    number = (text or "").strip()
    if number.isdigit() and int(number) < UNLIMITED:
        yield Limit(int(number), file)


def _folders(case: Case, controller: str) -> Iterator[str]:
    """The folders of the process's groups and of all above them, as far as they are mounted here."""
    for line in (case.read("proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controller in controllers.split(","):
            mounted = [mount for mount in case.mounts() if mount.kind == "cgroup" and controller in mount.on_the_whole]
        elif number == "0" and not controllers:
            mounted = [mount for mount in case.mounts() if mount.kind == "cgroup2"]
        else:
            continue
        for mount in mounted:
            # In a container the mount shows a part of the tree, and the name may be as seen from outside of it.
            inside = group.removeprefix(mount.root) if mount.root != "/" else group
            parts = [part for part in inside.split("/") if part and part != ".."]
            for depth in range(len(parts), -1, -1):
                yield "/".join((mount.point.strip("/"), *parts[:depth]))
