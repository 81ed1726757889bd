"""A pool that offers its dashboard, processes that do, and a client that sends what it likes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daramjwee import AdaptiveBufferPool, BufferPoolConfig
from daramjwee.observe import offer_dashboard
from daramjwee.observe.place import Folder, connect

SOURCE = Path(__file__).parents[2] / "src"
SECONDS = 50

# Offers, says where, and stays until it is told to end, or killed.
PROGRAM = """
import io, os, signal, sys
from daramjwee import Cache, FileStore
cache = Cache(FileStore(sys.argv[1], capacity="64MiB"))
cache.set("k", bytes(300_000))
cache.buffers.copy(io.BytesIO(cache.get("k")), io.BytesIO(), 300_000)
print(cache.offer_dashboard().path, flush=True)
{more}
sys.stdin.readline()
"""


class Process:
    """A running `PROGRAM`. `path`: of its socket."""

    def __init__(self, folder, more=""):
        self.process = subprocess.Popen(
            # A fork beside threads is what some of them are for.
            [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", PROGRAM.format(more=more), folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(SOURCE)},
        )  # fmt: skip
        self.pid = self.process.pid
        self.path = self.line()

    def line(self):
        return self.process.stdout.readline().strip()

    def end(self):
        """As it ends by itself; its exit status."""
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate("\n", timeout=SECONDS)
        return self.process.returncode

    def kill(self):
        self.process.kill()
        self.end()


@pytest.fixture
def start():
    """`start(folder)`: a process that offers the dashboard of a cache with a file tier there."""
    running = []

    def start(folder, more=""):
        running.append(Process(folder, more))
        return running[-1]

    yield start
    for process in running:
        if process.process.poll() is None:
            process.kill()
        for pipe in (process.process.stdin, process.process.stdout):
            pipe.close()


@pytest.fixture
def pool():
    with AdaptiveBufferPool(BufferPoolConfig(enable_detailed_metrics=True)) as pool:
        yield pool


@pytest.fixture
def place(tmp_path):
    """A folder of our own."""
    folder = tmp_path / "place"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def dashboard(pool, place):
    with offer_dashboard(pool, place) as dashboard:
        yield dashboard


def open_client(path, timeout=SECONDS):
    """A connection to the socket, for tests that speak for themselves."""
    with Folder(os.path.dirname(path)) as folder:
        return connect(folder, os.path.basename(path), timeout)


@pytest.fixture
def client():
    """`client(path)`: a connection that is closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda path: stack.enter_context(open_client(path))


@pytest.fixture
def send():
    """`send(path, request)`: all that is answered."""

    def send(path, request):
        with open_client(path) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    return send
