"""Chunks: the memory of one pool in use. Who gets which chunk, who waits, what is done on a give-back, and when.

Invariant: who waits is served in order, and never while a lock is held; nothing that came back is forgotten.
Threads: any. Taking a free chunk and giving one back need no lock; the lock is for bookkeeping on the slow path, and
whoever gives back while it is taken leaves the work to its holder.
Design: docs/design/memory.md
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections import deque
from operator import add
from time import monotonic
from typing import TYPE_CHECKING

from daramjwee.buffers.holdings import Counts, Holdings, Refused, seen_in
from daramjwee.buffers.ledger import NO_WAIT
from daramjwee.buffers.sizes import SizeHistogram, class_sizes, page_round, recalibrate
from daramjwee.buffers.stats import SizeShare
from daramjwee.buffers.waiting import wait_for_chunk
from daramjwee.errors import Closed

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from daramjwee.buffers.arenas import Chunk
    from daramjwee.buffers.config import BufferPoolConfig
    from daramjwee.buffers.ledger import MemoryLedger
    from daramjwee.buffers.waiting import Waiter
    from daramjwee.model import Clock

logger = logging.getLogger(__name__)

# Lost leases are logged at most so often: a program that loses one loses many.
TELL_SECONDS = 10.0
# So many samples of sizes are worth a recalibration: some thousand leases, or so many requests on the slow path.
SAMPLES_DUE = 128


class Chunks(Holdings):
    """The memory of one pool in one process, and who waits for it."""

    def __init__(self, config: BufferPoolConfig, ledger: MemoryLedger, clock: Clock, *, gated: bool = False) -> None:
        super().__init__(config, ledger, gated=gated)
        self.samples: deque[tuple[int, int]] = deque(maxlen=2 * SAMPLES_DUE)
        # Called with what the system said, outside of the lock, when it gave no memory.
        self.tell_refusal: Callable[[str], object] = str
        self.overloads = 0
        self.waits = 0
        self.wait_seconds = 0.0
        self._line: deque[Waiter] = deque()
        self._left: deque[Waiter] = deque()
        # Who has entered and not left, in the line or given something already; the loops of those that are tasks.
        self._visitors: dict[Waiter, None] = {}
        self._loops: set[AbstractEventLoop] = set()
        self._lock = threading.Lock()
        self._pending = False
        self._clock = clock
        self._maintained_at = self._calibrated_at = clock.monotonic()
        self._told_at = -TELL_SECONDS
        self._histogram = SizeHistogram()
        self._calibrating = threading.Lock()

    # -- the sizes ---------------------------------------------------------------------------------------

    def reconfigure(self, config: BufferPoolConfig) -> None:
        """Use `config` from now on: decided in one step, which whoever takes the lock next carries out."""
        with self._lock:
            self._wanted = (config, class_sizes(config))
        self.attend()

    def sample(self, size: int, weight: int) -> None:
        """Note that `size` bytes were asked for, about `weight` times."""
        self.samples.append((size, weight))
        if len(self.samples) >= SAMPLES_DUE:
            self.alert = True  # the next request comes by the slow path, which recalibrates

    def _recalibrate(self, now: float) -> None:
        """Learn from what was asked for, and forget a part of what was learned before."""
        for _ in filter(None, map(self._calibrating.acquire, NO_WAIT)):
            try:
                self._calibrated_at = now
                self._histogram.decay()
                self._take_samples()
                config, sizes = self._config, self._sizes
                if not config.enabled:
                    return
                wanted = recalibrate(self._histogram.weights, sizes, config)
            finally:
                self._calibrating.release()
            if wanted != sizes:
                with self._lock:
                    # Unless somebody reconfigured meanwhile.
                    if self._wanted is None and self._config is config:
                        self._wanted = (config, wanted)
                self.attend()

    def _take_samples(self) -> None:
        # A function of its own, as in the ledger: an interrupt at the end of such a loop would leave the lock taken.
        while self.samples:
            self._histogram.add(*self.samples.popleft())

    def asked(self) -> tuple[SizeShare, ...]:
        """What was asked for of late: about how often which size, rounded up. Without a lock, so while others go on
        asking."""
        histogram = SizeHistogram()
        # The learned ones are replaced as a whole, or added to by the holder of the lock for calibrating: a look that comes
        # in between is made again.
        while not histogram.weights and self._histogram.weights:
            try:
                histogram.weights = dict(self._histogram.weights)
            except RuntimeError:
                continue
        for size, weight in seen_in(self.samples):
            histogram.add(size, weight)
        return tuple(SizeShare(size, weight) for size, weight in sorted(histogram.weights.items()))

    # -- taking ------------------------------------------------------------------------------------------

    def obtain(self, size: int, rank: int, seconds: float, *, private: bool = False) -> Chunk:
        """A chunk of at least `size` bytes: free, newly mapped, or waited for. Counts it as hit or miss, under `rank`.

        Raises `LimitExceeded`, `Overloaded` after `seconds`, `Closed`.
        """
        chunk = self.at_once(size, rank, private=private)
        return wait_for_chunk(self, size, rank, seconds, private=private) if chunk is None else chunk

    def at_once(self, size: int, rank: int, *, private: bool = False) -> Chunk | None:
        """As `obtain`, without a wait: None where there must be one."""
        now = self._clock.monotonic()
        if not private:
            self.samples.append((size, 1))
            if len(self.samples) >= SAMPLES_DUE:
                self._recalibrate(now)
        if now - self._maintained_at >= self._config.max_idle_age:
            self.maintain(now)
        self._tell_lost(now)
        before = self.refusals
        try:
            chunk = self._attempt(size, rank, private, last=False)
        except Refused:
            # Give back what is idle, of whatever class, and ask for no more than is needed.
            self.tell_refusal(self.refused)
            self._give_back()
            return self._attempt(size, rank, private, last=True)
        if self.refusals != before:
            self.tell_refusal(self.refused)  # what was free, or less, serves this time
        if chunk is None:
            # Another class's idle memory may fill the ledger, or this pool's share of it.
            at = bisect_left(self._sizes, size)
            self.reclaim(page_round(size) if private or at == len(self._sizes) else self._sizes[at])
            chunk = self._attempt(size, rank, private, last=True)
        return chunk

    def less(self, size: int, rank: int, refused: Refused) -> Chunk:
        """A chunk smaller than `size`, the largest that is free or that the system gives; else raises `refused`."""
        for smaller in reversed(self._sizes[: bisect_left(self._sizes, size)]):
            try:
                chunk = self._attempt(smaller, rank, False, last=True)
            except Refused:
                continue
            if chunk is not None:
                return chunk
        raise refused

    def _give_back(self) -> None:
        with self._lock:
            wake = self._work_locked()
            self._take_idle_locked(None)
        self._finish(wake)

    def _attempt(self, size: int, rank: int, private: bool, *, last: bool) -> Chunk | None:
        """A chunk that can be had now."""
        wake = None
        try:
            with self._lock:
                if self.closed:
                    raise closed_error()
                wake = self._work_locked()
                chunk = None if self._line else self._find_locked(size, rank, private, last=last)
                self._shed_locked()
                return chunk
        finally:
            if wake is not None:
                self._finish(wake)

    # -- waiting -----------------------------------------------------------------------------------------

    def enter(self, waiter: Waiter) -> None:
        """Stand in both lines; from here on whoever gives back sees the waiter, who may be served already."""
        ledger = self._ledger
        ledger.check(waiter.ticket.need)
        with self._lock:
            if self.closed:
                raise closed_error()
            self._line.append(waiter)
            self._visitors[waiter] = None
            if waiter.loop is not None:
                self._loops.add(waiter.loop)
            self.alert = True
        ledger.join_line(waiter.ticket)
        self.attend()  # what came back just before
        if not waiter.over:
            ledger.reclaim(waiter.ticket.need)

    def leave(self, waiter: Waiter, began: float) -> Chunk:
        """Step out of both lines with what was given in either; the error for who was given nothing."""
        ticket = waiter.ticket
        granted = self._ledger.leave_line(ticket)
        note = self._ledger.note_credit
        wake = None
        refused: Refused | None = None
        try:
            with self._lock:
                wake = self._work_locked()
                self._forget_locked(waiter)
                chunk, waiter.chunk = waiter.chunk, None
                self.waits += 1
                self.wait_seconds += monotonic() - began
                if granted and chunk is None and not self.closed:
                    try:
                        chunk = self._map_locked(ticket.need, self._singles, waiter.rank, ticket)
                    except Refused as error:
                        refused, granted = error, False
                    else:
                        assert chunk is not None
                        return chunk
                if granted:
                    note(ticket)
                if chunk is not None:
                    chunk.misses += 1
                    self._missed[waiter.rank] += 1
                elif refused is None and not waiter.closed:
                    self.overloads += 1
        finally:
            if wake is not None:
                self._finish(wake)
        if chunk is not None:
            return chunk
        if refused is not None:
            self.tell_refusal(self.refused)
            raise refused
        if waiter.closed or self.closed:
            raise closed_error()
        if ticket.refused:
            self._ledger.check(ticket.need)
        raise self._ledger.overloaded(ticket.need, monotonic() - began)

    def abandon(self, waiter: Waiter) -> None:
        """Forget a waiter, wherever it stands; what it was given goes back. Never blocks."""
        self._left.append(waiter)
        self.attend()

    def _forget_locked(self, waiter: Waiter) -> None:
        if waiter in self._line:
            self._line.remove(waiter)
        self._visitors.pop(waiter, None)
        if not self._visitors:
            self._loops.clear()

    def _serve_locked(self, wake: list[Waiter]) -> None:
        """Take up what left waiters were given, and give free chunks to those in line, in its order."""
        closed = [loop for loop in self._loops if loop.is_closed()]
        if closed:  # nobody will ever take what their tasks are given
            self._left.extend(waiter for waiter in self._visitors if waiter.loop in closed)
        note = self._ledger.note_credit
        while self._left:
            # Given up first and taken from the deque then: after an interrupt it is done again, and does no harm.
            waiter = self._left[0]
            self._forget_locked(waiter)
            chunk, waiter.chunk = waiter.chunk, None
            if chunk is not None:
                chunk.free.append(chunk)
            note(waiter.ticket)
            self._left.popleft()
        for waiter in tuple(self._line):
            if not any(kind.free for kind in self._classes):
                break
            chunk = None
            if not waiter.private:
                chunk = self._pop_locked(bisect_left(self._sizes, waiter.size), len(self._sizes) - 1)
            if chunk is None:
                if waiter.holds_up:
                    break
            else:
                waiter.chunk = chunk
                self._line.remove(waiter)
                wake.append(waiter)

    # -- giving back -------------------------------------------------------------------------------------

    def attend(self) -> None:
        """Do what is due after a give-back: sift, serve who waits, free what the ledger lacks. Never blocks."""
        if self.orphaned:
            return
        self._pending = True
        self._settle()

    def _settle(self) -> None:
        # As in the ledger: who finds the lock taken leaves the work to the holder, who calls this after letting go.
        while self._pending:
            for _ in filter(None, map(self._lock.acquire, NO_WAIT)):
                try:
                    wake = self._work_locked()
                finally:
                    self._lock.release()
                break
            else:
                return
            self._act(wake)

    def _finish(self, wake: list[Waiter]) -> int:
        freed = self._act(wake)
        self._settle()
        return freed

    def _act(self, wake: list[Waiter]) -> int:
        # Who is not woken because of an interrupt looks again. Everything else is kept where the next one finds it.
        for waiter in wake:
            waiter.wake()
        return self._unmap()

    def _work_locked(self) -> list[Waiter]:
        """What is due under the lock; who is to be woken after it."""
        self._pending = False
        wake: list[Waiter] = []
        self._follow_locked()
        self._sift_locked()
        self._serve_locked(wake)
        self._bury_locked()
        missing = max(self._ledger.missing, self.mapped - self._config.max_pool_bytes)
        if self.closed:
            self._take_idle_locked(None)
        elif missing > 0:
            self._take_idle_locked(missing)
        # Never False in between while somebody waits: a give-back in that moment would go unseen.
        due = len(self.samples) >= SAMPLES_DUE
        self.alert = due or bool(self._visitors) or self.closed or missing > 0
        return wake

    # -- going back to the system --------------------------------------------------------------------------

    def reclaim(self, count: int) -> int:
        """Unmap idle arenas of any class until `count` bytes are free; what that freed."""
        if self.orphaned:
            return 0
        with self._lock:
            self._sift_locked()
            self._take_idle_locked(count - self._bury_locked())
            # Somebody may be about to wait: from now on, every give-back looks.
            self.alert = True
        freed = self._unmap()
        self._settle()
        return freed

    def relieve(self, *, keeps_idle: bool) -> int:
        """Note whether idle memory is kept; where not, unmap it now. Bytes freed."""
        with self._lock:
            self.keeps_idle = keeps_idle
            wake = self._work_locked()
            self._shed_locked()
        return self._finish(wake)

    def _shed_locked(self) -> None:
        if not self.keeps_idle:
            self._take_idle_locked(None)

    def maintain(self, now: float) -> int:
        """Unmap what nobody has used for `max_idle_age`, take up strays, learn sizes; bytes freed. `now`: monotonic
        seconds."""
        age = self._config.max_idle_age
        if len(self.samples) >= SAMPLES_DUE or now - self._calibrated_at >= age:
            self._recalibrate(now)
        with self._lock:
            self._maintained_at = now
            self._take_up_strays_locked()
            wake = self._work_locked()
            self._shed_locked()
            for kind in self._classes:
                kind.take_idle(self._taken, None, now=now, age=age)
                self._doom_locked()
        freed = self._finish(wake)
        self._tell_lost(now)
        return freed

    # -- the end ----------------------------------------------------------------------------------------------

    def reset_peak(self) -> None:
        """Take the most that was ever mapped anew, from now on."""
        with self._lock:
            self.peak = self.mapped + self.private

    def close(self) -> None:
        """Unmap everything but what is on loan, which is unmapped as it comes back. Waiters get `Closed`."""
        with self._lock:
            self.closed = True
            waiters = list(self._line)
            for waiter in waiters:
                waiter.closed = True
            self._line.clear()
            self._take_up_strays_locked()  # nobody may come to `maintain` any more
            wake = waiters + self._work_locked()
        self._finish(wake)

    def orphan(self) -> None:
        """In a forked child: leases stay readable, and what comes back is left alone."""
        self.orphaned = True
        self.alert = False
        self._line.clear()
        self._visitors.clear()
        self._lock = threading.Lock()

    def count(self) -> Counts:
        """All counters, exact when nothing runs; while something runs, never more puts than gets."""
        with self._lock:
            wake = self._work_locked()
            rows, gets = self._rows_locked()
            counts = Counts(
                hits=sum(gets),
                misses=sum(row.misses for row in rows),
                puts=sum(row.puts for row in rows),
                pooled=tuple(map(add, gets, self._missed)),
                direct=tuple(self._direct),
                suspects=len(self.suspects),
                mapped=self.mapped,
                idle=sum(row.size * row.free for row in rows),
                private=self.private,
                peak=self.peak,
                lost=self.leases_lost,
                waiting=len(self._line),
                overloads=self.overloads,
                waits=self.waits,
                wait_seconds=self.wait_seconds,
                maps=self.maps,
                mapped_in_all=self.mapped_in_all,
                refusals=self.refusals,
                chunks=rows,
            )
        self._finish(wake)
        self._tell_lost(self._clock.monotonic())
        return counts

    def _tell_lost(self, now: float) -> None:
        """Log that leases were lost, now and then. Never from a finalizer: whoever logs may wait for a lock."""
        if not self._untold or now - self._told_at < TELL_SECONDS:
            return
        with self._lock:
            count, self._untold = self._untold, 0
            self._told_at = now
            place = max(self._places, key=self._places.__getitem__, default="")
        if count:
            logger.warning(
                "leases lost without release: %d, most of them acquired at: %s; their memory was taken back: release "
                "leases, best with `with`", count, place, extra={"event": "pool.lost_leases", "count": count, "place": place},
            )  # fmt: skip

    def lost_places(self) -> tuple[tuple[str, int], ...]:
        """Where lost leases were acquired, as file:line, and how often; the most frequent first."""
        with self._lock:
            places = tuple(self._places.items())
        self._settle()
        return tuple(sorted(places, key=lambda row: -row[1]))

    def __del__(self) -> None:
        # Nobody has a lease any more: a lease keeps its pool's memory alive. No lock may be waited for here.
        held = getattr(self, "mapped", 0) + getattr(self, "private", 0)
        held += sum(arena.bytes for arena in getattr(self, "_doomed", ()))
        if held and self._epoch == self._ledger.epoch:
            self._ledger.credit_later(held)


def closed_error() -> Closed:
    return Closed("the buffer pool was closed; leases made before stay valid, new ones need an open pool")
