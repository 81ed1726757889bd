"""Checks of memory: how much there may be, and how the system gives it.

Invariant: a limit is compared with what all processes with a cache may come to hold together.
Threads: any.
Design: docs/monitoring.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daramjwee.buffers.pressure import MemoryPressure, PressureLevel
from daramjwee.model import LEAST_MEMORY
from daramjwee.observe.doctor import cgroup
from daramjwee.observe.doctor.case import PROCESS_BYTES, Check, State, kilobytes
from daramjwee.units import GIB, KIB, MIB, format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daramjwee.observe.doctor.case import Case

# Above what is needed, so much should be left for the page cache, which counts in a container too.
AMPLE = 1.25
# Address space that is reserved and never touched: glibc maps 64 MiB for each of a process's first threads' arenas, so 16
# threads have 1.1 GiB (VmSize) while 19 MiB are resident.
RESERVED_BYTES = GIB
THP = "sys/kernel/mm/transparent_hugepage"
USUAL_PAGE_BYTES = 4 * KIB
# glibc takes blocks of this size and more fresh from the system until it has seen some freed; a setting fixes that.
SETTINGS_OF_MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
OTHER_ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc", "hoard", "snmalloc")


def pressure(case: Case) -> Iterator[Check]:
    """Where memory pressure is read from, and its level now."""
    sensor = MemoryPressure(root=case.root, clock=case.clock)
    level = sensor.poll()
    found = [f"{source.name} ({source.detail})" for source in sensor.sources if source.found]
    missing = [f"{source.name} ({source.detail})" for source in sensor.sources if not source.found]
    missing = [text for text in missing if not text.startswith("ledger ")]  # every pool has one; there is none here
    seen = f"{level.name}; seen by {', '.join(found) or 'nothing'}"
    if missing:
        seen += f"; not by {', '.join(missing)}"
    if not found:
        remedy = "mount /proc and /sys/fs/cgroup; until then only memory that is refused raises the level"
        yield Check("pressure", State.PROBLEM, seen, remedy)
    elif level is PressureLevel.NORMAL:
        yield Check("pressure", State.OK, seen)
    else:
        state = State.NOTE if level is PressureLevel.ELEVATED else State.PROBLEM
        remedy = "memory is short now: give the machine or the container more, or lower memory_limit"
        yield Check("pressure", state, f"{seen}; {sensor.reason}", remedy)


def container_memory(case: Case) -> Iterator[Check]:
    """Whether the container's memory limit is above what the caches may hold."""
    if not cgroup.is_known(case):
        seen = "not known: there is no /proc/self/cgroup"
        remedy = "on Linux mount /proc; elsewhere compare the limit yourself"
        yield Check("container_memory", State.NOTE, seen, remedy)
        return
    most, high = cgroup.memory_limits(case)
    limits = [limit for limit in (most, high) if limit is not None]
    if not limits:
        yield Check("container_memory", State.OK, "no limit")
        return
    least = min(limits)
    said = "the process is killed" if least is most else "the process is slowed down"
    yield _compared(case, "container_memory", least.value, f"({least.file}): above it {said}", "raise the limit")


def machine_memory(case: Case) -> Iterator[Check]:
    """Whether the machine has the memory that the caches may hold."""
    fields = case.fields("proc/meminfo")
    total, available = kilobytes(fields.get("MemTotal")), kilobytes(fields.get("MemAvailable"))
    if total is None:
        seen, remedy = "not known: /proc/meminfo cannot be read", "on Linux mount /proc"
        yield Check("machine_memory", State.NOTE, seen, remedy)
        return
    check = _compared(case, "machine_memory", total, "in this machine", "add memory")
    if check.state is State.OK and available is not None and available < case.needed_bytes:
        seen = f"{format_size(available)} of {format_size(total)} are available now, and {_needs(case)}"
        check = Check("machine_memory", State.NOTE, seen, "end what else runs here, or lower memory_limit")
    yield check


def _compared(case: Case, name: str, limit: float, where: str, mend: str) -> Check:
    seen = f"{format_size(limit)} {where}; {_needs(case)}"
    if limit < case.needed_bytes:
        room = int(limit / case.processes - PROCESS_BYTES)
        remedy = f"lower memory_limit to {_at_most(room)}" if room > LEAST_MEMORY else "run fewer processes"
        return Check(name, State.PROBLEM, seen, f"{remedy}, or {mend}")
    if limit < case.needed_bytes * AMPLE:
        return Check(name, State.NOTE, seen, "leave a quarter more, for the system's cache of files")
    return Check(name, State.OK, seen)


def _needs(case: Case) -> str:
    each = f"{format_size(case.memory_limit)} of cache and {format_size(PROCESS_BYTES)} beside it"
    return f"{case.processes} processes may need {each} each" if case.processes > 1 else f"a process may need {each}"


def _at_most(count: int) -> str:
    """Whole MiB, in the unit people use where that is exact: rounded up, it would not fit after all."""
    whole = count - count % MIB
    text = format_size(whole)
    return text if parse_size(text) <= whole else f"{whole // MIB}MiB"


def address_space(case: Case) -> Iterator[Check]:
    """Limits of the address space and of data (RLIMIT_AS, RLIMIT_DATA)."""
    found = [
        (limit, name)
        for row, name in (("Max address space", "RLIMIT_AS"), ("Max data size", "RLIMIT_DATA"))
        if (limit := soft_limit(case, row)) is not None
    ]
    if not found:
        known = case.read("proc/self/limits") is not None
        seen = "no limit" if known else "not known: /proc/self/limits cannot be read"
        yield Check("address_space", State.OK if known else State.NOTE, seen, "" if known else "on Linux mount /proc")
        return
    limit, name = min(found)
    needed = case.memory_limit + PROCESS_BYTES + RESERVED_BYTES
    seen = f"{name} is {format_size(limit)}; a process with its threads may map {format_size(needed)}"
    if limit >= needed:
        yield Check("address_space", State.OK, seen)
        return
    state = State.PROBLEM if limit < case.memory_limit + PROCESS_BYTES else State.NOTE
    remedy = "raise it (ulimit -v, ulimit -d), lower memory_limit, or set MALLOC_ARENA_MAX=2"
    yield Check("address_space", state, seen, remedy)


def soft_limit(case: Case, row: str) -> int | None:
    """A soft limit of /proc/self/limits; None where there is none, or the file cannot be read."""
    for line in (case.read("proc/self/limits") or "").splitlines():
        if line.startswith(row):
            soft = (line[len(row) :].split() or [""])[0]
            return int(soft) if soft.isdigit() else None
    return None


def overcommit(case: Case) -> Iterator[Check]:
    """Whether memory counts when it is mapped, or when it is touched."""
    mode = (case.read("proc/sys/vm/overcommit_memory") or "").strip()
    if mode in {"0", "1"}:
        yield Check("overcommit", State.OK, f"vm.overcommit_memory is {mode}: memory counts when it is touched")
        return
    if mode != "2":
        yield Check("overcommit", State.NOTE, "not known: /proc/sys/vm cannot be read", "on Linux mount /proc")
        return
    fields = case.fields("proc/meminfo")
    limit, taken = kilobytes(fields.get("CommitLimit")), kilobytes(fields.get("Committed_AS"))
    seen = "vm.overcommit_memory is 2: memory counts when it is mapped"
    remedy = "raise vm.overcommit_ratio, or set vm.overcommit_memory = 0"
    if limit is None or taken is None:
        yield Check("overcommit", State.NOTE, f"{seen}; how much is left is not known", remedy)
        return
    left = max(0, limit - taken)
    state = State.PROBLEM if left < case.needed_bytes else State.NOTE
    yield Check("overcommit", state, f"{seen}; {format_size(left)} are left, and {_needs(case)}", remedy)


def swap(case: Case) -> Iterator[Check]:
    """Whether memory has gone to the disk."""
    fields = case.fields("proc/meminfo")
    total, free = kilobytes(fields.get("SwapTotal")), kilobytes(fields.get("SwapFree"))
    if total is None or free is None:
        yield Check("swap", State.NOTE, "not known: /proc/meminfo cannot be read", "on Linux mount /proc")
        return
    if not total:
        yield Check("swap", State.OK, "none")
        return
    own = kilobytes(case.fields("proc/self/status").get("VmSwap")) or 0
    seen = f"{format_size(total - free)} of {format_size(total)} in use, {format_size(own)} by this process"
    if own or total - free > total // 2:
        remedy = "buffers that come back from the disk are slower than none: lower memory_limit, or vm.swappiness"
        yield Check("swap", State.NOTE, seen, remedy)
    else:
        yield Check("swap", State.OK, seen)


def huge_pages(case: Case) -> Iterator[Check]:
    """Whether arenas may be backed by huge pages: growing costs 75 us/MiB with them, 780 without."""
    enabled = _chosen(case.read(f"{THP}/enabled"))
    remedy = f"echo madvise > /{THP}/enabled"
    if case.fields("proc/self/status").get("THP_enabled") == "0":
        seen, remedy = "switched off for this process (PR_SET_THP_DISABLE)", "ask whoever starts it why"
        yield Check("huge_pages", State.NOTE, seen, remedy)
    elif enabled == "madvise":
        yield Check("huge_pages", State.OK, "madvise: for memory that asks for them, as arenas do")
    elif enabled == "always":
        seen = "always: also where one touched byte makes 2MiB resident, so a process holds more than it counts"
        yield Check("huge_pages", State.NOTE, seen, remedy)
    elif enabled == "never":
        yield Check("huge_pages", State.NOTE, "never: a pool that grows takes ten times as long", remedy)
    else:
        seen = f"not known: /{THP}/enabled cannot be read; the kernel may be without them"
        yield Check("huge_pages", State.NOTE, seen, "nothing has to be done: small pages serve, growing is slower")


def huge_page_defrag(case: Case) -> Iterator[Check]:
    """Whether a thread that grows a pool may be made to tidy the machine's memory first."""
    defrag = _chosen(case.read(f"{THP}/defrag"))
    remedy = f"echo madvise > /{THP}/defrag"
    if defrag is None:
        seen = f"not known: /{THP}/defrag cannot be read"
        yield Check("huge_page_defrag", State.NOTE, seen, "nothing has to be done")
    elif defrag == "always":
        seen = "always: any thread that touches fresh memory may stand still while memory is moved together"
        yield Check("huge_page_defrag", State.NOTE, seen, remedy)
    elif defrag == "never":
        seen = "never: on a machine that has run for long, huge pages become rare"
        yield Check("huge_page_defrag", State.NOTE, seen, remedy)
    else:
        yield Check("huge_page_defrag", State.OK, defrag)


def huge_page_advice(case: Case) -> Iterator[Check]:
    """Whether memory that asks for a huge page, as arenas do, gets one: it is tried."""
    found = case.advise_huge()
    if found.refused:
        seen, remedy = f"refused: {found.refused}", "nothing has to be done: small pages serve, growing is slower"
        yield Check("huge_page_advice", State.NOTE, seen, remedy)
    elif found.given is None:
        seen = "accepted; whether a huge page came of it is not known without /proc"
        yield Check("huge_page_advice", State.NOTE, seen, "on Linux mount /proc")
    elif not found.given:
        seen = "accepted, and small pages were given all the same"
        remedy = (
            "see huge_pages; where that is ok the machine's memory is in pieces: echo 1 > /proc/sys/vm/compact_memory"
        )
        yield Check("huge_page_advice", State.NOTE, seen, remedy)
    else:
        yield Check("huge_page_advice", State.OK, "accepted, and a huge page was given")


def page_size(case: Case) -> Iterator[Check]:
    """The size of a page: no buffer is smaller."""
    size = case.runtime.page_bytes
    if size <= USUAL_PAGE_BYTES:
        yield Check("page_size", State.OK, format_size(size))
    else:
        seen = f"{format_size(size)}: each buffer takes whole pages, a small one as much as that"
        remedy = f"set min_buffer_size = {format_size(size)} or more; nothing else has to be done"
        yield Check("page_size", State.NOTE, seen, remedy)


def slab_alignment(case: Case) -> Iterator[Check]:
    """Whether leases begin on a page: the kernel copies 7 to 10 times slower to where malloc begins. It is tried."""
    page = case.runtime.page_bytes
    addresses = case.lease_addresses(case.config)
    wrong = [format_size(size) for size, address in addresses.items() if address % page]
    if wrong:
        seen = f"leases of {', '.join(wrong)} do not begin on a page of {format_size(page)}"
        yield Check("slab_alignment", State.PROBLEM, seen, "mmap does not give whole pages here: please report it")
    else:
        sizes = ", ".join(map(format_size, addresses))
        yield Check("slab_alignment", State.OK, f"leases of {sizes} begin on a page of {format_size(page)}")


def allocator(case: Case) -> Iterator[Check]:
    """What gives memory outside of the pool (bodies in the memory tier, buffers=None), and its settings."""
    environ, libc = case.environ, case.runtime.libc
    loaded = case.read("proc/self/maps") or environ.get("LD_PRELOAD", "")
    other = next((name for name in OTHER_ALLOCATORS if name in loaded), None)
    python = environ.get("PYTHONMALLOC", "")
    if "debug" in python or python == "malloc":
        seen = f"PYTHONMALLOC={python}: every object of Python is slower to make"
        yield Check("allocator", State.NOTE, seen, "unset PYTHONMALLOC outside of debugging")
    elif other is not None:
        seen = f"{other} in place of the C library's; the pool's memory does not come from it, copies without a pool do"
        yield Check("allocator", State.NOTE, seen, "nothing has to be done; measure with daramjwee bench --calibrate")
    elif not libc:
        seen = "not glibc (musl, or another system): a fresh buffer is fresh pages, which cost 15 to 20 copies of them"
        yield Check("allocator", State.NOTE, seen, "keep the pool on (buffers=None is much slower here)")
    elif fixed := [f"{name}={environ[name]}" for name in SETTINGS_OF_MALLOC if name in environ]:
        seen = (
            f"{libc} with {', '.join(fixed)}: a fixed threshold makes each fresh buffer above it 5 to 10 times dearer"
        )
        yield Check("allocator", State.NOTE, seen, "keep the pool on, or leave these unset")
    else:
        most = environ.get("MALLOC_ARENA_MAX")
        yield Check("allocator", State.OK, libc + (f", MALLOC_ARENA_MAX={most}" if most else ""))


def _chosen(text: str | None) -> str | None:
    """The word in brackets: "always [madvise] never"."""
    if text is None or "[" not in text:
        return None
    return text.partition("[")[2].partition("]")[0]
