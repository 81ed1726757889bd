"""One copy on its way: how far it is, who is told or asked meanwhile, and the loops that move bytes in user space.

Invariant: what was read is written before more is read. Whatever ends a copy, `done` is what the sink is known to have
taken, and a source that can seek stands right behind those bytes.
Threads: a copy runs in its caller's thread.
Design: docs/design/memory.md
"""

from __future__ import annotations

import errno
import io
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from daramjwee.buffers.endpoints import check_count, exact_bytes, not_ready, read_of, taken_before
from daramjwee.errors import LeaseError
from daramjwee.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from daramjwee.buffers.endpoints import Data, ReadInto, Sink, Write

# How often `progress` is called at most: as often as an eye can follow. So many bytes instead would be too often in a
# fast copy, and too rarely in a slow one.
PROGRESS_SECONDS = 0.05
# What is moved between two looks at `progress` and `cancel` where no chunk sets the pace.
STEP_BYTES = 8 * MIB
# No end in sight: more than any object has.
ENDLESS = 1 << 62


class Room(Protocol):
    """Memory to copy through: a lease, or a chunk of one's own."""

    @property
    def view(self) -> memoryview: ...

    @property
    def size(self) -> int: ...


class Copy:
    """One running copy. `done`: bytes the sink has taken; `chunks`: pieces they came in; `fallback`: why what was
    configured could not serve, None when it could; `plain`: nobody is told or asked, and nothing limits it."""

    __slots__ = ("_due", "_told", "cancel", "chunks", "done", "fallback", "limit", "plain", "progress", "size")

    def __init__(
        self,
        size: int | None,
        limit: int | None,
        progress: Callable[[int, int | None], object] | None,
        cancel: Callable[[], object] | None,
    ) -> None:
        self.size = size
        self.limit = ENDLESS if limit is None else limit
        self.progress = progress
        self.cancel = cancel
        self.done = 0
        self.chunks = 0
        self.fallback: str | None = None
        self.plain = progress is None and cancel is None and limit is None
        if progress is not None:
            self._told = -1
            self._due = monotonic() + PROGRESS_SECONDS

    @property
    def over(self) -> bool:
        """Whether the limit is reached or the caller wants no more."""
        return self.done >= self.limit or (self.cancel is not None and bool(self.cancel()))

    @property
    def step(self) -> int:
        """How much may be moved between two looks at `progress` and `cancel`."""
        return ENDLESS if self.progress is None and self.cancel is None else STEP_BYTES

    def tell(self) -> None:
        """Tell how far the copy is, not too often."""
        if self.progress is not None and monotonic() >= self._due:
            self._told = self.done
            self.progress(self.done, self.size)
            self._due = monotonic() + PROGRESS_SECONDS

    def tell_end(self) -> None:
        """Tell the final count, unless that was told already."""
        if self.progress is not None and self._told != self.done:
            self.progress(self.done, self.size)

    # -- the loops ---------------------------------------------------------------------------------------

    def flat(self, room: Room, readinto: ReadInto, src: Any, write: Write, size: int) -> None:
        """`through` with nobody to tell or to ask, no limit, and a sink that is known to keep nothing. `size`: where the
        source ends, as the system said just now; a single read that brings all of it need not be followed by one that
        brings nothing (0: it did not say)."""
        view, most = room.view, room.size
        while True:
            try:
                count = readinto(view)
            except BlockingIOError as error:
                raise self.blocked(error) from error
            if not count:
                break
            if not 0 < count <= most:
                raise bad_count(src, count, most)
            try:
                # No name for the slice: in the frames of an error it would keep the chunk in quarantine.
                taken = write(view if count == most else view[:count])
            except BaseException as error:
                self.refused(error, count, src)
                raise
            if taken == count:
                self.done += count
            else:
                with view[:count] as piece:
                    self.go_on(write, True, piece, taken, src)
            self.chunks += 1
            if count == size:
                return
        if count is None:
            raise self.blocked(None)

    def through(self, room: Room, readinto: ReadInto, src: Any, dst: Any, sink: Sink, size: int = 0) -> None:
        """Read into the chunk, write, again: until the end of the source, the limit, or a cancel. `size`: as in `flat`."""
        view, most = room.view, room.size
        watched = not self.plain
        wanted = most
        while not (watched and self.over):
            if watched:
                wanted = min(self.limit - self.done, most)
            window = view if wanted == most else view[:wanted]
            try:
                count = readinto(window)
            except BlockingIOError as error:
                raise self.blocked(error) from error
            finally:
                if window is not view:
                    _let_go(window)
            if not count:
                if count is None:
                    raise self.blocked(None)
                return
            if not 0 < count <= wanted:
                raise bad_count(src, count, wanted)
            piece = view[:count]
            try:
                self.deliver(sink, piece, src)
            finally:
                # Whoever kept it gets an error instead of the next chunk's bytes.
                try:
                    piece.release()
                except BufferError:
                    raise _kept(dst) from None
            self.chunks += 1
            if watched:
                self.tell()
            elif count == size:
                return

    def by_reads(self, most: int, src: Any, sink: Sink) -> None:
        """The same for a source that returns bytes of its own: no chunk is needed."""
        read = read_of(src)
        while not self.over:
            room = min(most, self.limit - self.done)
            try:
                data = read(room)
            except BlockingIOError as error:
                raise self.blocked(error) from error
            if not data:
                if data is None:
                    raise self.blocked(None)
                return
            if isinstance(data, str):
                raise TypeError(f"cannot copy from {type(src).__name__}: its read gave text, not bytes")
            if len(data) > room:
                raise ValueError(
                    f"read of {type(src).__name__} gave {exact_bytes(len(data))}, more than it was asked for"
                )
            self.deliver(sink, data, src)
            self.chunks += 1
            self.tell()

    def from_memory(self, src: io.BytesIO, sink: Sink) -> None:
        """Write the object's own memory: `getvalue` shares it, whatever the position."""
        position = src.tell()
        end = min(src.seek(0, io.SEEK_END), position + self.limit)
        src.seek(position)
        if position >= end:
            return
        whole, step = src.getvalue(), self.step
        while position < end and not self.over:
            stop = min(end, position + step)
            src.seek(stop)
            if stop - position == len(whole):
                self.deliver(sink, whole, src)
            else:
                with memoryview(whole)[position:stop] as part:
                    self.deliver(sink, part, src)
            position = stop
            self.chunks += 1
            self.tell()

    # -- what the sink takes -----------------------------------------------------------------------------

    def deliver(self, sink: Sink, data: Data, src: Any) -> None:
        """Write every byte of `data`, which was read from `src`."""
        try:
            taken = sink.write(data)
        except BaseException as error:
            self.refused(error, len(data), src)
            raise
        if taken == len(data) and type(taken) is int:
            self.done += taken
        else:
            self.go_on(sink.write, sink.none_blocks, data, taken, src)

    def go_on(self, write: Write, none_blocks: bool, data: Data, taken: Any, src: Any) -> None:
        """After a first write that answered `taken`: until every byte is written, each counted as it is taken."""
        left = len(data)
        with memoryview(data) as whole:
            try:
                while True:
                    if taken is None:
                        if none_blocks:
                            raise not_ready("sink")
                        taken = left
                    check_count(taken, left, len(data))
                    self.done += taken
                    left -= taken
                    if not left:
                        return
                    with whole[len(data) - left :] as rest:
                        taken = write(rest)
            except BaseException as error:
                self.refused(error, left, src)
                raise

    def refused(self, error: BaseException, unwritten: int, src: Any) -> None:
        """The sink failed with `unwritten` bytes of `src` in hand: where `src` can seek it is put where the sink
        stopped, so that the copy can be gone on with. Raises, if the sink would block, with how far the copy came."""
        blocks = isinstance(error, BlockingIOError)
        if blocks:
            taken = taken_before(error)
            self.done += taken
            unwritten -= taken
        rest = ""
        if unwritten and src is not None:
            seekable = getattr(src, "seekable", None)
            if seekable is not None and seekable():
                src.seek(-unwritten, io.SEEK_CUR)
            else:
                rest = f"{unwritten} more {'was' if unwritten == 1 else 'were'} read that the source cannot take back"
        if blocks:
            raise self.blocked(error, rest and f", and {rest}") from error
        if rest:
            error.add_note(rest)

    def blocked(self, error: BaseException | None, rest: str = "") -> BlockingIOError:
        """The error for an endpoint that is not ready: `characters_written` is all that was copied."""
        what = "the source has no bytes ready" if error is None else str(getattr(error, "strerror", None) or error)
        return BlockingIOError(
            errno.EAGAIN, f"the copy stopped after {exact_bytes(self.done)}{rest}: {what}", self.done
        )


def _let_go(window: memoryview) -> None:
    # Or whoever keeps an error of this copy keeps its frames, the window in them, and so the chunk in quarantine.
    try:
        window.release()
    except BufferError:
        pass  # the source kept something made over it: it counts as a survivor


def bad_count(src: Any, count: Any, room: int) -> ValueError:
    return ValueError(f"readinto of {type(src).__name__} said {count} for a view of {exact_bytes(room)}")


def _kept(dst: Any) -> LeaseError:
    return LeaseError(f"{type(dst).__name__}.write kept the memory it was given; it must copy what it keeps")
