"""Arguments of the doors: checked before anything changes, every fault of a constructor at once.

Invariant: what passes here is used as it is further down; nothing here has an effect, but that stores know their cache.
Threads: any.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from daramjwee.buffers import BufferPool, BufferPoolConfig
from daramjwee.engine.lifecycle import Drain
from daramjwee.errors import ConfigError, Problem
from daramjwee.fills.window import PIECE_BYTES
from daramjwee.model import LEAST_MEMORY, MOST_WORKERS, Freshness
from daramjwee.stores.memory import MemoryStore
from daramjwee.units import format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daramjwee.engine.tiers import Tier
    from daramjwee.stores.protocol import Store
    from daramjwee.units import Size

logger = logging.getLogger(__name__)

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
    elif isinstance(buffers, BufferPool):
        problems += _check_pool(buffers)
    if type(workers) is not int or not 1 <= workers <= MOST_WORKERS:
        problems.append(Problem("workers", workers, f"must be an int from 1 to {MOST_WORKERS}"))
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


def _check_pool(pool: BufferPool) -> list[Problem]:
    if pool.closed:
        return [Problem("buffers", pool, "was closed: give one that is open")]
    if pool.ledger.limit < PIECE_BYTES:
        mend = f"may hold only {format_size(pool.ledger.limit)}, and a fill needs {format_size(PIECE_BYTES)} at once: "
        return [Problem("buffers", pool, mend + "raise its max_pool_bytes, or the limit of its ledger")]
    return []


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


def check_open(
    *, fetch: object, start: object, stop: object, freshness: object, timeout: Any, on_orphan: object, progress: object
) -> float | None:
    """Every problem of the arguments of an open at once; the timeout in seconds."""
    problems = _check_fetch(fetch)
    for field, value in (("start", start), ("stop", 0 if stop is None else stop)):
        if type(value) is not int or value < 0:
            problems.append(Problem(field, value, "must be a byte offset, an int of 0 or more"))
    if freshness is not None and not isinstance(freshness, Freshness):
        problems.append(Problem("freshness", freshness, FRESHNESS_MEND))
    seconds = _seconds(timeout, problems)
    if on_orphan not in (None, "finish", "abort"):
        problems.append(Problem("on_orphan", on_orphan, 'must be "finish" or "abort"'))
    if progress is not None and not callable(progress):
        problems.append(
            Problem("progress", progress, "must be callable with the bytes so far and all of them, or None")
        )
    if problems:
        raise ConfigError(problems, subject="open")
    return seconds


def check_refresh(fetch: object, timeout: Any) -> float | None:
    """The same of a refresh."""
    problems = _check_fetch(fetch)
    seconds = _seconds(timeout, problems)
    if problems:
        raise ConfigError(problems, subject="refresh")
    return seconds


def _check_fetch(fetch: object) -> list[Problem]:
    if fetch is None or callable(fetch):
        return []
    return [Problem("fetch", fetch, "must be callable with a FetchRequest, or None")]


def _seconds(timeout: Any, problems: list[Problem]) -> float | None:
    try:
        return None if timeout is None else parse_duration(timeout)
    except ValueError as error:
        problems.append(Problem("timeout", timeout, str(error)))
        return None


def check_size(field: str, value: Size) -> int:
    try:
        return parse_size(value)
    except ValueError as error:
        raise ConfigError([Problem(field, value, str(error))], subject="get") from None


def check_prefix(value: object) -> None:
    if not isinstance(value, str):
        raise ConfigError([Problem("prefix", value, "must be text that keys begin with")], subject="keys")


def check_drain(value: object) -> None:
    if not isinstance(value, Drain):
        raise ConfigError([Problem("drain", value, "must be Drain.FINISH or Drain.ABORT")], subject="close")


def mark_in_use(tiers: Iterable[Store]) -> None:
    """Tell the stores that want to know; last of all, so that a construction that failed leaves them free."""
    store: Any
    for store in tiers:
        if hasattr(store, "in_use"):
            store.in_use = True


def folder_of(tiers: Iterable[Tier]) -> str:
    """The folder of the first file tier."""
    from daramjwee.stores.file.store import FileStore

    for tier in tiers:
        if isinstance(tier.store, FileStore):
            return tier.store.folder
    mend = "this cache has no file tier: give the path of a folder, or of a socket in one"
    raise ConfigError([Problem("path", None, mend)], subject="offer_dashboard")


def compare_limits(tiers: Iterable[Store], limit: int) -> None:
    """Say so when the memory tiers can never be filled."""
    room = sum(store.usage().capacity for store in tiers if isinstance(store, MemoryStore))
    if room > limit:
        logger.warning(
            "the memory tier may hold %s but memory_limit is %s, buffers included: it can never be filled; "
            "raise memory_limit, or lower the tier's capacity",
            format_size(room),
            format_size(limit),
        )
