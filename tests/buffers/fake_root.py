"""A folder that looks like the root of a Linux system to `MemoryPressure`: control groups, stalls, free memory."""

from __future__ import annotations

from pathlib import Path

from daramjwee.units import GIB, parse_size

V1_NO_LIMIT = 9223372036854771712


def _bytes(size) -> str:
    return "max" if size is None else str(parse_size(size))


class FakeRoot:
    """`FakeRoot(tmp_path)`: an empty system. Each method writes the files of one source, whole, and may be called again
    to step on; `path` is what to give as `root`. Sizes are bytes or text such as "1GiB"; None is no limit.

    `group`: the group this process is in; `mounted`: which group the mount shows ("/" for all of them).
    """

    def __init__(self, folder, *, group: str = "/app", mounted: str = "/") -> None:
        self.path = Path(folder) / "root"
        self.group, self.mounted = group, mounted
        (self.path / "proc" / "self").mkdir(parents=True)

    def write(self, name: str, text: str) -> Path:
        """One file, by its path below the root."""
        path = self.path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def remove(self, name: str) -> None:
        (self.path / name.lstrip("/")).unlink()

    def v2(
        self,
        *,
        current=0,
        max=None,
        high=None,
        inactive_file=0,
        active_file=0,
        dirty=0,
        slab=0,
        events=None,
        group: str | None = None,
        psi: tuple[float, float] | None = None,
    ) -> Path:
        """A group of version 2 (None: this process's), and that the process is in its own. Its folder."""
        self.write("proc/self/cgroup", f"0::{self.group}\n")
        self._mount("/sys/fs/cgroup", "cgroup2 cgroup2 rw,nsdelegate")
        folder = "sys/fs/cgroup" + (self.group if group is None else group).removeprefix(self.mounted.rstrip("/"))
        self.write(f"{folder}/memory.current", f"{_bytes(current)}\n")
        self.write(f"{folder}/memory.max", f"{_bytes(max)}\n")
        self.write(f"{folder}/memory.high", f"{_bytes(high)}\n")
        counts = {"low": 0, "high": 0, "max": 0, "oom": 0, "oom_kill": 0, "oom_group_kill": 0} | (events or {})
        for name in ("memory.events", "memory.events.local"):
            self.write(f"{folder}/{name}", _lines(counts))
        stat = {"anon": 0, "file": 0, "file_dirty": dirty, "file_writeback": 0, "inactive_file": inactive_file}
        stat |= {"active_file": active_file, "slab_reclaimable": slab}
        self.write(f"{folder}/memory.stat", _lines({name: parse_size(size) for name, size in stat.items()}))
        if psi is not None:
            self.write(f"{folder}/memory.pressure", _stalls(*psi))
        return self.path / folder

    def v1(
        self,
        *,
        usage=0,
        limit=None,
        hierarchical=None,
        inactive_file=0,
        active_file=0,
        dirty=0,
        failcnt=0,
        oom_kill=0,
        group: str | None = None,
    ) -> Path:
        """The same of version 1."""
        self.write("proc/self/cgroup", f"5:cpu:/\n4:memory:{self.group}\n1:name=systemd:/\n0::/\n")
        self._mount("/sys/fs/cgroup/memory", "cgroup cgroup rw,memory")
        folder = "sys/fs/cgroup/memory" + (self.group if group is None else group).removeprefix(
            self.mounted.rstrip("/")
        )
        bound = V1_NO_LIMIT if limit is None else parse_size(limit)
        self.write(f"{folder}/memory.usage_in_bytes", f"{parse_size(usage)}\n")
        self.write(f"{folder}/memory.limit_in_bytes", f"{bound}\n")
        self.write(f"{folder}/memory.failcnt", f"{failcnt}\n")
        self.write(f"{folder}/memory.oom_control", f"oom_kill_disable 0\nunder_oom 0\noom_kill {oom_kill}\n")
        stat = {
            "inactive_file": 0,
            "hierarchical_memory_limit": bound if hierarchical is None else parse_size(hierarchical),
            "total_inactive_file": parse_size(inactive_file),
            "total_active_file": parse_size(active_file),
            "total_dirty": parse_size(dirty),
            "total_writeback": 0,
        }
        self.write(f"{folder}/memory.stat", _lines(stat))
        return self.path / folder

    def psi(self, *, some: float = 0.0, full: float = 0.0) -> Path:
        """Stalls of the machine: per cent of the last 10 s."""
        return self.write("proc/pressure/memory", _stalls(some, full))

    def meminfo(self, *, total=16 * GIB, available=12 * GIB) -> Path:
        total, available = parse_size(total) // 1024, parse_size(available) // 1024
        text = f"MemTotal:       {total} kB\nMemFree:        1024 kB\nMemAvailable:   {available} kB\nBuffers:  12 kB\n"
        return self.write("proc/meminfo", text)

    def _mount(self, where: str, kind: str) -> None:
        self.write(
            "proc/self/mountinfo",
            "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
            f"30 22 0:26 {self.mounted} {where} rw,nosuid shared:4 - {kind}\n",
        )


def _lines(counts: dict[str, int]) -> str:
    return "".join(f"{name} {count}\n" for name, count in counts.items())


def _stalls(some: float, full: float) -> str:
    return "".join(
        f"{kind} avg10={share:.2f} avg60=0.00 avg300=0.00 total=123\n"
        for kind, share in (("some", some), ("full", full))
    )
