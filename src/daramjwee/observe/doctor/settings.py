"""The check of settings of the pool, which `daramjwee.config` has read.

Threads: any.
Design: docs/monitoring.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daramjwee.buffers.config import BufferPoolConfig
from daramjwee.model import LEAST_MEMORY
from daramjwee.observe.doctor.case import Check, State
from daramjwee.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daramjwee.observe.doctor.case import Case


def configuration(case: Case) -> Iterator[Check]:
    """Whether the settings of the pool are sound, and fit `memory_limit`: one line for each problem."""
    if case.memory_limit < LEAST_MEMORY:
        seen = f"memory_limit = {format_size(case.memory_limit)}: no cache can be made with it"
        yield Check("configuration", State.PROBLEM, seen, f"raise it to {format_size(LEAST_MEMORY)} or more")
    if case.config_problems:
        for problem in case.config_problems:
            field = f"{problem.field} = {problem.value!r}" if problem.field else repr(problem.value)
            yield Check("configuration", State.PROBLEM, field, problem.mend)
        return
    config = case.config
    changed = [name for name in config.__struct_fields__ if getattr(config, name) != getattr(BufferPoolConfig(), name)]
    if case.memory_limit < LEAST_MEMORY:
        return  # what else could be said of it is no use
    if config.enabled and config.max_pool_bytes > case.memory_limit:
        seen = (
            f"max_pool_bytes = {format_size(config.max_pool_bytes)} is above memory_limit "
            f"({format_size(case.memory_limit)}): it is never reached"
        )
        yield Check("configuration", State.NOTE, seen, "lower it or raise the other")
        return
    yield Check("configuration", State.OK, f"sound; set: {', '.join(changed)}" if changed else "the defaults")
