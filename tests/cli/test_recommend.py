"""`daramjwee config recommend` of a process that tells what cannot be."""

from __future__ import annotations

import io
import json
import socket
import threading
import tomllib

import pytest

from daramjwee import Cache, FetchError, MemoryStore
from daramjwee.cli.config_recommend import judged, to_toml
from daramjwee.config import load
from daramjwee.observe import ask
from daramjwee.observe.client import decode
from daramjwee.observe.place import Folder


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What a process tells that has leased buffers larger than it pools."""
    folder = tmp_path_factory.mktemp("told")
    folder.chmod(0o700)
    with Cache(MemoryStore("16MiB"), memory_limit="64MiB") as cache:
        for number in range(300):
            cache.buffers.acquire(1_500_000).release()
            cache.set(str(number), io.BytesIO(b"x" * 1000))
        dashboard = cache.offer_dashboard(folder / "s.sock")
        return json.loads(ask(dashboard.path))


def advice(told, **changes):
    """What is printed, after it was read again as a configuration."""
    text = to_toml(judged(decode(json.dumps(told | changes).encode())))
    if "[buffers]" in text:
        load(tomllib.loads(text), environ={})
    return text


def pool_with(told, **changes):
    return [told["pools"][0] | changes, *told["pools"][1:]]


def test_what_it_tells_is_advice(told):
    """The same as the cases below without their faults."""
    assert 'max_buffer_size = "1472KiB"' in advice(told)
    assert "No setting of the pool to change" in advice(told, pools=pool_with(told, stats={}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: {"pools": []}, "tells of no pool"),
        (lambda told: {"pools": [{}]}, "missing required field"),
        (lambda told: {"pools": pool_with(told, config={"chunk_size": "soon"})}, "settings that cannot be (chunk_size)"),
        (lambda told: {"pools": pool_with(told, config={"min_buffer_size": -1})}, "settings that cannot be (min_buffer_size)"),
        (lambda told: {"pools": pool_with(told, stats=told["pools"][0]["stats"] | {"total_gets": -1})}, "total_gets = -1"),
        (lambda told: {"pools": pool_with(told, stats={"total_gets": 1e300})}, "Expected `int`"),
        (lambda told: {"pools": pool_with(told, stats={"total_gets": None})}, "Expected `int`"),
        (lambda told: {"pools": pool_with(told, stats=[1])}, "Expected `object`"),
        (lambda told: {"format": 99}, "this release knows 1: upgrade daramjwee"),
        (lambda told: {"format": "1"}, "Expected `int`"),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_document_that_cannot_be_is_an_answer_that_failed(told, change, said):
    """Not a problem of the configuration that was named, and not a traceback."""
    with pytest.raises(FetchError) as caught:
        advice(told, **change(told))
    assert said in str(caught.value)


def test_figures_of_any_size_give_a_configuration_or_none(told):
    """Whatever the counters say, what is printed can be put into a file."""
    stats = told["pools"][0]["stats"]
    for name in [name for name, value in stats.items() if type(value) is int and "pressure" not in name]:
        for figure in (0, 1, 10**6, 10**18):
            assert advice(told, pools=pool_with(told, stats=stats | {name: figure}))


@pytest.mark.parametrize(
    "answer",
    [b"", b"\xff\xfe\0", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull"],
    ids=["nothing", "noise", "null"],
)
def test_who_answers_with_anything_else_is_no_dashboard(daramjwee, tmp_path, answer):
    """Status 5: the origin of the figures failed."""
    place = tmp_path / "s.sock"
    tmp_path.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as listening, Folder(str(tmp_path)) as folder:
        listening.bind(folder.address(place.name))
        listening.listen()

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:  # the test is over
                    return
                with connection:
                    connection.recv(10_000)
                    connection.sendall(answer)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        ran = daramjwee("config", "recommend", place)
        listening.shutdown(socket.SHUT_RDWR)
        server.join(30)
        assert not server.is_alive()
    assert (ran.returncode, ran.stdout) == (5, b"")
    assert b"no dashboard" in ran.stderr or b"could not ask" in ran.stderr
