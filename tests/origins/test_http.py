"""`HttpOrigin` against servers that behave."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading

import pytest

from daramjwee.bench.origin import synthetic_bytes
from daramjwee.errors import Closed, ConfigError, FetchError, NotFound, NotModified
from daramjwee.fills.body import metadata_of, open_body
from daramjwee.model import FetchRequest, FetchResult, Metadata
from daramjwee.origins import HttpOrigin
from daramjwee.testing.leaks import no_leaks


@pytest.fixture
def origin(real_origin):
    origin = HttpOrigin(real_origin.url)
    yield origin
    origin.close()


def read_out(result: FetchResult, piece: int = 64 * 1024) -> bytes:
    body = open_body(result.body)
    view = memoryview(bytearray(piece))
    pieces = []
    while len(data := body.pull(view)):
        pieces.append(bytes(data))
    body.close()
    return b"".join(pieces)


def ok(body: bytes, *headers: str, status: str = "200 OK", length: int | None = -1) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length == -1 else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answers(*responses: bytes):
    """A script that gives one response to each request of a connection; the last one again and again."""
    seen = []

    def script(peer) -> None:
        while head := peer.request():
            seen.append(head)
            peer.send(responses[min(len(seen), len(responses)) - 1])

    script.seen = seen
    return script


def test_a_whole_object_comes_with_what_the_server_says_of_it(real_origin, origin):
    """Bytes, size, ETag, Last-Modified and content type are the server's."""
    result = origin(FetchRequest("big"))
    assert result.size == 3 * 1024 * 1024
    assert result.etag.startswith('"') and result.last_modified.endswith("GMT")
    assert result.attributes == {"content-type": "application/octet-stream"}
    assert result.cacheable and result.ttl is None
    assert hashlib.sha256(read_out(result)).hexdigest() == real_origin.digest("big")


@pytest.mark.parametrize(
    ("key", "data"), [("empty", b""), ("hello.txt", b"hello, world"), ("a b?c#d%20e.txt", b"odd name")]
)
def test_any_text_is_a_key_below_a_base(origin, key, data):
    """Characters that mean something in a URL are escaped; they reach the server as part of the name."""
    result = origin(FetchRequest(key))
    assert result.size == len(data)
    assert read_out(result) == data


def test_without_a_base_keys_are_urls_and_key_may_make_them(real_origin):
    origin = HttpOrigin()
    assert read_out(origin(FetchRequest(real_origin.object_url("hello.txt")))) == b"hello, world"
    origin.close()
    origin = HttpOrigin(key=lambda key: f"{real_origin.url}/{key}?signature=secret")
    assert read_out(origin(FetchRequest("hello.txt"))) == b"hello, world"
    origin.close()


@pytest.mark.parametrize("key", ["../secret", "a/../../b", ".", "a/./b"])
def test_no_key_leads_out_of_the_base(origin, key):
    """Dot segments would be resolved by client or server: such a key names no object."""
    with pytest.raises(NotFound, match="is not below"):
        origin(FetchRequest(key))


@pytest.mark.parametrize("key", ["no url", "ftp://host/x", "http://", "http://h:99999/x", "http://h/a\r\nX: y"])
def test_a_key_that_is_no_url_is_refused_with_the_reason(key):
    origin = HttpOrigin()
    with pytest.raises(FetchError, match="cannot be fetched: the URL"):
        origin(FetchRequest(key))
    origin.close()


def test_a_missing_object_is_not_found(origin):
    with pytest.raises(NotFound, match="404"):
        origin(FetchRequest("missing"))


def test_an_unchanged_object_is_not_modified(origin):
    """`previous` becomes a conditional request, by ETag or by date."""
    metadata = metadata_of(origin(FetchRequest("hello.txt")), now=0.0)
    with pytest.raises(NotModified):
        origin(FetchRequest("hello.txt", previous=metadata))
    with pytest.raises(NotModified):
        origin(FetchRequest("hello.txt", previous=Metadata(last_modified=metadata.last_modified)))
    changed = origin(FetchRequest("hello.txt", previous=Metadata(etag='"another"')))
    assert read_out(changed) == b"hello, world"


def test_a_fetch_goes_on_at_an_offset_while_the_validator_matches(origin):
    etag = origin(FetchRequest("big")).etag
    result = origin(FetchRequest("big", offset=1_000_001, validator=etag))
    assert result.size == 3 * 1024 * 1024 - 1_000_001
    assert read_out(result) == synthetic_bytes("big", 1_000_001, 3 * 1024 * 1024)


@pytest.mark.parametrize("validator", ['"another"', None, 'W/"weak"'])
def test_a_fetch_does_not_go_on_in_other_bytes(origin, validator):
    """A validator that does not match, or proves nothing, is an error: a mixture would be worse."""
    with pytest.raises(FetchError, match="cannot be continued at 100"):
        origin(FetchRequest("big", offset=100, validator=validator))


def test_a_fetch_does_not_go_on_past_the_end(origin):
    etag = origin(FetchRequest("hello.txt")).etag
    with pytest.raises(FetchError, match="cannot be continued"):
        origin(FetchRequest("hello.txt", offset=500, validator=etag))


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Range: bytes 3-9/10",),
        ("Content-Range: bytes 5-8/10",),
        (),
        ("Content-Range: bytes 5-9/10", 'ETag: "other"'),
        ("Content-Range: bytes 5-9/10", "Content-Encoding: gzip"),
    ],
)
def test_a_part_that_is_not_the_rest_is_refused(raw_server, headers):
    """A 206 is checked against what was asked for before a byte of it is used."""
    server = raw_server(answers(ok(b"56789", *headers, status="206 Partial Content")))
    origin = HttpOrigin(server.url)
    with pytest.raises(FetchError, match="cannot be continued at 5"):
        origin(FetchRequest("x", offset=5, validator='"v"'))
    origin.close()


def test_a_part_that_nobody_asked_for_is_refused(raw_server):
    server = raw_server(answers(ok(b"01", "Content-Range: bytes 0-1/10", status="206 Partial Content")))
    origin = HttpOrigin(server.url)
    with pytest.raises(FetchError, match="206"):
        origin(FetchRequest("x"))
    origin.close()


@pytest.mark.parametrize("status", [400, 401, 403, 416, 418, 500])
def test_an_error_status_is_a_fetch_error_that_names_it(raw_server, status):
    server = raw_server(answers(ok(b"why", status=f"{status} Some Reason")))
    origin = HttpOrigin(server.url)
    with pytest.raises(FetchError, match=f"answered {status} Some Reason"):
        origin(FetchRequest("x"))
    assert server.connections == 1
    origin.close()


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_that_fails_is_asked_again(raw_server, status):
    """Bounded: as often as `retries` says, then the status is told."""
    failing, good = ok(b"busy", status=f"{status} Bad"), ok(b"good")
    script = answers(failing, good)
    origin = HttpOrigin(raw_server(script).url, retries=1)
    assert read_out(origin(FetchRequest("x"))) == b"good"
    origin.close()
    script = answers(failing)
    origin = HttpOrigin(raw_server(script).url, retries=1)
    with pytest.raises(FetchError, match=f"answered {status}"):
        origin(FetchRequest("x"))
    assert len(script.seen) == 2
    origin.close()


def test_a_server_that_asks_for_too_much_patience_gets_none(raw_server):
    """A Retry-After of hours is told to the caller at once, who decides."""
    script = answers(ok(b"", "Retry-After: 7200", status="503 Later"))
    origin = HttpOrigin(raw_server(script).url, retries=5)
    with pytest.raises(FetchError, match="answered 503 Later; Retry-After: 7200"):
        origin(FetchRequest("x"))
    assert len(script.seen) == 1
    origin.close()


@pytest.mark.parametrize(
    ("header", "cacheable", "ttl"),
    [
        ("Cache-Control: max-age=60", True, 60.0),
        ("Cache-Control: no-store", False, None),
        ("Vary: *", False, None),
    ],
)
def test_what_the_server_allows_to_be_kept_reaches_the_result(raw_server, header, cacheable, ttl):
    origin = HttpOrigin(raw_server(answers(ok(b"x", header))).url)
    result = origin(FetchRequest("x"))
    assert (result.cacheable, result.ttl) == (cacheable, ttl)
    assert read_out(result) == b"x"
    origin.close()


def test_one_connection_serves_one_fetch_after_another(raw_server):
    """A connection is given back when its body was read out; one that was left is closed, not reused."""
    server = raw_server(answers(ok(b"x" * 1000)))
    origin = HttpOrigin(server.url)
    for _ in range(5):
        assert read_out(origin(FetchRequest("x"))) == b"x" * 1000
    assert server.connections == 1
    left = origin(FetchRequest("x"))
    assert left.body.read1(10) == b"x" * 10
    left.body.close()
    assert read_out(origin(FetchRequest("x"))) == b"x" * 1000
    assert server.connections == 2
    origin.close()


def test_redirects_are_followed_and_secrets_stay_with_their_host(raw_server):
    """A header given to HttpOrigin, and the userinfo of its URL, go to no other host."""
    there = answers(ok(b"there"))
    other = raw_server(there)
    here = answers(ok(b"", f"Location: {other.url}/moved", status="302 Found"))
    server = raw_server(here)
    origin = HttpOrigin(server.url.replace("http://", "http://me:pass%40word@"), headers={"X-Api-Key": "s3cret"})
    assert read_out(origin(FetchRequest("x"))) == b"there"
    origin.close()
    first, second = here.seen[0].lower(), there.seen[0].lower()
    assert b"x-api-key: s3cret" in first and b"authorization: basic bwu6cgfzc0b3b3jk" in first
    assert b"s3cret" not in second and b"authorization" not in second


def test_no_secret_is_shown_in_errors_reprs_and_logs(raw_server, caplog):
    """Userinfo, query values and headers are nowhere: not in the error, its causes, the repr, or any log."""
    caplog.set_level(logging.DEBUG)
    server = raw_server(answers(ok(b"", "Location: /loop?sig=HIDDEN4", status="302 Found")))
    origin = HttpOrigin(headers={"Authorization": "HIDDEN1"}, redirects=2)
    url = server.url.replace("http://", "http://HIDDEN2:HIDDEN2@") + "/x?token=HIDDEN3"
    with pytest.raises(FetchError, match=r"/x\?token=\*\*\*: redirected more often than 2") as caught:
        origin(FetchRequest(url))
    shown = [repr(origin), caplog.text]
    error: BaseException | None = caught.value
    while error is not None:
        shown += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    assert "HIDDEN" not in "\n".join(shown)
    assert "/loop?sig=***" in caplog.text  # urllib3 did log it: otherwise this test would prove nothing
    origin.close()


def test_logs_of_others_who_use_urllib3_are_left_alone(raw_server, caplog):
    import urllib3

    caplog.set_level(logging.DEBUG)
    HttpOrigin().close()
    server = raw_server(answers(ok(b"x")))
    with urllib3.PoolManager() as manager:
        manager.request("GET", server.url + "/x?theirs=1")
    assert "/x?theirs=1" in caplog.text


def test_wrong_arguments_are_reported_all_at_once():
    with pytest.raises(ConfigError) as caught:
        HttpOrigin(
            "ftp://me:pass@host/", headers={"A": "x\r\nB: y", "Range": "z"}, timeout="soon", connect_timeout=0,
            retries=-1, redirects=True, key="no function", pool_size=0, verify="/no/such/bundle",
        )  # fmt: skip
    fields = [problem.field for problem in caught.value.problems]
    assert fields == [
        "timeout", "connect_timeout", "retries", "redirects", "pool_size", "base", "headers['A']", "headers['Range']",
        "key", "verify",
    ]  # fmt: skip
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize("base", ["http://host/?a=1", "http://host/#f", "host", 5, "http://host:0/"])
def test_a_base_that_keys_cannot_follow_is_refused(base):
    with pytest.raises(ConfigError, match="base"):
        HttpOrigin(base)


def test_the_error_names_the_extra_when_the_client_library_is_missing():
    """And `import daramjwee.origins` needs none of it."""
    code = (
        "import sys; sys.modules['urllib3'] = None\n"
        "from daramjwee.origins import HttpOrigin\n"
        "try: HttpOrigin()\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=child_environment())
    assert "pip install 'daramjwee[http]'" in done.stdout, done.stderr


def child_environment() -> dict[str, str]:
    import daramjwee

    return {**os.environ, "PYTHONPATH": os.path.dirname(daramjwee.__path__[0])}


def test_a_closed_origin_says_so(real_origin):
    origin = HttpOrigin(real_origin.url)
    origin.close()
    origin.close()
    with pytest.raises(Closed, match="was closed"):
        origin(FetchRequest("hello.txt"))
    assert repr(origin) == f"<HttpOrigin {real_origin.url}, closed>"


def test_nothing_is_left_open_by_fetches_read_left_and_refused(real_origin):
    with no_leaks(descriptors=True):
        origin = HttpOrigin(real_origin.url)
        read_out(origin(FetchRequest("big")))
        origin(FetchRequest("big")).body.close()
        with pytest.raises(NotFound):
            origin(FetchRequest("missing"))
        origin.close()


def test_many_threads_fetch_at_once(real_origin, origin):
    """One connection each, kept for the next; nobody gets another's bytes."""
    start, wrong = threading.Barrier(8), []

    def fetch(number: int) -> None:
        start.wait(20)
        for turn in range(5):
            offset = 1000 * number + turn + 1
            result = origin(FetchRequest("big", offset=offset, validator=etag))
            if read_out(result) != synthetic_bytes("big", offset, 3 * 1024 * 1024):
                wrong.append(offset)

    first = origin(FetchRequest("big"))
    etag = first.etag
    first.body.close()
    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_forked_child_closes_the_origin_whatever_the_parent_was_doing(origin):
    """Another thread may hold the lock at the fork, and is not there in the child to let go of it."""
    with origin._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a child that waits for that lock ends by it
            try:
                origin.close()
                os._exit(0)
            except BaseException:
                os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_makes_connections_of_its_own(real_origin, origin):
    """On a shared one it would read its parent's answers."""
    read_out(origin(FetchRequest("hello.txt")))
    parents = origin._manager
    child = os.fork()
    if child == 0:
        status = 1
        try:
            good = read_out(origin(FetchRequest("hello.txt"))) == b"hello, world"
            status = 0 if good and origin._manager is not parents else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read_out(origin(FetchRequest("hello.txt"))) == b"hello, world"
    assert origin._manager is parents


def test_interrupted_while_the_answer_is_checked_the_connection_is_closed(raw_server, monkeypatch):
    """Ctrl-C at any point leaves nothing open."""
    server = raw_server(answers(ok(b"x")))
    origin = HttpOrigin(server.url)

    def interrupted(*_):
        raise KeyboardInterrupt

    with no_leaks(threads=False):
        monkeypatch.setattr(HttpOrigin, "_check_status", interrupted)
        with pytest.raises(KeyboardInterrupt):
            origin(FetchRequest("x"))
        monkeypatch.undo()
        assert read_out(origin(FetchRequest("x"))) == b"x"
    assert server.connections == 2
    origin.close()


def test_a_key_function_that_gives_no_text_is_told():
    origin = HttpOrigin(key=lambda key: key.encode())
    with pytest.raises(FetchError, match="gave a bytes: it must return a URL or path as str"):
        origin(FetchRequest("x"))
    origin.close()


def test_a_bundle_of_certificates_and_none_at_all_may_be_chosen(tmp_path):
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("")
    for verify in (str(bundle), False):
        HttpOrigin("https://host/", verify=verify).close()


def test_an_origin_may_be_handed_to_another_process(real_origin):
    """Its arguments go along, its connections do not."""
    origin = HttpOrigin(real_origin.url, headers={"X-Key": "k"}, timeout="3s", retries=1, redirects=4, pool_size=2)
    read_out(origin(FetchRequest("hello.txt")))
    handed = pickle.loads(pickle.dumps(origin))
    assert read_out(handed(FetchRequest("hello.txt"))) == b"hello, world"
    assert handed.__reduce__()[1] == origin.__reduce__()[1]
    assert handed._manager is not origin._manager
    handed.close()
    origin.close()
