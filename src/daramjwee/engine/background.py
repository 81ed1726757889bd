"""Threads of a cache: fillers for long bodies, and a bounded pool of workers for everything that can wait.

Invariant: at most `limit` threads, started when there is something to do and ended when idle; none is started
before it is needed. Once closing has begun nothing new is accepted.
Threads: any caller; one lock for bookkeeping, jobs run without it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

# Long enough that a burst of fills reuses its threads, short enough that an idle cache has none.
IDLE_SECONDS = 5.0


class Workers:
    """Run jobs on at most `limit` daemon threads, with at most `queue` of them waiting."""

    def __init__(self, name: str, *, limit: int, queue: int) -> None:
        self._name = name
        self._limit = limit
        self._queue_limit = queue
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._jobs: deque[Callable[[], object]] = deque()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._closing = False
        self.failures = 0

    def submit(self, job: Callable[[], object]) -> bool:
        """Take the job, or refuse it: closing, or more jobs than threads and queue can take."""
        thread = None
        try:
            with self._lock:
                free = self._idle - len(self._jobs)
                can_start = len(self._threads) < self._limit
                if self._closing or (free <= 0 and not can_start and len(self._jobs) >= self._queue_limit):
                    return False
                self._jobs.append(job)
                if free > 0:
                    self._changed.notify_all()  # wait_idle listens on it too
                elif can_start:
                    thread = self._new()
                    self._threads.add(thread)
            return thread is None or self._start(thread, job)
        except BaseException:
            with self._lock:
                if job in self._jobs:
                    self._jobs.remove(job)
                if (
                    thread is not None and thread.ident is None
                ):  # interrupted before it was started: nobody could join it
                    self._threads.discard(thread)
            raise

    def _start(self, thread: threading.Thread, job: Callable[[], object]) -> bool:
        """Start a thread for a job that is in the queue. False: there is none to be had, and nobody else to take it."""
        if self._launch(thread):
            return True
        with self._lock:
            refused = job in self._jobs and not self._threads
            if refused:
                self._jobs.remove(job)
        return not refused

    def _launch(self, thread: threading.Thread) -> bool:
        """Start a thread that has its place; False, and the place is free: there is none to be had."""
        try:
            thread.start()
        except BaseException as error:
            with self._lock:
                if thread.ident is None:  # or nobody could join it, and its place would be lost
                    self._threads.discard(thread)
            if not isinstance(error, RuntimeError):  # no more threads to be had, or the interpreter is ending
                raise
            logger.warning("cannot start a thread: %s", error)
            return False
        return True

    def _several(self, count: int) -> list[threading.Thread]:
        return [self._new() for _ in range(count)]

    def _new(self) -> threading.Thread:
        return threading.Thread(target=self._work, name=f"daramjwee-{self._name}", daemon=True)

    @property
    def limit(self) -> int:
        """The most threads there may be."""
        return self._limit

    def resize(self, limit: int) -> None:
        """Have at most `limit` threads from now on. Jobs that run go on; what waits gets the threads that are new."""
        more: list[threading.Thread] = []
        try:
            with self._lock:
                self._limit = limit
                self._changed.notify_all()  # who is one too many ends
                missing = min(limit - len(self._threads), len(self._jobs) - self._idle)
                more += [] if self._closing else self._several(missing)
                self._threads.update(more)
            for thread in more:
                self._launch(thread)
        finally:  # an interrupt leaves some that were not started, in the places of others
            with self._lock:
                self._threads.difference_update(thread for thread in more if thread.ident is None)

    @property
    def busy(self) -> int:
        """Jobs that run or wait."""
        with self._lock:
            return len(self._threads) - self._idle + len(self._jobs)

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no job runs or waits; False when `timeout` seconds were not enough."""
        deadline = monotonic() + timeout
        with self._lock:
            return self._wait_idle_locked(deadline)

    def _wait_idle_locked(self, deadline: float) -> bool:
        # Not in the `with` of who calls this, nor are the others: an interrupt at the jump back of such a loop could leave the
        # lock taken (see `MemoryLedger._wait`).
        while len(self._threads) - self._idle + len(self._jobs):
            left = deadline - monotonic()
            if left <= 0 or not self._changed.wait(left):
                return False
        return True

    def close(self, timeout: float) -> bool:
        """Accept nothing more, drop what waits, and wait for what runs; False when some of it still does."""
        deadline = monotonic() + timeout
        with self._lock:
            self._closing = True
            self._jobs.clear()
            self._changed.notify_all()
            threads = self._threads - {threading.current_thread()}
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _work(self) -> None:
        with self._lock:
            self._threads.add(threading.current_thread())  # who started it may have been interrupted
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException:  # a fetcher may raise SystemExit too: it ends its job, not the thread
                logger.exception("a background job failed")
                self.failures += 1
            # Let go before sleeping: the job holds a flight, which holds an entry.
            del job
            with self._lock:
                self._changed.notify_all()

    def _next(self) -> Callable[[], object] | None:
        with self._lock:
            self._idle += 1
            self._changed.notify_all()
            try:
                return self._next_locked(monotonic() + IDLE_SECONDS)
            finally:
                self._idle -= 1

    def _next_locked(self, deadline: float) -> Callable[[], object] | None:
        while not self._jobs or len(self._threads) > self._limit:
            left = deadline - monotonic()
            if self._closing or left <= 0 or len(self._threads) > self._limit:
                self._threads.discard(threading.current_thread())
                return None
            self._changed.wait(left)
        return self._jobs.popleft()
