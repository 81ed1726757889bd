"""A kept file of counts: writing one from this tree, and holding this tree to one.

Invariant: counts only. Times are kept as multiples of a fixed loop's, to be looked at, and nothing is held to them.
Threads: one.
Design: docs/design/bench.md
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from daramjwee.bench.regress.counts import SCHEMA, Growth, Kept, comparable, compare, python
from daramjwee.bench.regress.guard import BATCH_SECONDS, BATCHES, add_instructions, count_all
from daramjwee.bench.regress.side import Cannot, GuardFailed, Side
from daramjwee.bench.report import machine
from daramjwee.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted, and how that differs from the file. `missing`: scenarios that the file has not. `lost`: counts
    that it has, and that could not be taken here."""

    file: str
    seconds: float
    growths: tuple[Growth, ...]
    missing: tuple[str, ...]
    lost: tuple[str, ...]
    kept: Kept
    now: Kept

    @property
    def slower(self) -> tuple[str, ...]:
        """The counters that grew."""
        return tuple(f"{one.scenario}: {one.counter}" for one in self.growths if one.grew)


def count(
    tree: Path, place: Path, names: Sequence[str], *, times: bool, instructions: bool, tell: Callable[[str], object]
) -> Kept:
    """Count the scenarios of one tree, and with `times` also take their time beside a fixed loop's."""
    shared = place / "shared"
    shared.mkdir(exist_ok=True)
    tell("counting ...")
    with Side(tree, shared, place / "counted", seed=0) as side:
        version = side.check()
        found = count_all(side, names)
        ratios = _ratios(side, tuple(found)) if times else {}
    if instructions:
        add_instructions(found, names, tree, place, tell)
    return Kept(version=version, python=python(), machine=machine(), scenarios=found, ratios=ratios)


def hold(file: str, kept: Kept, now: Kept, names: Sequence[str], *, seconds: float) -> Held:
    """Compare what was counted with what was kept. Pure."""
    was = comparable(kept)
    lost = [
        f"{name}: {counter}"
        for name in names
        if name in was
        for counter, before in was[name].counts.items()
        if before is not None and (name not in now.scenarios or now.scenarios[name].counts.get(counter) is None)
    ]
    return Held(
        file=file, seconds=seconds, growths=compare(was, now.scenarios),
        missing=tuple(name for name in now.scenarios if name not in was), lost=tuple(lost), kept=kept, now=now,
    )  # fmt: skip


def load(path: str) -> Kept:
    """The baseline in a file."""
    try:
        with open(path, "rb") as file:
            kept = msgspec.json.decode(file.read(), type=Kept)
    except OSError as error:
        raise _refused(path, f"cannot be read ({error.strerror}); --write-baseline FILE makes one") from None
    except msgspec.MsgspecError as error:
        raise _refused(path, f"is no baseline ({error}); --write-baseline FILE makes one") from None
    if kept.schema != SCHEMA:
        raise _refused(path, f"has schema {kept.schema}, and this version reads {SCHEMA}; write it again")
    return kept


def to_bytes(kept: Kept) -> bytes:
    """The file of a baseline."""
    return msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n"


def measured(
    tree: Path, place: Path, names: Sequence[str], *, file: str, kept: Kept, instructions: bool,
    tell: Callable[[str], object],
) -> Held:  # fmt: skip
    """Count, and compare with what was kept."""
    begin = perf_counter()
    now = count(tree, place, names, times=True, instructions=instructions, tell=tell)
    return hold(file, kept, now, names, seconds=perf_counter() - begin)


def _ratios(side: Side, names: Sequence[str]) -> dict[str, float]:
    loop = _processor_seconds(side, "loop")
    return {name: _processor_seconds(side, name) / loop for name in names}


def _processor_seconds(side: Side, name: str) -> float:
    side.ask("begin", scenario=name)
    loops = side.ask("loops", seconds=BATCH_SECONDS)
    seen = Cannot("") if isinstance(loops, Cannot) else side.ask("turn", batches=BATCHES, **loops)
    if isinstance(seen, Cannot):
        raise GuardFailed(f"the scenario {name} could be counted, and not be timed")
    return float(seen["processor"])


def _refused(path: str, mend: str) -> ConfigError:
    return ConfigError([Problem("--baseline", path, mend)], subject="regress")
