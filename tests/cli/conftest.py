"""A server that behaves as each test asks, and the command line in processes of its own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
BODY = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(20_000))
SECONDS = 50
# How often a server looks whether it is to end: by default a test waits half a second for that.
POLL_SECONDS = 0.01


class Handler(BaseHTTPRequestHandler):
    """What the path's first part says: whole, cut (ends early), stall (stops half-way), nostore, broken."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.seen.append(self.path)
        kind = self.path.split("/")[1].partition("?")[0]
        if kind not in {"whole", "cut", "stall", "nostore"}:
            self.send_response(500 if kind == "broken" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        tag = hashlib.sha256(server.body).hexdigest()
        fresh = self.headers.get("If-None-Match") == f'"{tag}"'
        self.send_response(304 if fresh else 200)
        self.send_header("ETag", f'"{tag}"')
        if kind == "nostore":
            self.send_header("Cache-Control", "no-store")
        if not fresh:
            self.send_header("Content-Length", str(len(server.body)))
        self.end_headers()
        if fresh:
            return
        half = len(server.body) // 2
        self.wfile.write(server.body[:half])
        self.wfile.flush()
        if kind == "cut":
            self.close_connection = True
            return
        if kind == "stall":
            server.half_sent.set()
            server.go_on.wait(SECONDS)
        try:
            self.wfile.write(server.body[half:])
        except OSError:
            self.close_connection = True  # the client was ended by the test

    def log_message(self, format, *args):
        """Stay quiet: pytest's output is for pytest."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Clients that are interrupted break their connections."""


class Origin:
    """A running server. `seen`: the paths asked for. `stop` takes it down."""

    def __init__(self):
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.body = BODY
        self.server.seen = []
        self.server.half_sent = threading.Event()
        self.server.go_on = threading.Event()
        self.thread = threading.Thread(target=self.server.serve_forever, args=(POLL_SECONDS,), daemon=True)
        self.thread.start()
        self.running = True

    def url(self, kind, name="object.bin"):
        return f"http://127.0.0.1:{self.server.server_address[1]}/{kind}/{name}"

    @property
    def seen(self):
        return self.server.seen

    def stop(self):
        if self.running:
            self.running = False
            self.server.go_on.set()
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()


@pytest.fixture
def origin():
    """An origin of its own for each test."""
    running = Origin()
    yield running
    running.stop()


class Starter:
    """Runs command lines one at a time, each in a process that `starter.py` forks: it takes a tenth of the time."""

    def __init__(self, environment):
        self.environment = environment
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("starter.py")), str(theirs.fileno())],
                pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.end = ours
        self.busy = threading.Lock()

    def serves(self, environment):
        """Whether a process that it forks is as one that is started: what counts at the start is as it was."""
        return all(
            environment.get(name) == self.environment.get(name)
            for name in {*environment, *self.environment}
            if name.startswith(("PYTHON", "LC_", "LANG", "TERM", "MALLOC"))
        )

    def run(self, arguments, environment):
        line = ["daramjwee", *arguments]
        with self.busy, ThreadPoolExecutor(2) as readers, open(os.devnull, "rb") as nothing:
            read_ends, write_ends = zip(os.pipe(), os.pipe(), strict=True)
            request = {"arguments": arguments, "environment": environment, "folder": os.getcwd()}
            socket.send_fds(self.end, [json.dumps(request).encode()], [nothing.fileno(), *write_ends])
            for descriptor in write_ends:
                os.close(descriptor)
            output, errors = [readers.submit(read_all, descriptor) for descriptor in read_ends]
            self.end.settimeout(SECONDS)
            pid = int(self.end.recv(100))
            try:
                status = os.waitstatus_to_exitcode(int(self.end.recv(100)))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self.end.recv(100)
                raise subprocess.TimeoutExpired(line, SECONDS, output.result(), errors.result()) from None
            return subprocess.CompletedProcess(line, status, output.result(SECONDS), errors.result(SECONDS))

    def stop(self):
        self.end.close()
        self.process.wait(SECONDS)


def read_all(descriptor):
    with open(descriptor, "rb") as file:
        return file.read()


@pytest.fixture(scope="session")
def starter(tmp_path_factory):
    """One for all tests, in a home of its own."""
    running = Starter(Command(tmp_path_factory.mktemp("home")).environment())
    yield running
    running.stop()


class Command:
    """`daramjwee ARGUMENTS`, in a new process without a terminal; nothing is inherited from the user's own cache."""

    def __init__(self, home, starter=None):
        self.home = home
        self.starter = starter

    def environment(self):
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        kept.pop("PYTHONUNBUFFERED", None)
        return kept | {"PYTHONPATH": str(SOURCE), "HOME": str(self.home), "XDG_CACHE_HOME": "", "COLUMNS": "100"}

    def line(self, *arguments):
        return [sys.executable, "-m", "daramjwee", *map(str, arguments)]

    def __call__(self, *arguments, stdout=subprocess.PIPE, **options):
        environment = self.environment()
        plain = stdout is subprocess.PIPE and not options
        if plain and self.starter is not None and self.starter.serves(environment):
            return self.starter.run([*map(str, arguments)], environment)
        return subprocess.run(
            self.line(*arguments), env=self.environment(), stdout=stdout, stderr=subprocess.PIPE, timeout=SECONDS,
            stdin=subprocess.DEVNULL, **options,
        )  # fmt: skip

    def redirected(self, how, *arguments):
        """As a shell runs it with a redirection such as ">&-"."""
        return subprocess.run(
            ["sh", "-c", f'exec "$@" {how}', "sh", *self.line(*arguments)], env=self.environment(),
            capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, *arguments):
        return subprocess.Popen(
            self.line(*arguments), env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Where the cache is."""
    return tmp_path / "cache"


# Where commands are started as a shell starts them: what is tested there is the start, or takes longer than it.
STARTED = ("test_main", "test_output", "test_bench", "test_demo", "test_regress")


@pytest.fixture
def daramjwee(request, tmp_path):
    """The command line."""
    home = tmp_path / "home"
    home.mkdir()
    started = request.module.__name__.rpartition(".")[2] in STARTED
    return Command(home, None if started else request.getfixturevalue("starter"))
