"""A check that what was borrowed came back: leases, flights, threads, and descriptors on request.

Invariant: it fails with the names of what is left, and never because something was still on its way out.
Threads: any; what other threads do meanwhile is counted too.
"""

from __future__ import annotations

import gc
import os
import threading
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from daramjwee.buffers.upkeep import THREAD_NAME
from daramjwee.units import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What ends by itself (a filler that saw the end, a finalizer) gets this long before it counts as left behind.
PATIENCE_SECONDS = 5.0
POLL_SECONDS = 0.005


@contextmanager
def no_leaks(
    *owners: Any, threads: bool = True, descriptors: bool = False, patience: float = PATIENCE_SECONDS
) -> Iterator[None]:
    """Fail with `AssertionError` when the block leaves something behind.

    `owners`: buffer pools and caches; no more buffers may be leased afterwards than before, and no flight may
    run. `threads`: no thread started in the block may be alive; pass False for a cache that stays open, whose
    workers are its own. `descriptors`: no more descriptors may be open (where /proc tells). `patience`: seconds that what
    is ending may take.
    """
    threads_before = set(threading.enumerate()) if threads else set()
    leased_before = [_leased(owner) for owner in owners]
    open_before = _descriptors() if descriptors else {}
    yield
    checks: list[Callable[[], str]] = [
        *(lambda o=owner, b=before: _owner_left(o, b) for owner, before in zip(owners, leased_before, strict=True)),
        lambda: _threads_left(threads_before) if threads else "",
        lambda: _descriptors_left(open_before) if descriptors else "",
    ]
    gc.collect()
    deadline = monotonic() + patience
    pause = threading.Event()
    while left := [text for check in checks if (text := check())]:
        if monotonic() >= deadline:
            raise AssertionError("left behind: " + "; ".join(left))
        pause.wait(POLL_SECONDS)


def _pool_of(owner: Any) -> Any:
    return getattr(owner, "buffers", owner)


def _leased(owner: Any) -> int:
    pool = _pool_of(owner)
    return 0 if pool is None else int(pool.stats().active_buffers)


def _owner_left(owner: Any, before: int) -> str:
    leased = _leased(owner)
    flights = 0
    if _pool_of(owner) is not owner:
        flights = getattr(owner.stats(), "flights", 0)
    said = []
    if leased > before:
        said.append(counted(leased - before, "leased buffer"))
    if flights:
        said.append(counted(flights, "running flight"))
    return f"{' and '.join(said)} of {owner!r}" if said else ""


def _threads_left(before: set[threading.Thread]) -> str:
    # The upkeep of pools is the process's, and ends by itself when none has anything to look after.
    ours = {*before, threading.current_thread()}
    names = sorted(t.name for t in threading.enumerate() if t not in ours and t.name != THREAD_NAME)
    return f"threads {', '.join(names)}" if names else ""


def _descriptors() -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return found
    for number in numbers:
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the one that listed the folder is closed by now
            continue
    return found


def _descriptors_left(before: dict[str, str]) -> str:
    now = _descriptors()
    if len(now) <= len(before):
        return ""
    return "descriptors " + ", ".join(f"{n} ({now[n]})" for n in sorted(now) if before.get(n) != now[n])
