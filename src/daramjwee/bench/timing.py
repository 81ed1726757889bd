"""Timing contenders in turns, counting page faults, and measuring in a fresh process.

Invariant: contenders of one comparison run in every round, in an order shuffled anew each time; nothing is subtracted.
Threads: one at a time; `threaded` starts its own and waits for them.
Design: docs/design/bench.md
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from itertools import repeat
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    # Runs that many operations and returns the seconds they took.
    Timed: TypeAlias = Callable[[int], float]

# What takes so long hangs. The longest scenario needs some three minutes, and many times that beside other work.
CHILD_SECONDS = 900.0


class ChildFailed(Exception):
    """A measurement in a process of its own ended with an error; the message is its last words."""


def operations(operation: Callable[[], object]) -> Timed:
    """A contender that calls `operation` in a loop. The call itself is part of what is measured."""

    def run(loops: int) -> float:
        begin = perf_counter()
        for _ in repeat(None, loops):
            operation()
        return perf_counter() - begin

    return run


def threaded(contenders: list[Timed]) -> Timed:
    """A contender that runs each of `contenders` in a thread, all at once, and shares out the wall time.

    What it returns is the time of one operation beside the others: wall time / number of threads.
    """

    def run(loops: int) -> float:
        gate = threading.Barrier(len(contenders) + 1)
        failures: list[BaseException] = []

        def work(contender: Timed) -> None:
            gate.wait()
            try:
                contender(loops)
            except BaseException as error:  # noqa: BLE001 - raised below, in the thread that asked
                failures.append(error)

        threads = [threading.Thread(target=work, args=(contender,)) for contender in contenders]
        for thread in threads:
            thread.start()
        gate.wait()
        begin = perf_counter()
        for thread in threads:
            thread.join()
        took = perf_counter() - begin
        if failures:
            raise failures[0]
        return took / len(contenders)

    return run


def loops_for(contender: Timed, seconds: float) -> int:
    """How many operations take about `seconds`; at least one."""
    contender(1)  # what only a first operation costs (an import, memory that is mapped) would count for all of them
    loops = 1
    while True:
        took = contender(loops)
        if took >= seconds / 8 or loops >= 1 << 30:
            return max(1, round(loops * seconds / max(took, 1e-9)))
        loops *= 4


def in_turns(
    contenders: Mapping[str, Timed], *, rounds: int, seconds: float = 0.05, seed: int = 0
) -> dict[str, list[float]]:
    """Seconds per operation of each contender, one figure a round; figures of one index belong together.

    Finding out how many operations take `seconds` (a turn's length) is the warm-up.
    """
    loops = {name: loops_for(contender, seconds) for name, contender in contenders.items()}
    order = random.Random(seed)
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        turn = list(contenders)
        order.shuffle(turn)
        for name in turn:
            figures[name].append(contenders[name](loops[name]) / loops[name])
    return figures


def page_faults(operation: Callable[[], object], count: int) -> float:
    """Minor page faults of the whole process for each of `count` operations."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in repeat(None, count):
        operation()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / count


def resident_bytes(field: str = "VmRSS") -> int | None:
    """Resident memory now, or its peak ("VmHWM"); None where the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(f"{field}:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def forget_peak() -> bool:
    """Start measuring the peak of resident memory anew; False where that is impossible."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as refs:
            refs.write("5")
    except OSError:
        return False
    return True


def in_child(function: str, /, **arguments: object) -> Any:
    """What `function` ("module:name") returns for `arguments` in a fresh interpreter; both sides are plain data."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", "from daramjwee.bench.timing import _child; _child()", function],
            input=msgspec.json.encode(arguments), capture_output=True, timeout=CHILD_SECONDS, check=False,
            env=child_environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ChildFailed(f"{function}: did not end within {CHILD_SECONDS:.0f} s, and was ended") from None
    if done.returncode:
        raise ChildFailed(f"{function}: {done.stderr.decode(errors='replace').strip()[-2000:]}")
    return msgspec.json.decode(done.stdout.splitlines()[-1])


def child_environment() -> dict[str, str]:
    """Our environment, with a path on which a child finds this very package, also where it is not installed."""
    import daramjwee

    package = os.path.dirname(next(iter(daramjwee.__path__)))
    path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH")) if p)
    return {**os.environ, "PYTHONPATH": path}


def _child() -> None:
    import importlib

    module, _, name = sys.argv[1].partition(":")
    arguments = msgspec.json.decode(sys.stdin.buffer.read())
    result = getattr(importlib.import_module(module), name)(**arguments)
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
    sys.stdout.flush()
