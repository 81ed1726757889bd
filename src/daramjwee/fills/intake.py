"""The intake: what a flight gets from its origin, piece by piece, held against what was announced.

Invariant: bytes that `pull` gave are no more than were announced; `check_whole` refuses fewer, and others than the
digest says. Memory is borrowed before anything is held that others wait for, and given back once.
Threads: the holder of the pump role; the end may come from any thread, when nobody pumps. `asking` may be read by any.
Design: docs/design/fills.md
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.errors import DaramjweeError, FetchError, shorten
from daramjwee.fills.window import PIECE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from daramjwee.buffers import BufferPool, Lease
    from daramjwee.fills.body import BodyReader
    from daramjwee.model import Metadata
    from daramjwee.stores.protocol import Staging


class Fill(NamedTuple):
    """What a started fill consists of. `guard` is asked at publication; `staging` None: windowed from the start."""

    body: BodyReader
    metadata: Metadata
    staging: Staging | None
    guard: Callable[[], bool] | None = None


class Intake:
    """The origin's side of one flight."""

    __slots__ = ("_body", "_digest", "_hash", "_key", "_lease", "_pool", "_size", "asking", "pulls")

    def __init__(self, key: str, pool: BufferPool) -> None:
        self.asking: int | None = None  # the thread that is inside the origin's code now
        self.pulls = 0
        self._key = key
        self._pool = pool
        self._body: BodyReader | None = None
        self._lease: Lease | None = None
        self._size: int | None = None  # announced
        self._digest: str | None = None  # announced
        self._hash: Any = None

    def borrow(self, size: int | None) -> None:
        """Get the memory that pieces pass through. Before anything else is held that others wait for."""
        piece = PIECE_BYTES if size is None else min(max(size, 1), PIECE_BYTES)
        self._lease = self._pool.acquire(piece, priority=None)  # past the gate: for as long as the origin takes

    def ask(self, begin: Callable[[], Fill]) -> Fill:
        """Ask the origin by `begin`; the body is closed here, whatever happens from now on."""
        self.asking = get_ident()
        fill = begin()
        self.asking = None
        self._body = fill.body
        return fill

    def expect(self, metadata: Metadata) -> None:
        """Get ready for what `metadata` announces."""
        self._size, self._digest = metadata.size, metadata.digest
        if metadata.digest is not None:
            self._hash = _hasher(metadata.digest)
        if self._lease is None:
            self.borrow(metadata.size)

    def pull(self, head: int, short: bool) -> memoryview | bytes:
        """The piece that comes after the first `head` bytes, empty at the end. `short`: the piece before it is still to be
        read from the lease, and only the end is expected."""
        assert self._body is not None
        assert self._lease is not None
        self.pulls += 1
        self.asking = get_ident()
        try:
            # What is still to be read from the lease must not be overwritten by the pull that sees the end.
            piece = self._body.pull(memoryview(bytearray(1)) if short else self._lease.view)
        except DaramjweeError:
            raise
        except Exception as error:
            raise FetchError(
                f"the origin failed while sending {shorten(self._key)}, after {head:,} bytes: "
                f"{type(error).__name__}: {error}; nothing was kept, fetch it again"
            ) from error
        finally:
            self.asking = None
        if self._size is not None and head + len(piece) > self._size:
            raise FetchError(
                f"the origin sent more than the {self._size:,} bytes it announced for {shorten(self._key)}; "
                "nothing was kept"
            )
        if self._hash is not None:
            self._hash.update(piece)
        return piece

    def check_whole(self, head: int) -> None:
        """The body ended after `head` bytes: raise where that is not what was announced."""
        if self._size is not None and head != self._size:
            raise FetchError(
                f"the origin ended after {head:,} of the {self._size:,} bytes it announced for "
                f"{shorten(self._key)}; nothing was kept, fetch it again"
            )
        if self._hash is not None:
            algorithm, _, wanted = (self._digest or "").partition(":")
            seen = self._hash.hexdigest()
            if seen != wanted.lower():
                raise FetchError(
                    f"{shorten(self._key)} has {algorithm} {seen}, but {wanted} was announced; nothing was kept"
                )

    def return_lease(self) -> None:
        """Give back the memory that pieces passed through."""
        body = self._body
        if body is not None:
            # What it gave last is a view of the lease: with it alive the chunk would come back into quarantine, and the
            # next lease would have to look for it under a lock.
            body.let_go()
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def close(self) -> None:
        """Give back the memory and end the body. Once more does nothing."""
        self.return_lease()
        body, self._body = self._body, None
        if body is not None:
            body.close()


def _hasher(digest: str) -> Any:
    import hashlib

    return hashlib.new(digest.partition(":")[0], usedforsecurity=False)
