"""Requests and their answers."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from daramjwee.observe.wire import MOST_HEAD, REQUEST, answer, body_of, is_whole

CURL = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\n\r\n"


def document():
    return HTTPStatus.OK, b'{"format":1}'


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (REQUEST, 200),
        (CURL, 200),
        (b"GET /?x=1 HTTP/1.0\n\n", 200),
        (b"HEAD / HTTP/1.0\r\n\r\n", 200),
        (b"GET /favicon.ico HTTP/1.0\r\n\r\n", 404),
        (b"POST /x HTTP/1.0\r\n\r\n", 404),
        (b"GET //etc/passwd HTTP/1.0\r\n\r\n", 404),
        (b"POST / HTTP/1.0\r\n\r\n", 405),
        (b"BREW / HTTP/1.0\r\n\r\n", 405),
        (b"GET / HTTP/1.0", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"get / http/1.0\r\n\r\n", 400),
        (b"GET " + b"/" * 3000 + b" HTTP/1.0\r\n\r\n", 400),
        (b"x" * (MOST_HEAD + 1), 431),
    ],
)
def test_each_request_has_its_status(request_, status):
    """GET / is all there is."""
    told, body = body_of(answer(request_, document))
    assert told == status
    assert body == (b"" if request_.startswith(b"HEAD") else body)
    assert (body == document()[1]) is (status == 200 and request_.startswith(b"GET"))


def test_the_length_and_the_kind_are_said_and_nothing_is_kept():
    """For programs that look at headers."""
    head = answer(CURL, document).partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"HTTP/1.0 200 OK"
    assert {b"Content-Type: application/json", b"Content-Length: 12", b"Cache-Control: no-store"} <= set(head)
    assert b"Allow: GET, HEAD" in answer(b"PUT / HTTP/1.0\r\n\r\n", document)


def test_a_document_is_made_only_for_who_gets_it():
    """Making one costs something."""

    def never():
        raise AssertionError("nobody asked for it")

    for request in (b"GET /x HTTP/1.0\r\n\r\n", b"POST / HTTP/1.0\r\n\r\n", b"nonsense\n\n", b"x" * (MOST_HEAD + 1)):
        answer(request, never)


@pytest.mark.parametrize("head", [b"", b"GET / HTTP/1.0\r\n", b"GET / HTTP/1.0\r\nHost: x\r\n"])
def test_a_request_is_waited_for_until_its_head_ends(head):
    """Or is longer than any that makes sense."""
    assert not is_whole(head)
    assert is_whole(head + b"\r\n\r\n")
    assert is_whole(head + b"x" * MOST_HEAD + b"x")


@pytest.mark.parametrize("received", [b"", b"nonsense", b"HTTP/1.0 200 OK\r\n", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"])
def test_what_is_no_answer_is_refused(received):
    """Somebody else's socket."""
    with pytest.raises(ValueError, match="does not speak HTTP"):
        body_of(received)
