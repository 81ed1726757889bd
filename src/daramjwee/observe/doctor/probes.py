"""Questions to the running system that no file answers: each tries the thing itself.

Invariant: what a probe maps, makes or locks is gone when it returns.
Threads: any.
Design: docs/monitoring.md
"""

from __future__ import annotations

import mmap
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.units import MIB

if TYPE_CHECKING:
    from daramjwee.buffers.config import BufferPoolConfig

HUGE_BYTES = 2 * MIB
# One whole CRC-32C, as every description of it gives it.
CRC_TEXT, CRC_VALUE = b"123456789", 0xE3069283
# Enough that a block-sharing file system can share it: a few blocks of the largest usual size.
SHARED_BYTES = 256 * 1024


class HugePage(NamedTuple):
    """Whether the system took the advice (`refused`: why not), and whether it then gave a huge page (None: not known)."""

    refused: str = ""
    given: bool | None = None


class Crc(NamedTuple):
    """`missing`: why the module cannot be used. `hardware`: whether the processor computes it. `right`: its answer."""

    missing: str = ""
    hardware: bool = True
    right: bool = True


def gil_is_on() -> bool:
    ask = getattr(sys, "_is_gil_enabled", None)
    return True if ask is None else bool(ask())


def is_traced() -> bool:
    """Whether a debugger, coverage or tracemalloc looks on."""
    tracemalloc = sys.modules.get("tracemalloc")
    return sys.gettrace() is not None or (tracemalloc is not None and tracemalloc.is_tracing())


def libc() -> str:
    """Name and version of the C library, such as "glibc 2.36"; empty where it does not tell (musl, macOS)."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        return ""  # only glibc knows the question


def cpus() -> int:
    """Processors that this process may run on."""
    ask = getattr(os, "sched_getaffinity", None)
    return len(ask(0)) if ask is not None else os.cpu_count() or 1


def advise_huge() -> HugePage:
    """Ask for a huge page as arenas do, touch one byte, and see how much became resident."""
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None:
        return HugePage("this system has no MADV_HUGEPAGE")
    # Two of them and a page more: wherever it begins, it holds one that is aligned.
    with mmap.mmap(-1, 3 * HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        try:
            memory.madvise(advice)
        except OSError as error:
            return HugePage(error.strerror or str(error))
        before = _resident()
        memory[HUGE_BYTES + HUGE_BYTES // 2] = 1
        after = _resident()
    if before is None or after is None:
        return HugePage()
    return HugePage(given=after - before >= HUGE_BYTES // 2)


def _resident() -> int | None:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return None  # no /proc here


def lease_addresses(config: BufferPoolConfig) -> dict[int, int]:
    """For sizes of leases the address at which a pool with `config` gives them."""
    import ctypes

    from daramjwee.buffers.pool import BufferPool

    sizes = {config.min_buffer_size, config.default_buffer_size, config.max_buffer_size, 2 * config.max_buffer_size}
    found = {}
    with BufferPool(config) as pool:
        for size in sorted(size for size in sizes if size <= pool.ledger.limit):
            with pool.acquire(size) as lease:
                found[size] = ctypes.addressof(ctypes.c_char.from_buffer(lease.view))
    return found


def crc32c() -> Crc:
    try:
        import crc32c as module
    except (ImportError, OSError) as error:
        return Crc(missing=str(error))
    return Crc(hardware=bool(module.hardware_based), right=module.crc32c(CRC_TEXT) == CRC_VALUE)


def share_blocks(folder: str) -> int:
    """How many of `SHARED_BYTES` two files in `folder` come to share when asked to."""
    from daramjwee.buffers import clone

    source, target = f"{folder}/source", f"{folder}/clone"
    with open(source, "wb") as first, open(target, "wb") as second:
        first.write(os.urandom(SHARED_BYTES))
        first.flush()
        os.fsync(first.fileno())
        with open(source, "rb") as reader:
            device = os.fstat(reader.fileno()).st_dev
            ends = (reader.fileno(), 0, device), (second.fileno(), 0, device)
            shared = clone.share(*ends, SHARED_BYTES, to_the_end=True) if clone.may_share(0) else 0
    return shared


def try_lock(descriptor: int) -> None:
    """Lock an open file and unlock it; `OSError` where that cannot be done."""
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(descriptor, fcntl.LOCK_UN)
