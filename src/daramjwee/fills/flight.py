"""Flights: one running fill and its readers, in threads. The kernel decides; this shell pulls, writes and wakes.

Invariant: bytes go from the body to the staging (or the window) before `head` moves, so what the kernel lets a
reader have is there to be read. The outcome is set once; the entry is published before anybody is woken.
Threads: any number of readers, each used by one thread at a time. Whoever holds the pump role (the starter, a
filler, or a reader that found nobody pumping) pulls one piece at a time, with no lock held.
Design: docs/design/fills.md
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.errors import Closed, DaramjweeError, FetchError, FillAborted, LimitExceeded, StoreError, shorten
from daramjwee.fills.kernel import Do, FlightKernel, Phase
from daramjwee.model import Event

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from daramjwee.buffers import BufferPool, Lease
    from daramjwee.fills.body import BodyReader
    from daramjwee.model import Metadata, Observer
    from daramjwee.stores.protocol import Entry, Staging

logger = logging.getLogger(__name__)

# One piece of the body. 256 KiB is where reuse and system calls balance (docs/design/memory.md).
PIECE_BYTES = 256 * 1024
NEVER = 1 << 62
# What a windowed flight keeps for its slowest reader: a few pieces, so that pump and readers overlap.
WINDOW_BYTES = 4 * PIECE_BYTES
# An unsized body is pulled by its readers so often before a filler takes over: most end within two pulls.
PULLS_BEFORE_FILLER = 2
# How long a full window may stand still for one reader while others wait at its head.
SLOW_READER_SECONDS = 30.0
# How long the pump waits for memory for one piece of the window before it gives up.
WINDOW_MEMORY_SECONDS = 30.0


class LookAgain(Exception):  # noqa: N818 - not an error: it sends those who waited back to the tiers
    """The flight ended without bytes, and the answer is to be found by looking the key up once more."""


class GoAlone(Exception):  # noqa: N818 - as above
    """What is being fetched belongs to its starter only: whoever waited fetches for itself."""


class Fill(NamedTuple):
    """What a started fill consists of. `guard` is asked at publication; `staging` None: windowed from the start."""

    body: BodyReader
    metadata: Metadata
    staging: Staging | None
    guard: Callable[[], bool] | None = None


class _Waiter:
    """One thread, asleep until `head` reaches `target`, or something else happens that it must see."""

    __slots__ = ("_lock", "target")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.target = 0

    def wait(self, timeout: float | None) -> bool:
        return self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))

    def wake(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            # Woken already, and not yet asleep again: it looks around before it sleeps, so nothing is missed.
            return


class Flight:
    """One running fill of one key.

    `spawn(run) -> bool` runs something on a thread of its own, or refuses; `on_over(flight)` is called once,
    before any reader sees the outcome. `keep_orphan`: go on when the last reader has left.
    """

    def __init__(
        self,
        key: str,
        *,
        pool: BufferPool,
        spawn: Callable[[Callable[[], object]], bool],
        observer: Observer,
        on_over: Callable[[Flight], None],
        keep_orphan: bool = True,
    ) -> None:
        self.key = key
        self.keep_orphan = keep_orphan
        self.metadata: Metadata | None = None
        self.entry: Entry | None = None
        self.tier: Any = None  # where it stages, for whoever started it
        self.error: BaseException | None = None
        self._staging: Staging | None = None
        self._kernel = FlightKernel(window=WINDOW_BYTES)
        self._lock = threading.Lock()
        self._waiters: list[_Waiter] = []
        self._window: deque[tuple[int, bytes]] = deque()
        self._lost: deque[int] = deque()  # readers that were garbage collected without close
        self._pool = pool
        self._spawn = spawn
        self._observer = observer
        self._on_over = on_over
        self._body: BodyReader | None = None
        self._guard: Callable[[], bool] | None = None
        self._lease: Lease | None = None
        self._hash: Any = None
        self._pulls = 0
        self._abort: BaseException | None = None
        self._gone = False
        self._next_reader = 0
        self._room = _Waiter()

    def __repr__(self) -> str:
        kernel = self._kernel
        size = "?" if kernel.size is None else kernel.size
        return (
            f"<Flight {shorten(self.key)} {kernel.phase.value}, {kernel.head} of {size} bytes, "
            f"{len(kernel.readers)} readers>"
        )

    @property
    def size(self) -> int | None:
        """Bytes of the object, None while unknown."""
        return self._kernel.size

    @property
    def over(self) -> bool:
        return self._kernel.over

    @property
    def has_readers(self) -> bool:
        return bool(self._kernel.readers)

    @property
    def windowed(self) -> bool:
        """Whether bytes pass through a window, so that no reader can go back or far ahead."""
        return self._kernel.windowed

    def join(self, offset: int = 0, *, timeout: float | None = None) -> FlightReader | None:
        """Attach a reader at `offset`, or None when it is too late for that."""
        with self._lock:
            if self._gone or self._abort is not None:
                return None
            self._next_reader += 1
            reader = self._next_reader
            if not self._kernel.join(reader, offset):
                return None
        return FlightReader(self, reader, timeout)

    def abort(self, error: BaseException) -> None:
        """End a flight that still runs with `error` for every reader; what is staged is dropped."""
        with self._lock:
            if self._kernel.over:
                return
            self._abort = self._abort or error
            idle = not self._kernel.pumping
            self._kernel.pumping = True
        if idle:
            self._fail(error)
        else:
            self._room.wake()  # whoever pumps sees it before the next pull

    def finish(self, timeout: float) -> bool:
        """Wait until the flight is over, pumping if nobody does; False when `timeout` seconds were not enough."""
        deadline = monotonic() + timeout
        waiter = _Waiter()
        waiter.target = NEVER
        while True:
            with self._lock:
                if self._kernel.over:
                    return True
                pump = not self._kernel.window_full and self._kernel.try_pump()
                if not pump:
                    self._waiters.append(waiter)
            if pump:
                if not self._spawn_filler():
                    self._run_filler()
            elif not waiter.wait(deadline - monotonic()):
                with self._lock:
                    if waiter in self._waiters:
                        self._waiters.remove(waiter)
                    return self._kernel.over

    # -- the pump: every method below is called by the holder of the pump role -----------------------------

    def start(self, begin: Callable[[], Fill]) -> None:
        """Ask the origin by `begin`, pull the first piece, and see to it that the rest follows.

        What `begin` raises becomes the outcome for every reader, and is raised here too; a body that fails
        later is told to the readers only.
        """
        try:
            fill = begin()
            self._body, self._guard, self._staging = fill.body, fill.guard, fill.staging
            self.metadata = fill.metadata
            if fill.metadata.digest is not None:
                self._hash = _hasher(fill.metadata.digest)
            size = fill.metadata.size
            self._lease = self._pool.acquire(PIECE_BYTES if size is None else min(max(size, 1), PIECE_BYTES))
        except Exception as error:
            self._fail(error)
            raise
        except BaseException:
            # The starter was interrupted, the origin is not to blame: whoever waits asks it again.
            self._fail(LookAgain())
            raise
        with self._lock:
            self._kernel.started(size, spool=fill.staging is not None)
            wake = self._wake_all_locked()
        _wake(wake)
        self._pump_piece()
        # All that was announced is here: pull once more, to see the end and publish without a hand-over.
        if not self._kernel.over and size is not None and self._kernel.head >= size:
            self._pump_piece()
        self._hand_over()

    def _hand_over(self) -> None:
        """A piece was pulled: a filler goes on, or the role is free for a reader that needs more."""
        kernel = self._kernel
        if kernel.over:
            return
        due = kernel.size is not None or self._pulls >= PULLS_BEFORE_FILLER or not kernel.readers
        if due and self._spawn_filler():
            return
        with self._lock:
            kernel.stop_pumping()
            wake = self._wake_all_locked()
            orphan = not kernel.readers
        _wake(wake)
        if orphan:
            self.abort(FillAborted(f"nobody reads {shorten(self.key)} any more and no filler is free to finish it"))

    def _spawn_filler(self) -> bool:
        context = contextvars.copy_context()
        return self._spawn(lambda: context.run(self._run_filler))

    def _run_filler(self) -> None:
        """Pull to the end, at the origin's pace; in a full window at the pace of the slowest reader."""
        still_since: float | None = None
        while True:
            self._drain_lost()
            with self._lock:
                if self._kernel.over:
                    return
                blocked = self._kernel.window_full and self._abort is None
            if not blocked:
                still_since = None
                self._pump_piece()
            elif self._room.wait(1.0):
                still_since = None
            else:
                still_since = still_since or monotonic()
                if monotonic() - still_since >= SLOW_READER_SECONDS:
                    self._detach_slowest()

    def _pump_piece(self) -> None:
        """Pull one piece and pass it on, or see the end and publish. Failures become the outcome."""
        try:
            if self._abort is not None:
                raise self._abort
            piece = self._pull()
            if len(piece):
                self._accept(piece)
            else:
                self._finish()
        except Exception as error:  # noqa: BLE001 - it is told to every reader
            self._fail(error)
        except BaseException as error:
            self._fail(FillAborted(f"the thread that was fetching {shorten(self.key)} was interrupted: {error!r}"))
            raise

    def _pull(self) -> memoryview | bytes:
        assert self._body is not None
        assert self._lease is not None
        self._pulls += 1
        try:
            return self._body.pull(self._lease.view)
        except DaramjweeError:
            raise
        except Exception as error:
            head = self._kernel.head
            raise FetchError(
                f"the origin failed while sending {shorten(self.key)}, after {head:,} bytes: "
                f"{type(error).__name__}: {error}; nothing was kept, fetch it again"
            ) from error

    def _accept(self, piece: memoryview | bytes) -> None:
        kernel = self._kernel
        if kernel.size is not None and kernel.head + len(piece) > kernel.size:
            raise FetchError(
                f"the origin sent more than the {kernel.size:,} bytes it announced for {shorten(self.key)}; "
                "nothing was kept"
            )
        if self._hash is not None:
            self._hash.update(piece)
        self._drain_lost()
        if not kernel.windowed:
            assert self._staging is not None
            try:
                self._staging.write(piece)
            except (LimitExceeded, StoreError) as error:
                self._lose_spool(error)
            else:
                with self._lock:
                    kernel.received(len(piece))
                    wake = self._wake_reached_locked()
                _wake(wake)
                return
        ledger = self._pool.ledger
        if not ledger.try_charge(len(piece)):
            ledger.charge(len(piece), timeout=WINDOW_MEMORY_SECONDS)
        with self._lock:
            self._window.append((kernel.head, bytes(piece)))
            kernel.received(len(piece))
            dropped = self._trim_locked()
            wake = self._wake_reached_locked()
        ledger.credit(dropped)
        _wake(wake)

    def _lose_spool(self, error: DaramjweeError) -> None:
        """The staging takes no more: readers go on through a window, and nothing will be published."""
        kind = "too_large" if isinstance(error, LimitExceeded) else "write_failed"
        logger.warning("not caching %s: %s", shorten(self.key), error)
        with self._lock:
            self._kernel.spool_lost()
            wake = self._wake_all_locked()
        _wake(wake)
        self._observer.notice(Event(kind, self.key, None, str(error)))

    def _finish(self) -> None:
        """The body ended: check it against what the origin said, publish, then tell the readers."""
        kernel, metadata = self._kernel, self.metadata
        assert metadata is not None
        if kernel.size is not None and kernel.head != kernel.size:
            raise FetchError(
                f"the origin ended after {kernel.head:,} of the {kernel.size:,} bytes it announced for "
                f"{shorten(self.key)}; nothing was kept, fetch it again"
            )
        if self._hash is not None:
            algorithm, _, wanted = (metadata.digest or "").partition(":")
            seen = self._hash.hexdigest()
            if seen != wanted.lower():
                raise FetchError(
                    f"{shorten(self.key)} has {algorithm} {seen}, but {wanted} was announced; nothing was kept"
                )
        with self._lock:
            kernel.ending()
        self.metadata = metadata = _with_size(metadata, kernel.head)
        if self._staging is not None and not kernel.windowed:
            try:
                self.entry = self._staging.commit(metadata, guard=self._guard)
            except StoreError as error:
                logger.warning("not caching %s: %s", shorten(self.key), error)
                self._observer.notice(Event("write_failed", self.key, None, str(error)))
        # Gone from the table and published before anybody wakes: who wakes and looks up again finds the entry.
        self._say_over()
        self._settle(None)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._kernel.over:
                return
        self._say_over()
        self._settle(error)

    def _say_over(self) -> None:
        try:
            self._on_over(self)
        except Exception:
            # Whatever went wrong there, the readers of this flight must not wait for ever.
            logger.exception("after the fill of %s", shorten(self.key))

    def _settle(self, error: BaseException | None) -> None:
        """Set the outcome, wake everybody, give back what only a running flight needs."""
        with self._lock:
            self.error = error
            if error is None:
                self._kernel.done()
            else:
                self._kernel.failed()
            wake = self._wake_all_locked()
            last = not self._kernel.readers and not self._gone
            self._gone = self._gone or last
        if error is not None and self._staging is not None:
            self._staging.abort()
        _wake(wake)
        if last:
            self._let_go()
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def _let_go(self) -> None:
        """The flight is over and nobody reads: end the staging, close the entry, give the window back."""
        with self._lock:
            dropped = sum(len(data) for _, data in self._window)
            self._window.clear()
        self._pool.ledger.credit(dropped)
        if self.entry is not None:
            self.entry.close()
        elif self._staging is not None:
            self._staging.abort()

    # -- shared bookkeeping --------------------------------------------------------------------------------

    def _wake_all_locked(self) -> list[_Waiter]:
        waiters, self._waiters = self._waiters, []
        return waiters

    def _wake_reached_locked(self) -> list[_Waiter]:
        head, size = self._kernel.head, self._kernel.size
        if size is not None and head >= size:
            return []  # the last bytes are held back until the outcome, which wakes all
        reached = [waiter for waiter in self._waiters if waiter.target <= head]
        if reached:
            self._waiters = [waiter for waiter in self._waiters if waiter.target > head]
        return reached

    def _trim_locked(self) -> int:
        """Drop window segments that every reader is past; bytes to credit."""
        self._kernel.trim()
        dropped = 0
        while self._window and self._window[0][0] + len(self._window[0][1]) <= self._kernel.tail:
            dropped += len(self._window.popleft()[1])
        return dropped

    def _segment_locked(self, offset: int) -> tuple[int, bytes] | None:
        """The window segment that holds `offset`; None when the staging does."""
        if self._kernel.spooled is None or offset < self._kernel.spooled:
            return None
        return next(s for s in self._window if s[0] <= offset < s[0] + len(s[1]))

    def _moved(self, reader: int, offset: int) -> None:
        with self._lock:
            room = self._kernel.moved(reader, offset)
            dropped = self._trim_locked()
            # Readers that saw a full window went to sleep; without a filler one of them has to pump now.
            wake = self._wake_all_locked() if room and not self._kernel.pumping else []
        self._pool.ledger.credit(dropped)
        if room:
            self._room.wake()
        _wake(wake)

    def _detach_slowest(self) -> None:
        with self._lock:
            slow = self._kernel.detach_slowest()
            dropped = self._trim_locked()
            wake = self._wake_all_locked() if slow else []
        self._pool.ledger.credit(dropped)
        _wake(wake)
        for _ in slow:
            self._observer.notice(Event("reader_detached", self.key, None, "too slow for the others"))

    def _drain_lost(self) -> None:
        while self._lost:
            self._leave(self._lost.popleft())

    def _leave(self, reader: int) -> None:
        """Detach a reader; the last one out ends a flight that has nobody to finish it for."""
        kernel = self._kernel
        with self._lock:
            orphaned = kernel.leave(reader)
            dropped = self._trim_locked()
            if orphaned and (kernel.windowed or not self.keep_orphan):
                # Set under the lock, so that nobody joins what is about to end.
                self._abort = self._abort or FillAborted(f"the last reader of {shorten(self.key)} left")
            adopt = orphaned and self._abort is None and kernel.try_pump()
            last = kernel.over and not kernel.readers and not self._gone
            self._gone = self._gone or last
            wake = self._wake_all_locked() if not kernel.pumping and not kernel.over else []
        self._pool.ledger.credit(dropped)
        _wake(wake)
        self._room.wake()
        if last:
            self._let_go()
        elif adopt:
            self._hand_over()
        elif orphaned and self._abort is not None:
            self.abort(self._abort)


class FlightReader:
    """One reader of a flight: reads by offset, waits for what has not arrived. Used by one thread at a time."""

    __slots__ = ("_closed", "_id", "_waiter", "flight", "timeout")

    def __init__(self, flight: Flight, reader: int, timeout: float | None) -> None:
        self.flight = flight
        self.timeout = timeout
        self._id = reader
        self._waiter = _Waiter()
        self._closed = False

    @property
    def size(self) -> int | None:
        return self.flight.size

    @property
    def seekable(self) -> bool:
        return self.flight.size is not None and not self.flight.windowed

    def wait_started(self) -> Metadata:
        """Metadata of the object, once the origin has answered. Raises the outcome if the fill failed first."""
        flight = self.flight
        deadline = None if self.timeout is None else monotonic() + self.timeout
        while True:
            with flight._lock:
                if flight.error is not None:
                    break
                if flight.metadata is not None and flight._kernel.phase is not Phase.STARTING:
                    return flight.metadata
                self._waiter.target = NEVER
                flight._waiters.append(self._waiter)
            self._sleep(deadline)
        _raise_outcome(flight.error)

    def wait_entry(self) -> Entry | None:
        """The published entry, once the fill is over; None when it was not published. The flight closes it."""
        flight = self.flight
        if not flight.finish(1e6 if self.timeout is None else self.timeout):
            raise FetchError(
                f"{shorten(flight.key)} was not complete after {self.timeout:g} s (timeout); the fill goes on"
            )
        if flight.error is not None:
            _raise_outcome(flight.error)
        return flight.entry

    def readinto_at(self, offset: int, view: memoryview, least: int | None = None) -> int:
        """Fill `view` from `offset` on: at least `least` bytes (default: all that fit), fewer at the end or from
        a windowed flight; 0 only at the end. Raises the flight's outcome if it failed."""
        most = len(view)
        if self._closed:
            raise Closed("read from a stream that was closed")
        if most == 0:
            return 0
        least = most if least is None else min(max(1, least), most)
        flight, kernel = self.flight, self.flight._kernel
        deadline = None if self.timeout is None else monotonic() + self.timeout
        while True:
            segment = None
            with flight._lock:
                do, amount = kernel.turn(self._id, offset, least, most)
                if do is Do.READ:
                    segment = flight._segment_locked(offset)
                elif do is Do.PUMP:
                    kernel.pumping = True
                elif do is Do.WAIT:
                    self._waiter.target = amount
                    flight._waiters.append(self._waiter)
            if do is Do.WAIT:
                self._sleep(deadline)
            elif do is Do.PUMP:
                self._pump()
            elif do is Do.READ:
                count = self._copy(segment, offset, view[:amount])
                if count:
                    return count
            elif do is Do.END:
                return 0
            elif do is Do.DETACHED:
                raise FillAborted(
                    f"bytes from {offset:,} on of {shorten(flight.key)} are no longer held: this reader was too slow "
                    "or went back in a stream that no tier has room for; open it again"
                )
            else:
                assert flight.error is not None
                _raise_outcome(flight.error)

    def _copy(self, segment: tuple[int, bytes] | None, offset: int, view: memoryview) -> int:
        flight = self.flight
        if segment is None:
            assert flight._staging is not None
            try:
                count = flight._staging.readinto_at(offset, view)
            except Closed:
                if flight.error is None:
                    raise
                return 0  # it failed while we read: the next turn says how
        else:
            start, data = segment
            piece = memoryview(data)[offset - start : offset - start + len(view)]
            count = len(piece)
            view[:count] = piece
        if flight._kernel.windowed:
            flight._moved(self._id, offset + count)
        return count

    def _pump(self) -> None:
        flight = self.flight
        # With a time limit of its own a reader does not sit in the origin's read, if a filler can do it.
        if self.timeout is not None and flight._spawn_filler():
            return
        flight._pump_piece()
        flight._hand_over()

    def _sleep(self, deadline: float | None) -> None:
        waiter, flight = self._waiter, self.flight
        try:
            woken = waiter.wait(None if deadline is None else deadline - monotonic())
        except BaseException:
            self._stop_waiting()
            raise
        if not woken:
            self._stop_waiting()
            raise FetchError(
                f"no bytes of {shorten(flight.key)} for {self.timeout:g} s (timeout); the fill goes on, open it again"
            )

    def _stop_waiting(self) -> None:
        with self.flight._lock:
            if self._waiter in self.flight._waiters:
                self.flight._waiters.remove(self._waiter)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.flight._leave(self._id)

    def lost(self) -> None:
        """As `close`, from a finalizer: no lock is taken; the flight sees to it at its next step."""
        if not self._closed:
            self._closed = True
            self.flight._lost.append(self._id)


def _wake(waiters: list[_Waiter]) -> None:
    for waiter in waiters:
        waiter.wake()


def _raise_outcome(error: BaseException) -> NoReturn:
    """Raise a copy: one exception raised in many threads would share a growing traceback."""
    copied = error.__class__.__new__(error.__class__)
    copied.args = error.args
    copied.__dict__.update(error.__dict__)
    raise copied from error


def _with_size(metadata: Metadata, size: int) -> Metadata:
    import msgspec

    return msgspec.structs.replace(metadata, size=size)


def _hasher(digest: str) -> Any:
    import hashlib

    return hashlib.new(digest.partition(":")[0], usedforsecurity=False)
