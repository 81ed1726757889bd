"""Flights: one running fill, in threads: who pumps, what becomes of each piece, and how it ends.

The kernel decides, the crowd has the readers, the intake the origin.

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
from time import monotonic
from typing import TYPE_CHECKING

from daramjwee.errors import DaramjweeError, FillAborted, LimitExceeded, StoreError, shorten
from daramjwee.fills.crowd import Crowd, see_to
from daramjwee.fills.intake import Intake
from daramjwee.fills.kernel import Phase
from daramjwee.fills.reader import FlightReader, copied
from daramjwee.fills.waiter import NEVER, Waiter
from daramjwee.model import Event
from daramjwee.units import counted

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from typing import Any

    from daramjwee.buffers import BufferPool
    from daramjwee.fills.intake import Fill
    from daramjwee.model import Metadata, Observer
    from daramjwee.stores.protocol import Entry, Staging

logger = logging.getLogger(__name__)

# An unsized body is pulled by its readers so often before a filler takes over: most end within two pulls.
PULLS_BEFORE_FILLER = 2
# How long a full window may stand still for one reader while others wait at its head.
SLOW_READER_SECONDS = 30.0
# How often a filler that waits for room looks for readers that were lost without a close.
FILLER_LOOK_SECONDS = 1.0


class LookAgain(Exception):
    """The flight ended without bytes, and the answer is to be found by looking the key up once more."""


class GoAlone(Exception):
    """What is being fetched belongs to its starter only: whoever waited fetches for itself."""


class Flight:
    """One running fill of one key.

    `spawn(run) -> bool` runs something on a thread of its own, or refuses; `on_over(flight)` is called once,
    before any reader sees the outcome. `keep_orphan`: go on when the last reader has left. `forsaken`: where the flight
    puts itself when a reader was lost, for whoever looks after flights that take no step of their own.
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
        forsaken: deque[Flight],
    ) -> None:
        self.key = key
        self.keep_orphan = keep_orphan
        self.metadata: Metadata | None = None
        self.entry: Entry | None = None
        self.tier: Any = None  # where it stages, for whoever started it
        self.failure: BaseException | None = None  # what `error` is about to be: readers do not see it yet
        self.error: BaseException | None = None
        self.staging: Staging | None = None
        self.intake = Intake(key, pool)
        self.crowd = crowd = Crowd(pool)
        self.lock, self.kernel, self.window = crowd.lock, crowd.kernel, crowd.window
        self.forsaken = forsaken
        self._spawn = spawn
        self._observer = observer
        self._on_over = on_over
        self._guard: Callable[[], bool] | None = None
        self.aborting: BaseException | None = None  # why it is being ended, from before it is over
        self.promotes = False  # carries a copy to a higher tier, and asks no origin
        self.made_by = threading.get_ident()
        self.holder = self.made_by  # the thread that has the pump role; 0: nobody, or a filler that is on its way
        self.begun = False  # whether somebody has come to start it
        self._gone = False

    def __repr__(self) -> str:
        kernel = self.kernel
        size = "?" if kernel.size is None else kernel.size
        return (
            f"<Flight {shorten(self.key)} {kernel.phase.value}, {kernel.head} of {size} bytes, "
            f"{counted(len(kernel.readers), 'reader')}>"
        )

    @property
    def size(self) -> int | None:
        """Bytes of the object, None while unknown."""
        return self.kernel.size

    @property
    def over(self) -> bool:
        return self.kernel.over

    @property
    def has_readers(self) -> bool:
        return bool(self.kernel.readers)

    @property
    def windowed(self) -> bool:
        """Whether bytes pass through a window, so that no reader can go back or far ahead."""
        return self.kernel.windowed

    def join(self, offset: int = 0, *, timeout: float | None = None) -> FlightReader | None:
        """Attach a reader at `offset`, or None when it is too late for that."""
        with self.lock:
            if self._gone or self.aborting is not None:
                return None
            reader = next(self.crowd.numbers)
            made = FlightReader(self, reader, timeout)  # first: if it gets lost, it leaves by itself
            return made if self.kernel.join(reader, offset) else None

    def abort(self, error: BaseException) -> None:
        """End a flight that still runs with `error` for every reader; what is staged is dropped."""
        idle = False
        try:
            with self.lock:
                if self.kernel.over:
                    return
                self.aborting = self.aborting or error
                # A filler that is on its way may never come: whoever closes drops what its threads have not begun.
                idle = not self.kernel.pumping or not self.begun or self.holder == 0
                self.kernel.pumping = self.begun = True
                if idle:
                    self.holder = -1
                self.crowd.wake_all_locked()
            if idle:
                self._fail(error)
            else:
                self.crowd.room.wake()  # whoever pumps sees it before the next pull
        except BaseException:
            if idle:
                self._fail_again(error)
            raise

    def finish(self, timeout: float) -> bool:
        """Wait until the flight is over, pumping if nobody does; False when `timeout` seconds were not enough."""
        try:
            return self._wait_over(monotonic() + timeout)
        except BaseException:
            self.surrender()
            raise

    def _wait_over(self, deadline: float) -> bool:
        # Not in the `try` of who calls this: an interrupt at the jump back of such a loop could be outside of it (see
        # `MemoryLedger._wait`).
        waiter = Waiter()
        while True:
            with self.lock:
                if self.kernel.over:
                    return True
                # Whoever pumps ends it as soon as it comes back, and it may be who asks. A windowed flight moves
                # only while its readers read, and keeps nothing: there is nothing to wait for.
                if self.aborting is not None or self.kernel.windowed or self.intake.asking == threading.get_ident():
                    return False
                pump = not self.kernel.window_full and self.try_pump_locked()
                if not pump:
                    self.crowd.enlist_locked(waiter, NEVER)
            if pump:
                if not self.spawn_filler():
                    self._run_filler()
            elif not waiter.wait(deadline - monotonic()):
                self.crowd.dismiss(waiter)
                return self.kernel.over

    # -- the pump: every method below is called by the holder of the pump role -----------------------------

    def start(self, begin: Callable[[], Fill]) -> None:
        """Ask the origin by `begin`, pull the first piece, and see to it that the rest follows.

        What `begin` raises becomes the outcome for every reader, and is raised here too; a body that fails
        later is told to the readers only.
        """
        try:
            # Within: an interrupt that follows the lock's release would leave it begun, and nobody to go on.
            with self.lock:
                refused = self.aborting if self.begun else None
                self.holder = threading.get_ident()
                self.begun = True
            if refused is None:
                self._start(begin)
        except BaseException:
            self.surrender()
            raise
        if refused is not None:
            raise copied(refused)

    def _start(self, begin: Callable[[], Fill]) -> None:
        try:
            fill = self.intake.ask(begin)
            self._guard, self.staging, self.metadata = fill.guard, fill.staging, fill.metadata
            self.intake.expect(fill.metadata)
            size = fill.metadata.size
        except Exception as error:
            self._fail(error)
            raise
        except BaseException:
            # The starter was interrupted, the origin is not to blame: whoever waits asks it again.
            self._fail(LookAgain())
            raise
        with self.lock:
            self.kernel.started(size, spool=fill.staging is not None)
            self.crowd.wake_all_locked()
        self.pump_piece()
        # All that was announced is here: pull once more, to see the end and publish without a hand-over.
        if not self.kernel.over and size is not None and self.kernel.head >= size:
            self.pump_piece()
        self.hand_over()

    def try_pump_locked(self) -> bool:
        """Take the pump role for this thread, if it is free."""
        me = threading.get_ident()
        kernel = self.kernel
        if kernel.pumping or kernel.phase is not Phase.RUNNING:
            return False
        kernel.pumping, self.holder = True, me
        return True

    def surrender(self) -> None:
        """This thread was interrupted wherever it was: what it had to do for others is done, or ends here."""
        with self.lock:
            if self.holder != threading.get_ident():
                self.crowd.wake_all_locked()
                return
            over = self.kernel.over
            error = self.aborting or FillAborted(f"the thread that was fetching {shorten(self.key)} was interrupted")
            if not over:
                self.aborting = error
            self.holder = -1
            self.crowd.wake_all_locked()
        if over:
            self.intake.close()
        else:
            self._fail(error if self.metadata is not None else LookAgain())

    def hand_over(self) -> None:
        """A piece was pulled: a filler goes on, or the role is free for a reader that needs more."""
        kernel = self.kernel
        if kernel.over:
            return
        due = kernel.size is not None or self.intake.pulls >= PULLS_BEFORE_FILLER or not kernel.readers
        if due and self.spawn_filler():
            return
        with self.lock:
            kernel.stop_pumping()
            self.holder = 0
            self.crowd.wake_all_locked()
            orphan = not kernel.readers
        if orphan:
            self.abort(FillAborted(f"nobody reads {shorten(self.key)} any more and no filler is free to finish it"))

    def spawn_filler(self) -> bool:
        """Give the pump role to a filler, which may come late or, after an abort, never. False: none is to be had."""
        context = contextvars.copy_context()
        if not self._spawn(lambda: context.run(self._run_filler)):
            return False
        aborted = None
        try:
            with self.lock:
                if self.holder == threading.get_ident():  # it has not come yet
                    aborted = None if self.kernel.over else self.aborting
                    self.holder = 0 if aborted is None else -1
            if aborted is not None:
                self._fail(aborted)
        except BaseException:
            if aborted is not None:
                self._fail_again(aborted)
            raise
        return True

    def _run_filler(self) -> None:
        """Pull to the end, at the origin's pace; in a full window at the pace of the slowest reader."""
        still_since: float | None = None
        with self.lock:
            if self.kernel.over or self.holder == -1:
                return
            self.holder = threading.get_ident()
        while True:
            self._drain_lost()
            with self.lock:
                if self.kernel.over:
                    return
                blocked = self.kernel.window_full and self.aborting is None
            if not blocked:
                still_since = None
                self.pump_piece()
            elif self.crowd.room.wait(FILLER_LOOK_SECONDS):
                still_since = None
            else:
                still_since = still_since or monotonic()
                if monotonic() - still_since >= SLOW_READER_SECONDS:
                    self._detach_slowest()

    def pump_piece(self) -> None:
        """Pull one piece and pass it on, or see the end and publish. Failures become the outcome."""
        try:
            if self.aborting is not None:
                raise self.aborting
            piece = self.intake.pull(self.kernel.head, self.window.short)
            if len(piece):
                self._accept(piece)
            else:
                self._finish()
        except Exception as error:  # noqa: BLE001 - it is told to every reader
            self._fail(error)
        except BaseException as error:
            self._fail(FillAborted(f"the thread that was fetching {shorten(self.key)} was interrupted: {error!r}"))
            raise

    def _accept(self, piece: memoryview | bytes) -> None:
        self._drain_lost()
        if not self.kernel.windowed:
            assert self.staging is not None
            try:
                self.staging.write(piece)
            except (LimitExceeded, StoreError) as error:
                self._lose_spool(error)
            else:
                self.crowd.staged(len(piece))
                return
        self.crowd.passed(self.window.admit(self.kernel.head, piece))

    def _lose_spool(self, error: DaramjweeError) -> None:
        """The staging takes no more: readers go on through a window, and nothing will be published."""
        self._say_not_kept(error)
        with self.lock:
            self.kernel.spool_lost()
            self.crowd.wake_all_locked()

    def _say_not_kept(self, error: DaramjweeError) -> None:
        said = str(error)  # a record that is kept must not keep the fill
        logger.warning("not caching %s: %s", shorten(self.key), said)
        self._observer.notice(Event("fill_not_kept", self.key, None, said))

    def _finish(self) -> None:
        """The body ended: check it against what the origin said, publish, then tell the readers."""
        kernel, metadata = self.kernel, self.metadata
        assert metadata is not None
        self.intake.check_whole(kernel.head)
        with self.lock:
            kernel.ending()
        self.metadata = metadata = _with_size(metadata, kernel.head)
        if self.staging is not None and not kernel.windowed:
            try:
                self.entry = self.staging.commit(metadata, guard=self._guard)
            except StoreError as error:
                self._say_not_kept(error)
        # Gone from the table and published before anybody wakes: who wakes and looks up again finds the entry.
        self._say_over()
        self._settle(None)

    def _fail(self, error: BaseException) -> None:
        with self.lock:
            if self.kernel.over:
                return
            self.failure = error
        try:
            self._say_over()
        except BaseException:
            # An interrupt: left in its table it would be found for ever, and nobody could join it. Once more does no harm.
            self._say_over()
            raise
        finally:
            self._settle(error)

    def _fail_again(self, error: BaseException) -> None:
        """An interrupt ended `_fail`, or came before it, and nobody has the pump role that could do it."""
        self._fail(error)
        with self.lock:
            self.crowd.wake_all_locked()

    def _say_over(self) -> None:
        try:
            self._on_over(self)
        except Exception:
            # Whatever went wrong there, the readers of this flight must not wait for ever.
            logger.exception("after the fill of %s", shorten(self.key))

    def _settle(self, error: BaseException | None) -> None:
        """Set the outcome, wake everybody, give back what only a running flight needs."""
        if not self.kernel.windowed:
            # Before anybody wakes: whoever reads the end may begin the next fill at once, and gets this chunk for it,
            # which is still in the processor's cache, instead of one more.
            self.intake.return_lease()
        with self.lock:
            self.error = error
            if error is None:
                self.kernel.done()
            else:
                self.kernel.failed()
            self.crowd.wake_all_locked()
            last = not self.kernel.readers and not self._gone
            self._gone = self._gone or last
        if error is not None and self.staging is not None:
            self.staging.abort()
        if last:
            self._let_go()
        self.intake.close()

    def _let_go(self) -> None:
        """The flight is over and nobody reads: end the staging, close the entry, give the window back."""
        with self.lock:
            self.window.drop(NEVER)
        # Nobody asks for it any more, and its traceback leads back here: together they would keep what was open in every
        # frame on the way, bodies of the memory tier too, until the collector comes.
        self.error = self.failure = None
        # A stream that was closed may be kept by whoever read it, and leads here; what was staged is let go all the same.
        staging, self.staging = self.staging, None
        if self.entry is not None:
            self.entry.close()
        elif staging is not None:
            staging.abort()

    # -- readers that are lost, too slow, or leave ---------------------------------------------------------

    def _detach_slowest(self) -> None:
        for _ in self.crowd.detach_slowest():
            self._observer.notice(Event("reader_detached", self.key, None, "too slow for the others"))

    def look_after(self, still: float) -> None:
        """Let go of readers that were lost, and of those that have kept a full window still for so many seconds."""
        try:
            self._drain_lost()
            if still >= SLOW_READER_SECONDS:
                self._detach_slowest()
        except BaseException:
            self.surrender()
            raise

    def _drain_lost(self) -> None:
        see_to(self.crowd.lost, self.leave)

    def leave(self, reader: int) -> None:
        """Detach a reader; the last one out ends a flight that has nobody to finish it for."""
        kernel = self.kernel
        with self.lock:
            kernel.leave(reader)
            # And not what that says: after an interrupt this may be the second time.
            orphaned = not kernel.readers and not kernel.over
            self.crowd.trim_locked()
            if orphaned and (kernel.windowed or not self.keep_orphan):
                # Set under the lock, so that nobody joins what is about to end.
                self.aborting = self.aborting or FillAborted(f"the last reader of {shorten(self.key)} left")
            adopt = orphaned and self.aborting is None and self.try_pump_locked()
            last = kernel.over and not kernel.readers and not self._gone
            self._gone = self._gone or last
            if not kernel.pumping and not kernel.over:
                self.crowd.wake_all_locked()
        self.crowd.room.wake()
        if last:
            self._let_go()
        elif adopt:
            try:
                self.hand_over()
            except BaseException:
                self.surrender()
                raise
        elif orphaned and self.aborting is not None:
            self.abort(self.aborting)


def _with_size(metadata: Metadata, size: int) -> Metadata:
    import msgspec

    return msgspec.structs.replace(metadata, size=size)
