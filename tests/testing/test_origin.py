"""The scripted origin does what the script says, and can be asked what happened."""

from __future__ import annotations

import threading

import pytest

from daramjwee.errors import FetchError, NotFound, NotModified
from daramjwee.fills.body import metadata_of, open_body, result_of
from daramjwee.model import FetchRequest, Metadata
from daramjwee.testing.origin import Gate, ScriptedOrigin


def read_out(result) -> bytes:
    body = open_body(result.body)
    view = memoryview(bytearray(64))
    try:
        return b"".join(iter(lambda: bytes(body.pull(view)), b""))
    finally:
        body.close()


def test_plain_objects_are_served_and_fetches_are_counted():
    origin = ScriptedOrigin({"a": b"alpha", "b": b""})
    result = origin(FetchRequest("a"))
    assert (result.size, read_out(result)) == (5, b"alpha")
    assert read_out(origin(FetchRequest("b"))) == b""
    with pytest.raises(NotFound, match="'c'"):
        origin(FetchRequest("c"))
    assert (origin.fetches("a"), origin.fetches("c"), origin.fetches()) == (1, 1, 3)
    assert [request.key for request in origin.requests] == ["a", "b", "c"]
    assert repr(origin) == "<ScriptedOrigin of 2 keys, 3 fetches>"


def test_every_fetch_gets_a_body_of_its_own_that_is_seen_until_it_is_closed():
    origin = ScriptedOrigin({"a": b"alpha"})
    first, second = origin(FetchRequest("a")), origin(FetchRequest("a"))
    assert origin.open_bodies == 2
    assert read_out(first) == read_out(second) == b"alpha"
    assert origin.open_bodies == 0
    with pytest.raises(ValueError, match="after it was closed"):
        next(first.body)


def test_what_is_said_of_an_object_reaches_the_result():
    origin = ScriptedOrigin()
    origin.script(
        "a",
        b"ab",
        b"c",
        etag='"v"',
        last_modified="then",
        ttl="5m",
        tags=("t",),
        attributes={"x": "y"},
        cacheable=False,
    )
    result = result_of(origin(FetchRequest("a")))
    metadata = metadata_of(result, 0.0)
    assert (metadata.size, metadata.etag, metadata.last_modified, metadata.ttl) == (3, '"v"', "then", 300.0)
    assert (metadata.tags, metadata.attributes, result.cacheable) == (("t",), {"x": "y"}, False)


@pytest.mark.parametrize("said", [0, 2, 99, None])
def test_an_origin_may_lie_about_its_size(said):
    origin = ScriptedOrigin()
    origin.script("a", b"abc", size=said)
    result = origin(FetchRequest("a"))
    assert (result.size, read_out(result)) == (said, b"abc")


def test_a_gate_stops_the_origin_until_the_test_opens_it():
    """And tells the test when somebody stands there: no sleeping on either side."""
    origin, gate, pieces = ScriptedOrigin(), Gate(), []
    origin.script("a", b"one", gate, b"two")
    body = origin(FetchRequest("a")).body
    thread = threading.Thread(target=lambda: pieces.extend(body))
    thread.start()
    gate.wait_reached()
    assert pieces == [b"one"]
    gate.open()
    thread.join()
    assert pieces == [b"one", b"two"]


def test_events_and_barriers_are_gates_too():
    origin, event, barrier = ScriptedOrigin(), threading.Event(), threading.Barrier(1)
    event.set()
    origin.script("a", event, b"one", barrier, b"two")
    assert read_out(origin(FetchRequest("a"))) == b"onetwo"


def test_a_gate_that_nobody_opens_fails_the_fetch_instead_of_hanging():
    origin = ScriptedOrigin()
    origin.script("a", Gate(patience=0.01), b"never")
    with pytest.raises(FetchError, match="nobody opened"):
        read_out(origin(FetchRequest("a")))
    with pytest.raises(AssertionError, match="no fetch has come"):
        Gate(patience=0.01).wait_reached()


@pytest.mark.parametrize("at", [0, 1, 3, 4, 6])
def test_a_failure_comes_at_its_byte(at):
    origin, received = ScriptedOrigin(), b""
    origin.script("a", b"abc", b"def", fail_at=at, error=OSError("pulled the plug"), size=6)
    body = None
    with pytest.raises(OSError, match="pulled the plug"):
        body = origin(FetchRequest("a")).body
        for piece in body:
            received += piece
    assert received == b"abcdef"[:at]


def test_an_error_that_comes_first_is_raised_by_the_fetch_itself():
    origin = ScriptedOrigin()
    origin.script("a", NotFound("gone"))
    origin.script("b", FetchError)
    with pytest.raises(NotFound, match="gone"):
        origin(FetchRequest("a"))
    with pytest.raises(FetchError):
        origin(FetchRequest("b"))
    assert (origin.fetches(), origin.open_bodies) == (2, 0)


def test_a_matching_etag_is_not_modified():
    origin = ScriptedOrigin()
    origin.script("a", b"abc", etag='"v1"')
    with pytest.raises(NotModified):
        origin(FetchRequest("a", previous=Metadata(etag='"v1"')))
    assert read_out(origin(FetchRequest("a", previous=Metadata(etag='"v0"')))) == b"abc"
    assert read_out(origin(FetchRequest("a", previous=Metadata()))) == b"abc"
    origin.script("a", b"new", etag='"v2"')
    assert read_out(origin(FetchRequest("a", previous=Metadata(etag='"v1"')))) == b"new"


@pytest.mark.parametrize("offset", [1, 3, 5, 6])
def test_a_fetch_goes_on_at_an_offset(offset):
    origin = ScriptedOrigin()
    origin.script("a", b"abc", b"def", etag='"v"')
    result = origin(FetchRequest("a", offset=offset, validator='"v"'))
    assert (result.size, read_out(result)) == (6 - offset, b"abcdef"[offset:])
    with pytest.raises(FetchError, match="has changed"):
        origin(FetchRequest("a", offset=offset, validator='"old"'))


def test_fetches_of_many_threads_are_all_counted():
    origin, start = ScriptedOrigin({"a": b"x"}), threading.Barrier(8)

    def fetch():
        start.wait(10)
        for _ in range(200):
            origin(FetchRequest("a")).body.close()

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (origin.fetches("a"), origin.open_bodies) == (1600, 0)


def test_an_error_without_its_place_is_refused():
    """It would never be raised, and the test that scripted it would prove nothing."""
    with pytest.raises(ValueError, match="fail_at"):
        ScriptedOrigin().script("a", b"abc", error=OSError("never"))
