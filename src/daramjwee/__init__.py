"""daramjwee caches streams: read at once, fetch once, keep every byte inside one memory limit.

    from daramjwee import Cache, FileStore, HttpOrigin, MemoryStore

    with Cache(MemoryStore("256MiB"), FileStore("cache", capacity="20GiB"), origin=HttpOrigin()) as cache:
        with cache.open("https://example.org/model.bin") as stream:
            for chunk in stream:
                ...
"""

from __future__ import annotations

import logging

from daramjwee.buffers import (
    BufferPool,
    BufferPoolConfig,
    BufferPoolStats,
    ChunkedTeeReader,
    CopyResult,
    Lease,
    MemoryLedger,
    SizeClass,
    Strategy,
)
from daramjwee.cache import Cache
from daramjwee.engine.counters import CacheStats
from daramjwee.engine.lifecycle import Drain
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
from daramjwee.model import Event, FetchRequest, FetchResult, Freshness, Metadata, Observer, Status
from daramjwee.origins import FileOrigin, HttpOrigin
from daramjwee.stores import FileStore, MemoryStore
from daramjwee.stores.protocol import Entry, Staging, Store

__version__ = "0.1.0"

__all__ = [
    "BufferPool",
    "BufferPoolConfig",
    "BufferPoolStats",
    "Cache",
    "CacheMiss",
    "CacheStats",
    "CacheStream",
    "ChunkedTeeReader",
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
    "FileOrigin",
    "FileStore",
    "FillAborted",
    "Freshness",
    "HttpOrigin",
    "Lease",
    "LeaseError",
    "LimitExceeded",
    "MemoryLedger",
    "MemoryStore",
    "Metadata",
    "NotFound",
    "NotModified",
    "Observer",
    "Overloaded",
    "SizeClass",
    "Staging",
    "Status",
    "Store",
    "StoreError",
    "Strategy",
    "__version__",
]

# A library says nothing unless the program that uses it asks for it.
logging.getLogger(__name__).addHandler(logging.NullHandler())
