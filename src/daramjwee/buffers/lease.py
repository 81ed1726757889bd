"""Leases: buffer memory on loan.

Invariant: a chunk is in exactly one place: free, leased, or in quarantine because somebody kept a view of it. Its
memory is handed out again only when no view of it is left.
Threads: one thread uses a lease at a time; `release` may come from any thread, once, and never blocks.
Design: docs/design/memory.md
"""

from __future__ import annotations

import sys
import warnings
from sys import getrefcount
from typing import TYPE_CHECKING

from daramjwee.errors import LeaseError
from daramjwee.units import format_size

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from daramjwee.buffers.arenas import Chunk


def _count_in_slot() -> int:
    class Holder:
        __slots__ = ("array",)

    holder = Holder()
    holder.array = object()  # type: ignore[attr-defined]  # a slot, which mypy does not see here
    return getrefcount(holder.array)  # type: ignore[attr-defined]  # as above


# `getrefcount(chunk.array)` when only the chunk refers to it: its slot, and what the call itself holds. Found out,
# because releases of Python count the latter differently.
ALONE = _count_in_slot()


class Lease:
    """Memory on loan until `release`, or the end of a `with` block.

    `view`: a writable memoryview of exactly `size` bytes, page-aligned; its content at first is whatever the last
    borrower left. Release it once: a second `release`, or `view` after it, raises `LeaseError`. (The end of a
    `with` block after an early release does nothing.) A slice of `view` that is kept beyond the release stays as
    it is, its memory is then not reused before the slice is gone.
    """

    __slots__ = ("__weakref__", "_chunk", "size", "view")

    view: memoryview

    def __init__(self, chunk: Chunk, size: int) -> None:
        self._chunk: Chunk | None = chunk
        self.size = size
        self.view = memoryview(chunk.array).cast("B")[:size]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        chunk = self._chunk
        if chunk is None:
            return
        # The same as `release`, written out: a call costs a tenth of the whole lease.
        view = self.view
        try:
            del self.view
        except AttributeError:
            return
        self._chunk = None
        try:
            view.release()
        except BufferError:
            pass
        chunk.puts += 1
        if getrefcount(chunk.array) == ALONE:
            chunk.free.append(chunk)
            if not chunk.home.alert:
                return
        else:
            chunk.home.suspects.append(chunk)
        chunk.home.attend()

    def release(self) -> None:
        """Give the memory back. `LeaseError` when that was done before."""
        view = self.view
        try:
            # Of two threads that release at once, exactly one gets past this line.
            del self.view
        except AttributeError:
            raise self._gone() from None
        chunk = self._chunk
        assert chunk is not None
        self._chunk = None
        try:
            view.release()
        except BufferError:
            pass  # something was made over the view itself: it counts as a survivor below
        chunk.puts += 1
        if getrefcount(chunk.array) == ALONE:
            chunk.free.append(chunk)
            if not chunk.home.alert:
                return
        else:
            chunk.home.suspects.append(chunk)
        chunk.home.attend()

    @property
    def released(self) -> bool:
        return self._chunk is None

    def __getattr__(self, name: str) -> memoryview:
        # Reached only for what is not there: `view`, after the release.
        if name == "view":
            raise self._gone()
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _gone(self) -> LeaseError:
        return LeaseError(
            f"this lease of {format_size(self.size)} was released before: its memory may belong to somebody else now; "
            "acquire a new lease"
        )

    def __del__(self) -> None:
        chunk = getattr(self, "_chunk", None)  # missing when the making of the lease was interrupted
        if chunk is None:
            return
        self._chunk = None
        home = chunk.home
        chunk.puts += 1
        home.lost.append(chunk)
        home.alert = True
        if not home.orphaned and not sys.is_finalizing():
            warnings.warn(
                f"a lease of {format_size(self.size)} was lost without release{chunk.place_text()}; its memory was "
                "taken back: release it, best with `with`",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __repr__(self) -> str:
        return f"<Lease of {format_size(self.size)}{', released' if self._chunk is None else ''}>"
