"""daramjwee caches streams: read at once, fetch once, keep every byte inside one memory limit.

from daramjwee import Cache, FileStore, HttpOrigin, MemoryStore

with Cache(MemoryStore("256MiB"), FileStore("cache", capacity="20GiB"), origin=HttpOrigin()) as cache:
    with cache.open("https://example.org/model.bin") as stream:
        for chunk in stream:
            ...
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daramjwee.buffers import (
        AdaptiveBufferPool,
        Alert,
        AlertRule,
        BufferPool,
        BufferPoolConfig,
        BufferPoolStats,
        ChunkedTeeReader,
        CopyResult,
        Finding,
        LargeOperationGate,
        Lease,
        MemoryLedger,
        MemoryPressure,
        PressureLevel,
        Priority,
        SizeClass,
        Strategy,
        Trend,
        advise,
        chunked_copy,
        select_strategy,
    )
    from daramjwee.cache import Cache
    from daramjwee.config import CacheConfig
    from daramjwee.engine.counters import CacheStats
    from daramjwee.engine.lifecycle import Drain
    from daramjwee.engine.write import CacheWriter
    from daramjwee.errors import (
        CacheMiss,
        Closed,
        ConfigError,
        CorruptEntry,
        DaramjweeError,
        FetchError,
        FillAborted,
        LeaseError,
        LimitExceeded,
        NotFound,
        NotModified,
        Overloaded,
        StoreError,
    )
    from daramjwee.fills.stream import CacheStream
    from daramjwee.model import (
        Clock,
        Event,
        Fetcher,
        FetchRequest,
        FetchResult,
        Freshness,
        Metadata,
        Observer,
        Status,
    )
    from daramjwee.origins import FileOrigin, HttpOrigin
    from daramjwee.stores import FileStore, MemoryStore
    from daramjwee.stores.protocol import Entry, Staging, Store, Usage

__version__ = "0.1.0"

__all__ = [
    "AdaptiveBufferPool",
    "Alert",
    "AlertRule",
    "BufferPool",
    "BufferPoolConfig",
    "BufferPoolStats",
    "Cache",
    "CacheConfig",
    "CacheMiss",
    "CacheStats",
    "CacheStream",
    "CacheWriter",
    "ChunkedTeeReader",
    "Clock",
    "Closed",
    "ConfigError",
    "CopyResult",
    "CorruptEntry",
    "DaramjweeError",
    "Drain",
    "Entry",
    "Event",
    "FetchError",
    "FetchRequest",
    "FetchResult",
    "Fetcher",
    "FileOrigin",
    "FileStore",
    "FillAborted",
    "Finding",
    "Freshness",
    "HttpOrigin",
    "LargeOperationGate",
    "Lease",
    "LeaseError",
    "LimitExceeded",
    "MemoryLedger",
    "MemoryPressure",
    "MemoryStore",
    "Metadata",
    "NotFound",
    "NotModified",
    "Observer",
    "Overloaded",
    "PressureLevel",
    "Priority",
    "SizeClass",
    "Staging",
    "Status",
    "Store",
    "StoreError",
    "Strategy",
    "Trend",
    "Usage",
    "__version__",
    "advise",
    "chunked_copy",
    "select_strategy",
]

# Where each name lives. A name is imported when it is first asked for, so that `import daramjwee` costs little and a
# program that only wants a buffer pool never pays for a cache.
_HOMES = {
    "AdaptiveBufferPool": "buffers",
    "Alert": "buffers",
    "AlertRule": "buffers",
    "BufferPool": "buffers",
    "BufferPoolConfig": "buffers",
    "BufferPoolStats": "buffers",
    "Cache": "cache",
    "CacheConfig": "config",
    "CacheMiss": "errors",
    "CacheStats": "engine.counters",
    "CacheStream": "fills.stream",
    "CacheWriter": "engine.write",
    "ChunkedTeeReader": "buffers",
    "Clock": "model",
    "Closed": "errors",
    "ConfigError": "errors",
    "CopyResult": "buffers",
    "CorruptEntry": "errors",
    "DaramjweeError": "errors",
    "Drain": "engine.lifecycle",
    "Entry": "stores.protocol",
    "Event": "model",
    "FetchError": "errors",
    "FetchRequest": "model",
    "FetchResult": "model",
    "Fetcher": "model",
    "FileOrigin": "origins",
    "FileStore": "stores",
    "FillAborted": "errors",
    "Finding": "buffers",
    "Freshness": "model",
    "HttpOrigin": "origins",
    "LargeOperationGate": "buffers",
    "Lease": "buffers",
    "LeaseError": "errors",
    "LimitExceeded": "errors",
    "MemoryLedger": "buffers",
    "MemoryPressure": "buffers",
    "MemoryStore": "stores",
    "Metadata": "model",
    "NotFound": "errors",
    "NotModified": "errors",
    "Observer": "model",
    "Overloaded": "errors",
    "PressureLevel": "buffers",
    "Priority": "buffers",
    "SizeClass": "buffers",
    "Staging": "stores.protocol",
    "Status": "model",
    "Store": "stores.protocol",
    "StoreError": "errors",
    "Strategy": "buffers",
    "Trend": "buffers",
    "Usage": "stores.protocol",
    "advise": "buffers",
    "chunked_copy": "buffers",
    "select_strategy": "buffers",
}

# A library says nothing unless the program that uses it asks for it.
logging.getLogger(__name__).addHandler(logging.NullHandler())


if not TYPE_CHECKING:  # a checker that sees it takes every misspelt name for one that exists

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value: object = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
