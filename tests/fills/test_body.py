"""Bodies and results: every form a fetcher may return gives its bytes once, in order, as they come."""

from __future__ import annotations

import array
import asyncio
import bz2
import gzip
import io
import logging
import mmap
import os
import tempfile
import threading
from datetime import timedelta
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.errors import Closed, ConfigError, FetchError, NotFound, NotModified
from daramjwee.fills.body import metadata_of, open_body, result_of
from daramjwee.model import FetchResult


def pull_all(body: object, size: int = 4) -> list[bytes]:
    """The pieces of a body, closed afterwards; and the end is the end, however often it is asked for."""
    reader = open_body(body)
    view = memoryview(bytearray(size))
    pieces = []
    while len(piece := reader.pull(view)):
        assert len(piece) <= size
        pieces.append(bytes(piece))
    assert len(reader.pull(view)) == 0
    reader.close()
    reader.close()
    return pieces


class OnlyRead:
    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, n):
        return self._file.read(n)


class OnlyReadinto:
    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readinto(self, view):
        return self._file.readinto(view)


class Raw(io.RawIOBase):
    """A raw source that gives at most two bytes at once."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, view):
        return self._file.readinto(view[:2])


class OnlyReadBuffered(io.BufferedIOBase):
    """A subclass that leaves read1 and readinto to io.BufferedIOBase, whose read1 raises."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, n=-1):
        return self._file.read(n)


class ArrayReader(OnlyRead):
    def read(self, n):
        return bytearray(super().read(n))


def at_two(data: bytes) -> io.BytesIO:
    file = io.BytesIO(b"xy" + data)
    file.seek(2)
    return file


def a_file(data: bytes):
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the reader closes it
    file.write(data)
    file.seek(0)
    return file


def mapped(data: bytes) -> mmap.mmap:
    area = mmap.mmap(-1, len(data))
    area.write(data)
    area.seek(0)
    return area


FORMS = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "a slice with a stride": lambda data: memoryview(bytes(b for byte in data for b in (byte, 0)))[::2],
    "array": lambda data: array.array("B", data),
    "BytesIO": io.BytesIO,
    "BytesIO not at its start": at_two,
    "file": a_file,
    "read only": OnlyRead,
    "read that gives bytearrays": ArrayReader,
    "readinto only": OnlyReadinto,
    "raw": Raw,
    "BufferedReader over raw": lambda data: io.BufferedReader(Raw(data)),
    "BufferedIOBase with read only": OnlyReadBuffered,
    "gzip": lambda data: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(data))),
    "bz2": lambda data: bz2.BZ2File(io.BytesIO(bz2.compress(data))),
    "list": lambda data: [data[:3], b"", bytearray(data[3:7]), memoryview(data[7:])],
    "generator": lambda data: (data[i : i + 1] for i in range(len(data))),
}


@pytest.mark.parametrize("form", FORMS)
@given(data=st.binary(max_size=40), size=st.integers(1, 16))
def test_every_form_gives_its_bytes_once_and_in_order(form, data, size):
    """Joined, the pieces are the body; none is empty, none longer than the view."""
    body = FORMS[form](data)
    if form == "a slice with a stride":
        body = bytes(body)  # what a fetcher has to do; the next test says that it is told so
    assert b"".join(pull_all(body, size)) == data


def test_an_mmap_is_read_as_the_buffer_it_is_and_closed():
    area = mapped(b"hello world")
    assert b"".join(pull_all(area)) == b"hello world"
    assert area.closed


def test_buffers_of_other_items_and_shapes_are_read_as_bytes():
    assert b"".join(pull_all(array.array("I", [1, 2]))) == array.array("I", [1, 2]).tobytes()
    assert b"".join(pull_all(memoryview(bytes(range(6))).cast("B", (2, 3)))) == bytes(range(6))
    assert pull_all(array.array("I")) == []
    with pytest.raises(FetchError, match="not contiguous"):
        open_body(memoryview(b"abcdef")[::2])


def test_immutable_bytes_are_handed_on_without_a_copy():
    """Whole when they fit, in slices of themselves when they do not."""
    data = os.urandom(1000)
    view = memoryview(bytearray(1000))
    assert open_body(data).pull(view) is data
    assert open_body(iter([data])).pull(view) is data
    source = OnlyRead(b"")
    source.read = lambda n: data
    assert open_body(source).pull(view) is data
    for body in (data, [data], bytearray(data), io.BytesIO(data)):
        piece = open_body(body).pull(view[:100])
        assert isinstance(piece, memoryview) and piece.obj is not view.obj
    file = io.BytesIO(data)
    assert open_body(file).pull(view) is file.getvalue()


def test_a_source_that_fills_memory_fills_the_view_that_is_given():
    reader = open_body(Raw(b"abc"))
    view = memoryview(bytearray(8))
    piece = reader.pull(view)
    assert piece.obj is view.obj and bytes(piece) == b"ab"


def test_pieces_come_as_they_arrive_and_not_when_a_view_is_full():
    """A pipe that holds three bytes gives three, though more may follow."""
    read_end, write_end = os.pipe()
    view = memoryview(bytearray(1024))
    with open(read_end, "rb") as source, open(write_end, "wb", buffering=0) as sink:
        reader = open_body(source)
        for piece in (b"abc", b"d"):
            sink.write(piece)
            assert bytes(reader.pull(view)) == piece


def test_a_generator_may_use_one_bytearray_again_and_again():
    """Resizing it fails while it is exported, so a piece is let go before the next is asked for."""

    def pieces():
        buffer = bytearray()
        for text in (b"a", b"bcdefghi", b"jk"):
            buffer.clear()
            buffer += text
            yield buffer

    assert b"".join(pull_all(pieces())) == b"abcdefghijk"


def test_a_read_that_gives_more_than_asked_for_loses_nothing():
    source = OnlyRead(b"")
    answers = [b"abcdefgh", b"ij", b""]
    source.read = lambda n: answers.pop(0) if answers else b""
    assert pull_all(source) == [b"abcd", b"efgh", b"ij"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "None.*a return is missing"),
        ("text", "a str.*encode it to bytes"),
        (5, "the number 5"),
        (object(), "a object.*return bytes"),
        (["text"], "a str.*yield bytes"),
        ([b"a", None], "None.*yield bytes"),
        ({"key": 1}, "a dict.*encode it to bytes"),
        ({b"key": 1}, "a dict.*encode it to bytes"),
        ({}, "a dict.*encode it to bytes"),
        (bytes, "a type"),
    ],
)
def test_what_is_no_body_is_told_with_what_to_return_instead(body, message):
    with pytest.raises(FetchError, match=message):
        pull_all(body)


@pytest.mark.parametrize("answer", [None, "text", 7, -1, 99])
@pytest.mark.parametrize("method", ["read", "readinto"])
def test_a_source_that_gives_anything_but_bytes_is_an_error_not_an_end(method, answer):
    """None is what a non-blocking source says when nothing is ready; to take it for the end would cut the body."""

    class Source:
        pass

    source = Source()
    setattr(source, method, lambda _: answer)
    if method == "readinto" and answer == 7:
        assert len(open_body(source).pull(memoryview(bytearray(8)))) == 7
        return
    with pytest.raises(FetchError, match="where bytes were due"):
        pull_all(source)


def test_asynchronous_bodies_are_refused_by_the_sync_door():
    """With a TypeError, and without the warning of a coroutine that was never awaited."""

    async def coroutine():
        return b""

    async def generator():
        yield b""

    loop = asyncio.new_event_loop()
    for make in (open_body, result_of):
        for body in (coroutine(), generator(), loop.create_future()):
            with pytest.raises(TypeError, match=r"asynchronous, .* a fetcher that returns bytes"):
                make(body)
    loop.close()

    class AsyncRead:
        async def read(self, n):
            return b""

    with pytest.raises(TypeError, match="asynchronous"):
        pull_all(AsyncRead())


def test_errors_of_a_source_reach_whoever_pulls():
    def pieces():
        yield b"abc"
        raise ConnectionResetError("gone")

    reader = open_body(pieces())
    view = memoryview(bytearray(8))
    assert reader.pull(view) == b"abc"
    with pytest.raises(ConnectionResetError):
        reader.pull(view)
    reader.close()


def test_a_source_is_closed_once_and_its_errors_on_closing_are_logged(caplog):
    closed = []

    class Source(OnlyRead):
        def close(self):
            closed.append(1)
            raise OSError("disk on fire")

    reader = open_body(Source(b"abc"))
    reader.close()
    reader.close()
    assert closed == [1]
    assert caplog.record_tuples == [
        ("daramjwee.fills.body", logging.WARNING, "closing a body failed: OSError: disk on fire")
    ]


def test_a_generator_that_is_left_runs_its_finally():
    ended = []

    def pieces():
        try:
            yield b"abc"
            yield b"def"
        finally:
            ended.append(1)

    reader = open_body(pieces())
    reader.pull(memoryview(bytearray(8)))
    reader.close()
    assert ended == [1]
    assert repr(reader) == "<_IterReader closed>"


def test_a_closed_body_raises_instead_of_ending():
    reader = open_body(b"abc")
    reader.close()
    with pytest.raises(Closed):
        reader.pull(memoryview(bytearray(8)))


# -- results -------------------------------------------------------------------------------------------------


class Response(OnlyRead):
    """What urllib, urllib3, requests and httpx have in common."""

    def __init__(self, data: bytes = b"", *, headers=None, **fields) -> None:
        super().__init__(data)
        self.headers = headers or {}
        self.closed = False
        self.__dict__.update(fields)

    def close(self):
        self.closed = True


def message(**headers: str) -> Message:
    made = Message()
    for name, value in headers.items():
        made[name.replace("_", "-")] = value
    return made


@pytest.mark.parametrize(
    ("headers", "size"),
    [
        (message(content_length="3", ETAG='"v"', last_modified="then"), 3),
        ({"content-length": "3", "etag": '"v"', "last-modified": "then"}, 3),
        (message(content_length="3", content_encoding="gzip", etag='"v"', last_modified="then"), None),
        (message(content_length="3", content_encoding="identity", etag='"v"', last_modified="then"), 3),
        (message(content_length="3", transfer_encoding="chunked", etag='"v"', last_modified="then"), None),
        (message(content_length="three", etag='"v"', last_modified="then"), None),
        (message(etag='"v"', last_modified="then"), None),
    ],
)
def test_a_bare_response_is_read_for_what_its_headers_say(headers, size):
    result = result_of(Response(b"abc", headers=headers, status=200))
    assert (result.size, result.etag, result.last_modified) == (size, '"v"', "then")
    assert b"".join(pull_all(result.body)) == b"abc"


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, NotFound), (410, NotFound), (304, NotModified), (302, FetchError), (206, FetchError), (503, FetchError)],
)
@pytest.mark.parametrize("field", ["status", "status_code"])
def test_a_bare_response_that_is_an_error_is_refused_and_closed(field, status, error):
    response = Response(**{field: status, "reason": "Because"})
    with pytest.raises(error, match=f"answered {status} Because"):
        result_of(response)
    assert response.closed


def test_a_result_passes_through_and_anything_else_is_a_body():
    result = FetchResult(b"abc", size=3)
    assert result_of(result) is result
    assert result_of(b"abc").body == b"abc"
    assert result_of(Response(headers="no mapping")).size is None


class LikeRequests:
    """The shape of `requests.Response`: it iterates in pieces of 128 bytes, and `raw` is as sent."""

    def __init__(self, data: bytes, *, consumed: bool) -> None:
        self._content_consumed = consumed
        self._data = data
        self.status_code = 200
        self.headers = {"Content-Length": str(len(data))}
        self.raw = io.BytesIO(b"" if consumed else data)
        self.asked: list[int] = []
        self.closed = False
        raw = self.raw

        class Raw:
            decode_content = False

            def read1(self, n):
                assert self.decode_content
                return raw.read(n)

        self.raw = Raw()

    def iter_content(self, size):
        self.asked.append(size)
        yield self._data

    def __iter__(self):
        raise AssertionError("in pieces of 128 bytes")

    def close(self):
        self.closed = True


@pytest.mark.parametrize("consumed", [False, True])
def test_a_response_of_requests_is_streamed_decoded_or_given_again_when_it_was_read(consumed):
    response = LikeRequests(b"hello world", consumed=consumed)
    assert b"".join(pull_all(result_of(response).body)) == b"hello world"
    assert response.closed and bool(response.asked) is consumed


def test_a_response_of_urllib3_that_was_read_already_is_given_again():
    """Its default is preload_content=True, after which it reads as empty: `data` has the bytes."""
    import urllib3

    class ClosesAtItsEnd(io.BytesIO):  # as http.client's responses do
        def read(self, n=-1):
            data = super().read(n)
            if n is None or n < 0 or (n and not data):
                self.close()
            return data

    response = urllib3.HTTPResponse(body=ClosesAtItsEnd(b"hello"), headers={"Content-Length": "5"}, status=200)
    assert b"".join(pull_all(result_of(response).body)) == b"hello"
    response = urllib3.HTTPResponse(
        body=io.BytesIO(gzip.compress(b"hello")),
        headers={"Content-Encoding": "gzip"},
        status=200,
        preload_content=False,
    )
    assert b"".join(pull_all(result_of(response).body)) == b"hello"


def test_a_response_of_httpx_is_streamed_decoded():
    class LikeHttpx:
        status_code = 200
        headers = {"content-length": "4"}

        def read(self):
            raise AssertionError("everything at once")

        def iter_bytes(self):
            yield from (b"ab", b"cd")

    result = result_of(LikeHttpx())
    assert result.size == 4
    assert pull_all(result.body) == [b"ab", b"cd"]


def test_metadata_says_what_the_result_said():
    result = FetchResult(
        [b"abc"], size=3, etag='"v"', last_modified="then", ttl="5m", digest="SHA256:" + "AB" * 32, tags=["a", "b"],
        attributes={"content-type": "text/plain"},
    )  # fmt: skip
    metadata = metadata_of(result, 7.0)
    assert (metadata.size, metadata.stored_at, metadata.etag, metadata.last_modified) == (3, 7.0, '"v"', "then")
    assert (metadata.ttl, metadata.tags, metadata.attributes) == (300.0, ("a", "b"), {"content-type": "text/plain"})
    assert metadata.digest == "sha256:" + "ab" * 32
    assert metadata_of(FetchResult(b"", ttl=timedelta(hours=1)), 0.0).ttl == 3600.0


@pytest.mark.parametrize(
    ("body", "size"),
    [
        (b"abc", 3),
        (bytearray(4), 4),
        (memoryview(array.array("I", [1])), 4),
        (io.BytesIO(b"abc"), 3),
        (at_two(b"abc"), 3),
    ],
)
def test_the_size_of_a_body_in_memory_is_known(body, size):
    assert metadata_of(result_of(body), 0.0).size == size
    assert len(b"".join(pull_all(body))) == size


def test_a_result_with_wrong_fields_is_told_all_of_them():
    result = FetchResult(
        b"", size=-1, etag=5, last_modified=1.5, ttl="soon", digest="sha256:xyz", tags="news", attributes={"a": 1}
    )
    with pytest.raises(ConfigError) as caught:
        metadata_of(result, 0.0)
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["size", "ttl", "etag", "last_modified", "digest", "tags", "attributes"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", True), ("size", "3"), ("size", 1.0), ("digest", "nope:00"), ("digest", "ab" * 32), ("digest", 5),
        ("digest", "shake_128:00"), ("digest", "md5:" + "g" * 32), ("tags", (1,)), ("tags", ("",)), ("tags", 5),
        ("attributes", [1]), ("ttl", -1), ("ttl", "forever"),
    ],
)  # fmt: skip
def test_each_field_of_a_result_is_checked(field, value):
    with pytest.raises(ConfigError, match=f"FetchResult has 1 problem:\n  {field} = "):
        metadata_of(FetchResult(b"", **{field: value}), 0.0)


def test_bodies_are_pulled_by_one_thread_after_another():
    """A starter pulls the first piece, a filler the rest."""
    reader = open_body(iter([b"ab", b"cd"]))
    pieces: list[bytes] = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: pieces.append(bytes(reader.pull(memoryview(bytearray(8))))))
        thread.start()
        thread.join()
    assert pieces == [b"ab", b"cd", b""]
