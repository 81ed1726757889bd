"""All steps of the demo, in order, and the report of them.

Invariant: a step that fails does not hide the others; the report says which, and why.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import daramjwee
from daramjwee.cli.demo import races, steps
from daramjwee.cli.demo.record import Report, Settings, Step
from daramjwee.cli.demo.stage import Origin, Stage, Watch, start_origin
from daramjwee.errors import DaramjweeError

# Each function is called like the step that it returns.
STEPS: tuple[Callable[[Stage], Step], ...] = (
    steps.cold_read, steps.warm_read_memory, steps.warm_read_file, steps.cold_read_big, steps.warm_read_big,
    steps.range_read, steps.readers_together, races.reader_leaves, races.delete_races_fill,
)  # fmt: skip


def play(
    settings: Settings,
    watch: Watch,
    *,
    folder: str | None = None,
    origin: Callable[[str, dict[str, int], Settings], Origin] = start_origin,
) -> Report:
    """Play every step on a stage of its own below `folder` (default: where temporary files go)."""
    begin = perf_counter()
    done: list[Step] = []
    with Stage(settings, watch, folder=folder, origin=origin) as stage:
        for step in STEPS:
            done.append(_try(step, stage))
            watch.ended(done[-1])
        facts = {"url": stage.origin.url, "latency_s": settings.latency, "bandwidth_bytes_per_s": settings.bandwidth}
        tiers = [tier.name for tier in stage.cache.stats().tiers]
        limits = {"tiers": tiers, "memory_limit_bytes": stage.cache.stats().memory_limit}
    return report_of(settings, tuple(done), facts, limits, perf_counter() - begin)


def _try(step: Callable[[Stage], Step], stage: Stage) -> Step:
    begin = perf_counter()
    try:
        return step(stage)
    except (DaramjweeError, OSError) as error:
        name, reason = step.__name__, f"{type(error).__name__}: {error}"
        return Step(
            name=name, title=name.replace("_", " "), seen=reason, ok=False, seconds=perf_counter() - begin, error=reason
        )


def report_of(
    settings: Settings, done: tuple[Step, ...], origin: dict[str, object], cache: dict[str, object], seconds: float
) -> Report:
    """The figures of the steps, gathered."""
    by_name = {step.name: step for step in done if step.error is None}
    together, alone = by_name.get("readers_together"), by_name.get("cold_read_big")
    figures = {} if together is None else together.figures
    return Report(
        ok=all(step.ok for step in done),
        version=daramjwee.__version__,
        readers=settings.readers,
        origin_fetches=None if together is None else together.origin_fetches,
        digests_right=figures.get("digests_right"),
        first_byte_ms=None if together is None else together.first_byte_ms,
        wall_s=None if together is None else together.seconds,
        single_reader_wall_s=None if alone is None else alone.seconds,
        peak_memory_bytes=figures.get("peak_memory_bytes"),
        peak_memory_means=figures.get("peak_memory_means"),
        object_bytes=settings.big_bytes,
        origin=origin,
        cache=cache,
        seconds=seconds,
        steps=done,
    )
