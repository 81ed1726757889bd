"""What the memory tier hands out: an open entry, and an object on its way in.

Invariant: a staging holds its room and its charge until it ends; from a commit on, the body holds the charge. Both go
back by themselves when nobody refers to what has them: a staging that is lost is as if aborted.
Threads: as `protocol` says. Readers look at the spool or the body, each replaced as a whole, and take no lock.
Design: docs/design/stores.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daramjwee.buffers.charge import Grip
from daramjwee.errors import Closed, StoreError, shorten
from daramjwee.stores.segments import Body, Spool
from daramjwee.stores.shelf import Hold, with_size
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
        ledger = self._store.ledger
        if ledger is not None and ledger.noted:
            ledger.settle()

    def __repr__(self) -> str:
        return f"<MemoryEntry {'closed' if self._body is None else 'open'}, {format_size(self.size)}>"


class MemoryStaging:
    """An object on its way into the memory tier."""

    __slots__ = (
        "_body",
        "_bytes",
        "_charge",
        "_failed",
        "_key",
        "_metadata",
        "_open",
        "_room",
        "_spool",
        "_store",
        "hold",
    )

    def __init__(self, store: MemoryStore, key: str, metadata: Metadata) -> None:
        self._store = store
        self._key = key
        self._metadata = metadata
        self._failed = False
        self._body: Body | None = None
        self.hold = hold = Hold(store.epoch)
        # Before anything is held: what is, goes back with these. After a commit there is nothing to give back.
        self._open = [hold]
        self._room: Grip | None = Grip(store.note_lost, self._open)
        self._bytes: Grip | None = Grip(store.note_credits, self._open)
        self._charge: Body | None = None  # the body, once it has the charge
        self._spool: Spool | None = Spool(metadata.size, store.take)

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
            more = spool.state.written + len(data) - self.hold.room
            if more > 0:
                self._store.reserve(self._key, self.hold, more)
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
        store, hold = self._store, self.hold
        size = spool.state.written
        described = with_size(self._metadata if metadata is None else metadata, size)
        segments = spool.finish()
        spare = hold.bytes - size
        if spare > 0:
            # What was charged beyond the body's size goes back, the rest when the body dies.
            note = store.note_credit
            hold.bytes = size
            note(spare)  # no call between the two
        body = self._charge
        if body is None:
            # From here on the body has the charge. No call between the two.
            note = store.note_credit if hold.bytes else bool
            charged, hold.bytes = hold.bytes, 0
            body = self._charge = Body(note, charged)
        body.fill(segments)
        # Before it is published: whoever reads the staging finds the one or the other.
        self._body = body
        if not store.publish(self._key, hold, body, described, guard):
            self._body = None
            return None
        del self._open[:]
        self._spool = self._bytes = self._charge = None
        return MemoryEntry(store, body, described)

    def abort(self) -> None:
        if self._spool is None:
            return
        # No call from here to the end of all of it: an interrupt finds it as it was, or ended.
        if self.hold.counted:  # else it was committed, though an interrupt may have come before that was said
            self._body = None
        self._spool = self._room = self._bytes = self._charge = None
        self._store.tidy()

    def _check_usable(self) -> None:
        if self.hold.epoch != self._store.epoch:
            raise Closed(f"the staging of {shorten(self._key)} belongs to the process this one was forked from")
        if self._failed:
            raise StoreError(f"the staging of {shorten(self._key)} failed before: abort it")

    def __repr__(self) -> str:
        state = "open" if self._spool is not None else "committed" if self._body is not None else "aborted"
        return f"<MemoryStaging {shorten(self._key)} {state}, {format_size(self.written)}>"
