"""Streams: what a caller of `open` holds, over a tier's entry or over a running flight.

Invariant: a stream gives exactly the bytes of its range, or raises; it never just ends early.
Threads: one thread uses a stream at a time; different streams are independent.
Design: docs/design/fills.md
"""

from __future__ import annotations

import io
import operator
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, Protocol

from daramjwee.buffers import send_file
from daramjwee.errors import Closed, CorruptEntry, StoreError, shorten
from daramjwee.fills.plain import PlainFile
from daramjwee.fills.reader import FlightReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from _typeshed import WriteableBuffer

    from daramjwee.buffers import BufferPool
    from daramjwee.model import Fetcher, Metadata, Status
    from daramjwee.stores.protocol import Entry


class _Forks:
    """How often this process came out of a fork: asking for its id at every read would be a call of the system."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def in_child(self) -> None:
        self.count += 1


forks = _Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forks.in_child)

# What iteration hands out at a time: large enough for speed, small enough for many readers at once.
ITERATION_BYTES = 64 * 1024
# A stream whose tier failed goes on from elsewhere; so often, then the error comes out.
MOST_MENDS = 4
# A read of unknown length grows by such steps.
STEP_BYTES = 256 * 1024


class Source(Protocol):
    """Where a stream's bytes come from: an `Entry`, or a `FlightReader`."""

    @property
    def size(self) -> int | None: ...

    def readinto_at(self, offset: int, view: memoryview, /) -> int: ...

    def close(self) -> None: ...


class Owner(Protocol):
    """What a stream asks of whoever made it."""

    @property
    def pool(self) -> BufferPool:
        """For copies in user space."""
        ...

    def mend(
        self, key: str, offset: int, given: Metadata | None, fetch: Fetcher | None, error: StoreError
    ) -> tuple[Source, Metadata] | None:
        """A source to go on from at `offset` when the tier failed with `error`, or None. `given` describes the
        bytes that were handed out already (None: none were)."""
        ...

    def locate(self, key: str) -> Entry | None:
        """An open entry of the key that is a plain file, or None."""
        ...


class CacheStream(io.BufferedIOBase):
    """The bytes of one object, or of the range [start, stop) of it, read-only.

    Position 0 is the first byte of the range; `size` is the bytes of the range (None while not known).
    `status` says how the open was answered, `metadata` what is known of the whole object. Close it, best
    with `with`: a stream that is lost unclosed is a `ResourceWarning` naming the place that opened it.
    """

    # Slots, though the base has a dict: filling that took longer than all else an open of a warm file does in Python.
    __slots__ = (
        "_direct", "_fetch", "_forks", "_given", "_key", "_mends", "_opened_at", "_owner", "_plain", "_pos", "_progress",
        "_readinto_at", "_source", "_start", "_stop", "metadata", "status",
    )  # fmt: skip

    def __init__(
        self,
        source: Source,
        key: str,
        status: Status,
        metadata: Metadata,
        owner: Owner,
        fetch: Fetcher | None = None,
        opened_at: tuple[str, int] | None = None,
        start: int = 0,
        stop: int | None = None,
        progress: Callable[[int, int | None], object] | None = None,
    ) -> None:
        self._source: Source | None = source
        self._readinto_at = source.readinto_at
        whole = stop is None and progress is None and not isinstance(source, FlightReader)
        self._direct = self._readinto_at if whole else None
        self._key = key
        self.status = status
        self.metadata = metadata
        self._owner = owner
        self._fetch = fetch
        self._opened_at = opened_at
        self._start = self._pos = start
        self._stop = stop
        self._progress = progress
        self._forks = forks.count
        self._plain: PlainFile | None = None
        self._given = False
        self._mends = 0

    # -- what it is --------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        return self._key

    @property
    def size(self) -> int | None:
        """Bytes in the range of this stream; None while the object's size is not known."""
        end = self._end()
        return None if end is None else max(0, end - self._start)

    def reads_from(self, source: object) -> bool:
        """Whether the bytes come from `source` (which this stream then closes)."""
        return self._source is source

    def _end(self) -> int | None:
        """Offset in the object at which this stream ends."""
        total = self._total()
        if total is None:
            return self._stop if self._stop is not None and self._stop <= self._start else None
        return total if self._stop is None else min(self._stop, total)

    def _total(self) -> int | None:
        total = self.metadata.size
        return total if total is not None or self._source is None else self._source.size

    def readable(self) -> bool:
        self._check()
        return True

    def seekable(self) -> bool:
        source = self._check()
        return source.seekable if isinstance(source, FlightReader) else True

    def tell(self) -> int:
        self._check()
        return self._pos - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to `offset` bytes from the start (`whence` 0), from here (1) or from the end (2); past what has arrived the
        next read waits. Raises `io.UnsupportedOperation` while the size is not known or bytes pass through a window,
        `ValueError` for a negative position."""
        if not self.seekable():
            raise io.UnsupportedOperation(
                f"the stream of {shorten(self._key)} cannot seek: its size is unknown or no tier has room for it"
            )
        offset = operator.index(offset)
        end = self._end()
        assert end is not None
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._pos, os.SEEK_END: max(end, self._start)}.get(whence)
        if base is None:
            raise ValueError(f"whence must be 0, 1 or 2, not {whence!r}")
        if base + offset < self._start:
            raise ValueError(f"negative position {base + offset - self._start}")
        self._pos = base + offset
        return self._pos - self._start

    # -- reading -----------------------------------------------------------------------------------------

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill `buffer`; fewer bytes only at the end of the range."""
        view = memoryview(buffer)
        if view.format != "B" or view.ndim != 1:
            view = view.cast("B")
        direct = self._direct
        if direct is not None and self._forks == forks.count:
            # An entry gives all that fits at once: the short way for the read that matters most. Between large
            # copies every Python frame on it is a cold one.
            try:
                count = direct(self._pos, view)
            except StoreError as error:
                if not self._mend(error):
                    raise
            else:
                if count:
                    self._pos += count
                    self._given = True
                    return count
        return self._fill(view)

    def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """Read what is there into `buffer`, waiting only for the first byte; 0 at the end."""
        view = memoryview(buffer)
        if view.format != "B" or view.ndim != 1:
            view = view.cast("B")
        return self._read_some(view, least=1)

    def read(self, size: int | None = -1, /) -> bytes:
        """Exactly `size` bytes, fewer only at the end of the range; all that are left when None or negative."""
        self._check()
        end = self._end()
        if size is None or size < 0:
            if end is None:
                return self._read_unsized()
            size = max(0, end - self._pos)
        elif end is not None:
            size = max(0, min(size, end - self._pos))
        if size == 0:
            return self._at_known_end(end)
        peek = getattr(self._source, "peek_at", None)
        if peek is not None:
            try:
                data: bytes = peek(self._pos, size)
            except StoreError as error:
                if not self._mend(error):
                    raise
            else:
                self._advance(len(data))
                return data
        if self._pos + size == end:
            rest = self.take_rest()
            if rest is not None:
                return rest
        data_out = bytearray(size)
        with memoryview(data_out) as view:
            count = self._fill(view)
        return bytes(data_out) if count == size else bytes(data_out[:count])

    def read1(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes of what is there, waiting only for the first; b"" at the end."""
        self._check()
        if size is None or size < 0:
            size = ITERATION_BYTES
        end = self._end()
        if end is not None:
            size = max(0, min(size, end - self._pos))
        if size == 0:
            return self._at_known_end(end)
        data = bytearray(size)
        with memoryview(data) as view:
            count = self._read_some(view, least=1)
        return bytes(data[:count]) if count != size else bytes(data)

    def __iter__(self) -> Self:
        self._check()
        return self

    def __next__(self) -> bytes:
        """The next chunk, at most 64 KiB, as soon as there is one."""
        data = self.read1(ITERATION_BYTES)
        if not data:
            raise StopIteration
        return data

    def take_rest(self, most: int | None = None) -> bytes | None:
        """Internal: all that is left of a fill, once it is over, without the copies that reading along would make. None:
        there is more than `most`, or it has to be read piece by piece."""
        source = self._check()
        if not isinstance(source, FlightReader) or self._stop is not None or self._progress is not None:
            return None
        rest = source.take_rest(self._pos, most)
        if rest is not None:
            self._advance(len(rest))
        return rest

    def _read_unsized(self) -> bytes:
        rest = self.take_rest()
        if rest is not None:
            return rest
        pieces = []
        while piece := self.read1(STEP_BYTES):
            pieces.append(piece)
        return b"".join(pieces)

    def _at_known_end(self, end: int | None) -> bytes:
        # An empty object, or a reader at its end, still learns here how the fill came out.
        if end is not None and self._pos >= end and isinstance(self._source, FlightReader) and self._stop is None:
            self._source.readinto_at(self._pos, memoryview(bytearray(1)))
        return b""

    def _fill(self, view: memoryview) -> int:
        """Read until `view` is full or the range ends."""
        want = len(view)
        done = self._read_some(view, least=want)
        while 0 < done < want:
            count = self._read_some(view[done:], least=want - done)
            if count == 0:
                break
            done += count
        return done

    def _read_some(self, view: memoryview, *, least: int) -> int:
        """One read from the source: what is there, and at least `least` bytes where it can give so many at once."""
        source = self._source
        if source is None or self._forks != forks.count:
            source = self._check()
        pos = self._pos
        end = self._stop
        total = self.metadata.size or self._total()
        if total is not None and (end is None or total < end):
            end = total
        if end is not None and len(view) > end - pos:
            view = view[: max(0, end - pos)]
            least = min(least, len(view))
        if not len(view):
            return len(self._at_known_end(end))
        try:
            if isinstance(source, FlightReader):
                count = source.readinto_at(pos, view, least)
            else:
                count = self._readinto_at(pos, view)
        except StoreError as error:
            if not self._mend(error):
                raise
            return self._read_some(view, least=least)
        if count == 0 and total is not None:
            raise CorruptEntry(
                f"{shorten(self._key)} ended at byte {pos:,} of {total:,}; open it again to fetch it anew"
            )
        self._advance(count)
        return count

    def _advance(self, count: int) -> None:
        self._pos += count
        self._given = True
        if self._progress is not None:
            self._progress(self._pos - self._start, self.size)

    def _mend(self, error: StoreError) -> bool:
        """The tier failed at the current position: go on from the origin, if that has the same object. False: raise the
        error (not here: a frame that has an error and is in its traceback keeps the caller's memory from going back)."""
        self._mends += 1
        if self._mends > MOST_MENDS:
            return False
        mended = self._owner.mend(self._key, self._pos, self.metadata if self._given else None, self._fetch, error)
        if mended is None:
            return False
        old = self._source
        self._source, self.metadata = mended
        self._readinto_at = self._source.readinto_at
        self._direct = None
        if old is not None:
            old.close()
        return True

    # -- copying out -------------------------------------------------------------------------------------

    def copy_to(self, dst: Any) -> int:
        """Write everything from the current position on to `dst` (a writable object, or a plain socket); bytes
        written. By the kernel alone where the bytes lie in a verified file and `dst` has a descriptor."""
        source = self._check()
        done = 0
        fileno = getattr(source, "fileno", None)
        end = self._end()
        if fileno is not None and end is not None and end > self._pos:
            try:
                descriptor = fileno()
            except io.UnsupportedOperation:
                descriptor = -1  # not verified yet: user space, below, checks every block
            if descriptor >= 0:
                done = send_file(descriptor, self._pos, end - self._pos, dst)
                if done:
                    self._advance(done)
        if end is None or self._pos < end:
            # Past the gate: a reader goes at the pace of its fill and of its sink, and would hold a place for as long.
            known = None if end is None else end - self._pos
            done += self._owner.pool.copy(self, dst, known, priority=None).bytes
        elif not done:
            self._at_known_end(end)  # nothing to write, but how the fill came out is still to be said
        return done

    def path(self) -> str:
        """A plain file that has exactly the object's bytes, kept until this stream closes.

        Waits for a running fill to be published, and tells `progress` what of the object has arrived.
        `io.UnsupportedOperation` where no tier keeps plain files.
        """
        source = self._check()
        entry: Any = source
        known = self.metadata
        if isinstance(source, FlightReader):
            self._follow(source)
            entry = source.wait_entry()
            known = source.flight.metadata or known
        if getattr(entry, "path", None) is None:
            if self._plain is None:
                self._plain = PlainFile(self._owner.locate, self._key)
            entry = self._plain.find(known)
        if entry is None or getattr(entry, "path", None) is None:
            raise io.UnsupportedOperation(f"no tier has {shorten(self._key)} as a plain file; add a FileStore")
        verify = getattr(entry, "verify", None)
        if verify is not None:
            verify()
        path = str(os.fspath(entry.path))
        if self._progress is not None:
            self._progress(entry.size, entry.size)
        return path

    def _follow(self, reader: FlightReader) -> None:
        """Tell `progress` what of the object arrives, but for the end; the position stays."""
        done, total = STEP_BYTES, reader.size
        while self._progress is not None and (total is None or done < total) and reader.wait_arrived(done - 1):
            self._progress(done, total)
            done += STEP_BYTES

    def give_away(self) -> tuple[Source, Metadata]:
        """Give the source away: this stream is closed then, the source is not."""
        source = self._check()
        self._source = None
        self.close()
        return source, self.metadata

    # -- the end -----------------------------------------------------------------------------------------

    def _check(self) -> Source:
        if self._source is None:
            raise Closed(f"the stream of {shorten(self._key)} is closed")
        if self._forks != forks.count:
            raise Closed(f"the stream of {shorten(self._key)} was opened before a fork; open it again in this process")
        return self._source

    @property
    def closed(self) -> bool:
        return self._source is None

    def close(self) -> None:
        source, self._source, self._direct = self._source, None, None
        if source is not None and self._forks == forks.count:
            if self._plain is not None:
                self._plain.close()
            source.close()

    def __enter__(self) -> Self:
        if self._source is None:
            self._check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        source = getattr(self, "_source", None)
        if source is None:
            return
        lost = repr(self)
        self._source = None
        place = "" if self._opened_at is None else " (opened at {}:{})".format(*self._opened_at)
        # Closing an entry may take a lock of its store, which this very thread may hold while garbage is collected;
        # an entry that is dropped lets go of its file by itself.
        if self._forks == forks.count and isinstance(source, FlightReader):
            source.lost()
        if not sys.is_finalizing():
            warnings.warn(f"unclosed {lost}{place}", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        state = "closed" if self._source is None else f"at {self._pos - self._start} of {self.size}"
        return f"<CacheStream {shorten(self._key)} {self.status.name} {state}>"
