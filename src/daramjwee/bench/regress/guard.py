"""The guard at work: processes over two trees that take turns, as often as it needs to be sure.

Invariant: old, new, and a second process over the old tree do the same work in every turn, in an order that is shuffled
anew; each set of three has one seed for its hashes, and its processes end before the next set starts. Everything lies in
one temporary folder, which is gone afterwards.
Threads: one.
Design: docs/design/bench.md
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from daramjwee.bench.regress.counts import Counted, Growth, compare
from daramjwee.bench.regress.instructions import count_instructions
from daramjwee.bench.regress.side import Cannot, GuardFailed, Side
from daramjwee.bench.regress.verdict import Judged, Turn, Verdict, settle
from daramjwee.bench.regress.worker import COUNTED, SCENARIOS
from daramjwee.bench.report import machine
from daramjwee.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the folder below it has a name of its own
ROOM_BYTES = 256 << 20
BATCH_SECONDS = 0.003
BATCHES = 4
# A process of its own in each operation: starting it takes longer than all batches of another scenario.
ONE_BATCH = frozenset({"import"})


class Pace(NamedTuple):
    """How much is measured: sets of processes, turns of each, and how often all of that at most."""

    restarts: int
    turns: int
    stages: int


# Ten processes of each side are as few as give an interval; seven turns of each as few as make a median. With both, 10 %
# are seen on a machine that is busy with other things four times over (tools/try_guard.py).
QUICK = Pace(restarts=10, turns=7, stages=3)
WHOLE = Pace(restarts=12, turns=12, stages=4)


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario. `old` and `new`: seconds of processor time of one operation, medians. `processor` decides; `elapsed`
    only where it is sure, because whatever else the machine does is part of it."""

    scenario: str
    old: float
    new: float
    processor: Judged
    elapsed: Judged

    @property
    def verdict(self) -> Verdict:
        """Slower when either is."""
        return Verdict.SLOWER if self.elapsed.verdict is Verdict.SLOWER else self.processor.verdict

    @property
    def open(self) -> bool:
        """Whether more turns are wanted: to be sure of processor time, or of a suspicion about elapsed time."""
        suspect = self.elapsed.verdict is Verdict.UNSURE and self.elapsed.low > 1
        return self.processor.open or (suspect and self.processor.verdict is not Verdict.SLOWER)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `counted`: the counters of how many scenarios were compared. `skipped`: scenarios that the old
    tree cannot run, and why; `failures`: those that the new one cannot."""

    old: str
    new: str
    quick: bool
    machine: dict[str, str]
    seconds: float
    compared: tuple[Compared, ...]
    counted: int
    growths: tuple[Growth, ...]
    skipped: dict[str, str]
    failures: dict[str, str]

    @property
    def slower(self) -> tuple[str, ...]:
        """The scenarios that take longer, and the counters that grew."""
        return (
            *(one.scenario for one in self.compared if one.verdict is Verdict.SLOWER),
            *(f"{one.scenario}: {one.counter}" for one in self.growths if one.grew),
        )


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """The scenarios called `names`, all when there are none."""
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        known = ", ".join(SCENARIOS)
        raise ConfigError(
            [Problem("--only", name, f"is no scenario; choose from {known}") for name in unknown], subject="regress"
        )
    return tuple(dict.fromkeys(names)) or tuple(SCENARIOS)


@contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder: in memory where there is room, because a disk's own doings are nobody's regression."""
    memory = None
    try:
        state = os.statvfs(SHARED_MEMORY)
        if state.f_bavail * state.f_frsize >= ROOM_BYTES and os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
            memory = SHARED_MEMORY
    except OSError:
        pass  # another system
    with tempfile.TemporaryDirectory(prefix="daramjwee-regress-", dir=memory) as folder:
        yield Path(folder)


class Guard:
    """Compares two trees in `place`, a folder that is gone afterwards."""

    def __init__(self, place: Path, old: Path, new: Path, *, tell: Callable[[str], object]) -> None:
        self._place, self._old, self._new, self._tell = place, old, new, tell
        self._shared = place / "shared"
        self._shared.mkdir(exist_ok=True)
        self._order = random.Random()
        self._loops: dict[str, int] = {}
        self.skipped: dict[str, str] = {}
        self.failures: dict[str, str] = {}

    def versions(self) -> tuple[str, str]:
        """Of the old tree and the new one. Both have their modules compiled afterwards."""
        with self._sides(self._old, self._new) as (old, new):
            return old.check(), new.check()

    def times(self, names: Sequence[str], pace: Pace) -> tuple[Compared, ...]:
        """Time them, those that are not clear again and again."""
        stages: dict[str, list[list[list[Turn]]]] = {}
        waits: dict[str, list[list[list[Turn]]]] = {}
        found: dict[str, Compared] = {}
        wanted = list(names)
        for number in range(pace.stages):
            for name in wanted:
                stages.setdefault(name, []).append([])
                waits.setdefault(name, []).append([])
            for restart in range(pace.restarts):
                if not self._runnable(wanted):
                    break
                more = f", again for {', '.join(wanted)}" if number else ""
                self._tell(f"turns of processes {restart + 1} of {pace.restarts}{more} ...")
                for name, processor, elapsed in self._restart(wanted, pace.turns):
                    stages[name][-1].append(processor)
                    waits[name][-1].append(elapsed)
            wanted = self._runnable(wanted)
            for name in wanted:
                found[name] = _settled(name, stages[name], waits[name], tests=2 * len(names))
            wanted = [name for name in wanted if found[name].open]
            if not wanted:
                break
        return tuple(found[name] for name in names if name in found)

    def counts(self, names: Sequence[str], *, instructions: bool) -> tuple[dict[str, Counted], dict[str, Counted]]:
        """What they cost in counts, in the old tree and in the new one."""
        self._tell("counting ...")
        with self._sides(self._old, self._new) as (old, new):
            both = tuple(count_all(side, names) for side in (old, new))
        if instructions:
            for found, tree in zip(both, (self._old, self._new), strict=True):
                add_instructions(found, names, tree, self._place, self._tell)
        return both[0], both[1]

    def _restart(self, names: Sequence[str], turns: int) -> Iterator[tuple[str, list[Turn], list[Turn]]]:
        order = list(names)
        self._order.shuffle(order)
        with self._sides(self._old, self._new, self._old) as sides:
            for name in order:
                if not self._begin(name, sides):
                    continue
                if name not in self._loops:
                    self._loops[name] = int(_sure(sides[0].ask("loops", seconds=BATCH_SECONDS))["loops"])
                seen = [self._turn(name, sides) for _ in range(turns)]
                yield name, [one[0] for one in seen], [one[1] for one in seen]
                for side in sides:
                    side.ask("end")

    def _runnable(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name not in self.skipped and name not in self.failures]

    def _begin(self, name: str, sides: Sequence[Side]) -> bool:
        if not self._runnable([name]):
            return False
        answers = [side.ask("begin", scenario=name) for side in sides]
        for side, answer in zip(sides, answers, strict=True):
            if isinstance(answer, Cannot):
                (self.failures if side.tree == self._new else self.skipped)[name] = answer.reason
        return not any(isinstance(answer, Cannot) for answer in answers)

    def _turn(self, name: str, sides: Sequence[Side]) -> tuple[Turn, Turn]:
        places = list(range(len(sides)))
        self._order.shuffle(places)
        batches = 1 if name in ONE_BATCH else BATCHES
        answers = {n: _sure(sides[n].ask("turn", loops=self._loops[name], batches=batches)) for n in places}
        processor, elapsed = (Turn(*(float(answers[n][kind]) for n in range(3))) for kind in ("processor", "elapsed"))
        return processor, elapsed

    @contextmanager
    def _sides(self, *trees: Path) -> Iterator[list[Side]]:
        """A process over each of `trees`, started in an order that is shuffled; one seed for all."""
        seed = self._order.randrange(1 << 32)
        places = list(range(len(trees)))
        self._order.shuffle(places)
        with ExitStack() as stack:
            sides = {}
            for n in places:
                own = stack.enter_context(tempfile.TemporaryDirectory(prefix="own-", dir=self._place))
                sides[n] = stack.enter_context(Side(trees[n], self._shared, Path(own), seed=seed))
            yield [sides[n] for n in range(len(trees))]


def count_all(side: Side, names: Sequence[str]) -> dict[str, Counted]:
    """What the scenarios cost in one process, those that it can run."""
    found = {}
    for name in names:
        if name not in COUNTED or isinstance(side.ask("begin", scenario=name), Cannot):
            continue
        answer = side.ask("count")
        if not isinstance(answer, Cannot):
            found[name] = msgspec.convert(answer, Counted)
    side.ask("end")
    return found


def add_instructions(
    found: dict[str, Counted], names: Sequence[str], tree: Path, place: Path, tell: Callable[[str], object]
) -> None:
    """Instructions of the scenarios that are counted so, beside their other counts."""
    for name, count in count_instructions(tree, place, names, tell=tell).items():
        if name in found:
            one = found[name]
            found[name] = msgspec.structs.replace(one, counts={**one.counts, "instructions": count * one.times})


def compare_trees(
    old: Path, new: Path, place: Path, names: Sequence[str], *, pace: Pace, title: str, tell: Callable[[str], object],
    instructions: bool = False,
) -> Comparison:  # fmt: skip
    """All of it, for two folders to import from. `title`: what the old one is called."""
    begin = perf_counter()
    guard = Guard(place, old, new, tell=tell)
    versions = guard.versions()
    compared = guard.times(names, pace)
    was, now = guard.counts(names, instructions=instructions)
    return Comparison(
        old=f"{title} ({versions[0]})", new=f"this tree ({versions[1]})", quick=pace == QUICK, machine=machine(),
        seconds=perf_counter() - begin, compared=compared, counted=len(was.keys() & now.keys()),
        growths=compare(was, now), skipped=guard.skipped, failures=guard.failures,
    )  # fmt: skip


def _settled(name: str, stages: list[list[list[Turn]]], waits: list[list[list[Turn]]], *, tests: int) -> Compared:
    turns = [turn for stage in stages for restart in stage for turn in restart]
    return Compared(
        scenario=name,
        old=statistics.median(turn.old for turn in turns),
        new=statistics.median(turn.new for turn in turns),
        processor=settle(stages, tests=tests),
        elapsed=settle(waits, tests=tests),
    )


def _sure(answer: dict[str, Any] | Cannot) -> dict[str, Any]:
    if isinstance(answer, Cannot):
        raise GuardFailed(f"a scenario that had run before failed: {answer.reason}")
    return answer
