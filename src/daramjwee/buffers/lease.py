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
from typing import TYPE_CHECKING, NoReturn

from daramjwee.buffers.arenas import ALONE
from daramjwee.errors import LeaseError
from daramjwee.units import format_size

if TYPE_CHECKING:
    from types import CodeType, TracebackType
    from typing import Self

    from daramjwee.buffers.arenas import Chunk

# With full leak detection, so many frames of who acquired a lease are kept.
STACK_FRAMES = 8


class Lease:
    """Memory on loan until `release`, or the end of a `with` block.

    `view`: a writable memoryview of exactly `size` bytes, page-aligned; its content at first is whatever the last
    borrower left. Release it once: a second `release`, or `view` after it, raises `LeaseError`. (The end of a
    `with` block after an early release does nothing.) A slice of `view` that is kept beyond the release stays as
    it is, its memory is then not reused before the slice is gone.

    In debug mode (`LeakDetection.FULL`, or Python's development mode) memory is filled with 0xDB when it is free
    again, so that whoever goes on using it by its address, behind Python's back, sees it at once.
    """

    __slots__ = ("_chunk", "_view", "size")

    # Behind a property: a `__getattr__` for what was released would make every access to every field slow (25 ns each).
    _chunk: Chunk | None
    _view: memoryview
    size: int

    @property
    def view(self) -> memoryview:
        try:
            return self._view
        except AttributeError:
            raise self._gone() from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The same as `release`, written out: a call costs a tenth of the whole lease.
        try:
            view = self._view
            # Of two threads that release at once, exactly one gets past this line.
            del self._view
        except AttributeError:
            return
        chunk = self._chunk
        self._chunk = None
        try:
            view.release()
        except BufferError:
            pass
        chunk.puts += 1  # type: ignore[union-attr]  # None only without a view
        if getrefcount(chunk.memory) == ALONE:  # type: ignore[union-attr]  # as above
            chunk.free.append(chunk)  # type: ignore[union-attr, arg-type]  # as above
            if not chunk.home.alert:  # type: ignore[union-attr]  # as above
                return
        else:
            chunk.home.suspects.append(chunk)  # type: ignore[union-attr, arg-type]  # as above
        chunk.home.attend()  # type: ignore[union-attr]  # as above

    def release(self) -> None:
        """Give the memory back. `LeaseError` when that was done before."""
        try:
            view = self._view
            del self._view
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
        if getrefcount(chunk.memory) == ALONE:
            chunk.free.append(chunk)
            if not chunk.home.alert:
                return
        else:
            chunk.home.suspects.append(chunk)
        chunk.home.attend()

    @property
    def released(self) -> bool:
        return self._chunk is None

    def _gone(self) -> LeaseError:
        return LeaseError(
            f"this lease of {format_size(self.size)} was released before: its memory may belong to somebody else now; "
            "acquire a new lease"
        )

    def __del__(self) -> None:
        # Every lease ends here: no call for those that were released, it costs a tenth of the whole.
        try:
            if self._chunk is None:
                return
        except AttributeError:
            return  # its making was interrupted
        self._lose()

    def _lose(self) -> None:
        """Have the memory taken back, and say so; called by a finalizer."""
        try:
            chunk = self._chunk
        except AttributeError:
            return  # the making of the lease was interrupted
        if chunk is None:
            return
        self._chunk = None
        home = chunk.home
        # Before others can have the chunk, and with it a place of their own.
        place, stack = chunk.place_at, chunk.stack_at
        chunk.puts += 1
        home.lost.append(chunk)
        home.alert = True
        if not home.orphaned and not sys.is_finalizing():
            warnings.warn(
                f"a lease of {format_size(self.size)} was lost without release{place and f' (acquired at {place})'}; its memory was "
                f"taken back: release it, best with `with`{stack}",
                ResourceWarning,
                stacklevel=3,
                source=self,
            )

    def __copy__(self) -> NoReturn:
        raise TypeError(
            "a lease cannot be copied: its memory is on loan once; acquire another, or copy its view's bytes"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a lease cannot be pickled: its memory belongs to this process; send its view's bytes")

    def __replace__(self, **changes: object) -> NoReturn:
        raise TypeError("a lease cannot be changed: acquire another")

    def __repr__(self) -> str:
        return f"<Lease of {format_size(self.size)}{', released' if self._chunk is None else ''}>"


def record_place(chunk: Chunk, *, whole: bool) -> None:
    """Note who acquires the chunk, by the first frame outside of here; `whole`: with the frames below it. Called by what is
    called when a lease is made."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("daramjwee.buffers"):
        frame = frame.f_back
    code, line = frame.f_code, frame.f_lineno
    stack: list[tuple[CodeType, int]] = []
    caller = frame if whole else None
    while caller is not None and len(stack) < STACK_FRAMES:
        stack.append((caller.f_code, caller.f_lineno))
        caller = caller.f_back
    chunk.place = (chunk.uses, code, line, tuple(stack))
