"""`HttpOrigin` against servers that misbehave: each fault is the error a person needs, and nothing is left open."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading

import pytest

from daramjwee.errors import FetchError
from daramjwee.fills.body import open_body
from daramjwee.model import FetchRequest
from daramjwee.origins import HttpOrigin
from daramjwee.testing.leaks import no_leaks

HEAD = b"HTTP/1.1 200 OK\r\n"


def read_out(origin: HttpOrigin, key: str = "x", piece: int = 4096) -> bytes:
    body = open_body(origin(FetchRequest(key)).body)
    view = memoryview(bytearray(piece))
    try:
        return b"".join(iter(lambda: bytes(body.pull(view)), b""))
    finally:
        body.close()


def closes_after(data: bytes):
    def script(peer) -> None:
        peer.request()
        peer.send(data)

    return script


def test_a_refused_connection_is_told_with_host_and_reason():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with no_leaks(descriptors=True):
        origin = HttpOrigin(f"http://127.0.0.1:{port}", retries=0)
        with pytest.raises(FetchError, match=f"127.0.0.1:{port}/x: cannot connect: .*refused"):
            origin(FetchRequest("x"))
        origin.close()


def test_a_connection_that_is_not_accepted_ends_at_its_timeout():
    """A listener whose queue is full drops what comes: so does a firewall."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        origin = HttpOrigin(f"http://127.0.0.1:{listener.getsockname()[1]}", connect_timeout="50ms", retries=0)
        with pytest.raises(FetchError, match=r"no connection within 50.0ms \(connect_timeout\)"):
            origin(FetchRequest("x"))
        origin.close()


def test_a_server_without_tls_is_told(raw_server):
    def script(peer) -> None:
        peer.socket.recv(65536)
        peer.send(HEAD + b"Content-Length: 0\r\n\r\n")

    server = raw_server(script)
    with no_leaks(threads=False):
        origin = HttpOrigin(server.url.replace("http:", "https:"), retries=0)
        with pytest.raises(FetchError, match=r"TLS failed: .*check the certificate, or verify="):
            origin(FetchRequest("x"))
        origin.close()


def test_an_unknown_host_is_told():
    origin = HttpOrigin("http://no-such-host.invalid/", retries=0)
    with pytest.raises(FetchError, match="host name cannot be resolved"):
        origin(FetchRequest("x"))
    origin.close()


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * 400, "ended after 400 bytes of 1,000: it was cut short"),
        (HEAD + b"Content-Length: 1000\r\n\r\n", "ended after 0 bytes of 1,000"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n64\r\n" + b"x" * 50, "broke off after 50 bytes"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "broke off after 5 bytes"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", "broke off after 5 bytes"),
    ],
)
def test_a_body_that_is_cut_short_never_ends_silently(raw_server, response, message):
    """Whether the length or the chunks say so: the last read raises, with how far it got."""
    server = raw_server(closes_after(response))
    with no_leaks(threads=False):
        origin = HttpOrigin(server.url)
        with pytest.raises(FetchError, match=message):
            read_out(origin)
        origin.close()


def test_a_cut_body_of_known_size_shows_in_urllib_too_because_its_size_is_known(raw_server):
    """A `urlopen` body that is cut short just ends; `result_of` gives the size that tells."""
    from urllib.request import urlopen

    from daramjwee.fills.body import result_of

    server = raw_server(closes_after(HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * 400))
    result = result_of(urlopen(server.url))
    body = open_body(result.body)
    view = memoryview(bytearray(4096))
    received = b"".join(iter(lambda: bytes(body.pull(view)), b""))
    body.close()
    assert (result.size, len(received)) == (1000, 400)


def test_without_a_length_the_end_of_the_connection_is_the_end(raw_server):
    """HTTP/1.0 style: nothing else can tell, so the size is unknown and the bytes are all there are."""
    origin = HttpOrigin(raw_server(closes_after(HEAD + b"\r\n" + b"x" * 400)).url)
    result = origin(FetchRequest("x"))
    assert result.size is None
    result.body.close()
    assert read_out(origin) == b"x" * 400
    origin.close()


def test_a_reset_without_a_length_is_an_error(raw_server):
    gone = threading.Event()

    def script(peer) -> None:
        peer.request()
        peer.send(HEAD + b"\r\n" + b"x" * 400)
        gone.wait(10)
        peer.reset()

    origin = HttpOrigin(raw_server(script).url)
    body = origin(FetchRequest("x")).body
    assert body.read1(4096) == b"x" * 400
    gone.set()
    with pytest.raises(FetchError, match="broke off after 400 bytes"):
        body.read1(4096)
    assert body.read1(4096) == b""  # it was told once, and is closed
    origin.close()


def test_bytes_beyond_the_length_are_not_taken_for_the_next_answer(raw_server):
    """The body has the bytes that were announced, and a connection with more on it is not used again."""
    server = raw_server(
        closes_after(HEAD + b"Content-Length: 5\r\n\r\nhello" + HEAD + b"Content-Length: 4\r\n\r\nevil")
    )
    origin = HttpOrigin(server.url)
    assert read_out(origin) == b"hello"
    assert read_out(origin) == b"hello"
    assert server.connections == 2
    origin.close()


def test_a_stalled_body_ends_at_the_timeout(raw_server):
    def script(peer) -> None:
        peer.request()
        peer.send(HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * 10)
        peer.stall()

    server = raw_server(script)
    with no_leaks(threads=False):
        origin = HttpOrigin(server.url, timeout="2s")  # what comes before has to come within it, too
        with pytest.raises(FetchError, match=r"stalled after 10 bytes: nothing came for 2.00s \(timeout\)"):
            read_out(origin)
        origin.close()


def test_a_silent_server_ends_at_the_timeout_and_is_not_asked_again(raw_server):
    """Asking again would multiply the time that the caller allowed."""
    asked = threading.Event()

    def script(peer) -> None:
        peer.request()
        asked.set()
        peer.stall()

    server = raw_server(script)
    origin = HttpOrigin(server.url, timeout="100ms", retries=3)
    with pytest.raises(FetchError, match=r"no answer in time \(timeout 100.0ms, connect_timeout 10.00s\)"):
        origin(FetchRequest("x"))
    assert asked.wait(20)
    assert server.connections == 1
    origin.close()


def test_a_trickle_is_handed_on_as_it_comes(raw_server):
    """Each piece is read before the server sends the next: nothing waits until a buffer is full."""
    received = threading.Semaphore(0)
    pieces = [b"a", b"bc", b"def"]

    def script(peer) -> None:
        peer.request()
        peer.send(HEAD + b"Content-Length: 6\r\n\r\n")
        for piece in pieces:
            peer.send(piece)
            assert received.acquire(timeout=10)

    origin = HttpOrigin(raw_server(script).url)
    body = open_body(origin(FetchRequest("x")).body)
    view = memoryview(bytearray(64 * 1024))
    for piece in pieces:
        assert bytes(body.pull(view)) == piece
        received.release()
    assert len(body.pull(view)) == 0
    body.close()
    origin.close()


def test_a_trickle_of_chunks_is_handed_on_as_it_comes(raw_server):
    received = threading.Semaphore(0)

    def script(peer) -> None:
        peer.request()
        peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for piece in (b"1\r\na\r\n", b"2\r\nbc\r\n"):
            peer.send(piece)
            assert received.acquire(timeout=10)
        peer.send(b"0\r\n\r\n")

    origin = HttpOrigin(raw_server(script).url)
    result = origin(FetchRequest("x"))
    assert result.size is None
    body = open_body(result.body)
    view = memoryview(bytearray(64 * 1024))
    for piece in (b"a", b"bc"):
        assert bytes(body.pull(view)) == piece
        received.release()
    assert len(body.pull(view)) == 0
    body.close()
    origin.close()


def test_a_redirect_loop_ends(raw_server):
    def script(peer) -> None:
        while peer.request():
            peer.send(b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n")

    origin = HttpOrigin(raw_server(script).url, redirects=3)
    with pytest.raises(FetchError, match=r"redirected more often than 3 \(redirects\); it may be a loop"):
        origin(FetchRequest("x"))
    origin.close()


@pytest.mark.parametrize(
    "line", [b"\x16\x03\x01\x02\x00garbage\r\n\r\n", b"ICY 200 OK\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"]
)
def test_a_server_that_does_not_speak_http_is_told(raw_server, line):
    server = raw_server(closes_after(line))
    origin = HttpOrigin(server.url, retries=0)
    with pytest.raises(FetchError, match="the connection broke before an answer"):
        origin(FetchRequest("x"))
    origin.close()


def test_a_connection_that_breaks_before_the_answer_is_tried_again(raw_server):
    """A GET is idempotent, and kept connections are closed by servers at any moment."""
    lock, seen = threading.Lock(), []

    def script(peer) -> None:
        peer.request()
        with lock:
            seen.append(1)
            first = len(seen) == 1
        if not first:
            peer.send(HEAD + b"Content-Length: 2\r\n\r\nok")

    origin = HttpOrigin(raw_server(script).url, retries=1)
    assert read_out(origin) == b"ok"
    origin.close()


def test_a_body_that_comes_encoded_is_decoded_and_its_size_is_unknown(raw_server):
    """Though we asked for identity. The ETag is for the encoded bytes, so it is weak here."""
    packed = gzip.compress(b"hello " * 1000)
    head = HEAD + b'Content-Encoding: gzip\r\nETag: "v1"\r\nContent-Length: %d\r\n\r\n' % len(packed)
    origin = HttpOrigin(raw_server(closes_after(head + packed)).url)
    result = origin(FetchRequest("x"))
    assert (result.size, result.etag) == (None, 'W/"v1"')
    result.body.close()
    assert read_out(origin, piece=100) == b"hello " * 1000
    origin.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda packed: packed[:20], "cut short"),
        (lambda packed: b"not gzip" + packed[8:], "cannot be decoded"),
    ],
)
def test_an_encoded_body_that_is_damaged_is_an_error(raw_server, damage, message):
    packed = gzip.compress(bytes(range(256)) * 10)
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    origin = HttpOrigin(raw_server(closes_after(head + damage(packed))).url)
    with pytest.raises(FetchError, match=message):
        read_out(origin)
    origin.close()


def test_an_encoding_that_nobody_here_can_decode_is_an_error(raw_server):
    """Handing the encoded bytes on as if they were the object would be a lie."""
    origin = HttpOrigin(raw_server(closes_after(HEAD + b"Content-Encoding: secret\r\nContent-Length: 1\r\n\r\nx")).url)
    with pytest.raises(FetchError, match="comes encoded as secret"):
        origin(FetchRequest("x"))
    origin.close()
