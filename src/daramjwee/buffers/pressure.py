"""Memory pressure: how short memory is, in four levels, and what each level changes.

Pure: values in, values out.
Design: docs/design/strategy.md
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from daramjwee.units import KIB


class PressureLevel(enum.IntEnum):
    """How short memory is. Levels compare: `level >= PressureLevel.HIGH`."""

    NORMAL = 0
    ELEVATED = 1
    HIGH = 2
    CRITICAL = 3


class Effect(NamedTuple):
    """What a level changes. `most_chunk`: the largest chunk that is chosen (a `chunk_size` that was given is obeyed at
    every level), None for no bound; `keeps_idle`: whether memory nobody uses is kept for reuse until it is old;
    `kernel_first`: whether a file is copied to a file by the kernel, which is slower here and needs no memory."""

    most_chunk: int | None
    keeps_idle: bool
    kernel_first: bool


# Chunks of 128 KiB cost 5-12 %, of 64 KiB 15-25 % (docs/design/memory.md): small, beside being refused.
EFFECTS: tuple[Effect, ...] = (
    Effect(most_chunk=None, keeps_idle=True, kernel_first=False),  # NORMAL
    Effect(most_chunk=256 * KIB, keeps_idle=True, kernel_first=False),  # ELEVATED
    Effect(most_chunk=128 * KIB, keeps_idle=False, kernel_first=True),  # HIGH
    Effect(most_chunk=64 * KIB, keeps_idle=False, kernel_first=True),  # CRITICAL
)

# As with the strategies: a member costs 95 ns, a module's name 10.
NORMAL = PressureLevel.NORMAL
