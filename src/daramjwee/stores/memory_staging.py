"""What the memory tier hands out: an open entry, and an object on its way in.

Invariant: a staging holds its room and its charge until it ends; from a commit on, the body holds the charge.
Threads: as `protocol` says. Readers look at the spool or the body, each replaced as a whole, and take no lock.
Design: docs/design/stores.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daramjwee.errors import Closed, StoreError, shorten
from daramjwee.stores.segments import Body, Spool
from daramjwee.stores.shelf import with_size
from daramjwee.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from daramjwee.model import Metadata
    from daramjwee.stores.memory import MemoryStore


class MemoryEntry:
    """An open entry of the memory tier."""

    __slots__ = ("_body", "_store", "metadata", "size")

    def __init__(self, store: MemoryStore, body: Body, metadata: Metadata) -> None:
        self._store = store
        self._body: Body | None = body
        self.metadata = metadata
        self.size = body.size

    def readinto_at(self, offset: int, view: memoryview, /) -> int:
        body = self._body
        if body is None or self._store.closed:
            raise Closed("the entry or its store was closed before this read")
        return body.readinto_at(offset, view)

    def peek_at(self, offset: int, size: int) -> bytes:
        body = self._body
        if body is None or self._store.closed:
            raise Closed("the entry or its store was closed before this read")
        return body.peek_at(offset, size)

    def close(self) -> None:
        self._body = None

    def __repr__(self) -> str:
        return f"<MemoryEntry {'closed' if self._body is None else 'open'}, {format_size(self.size)}>"


class MemoryStaging:
    """An object on its way into the memory tier."""

    __slots__ = (
        "_body",
        "_charged",
        "_ended",
        "_epoch",
        "_failed",
        "_key",
        "_metadata",
        "_reserved",
        "_spool",
        "_store",
    )

    def __init__(self, store: MemoryStore, key: str, metadata: Metadata, reserved: int) -> None:
        self._store = store
        self._key = key
        self._metadata = metadata
        self._reserved = reserved  # bytes of the tier's capacity
        self._charged = reserved  # bytes charged to the ledger for the body
        self._failed = self._ended = False
        self._epoch = store.epoch
        self._body: Body | None = None
        self._spool: Spool | None = Spool(metadata.size, store.charge, store.credit)

    @property
    def written(self) -> int:
        body, spool = self._body, self._spool
        if body is not None:
            return body.size
        return 0 if spool is None else spool.state.written

    def write(self, data: memoryview | bytes, /) -> None:
        spool = self._spool
        if spool is None or self._store.closed:
            raise Closed(f"the staging of {shorten(self._key)} has ended: begin a new one")
        self._check_usable()
        try:
            more = spool.state.written + len(data) - self._reserved
            if more > 0:
                self._store.reserve(self._key, self._reserved, more)
                self._reserved += more
                self._charged += more
            spool.append(data)
        except BaseException:
            self._failed = True
            raise

    def readinto_at(self, offset: int, view: memoryview, /) -> int:
        # The spool first: a commit sets the body before it lets the spool go.
        source = self._spool or self._body
        if source is None or self._store.closed:
            raise Closed(f"the staging of {shorten(self._key)} was aborted")
        return source.readinto_at(offset, view)

    def peek_at(self, offset: int, size: int) -> bytes:
        """As `readinto_at`, into `bytes`; without a copy once it is committed."""
        body = self._body
        if body is not None and not self._store.closed:
            return body.peek_at(offset, size)
        view = bytearray(max(0, min(size, self.written - offset)))
        return bytes(view[: self.readinto_at(offset, memoryview(view))])

    def commit(
        self, metadata: Metadata | None = None, *, guard: Callable[[], bool] | None = None
    ) -> MemoryEntry | None:
        spool = self._spool
        if spool is None:
            raise Closed(f"the staging of {shorten(self._key)} has ended: begin a new one")
        self._check_usable()
        store = self._store
        size = spool.state.written
        described = with_size(self._metadata if metadata is None else metadata, size)
        segments = spool.finish(store.try_charge)
        body = Body(segments)
        if not store.publish(self, self._key, body, described, guard):
            return None
        # What was reserved beyond the body's size goes back now, the rest when it dies.
        spare, self._charged = self._charged, 0
        store.credit(spare)
        self._spool = None
        return MemoryEntry(store, body, described)

    def published(self, body: Body) -> int:
        """End it, under the store's lock: an interruption from here on must not make an abort undo it. What was
        reserved."""
        body.charged_to(self._store.ledger)  # and gives it back when it dies
        reserved, self._reserved = self._reserved, 0
        self._charged -= body.size
        self._ended, self._body = True, body
        return reserved

    def abort(self) -> None:
        spool, self._spool = self._spool, None
        if spool is None:
            return
        reserved, charged, self._reserved, self._charged = self._reserved, self._charged, 0, 0
        if not self._ended:
            self._store.let_go(reserved, charged + spool.tail_charged, self._epoch)
        elif self._epoch == self._store.epoch:
            self._store.credit(charged + spool.tail_charged)

    def __del__(self) -> None:
        spool = getattr(self, "_spool", None)
        if spool is not None and not self._ended:
            self._store.lost.append((self._reserved, self._charged + spool.tail_charged, self._epoch))

    def _check_usable(self) -> None:
        if self._epoch != self._store.epoch:
            raise Closed(f"the staging of {shorten(self._key)} belongs to the process this one was forked from")
        if self._failed:
            raise StoreError(f"the staging of {shorten(self._key)} failed before: abort it")

    def __repr__(self) -> str:
        state = "committed" if self._body is not None else "open" if self._spool is not None else "aborted"
        return f"<MemoryStaging {shorten(self._key)} {state}, {format_size(self.written)}>"
