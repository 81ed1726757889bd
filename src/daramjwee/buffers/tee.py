"""The tee: a reader that writes to a sink what it hands to its caller.

Invariant: between calls the sink has exactly the bytes that were handed out, until it fails. The source may be ahead
by what is left in the chunk.
Threads: one thread uses a tee at a time.
Design: docs/design/memory.md
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from daramjwee.buffers.copy import plan_copy
from daramjwee.buffers.endpoints import not_ready, read_of, readinto_of, write_all, write_of
from daramjwee.errors import Closed, ConfigError, Problem

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from daramjwee.buffers.endpoints import Data
    from daramjwee.buffers.lease import Lease
    from daramjwee.buffers.pool import BufferPool

logger = logging.getLogger(__name__)

# What a search for a line's end looks at: most lines are shorter, and every look is a copy of so much.
PEEK_BYTES = 4096


class TeeStats(NamedTuple):
    """What a tee did. `bytes`: handed out; `sink_bytes`: taken by the sink; `chunks`: reads of the source;
    `reused`: those of them into memory that had been used before; `elapsed`: seconds in the source and the sink;
    `sink_error`: what the sink failed with, if it did."""

    bytes: int
    sink_bytes: int
    chunks: int
    reused: int
    elapsed: float
    sink_error: BaseException | None


class ChunkedTeeReader(io.BufferedIOBase):
    """Reads `src` through one reused chunk, and writes to `sink` what it hands out, in the same call.

    A failing sink: with "raise" its error is raised by the read in which it happened, and by every later one; with
    "drop" it is written to no more, and reading goes on. A failing source: what came before is handed out first,
    then its error is raised. `close` gives the chunk back and leaves `src` and `sink` open; what was not read is
    not written.
    """

    def __init__(
        self,
        src: Any,
        sink: Any,
        pool: BufferPool,
        size: int | None = None,
        *,
        on_sink_error: Literal["raise", "drop"] = "raise",
    ) -> None:
        self._lease: Lease | None = None
        self._ended = False
        if on_sink_error not in ("raise", "drop"):
            mend = 'must be "raise" or "drop"'
            raise ConfigError([Problem("on_sink_error", on_sink_error, mend)], subject="tee")
        self._readinto = readinto_of(src)
        self._read = None if self._readinto is not None else read_of(src)
        self._write, self._none_blocks = write_of(sink)
        self._drop = on_sink_error == "drop"
        self._pool = pool
        self._chunk_bytes = min(plan_copy(size, pool.config).chunk, pool.config.max_buffer_size)
        self._held: Data = b""
        self._start = self._stop = 0  # what of the chunk is read and not handed out
        self._source_error: BaseException | None = None
        self._sink_error: BaseException | None = None
        self._given = self._sunk = self._chunks = self._fresh = 0
        self._elapsed = 0.0

    # -- reading -----------------------------------------------------------------------------------------

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Exactly `size` bytes, fewer only at the end; all that are left when None or negative."""
        self._check()
        wanted = sys.maxsize if size is None or size < 0 else size
        parts: list[bytes] = []
        while wanted > 0 and self._ready(bool(parts)):
            part = self._take(wanted)
            parts.append(part)
            wanted -= len(part)
        return self._hand_out(parts[0] if len(parts) == 1 else b"".join(parts))

    def read1(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes by at most one read of the source; b"" at the end."""
        self._check()
        wanted = self._chunk_bytes if size is None or size < 0 else size
        return self._hand_out(self._take(wanted)) if wanted and self._ready(False) else b""

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill `buffer`; fewer bytes only at the end."""
        return self._fill_buffer(buffer, once=False)

    def readinto1(self, buffer: Buffer, /) -> int:
        """Fill `buffer` by at most one read of the source; 0 at the end."""
        return self._fill_buffer(buffer, once=True)

    def readline(self, size: int | None = -1, /) -> bytes:
        """The bytes up to and with the next newline, at most `size` of them; b"" at the end."""
        self._check()
        left = sys.maxsize if size is None or size < 0 else size
        parts: list[bytes] = []
        while left > 0 and self._ready(bool(parts)):
            seen = bytes(self._held[self._start : min(self._stop, self._start + min(left, PEEK_BYTES))])
            found = seen.find(b"\n") + 1
            part = seen[:found] if found else seen
            self._start += len(part)
            parts.append(part)
            if found:
                break
            left -= len(part)
        return self._hand_out(b"".join(parts))

    def peek(self, size: int = 0, /) -> bytes:
        """Some of what comes next, not handed out and not written to the sink yet."""
        self._check()
        if not self._ready(False):
            return b""
        return bytes(self._held[self._start : min(self._stop, self._start + max(size, PEEK_BYTES))])

    def _fill_buffer(self, buffer: Buffer, *, once: bool) -> int:
        self._check()
        with memoryview(buffer) as whole, whole.cast("B") as view:
            done, most = 0, len(view)
            while done < most and not (once and done):
                if self._start == self._stop and self._readinto is not None and most - done >= self._chunk_bytes:
                    # Large enough: straight into the caller's memory.
                    count = self._pull(done > 0, view[done:] if done else view)
                    if count == 0:
                        break
                    self._start = self._stop = 0
                elif self._ready(done > 0):
                    count = min(most - done, self._stop - self._start)
                    view[done : done + count] = self._held[self._start : self._start + count]
                    self._start += count
                else:
                    break
                done += count
            if done:
                with view[:done] as given:
                    self._sink(given)
                self._given += done
            return done

    def _ready(self, later: bool) -> bool:
        """Whether the chunk has bytes, after a read of the source if it had none."""
        return self._start < self._stop or self._pull(later, None) > 0

    def _pull(self, later: bool, view: memoryview | None) -> int:
        """Read the source once, into `view` or the chunk; 0 at the end. With `later` (bytes wait to be handed out)
        an error is kept for the next read, and the answer is 0."""
        error, self._source_error = self._source_error, None
        if error is not None:
            raise error
        if self._ended:
            return 0
        began = perf_counter()
        try:
            count = self._read_source(view)
        except Exception as error:
            if not later:
                raise
            self._source_error = error
            return 0
        finally:
            self._elapsed += perf_counter() - began
        self._start, self._stop = 0, count
        if count:
            self._chunks += 1
        else:
            self._ended = True
            self._let_go()
        return count

    def _read_source(self, view: memoryview | None) -> int:
        if self._readinto is None:
            assert self._read is not None
            data = self._read(self._chunk_bytes)
            if data is None:
                raise not_ready("source")
            self._held = data
            return len(data)
        if view is None:
            if self._lease is None:
                self._lease = self._pool.acquire(self._chunk_bytes)
                self._held = self._lease.view
                self._fresh += 1
            view = self._lease.view
        count = self._readinto(view)
        if count is None:
            raise not_ready("source")
        if not 0 <= count <= len(view):
            raise ValueError(f"readinto of the source said {count} for a view of {len(view)} bytes")
        return count

    def _take(self, most: int) -> bytes:
        stop = min(self._stop, self._start + most)
        data = bytes(self._held[self._start : stop])
        self._start = stop
        return data

    def _hand_out(self, data: bytes) -> bytes:
        if data:
            self._sink(data)
            self._given += len(data)
        return data

    # -- the sink ----------------------------------------------------------------------------------------

    def _sink(self, data: Data) -> None:
        if self._sink_error is not None:
            return
        began = perf_counter()
        try:
            write_all(self._write, data, none_blocks=self._none_blocks)
        except Exception as error:
            self._sink_error = error
            if not self._drop:
                raise
            logger.warning("tee drops its sink after %d bytes: %s: %s", self._sunk, type(error).__name__, error)
        else:
            self._sunk += len(data)
        finally:
            self._elapsed += perf_counter() - began

    def _check(self) -> None:
        if self.closed:
            raise Closed("this tee is closed; make a new one to read on")
        if self._sink_error is not None and not self._drop:
            raise self._sink_error

    # -- what it is, and the end -------------------------------------------------------------------------

    @property
    def stats(self) -> TeeStats:
        reused = max(0, self._chunks - self._fresh)
        return TeeStats(self._given, self._sunk, self._chunks, reused, self._elapsed, self._sink_error)

    def _let_go(self) -> None:
        lease, self._lease = self._lease, None
        self._held = b""
        self._start = self._stop = 0
        if lease is not None:
            lease.release()

    def close(self) -> None:
        """Give the chunk back. `src` and `sink` stay open: they are the caller's. Allowed more than once."""
        if not self.closed:
            self._let_go()
        super().close()

    def __del__(self) -> None:
        if getattr(self, "_lease", None) is not None and not sys.is_finalizing():
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        super().__del__()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "at the end" if self._ended else "open"
        return f"<ChunkedTeeReader {state}, {self._given} bytes handed out, {self._sunk} to the sink>"
