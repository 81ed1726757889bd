"""Origins that misbehave on purpose: a raw socket server with one script a connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from daramjwee.bench.origin import OriginProcess, slow_origin

PATIENCE_SECONDS = 20.0


class Peer:
    """The server's end of one connection, as a script sees it."""

    def __init__(self, connection: socket.socket, released: threading.Event) -> None:
        self.socket = connection
        self.released = released

    def request(self) -> bytes:
        """The head of the next request; empty when the client has gone."""
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.socket.recv(65536)
            if not piece:
                return b""
            head += piece
        return head

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reset(self) -> None:
        """End the connection as a crashed machine would: with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    def stall(self) -> None:
        """Say nothing more until the test is over."""
        self.released.wait(PATIENCE_SECONDS)


class RawServer:
    """Runs `script(peer)` for each connection, in a thread; keeps the heads of the requests it saw."""

    def __init__(self, script: Callable[[Peer], None]) -> None:
        self.released = threading.Event()
        self.connections = 0
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept, name="raw server")
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self.released.is_set():
                connection.close()
                return
            self.connections += 1
            connection.settimeout(PATIENCE_SECONDS)
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), name="raw server's connection")
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._script(Peer(connection, self.released))
            except OSError:
                return  # the client has left, or the test is over

    def close(self) -> None:
        self.released.set()
        socket.create_connection(("127.0.0.1", self.port)).close()  # wakes accept
        self._acceptor.join(PATIENCE_SECONDS)
        self._listener.close()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed by its script already
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)


@pytest.fixture
def raw_server() -> Iterator[Callable[[Callable[[Peer], None]], RawServer]]:
    """Starts raw servers; all end with the test."""
    with ExitStack() as stack:

        def start(script: Callable[[Peer], None]) -> RawServer:
            server = RawServer(script)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture(scope="session")
def real_origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OriginProcess]:
    """The benchmark's origin, unpaced: a well-behaved HTTP/1.1 server in another process."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "hello.txt").write_bytes(b"hello, world")
    (folder / "empty").write_bytes(b"")
    (folder / "a b?c#d%20e.txt").write_bytes(b"odd name")
    with slow_origin(folder, synthetic={"big": "3MiB"}) as origin:
        yield origin
