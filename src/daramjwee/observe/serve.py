"""Answering on a socket, one thread for all clients: none of them can hold up another, or the end.

Invariant: at most `MOST_CLIENTS` are connected, each for at most `CLIENT_SECONDS`, with at most `MOST_HEAD` bytes of its
request and one answer in memory. Whatever a client sends, only its own connection ends.
Threads: `run` is one thread; `stop` may come from any; `abandon` from a forked child, where that thread is not.
Design: docs/monitoring.md
"""

from __future__ import annotations

import select
import socket
from time import monotonic
from typing import TYPE_CHECKING

from daramjwee.observe.wire import is_whole

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_CLIENTS = 16
CLIENT_SECONDS = 5.0
# No more descriptors: connections wait so long before they are accepted again.
DEAF_SECONDS = 1.0
READ_BYTES = 16 * 1024
# What a client may go on sending after it was answered, so that closing does not tear the answer away from it.
MOST_REST = 1024 * 1024
# The process may have SIGPIPE at its default: a client that goes away must not end it.
_QUIET = getattr(socket, "MSG_NOSIGNAL", 0)


class _Client:
    """One connection: its request is read, its answer written, and the rest of what it sends thrown away."""

    __slots__ = ("deadline", "head", "reply", "rest", "socket")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.deadline = monotonic() + CLIENT_SECONDS
        self.head = bytearray()
        self.reply: memoryview | None = None
        self.rest = 0

    @property
    def events(self) -> int:
        return select.POLLOUT if self.reply else select.POLLIN

    def step(self, respond: Callable[[bytearray], bytes]) -> bool:
        """Go as far as that is possible now; False at the end."""
        try:
            if self.reply is None:
                piece = self.socket.recv(READ_BYTES)
                self.head += piece
                if not piece:
                    return False
                if not is_whole(self.head):
                    return True
                self.reply = memoryview(respond(self.head))
            if self.reply:
                self.reply = self.reply[self.socket.send(self.reply, _QUIET) :]
                if not self.reply:
                    self.socket.shutdown(socket.SHUT_WR)
                return True
            piece = self.socket.recv(READ_BYTES)
            self.rest += len(piece)
            return bool(piece) and self.rest < MOST_REST
        except BlockingIOError:
            return True
        except OSError:  # it went away: its own affair
            return False


class Server:
    """Answers whoever connects to `listener`, until `stop`.

    `respond(head)` makes an answer and does not raise. `tick()` is called before each wait, and says for how many seconds
    it need not be called again; None ends the server. The listener is the server's from now on.
    """

    def __init__(
        self, listener: socket.socket, respond: Callable[[bytearray], bytes], tick: Callable[[], float | None]
    ) -> None:
        self._respond = respond
        self._tick = tick
        self._listener = listener
        self._clients: dict[int, _Client] = {}
        self._deaf_until = 0.0
        self._stopping = False
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)

    def run(self) -> None:
        """Serve. Nothing is open afterwards."""
        try:
            while not self._stopping:
                patience = self._tick()
                if patience is None:
                    return
                self._turn(monotonic() + patience)
        finally:
            self.abandon()

    def stop(self) -> None:
        """Have `run` end soon, whatever clients do."""
        self._stopping = True
        try:
            self._waker.send(b"x")
        except OSError:
            pass  # it has ended, or was told before

    def abandon(self) -> None:
        """Close this process's ends of everything, and tell nobody."""
        self._stopping = True
        for client in list(self._clients.values()):
            client.socket.close()
        self._clients.clear()
        for end in (self._listener, self._woken, self._waker):
            end.close()

    def _turn(self, until: float) -> None:
        """Wait until something happens, at most until then, and deal with it."""
        now = monotonic()
        for number, client in list(self._clients.items()):
            if client.deadline <= now:
                self._drop(number)
            else:
                until = min(until, client.deadline)
        # Made anew each time: it is no kernel object, so a forked child shares nothing with us.
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if now >= self._deaf_until:
            poll.register(self._listener, select.POLLIN)
        else:
            until = min(until, self._deaf_until)
        for number, client in self._clients.items():
            poll.register(number, client.events)
        listener = self._listener.fileno()
        for number, _ in poll.poll(max(0, (until - now) * 1000 + 1)):
            if number == listener:
                self._accept()
            elif number in self._clients and not self._clients[number].step(self._respond):
                self._drop(number)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return  # it went away again
        except OSError:
            # None to be had now, or the listener is broken: it is asked again later, and does not keep us busy.
            self._deaf_until = monotonic() + DEAF_SECONDS
            return
        connection.setblocking(False)
        self._clients[connection.fileno()] = _Client(connection)
        if len(self._clients) > MOST_CLIENTS:
            self._drop(next(iter(self._clients)))  # who has been here longest

    def _drop(self, number: int) -> None:
        self._clients.pop(number).socket.close()
