"""`HttpOrigin`: objects behind http and https URLs, streamed, resumed and revalidated.

Invariant: a body ends without an error only if HTTP says that it is complete. No secret of a URL or a header is in
a log line, an error, its causes, or a repr. A connection is given back when its body was read out, else closed.
Threads: any number of fetches at once; one connection each.
Design: docs/design/origins.md
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from daramjwee.errors import Closed, ConfigError, FetchError, NotFound, NotModified, Problem
from daramjwee.model import FetchResult
from daramjwee.origins.rules import encodings_of, lifetime_of, part_size, size_of, weaken, wrong_part
from daramjwee.origins.transport import make_manager, make_retry, sending
from daramjwee.origins.url import join_url, problem_of, redact_url, split_userinfo
from daramjwee.units import format_duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daramjwee.model import FetchRequest
    from daramjwee.units import Duration

logger = logging.getLogger(__name__)

USER_AGENT = "daramjwee"


class HttpOrigin:
    """A `Fetcher` over HTTP. Needs the extra `http`.

    `base`: keys are paths below this URL. Without it a key is a whole URL, or `key` makes one of it:
    `HttpOrigin(key=lambda key: sign(bucket, key))` keeps a signature, which changes, out of the cache's keys.
    `headers` go to the host that was asked for, and to no other that it redirects to. `timeout`: the longest
    time without a byte, a duration; `connect_timeout`: to connect. `retries`: how often a request that failed before its
    body began is sent again (no connection, broken connection, 429 and 503 with Retry-After, 502, 503, 504).
    `verify`: False trusts any certificate, text is the path of a bundle to trust. `redirects`: how
    many are followed. `pool_size`: connections kept to one host. `ConfigError` lists everything that is wrong with them.
    """

    def __init__(
        self,
        base: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: Duration = "30s",
        connect_timeout: Duration = "10s",
        retries: int = 2,
        redirects: int = 10,
        key: Callable[[str], str] | None = None,
        pool_size: int = 32,
        verify: bool | str = True,
    ) -> None:
        problems: list[Problem] = []
        self._read_timeout = _seconds("timeout", timeout, problems)
        self._connect_timeout = _seconds("connect_timeout", connect_timeout, problems)
        _check_count("retries", retries, 0, problems)
        _check_count("redirects", redirects, 0, problems)
        _check_count("pool_size", pool_size, 1, problems)
        _check_base(base, problems)
        self._headers = _checked_headers(headers, problems)
        if not callable(key or str):
            problems.append(Problem("key", key, "give a function from key to URL, or None"))
        if verify not in (True, False) and not os.path.exists(verify):
            problems.append(Problem("verify", verify, "give True, False, or the path of a certificate bundle"))
        if problems:
            raise ConfigError(problems, subject="HttpOrigin")
        self._base = base
        self._key = key
        self._retries, self._redirects = retries, redirects
        self._pool_size, self._verify = pool_size, verify
        self._lock = threading.Lock()
        self._closed = False
        self._manager: Any = make_manager(pool_size, verify)
        self._pid = os.getpid()

    def __call__(self, request: FetchRequest) -> FetchResult:
        url = self._url_of(request.key)
        shown = redact_url(url)
        response = self._send(url, shown, self._conditions(request, shown))
        try:
            return self._result(response, request, shown)
        except BaseException:
            response.close()
            response.release_conn()
            raise

    def close(self) -> None:
        """Close the connections that are kept. Bodies being read go on to their end."""
        self._renew_in_child()
        with self._lock:
            self._closed = True
            manager, self._manager = self._manager, None
        if manager is not None:
            manager.clear()

    def __reduce__(self) -> tuple[Callable[..., HttpOrigin], tuple[str, dict[str, Any]]]:
        # Another process makes its own connections from the same arguments; the headers go along, as they must.
        arguments = {
            "headers": self._headers, "timeout": self._read_timeout, "connect_timeout": self._connect_timeout,
            "retries": self._retries, "redirects": self._redirects, "key": self._key,
            "pool_size": self._pool_size, "verify": self._verify,
        }  # fmt: skip
        return _make, (self._base, arguments)

    def __repr__(self) -> str:
        where = redact_url(self._base) if self._base else "of URLs"
        return f"<HttpOrigin {where}{', closed' if self._closed else ''}>"

    def _url_of(self, key: str) -> str:
        asked = key if self._key is None else self._key(key)
        if not isinstance(asked, str):
            raise FetchError(f"key= of {self!r} gave a {type(asked).__name__}: it must return a URL or path as str")
        url = join_url(self._base, asked) if self._base else asked
        problem = problem_of(url)
        if problem is not None:
            hint = "" if self._base else "; or give HttpOrigin a base"
            raise FetchError(f"the key {redact_url(url)!r} cannot be fetched: the URL {problem}{hint}")
        return url

    def _conditions(self, request: FetchRequest, shown: str) -> dict[str, str]:
        headers: dict[str, str] = {}
        previous = request.previous
        if request.offset:
            validator = request.validator
            if validator is None or validator.startswith("W/"):
                raise FetchError(f"{shown} cannot be continued at {request.offset:,}: it has no strong ETag")
            headers = {"Range": f"bytes={request.offset}-", "If-Range": validator}
        elif previous is not None:
            if previous.etag is not None:
                headers["If-None-Match"] = previous.etag
            if previous.last_modified is not None:
                headers["If-Modified-Since"] = previous.last_modified
        return headers

    def _send(self, url: str, shown: str, conditions: dict[str, str]) -> Any:
        from urllib3 import Timeout, make_headers
        from urllib3.exceptions import HTTPError

        target = split_userinfo(url)
        headers = {**self._headers, **conditions, "Accept-Encoding": "identity"}
        given = {name.lower() for name in headers}
        if "user-agent" not in given:
            headers["User-Agent"] = USER_AGENT
        if target.userinfo is not None and "authorization" not in given:
            headers.update(make_headers(basic_auth=target.userinfo))
        # Whatever the caller gave may be a secret meant for this host only, not just Authorization.
        retry = make_retry(self._retries, self._redirects, {*self._headers, "Authorization", "Cookie"})
        timeout = Timeout(connect=self._connect_timeout, read=self._read_timeout)
        manager = self._current_manager()
        try:
            with sending():
                return manager.request(
                    "GET", target.url, headers=headers, preload_content=False, retries=retry, timeout=timeout
                )
        except (HTTPError, ValueError, OverflowError) as error:  # of headers that cannot be sent, or understood
            failure, cause = self._failure(error, shown)
        # Raised out here, so that the client's own error, which quotes the URL, is not even its context.
        raise failure from cause

    def _failure(self, error: Exception, shown: str) -> tuple[FetchError, Exception | None]:
        """What a person needs to know, and the cause where its text holds no URL."""
        from urllib3 import exceptions as of

        cause: Exception = getattr(error, "reason", None) or error
        if isinstance(cause, of.NameResolutionError):
            return FetchError(f"{shown}: the host name cannot be resolved; check it, and the network"), cause
        if isinstance(cause, of.ConnectTimeoutError) and not isinstance(cause, of.NewConnectionError):
            limit = format_duration(self._connect_timeout)
            return FetchError(f"{shown}: no connection within {limit} (connect_timeout)"), cause
        if isinstance(cause, of.NewConnectionError):
            return FetchError(f"{shown}: cannot connect: {cause.__cause__ or cause.__context__ or cause}"), cause
        if isinstance(cause, of.SSLError):
            return FetchError(f"{shown}: TLS failed: {cause}; check the certificate, or verify="), cause
        if isinstance(cause, of.ReadTimeoutError):
            # A TLS handshake that hangs ends like this too, at the other limit.
            limits = f"timeout {format_duration(self._read_timeout)}, "
            limits += f"connect_timeout {format_duration(self._connect_timeout)}"
            return FetchError(f"{shown}: connected, but no answer in time ({limits})"), cause
        if isinstance(cause, of.ProtocolError):
            return FetchError(f"{shown}: the connection broke before an answer: {cause}"), cause
        if isinstance(cause, of.ResponseError) and "redirect" in str(cause):
            limit_of = f"{self._redirects} (redirects)"
            return FetchError(f"{shown}: redirected more often than {limit_of}; it may be a loop"), cause
        return FetchError(f"{shown}: the request failed ({type(cause).__name__})"), None

    def _result(self, response: Any, request: FetchRequest, shown: str) -> FetchResult:
        headers: Mapping[str, str] = response.headers
        self._check_status(response, request, shown)
        coding = headers.get("Transfer-Encoding", "").strip().lower()
        if coding not in {"", "chunked", "identity"}:
            raise FetchError(f"{shown} is transferred as {coding}: only chunked was allowed, and can be undone")
        encodings = encodings_of(headers)
        unknown = [name for name in encodings if name not in response.CONTENT_DECODERS]
        if unknown:
            raise FetchError(f"{shown} comes encoded as {', '.join(unknown)}, though it was asked not to be")
        life = lifetime_of(headers)
        content_type = headers.get("Content-Type")
        return FetchResult(
            HttpBody(response, shown, self._read_timeout),
            size=part_size(headers) if response.status == 206 else size_of(headers),
            etag=weaken(headers.get("ETag")) if encodings else headers.get("ETag"),
            last_modified=headers.get("Last-Modified"),
            ttl=life.ttl,
            cacheable=life.cacheable,
            attributes={} if content_type is None else {"content-type": content_type},
        )

    def _check_status(self, response: Any, request: FetchRequest, shown: str) -> None:
        status, offset = response.status, request.offset
        said = f"{shown} answered {status} {response.reason or ''}".rstrip()
        if status in {404, 410}:
            raise NotFound(said)
        if status == 304 and request.previous is not None:
            raise NotModified(said)
        if offset and status in {200, 203, 416}:
            raise FetchError(f"{shown} has changed: it cannot be continued at {offset:,}")
        if offset and status == 206:
            wrong = wrong_part(response.headers, offset, request.validator or "")
            if wrong is not None:
                raise FetchError(f"{shown} cannot be continued at {offset:,}: {wrong}")
            return
        if status not in {200, 203}:
            wait = response.headers.get("Retry-After")
            hint = "; check the credentials" if status in {401, 403} else f"; Retry-After: {wait}" if wait else ""
            raise FetchError(f"{said}{hint}")

    def _renew_in_child(self) -> None:
        # A forked child must not share its parent's connections: it would read the parent's answers. Nor its lock,
        # which another thread may have held at that moment. Two threads that both renew them do no harm.
        if self._pid != os.getpid():
            self._lock = threading.Lock()
            if not self._closed:
                self._manager = make_manager(self._pool_size, self._verify)
            self._pid = os.getpid()

    def _current_manager(self) -> Any:
        self._renew_in_child()
        with self._lock:
            if self._closed:
                raise Closed(f"{self!r} was closed; make a new one")
            return self._manager


class HttpBody:
    """The body of one response, as it comes. Any failure is a `FetchError` that says how far it got."""

    def __init__(self, response: Any, shown: str, timeout: float) -> None:
        self._response = response
        self._shown = shown
        self._timeout = timeout
        self._received = 0
        self._ended = False

    def read1(self, size: int) -> bytes:
        """Up to `size` bytes, as soon as there are some; none at the end."""
        if self._ended:
            return b""
        try:
            data: bytes = self._response.read1(size)
        except Exception as error:
            failure = self._failure(error)
            self.close()
            raise failure from error
        if data:
            self._received += len(data)
        else:
            self._ended = True
            self._response.release_conn()
        return data

    read = read1

    def close(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""
        if not self._ended:
            self._ended = True
            self._response.close()
            self._response.release_conn()

    def _failure(self, error: Exception) -> FetchError:
        from urllib3.exceptions import DecodeError, IncompleteRead, ReadTimeoutError

        so_far = f"after {self._received:,} bytes"
        if isinstance(error, ReadTimeoutError):
            limit = format_duration(self._timeout)
            return FetchError(f"{self._shown} stalled {so_far}: nothing came for {limit} (timeout); nothing was kept")
        cause = error.args[1] if len(error.args) > 1 else error
        if isinstance(cause, IncompleteRead) and cause.expected:
            total = cause.expected + self._received
            return FetchError(f"{self._shown} ended {so_far} of {total:,}: it was cut short; nothing was kept")
        if isinstance(error, DecodeError):
            return FetchError(f"{self._shown} sent a body that cannot be decoded {so_far}: {error}; nothing was kept")
        return FetchError(f"{self._shown} broke off {so_far}: {cause}; nothing was kept")


def _make(base: str, arguments: dict[str, Any]) -> HttpOrigin:
    return HttpOrigin(base, **arguments)


def _seconds(field: str, value: Duration, problems: list[Problem]) -> float:
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        problems.append(Problem(field, value, str(error)))
        return 0.0
    if seconds == 0:
        problems.append(Problem(field, value, "must be more than 0; an origin needs some time"))
    return seconds


def _check_count(field: str, value: object, least: int, problems: list[Problem]) -> None:
    if type(value) is not int or value < least:
        problems.append(Problem(field, value, f"give an int of {least} or more"))


def _check_base(base: object, problems: list[Problem]) -> None:
    if base == "":
        return
    if not isinstance(base, str):
        problems.append(Problem("base", base, "give a URL as str"))
        return
    wrong = problem_of(base)
    if wrong is None and ("?" in base or "#" in base):
        wrong = "must not have a query or fragment: keys come after it; use key= to build such URLs"
    if wrong is not None:
        problems.append(Problem("base", redact_url(base), wrong))


def _checked_headers(headers: Any, problems: list[Problem]) -> dict[str, str]:
    try:
        found = dict(headers or {})
    except (TypeError, ValueError):
        problems.append(Problem("headers", type(headers).__name__, "give a mapping of text to text"))
        return {}
    for name, value in found.items():
        # The value stays out of the message: it may be a token.
        if not isinstance(name, str) or not isinstance(value, str) or any(c in f"{name}{value}" for c in "\r\n\0"):
            problems.append(Problem(f"headers[{name!r}]", "***", "name and value must be text without line breaks"))
        elif name.lower() in {"range", "if-range", "if-none-match", "if-modified-since", "accept-encoding"}:
            problems.append(Problem(f"headers[{name!r}]", "***", "is set by HttpOrigin itself; leave it out"))
    return found
