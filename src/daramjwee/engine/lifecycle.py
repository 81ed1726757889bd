"""The end of an engine, and what a fork makes of it.

Close: nothing new is accepted; running fills and copies to lower tiers are finished or dropped (`Drain`), within
a time; then the tiers close. Fork: the child has the tiers but none of the threads, so it begins with no flights;
streams opened before the fork raise `Closed` there.
Threads: `close_engine` may be called from any thread, more than once.
Design: docs/design/concurrency.md
"""

from __future__ import annotations

import enum
import logging
import os
import weakref
from time import monotonic
from typing import TYPE_CHECKING

from daramjwee.buffers.ledger import NO_WAIT
from daramjwee.errors import Closed, shorten

if TYPE_CHECKING:
    from daramjwee.engine.execute import Engine

logger = logging.getLogger(__name__)

# A fill that is not done after so long is dropped: closing has to end.
CLOSE_SECONDS = 30.0
ABORT_SECONDS = 0.5

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Drain(enum.Enum):
    """What `close` does with work that runs. FINISH: waits for it, 30 s at most, then aborts what is left.
    ABORT: ends it at once; its readers get `Closed`, and what was not complete is not kept."""

    FINISH = "finish"
    ABORT = "abort"


def register(engine: Engine) -> None:
    """Have the engine reset in forked children. Only a weak reference is kept."""
    _engines.add(engine)


def close_engine(engine: Engine, drain: Drain) -> bool:
    """End all work of the engine and close its tiers. Does nothing once the caller has said that it is `over`, or while another
    thread does it, and says False. Until then it can be done again: an interrupt may have come at any point."""
    # A loop over `map` and not a call, as in the ledger: after it an interrupt could leave the lock taken.
    for _ in filter(None, map(engine.closing.acquire, NO_WAIT)):
        try:
            if engine.over:
                return False
            _close(engine, drain)
            return True
        finally:
            engine.closing.release()
    return False


def _close(engine: Engine, drain: Drain) -> None:
    engine.closed = True
    flights = engine.flights
    deadline = monotonic() + CLOSE_SECONDS
    for flight in flights.running():
        # A windowed flight moves only while its readers read, and keeps nothing: there is nothing to wait for.
        if drain is Drain.ABORT or flight.windowed:
            flight.abort(Closed(f"the cache was closed while {shorten(flight.key)} was being fetched"))
    if drain is Drain.FINISH:
        for flight in flights.running():
            flight.finish(max(0.0, deadline - monotonic()))
        flights.workers.wait_idle(max(0.0, deadline - monotonic()))
    for flight in flights.running() if drain is Drain.FINISH else ():
        if flight.aborting is None:  # else it ends already: its last reader left, and nobody waits for it
            logger.warning("closing: dropping the fill of %s", shorten(flight.key))
        flight.abort(Closed(f"the cache was closed while {shorten(flight.key)} was being fetched"))
    # An aborted fill may stand in its origin's read for long: that thread is not waited for.
    patience = ABORT_SECONDS if drain is Drain.ABORT else max(ABORT_SECONDS, deadline - monotonic())
    for workers in (flights.fillers, flights.workers):
        if not workers.close(patience):
            logger.warning("closing: a thread still waits for its origin; it ends by itself and keeps nothing")
    engine.tiers.close()


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
