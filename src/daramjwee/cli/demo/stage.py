"""Where the demo plays: a folder, a slow origin in a process of its own, and a cache of two tiers over both.

Invariant: leaving the `with` ends the origin, closes the cache and removes the folder, however it is left.
Threads: one; `moved` of a `Watch` is called by the thread that plays.
Design: docs/cli.md
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from daramjwee import Cache, FileStore, HttpOrigin, MemoryStore
from daramjwee.bench.origin import BLOCK_BYTES, slow_origin, synthetic_bytes
from daramjwee.cli.demo.files import RealFile, installation, pick_files
from daramjwee.cli.demo.record import MEMORY_LIMIT_BYTES, MEMORY_TIER_BYTES, Settings, Step
from daramjwee.engine.lifecycle import Drain
from daramjwee.errors import ConfigError, Problem
from daramjwee.units import MIB, format_size

BIG = "big.bin"
PART = "half-read.bin"
DELETED = "deleted.bin"
REPLACED = "replaced.bin"
# What a file tier leaves free on its disk, and some for others.
SPARE_BYTES = 96 * MIB


class Origin(Protocol):
    """What the demo needs of an origin; `daramjwee.bench.origin.OriginProcess` is one."""

    @property
    def url(self) -> str: ...

    def counts(self) -> dict[str, int]:
        """GET requests by path since the last `reset`."""
        ...

    def reset(self) -> None: ...

    def close(self) -> None: ...


class Watch(Protocol):
    """Who looks on while the demo plays."""

    def opened(self, stage: Stage) -> None: ...

    def began(self, title: str, total: int | None) -> None: ...

    def moved(self, done: int) -> None: ...

    def ended(self, step: Step) -> None: ...


class Digests(NamedTuple):
    """What the bytes of a synthetic object have to be, made without the origin and without the cache."""

    crc32c: str
    sha256: str


def start_origin(folder: str, sizes: dict[str, int], settings: Settings) -> Origin:
    """The real one: another process, on loopback, slow on purpose."""
    return slow_origin(folder, synthetic=sizes, latency=settings.latency, bandwidth=settings.bandwidth)


class Stage:
    """Everything the steps play with. `reopen` closes the cache and opens it anew, as a restart would."""

    cache: Cache
    memory: MemoryStore

    def __init__(
        self,
        settings: Settings,
        watch: Watch,
        *,
        folder: str | None = None,
        origin: Callable[[str, dict[str, int], Settings], Origin] = start_origin,
    ) -> None:
        self.settings = settings
        self.watch = watch
        self._under = folder
        self._make_origin = origin
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        with self._ends:
            settings = self.settings
            self.served = installation()
            self.files: list[RealFile] = pick_files(self.served, settings.files, settings.largest_file_bytes)
            self.sizes = {
                BIG: settings.big_bytes, PART: settings.part_bytes, DELETED: settings.race_bytes,
                REPLACED: settings.race_bytes,
            }  # fmt: skip
            self._check_room()
            self.folder = self._ends.enter_context(
                tempfile.TemporaryDirectory(prefix="daramjwee-demo-", dir=self._under)
            )
            self.origin = self._make_origin(self.served, self.sizes, settings)
            self._ends.callback(self.origin.close)
            self.http = HttpOrigin(self.origin.url)
            self._ends.callback(self.http.close)
            self._open_cache()
            # A cache that is left by an exception is not waited for.
            self._ends.push(self._close_cache)
            self.digests = {name: digests_of(name, self.sizes[name]) for name in (BIG, PART)}
            self.watch.opened(self)
            self._opened = self._ends.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, traceback)

    def _check_room(self) -> None:
        under = self._under or tempfile.gettempdir()
        free = shutil.disk_usage(under).free
        needed = sum(self.sizes.values()) + sum(file.size for file in self.files) + SPARE_BYTES
        if free < needed:
            mend = f"has {format_size(free)} free, {format_size(needed)} are needed: name another, or a smaller --size"
            raise ConfigError([Problem("--folder", under, mend)], subject="demo")

    def reopen(self) -> None:
        """Close the cache, waiting for what it still has to do, and open it anew: memory empty, the folder as it was."""
        self.cache.close()
        self._open_cache()

    def _open_cache(self) -> None:
        self.memory = MemoryStore(MEMORY_TIER_BYTES)
        files = FileStore(os.path.join(self.folder, "cache"), capacity=self.settings.disk_bytes)
        self.cache = Cache(self.memory, files, origin=self.http, memory_limit=MEMORY_LIMIT_BYTES)

    def _close_cache(self, kind: type[BaseException] | None, *_: Any) -> None:
        self.cache.close(Drain.FINISH if kind is None else Drain.ABORT)

    def fetched(self) -> int:
        """How often the origin was asked since the step began, counted by the origin."""
        return sum(self.origin.counts().values())

    def tier_hits(self) -> tuple[int, int]:
        """Hits of the memory tier and of the file tier since the cache was opened."""
        memory, files = self.cache.stats().tiers
        return memory.hits, files.hits

    def path_of(self, file: RealFile) -> str:
        """Where a real file lies."""
        return os.path.join(self.served, file.name)


def digests_of(name: str, size: int) -> Digests:
    """The digests of a synthetic object."""
    from crc32c import CRC32CHash

    crc, sha = CRC32CHash(), hashlib.sha256()
    for start in range(0, size, BLOCK_BYTES):
        block = synthetic_bytes(name, start, min(size, start + BLOCK_BYTES))
        crc.update(block)
        sha.update(block)
    return Digests(crc.hexdigest(), sha.hexdigest())
