"""What the gate for large operations is given, checked; and what it says when it lets nobody in.

Invariant: every refusal names its figures, and the settings that change it.
Threads: any.
Design: docs/design/strategy.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daramjwee.buffers.gate_kernel import PRIORITIES
from daramjwee.errors import Closed, ConfigError, LimitExceeded, Overloaded, Problem
from daramjwee.units import format_duration, format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from daramjwee.buffers.gate_kernel import GateKernel, Priority
    from daramjwee.units import Duration, Size

# The gate's bytes are the ledger's limit where a pool has made it.
RAISE_LIMIT = "raise the limit (memory_limit of a cache, max_pool_bytes of a pool)"


def parse_limits(
    max_operations: int, max_bytes: Size | None, max_queued: int, ageing: Duration = 0
) -> tuple[int, int | None, int, float]:
    """The limits as numbers, or `ConfigError` with all that is wrong."""
    problems = []
    bound: int | None = None
    seconds = 0.0
    for field, value, least in (("max_operations", max_operations, 1), ("max_queued", max_queued, 0)):
        if type(value) is not int or value < least:
            problems.append(Problem(field, value, f"must be a whole number (int), at least {least}"))
    try:
        bound = None if max_bytes is None else parse_size(max_bytes)
    except ValueError as error:
        problems.append(Problem("max_bytes", max_bytes, str(error)))
    try:
        seconds = parse_duration(ageing)
    except ValueError as error:
        problems.append(Problem("ageing", ageing, str(error)))
    if problems:
        raise ConfigError(problems, subject="LargeOperationGate")
    return max_operations, bound, max_queued, seconds


def parse_need(need: Size) -> int:
    if type(need) is int and need >= 0:
        return need
    try:
        return parse_size(need)
    except ValueError as error:
        raise ConfigError([Problem("need", need, str(error))], subject="LargeOperationGate.acquire") from None


def parse_entry(need: Size, priority: Priority, timeout: Duration) -> tuple[int, int, float]:
    """Of who wants to enter: the bytes, how many times `ageing` a request of that priority counts as come later, and the
    seconds; or `ConfigError` with all that is wrong."""
    problems = []
    count = penalty = 0
    seconds = 0.0
    try:
        count = parse_size(need)
    except ValueError as error:
        problems.append(Problem("need", need, str(error)))
    try:
        penalty = PRIORITIES.index(priority)
    except ValueError:
        problems.append(Problem("priority", priority, f"must be one of {', '.join(map(str, PRIORITIES))}"))
    try:
        seconds = timeout if type(timeout) is float and timeout >= 0 else parse_duration(timeout)
    except ValueError as error:
        problems.append(Problem("timeout", timeout, str(error)))
    if problems:
        raise ConfigError(problems, subject="LargeOperationGate.acquire")
    return count, penalty, seconds


def closed_gate() -> Closed:
    return Closed("the gate for large operations was closed; slots taken before stay valid, new ones need an open gate")


def never_fits(kernel: GateKernel, need: int) -> LimitExceeded:
    return LimitExceeded(
        f"an operation of {format_size(need)} can never begin: large operations may have "
        f"{format_size(kernel.max_bytes or 0)} together; {RAISE_LIMIT}, or handle the object in smaller pieces"
    )


def line_full(kernel: GateKernel, busy: int, retry_after: float) -> Overloaded:
    return Overloaded(
        f"{len(kernel.line)} large operations are waiting already (limit {kernel.max_queued}) and {busy} are under way: "
        f"raise max_queued_large_ops or max_concurrent_large_ops ({kernel.max_operations})",
        retry_after=retry_after,
    )


def too_late(state: str, waited: float, ahead: int, retry_after: float) -> Overloaded:
    return Overloaded(
        f"no place among the large operations came free within {format_duration(waited)}, {ahead} were ahead in line: {state}; "
        "raise max_concurrent_large_ops, the timeout, or, where bytes are short, the memory limit",
        retry_after=retry_after,
    )
