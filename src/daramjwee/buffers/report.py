"""The statistics of a pool as text for people.

Pure: a snapshot in, text out.
Design: docs/monitoring.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daramjwee.buffers.insight.metrics import format_ns
from daramjwee.buffers.stats import sum_of
from daramjwee.units import counted, format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daramjwee.buffers.stats import BufferPoolStats, Operations, OperationStats

_COLUMNS = ("operations", "strategy", "count", "moved", "mean", "p50", "p99")
_TEXT_COLUMNS = 2
_LABEL = len("operations")


def report(stats: BufferPoolStats) -> str:
    """Operations by class and strategy, then what memory, ledger, gate and process say: some twenty lines of plain
    text, without one for what never occurred."""
    lines = [*_operations(stats)]
    lines += [f"{label:<{_LABEL}}  {text}" for label, text in _lines(stats)]
    return "\n".join(lines)


def _operations(stats: BufferPoolStats) -> Iterator[str]:
    cells = [cell for cell in stats.operations if cell.count]
    if not cells:
        yield f"{'operations':<{_LABEL}}  none"
        return
    rows: list[tuple[str, ...]] = [_COLUMNS]
    rows += [_row(cell.size_class.value.replace("_", " "), cell.strategy.value, cell) for cell in cells]
    if len(cells) > 1:
        rows.append(_row("all", "", sum_of(cells)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        parts = (
            f"{text:<{width}}" if at < _TEXT_COLUMNS else f"{text:>{width}}"
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(parts).rstrip()


def _row(size_class: str, strategy: str, of: OperationStats | Operations) -> tuple[str, ...]:
    latency = of.latency
    timed = bool(latency.buckets)
    return (
        size_class, strategy, f"{of.count:,}", format_size(of.bytes) if of.bytes else "-",
        format_ns(of.mean_ns) if of.timed else "-",
        format_ns(latency.p50) if timed else "-", format_ns(latency.p99) if timed else "-",
    )  # fmt: skip


def _lines(stats: BufferPoolStats) -> Iterator[tuple[str, str]]:
    if stats.seconds > 0:
        yield (
            "in all",
            (
                f"{counted(stats.total_operations, 'operation')} in {format_duration(stats.seconds)} "
                f"({stats.total_operations / stats.seconds:,.1f}/s), {format_size(stats.copied_bytes)} moved "
                f"({format_size(stats.copied_bytes / stats.seconds)}/s) in {counted(stats.moved_chunks, 'piece')}"
            ),
        )
    reused = f", {stats.reuse_rate:.1%} reused" if stats.pool_hits + stats.pool_misses else ""
    yield "leases", f"{stats.total_gets:,} made, {stats.total_puts:,} given back, {stats.active_buffers:,} out{reused}"
    if stats.waits or stats.waiting or stats.overloads:
        yield (
            "waits",
            (
                f"{stats.waits:,} waited for memory, {format_duration(stats.wait_seconds)} together; {stats.overloads:,} in "
                f"vain; {counted(stats.waiting, 'waits', 'wait')} now"
            ),
        )
    yield (
        "memory",
        (
            f"{format_size(stats.arena_bytes + stats.private_bytes)} mapped ({format_size(stats.idle_bytes)} idle, "
            f"{format_size(stats.private_bytes)} private), {format_size(stats.peak_bytes)} at the peak; "
            f"{counted(stats.maps, 'mapping')} of {format_size(stats.mapped_bytes)}"
        ),
    )
    if stats.peak_bytes and stats.copied_bytes:
        yield "efficiency", f"{stats.memory_efficiency:,.1f} bytes moved for each byte at the peak"
    if stats.ledger_limit:
        held = stats.ledger_held / stats.ledger_limit
        yield "ledger", f"{format_size(stats.ledger_held)} of {format_size(stats.ledger_limit)} ({held:.1%})"
    yield from _gate(stats)
    yield "pressure", stats.pressure.name
    yield "process", _process(stats)
    troubles = ", ".join(f"{what} {count:,}" for what, count in _troubles(stats) if count)
    if troubles:
        yield "troubles", troubles


def _gate(stats: BufferPoolStats) -> Iterator[tuple[str, str]]:
    gate = stats.gate
    if not (gate.entered or gate.waiting or gate.refused or gate.timed_out or gate.active):
        return
    yield "gate", f"{gate.active:,} under way, {gate.waiting:,} waiting; {gate.entered:,} entered"
    if gate.waited or gate.refused or gate.timed_out or gate.cancelled:
        yield (
            "",
            (
                f"{gate.waited:,} waited, {format_duration(gate.wait_seconds)} together, "
                f"{format_duration(gate.longest_wait)} at most; {gate.refused:,} refused, {gate.timed_out:,} timed out, "
                f"{gate.cancelled:,} cancelled"
            ),
        )


def _process(stats: BufferPoolStats) -> str:
    allocation = stats.allocation
    faults = f"{allocation.page_faults:,} page faults"
    runs = f"{allocation.collections:,} collector runs"
    if stats.copied_bytes:
        faults += f" ({stats.per_gib(allocation.page_faults):,.1f} per GiB)"
        runs += f" ({stats.per_gib(allocation.collections):,.1f} per GiB)"
    paused = allocation.collector_seconds
    return f"{faults}, {runs}" + (f", paused for {format_duration(paused)}" if paused else "")


def _troubles(stats: BufferPoolStats) -> Iterator[tuple[str, int]]:
    yield "lost leases", stats.lost_leases
    yield "chunks in quarantine", stats.quarantined
    yield "refused by the system", stats.refusals
    yield "fallbacks", stats.fallbacks
    yield "uses of the reserve", stats.reserve_uses
    yield "lost places in the gate", stats.gate.lost
