"""The sink of a tee: how much it has taken, and what its failures do.

Invariant: `taken` bytes of the stream, from its beginning, were taken by the sink; none was written to it twice. (What a
write that was interrupted, or that lies, has taken is known to nobody: such a sink has failed.)
Threads: one thread at a time, as its tee.
Design: docs/design/memory.md
"""

from __future__ import annotations

import errno
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any

from daramjwee.buffers.endpoints import finish_write, taken_before, write_of
from daramjwee.errors import LeaseError

if TYPE_CHECKING:
    from daramjwee.buffers.endpoints import Data, Write

logger = logging.getLogger(__name__)


class TeeSink:
    """Writes to `sink` what is handed out. `live`: it is still written to; `error`: what it failed with;
    `stopped`: nothing may be handed out, because it failed and is not dropped, or because the tee is closed."""

    __slots__ = ("_drop", "_name", "_none_blocks", "_write", "elapsed", "error", "live", "stopped", "taken")

    def __init__(self, sink: Any, *, drop: bool) -> None:
        self._write, self._none_blocks = write_of(sink)
        self._name = type(sink).__name__
        self._drop = drop
        self.live = True
        self.stopped = False
        self.error: Exception | None = None
        self.taken = 0
        self.elapsed = 0.0

    def take(self, data: Data, given: int) -> None:
        """Write `data`, which follows the `given` bytes that were handed out: what of it was not taken before, in a
        call that raised. Raises the sink's error, unless that is to be dropped; then the sink is."""
        if not self.live:
            return
        taken = self.taken
        end = given + len(data)
        if taken != given:
            if taken >= end:
                return
            data = memoryview(data)[taken - given :]
        began = perf_counter()
        try:
            count = self._write(data)
            if count != end - taken:
                finish_write(self._rest_of(end), data, count, none_blocks=self._none_blocks)
            self.taken = end
        except BlockingIOError as error:
            self.taken = min(taken + max(taken_before(error), 0), end)
            if not self._drop:
                raise  # it has not failed: the next call goes on from here
            self._note(error)
        except BaseException as error:
            if not self._note(error):
                raise
        finally:
            self.elapsed += perf_counter() - began

    def take_part(self, view: memoryview, count: int, given: int) -> None:
        """Write the first `count` bytes of `view`, which is the caller's memory: a sink must not keep it."""
        part = view[:count]
        alone = False
        try:
            self.take(part, given)
        finally:
            alone = let_go(part)
        if not alone and self.live:
            error = LeaseError(f"{self._name}.write kept the memory it was given; it must copy what it keeps")
            if not self._note(error):
                raise error

    def _note(self, error: BaseException) -> bool:
        """Keep the failure in mind; whether reading may go on without the sink."""
        if isinstance(error, Exception):
            self.error = error
        else:
            what = f"a write to the sink was interrupted by {type(error).__name__}, nobody knows after how many bytes"
            self.error = InterruptedError(errno.EINTR, what)
        if not self._drop:
            self.stopped = True
            return False
        self.live = False
        fields = {"event": "pool.sink_dropped", "bytes": self.taken, "error": type(error).__name__}
        logger.warning(
            "tee drops its sink after %d bytes: %s: %s", self.taken, type(error).__name__, error, extra=fields
        )
        return isinstance(error, Exception)

    def _rest_of(self, end: int) -> Write:
        def write(rest: Data) -> Any:
            self.taken = end - len(rest)  # what comes before it was taken
            return self._write(rest)

        return write


def let_go(view: memoryview) -> bool:
    """Release `view`, or an error that keeps this frame keeps the memory; whether nobody made anything over it."""
    try:
        view.release()
    except BufferError:
        return False
    return True
