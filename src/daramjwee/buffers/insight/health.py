"""Health: what is wrong with a pool, judged by its statistics. Which setting to change is advice, not health.

Pure: a snapshot and what else is known in, findings out; the worst first.
Design: docs/monitoring.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daramjwee.buffers.holdings import UNKNOWN_PLACE
from daramjwee.buffers.insight.finding import Finding, Severity
from daramjwee.buffers.pressure_kernel import CRITICAL, ELEVATED, HIGH, NORMAL
from daramjwee.units import counted, format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daramjwee.buffers.config import BufferPoolConfig
    from daramjwee.buffers.stats import BufferPoolStats

# Places of lost leases that a finding names; the others are counted.
MOST_PLACES = 5
# From here on the next requests are likely to wait. (The share at which the ledger asks for ELEVATED.)
FULL_SHARE = 0.95

_INFO, _WARNING, _CRITICAL = Severity.INFO, Severity.WARNING, Severity.CRITICAL
_ORDER = (_CRITICAL, _WARNING, _INFO)
_PRESSURE = {ELEVATED: _INFO, HIGH: _WARNING, CRITICAL: _CRITICAL}


def health(
    stats: BufferPoolStats,
    config: BufferPoolConfig,
    *,
    closed: bool = False,
    places: Sequence[tuple[str, int]] = (),
    pressure_reason: str = "",
) -> tuple[Finding, ...]:
    """What is wrong, the worst first; empty when all is well. Pure.

    `places`: where lost leases were taken, and how many at each. `pressure_reason`: the reading that asked for the level.
    What was counted stays until `reset_stats`, and says for how long it was counted; the rest is how it is now.
    """
    found = [
        *_of_work(stats),
        *_of_leases(stats, places, closed=closed),
        *_of_memory(stats, config, pressure_reason),
    ]
    return tuple(sorted(found, key=lambda finding: _ORDER.index(finding.severity)))


def _finding(code: str, severity: Severity, seen: str, remedy: str, **figures: float) -> Finding:
    return Finding(code=code, severity=severity, seen=seen, remedy=remedy, figures=figures)


def _most(place: tuple[str, int]) -> int:
    return -place[1]


def _since(stats: BufferPoolStats) -> str:
    ago = f", {format_duration(stats.seconds)} ago" if stats.seconds else ""
    return f", counted since the start or reset_stats{ago}"


def _of_work(stats: BufferPoolStats) -> Iterator[Finding]:
    """Operations that failed, or went another way."""
    gate, since = stats.gate, _since(stats)
    if stats.overloads:
        yield _finding(
            "overloads", _CRITICAL, f"{counted(stats.overloads, 'request')} waited in vain for memory (Overloaded){since}",
            "see who holds memory (active_buffers), and advise()", overloads=stats.overloads,
        )  # fmt: skip
    if gate.refused:
        yield _finding(
            "gate_full", _CRITICAL, f"{counted(gate.refused, 'large operation was', 'large operations were')} sent away, the line was full{since}",
            "start fewer at once, or retry after the error's retry_after; see advise()", refused=gate.refused,
        )  # fmt: skip
    if gate.timed_out:
        yield _finding(
            "gate_timeouts", _CRITICAL, f"{counted(gate.timed_out, 'large operation')} waited in vain for a place{since}",
            "see what the operations under way wait for, and advise()", timed_out=gate.timed_out,
        )  # fmt: skip
    if gate.lost:
        yield _finding(
            "gate_lost", _WARNING, f"{counted(gate.lost, 'place in the gate was', 'places in the gate were')} never given back by who took them{since}",
            "release each slot and lease, best with `with`", lost=gate.lost,
        )  # fmt: skip
    if stats.fallbacks:
        yield _finding(
            "fallbacks", _INFO, f"{stats.fallbacks:,} of {counted(stats.copies, 'copy', 'copies')} could not go the configured way{since}",
            'the log says why once for each reason: "fallback of a copy"', fallbacks=stats.fallbacks,
            copies=stats.copies,
        )  # fmt: skip


def _of_leases(stats: BufferPoolStats, places: Sequence[tuple[str, int]], *, closed: bool) -> Iterator[Finding]:
    if stats.lost_leases:
        known = [place for place in places if place[0] != UNKNOWN_PLACE]
        named = ", ".join(f"{count:,} at {place}" for place, count in sorted(known, key=_most)[:MOST_PLACES])
        more = f", and {counted(len(known) - MOST_PLACES, 'more place')}" if len(known) > MOST_PLACES else ""
        where = f"; of all since the start {named}{more}" if named else ""
        missing = len(known) < len(places) or not named
        yield _finding(
            "lost_leases", _WARNING, f"{counted(stats.lost_leases, 'lease was', 'leases were')} lost without release{_since(stats)}{where}",
            "release each lease, best with `with`" + ("; leak_detection full names every place" if missing else ""),
            lost_leases=stats.lost_leases,
        )  # fmt: skip
    if stats.quarantined:
        yield _finding(
            "quarantined", _WARNING,
            f"{counted(stats.quarantined, 'buffer was', 'buffers were')} given back while a view of the memory lives, and "
            "cannot be reused",
            "keep no slice of a lease's view beyond its release; copy with bytes()", quarantined=stats.quarantined,
        )  # fmt: skip
    if closed and stats.active_buffers:
        yield _finding(
            "closed_with_leases", _WARNING,
            f"the pool is closed, and {counted(stats.active_buffers, 'lease is', 'leases are')} still out", "release them: their memory "
            "goes back to the system then", active_buffers=stats.active_buffers,
        )  # fmt: skip


def _of_memory(stats: BufferPoolStats, config: BufferPoolConfig, reason: str) -> Iterator[Finding]:
    held, limit = stats.ledger_held, stats.ledger_limit
    in_use = held - stats.idle_bytes
    if stats.pressure is not NORMAL:
        why = f": {reason}" if reason else ""
        own = stats.system_pressure is NORMAL
        yield _finding(
            "pressure", _PRESSURE[stats.pressure], f"memory pressure is {stats.pressure.name}{why}",
            "the limit is short, not the system: raise max_pool_bytes (memory_limit of a cache), or run less at once"
            if own
            else "give this process or its container more memory, or lower the memory limits",
            pressure=int(stats.pressure),
        )  # fmt: skip
    if stats.refusals:
        yield _finding(
            "refusals", _WARNING, f"the system refused memory {counted(stats.refusals, 'time')}{_since(stats)}",
            "raise the limits of the process or container (daramjwee doctor names them)", refusals=stats.refusals,
        )  # fmt: skip
    if stats.reserve_uses:
        yield _finding(
            "reserve_used", _WARNING, f"{counted(stats.reserve_uses, 'copy', 'copies')} had to go through the emergency chunk{_since(stats)}",
            "free memory: they are slow, one at a time", reserve_uses=stats.reserve_uses,
        )  # fmt: skip
    if stats.waiting:
        yield _finding(
            "waiting", _WARNING, f"{counted(stats.waiting, 'request stands', 'requests stand')} in line for memory",
            "see who holds it (active_buffers)", waiting=stats.waiting,
        )  # fmt: skip
    # What is idle is given up for whoever needs it, so it does not fill anything.
    if limit and in_use >= FULL_SHARE * limit:
        yield _finding(
            "ledger_full", _WARNING, f"{format_size(in_use)} of {format_size(limit)} are in use",
            "release leases earlier, or raise the limit", in_use=in_use, limit=limit,
        )  # fmt: skip
    if not config.enabled:
        yield _finding(
            "disabled", _INFO, "the pool is disabled: each request maps its own memory",
            "set enabled to true, unless that is meant",
        )  # fmt: skip
