"""The tee: a reader that writes to a sink what it hands to its caller.

Invariant: between calls the sink has exactly the bytes that were handed out. A read that raises has handed out nothing
and lost nothing: what it took from the source comes first in the next read, and the sink, which may have taken the
beginning of it, is not written that beginning twice.
Threads: one thread uses a tee at a time.
Design: docs/design/memory.md
"""

from __future__ import annotations

import io
import sys
import warnings
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from daramjwee.buffers.arguments import check_tee
from daramjwee.buffers.chunks import closed_error
from daramjwee.buffers.endpoints import exact_bytes, not_ready, read_of, readinto_of, socket_kind, socket_of
from daramjwee.buffers.holdings import Refused
from daramjwee.buffers.strategy import PLAIN, READINTO, SOCKET, select_strategy
from daramjwee.buffers.tee_sink import TeeSink, let_go
from daramjwee.errors import Closed
from daramjwee.units import MIB

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from daramjwee.buffers.endpoints import Data
    from daramjwee.buffers.lease import Lease
    from daramjwee.buffers.pool import BufferPool
    from daramjwee.units import Size

# What a search for a line's end looks at: most lines are shorter, and every look is a copy of so much.
PEEK_BYTES = 4096
# How plain files return bytes by one read. Where the caller wants no less than a chunk, that is a copy less.
FRESH_READS: dict[type, Any] = {io.BufferedReader: io.BufferedReader.read1, io.FileIO: io.FileIO.read}
# The most that is asked for so: a size may be said that is far more than there is.
MOST_FRESH = 4 * MIB


class TeeStats(NamedTuple):
    """What a tee did. `bytes`: handed out; `sink_bytes`: taken by the sink; `chunks`: reads of the source that brought
    bytes; `reused`: those of them into its chunk after the first; `elapsed`: seconds in the source and the sink;
    `sink_error`: what the sink failed with, if it did."""

    bytes: int
    sink_bytes: int
    chunks: int
    reused: int
    elapsed: float
    sink_error: BaseException | None


class ChunkedTeeReader(io.BufferedIOBase):
    """Reads `src` through one reused chunk, and writes to `sink` what it hands out, in the same call.

    A failing sink: with "raise" its error is raised by the read in which it happened, and by every later one, until
    `drop_sink` lets reading go on without it, at the exact byte; with "drop" that happens by itself. A sink that would
    block (`BlockingIOError`): with "raise" the next read goes on where it stopped; with "drop" it is dropped, because
    a reader does not wait for it. A failing source: what came before is handed out first, then its error is raised,
    once; the next read asks it again. A source that would block: a read hands out what has come, or raises
    `BlockingIOError` when nothing has; `readline` and iteration hand out whole lines only.

    `close` gives the chunk back and leaves `src` and `sink` open; what was not handed out is not written. The `pool`
    counts a tee once, at the end of the source or when it is closed, as one chunked operation.

    `size`: bytes that are expected (None: unknown), which choose the chunk. `on_sink_error`: "raise" or "drop".
    """

    def __init__(
        self,
        src: Any,
        sink: Any,
        pool: BufferPool,
        size: Size | None = None,
        *,
        on_sink_error: Literal["raise", "drop"] = "raise",
    ) -> None:
        self._lease: Lease | None = None
        self._ended = False
        self._pulled = self._given = self._chunks = self._chunk_reads = 0
        expected = check_tee(size, on_sink_error)
        if pool.closed:
            raise closed_error()
        self._readinto = readinto_of(src)
        fresh = FRESH_READS.get(type(src))
        self._read_fresh = fresh and fresh.__get__(src, type(src))  # without the type, CPython 3.12 and 3.13 crash
        self._read = None if self._readinto is not None else read_of(src)
        self._sink = TeeSink(sink, drop=on_sink_error == "drop")
        self._counted = False
        self._fallen_back = False
        self._pool = pool
        self._kinds = (
            SOCKET if socket_of(src, exact=False) is not None else PLAIN if self._readinto is None else READINTO,
            PLAIN if (found := socket_of(sink, exact=False)) is None else socket_kind(found),
        )
        self._expected = expected
        self._chunk_bytes = self._choose_chunk(expected)
        # What was read and not handed out: this part of the chunk, or of bytes that were put back; then, of the chunk.
        self._held: Data = b""
        self._start = self._stop = 0
        self._behind: tuple[Data, int, int] | None = None
        self._source_error: BaseException | None = None
        self._elapsed = 0.0

    # -- reading -----------------------------------------------------------------------------------------

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Exactly `size` bytes, all that are left when None or negative; fewer only at the end, or before an error of
        the source."""
        if self._sink.stopped:
            self._refuse()
        if size is not None and 0 < size <= self._stop - self._start:
            # All of it is at hand: the same as below, in half the time.
            stop = self._start + size
            data = bytes(self._held[self._start : stop])
            self._sink.take(data, self._given)
            self._start = stop
            self._given += size
            return data
        parts: list[bytes] = []
        try:
            self._gather(parts, sys.maxsize if size is None or size < 0 else size, size or 0)
            return self._hand_out(parts)
        except BaseException:
            self._put_back(parts)
            raise

    def read1(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes by at most one read of the source; b"" at the end."""
        if self._sink.stopped:
            self._refuse()
        parts: list[bytes] = []
        wanted = self._chunk_bytes if size is None or size < 0 else size
        try:
            if wanted and self._ready(False):
                self._take(parts, min(self._stop, self._start + wanted))
            return self._hand_out(parts)
        except BaseException:
            self._put_back(parts)
            raise

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill `buffer`; fewer bytes only at the end, or before an error of the source."""
        return self._fill_buffer(buffer, once=False)

    def readinto1(self, buffer: Buffer, /) -> int:
        """Fill `buffer` by at most one read of the source; 0 at the end."""
        return self._fill_buffer(buffer, once=True)

    def readline(self, size: int | None = -1, /) -> bytes:
        """The bytes up to and with the next newline, at most `size` of them; b"" at the end."""
        if self._sink.stopped:
            self._refuse()
        left = sys.maxsize if size is None or size < 0 else size
        parts: list[bytes] = []
        try:
            while left > 0 and self._ready(bool(parts)):
                start = self._start
                seen = bytes(self._held[start : min(self._stop, start + min(left, PEEK_BYTES))])
                found = seen.find(b"\n") + 1
                self._take(parts, start + (found or len(seen)))
                if found:
                    break
                left -= len(seen)
            return self._hand_out(parts)
        except BaseException:
            self._put_back(parts)
            raise

    def peek(self, size: int = 0, /) -> bytes:
        """Some of what comes next, whatever `size` says, not handed out and not written to the sink yet; b"" at the end."""
        if self._sink.stopped:
            self._refuse()
        if not self._ready(False):
            return b""
        return bytes(self._held[self._start : min(self._stop, self._start + max(size, PEEK_BYTES))])

    def _fill_buffer(self, buffer: Buffer, *, once: bool) -> int:
        if self._sink.stopped:
            self._refuse()
        with memoryview(buffer).cast("B") as view:
            done, most = 0, len(view)
            try:
                while done < most:
                    # Large enough, and nothing comes before it: straight into the caller's memory.
                    straight = self._readinto is not None and most - done >= self._chunk_bytes
                    if straight and self._start == self._stop and self._behind is None:
                        count = self._pull_into(view, done)
                    else:
                        count = self._copy_into(view, done)
                    done += count
                    if once or not count:
                        break
                if done:
                    self._sink.take_part(view, done, self._given)
            except BaseException:
                self._put_back([bytes(view[:done])])
                raise
        self._given += done
        if self._ended:
            self._count()
        return done

    def _pull_into(self, view: memoryview, done: int) -> int:
        room = view[done:]
        try:
            return self._pull(done > 0, room)
        except BlockingIOError:
            if not done:
                raise
            return 0
        finally:
            let_go(room)

    def _copy_into(self, view: memoryview, done: int) -> int:
        try:
            if not self._ready(done > 0):
                return 0
        except BlockingIOError:
            if not done:
                raise
            return 0
        start = self._start
        count = min(len(view) - done, self._stop - start)
        view[done : done + count] = self._held[start : start + count]
        self._start = start + count
        return count

    def _gather(self, parts: list[bytes], wanted: int, said: int) -> None:
        """Take `wanted` bytes, or as many as come in this call; `said`: how many the caller named, if any."""
        try:
            while wanted > 0 and self._ready(bool(parts), min(wanted, said)):
                start = self._start
                stop = min(self._stop, start + wanted)
                self._take(parts, stop)
                wanted -= stop - start
        except BlockingIOError:
            if not parts:
                raise

    def _take(self, parts: list[bytes], stop: int) -> None:
        data = bytes(self._held[self._start : stop])
        self._start = stop
        # No call in between, which an interrupt could follow: the bytes are in one of the two places.
        parts += (data,)

    def _ready(self, later: bool, wanted: int = 0) -> bool:
        """Whether bytes are at hand, after a read of the source if there were none, of which `wanted` go out now."""
        if self._start == self._stop and self._behind is not None:
            (self._held, self._start, self._stop), self._behind = self._behind, None
        return self._start < self._stop or self._pull(later, None, wanted) > 0

    # -- the source --------------------------------------------------------------------------------------

    def _pull(self, later: bool, room: memoryview | None, wanted: int = 0) -> int:
        """Read the source once, into `room` or the chunk; 0 at the end. With `later` (bytes wait to be handed out) an
        error is kept for the next read, and the answer is 0; but who would block is asked again then."""
        if self._source_error is not None:
            if later:
                return 0
            error, self._source_error = self._source_error, None
            raise error
        if self._ended:
            return 0
        began = perf_counter()
        try:
            count = self._read_source(room, wanted)
        except BlockingIOError:
            raise
        except Exception as error:
            if not later:
                raise
            self._source_error = error
            return 0
        finally:
            self._elapsed += perf_counter() - began
        if not count:
            self._ended = True
            self._let_go()
            return 0
        self._chunks += 1
        self._pulled += count
        if self._expected is not None and self._pulled > self._expected:
            # More than was said: from now on, a chunk for who knows how much.
            self._expected = None
            self._chunk_bytes = max(self._chunk_bytes, self._choose_chunk(None))
        return count

    def _read_source(self, room: memoryview | None, wanted: int) -> int:
        read, most = self._read, self._chunk_bytes
        if room is None and wanted >= most and self._read_fresh is not None:
            read, most = self._read_fresh, min(wanted, MOST_FRESH)
        if read is not None:
            data = read(most)
            if data == b"" and read is self._read_fresh and self._readinto is not None:  # read1: the end, or it blocks
                count = self._readinto(memoryview(byte := bytearray(1)))
                data = None if count is None else bytes(byte[:count])
            if data is None:
                raise not_ready("source")
            self._held, self._start, self._stop = data, 0, len(data)
            return len(data)
        assert self._readinto is not None
        view = room
        if view is None:
            if self._lease is None or self._lease.size < self._chunk_bytes:
                # Never asked for while another is held: who waits and holds can wait for ever.
                self._let_go()
                timeout = self._pool.config.acquire_timeout
                try:
                    self._lease = self._pool.lend(self._chunk_bytes, timeout)
                except Refused as error:
                    return self._read_by_reserve(timeout, error)
                if self._lease.size < self._chunk_bytes:
                    self._chunk_bytes = self._lease.size
                    self._fallen_back = True
                self._chunk_reads -= 1
            view = self._lease.view
        count = self._readinto(view)
        if count is None:
            raise not_ready("source")
        if not 0 <= count <= len(view):
            raise ValueError(f"readinto of the source said {count} for a view of {exact_bytes(len(view))}")
        if room is None:
            self._held, self._start, self._stop = view, 0, count
            self._chunk_reads += count > 0
        return count

    def _read_by_reserve(self, timeout: float, refused: Refused) -> int:
        """Read into the reserve, and keep the bytes instead of it: whoever reads a tee may take all the time they like."""
        assert self._readinto is not None
        self._fallen_back = True
        with self._pool.lend_reserve(timeout, refused) as room:
            view = room.view
            count = self._readinto(view)
            if count is None:
                raise not_ready("source")
            if not 0 <= count <= len(view):
                raise ValueError(f"readinto of the source said {count} for a view of {exact_bytes(len(view))}")
            self._held, self._start, self._stop = bytes(view[:count]), 0, count
        return count

    def _choose_chunk(self, size: int | None) -> int:
        pool, (src, dst) = self._pool, self._kinds
        chosen = select_strategy(size, pool.config, src=src, dst=dst, pressure=pool.pressure, most=pool.ledger.limit)
        # A tee never needs the whole object at once, whatever the strategy.
        return min(chosen.chunk_size, pool.config.max_buffer_size)

    # -- handing out -------------------------------------------------------------------------------------

    def _hand_out(self, parts: list[bytes]) -> bytes:
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if data:
            self._sink.take(data, self._given)
        self._given += len(data)
        parts.clear()
        if self._ended:
            self._count()
        return data

    def _put_back(self, parts: list[bytes]) -> None:
        """Keep what a read that raises has taken: the next one begins with it."""
        count = sum(map(len, parts))
        if self._behind is not None:
            self._start -= count  # it came from such bytes itself
        elif count:
            self._behind = self._held, self._start, self._stop
            self._held, self._start, self._stop = b"".join(parts), 0, count

    def drop_sink(self) -> BaseException | None:
        """Write no more to the sink, whether or not it has failed; what it failed with. Reading goes on at the exact
        byte: what a read that raised had taken comes first."""
        self._sink.live = False
        self._sink.stopped = self.closed
        return self._sink.error

    def _refuse(self) -> NoReturn:
        error = self._sink.error
        if error is None or self.closed:
            raise Closed("this tee is closed; make a new one to read on")
        raise error

    # -- what it is, and the end -------------------------------------------------------------------------

    @property
    def stats(self) -> TeeStats:
        sink = self._sink
        elapsed = self._elapsed + sink.elapsed
        return TeeStats(self._given, sink.taken, self._chunks, max(0, self._chunk_reads), elapsed, sink.error)

    def _count(self) -> None:
        if not self._counted and self._behind is None and self._start == self._stop:
            self._counted = True
            pool = self._pool
            elapsed = self._elapsed + self._sink.elapsed
            pool._tallies.count_tee(self._given, self._chunks, pool._bounds, elapsed, fallback=self._fallen_back)

    def _let_go(self) -> None:
        lease, self._lease = self._lease, None
        self._held = b""
        self._start = self._stop = 0
        if lease is not None:
            lease.release()

    def close(self) -> None:
        """Give the chunk back. `src` and `sink` stay open: they are the caller's. Allowed more than once."""
        self._sink.stopped = True
        if not self.closed:
            self._behind = None
            self._let_go()
            self._count()
        super().close()

    def __del__(self) -> None:
        if not hasattr(self, "_sink"):
            return  # its making was refused: Python 3.13 tells of errors of a close in a finalizer
        if self._lease is not None and not sys.is_finalizing():
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        self._counted = True  # what was not closed has not ended
        super().__del__()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "at the end" if self._ended else "open"
        return f"<ChunkedTeeReader {state}, {exact_bytes(self._given)} handed out, {self._sink.taken} to the sink>"
