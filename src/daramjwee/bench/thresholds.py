"""Which thresholds win on a machine: measurements in, settings out.

Invariant: a setting differs from its default only where the measured gain is beyond the noise, and nothing measured
gets slower by it.
Pure: values in, values out.
Design: docs/design/bench.md
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from daramjwee.bench import curve
from daramjwee.bench.curve import CHUNKS, Cell, chunked
from daramjwee.bench.samples import ratios, summarize
from daramjwee.buffers.strategy import LARGE_CHUNK_BYTES, LARGE_CHUNK_FROM
from daramjwee.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daramjwee.bench.curve import Measured
    from daramjwee.buffers import BufferPoolConfig

# A gain below this is not worth a setting that differs from everybody's; a loss below it is none.
MARGIN = 0.02
# Gains that differ by less are the same: the smaller chunk then costs less memory.
TIE = 0.01
FILES = (curve.FILE_TO_FILE, curve.PLAIN_TO_FILE)
FIELDS = (
    "default_buffer_size", "chunk_size", "large_object_threshold", "very_large_object_threshold",
    "large_object_strategy",
)  # fmt: skip


class Choice(msgspec.Struct, frozen=True):
    """What one field should be. `gain`: how many times as quick as with the default, over everything the field decides;
    1 where the default stays. Sizes are bytes."""

    field: str
    value: int | str | None
    default: int | str | None
    gain: float
    reason: str

    @property
    def changed(self) -> bool:
        """Whether the default loses here."""
        return self.value != self.default


class Comparison(msgspec.Struct, frozen=True):
    """One way beside another over several cells: the geometric mean of the median gains, and in how many cells it is
    quicker, or slower, by more than the noise."""

    gain: float
    wins: int
    losses: int

    @property
    def better(self) -> bool:
        """Whether it is worth a change."""
        return self.wins > 0 and self.losses == 0 and self.gain >= 1 + MARGIN


def compare(measured: Measured, places: Iterable[tuple[str, int]], base: str, way: str) -> Comparison:
    """`way` beside `base` in each of `places` (pair of ends, size) where both were measured.

    Beyond the noise: the median of the pairs is off by more than `MARGIN`, and their middle half lies wholly on that
    side of 1.
    """
    wins = losses = 0
    logs = []
    for pair, size in places:
        if Cell(pair, base, size) not in measured or Cell(pair, way, size) not in measured:
            continue
        gain = summarize(ratios(measured[Cell(pair, base, size)], measured[Cell(pair, way, size)]))
        wins += gain.median >= 1 + MARGIN and gain.low > 1
        losses += gain.median <= 1 - MARGIN and gain.high < 1
        logs.append(math.log(gain.median))
    return Comparison(math.exp(sum(logs) / len(logs)) if logs else 1.0, wins, losses)


def decide(measured: Measured, defaults: BufferPoolConfig) -> tuple[Choice, ...]:
    """A choice for each of `FIELDS`, in that order."""
    sizes = sorted({cell.size for cell in measured})
    buffer = _default_buffer_size(measured, sizes, defaults)
    strategy, threshold = _strategy(measured, sizes, defaults)
    return (
        buffer,
        _chunk_size(measured, sizes, buffer, defaults),
        threshold,
        _very_large(threshold, defaults),
        strategy,
    )


def settings(choices: Sequence[Choice]) -> dict[str, str]:
    """The choices as `BufferPoolConfig` takes them; what is left to the pool is left out."""
    return {
        choice.field: choice.value if isinstance(choice.value, str) else format_size(choice.value)
        for choice in choices
        if choice.value is not None
    }


def _default_buffer_size(measured: Measured, sizes: list[int], defaults: BufferPoolConfig) -> Choice:
    """The chunk for files, and for anything else that is no socket: over objects that are larger than any candidate."""
    now = defaults.default_buffer_size
    places = [(pair, size) for pair in FILES for size in sizes if size >= max(CHUNKS)]
    found: dict[int, Comparison] = {}
    for chunk in CHUNKS:
        seen = compare(measured, places, chunked(now), chunked(chunk))
        if chunk != now and defaults.min_buffer_size <= chunk <= defaults.max_buffer_size and seen.better:
            found[chunk] = seen
    if not found:
        return _kept("default_buffer_size", now, "no chunk size is quicker for files beyond the noise")
    best = max(seen.gain for seen in found.values())
    chunk = min(chunk for chunk, seen in found.items() if seen.gain >= best * (1 - TIE))
    reason = f"objects of {format_size(max(CHUNKS))} and more to files, beside chunks of {format_size(now)}"
    return Choice("default_buffer_size", chunk, now, found[chunk].gain, reason)


def _chunk_size(measured: Measured, sizes: list[int], buffer: Choice, defaults: BufferPoolConfig) -> Choice:
    """Left to the pool, unless what it does for large objects and sockets loses to doing the same as everywhere."""
    now, chunk = defaults.chunk_size, buffer.value
    places = [(curve.PLAIN_TO_SOCKET, size) for size in sizes if size >= LARGE_CHUNK_FROM]
    usual = min(LARGE_CHUNK_BYTES, defaults.max_buffer_size)
    if now is None and isinstance(chunk, int) and chunk < usual:
        seen = compare(measured, places, chunked(usual), chunked(chunk))
        if seen.better:
            reason = f"objects of {format_size(LARGE_CHUNK_FROM)} and more to sockets, beside {format_size(usual)}"
            return Choice("chunk_size", chunk, now, seen.gain, reason)
    return _kept("chunk_size", now, "what the pool does for sockets is not beaten beyond the noise")


def _strategy(measured: Measured, sizes: list[int], defaults: BufferPoolConfig) -> tuple[Choice, Choice]:
    """The strategy for large objects, and where large begins: from the smallest size on from which one strategy, the
    same for all ends, beats the pool's choice for each of them somewhere and loses nowhere."""
    now, large = defaults.large_object_strategy.value, defaults.large_object_threshold
    pairs = sorted({cell.pair for cell in measured})
    best: tuple[float, str, int] | None = None
    for strategy, way in (
        ("chunked", chunked(defaults.default_buffer_size)), ("pooled", curve.POOLED), ("direct", curve.DIRECT),
    ):  # fmt: skip
        start = next((size for size in sizes if _wins_from(measured, pairs, sizes, size, way)), None)
        if start is not None:
            gain = compare(measured, _places(pairs, sizes, start), curve.CHOSEN, way).gain
            if best is None or gain > best[0] * (1 + TIE):
                best = gain, strategy, start
    if now != "adaptive" or best is None:
        return (
            _kept("large_object_strategy", now, "no single strategy beats choosing for each copy beyond the noise"),
            _kept("large_object_threshold", large, "no strategy begins there; it says what passes the gate"),
        )
    gain, strategy, start = best
    reason = f"objects of {format_size(start)} and more, all ends, beside the pool's own choice"
    return (
        Choice("large_object_strategy", strategy, now, gain, reason),
        Choice(
            "large_object_threshold", start, large, gain if start != large else 1.0, f"where {strategy} begins to win"
        ),
    )


def _wins_from(measured: Measured, pairs: Sequence[str], sizes: Sequence[int], start: int, way: str) -> bool:
    """Whether `way` wins from `start` on, and already at `start`."""
    whole = compare(measured, _places(pairs, sizes, start), curve.CHOSEN, way)
    return whole.better and compare(measured, _places(pairs, [start], start), curve.CHOSEN, way).better


def _places(pairs: Sequence[str], sizes: Sequence[int], start: int) -> list[tuple[str, int]]:
    return [(pair, size) for pair in pairs for size in sizes if size >= start]


def _very_large(threshold: Choice, defaults: BufferPoolConfig) -> Choice:
    """No speed depends on it; it has to stay above the other threshold."""
    now = defaults.very_large_object_threshold
    if isinstance(threshold.value, int) and threshold.value >= now:
        reason = "must be above large_object_threshold; no speed depends on it"
        return Choice("very_large_object_threshold", 4 * threshold.value, now, 1.0, reason)
    return _kept("very_large_object_threshold", now, "it names a class of sizes; no speed depends on it")


def _kept(field: str, value: Any, reason: str) -> Choice:
    return Choice(field, value, value, 1.0, reason)
