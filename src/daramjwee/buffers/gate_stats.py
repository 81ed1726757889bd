"""What the gate for large operations has done: its counters, and the snapshot made of them.

Invariant: exact when nothing runs. What is taken without the lock is counted in tallies, each written only by whoever
has its token.
Threads: everything but a tally is written by the holder of the gate's lock.
Design: docs/design/strategy.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from daramjwee.buffers.gate_kernel import PRIORITIES
from daramjwee.buffers.ledger import LEAST_RETRY_SECONDS

if TYPE_CHECKING:
    from daramjwee.buffers.gate_kernel import GateKernel
    from daramjwee.buffers.gate_places import Token, Waiter

# The weight of the newest in the mean time an operation holds its place.
HOLD_WEIGHT = 0.125


class GateStats(msgspec.Struct, frozen=True):
    """What the gate has done since it was made, and its state now. Exact when nothing runs.

    `active`, `active_bytes`: operations under way and the bytes reserved for them (0 where bytes are not bounded).
    `waiting`: in line now, and of each priority (`waiting_high`, `waiting_normal`, `waiting_low`). `entered`: operations that got a place; `waited`: those of them that
    stood in line, for `wait_seconds` together, `longest_wait` at most. `refused`: the line was full; `timed_out`;
    `cancelled`: task cancelled or thread interrupted in line. `lost`: slots collected without release.
    """

    active: int = 0
    active_bytes: int = 0
    waiting: int = 0
    waiting_high: int = 0
    waiting_normal: int = 0
    waiting_low: int = 0
    entered: int = 0
    waited: int = 0
    refused: int = 0
    timed_out: int = 0
    cancelled: int = 0
    lost: int = 0
    wait_seconds: float = 0.0
    longest_wait: float = 0.0

    def __add__(self, other: GateStats) -> GateStats:
        """Both gates together."""
        if not isinstance(other, GateStats):
            return NotImplemented
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__}
        sums["longest_wait"] = max(self.longest_wait, other.longest_wait)
        return GateStats(**sums)

    def since(self, base: GateStats) -> GateStats:
        """The same with its counters taken from `base` on. What is now, and the longest wait, are not counters."""
        return msgspec.structs.replace(
            self,
            entered=self.entered - base.entered,
            waited=self.waited - base.waited,
            refused=self.refused - base.refused,
            timed_out=self.timed_out - base.timed_out,
            cancelled=self.cancelled - base.cancelled,
            lost=self.lost - base.lost,
            wait_seconds=self.wait_seconds - base.wait_seconds,
        )


class Tally:
    """How often one token was taken: written by whoever has the token, so it needs no lock."""

    __slots__ = ("entered",)

    def __init__(self) -> None:
        self.entered = 0


class GateCounts:
    """Counters since the gate was made."""

    __slots__ = (
        "cancelled", "entered", "hold_seconds", "longest_wait", "lost", "refused", "tallies", "timed_out",
        "wait_seconds", "waited",
    )  # fmt: skip

    def __init__(self) -> None:
        self.entered = self.waited = self.refused = self.timed_out = self.cancelled = self.lost = 0
        self.wait_seconds = self.longest_wait = 0.0
        self.hold_seconds: float | None = None  # mean of late, of operations that asked the kernel
        self.tallies: list[Tally] = []

    def new_tally(self) -> Tally:
        tally = Tally()
        self.tallies.append(tally)
        return tally

    def entry(self, waiter: Waiter, now: float) -> None:
        self.entered += 1
        waiter.granted_at = now
        waiter.noted = True

    def grant(self, waiter: Waiter, now: float) -> None:
        """An entry out of the line."""
        waited = max(0.0, now - waiter.arrived)
        self.waited += 1
        self.wait_seconds += waited
        self.longest_wait = max(self.longest_wait, waited)
        self.entry(waiter, now)

    def held(self, seconds: float) -> None:
        mean = self.hold_seconds
        self.hold_seconds = seconds if mean is None else mean + HOLD_WEIGHT * (seconds - mean)

    def retry_after(self, ahead: int, max_operations: int) -> float:
        """When one with so many ahead can expect a place: each of `max_operations` comes free once in a mean hold."""
        return max(LEAST_RETRY_SECONDS, (self.hold_seconds or 0.0) * (ahead + 1) / max_operations)

    def snapshot(self, kernel: GateKernel, free: list[Token]) -> GateStats:
        waiting = [0] * len(PRIORITIES)
        for ticket in kernel.line:
            waiting[ticket.penalty] += 1
        return GateStats(
            active=kernel.active - len(free),
            active_bytes=kernel.active_bytes - sum(token.charged for token in free),
            waiting=len(kernel.line),
            waiting_high=waiting[0],
            waiting_normal=waiting[1],
            waiting_low=waiting[2],
            entered=self.entered + sum(tally.entered for tally in self.tallies),
            waited=self.waited,
            refused=self.refused,
            timed_out=self.timed_out,
            cancelled=self.cancelled,
            lost=self.lost,
            wait_seconds=self.wait_seconds,
            longest_wait=self.longest_wait,
        )
