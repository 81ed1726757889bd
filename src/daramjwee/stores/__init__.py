"""Tiers: the contract in `protocol`, and one store for each place that bytes can be kept in.

Invariant: every store passes `daramjwee.testing.StoreSuite`.
Threads: see `protocol`.
Design: docs/design/stores.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daramjwee.stores.memory import MemoryStore
from daramjwee.stores.protocol import Entry, Staging, Store, Usage

if TYPE_CHECKING:
    from daramjwee.stores.file import FileStore

__all__ = ["Entry", "FileStore", "MemoryStore", "Staging", "Store", "Usage"]


if not TYPE_CHECKING:  # a checker that sees it takes every misspelt name for one that exists

    def __getattr__(name: str) -> object:
        # Late: a cache without a file tier need not pay for importing one.
        if name == "FileStore":
            from daramjwee.stores.file import FileStore

            return FileStore
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
