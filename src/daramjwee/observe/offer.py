"""A running process offers its dashboard document on a private socket.

Invariant: the socket's file is there while the dashboard is open, and goes at `close`, with its pool or cache, and when
the interpreter ends; a forked child neither serves nor removes its parent's.
Threads: one of its own, "daramjwee-dashboard", a daemon; `close` may come from any, more than once.
Design: docs/monitoring.md
"""

from __future__ import annotations

import atexit
import logging
import os
import platform
import socket
import sys
import threading
import weakref
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from daramjwee.buffers.adaptive import AdaptiveBufferPool
from daramjwee.buffers.insight.advice import advise
from daramjwee.buffers.insight.health import health
from daramjwee.buffers.pool import BufferPool
from daramjwee.errors import ConfigError, LimitExceeded, Problem
from daramjwee.model import SYSTEM_CLOCK, Clock
from daramjwee.observe.document import (
    Alerts,
    Document,
    GateSection,
    LedgerSection,
    PoolSection,
    PressureSection,
    Sample,
    alert_row,
    cache_section,
    config_values,
    finding_rows,
    operation_rows,
    rates_between,
    trend_section,
)
from daramjwee.observe.place import Folder, listen, living, trust_problem
from daramjwee.observe.serve import Server
from daramjwee.observe.wire import answer

if TYPE_CHECKING:
    from typing import Self

    from daramjwee.buffers.insight.trend import Trend
    from daramjwee.buffers.pressure import PressureLevel
    from daramjwee.observe.place import Identity

logger = logging.getLogger(__name__)

# Rates of less than a second say more about the moment than about the process.
LEAST_INTERVAL = 0.9
# How soon it is noticed that the pool is gone.
LONGEST_NAP = 10.0
# A thread that makes a document ends when it is made; nobody waits longer for that.
FAREWELL_SECONDS = 2.0
# What a person looks for first when something was slow; the others are to be asked for in the process.
TRENDS = (
    "operations_per_second", "copied_bytes_per_second", "p99_latency_ns", "reuse_rate", "ledger_share", "gate_waiting",
    "pressure",
)  # fmt: skip

_open: weakref.WeakSet[Dashboard] = weakref.WeakSet()


def offer_dashboard(
    pool: BufferPool, path: str | os.PathLike[str], *, cache: Any = None, clock: Clock = SYSTEM_CLOCK
) -> Dashboard:
    """Offer the dashboard document of `pool` (and of `cache`, where it is a cache's) until the dashboard is closed.

    `path`: a folder, in which the socket gets a name of its own, or the path of the socket; the folder must be there, and
    others must not be able to write to it. `ConfigError` says what is wrong with it. The pool and the cache are not kept
    alive.
    """
    if not isinstance(pool, BufferPool):
        mend = "give a BufferPool or an AdaptiveBufferPool; a cache has a method of its own, cache.offer_dashboard()"
        raise TypeError(f"a {type(pool).__name__} cannot offer a dashboard: {mend}")
    folder, name = _open_folder(path)
    try:
        problem = trust_problem(os.fstat(folder.fd), os.geteuid())
        if problem is not None:
            raise _refusal(folder.path, problem)
        return Dashboard(pool, folder, name, cache, clock)
    except OSError as error:
        folder.close()
        raise _refusal(os.fspath(path), _words_of(error)) from error
    except BaseException:
        folder.close()
        raise


def _open_folder(path: str | os.PathLike[str]) -> tuple[Folder, str | None]:
    if not hasattr(socket, "AF_UNIX"):
        raise _refusal(path, "this system has no Unix sockets: a dashboard cannot be offered")
    if not path or not isinstance(path, (str, os.PathLike)):
        raise _refusal(path, "must be the path of a folder, or of the socket in one")
    whole = os.path.abspath(os.fspath(path))
    name = None if os.path.isdir(whole) or os.fspath(path).endswith(os.sep) else os.path.basename(whole)
    try:
        return Folder(whole if name is None else os.path.dirname(whole)), name
    except FileNotFoundError:
        raise _refusal(whole, "the folder does not exist; make it first (mode 0700)") from None
    except OSError as error:
        raise _refusal(whole, _words_of(error)) from error


def _words_of(error: OSError) -> str:
    return f"no socket can be there ({error.strerror or error}); name another"


def _refusal(path: object, mend: str) -> ConfigError:
    return ConfigError([Problem("path", path, mend)], subject="offer_dashboard")


class Dashboard:
    """The document of one process, offered at `path`. Made by `Cache.offer_dashboard` and `offer_dashboard`."""

    def __init__(self, pool: BufferPool, folder: Folder, name: str | None, cache: Any, clock: Clock) -> None:
        self._pool = weakref.ref(pool)
        self._cache = None if cache is None else weakref.ref(cache)
        self._clock = clock
        self._folder = folder
        self._lock = threading.Lock()
        self._complained = False
        self._began = clock.monotonic()
        # The last two looks: rates are taken from the newest that is old enough.
        self._before = self._last = Sample(self._began, pool.stats())
        self._level: PressureLevel = pool.pressure
        self._level_at = self._began
        self._trends = _trends_of(pool)
        for _ in living(folder):
            pass  # the dead ones are gone now
        listener, name, identity = listen(folder, name)
        self._name: str = name
        self._identity: Identity | None = identity
        try:
            self._server = Server(listener, self._respond, self._tick)
            try:
                self._thread = threading.Thread(target=self._run, name="daramjwee-dashboard", daemon=True)
                _open.add(self)
                self._thread.start()
            except BaseException:
                self._server.abandon()
                raise
        except BaseException:
            listener.close()
            self._remove()
            raise

    @property
    def path(self) -> str:
        """Of the socket."""
        return os.path.join(self._folder.path, self._name)

    @property
    def closed(self) -> bool:
        return self._identity is None

    def close(self) -> None:
        """Remove the socket and end its thread. The second time does nothing."""
        self._remove()
        self._server.stop()
        if self._thread is not threading.current_thread():
            self._thread.join(FAREWELL_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Dashboard {'closed' if self.closed else 'open'} at {self.path}>"

    def _remove(self) -> None:
        with self._lock:
            identity, self._identity = self._identity, None
            if identity is not None:
                self._folder.remove(self._name, identity)
            self._folder.close()

    def _after_fork_in_child(self) -> None:
        """The parent's thread and file are not ours. Its listener must not stay open here, or who connects after its
        death would wait for nobody."""
        self._lock = threading.Lock()
        self._identity = None
        self._server.abandon()
        self._folder.close()

    # -- in its thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._server.run()
        finally:
            self._remove()

    def _subject(self) -> tuple[BufferPool, Any] | None:
        """The pool, and the cache or None; None when what this is of is gone."""
        pool = self._pool()
        cache = None if self._cache is None else self._cache()
        return None if pool is None or (self._cache is not None and cache is None) else (pool, cache)

    def _tick(self) -> float | None:
        """Look at the pool when that is due; None when there is none any more."""
        subject = self._subject()
        if subject is None:
            return None
        pool = subject[0]
        interval = pool.config.metrics_interval
        try:
            now = self._clock.monotonic()
            if now - self._last.at >= interval:
                self._look(pool, now)
            return min(LONGEST_NAP, max(LEAST_INTERVAL, self._last.at + interval - now))
        except Exception as error:  # noqa: BLE001 - whatever a pool raises: the thread has to live
            self._complain(error)
            return LONGEST_NAP

    def _look(self, pool: BufferPool, now: float) -> Sample:
        """The figures as they are now; kept, unless the last ones are very new."""
        sample = Sample(now, pool.stats())
        if now - self._last.at >= LEAST_INTERVAL:
            self._before, self._last = self._last, sample
        if sample.stats.pressure != self._level:
            self._level, self._level_at = sample.stats.pressure, now
        return sample

    def _respond(self, head: bytearray) -> bytes:
        return answer(head, self._encoded)

    def _encoded(self) -> tuple[HTTPStatus, bytes]:
        subject = self._subject()
        if subject is None:
            return HTTPStatus.GONE, msgspec.json.encode({"error": "what the dashboard was of is gone"})
        try:
            body = msgspec.json.encode(self._document(*subject))
        except Exception as error:  # noqa: BLE001 - the border of this thread: who asks is told, and the thread lives
            self._complain(error)
            # Its kind only: a message may hold what is nobody's business.
            body = msgspec.json.encode({"error": f"the document could not be made: {type(error).__name__}"})
            return HTTPStatus.INTERNAL_SERVER_ERROR, body
        self._complained = False
        return HTTPStatus.OK, body

    def _complain(self, error: Exception) -> None:
        """Once, until it works again."""
        if not self._complained:
            self._complained = True
            logger.warning(
                "the dashboard document could not be made", exc_info=error, extra={"event": "pool.dashboard_failed"}
            )

    def _document(self, pool: BufferPool, cache: Any) -> Document:
        now = self._clock.monotonic()
        return Document(
            # The package above this room: loaded, and not to be imported from here.
            version=sys.modules[__name__.partition(".")[0]].__version__,
            python=platform.python_version(),
            pid=os.getpid(),
            at=self._clock.now(),
            uptime_seconds=now - self._began,
            pools=(self._pool_section(pool, now),),
            cache=None if cache is None else cache_section(cache.stats()),
        )

    def _pool_section(self, pool: BufferPool, now: float) -> PoolSection:
        config, monitor, pressure = pool.config, pool.monitor, pool.memory_pressure
        sample = self._look(pool, now)
        stats = sample.stats
        base = self._before if now - self._last.at < LEAST_INTERVAL else self._last
        return PoolSection(
            kind=type(pool).__name__,
            state="closed" if pool.closed else "open" if config.enabled else "disabled",
            config=config_values(config),
            stats=stats,
            operations=operation_rows(stats.operations),
            rates=rates_between(base, sample),
            ledger=LedgerSection(
                held=stats.ledger_held,
                limit=stats.ledger_limit,
                share=stats.ledger_held / stats.ledger_limit if stats.ledger_limit else 0.0,
            ),
            gate=None if not isinstance(pool, AdaptiveBufferPool) else GateSection(
                limit=config.max_concurrent_large_ops, most_waiting=config.max_queued_large_ops, stats=stats.gate
            ),
            pressure=PressureSection(
                level=stats.pressure.name,
                reason=pressure.reason,
                seen_seconds=now - self._level_at,
                readings=pressure.readings,
            ),
            alerts=Alerts(
                active=tuple(map(alert_row, monitor.active)),
                recent=tuple(map(alert_row, monitor.alerts)),
            ),
            trends=tuple(trend_section(metric, trend, now) for metric, trend in self._trends.items()),
            findings=finding_rows(
                health(stats, config, closed=pool.closed, pressure_reason=pressure.reason), advise(stats, config)
            ),
        )  # fmt: skip


def _trends_of(pool: BufferPool) -> dict[str, Trend]:
    """They go on from here."""
    trends: dict[str, Trend] = {}
    for metric in TRENDS:
        with suppress(LimitExceeded):  # the program has so many of its own that there is room for no more
            trends[metric] = pool.monitor.trend(metric)
    return trends


def _close_all() -> None:
    for dashboard in list(_open):
        dashboard.close()


def _after_fork_in_child() -> None:
    for dashboard in list(_open):
        dashboard._after_fork_in_child()
    _open.clear()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
