"""The server side of `daramjwee.bench.origin`: files and synthetic objects over HTTP/1.1, at a stated pace.

Invariant: a response is paced against the instant it began, in small slices, so its rate does not depend on how
the reader takes it; a reader that paused gets no burst beyond `BURST_SECONDS` of it. Files outside of the folder
are never served.
Threads: one for each connection, and the main thread, which waits for the end of standard input.
Design: docs/design/origins.md
"""

from __future__ import annotations

import argparse
import email.utils
import json
import os
import select
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from daramjwee.bench.origin import synthetic_bytes
from daramjwee.model import SYSTEM_CLOCK
from daramjwee.units import parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

# A millisecond at 64 MB/s: fine enough for a smooth rate, coarse enough to cost little.
SLICE_BYTES = 64 * 1024
# What a response that fell behind may catch up at full speed; a scheduler's hiccup, not a reader's pause.
BURST_SECONDS = 0.1
PARENT_CHECK_SECONDS = 1.0


class Content(NamedTuple):
    """One object that is served: `read(start, stop)` gives its bytes; `close` ends it."""

    size: int
    etag: str
    modified: float
    read: Callable[[int, int], bytes]
    close: Callable[[], None]


class OriginServer(ThreadingHTTPServer):
    """The listening socket and what all connections share."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, folder: str | None, synthetic: dict[str, int], latency: float, bandwidth: float | None) -> None:
        self.folder = None if folder is None else os.path.realpath(folder)
        self.synthetic = synthetic
        self.latency = latency
        self.bandwidth = bandwidth
        self.started_at = SYSTEM_CLOCK.now()
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), OriginHandler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, but for a client that just went away: that is its right."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def count(self, path: str) -> None:
        with self._lock:
            self._counts[path] = self._counts.get(path, 0) + 1

    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)

    def reset(self) -> None:
        with self._lock:
            self._counts.clear()

    def find(self, path: str) -> Content | None:
        """The object of a path, open; None when there is none."""
        name = path.removeprefix("/")
        size = self.synthetic.get(name)
        if size is not None:
            etag = f'"synthetic-{size:x}-{name.encode().hex()}"'
            return Content(size, etag, self.started_at, lambda a, b: synthetic_bytes(name, a, b), lambda: None)
        if self.folder is None or not name or "\0" in name:
            return None
        full = os.path.realpath(os.path.join(self.folder, name))
        if not full.startswith(self.folder + os.sep) or not os.path.isfile(full):
            return None
        try:
            descriptor = os.open(full, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        status = os.fstat(descriptor)
        etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'
        return Content(
            status.st_size, etag, status.st_mtime,
            lambda a, b: os.pread(descriptor, b - a, a), lambda: os.close(descriptor),
        )  # fmt: skip


class OriginHandler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 16 * 1024  # one packet for status line and headers
    server: OriginServer

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/-/"):
            self._control(path)
            return
        self.server.count(path)
        self._answer(path, body=True)

    def do_HEAD(self) -> None:
        self._answer(unquote(urlsplit(self.path).path), body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Say nothing: whoever started the origin reads its standard output."""

    def _control(self, path: str) -> None:
        if path == "/-/reset":
            self.server.reset()
        if path not in {"/-/reset", "/-/counts"}:
            self._head(404, 0, [])
            return
        text = json.dumps(self.server.counts()).encode()
        self._head(200, len(text), [("Content-Type", "application/json")])
        self.wfile.write(text)

    def _answer(self, path: str, *, body: bool) -> None:
        time.sleep(self.server.latency)  # noqa: TID251 - the slowness is what this server is for
        content = self.server.find(path)
        if content is None:
            self._head(404, 0, [])
            return
        try:
            self._answer_with(content, body=body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            content.close()

    def _answer_with(self, content: Content, *, body: bool) -> None:
        headers = [
            ("ETag", content.etag),
            ("Last-Modified", email.utils.formatdate(content.modified, usegmt=True)),
            ("Accept-Ranges", "bytes"),
            ("Content-Type", "application/octet-stream"),
        ]
        if self._is_unchanged(content):
            self._head(304, None, headers)
            return
        span = self._span(content)
        if span is None:
            self._head(416, 0, [("Content-Range", f"bytes */{content.size}")])
            return
        start, stop = span
        if stop - start < content.size:
            headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{content.size}"))
        self._head(206 if stop - start < content.size else 200, stop - start, headers)
        if body:
            self._send(content, start, stop)

    def _is_unchanged(self, content: Content) -> bool:
        tags = self.headers.get("If-None-Match")
        if tags is not None:
            return tags.strip() == "*" or content.etag in [t.strip().removeprefix("W/") for t in tags.split(",")]
        since = _when(self.headers.get("If-Modified-Since"))
        return since is not None and int(content.modified) <= since

    def _span(self, content: Content) -> tuple[int, int] | None:
        """What part is asked for: all of it unless a single range can be given, None when it lies outside."""
        asked = self.headers.get("Range", "")
        condition = self.headers.get("If-Range")
        matches = condition in {None, content.etag} or _when(condition) == int(content.modified)
        first, dash, last = asked.removeprefix("bytes=").partition("-")
        if not (asked.startswith("bytes=") and dash and matches and (first + last).isdigit()):
            return 0, content.size
        if not first:
            return max(0, content.size - int(last)), content.size
        start, stop = int(first), content.size if not last else min(content.size, int(last) + 1)
        return (start, stop) if start < stop else None

    def _head(self, status: int, length: int | None, headers: list[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.flush()

    def _send(self, content: Content, start: int, stop: int) -> None:
        bandwidth, sent, connection = self.server.bandwidth, 0, self.connection
        began = time.perf_counter()
        while start < stop:
            piece = content.read(start, min(stop, start + SLICE_BYTES))
            if not piece:  # the file was cut while we served it: the client must not take it for the end
                self.close_connection = True
                return
            connection.sendall(piece)
            start += len(piece)
            sent += len(piece)
            if bandwidth is None:
                continue
            early = began + sent / bandwidth - time.perf_counter()
            if early > 0:
                time.sleep(early)  # noqa: TID251 - as above
            elif early < -BURST_SECONDS:
                began -= early + BURST_SECONDS


def _when(text: str | None) -> int | None:
    try:
        return None if text is None else int(email.utils.parsedate_to_datetime(text).timestamp())
    except ValueError:
        return None


def _wait_for_the_end() -> None:
    """Until standard input ends, or whoever started us is gone while somebody else holds our input open."""
    parent = os.getppid()
    while os.getppid() == parent:
        if select.select([sys.stdin], [], [], PARENT_CHECK_SECONDS)[0] and not os.read(sys.stdin.fileno(), 4096):
            return


def main(arguments: list[str] | None = None) -> None:
    """Serve until standard input ends; the first line of output says where."""
    parser = argparse.ArgumentParser(prog="python -m daramjwee.bench.origin", description=main.__doc__)
    parser.add_argument("--folder", help="serve the files in here")
    parser.add_argument("--synthetic", action="append", default=[], metavar="NAME=SIZE", help="a made-up object")
    parser.add_argument("--latency", default="0", help='before the first byte, such as "10ms"')
    parser.add_argument("--bandwidth", help='bytes a second for each response, such as "64MB"')
    options = parser.parse_args(arguments)
    try:
        pairs = [text.rpartition("=") for text in options.synthetic]
        synthetic = {name: parse_size(size) for name, _, size in pairs}
        latency = parse_duration(options.latency)
        bandwidth = None if options.bandwidth is None else float(parse_size(options.bandwidth))
    except ValueError as error:
        parser.error(str(error))
    if bandwidth == 0:
        parser.error("--bandwidth must be more than 0; leave it out for no limit")
    if options.folder is not None and not os.path.isdir(options.folder):
        parser.error(f"--folder {options.folder}: no such folder")
    with OriginServer(options.folder, synthetic, latency, bandwidth) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), name="origin", daemon=True).start()
        port = server.server_address[1]
        line = {"port": port, "url": f"http://127.0.0.1:{port}", "latency": latency, "bandwidth": bandwidth}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        try:
            _wait_for_the_end()
        except KeyboardInterrupt:
            return
        finally:
            server.shutdown()
