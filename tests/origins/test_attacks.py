"""Attacks on the origins: answers that no well-meaning server gives, and values that no header can have."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from daramjwee.errors import FetchError
from daramjwee.model import FetchRequest, Metadata
from daramjwee.origins import HttpOrigin
from daramjwee.origins.rules import lifetime_of


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The URL of a server that gives this answer to everyone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(65536)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


DIGITS = b"9" * 5000
ANSWERS = {
    "a Retry-After of 5,000 digits": b"HTTP/1.1 503 Busy\r\nRetry-After: " + DIGITS + b"\r\nContent-Length: 0\r\n\r\n",
    "a Retry-After in another age": b"HTTP/1.1 503 Busy\r\nRetry-After: Wed, 21 Oct 99999 07:28:00 GMT\r\n"
    b"Content-Length: 0\r\n\r\n",
    "a redirect to no URL": b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n",
    "a coding that only chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_nobody_can_read_is_a_fetch_error(answer: bytes) -> None:
    """What a server does wrong is a `FetchError`, never its bytes taken for the object's, never a bare `ValueError`."""
    with answering(answer) as url, contextlib.closing(HttpOrigin(retries=1)) as origin, pytest.raises(FetchError):
        origin(FetchRequest(url)).body.read1(100)


def test_a_part_of_unspeakable_length_is_a_fetch_error() -> None:
    """A Content-Range that cannot be read is no part of the object."""
    answer = b"HTTP/1.1 206 Part\r\nContent-Range: bytes 5-" + DIGITS + b"/*\r\n\r\nhello"
    with answering(answer) as url, contextlib.closing(HttpOrigin()) as origin, pytest.raises(FetchError):
        origin(FetchRequest(url, offset=5, validator='"a"'))


@pytest.mark.parametrize("etag", ['"a\r\nX: y"', '"a\nb"'])
def test_a_validator_that_no_header_can_hold_is_a_fetch_error(etag: str) -> None:
    """Nothing of a cache's metadata becomes a header of its own, and refusing it is a `FetchError`."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    with answering(answer) as url, contextlib.closing(HttpOrigin()) as origin, pytest.raises(FetchError):
        origin(FetchRequest(url, previous=Metadata(size=1, etag=etag)))


def test_a_negative_lifetime_is_none_at_all() -> None:
    """`max-age=-1` means stale at once; it is not taken for silence, which may mean for ever."""
    assert lifetime_of({"Cache-Control": "max-age=-1"}) == (True, 0.0)
