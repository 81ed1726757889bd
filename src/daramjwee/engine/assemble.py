"""From a configuration to the parts of a cache, and from the parts back to the configuration they stand for.

Invariant: what `config_of` gives for parts that `build_store` and `build_origin` made is equal to what they were made
from. What a program made itself is named (`GivenTier`, `GivenOrigin`) and never made again from its name.
Threads: any.
Design: docs/design/overview.md
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from daramjwee.config import (
    CacheConfig,
    FileOriginConfig,
    FileTier,
    GivenOrigin,
    GivenTier,
    HttpOriginConfig,
    MemoryTier,
)
from daramjwee.errors import ConfigError, Problem
from daramjwee.model import SYSTEM_CLOCK
from daramjwee.stores.file.store import FileStore
from daramjwee.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterable

    import msgspec

    from daramjwee.engine.execute import Engine
    from daramjwee.model import Fetcher
    from daramjwee.stores.protocol import Store

GIVEN = "was made by a program and cannot be made from its name: describe it, or give Cache(...) the object itself"


def build_stores(config: CacheConfig) -> tuple[Store, ...]:
    """The tiers in their order, opened. When one cannot be, those before it are closed again."""
    with ExitStack() as opened:
        stores = []
        for place, tier in enumerate(config.tiers):
            store = _build_store(place, tier)
            opened.callback(store.close)
            stores.append(store)
        opened.pop_all()
    return tuple(stores)


def _build_store(place: int, tier: object) -> Store:
    if isinstance(tier, MemoryTier):
        return MemoryStore(**_fields(tier))
    if isinstance(tier, FileTier):
        return FileStore(**_fields(tier))
    raise ConfigError([Problem(f"tiers[{place}]", tier, GIVEN)], subject="Cache")


def build_origin(config: CacheConfig) -> Fetcher | None:
    """The origin, with its secrets looked up now; None when there is none."""
    origin = config.origin
    if origin is None:
        return None
    if isinstance(origin, FileOriginConfig | HttpOriginConfig):
        try:
            return _build_origin(origin)
        except ConfigError as error:
            problems = [problem._replace(field=f"origin.{problem.field}") for problem in error.problems]
            raise ConfigError(problems, subject="Cache") from None
    raise ConfigError([Problem("origin", origin, GIVEN)], subject="Cache")


def _build_origin(origin: FileOriginConfig | HttpOriginConfig) -> Fetcher:
    import daramjwee.origins as origins

    if isinstance(origin, FileOriginConfig):
        return origins.FileOrigin(origin.folder)
    return origins.HttpOrigin(**{**_fields(origin), "headers": origin.revealed_headers()})


def config_of(engine: Engine) -> CacheConfig:
    """The configuration that the parts of the cache stand for, as they are now."""
    return CacheConfig(
        tiers=_tiers_of(tier.store for tier in engine.tiers),
        origin=_origin_of(engine),
        freshness=engine.freshness,
        buffers=engine.pool.config,
        memory_limit=engine.ledger.limit,
        workers=engine.flights.workers.limit,
    )


def settings_of(engine: Engine) -> CacheConfig:
    """The configuration that holds between two changes, never half of one. Waits for nobody: whoever changes settings may be
    waiting for the caller, as for the lock of a log handler."""
    while True:
        changes = engine.changes
        before = engine.settings_before
        if before is not None:
            return before
        config = config_of(engine)
        if engine.changes == changes:
            return config


def _tiers_of(stores: Iterable[Store]) -> tuple[Any, ...]:
    tiers: list[Any] = []
    for store in stores:
        # Exactly these: a subclass may be more than its settings tell.
        if type(store) is MemoryStore:
            tiers.append(MemoryTier(**store.settings))
        elif type(store) is FileStore:
            tiers.append(FileTier(**store.settings))
        else:
            tiers.append(GivenTier(name=str(getattr(store, "name", None) or type(store).__name__)))
    return tuple(tiers)


def _origin_of(engine: Engine) -> Any:
    if engine.origin_config is not None or engine.origin is None:
        return engine.origin_config
    made = engine.origin
    return GivenOrigin(name=getattr(made, "__qualname__", type(made).__qualname__))


def given_parts(engine: Engine, config: CacheConfig, *, owns_pool: bool) -> list[str]:
    """What a program made itself and cannot be made, or found by its name, in another process."""
    given = [f"tiers[{place}] ({tier.name})" for place, tier in enumerate(config.tiers) if isinstance(tier, GivenTier)]
    if isinstance(config.origin, GivenOrigin) and "<" in config.origin.name:  # a lambda, or local to a function
        given.append(f"origin ({config.origin.name})")
    if not owns_pool:
        given.append("buffers (a pool)")
    if engine.clock is not SYSTEM_CLOCK:
        given.append(f"clock ({type(engine.clock).__name__})")
    return given


def _fields(part: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(part, name) for name in part.__struct_fields__}
