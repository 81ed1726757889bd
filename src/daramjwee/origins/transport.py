"""urllib3, set up: the pool of connections, what is tried again, and no secret in its log.

Invariant: urllib3 is imported by the first `HttpOrigin`, not before. What it logs while it sends a request of ours
shows URLs redacted; what it logs for others is left alone.
Threads: any.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

from daramjwee.errors import ConfigError, Problem
from daramjwee.origins.url import redact_url

if TYPE_CHECKING:
    from collections.abc import Iterator

# Gateways say these of an origin that may be back in a moment; a 500 would only fail again.
RETRY_STATUSES = frozenset({502, 503, 504})
BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 5.0
# A server that asks for more patience than this gets none: the caller is told and decides.
LONGEST_RETRY_AFTER_SECONDS = 30.0
HOSTS_KEPT = 32

_sending: ContextVar[bool] = ContextVar("daramjwee_sending", default=False)


def make_manager(pool_size: int, verify: bool | str) -> Any:
    """A pool of connections. `ConfigError` names the extra when urllib3 is not there."""
    try:
        import urllib3
    except ImportError:
        mend = "is missing; install it with: pip install 'daramjwee[http]'"
        raise ConfigError([Problem("urllib3", "not installed", mend)], subject="HttpOrigin") from None
    _hide_secrets()
    options: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED" if verify else "CERT_NONE"}
    if isinstance(verify, str):
        options["ca_certs"] = verify
    return urllib3.PoolManager(num_pools=HOSTS_KEPT, maxsize=pool_size, **options)


def make_retry(retries: int, redirects: int, secret_headers: set[str]) -> Any:
    """What to do when a request fails before its body began."""
    return _retry_class()(
        total=None, connect=retries, read=retries, status=retries, other=0, redirect=redirects,
        status_forcelist=RETRY_STATUSES, allowed_methods={"GET"}, backoff_factor=BACKOFF_SECONDS,
        backoff_max=LONGEST_BACKOFF_SECONDS, raise_on_status=False, remove_headers_on_redirect=secret_headers,
    )  # fmt: skip


@contextmanager
def sending() -> Iterator[None]:
    """While this lasts, what urllib3 logs in this context is redacted."""
    token = _sending.set(True)
    try:
        yield
    finally:
        _sending.reset(token)


@cache
def _retry_class() -> Any:
    from urllib3.exceptions import MaxRetryError, ReadTimeoutError, ResponseError
    from urllib3.util import Retry

    class BoundedRetry(Retry):
        """A `Retry` that never keeps a caller waiting for longer than it could know."""

        def increment(self, method: Any = None, url: Any = None, response: Any = None, error: Any = None,
                      _pool: Any = None, _stacktrace: Any = None) -> Any:  # fmt: skip
            if isinstance(error, ReadTimeoutError):
                raise error  # it has had its time; doing that again would multiply the caller's timeout
            if response is not None and not response.get_redirect_location():
                wait = self.get_retry_after(response)
                if wait is not None and wait > LONGEST_RETRY_AFTER_SECONDS:
                    raise MaxRetryError(_pool, url, ResponseError(f"Retry-After is {wait:.0f} s"))
            return super().increment(method, url, response, error, _pool, _stacktrace)

    return BoundedRetry


class _Redacting(logging.Filter):
    """Redacts the URLs among a record's arguments, for requests of ours only."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _sending.get() and isinstance(record.args, tuple):
            record.args = tuple(
                redact_url(str(a)) if isinstance(a, str) or a.__class__.__module__.startswith("urllib3") else a
                for a in record.args
            )
        return True


@cache
def _hide_secrets() -> None:
    # A filter counts only for the logger that it hangs on, not for those below: name each that shows URLs.
    for name in ("urllib3.connectionpool", "urllib3.poolmanager", "urllib3.util.retry", "urllib3.response"):
        logging.getLogger(name).addFilter(_Redacting())
