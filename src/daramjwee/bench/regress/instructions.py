"""Instructions of an operation, counted by valgrind where it is installed: the same figure on a busy machine.

Invariant: an operation's instructions are the difference between two runs that do it more or less often, so what starting
and ending cost is in none of them.
Threads: one.
Design: docs/design/bench.md
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from daramjwee.bench.regress import worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# Under valgrind everything is some fifty times slower; these two are quick, and hold no threads or files.
COUNTABLE = ("hit", "lease")
FEW, MANY = 2000, 12000
SECONDS = 300.0
COLLECTED = re.compile(rb"I\s+refs:\s+([\d,]+)")


def count_instructions(
    tree: Path, place: Path, names: Sequence[str], *, tell: Callable[[str], object]
) -> dict[str, float]:
    """Instructions of one operation of each scenario that is counted so; none where that cannot be done, and why is
    told."""
    wanted = [name for name in COUNTABLE if name in names]
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        tell("no instructions are counted: valgrind is not installed here")
        return {}
    found = {}
    for name in wanted:
        tell(f"counting instructions of {name} ...")
        try:
            few, many = (_run(valgrind, tree, place, name, loops) for loops in (FEW, MANY))
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            tell(f"no instructions of {name} are counted: {error}")
        else:
            found[name] = (many - few) / (MANY - FEW)
    return found


def _run(valgrind: str, tree: Path, place: Path, name: str, loops: int) -> int:
    done = subprocess.run(
        [
            valgrind, "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", sys.executable, "-P",
            worker.__file__, "--once", name, str(loops), str(place),
        ],
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=True,
    )  # fmt: skip
    match = COLLECTED.search(done.stderr)
    if match is None:
        raise ValueError(f"valgrind said nothing of instructions: {done.stderr.decode(errors='replace')[-200:]}")
    return int(match[1].replace(b",", b""))
