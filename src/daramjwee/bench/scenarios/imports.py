"""What `import daramjwee` costs: milliseconds more than a bare interpreter, modules, threads.

Invariant: each figure is a pair of fresh interpreters, one after the other, in an order that is shuffled. Both find
compiled modules, as an installed package has them, whatever the environment says about writing them.
Threads: one.
Design: docs/design/bench.md
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from time import perf_counter

from daramjwee.bench.samples import Row, at_most, differences, exactly, row_of
from daramjwee.bench.timing import child_environment, in_turns

SCENARIO = "import daramjwee"
EXTRAS = ("urllib3", "rich", "typer")


def run(*, quick: bool) -> list[Row]:
    """Rows of this scenario."""
    with tempfile.TemporaryDirectory(prefix="daramjwee-bench-") as compiled:
        environment = {**child_environment(), "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        figures = in_turns(
            {
                "bare": lambda loops: _start("pass", loops, environment),
                "ours": lambda loops: _start("import daramjwee", loops, environment),
            },
            rounds=9 if quick else 25,
            seconds=0.001,  # one start a turn
        )
    more = [seconds * 1000 for seconds in differences(figures["ours"], figures["bare"])]
    bare = [seconds * 1000 for seconds in figures["bare"]]
    seen = _look()
    return [
        row_of(SCENARIO, "more than bare Python", more, unit="ms", target=at_most(80)),
        row_of(SCENARIO, "bare Python, for comparison", bare, unit="ms"),
        Row(scenario=SCENARIO, name="extras imported", unit="", seen=seen[0], runs=1, target=exactly(0)),
        Row(scenario=SCENARIO, name="threads started", unit="", seen=seen[1], runs=1, target=exactly(0)),
    ]


def _start(code: str, loops: int, environment: dict[str, str]) -> float:
    begin = perf_counter()
    for _ in range(loops):
        subprocess.run([sys.executable, "-P", "-c", code], check=True, env=environment, stdin=subprocess.DEVNULL)
    return perf_counter() - begin


def _look() -> tuple[int, int]:
    code = (
        "import sys, threading; import daramjwee; "
        f"print(sum(name in sys.modules for name in {EXTRAS!r}), threading.active_count() - 1)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, env=child_environment(), stdout=subprocess.PIPE, text=True
    )
    extras, threads = done.stdout.split()
    return int(extras), int(threads)
