"""Other settings for a running cache: all of them, or none.

Invariant: a change is checked as a whole before the first part of it is made; when a part fails, those made before it are
taken back. What is running goes on under the settings it began with.
Threads: any; one change at a time. Who asks for the settings meanwhile gets those from before, and does not wait.
Design: docs/design/overview.md
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.config import FileTier, GivenTier
from daramjwee.engine.assemble import config_of
from daramjwee.errors import Closed, ConfigError, Overloaded, Problem
from daramjwee.units import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from daramjwee.config import CacheConfig
    from daramjwee.engine.execute import Engine

logger = logging.getLogger(__name__)

# What a tier can change while it is in use. Everything else about it decides what its bytes mean or how they lie.
LIVE_IN_TIERS = ("capacity", "max_entries", "max_object_size")
# A change takes milliseconds, and as long as what it evicts.
RETRY_AFTER = 0.1
RESTART = "cannot change while the cache is in use: leave it as it is, or close the cache and make a new one"


class Step(NamedTuple):
    """One part of a change: `apply(after)` makes it, `apply(before)` takes it back, both also when half done."""

    apply: Callable[[Any], object]
    before: Any
    after: Any


def reconfigure(engine: Engine, changes: Mapping[str, Any], *, owns_pool: bool) -> CacheConfig:
    """Make the changes; the configuration that holds then. `ConfigError` lists all that is wrong, `Overloaded` says that a
    log handler would wait for another change; nothing is changed then."""
    lock = engine.settings_lock
    if not _in_a_log_handler():
        with lock:
            return _changed(engine, changes, owns_pool=owns_pool)
    # Whoever holds the lock may be writing a log record, and wait for the handler that is being run here.
    if not lock.acquire(blocking=False):
        raise Overloaded(
            "another change of settings is being made, which may wait for this log handler: nothing was changed; "
            "change settings outside of log handlers",
            retry_after=RETRY_AFTER,
        )
    try:
        return _changed(engine, changes, owns_pool=owns_pool)
    finally:
        lock.release()


def _changed(engine: Engine, changes: Mapping[str, Any], *, owns_pool: bool) -> CacheConfig:
    """With the lock held."""
    engine.check_open()
    now = config_of(engine)
    wanted = now.replace(**changes)
    problems = list(_refused(now, wanted, owns_pool=owns_pool))
    if problems:
        raise ConfigError(problems, subject="Cache.reconfigure")
    outer = engine.settings_before  # of a change that this one is made within
    engine.settings_before = outer or now
    try:
        engine.changes += 1
        _carry_out(_steps(engine, now, wanted))
        return config_of(engine)
    finally:
        engine.settings_before = outer


def _in_a_log_handler() -> bool:
    """Whether the caller is called by `logging`, which holds a lock of each handler while that runs."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "logging":
            return True
        frame = frame.f_back
    return False


def _refused(now: CacheConfig, wanted: CacheConfig, *, owns_pool: bool) -> Iterator[Problem]:
    """Every difference that a running cache cannot follow."""
    if wanted.origin != now.origin:
        yield Problem("origin", wanted.origin, RESTART)
    if not owns_pool and wanted.buffers != now.buffers:
        mend = "is a pool that the cache was given, and others may use: call its own reconfigure"
        yield Problem("buffers", wanted.buffers, mend)
    if len(wanted.tiers) != len(now.tiers):
        yield Problem(
            "tiers", wanted.tiers, f"has {counted(len(wanted.tiers), 'tier')} instead of {len(now.tiers)}: {RESTART}"
        )
        return
    for place, (old, new) in enumerate(zip(now.tiers, wanted.tiers, strict=True)):
        if type(old) is not type(new):
            yield Problem(f"tiers[{place}]", new, f"is of another kind: {RESTART}")
            continue
        for name in new.__struct_fields__:
            if name not in LIVE_IN_TIERS and _plain(name, getattr(new, name)) != _plain(name, getattr(old, name)):
                yield Problem(f"tiers[{place}].{name}", getattr(new, name), RESTART)


def _plain(name: str, value: Any) -> Any:
    return os.path.abspath(os.path.expanduser(value)) if name == "folder" else value


def _steps(engine: Engine, now: CacheConfig, wanted: CacheConfig) -> list[Step]:
    steps = [
        Step(engine.ledger.resize, now.memory_limit, wanted.memory_limit),
        *(
            Step(_fit(engine, place), old, new)
            for place, (old, new) in enumerate(zip(now.tiers, wanted.tiers, strict=True))
            if not isinstance(old, GivenTier)
        ),
        Step(engine.pool.reconfigure, now.buffers, wanted.buffers),
        Step(engine.flights.resize_workers, now.workers, wanted.workers),
        Step(engine.refresh_rules, now.freshness, wanted.freshness),
    ]
    return [step for step in steps if _same(step.before) != _same(step.after)]


def _same(value: Any) -> Any:
    """What two values are compared by: of a tier only what can have changed, as its folder may be written in two ways."""
    return tuple(getattr(value, name) for name in LIVE_IN_TIERS) if hasattr(value, "capacity") else value


def _fit(engine: Engine, place: int) -> Callable[[Any], None]:
    store: Any = engine.tiers[place].store

    def apply(tier: FileTier) -> None:
        try:
            store.reconfigure(**{name: getattr(tier, name) for name in LIVE_IN_TIERS})
        finally:
            engine.tiers.follow()

    return apply


def _carry_out(steps: list[Step]) -> None:
    begun: list[Step] = []
    try:
        for step in steps:
            begun.append(step)
            step.apply(step.after)
    except BaseException:
        for step in reversed(begun):
            try:
                step.apply(step.before)
            except Closed:
                pass  # meanwhile: a part that is closed has no settings any more
            except Exception:  # the first error is the one to tell; this one is in the log
                logger.exception("a setting could not be put back to what it was")
        raise
