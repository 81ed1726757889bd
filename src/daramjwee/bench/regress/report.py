"""What the guard found, as a table in plain text and as plain data. Pure.

Invariant: text and data say the same; text only rounds.
Threads: any.
Design: docs/design/bench.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from daramjwee.bench.regress.verdict import LEAST_EFFECT, SEEN_EFFECT, Judged, Verdict
from daramjwee.bench.report import figure
from daramjwee.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daramjwee.bench.regress.baseline import Held
    from daramjwee.bench.regress.counts import Growth
    from daramjwee.bench.regress.guard import Compared, Comparison

HEAD = ("scenario", "old", "new", "new / old", "interval", "floor", "verdict")


def comparison_text(found: Comparison) -> str:
    """A comparison with an older tree."""
    rows = [HEAD, *(_cells(one) for one in found.compared)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD) - 1)]
    lines = [f"{found.new} beside {found.old}", *(f"{name}: {value}" for name, value in found.machine.items()), ""]
    for row in rows:
        middle = "  ".join(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True))
        lines.append(f"{row[0].ljust(widths[0])}  {middle}  {row[-1]}")
    lines += ["", f"exact counters of {counted(found.counted, 'scenario')}: {_growths(found.growths)}"]
    lines += [f"not compared: {name}: the old tree has no such thing ({why})" for name, why in found.skipped.items()]
    lines += [f"{name} FAILED in this tree: {why}" for name, why in found.failures.items()]
    unsure = [one.scenario for one in found.compared if one.verdict is Verdict.UNSURE]
    if unsure:
        lines.append(
            f"not sure: {', '.join(unsure)}: a slow-down of {SEEN_EFFECT:.0%} cannot be excluded; run it again "
            f"{'without --quick, or ' if found.quick else ''}while the machine is quiet"
        )
    nothing = (
        f"nothing is slower by {LEAST_EFFECT:.0%} or more, as far as seen"
        if found.compared
        else "nothing could be compared"
    )
    return "\n".join([*lines, _closing(found.slower or nothing, found.seconds)]) + "\n"


def held_text(found: Held) -> str:
    """A comparison with a kept file."""
    kept, now = found.kept, found.now
    lines = [f"this tree ({now.version}) beside {found.file} ({kept.version}, {kept.python})", ""]
    lines += [f"{'scenario':<16}{'was':>10}{'now':>10}  of a fixed loop's processor time; only to be looked at"]
    for name, ratio in now.ratios.items():
        was = kept.ratios.get(name)
        lines.append(f"{name:<16}{'-' if was is None else figure(was):>10}{figure(ratio):>10}")
    lines += [
        "",
        f"exact counters of {counted(len(now.scenarios) - len(found.missing), 'scenario')}: {_growths(found.growths)}",
    ]
    if any(not one.grew for one in found.growths):
        lines.append("what is less now can be kept: --write-baseline")
    if found.missing:
        lines.append(f"not in the file: {', '.join(found.missing)}; add them with --write-baseline")
    if found.lost:
        lines.append(f"in the file, and not counted here: {', '.join(found.lost)}")
    return "\n".join([*lines, _closing(found.slower or "no counter grew", found.seconds)]) + "\n"


def to_data(found: Comparison | Held) -> dict[str, Any]:
    """All of it, for programs; `slower` and each `verdict` beside the figures they follow from."""
    data: dict[str, Any] = msgspec.to_builtins(found)
    data["slower"] = list(found.slower)
    for one, shown in zip(getattr(found, "compared", ()), data.get("compared", ()), strict=True):
        shown["verdict"] = one.verdict.value
    return data


def _cells(one: Compared) -> tuple[str, ...]:
    judged, note = one.processor, ""
    if one.elapsed.verdict is Verdict.SLOWER and judged.verdict is not Verdict.SLOWER:
        note = f": elapsed time is {one.elapsed.ratio:.2f} ({_interval(one.elapsed)}) of the old"
    return (
        one.scenario, _seconds(one.old), _seconds(one.new), f"{judged.ratio:.3f}", _interval(judged),
        f"{judged.floor:.1%}", one.verdict.value + note,
    )  # fmt: skip


def _interval(judged: Judged) -> str:
    return f"{judged.low:.3f}..{judged.high:.3f}"


def _seconds(seconds: float) -> str:
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{figure(seconds * factor)} {unit}"
    return f"{figure(seconds)} s"


def _growths(growths: Iterable[Growth]) -> str:
    lines = [
        f"\n  {one.scenario}: {one.counter} {'GREW' if one.grew else 'fell'} from {figure(one.was)} to {figure(one.now)} "
        "each"
        for one in growths
    ]
    return "".join(lines) or "as they were"


def _closing(found: Sequence[str] | str, seconds: float) -> str:
    what = found if isinstance(found, str) else f"SLOWER: {', '.join(found)}"
    return f"{what} ({seconds:.0f} s)"
