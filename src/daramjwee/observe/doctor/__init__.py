"""The doctor: what this machine, this process and a folder are like for the library, one answer for each check.

Invariant: every check answers, and changes nothing that it does not put back. What cannot be known is said to be so.
Threads: any.
Design: docs/monitoring.md
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from daramjwee.observe.doctor import folder, machine, memory, process
from daramjwee.observe.doctor.case import Case, Check, Runtime, State
from daramjwee.observe.doctor.settings import configuration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["CHECKS", "Case", "Check", "Runtime", "State", "examine"]

logger = logging.getLogger(__name__)

# In the order in which they are told. Those of a folder answer only where one is given.
CHECKS: dict[str, Callable[[Case], Iterable[Check]]] = {
    look.__name__: look
    for look in (
        memory.pressure,
        memory.container_memory,
        memory.machine_memory,
        memory.address_space,
        memory.overcommit,
        memory.swap,
        memory.huge_pages,
        memory.huge_page_defrag,
        memory.huge_page_advice,
        memory.page_size,
        memory.slab_alignment,
        memory.allocator,
        machine.container_cpus,
        machine.open_files,
        machine.clock,
        machine.wall_clock,
        process.python,
        process.gil,
        process.python_build,
        process.checksums,
        folder.folder,
        folder.folder_private,
        folder.folder_times,  # before anything is tried, which leaves its own time
        folder.folder_operations,
        folder.folder_space,
        folder.folder_inodes,
        folder.folder_filesystem,
        folder.folder_clones,
        configuration,
    )
}


def examine(case: Case, only: Iterable[str] = CHECKS) -> tuple[Check, ...]:
    """The answer of every check, or of those named, in order."""
    return tuple(check for name in only for check in _asked(name, CHECKS[name], case))


def _asked(name: str, look: Callable[[Case], Iterable[Check]], case: Case) -> tuple[Check, ...]:
    try:
        return tuple(look(case))
    except OSError as error:
        remedy = "run it as the user who runs the cache, who may be allowed to look"
        return (Check(name, State.NOTE, f"not known: {error}", remedy),)
    except Exception as error:
        # One check that breaks must not silence the others; it is told as a problem.
        logger.debug("the check %s failed", name, exc_info=True)
        remedy = "this is a fault of the check itself: please report it, with what daramjwee --debug doctor shows"
        return (Check(name, State.PROBLEM, f"could not be looked at: {type(error).__name__}: {error}", remedy),)
