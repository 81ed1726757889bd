"""Arguments of the calls that move bytes or lend memory: every problem of a call at once.

Invariant: nothing here has an effect, so that what is refused here has changed nothing. What is given as usual, an int
and defaults, never comes here: the calls that are made often look for that themselves.
Threads: any.
Design: docs/design/memory.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daramjwee.buffers.config import BufferPoolConfig
from daramjwee.buffers.gate import Priority
from daramjwee.buffers.ledger import MemoryLedger
from daramjwee.buffers.pressure import MemoryPressure
from daramjwee.errors import ConfigError, Problem
from daramjwee.units import format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable


def check_request(size: Any, timeout: Any, priority: object) -> tuple[int | None, float | None]:
    """The size and the seconds of a lease that is asked for; None where none are given."""
    if (
        (size is None or (type(size) is int and size >= 0))
        and (timeout is None or (type(timeout) is float and timeout >= 0))
        and (priority is None or type(priority) is Priority)
    ):
        return size, timeout
    problems: list[Problem] = []
    count = bytes_of(size, "size", problems)
    seconds = seconds_of(timeout, problems)
    check_priority(priority, problems)
    if problems:
        raise ConfigError(problems, subject="BufferPool.acquire")
    return count, seconds


def check_copy(
    size: Any, limit: Any, timeout: Any, priority: object, progress: object, cancel: Any
) -> tuple[int | None, int | None, float | None, Callable[[], object] | None]:
    """The size, the limit, the seconds and what tells of a cancel, of a copy."""
    problems: list[Problem] = []
    count = bytes_of(size, "size", problems)
    most = bytes_of(limit, "limit", problems)
    seconds = seconds_of(timeout, problems)
    check_priority(priority, problems)
    check_progress(progress, problems)
    stop = cancel_of(cancel, problems)
    if problems:
        raise ConfigError(problems, subject="BufferPool.copy")
    return count, most, seconds, stop


def check_tee(size: Any, on_sink_error: object) -> int | None:
    """The size that is expected of the source of a tee."""
    problems: list[Problem] = []
    count = bytes_of(size, "size", problems)
    if on_sink_error not in ("raise", "drop"):
        problems.append(Problem("on_sink_error", on_sink_error, 'must be "raise" or "drop"'))
    if problems:
        raise ConfigError(problems, subject="tee")
    return count


def check_kinds(config: object, ledger: object, pressure: object, clock: object) -> None:
    """A `TypeError` that names every part of a pool that is of another type."""
    wrong = []
    for field, value, kind in (
        ("config", config, BufferPoolConfig),
        ("ledger", ledger, MemoryLedger),
        ("pressure", pressure, MemoryPressure),
    ):
        if not (isinstance(value, kind) or (value is None and field != "config")):
            wrong.append(f"{field} of a buffer pool is a {kind.__name__}, not {value!r}")
    if not callable(getattr(clock, "monotonic", None)):
        wrong.append(f"clock of a buffer pool is a Clock, with now() and monotonic(), not {clock!r}")
    if wrong:
        raise TypeError("; ".join(wrong))


# -- one argument each: what it means, or a problem more ---------------------------------------------------


def bytes_of(value: Any, field: str, problems: list[Problem], *, least: int = 0, most: int = 0) -> int | None:
    """Bytes, from `least` to `most` (0: as many as you like); None for none given."""
    if value is None:
        return None
    try:
        count = parse_size(value)
        if count < least:
            raise ValueError(f"must be at least {least} byte")
        if 0 < most < count:
            raise ValueError(f"must be at most {format_size(most)}; mind the unit")
    except ValueError as error:
        problems.append(Problem(field, value, str(error)))
        return None
    return count


def seconds_of(timeout: Any, problems: list[Problem]) -> float | None:
    """Seconds of a timeout; None for none given."""
    if timeout is None or (type(timeout) is float and timeout >= 0):
        return timeout
    try:
        return parse_duration(timeout)
    except ValueError as error:
        problems.append(Problem("timeout", timeout, str(error)))
        return None


def check_priority(priority: object, problems: list[Problem]) -> None:
    if priority is not None and type(priority) is not Priority:
        problems.append(Problem("priority", priority, "must be a Priority, or None to pass the gate"))


def check_progress(progress: object, problems: list[Problem]) -> None:
    if progress is not None and not callable(progress):
        mend = "must be callable with the bytes so far and the size that was expected, or None"
        problems.append(Problem("progress", progress, mend))


def cancel_of(cancel: Any, problems: list[Problem]) -> Callable[[], object] | None:
    """What says whether to end: an event is asked whether it is set."""
    stop = getattr(cancel, "is_set", cancel)
    if stop is not None and not callable(stop):
        problems.append(Problem("cancel", cancel, "must be callable, an event, or None"))
        return None
    found: Callable[[], object] | None = stop
    return found
