"""Bodies: every form in which a fetcher may give bytes, and an entry of a tier, behind one `pull`.

Invariant: the pieces of a reader, joined, are the body's bytes, each once and in order; an empty piece is the end
and nothing else. A source is closed once. What is neither bytes nor the end is an error, never skipped.
Threads: one thread pulls at a time, not always the same; `close` comes after the last pull.
Design: docs/design/origins.md
"""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

from daramjwee.errors import Closed, FetchError
from daramjwee.fills.result import metadata_of, refuse_async, result_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daramjwee.model import Body
    from daramjwee.stores.protocol import Entry

__all__ = ["BodyReader", "EntryBody", "NoBytes", "metadata_of", "open_body", "result_of"]

logger = logging.getLogger(__name__)

BODY_MEND = "return bytes, something with read(n), an iterable of bytes, or a FetchResult around one of them"
# What requests is asked for when its own stream has no read1: it fills a piece before it hands it on, so a large
# one delays the first byte; 64 KiB is a millisecond at 64 MB/s.
FILLED_PIECE_BYTES = 64 * 1024


class BodyReader:
    """A body that is being read. `pull` gives the next piece, empty at the end; `close` closes the source."""

    __slots__ = ("_closed", "_handed", "_rest", "_source")

    def __init__(self, source: object) -> None:
        self._source = source
        self._rest: memoryview | None = None
        self._handed: memoryview | None = None  # what the last pull gave, if it was a view
        self._closed = False

    def pull(self, view: memoryview) -> memoryview | bytes:
        """The next bytes as they come, at most `len(view)` of them; none at the end.

        A piece that is a memoryview (of `view`, or of the source's own memory) is good until the next call.
        """
        if self._closed:
            raise Closed("this body was closed before its end was read")
        # A generator may yield one bytearray again and again; it could not resize it while a view of it lives.
        if self._handed is not None:
            self._take_back()
        if self._rest is not None:
            return self._slice(len(view))
        piece = self._next(view)
        if len(piece) > len(view):
            self._rest = memoryview(piece)
            return self._slice(len(view))
        if type(piece) is memoryview:
            self._handed = piece
        return piece

    def close(self) -> None:
        """Close the source, if it can be closed. Its errors are logged: the bytes were read, or given up."""
        if self._closed:
            return
        self._closed = True
        self.let_go()
        close = getattr(self._source, "close", None)
        self._source = None
        if close is None:
            return
        try:
            close()
        except Exception as error:  # noqa: BLE001 - any source's code; said below
            logger.warning("closing a body failed: %s: %s", type(error).__name__, error)

    def _next(self, view: memoryview) -> memoryview | bytes:
        raise NotImplementedError

    def let_go(self) -> None:
        """Drop what was taken from the source, so that its memory is not pinned when it is closed."""
        self._rest = None
        self._take_back()

    def _take_back(self) -> None:
        handed, self._handed = self._handed, None
        if handed is None:
            return
        try:
            handed.release()
        except BufferError:
            logger.debug("a piece of a body is still in use; its memory stays exported until it is not")

    def _slice(self, limit: int) -> memoryview:
        rest = self._rest
        assert rest is not None
        self._rest = rest[limit:] if len(rest) > limit else None
        self._handed = rest[:limit]
        return self._handed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self._closed else f'of {type(self._source).__name__}'}>"


class EntryBody(BodyReader):
    """An open entry, pulled from its start; closes it at the end."""

    __slots__ = ("_entry", "_offset")

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry)
        self._entry = entry
        self._offset = 0

    def _next(self, view: memoryview) -> memoryview:
        count = self._entry.readinto_at(self._offset, view)
        self._offset += count
        return view[:count]


class _BufferReader(BodyReader):
    """A buffer, handed on in slices of itself; small immutable bytes as they are."""

    __slots__ = ("_whole",)

    def __init__(self, source: object, whole: memoryview | bytes) -> None:
        super().__init__(source)
        self._whole = whole

    def _next(self, view: memoryview) -> memoryview | bytes:
        whole, self._whole = self._whole, b""
        return whole

    def let_go(self) -> None:
        super().let_go()
        self._whole = b""


class _IntoReader(BodyReader):
    """Something that fills memory it is given: no allocation per piece."""

    __slots__ = ("_call",)

    def __init__(self, source: object, call: Callable[[memoryview], object]) -> None:
        super().__init__(source)
        self._call = call

    def _next(self, view: memoryview) -> memoryview | bytes:
        count = self._call(view)
        if type(count) is not int or not 0 <= count <= len(view):
            raise _wrong(f"{type(self._source).__name__}.readinto", count, "return the number of bytes, 0 at the end")
        return view[:count]


class _ReadReader(BodyReader):
    """Something that returns bytes when asked for at most so many."""

    __slots__ = ("_call",)

    def __init__(self, source: object, call: Callable[[int], object]) -> None:
        super().__init__(source)
        self._call = call

    def _next(self, view: memoryview) -> memoryview | bytes:
        data = self._call(len(view))
        if type(data) is bytes:
            return data
        return _as_piece(data, f"{type(self._source).__name__}.read", "return bytes, b'' at the end")


class _IterReader(BodyReader):
    """Buffers one after another. An empty one is skipped: only the iterator's own end is the end."""

    __slots__ = ("_iterator",)

    def __init__(self, source: object, iterator: Iterator[object]) -> None:
        super().__init__(source)
        self._iterator = iterator

    def _next(self, view: memoryview) -> memoryview | bytes:
        for data in self._iterator:
            piece = data if type(data) is bytes else _as_piece(data, "the iterator", "yield bytes")
            if len(piece):
                return piece
        return b""


def open_body(body: Body) -> BodyReader:
    """The reader for `body`. `TypeError` when it is asynchronous, `FetchError` when it is no body at all."""
    if type(body) is bytes:
        return _BufferReader(body, body)
    refuse_async(body)
    source: Any = body
    # A dict can be iterated, too: of its keys, which may even be bytes.
    if isinstance(source, str | dict) or source is None:
        raise _wrong("the fetcher", source, BODY_MEND if source is None else "encode it to bytes")
    if type(source) is io.BytesIO and source.tell() == 0:
        return _BufferReader(source, source.getvalue())  # shares its memory; read1 and readinto would copy
    buffer = _buffer_of(source, "the fetcher")
    if buffer is not None:
        return _BufferReader(source, buffer)
    if getattr(source, "closed", False) is True and hasattr(source, "data") and hasattr(source, "read1"):
        return _BufferReader(source, source.data)  # urllib3 without preload_content=False has read it all already
    if hasattr(source, "iter_content") and hasattr(source, "raw"):  # requests
        return _requests_reader(source)
    if hasattr(source, "iter_bytes"):  # httpx; its read() takes no size and reads everything
        return _IterReader(source, iter(source.iter_bytes()))
    into = _own(source, "readinto1") or (_own(source, "readinto") if isinstance(source, io.RawIOBase) else None)
    if into is not None:
        return _IntoReader(source, into)
    # http.client and urllib3: their readinto waits until the view is full, their read1 gives what has come.
    read = _own(source, "read1")
    if read is None:
        into = _own(source, "readinto")
        if into is not None and not hasattr(source, "read"):
            return _IntoReader(source, into)
        read = getattr(source, "read", None)
    if callable(read):
        return _ReadReader(source, read)
    try:
        iterator = iter(source)
    except TypeError:
        raise _wrong("the fetcher", source, BODY_MEND) from None
    return _IterReader(source, iterator)


def _own(source: object, name: str) -> Callable[..., object] | None:
    """The method, unless it is the one that `io.BufferedIOBase` gives every subclass: that copies, or fails."""
    if getattr(type(source), name, None) is getattr(io.BufferedIOBase, name):
        return None
    method = getattr(source, name, None)
    return method if callable(method) else None


def _requests_reader(response: Any) -> BodyReader:
    raw = response.raw
    if getattr(response, "_content_consumed", True) is False and _own(raw, "read1") is not None:
        raw.decode_content = True  # what requests itself does; raw is as sent otherwise
        return _ReadReader(response, raw.read1)
    return _IterReader(response, iter(response.iter_content(FILLED_PIECE_BYTES)))


def _buffer_of(source: object, who: str) -> memoryview | None:
    """The bytes of a buffer of any shape, None when it is no buffer."""
    try:
        view = memoryview(source)  # type: ignore[arg-type]  # that is the question
    except TypeError:
        return None
    if view.format == "B" and view.ndim == 1 and view.contiguous:
        return view
    if not view.c_contiguous:
        raise _wrong(who, source, "its memory is not contiguous: make a contiguous copy first")
    return view.cast("B") if view.nbytes else memoryview(b"")


def _as_piece(data: object, who: str, mend: str) -> memoryview | bytes:
    refuse_async(data)
    piece = None if data is None else _buffer_of(data, who)
    if piece is None:
        raise _wrong(who, data, mend)
    return piece


class NoBytes(FetchError):
    """A body gave something else than bytes: it is not the origin that is at fault, but whoever made the body."""


def _wrong(who: str, given: object, mend: str) -> NoBytes:
    shown = f"the number {given}" if type(given) is int else "None" if given is None else f"a {type(given).__name__}"
    if given is None:
        mend = f"{mend} (None: a return is missing, or the source does not block and has nothing ready)"
    return NoBytes(f"{who} gave {shown} where bytes were due: {mend}")
