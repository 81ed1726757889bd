"""Does the regression guard keep quiet about the same code, and see 10 %?

    python tools/try_guard.py                                 20 runs of the same code, 10 with a seeded slow-down
    python tools/try_guard.py --same 0 --seeded 3 --path set  only the latter, of one path

A run of the same code compares HEAD with the working tree, which must not differ in src. A seeded run compares it with a
copy in which one function first runs an empty loop; how long a loop is 10 % of the operation is measured anew in each
run, beside the clean copy. Everything is as `daramjwee regress --against HEAD --quick` does it. Passes (status 0) when
no run of the same code found anything slower and at least 9 of 10 seeded ones did.
"""

from __future__ import annotations

import argparse
import ast
import shutil
import signal
import sys
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.bench.regress import guard, trees

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SEED = 0.10
# A loop takes another time inside of an operation than by itself: it is made longer or shorter after what the guard sees.
FIRST_GUESS, CALIBRATIONS = 1000, 2
CALIBRATION = guard.Pace(restarts=5, turns=7, stages=1)


class Slowed(NamedTuple):
    """A function that is slowed down, and the scenario that times it. `clean`: one that does not go through it."""

    file: str
    kind: str
    function: str
    scenario: str
    clean: str


PATHS = {
    "copy": Slowed("buffers/pool.py", "BufferPool", "copy", "copy-256KiB", "set-1KiB"),
    "set": Slowed("cache.py", "Cache", "set", "set-1KiB", "copy-256KiB"),
    "open": Slowed("cache.py", "Cache", "open", "file-hit", "tee"),
    "tee": Slowed("buffers/pool.py", "BufferPool", "tee", "tee", "file-hit"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--same", type=int, default=20, metavar="N")
    parser.add_argument("--seeded", type=int, default=10, metavar="N")
    parser.add_argument("--path", choices=PATHS, action="append", help="what to slow down, in turns; all of them")
    parser.add_argument("--only", action="append", default=[], help="scenarios of the runs of the same code; all")
    options = parser.parse_args()
    names = guard.chosen(options.only)
    root = trees.checkout()
    paths = options.path or list(PATHS)
    caught = sum(seeded(root, PATHS[paths[number % len(paths)]], number) for number in range(options.seeded))
    loud = sum(same(root, names, number) for number in range(options.same))
    print(
        f"seeded {SEED:.0%}: caught {caught} of {options.seeded}; same code: loud {loud} of {options.same}", flush=True
    )
    return int(loud > 0 or caught < 0.9 * options.seeded)


def same(root: Path, names: Sequence[str], number: int) -> bool:
    """Whether anything was said to be slower."""
    with guard.workplace() as place:
        old = trees.copy_revision(root, "HEAD", place / "tree-1")
        new = trees.copy_now(root, place / "tree-2")
        if _sources(old) != _sources(new):
            sys.exit("the working tree's src differs from HEAD: this is no run of the same code")
        found = _compare(old, new, place, names)
    _say(f"same {number + 1}", found)
    return bool(found.slower)


def seeded(root: Path, path: Slowed, number: int) -> bool:
    """Whether the slow-down was seen."""
    with guard.workplace() as place:
        old = trees.copy_now(root, place / "tree-1")
        loops = FIRST_GUESS
        for attempt in range(CALIBRATIONS):
            new = _slowed(place, f"try-{attempt + 1}", path, loops)
            (found,) = guard.Guard(place, old, new, tell=_nobody).times([path.scenario], CALIBRATION)
            loops = max(1, round(loops * SEED / max(found.processor.ratio - 1, SEED / 10)))
        found = _compare(old, _slowed(place, "tree-2", path, loops), place, [path.scenario, path.clean])
    _say(f"seeded {number + 1}, {path.kind}.{path.function} by {loops} turns", found)
    return path.scenario in found.slower


def _slowed(place: Path, name: str, path: Slowed, loops: int) -> Path:
    """A copy of the first tree with the function slowed down."""
    shutil.copytree(place / "tree-1", place / name, ignore=shutil.ignore_patterns("__pycache__"))
    slow_down(place / name / trees.PACKAGE / path.file, path, loops)
    return place / name / "src"


def slow_down(file: Path, path: Slowed, loops: int) -> None:
    """Put an empty loop at the start of the function. It counts bytes: a larger number would be made anew in each turn."""
    text = file.read_text(encoding="utf-8")
    (kind,) = (n for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == path.kind)
    function = [n for n in kind.body if isinstance(n, ast.FunctionDef) and n.name == path.function][-1]
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        first = function.body[1]
    lines = text.splitlines(keepends=True)
    lines.insert(first.lineno - 1, f"{' ' * first.col_offset}for _ in bytes({loops}): pass\n")
    file.write_text("".join(lines), encoding="utf-8")


def _compare(old: Path, new: Path, place: Path, names: Sequence[str]) -> guard.Comparison:
    return guard.compare_trees(old, new, place, names, pace=guard.QUICK, title="HEAD", tell=_nobody)


def _sources(tree: Path) -> dict[str, bytes]:
    return {str(file.relative_to(tree)): file.read_bytes() for file in sorted(tree.rglob("*.py"))}


def _nobody(_line: str) -> None:
    """Nobody listens."""


def _say(title: str, found: guard.Comparison) -> None:
    rows = [
        f"{one.scenario} {one.processor.ratio:.3f} ({one.processor.low:.3f}..{one.processor.high:.3f}, "
        f"{one.processor.restarts} sets) {one.verdict.value}"
        for one in found.compared
    ]
    grown = [f"{one.scenario} {one.counter} {one.was} to {one.now}" for one in found.growths]
    print(f"{title}: slower: {', '.join(found.slower) or 'nothing'} ({found.seconds:.0f} s)", flush=True)
    print("   " + "\n   ".join([*rows, *grown]), flush=True)


if __name__ == "__main__":
    # A plain kill leaves by an exception, so that the folder in memory is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begin = perf_counter()
    status = main()
    print(f"{perf_counter() - begin:.0f} s")
    sys.exit(status)
