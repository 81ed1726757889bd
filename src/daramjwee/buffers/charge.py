"""Charges: what is held for as long as somebody refers to it.

Invariant: a `Grip` calls what it was made of exactly once, when the last reference to it goes: at once, or when the
collector finds it. It is C code from end to end, so that no interrupt can come in between: an interrupt in a finalizer
is swallowed by Python, and what the finalizer had to give back would be lost.
Threads: any; what a grip calls may run inside any allocation, and must be a function of C code that takes no lock.
Design: docs/design/memory.md
"""

from __future__ import annotations

from functools import partial


class Held:
    """`bytes` that are charged to a ledger; 0 at first. To be changed without a call after they were charged."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class Grip(partial[object]):
    """`Grip(note, thing)` calls `note(thing)` when nobody refers to it any more."""

    __slots__ = ()

    __del__ = partial.__call__
