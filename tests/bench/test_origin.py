"""The slow origin serves what it says, counts it, and ends with whoever started it."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import subprocess
import sys
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

import daramjwee
from daramjwee.bench.origin import slow_origin, synthetic_bytes, synthetic_digest

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("served")
    (made / "sub").mkdir()
    (made / "sub" / "a b.txt").write_bytes(b"hello, world")
    (made / "out").symlink_to("/etc/hostname")
    return made


@pytest.fixture(scope="module")
def origin(folder):
    with slow_origin(folder, synthetic={"big": "2MiB", "sub/odd": 1_000_003}) as origin:
        yield origin


@pytest.fixture
def ask(origin):
    connection = http.client.HTTPConnection("127.0.0.1", origin.port, timeout=20)

    def ask(path: str, method: str = "GET", **headers: str):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        response = connection.getresponse()
        return response.status, response.headers, response.read()

    yield ask
    connection.close()


@given(
    start=st.one_of(st.integers(0, 3 * MIB), st.integers(MIB - 20, MIB + 20)),
    size=st.one_of(st.integers(0, 40), st.integers(0, MIB + 30)),
    cut=st.integers(0, 40),
)
def test_any_part_of_a_synthetic_object_is_the_same_as_cut_from_the_whole(start, size, cut):
    part = synthetic_bytes("x", start, start + size)
    assert len(part) == size
    middle = start + min(cut, size)
    assert synthetic_bytes("x", start, middle) + synthetic_bytes("x", middle, start + size) == part


def test_no_two_blocks_and_no_two_names_are_the_same():
    blocks = {hashlib.sha256(synthetic_bytes(name, i * MIB, (i + 1) * MIB)).digest() for name in "ab" for i in range(4)}
    assert len(blocks) == 8


def test_the_digest_is_known_without_a_transfer(origin, ask):
    for name, size in (("big", 2 * MIB), ("sub/odd", 1_000_003)):
        status, headers, body = ask(f"/{name}")
        assert (status, headers["Content-Length"], len(body)) == (200, str(size), size)
        assert hashlib.sha256(body).hexdigest() == origin.digest(name) == synthetic_digest(name, size)


def test_files_are_served_and_nothing_outside_of_the_folder(origin, ask):
    assert ask("/sub/a%20b.txt")[2] == b"hello, world"
    assert origin.object_url("sub/a b.txt").endswith("/sub/a%20b.txt")
    for path in ("/missing", "/", "/sub", "/../secret", "/%2e%2e/x", "/out", "/a%00b", "/-/missing"):
        assert ask(path)[0] == 404, path


def test_head_and_conditions_and_ranges_are_answered_as_http_says(ask):
    status, headers, body = ask("/big", "HEAD")
    etag, date = headers["ETag"], headers["Last-Modified"]
    assert (status, headers["Content-Length"], body) == (200, str(2 * MIB), b"")
    assert ask("/big", If_None_Match=etag)[0] == 304
    assert ask("/big", If_None_Match=f'"x", W/{etag}')[0] == 304
    assert ask("/big", If_None_Match='"x"')[0] == 200
    assert ask("/big", If_Modified_Since=date)[0] == 304
    assert ask("/big", If_Modified_Since="Thu, 01 Jan 1970 00:00:00 GMT")[0] == 200
    assert ask("/big", If_Modified_Since="no date")[0] == 200
    status, headers, body = ask("/big", Range="bytes=10-19")
    assert (status, headers["Content-Range"], body) == (206, f"bytes 10-19/{2 * MIB}", synthetic_bytes("big", 10, 20))
    assert ask("/big", Range="bytes=-5")[2] == synthetic_bytes("big", 2 * MIB - 5, 2 * MIB)
    assert ask("/big", Range=f"bytes={2 * MIB - 3}-", If_Range=etag)[2] == synthetic_bytes("big", 2 * MIB - 3, 2 * MIB)
    assert ask("/big", Range="bytes=5-", If_Range='"x"')[0] == 200
    assert ask("/big", Range="bytes=5-2")[0] == 416
    assert ask("/big", Range=f"bytes={2 * MIB}-")[0] == 416
    for odd in ("bytes=a-b", "bytes=1-2,4-5", "lines=1-2", "bytes=-"):
        assert ask("/big", Range=odd)[0] == 200, odd


def test_get_requests_are_counted_by_path_until_reset(origin, ask):
    origin.reset()
    ask("/big")
    ask("/big", Range="bytes=0-1")
    ask("/big", "HEAD")
    ask("/missing")
    assert origin.counts() == {"/big": 2, "/missing": 1}
    origin.reset()
    assert origin.counts() == {}


def test_a_response_takes_as_long_as_its_bandwidth_says():
    """At least: how much longer depends on the machine. 4 MB at 20 MB/s are 0.2 s, less the first slice."""
    with slow_origin(synthetic={"x": 4_000_000}, latency="50ms", bandwidth="20MB") as origin:
        connection = http.client.HTTPConnection("127.0.0.1", origin.port, timeout=20)
        began = monotonic()
        connection.request("GET", "/x")
        response = connection.getresponse()
        first_byte = monotonic() - began
        assert len(response.read()) == 4_000_000
        whole = monotonic() - began
        connection.close()
    assert first_byte >= 0.05
    assert whole >= 0.05 + 0.19


def test_it_ends_when_it_is_closed_and_says_so(folder):
    origin = slow_origin(folder)
    assert repr(origin) == f"<OriginProcess {origin.url}, running>"
    origin.close()
    origin.close()
    assert repr(origin) == f"<OriginProcess {origin.url}, ended>"


def test_it_ends_when_whoever_started_it_is_killed():
    """Its standard input ends with the parent, whatever became of the parent."""
    code = (
        "import sys, time\n"
        "from daramjwee.bench.origin import slow_origin\n"
        "origin = slow_origin(synthetic={'x': 1})\n"
        "print(origin._process.pid, flush=True)\n"
        "sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(daramjwee.__path__[0])}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as parent:
        pid = int(parent.stdout.readline())
        watch = os.pidfd_open(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        import select

        assert select.select([watch], [], [], 20)[0], "the origin outlived whoever started it"
        os.close(watch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folder", "/no/such"], "no such folder"),
        (["--bandwidth", "0"], "more than 0"),
        (["--bandwidth", "fast"], "give bytes"),
        (["--latency", "long"], "give seconds"),
        (["--synthetic", "x"], "give bytes"),
    ],
)
def test_wrong_arguments_are_told(arguments, message, capsys):
    from daramjwee.bench.origin_server import main

    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_origin_that_cannot_start_raises_with_its_status():
    with pytest.raises(RuntimeError, match="ended at once, with status 2"):
        slow_origin("/no/such/folder")
