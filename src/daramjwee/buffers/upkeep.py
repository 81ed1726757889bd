"""Upkeep: one daemon thread of the process looks after every pool that has something to look after.

Idle memory goes back, pressure is noticed and passes, lost leases are taken up and alerts go out, also when nobody uses
the pool. The thread starts when a pool is first used, and ends when none needs it.
Invariant: a pool that marks itself as kept is in the registry or being added; at most one thread looks.
Threads: any. No lock is held while a pool is looked at; pools are referred to weakly, so being looked after keeps none alive.
Design: docs/design/concurrency.md
"""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

from daramjwee.buffers.holdings import seen_in
from daramjwee.buffers.ledger import NO_WAIT, reset_after_fork

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

THREAD_NAME = "daramjwee-upkeep"
# A look takes less than a millisecond, unless a callback of the program's takes its time.
FAREWELL_SECONDS = 1.0
# As often as anything is looked at, however short the configured intervals.
SHORTEST_SECONDS = 0.02
# After a look that failed. It may hold memory, and nobody else would ever give that back.
AGAIN_SECONDS = 5.0


class Kept(Protocol):
    """What is looked after."""

    kept: bool

    def look_after(self) -> float | None:
        """Do what is due; seconds until the next time, None when there is nothing to look after."""
        ...


class Upkeep:
    """The registry and its thread."""

    fork_order = 2

    def __init__(self) -> None:
        self._begin()
        reset_after_fork(self)

    def _begin(self) -> None:
        self._refs: dict[int, weakref.ref[Kept]] = {}
        # Reentrant: the collector may run a finalizer in there that uses a pool.
        self._lock = threading.RLock()
        self._running = threading.Lock()
        self._looking = threading.Lock()  # while things are referred to, and so kept alive
        self._wake = threading.Lock()
        self._wake.acquire()
        # Whose turn it is, in which thread, and a lock held as long.
        self._at = self._ident = 0
        self._busy = threading.Lock()

    def _after_fork_in_child(self) -> None:
        refs = seen_in(self._refs.values())
        self._begin()
        for ref in refs:
            thing = ref()
            if thing is not None:
                thing.kept = False

    @property
    def alive(self) -> bool:
        """Whether the thread runs. (An interrupt may have come before it was started.)"""
        return self._running.locked()

    def keep(self, thing: Kept) -> None:
        """Look after `thing` from now on. It is marked as kept until it needs that no more."""
        thing.kept = True
        with self._lock:
            self._refs[id(thing)] = weakref.ref(thing)
        self._see_to_it()

    def leave(self, thing: Kept) -> None:
        """Look after `thing` no more: a look that is under way ends first, unless it takes long. Allowed when it is not
        looked after."""
        with self._lock:
            ref = self._refs.get(id(thing))
            if ref is not None and ref() is thing:
                del self._refs[id(thing)]
        if self._running.locked():
            self._stir()  # it may be the last, and the thread can end
        if self._at == id(thing) and self._ident != threading.get_ident():
            # No call between taking and giving back: an interrupt would leave it taken.
            for _ in filter(None, map(self._busy.acquire, (True,), (FAREWELL_SECONDS,))):
                self._busy.release()

    def _stir(self) -> None:
        try:
            self._wake.release()
        except RuntimeError:
            pass  # it was woken already

    def _see_to_it(self) -> None:
        if self._running.locked():
            self._stir()
            return
        try:
            threading.Thread(target=self._run, name=THREAD_NAME, daemon=True).start()
        except RuntimeError as error:
            # No more threads to be had, or the interpreter is ending. Whoever comes next tries again.
            logger.debug("no thread for the upkeep of buffer pools: %s", error, extra={"event": "pool.no_upkeep"})
            for thing in self._things():
                thing.kept = False

    def _things(self) -> Iterator[Kept]:
        for key, ref in seen_in(self._refs.items()):
            thing = ref()
            if thing is not None:
                yield thing
                continue
            with self._lock:
                if self._refs.get(key) is ref:
                    del self._refs[key]

    def _run(self) -> None:
        while self._refs:
            for _ in filter(None, map(self._running.acquire, NO_WAIT)):
                try:
                    while (seconds := self._look_once()) is not None:
                        self._wake.acquire(timeout=max(SHORTEST_SECONDS, seconds))
                finally:
                    self._running.release()
                break
            else:
                return
            # Once more: somebody may have come in between, and have found the thread running.

    def _look_once(self) -> float | None:
        with self._looking:
            return self.look()

    def look(self) -> float | None:
        """Look at everything once; seconds until the next time, None when there is nothing any more."""
        soonest: float | None = None
        for thing in self._things():
            seconds = self._look_at(thing)
            if seconds is not None:
                soonest = seconds if soonest is None else min(soonest, seconds)
            del thing
        return soonest

    def _look_at(self, thing: Kept) -> float | None:
        # First not kept, then looked at: whoever uses it meanwhile is either seen, or sees that it is not kept.
        thing.kept = False
        self._at, self._ident = id(thing), threading.get_ident()
        try:
            with self._busy:
                seconds = thing.look_after()
        except BaseException:  # a callback may raise SystemExit too: it ends this look, not the thread
            fields = {"event": "pool.upkeep_failed", "kind": type(thing).__name__}
            logger.exception("the upkeep of %s failed", type(thing).__name__, extra=fields)
            seconds = AGAIN_SECONDS
        finally:
            self._at = 0
        with self._lock:
            if seconds is not None:
                thing.kept = True
                self._refs[id(thing)] = weakref.ref(thing)
            elif not thing.kept:
                self._refs.pop(id(thing), None)
        return seconds


upkeep = Upkeep()
