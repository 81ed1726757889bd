"""As much of HTTP/1.0 as `curl --unix-socket` needs. Pure: bytes in, bytes out.

Design: docs/monitoring.md
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_HEAD = 8192
TYPE = "application/json"
# Of a request, all that matters is its first line; of an answer, status and body.
_REQUEST = re.compile(rb"([A-Z]{1,16}) (\S{1,2048}) HTTP/[0-9]\.[0-9]\r?\n")
_ANSWER = re.compile(rb"HTTP/[0-9]\.[0-9] ([0-9]{3})[ \r\n]")
_END = re.compile(rb"\r?\n\r?\n")

REQUEST = b"GET / HTTP/1.0\r\n\r\n"


def is_whole(head: bytes | bytearray) -> bool:
    """Whether a request can be answered: its head has ended, or is too long to be waited for."""
    return len(head) > MOST_HEAD or _END.search(head) is not None


def answer(head: bytes | bytearray, document: Callable[[], tuple[HTTPStatus, bytes]]) -> bytes:
    """What to send for a request. `document` is asked for only where it is wanted."""
    if len(head) > MOST_HEAD:
        return _reply(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    request = _REQUEST.match(head)
    if request is None:
        return _reply(HTTPStatus.BAD_REQUEST)
    method, target = request[1], request[2].partition(b"?")[0]
    if target != b"/":
        return _reply(HTTPStatus.NOT_FOUND)
    if method not in (b"GET", b"HEAD"):
        return _reply(HTTPStatus.METHOD_NOT_ALLOWED)
    status, body = document()
    return _reply(status, body, with_body=method == b"GET")


def _reply(status: HTTPStatus, body: bytes | None = None, *, with_body: bool = True) -> bytes:
    if body is None:
        body = f'{{"error":"{status.phrase}: GET / is all there is here"}}'.encode()
    lines = [
        f"HTTP/1.0 {status.value} {status.phrase}",
        f"Content-Type: {TYPE}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head + body if with_body else head


def body_of(received: bytes | bytearray) -> tuple[int, bytes]:
    """Status and body of a whole answer; `ValueError` for what is none."""
    status, end = _ANSWER.match(received), _END.search(received)
    if status is None or end is None:
        raise ValueError("it does not speak HTTP")
    return int(status[1]), bytes(received[end.end() :])
