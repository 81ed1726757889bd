"""Writing: bodies a program puts in itself (`set`, `writer`).

Invariant: a writer publishes everything or nothing; until then the key answers as before.
Threads: one thread uses a writer at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from daramjwee.engine.plan import plan_tier
from daramjwee.errors import (
    Closed,
    ConfigError,
    CorruptEntry,
    FetchError,
    LimitExceeded,
    Problem,
    StoreError,
    shorten,
)
from daramjwee.fills.body import NoBytes, metadata_of, open_body, result_of
from daramjwee.units import counted, format_size

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from daramjwee.engine.execute import Engine
    from daramjwee.engine.tiers import Staged
    from daramjwee.fills.body import BodyReader
    from daramjwee.model import FetchResult, Metadata

# What a writer keeps before it picks a tier: an object that ends within it has a known size.
PENDING_BYTES = 256 * 1024
DATA_MEND = "give bytes (text encoded), a contiguous buffer, something with read(n), or an iterable of bytes"


class CacheWriter:
    """Write an object piece by piece; leaving the `with` block publishes it, an exception inside publishes nothing."""

    def __init__(self, engine: Engine, key: str, metadata: Metadata, *, whole: bool = False) -> None:
        self._engine = engine
        self._key = key
        self._metadata = metadata
        self._whole = whole
        self._pending: list[bytes] = []
        self._written = 0
        self._staged: Staged | None = None
        self._open = True
        if metadata.size is not None:
            self._stage(metadata.size)

    @property
    def written(self) -> int:
        """Bytes written so far."""
        return self._written

    def writable(self) -> bool:
        """True until it has ended."""
        return self._open

    def write(self, data: Buffer) -> int:
        """Append all of `data`; its length in bytes. `LimitExceeded` when no tier can hold so much, `Closed` after the end."""
        if not self._open:
            raise Closed(f"the writer of {shorten(self._key)} is closed")
        piece: memoryview | bytes = data if type(data) is bytes else memoryview(data).cast("B")
        count = len(piece)
        if self._staged is None and self._written + count <= PENDING_BYTES:
            self._pending.append(bytes(piece))
        else:
            self._stage(None)
            assert self._staged is not None
            self._staged.staging.write(piece)
        self._written += count
        return count

    def _stage(self, size: int | None) -> None:
        """Pick a tier and hand it what is pending."""
        if self._staged is not None:
            return
        metadata = msgspec.structs.replace(self._metadata, size=size)
        self._staged = _stage_or_refuse(self._engine, self._key, metadata, whole=self._whole)
        pending, self._pending = self._pending, []
        for piece in pending:
            self._staged.staging.write(piece)

    def commit(self) -> None:
        """Publish what was written; done by leaving the `with` block. The writer is closed then.

        `ConfigError` when another size was announced, `Closed` when it has ended before.
        """
        if not self._open:
            raise Closed(f"the writer of {shorten(self._key)} is closed")
        announced = self._metadata.size
        if announced is not None and announced != self._written:
            self.abort()
            raise _another_size("writer", self._key, announced, self._written)
        try:
            self._stage(self._written)
            assert self._staged is not None
            metadata = msgspec.structs.replace(self._metadata, size=self._written)
            _publish(self._engine, self._key, self._staged, metadata)
        except BaseException:
            self.abort()
            raise
        self._open = False

    def abort(self) -> None:
        """Publish nothing and leave nothing. Does nothing once closed."""
        if self._open:
            self._open = False
            self._pending.clear()
            if self._staged is not None:
                self._staged.staging.abort()

    close = abort

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._open:
            self.commit()
        else:
            self.abort()

    def __repr__(self) -> str:
        state = "open" if self._open else "closed"
        return f"<CacheWriter {shorten(self._key)} {state}, {format_size(self._written)} written>"


def put(engine: Engine, key: str, result: FetchResult) -> None:
    """Publish a body that a program gives. Raises what the body raises, and then changes nothing."""
    metadata = metadata_of(result_of(result), engine.clock.now(), subject=f"set of {shorten(key)}")
    data = result.body
    if type(data) is bytes:
        _check(key, metadata, len(data), _hash(metadata, data))
        with CacheWriter(engine, key, metadata, whole=True) as writer:
            writer.write(data)
        return
    try:
        body = open_body(data)  # not closed here: what a program gives stays the program's
    except FetchError:
        raise ConfigError([Problem("data", data, DATA_MEND)], subject=f"set of {shorten(key)}") from None
    hasher = _hash(metadata)
    try:
        with engine.pool.acquire(PENDING_BYTES, priority=None) as lease, CacheWriter(engine, key, metadata) as writer:
            _pour(body, writer, lease.view, hasher)
            _check(key, metadata, writer.written, hasher)
    except NoBytes as error:
        # There is no fetch: what was given is at fault, as where that is seen at once.
        raise ConfigError([Problem("data", data, str(error))], subject=f"set of {shorten(key)}") from None


def _pour(body: BodyReader, writer: CacheWriter, view: memoryview, hasher: Any) -> None:
    # Not in the `with` of who calls this: an interrupt at the jump back of such a loop could be outside of it (see
    # `MemoryLedger._wait`).
    while len(piece := body.pull(view)):
        writer.write(piece)
        if hasher is not None:
            hasher.update(piece)


def _stage_or_refuse(engine: Engine, key: str, metadata: Metadata, *, whole: bool) -> Staged:
    """A staging for an object that a program puts in. `whole`: it is in memory already and can be kept as it is.

    `LimitExceeded` when no tier can hold it, `StoreError` when none works; the key is as before.
    """
    engine.check_open()
    rooms = engine.tiers.rooms
    first = 0 if whole and metadata.size is not None and metadata.size <= rooms[0].largest else None
    if first is None and plan_tier(rooms, metadata.size) is None:
        size, largest = metadata.size or 0, max(room.largest for room in rooms)
        raise LimitExceeded(
            f"{shorten(key)} has {format_size(size)}, but the largest object a tier takes is "
            f"{format_size(largest)}; raise a tier's capacity or max_object_size"
        )
    staged = engine.tiers.stage(key, metadata, first=first)
    if staged is None:
        raise StoreError(f"no tier could begin to write {shorten(key)}; see the log for each tier's reason")
    return staged


def _publish(engine: Engine, key: str, staged: Staged, metadata: Metadata) -> None:
    """Make what was staged the state of the key, in every tier."""
    engine.check_open()
    flights, tiers = engine.flights, engine.tiers
    claim = flights.change(key)
    try:
        # Older copies first: should publishing fail, the key is gone, but never back to what it was told to
        # replace.
        tiers.delete(key, guard=claim.is_current, but=staged.tier, strict=True)
        entry = staged.staging.commit(metadata, guard=claim.is_current)
    except BaseException:
        try:
            tiers.delete(key, guard=claim.is_current)
        finally:
            flights.fence.release(claim)
        raise
    if entry is None:
        # A newer change of the key came in between: ours was overwritten at once.
        staged.staging.abort()
        flights.fence.release(claim)
        return
    entry.close()
    flights.follow(key, staged.tier, claim)


def _hash(metadata: Metadata, data: bytes = b"") -> Any:
    if metadata.digest is None:
        return None
    import hashlib

    return hashlib.new(metadata.digest.partition(":")[0], data, usedforsecurity=False)


def _another_size(what: str, key: str, said: int, size: int) -> ConfigError:
    mend = f"{counted(size, 'byte')} came, and nothing was kept; give their number, or leave size out"
    return ConfigError([Problem("size", said, mend)], subject=f"{what} of {shorten(key)}")


def _check(key: str, metadata: Metadata, size: int, hasher: Any) -> None:
    if metadata.size is not None and metadata.size != size:
        raise _another_size("set", key, metadata.size, size)
    if hasher is not None and metadata.digest is not None:
        wanted = metadata.digest.partition(":")[2].lower()
        if hasher.hexdigest() != wanted:
            raise CorruptEntry(f"{shorten(key)} has digest {hasher.hexdigest()}, not {wanted}; nothing was kept")
