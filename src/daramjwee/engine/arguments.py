"""Arguments of the doors: checked before anything changes, every fault of a constructor at once.

Invariant: what passes here is used as it is further down; nothing here has an effect.
Threads: any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daramjwee.buffers import BufferPool, BufferPoolConfig
from daramjwee.errors import ConfigError, Problem
from daramjwee.model import Freshness
from daramjwee.units import MIB, format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from daramjwee.model import Fetcher
    from daramjwee.stores.protocol import Store
    from daramjwee.units import Duration, Size

LEAST_MEMORY = 4 * MIB
FRESHNESS_MEND = 'must be a Freshness, such as Freshness(fresh="5m")'


def check_arguments(
    tiers: tuple[Store, ...], origin: object, freshness: object, buffers: object, memory_limit: Size, workers: object
) -> int:
    """Every problem of a constructor's arguments at once; the memory limit in bytes."""
    problems = _check_tiers(tiers)
    limit = 0
    if origin is not None and not callable(origin):
        problems.append(Problem("origin", origin, "must be callable with a FetchRequest, or None"))
    if not isinstance(freshness, Freshness):
        problems.append(Problem("freshness", freshness, FRESHNESS_MEND))
    if buffers is not None and not isinstance(buffers, BufferPool | BufferPoolConfig):
        problems.append(Problem("buffers", buffers, "must be a BufferPoolConfig, a BufferPool, or None"))
    if type(workers) is not int or not 1 <= workers <= 1024:
        problems.append(Problem("workers", workers, "must be an int from 1 to 1024"))
    try:
        limit = parse_size(memory_limit)
    except ValueError as error:
        problems.append(Problem("memory_limit", memory_limit, str(error)))
    else:
        if limit < LEAST_MEMORY:
            mend = f"must be at least {format_size(LEAST_MEMORY)}, or buffers have no room to move bytes"
            problems.append(Problem("memory_limit", memory_limit, mend))
    if problems:
        raise ConfigError(problems, subject="Cache")
    return limit


def _check_tiers(tiers: tuple[Store, ...]) -> list[Problem]:
    problems = []
    if not tiers:
        problems.append(Problem("tiers", (), 'give at least one store, such as MemoryStore("256MiB")'))
    for index, store in enumerate(tiers):
        missing = [name for name in ("open", "stage", "delete", "stat", "keys", "close") if not hasattr(store, name)]
        if missing:
            problems.append(Problem(f"tiers[{index}]", store, f"is no Store: it has no {', '.join(missing)}"))
        elif getattr(store, "closed", False) is True:
            problems.append(Problem(f"tiers[{index}]", store, "was closed: make a new one"))
        elif getattr(store, "in_use", False) is True:
            problems.append(Problem(f"tiers[{index}]", store, "is a tier of another cache: give each cache its own"))
    if len({id(store) for store in tiers}) != len(tiers):
        problems.append(Problem("tiers", tiers, "name each store once"))
    return problems


def check_fetch(fetch: Fetcher, subject: str = "open") -> Fetcher:
    if not callable(fetch):
        raise ConfigError([Problem("fetch", fetch, "must be callable with a FetchRequest, or None")], subject=subject)
    return fetch


def check_offset(field: str, value: int) -> int:
    if type(value) is not int or value < 0:
        raise ConfigError([Problem(field, value, "must be a byte offset, an int of 0 or more")], subject="open")
    return value


def check_size(field: str, value: Size) -> int:
    try:
        return parse_size(value)
    except ValueError as error:
        raise ConfigError([Problem(field, value, str(error))], subject="get") from None


def check_freshness(value: object) -> None:
    if not isinstance(value, Freshness):
        raise ConfigError([Problem("freshness", value, FRESHNESS_MEND)], subject="open")


def check_duration(field: str, value: Duration, subject: str = "open") -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ConfigError([Problem(field, value, str(error))], subject=subject) from None


def check_orphan(value: str) -> bool:
    if value not in ("finish", "abort"):
        raise ConfigError([Problem("on_orphan", value, 'must be "finish" or "abort"')], subject="open")
    return value == "finish"
