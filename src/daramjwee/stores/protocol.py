"""The contract of a tier: `Store`, `Entry`, `Staging`. `daramjwee.testing.StoreSuite` holds every store to it.

Invariant: an entry is visible only when complete, and immutable from then on. A staging is invisible to
`open`, `stat` and `keys`; it ends in exactly one of `commit` and `abort`.
Threads: every method may be called from any thread, and `readinto_at` from many at once, also while another
thread writes, commits, aborts, deletes, replaces or evicts.
Design: docs/design/stores.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daramjwee.model import Metadata


class Usage(NamedTuple):
    """What a store holds now. `bytes` counts committed bodies and stagings, `capacity` is their limit; `entries` counts what can be
    read, `max_entries` is its limit, if there is one. `stagings`: being written; `evictions`: entries that made room so far."""

    bytes: int
    entries: int
    capacity: int
    max_entries: int | None
    stagings: int
    evictions: int


class Entry(Protocol):
    """A published, complete, immutable object, open for reading until `close`.

    The store promises: it stays readable until closed, when it is replaced, deleted or evicted meanwhile too.
    The caller promises: it is closed once; closing twice is allowed and does nothing.

    Optional members, looked up with `getattr`:
    `fileno() -> int`: a descriptor of a file whose bytes [0, size) are the body, all verified or to be taken
    as they are; `io.UnsupportedOperation` when the body has not been verified yet.
    `path -> str`: a plain file with exactly the body, readable until the entry closes.
    `verify() -> None`: read and check whatever has not been checked; raises `CorruptEntry`.
    `peek_at(offset, size) -> bytes`: the same bytes as `readinto_at` gives, without copying where it can.
    """

    @property
    def metadata(self) -> Metadata: ...

    @property
    def size(self) -> int: ...

    def readinto_at(self, offset: int, view: memoryview, /) -> int:
        """Fill `view` from `offset` on: exactly min(len(view), size - offset) bytes, 0 at or past the end.

        Raises `CorruptEntry` when the stored bytes are not what was committed (none of the damaged bytes are
        handed out), `StoreError` when the tier fails, `Closed` after `close`.
        """
        ...

    def close(self) -> None:
        """Read no more; what the entry holds is free again."""
        ...


class Staging(Protocol):
    """An object being written. Readable up to what has been written, by any number of threads.

    The store promises: after `abort`, or a process that dies, nothing of it is ever visible; a staging that is lost
    without an end (garbage collected) is as if aborted, and what was reserved for it is free again.
    The caller promises: one thread writes at a time; it ends it with `commit` or `abort`.

    Optional member, looked up with `getattr`:
    `peek_at(offset, size) -> bytes`: the same bytes as `readinto_at` gives, without copying where it can.
    """

    @property
    def written(self) -> int:
        """Bytes written so far; all of them can be read."""
        ...

    def write(self, data: memoryview | bytes, /) -> None:
        """Append all of `data`; the caller may reuse its memory afterwards (immutable `bytes` may be kept).

        Raises `LimitExceeded` when the store cannot hold that much, `StoreError` when it fails. Either way
        what was written before stays readable, and the staging can only be aborted.
        """
        ...

    def readinto_at(self, offset: int, view: memoryview, /) -> int:
        """Fill `view` from `offset` on with what is written: min(len(view), written - offset) bytes. `Closed` after `abort`."""
        ...

    def commit(self, metadata: Metadata | None = None, *, guard: Callable[[], bool] | None = None) -> Entry | None:
        """Publish atomically, replacing what the key had; returns the open entry, which the caller closes.

        `metadata` replaces what `stage` was given (its size is always the bytes written). `guard` is asked at
        the instant of publication, under the store's lock, so it must be quick and take no lock of a cache;
        when it says False nothing is published and the answer is None. On a `StoreError` nothing is published
        and what the key had before stays. In both cases what is written stays readable until `abort`, which
        the caller still owes. Readers of the staging may go on with `readinto_at` after a `commit`, as long as
        the returned entry is open.
        """
        ...

    def abort(self) -> None:
        """Forget it and leave nothing. Allowed more than once, and does nothing after `commit`."""
        ...


class Store(Protocol):
    """One tier: keeps entries and streams them back.

    The store promises: absence is an answer (None), a failure raises `StoreError`; capacity in bytes is never
    exceeded, stagings included, and room is made by evicting committed entries.
    The caller promises: keys are valid (`daramjwee.model.check_key`); entries are closed, stagings ended.

    Optional members, looked up with `getattr`:
    `name -> str`: how messages and statistics call it. `max_object_size -> int`: larger objects are refused.
    `largest_fill -> int`: larger streams had better go to a lower tier (memory says an eighth of itself).
    `attach(*, ledger, observer, clock)`: called once by the cache that uses it. `restamp(key, metadata, *,
    guard=None) -> bool`: give the committed entry of the key new metadata, same bytes (False when there is none
    or the guard says so).
    `closed -> bool`: a closed store is refused by a new cache. `in_use: bool`: set by the cache that uses it; another
    one refuses it then.
    `plain_files -> bool`: whether its entries have a `path`. `hot(key)`: memory only; see `MemoryStore`.
    """

    def open(self, key: str) -> Entry | None:
        """The committed entry of `key`, which the caller closes; None when there is none. `StoreError` when the tier fails."""
        ...

    def stage(self, key: str, metadata: Metadata) -> Staging:
        """Begin an object under `key`. A `metadata.size` that is known is reserved at once.

        Raises `LimitExceeded` when an object of that size can never fit, `StoreError` when the tier fails.
        """
        ...

    def delete(self, key: str, *, guard: Callable[[], bool] | None = None) -> bool:
        """Forget the `key`; True if it was there. Open entries of it stay readable.

        `guard` as in `Staging.commit`: when it says False nothing is deleted.
        """
        ...

    def stat(self, key: str) -> Metadata | None:
        """What `open` would find under `key`, without opening it and without counting as a use."""
        ...

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Committed keys that start with `prefix`, in no order; a snapshot."""
        ...

    def usage(self) -> Usage:
        """What is held now."""
        ...

    def close(self) -> None:
        """Release everything; open entries and stagings end. Later calls raise `Closed`."""
        ...
