"""Advice: which setting of a pool to change, judged by what the pool has done.

Pure: a snapshot and a configuration in, findings out.
Invariant: each field is named once at most. What is proposed differs from the current value, and is legal: together with
the other findings of its code, and with all others.
Design: docs/monitoring.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from daramjwee.buffers.config import LARGEST_SIZE, BufferPoolConfig, LeakDetection
from daramjwee.buffers.insight.finding import Finding, Severity, were
from daramjwee.buffers.pressure_kernel import ELEVATED, HIGH, NORMAL
from daramjwee.buffers.stats import BufferPoolStats
from daramjwee.buffers.strategy import ADAPTIVE, CHUNKED, DIRECT, LARGE_CHUNK_BYTES, MEDIUM_FROM
from daramjwee.errors import ConfigError, Problem
from daramjwee.units import KIB, MIB, counted, format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Callable

# Of what is common in a pool (copies, requests, mappings): a pool that just began shows less.
ENOUGH = 64
# Of what should not happen at all: below it may be one burst.
ENOUGH_TROUBLES = 8
# A debugging mode has found what there is when so many leases came back.
ENOUGH_LEASES = 10_000
# From here down every copy slows by 15 % and more (docs/design/strategy.md).
SLOW_CHUNK_BYTES = 64 * KIB
BEST_CHUNK_BYTES = 256 * KIB
# Idle memory below four huge pages is not worth a change.
MUCH_IDLE_BYTES = 8 * MIB
USUAL_IDLE_SECONDS = 60.0
# Mapped so many times over, memory was given back while it was needed.
OFTEN_MAPPED = 8
# So many buffers of the largest size should fit at once; larger ones than this would ask for a pool above 128 MiB.
LARGEST_AT_ONCE = 8
LARGEST_POOLED_BYTES = 16 * MIB
SHORT_TIMEOUT_SECONDS, USUAL_TIMEOUT_SECONDS = 1.0, 30.0
# A wait in the gate that a caller feels, on average: less is lost in what large operations take anyway.
LONG_WAIT_SECONDS = 0.01
# The defaults. A gate or a line as wide as usual that is full is overload: to wait, or to be told so, is right.
USUAL_OPERATIONS, USUAL_QUEUE = 16, 1024
USUAL_THRESHOLD, USUAL_VERY_LARGE = 256 * KIB, MIB
LEAST_BUFFER_BYTES = 4 * KIB


class Change(NamedTuple):
    """What a rule proposes: values by field, the first being the point, the others what must move with it."""

    values: dict[str, object]
    seen: str
    gain: str
    figures: dict[str, float]


class Rule(NamedTuple):
    """`code`: its name; `judge`: what it proposes, None where it sees no reason."""

    code: str
    severity: Severity
    judge: Callable[[BufferPoolStats, BufferPoolConfig], Change | None]


def advise(stats: BufferPoolStats, config: BufferPoolConfig) -> tuple[Finding, ...]:
    """What to change in `config`, judged by what a pool with it has done; empty where there is no reason. Pure.

    Findings of one `code` belong together: apply all of them, or none. Nothing is advised without enough evidence.
    Counters cover `stats.seconds`, but the pressure is that of the snapshot: to judge a certain time, call `reset_stats` at
    its beginning, or take `later.since(earlier)`. `ConfigError` for other arguments than these.
    """
    problems: list[Problem] = []
    if not isinstance(stats, BufferPoolStats):
        problems.append(Problem("stats", stats, "must be a BufferPoolStats, such as pool.stats()"))
    if not isinstance(config, BufferPoolConfig):
        problems.append(Problem("config", config, "must be a BufferPoolConfig, such as pool.config"))
    if problems:
        raise ConfigError(problems, subject="advise")
    found: list[Finding] = []
    named: set[str] = set()
    for rule in RULES if config.enabled else RULES_DISABLED:
        change = rule.judge(stats, config)
        if change is not None and named.isdisjoint(change.values):
            named.update(change.values)
            found += _findings(rule, change, config)
    return tuple(found)


def _findings(rule: Rule, change: Change, config: BufferPoolConfig) -> list[Finding]:
    fields = list(change.values)
    found = []
    for field, proposed in change.values.items():
        others = ", ".join(other for other in fields if other != field)
        together = f", together with {others}" if others else ""
        current = getattr(config, field)
        remedy = f"set {field} to {_shown(field, proposed)} (now {_shown(field, current)}){together}"
        found.append(
            Finding(
                code=rule.code, severity=rule.severity, seen=change.seen, remedy=remedy, field=field, current=current,
                proposed=proposed, gain=change.gain, figures=change.figures,
            )
        )  # fmt: skip
    return found


def _shown(field: str, value: object) -> str:
    if isinstance(value, float):
        return format_duration(value)
    if type(value) is int and field.endswith(("_size", "_bytes", "_threshold")):
        return format_size(value)
    return str(getattr(value, "value", value))


# -- what several rules ask ------------------------------------------------------------------------------


def _waits(stats: BufferPoolStats) -> int:
    """Requests that memory was too little for."""
    return max(stats.waits, stats.overloads)


def _often(troubles: float, of: int) -> bool:
    """Whether there were so many troubles that it is no accident: one in a hundred, and enough of them."""
    return troubles >= max(ENOUGH_TROUBLES, of / 100)


def _private(stats: BufferPoolStats) -> int:
    """Leases that memory was mapped for, each alone."""
    return sum(row.misses for row in stats.chunks if row.size == 0)


def _chunk(config: BufferPoolConfig) -> int:
    return config.chunk_size or config.default_buffer_size


def _default_of(config: BufferPoolConfig, size: int) -> dict[str, object]:
    """A change of `default_buffer_size` with what must move along."""
    return {"default_buffer_size": size, **_largest_of(config, size)}


def _largest_of(config: BufferPoolConfig, size: int, at_once: int = 1) -> dict[str, object]:
    """`max_buffer_size` raised to `size` if it is below, with room for so many in the pool."""
    values: dict[str, object] = {}
    if config.max_buffer_size < size:
        values["max_buffer_size"] = size
        if config.max_pool_bytes < size * at_once:
            values["max_pool_bytes"] = size * at_once
    return values


def _asked(stats: BufferPoolStats, above: int, most: int) -> float:
    """How many of late asked for more than `above` bytes, and at most `most`."""
    return sum(share.weight for share in stats.sizes if above < share.size <= most)


def _gate_lacks_bytes(stats: BufferPoolStats, config: BufferPoolConfig) -> bool:
    """Whether large operations stand in line since their bytes do not fit the limit together, though there are places.
    Those never reach the pool's own line."""
    gate = stats.gate
    if gate.waited < max(ENOUGH_TROUBLES, gate.entered / 4) or gate.wait_seconds < LONG_WAIT_SECONDS * gate.entered:
        return False
    large = [share.size for share in stats.sizes if share.size >= config.large_object_threshold]
    return config.max_concurrent_large_ops * max([_chunk(config), *large]) > stats.ledger_limit > 0


def _lacks_memory(stats: BufferPoolStats, config: BufferPoolConfig) -> bool:
    """Whether requests wait for memory, in one line or the other."""
    return _often(_waits(stats), stats.total_gets) or _gate_lacks_bytes(stats, config)


# -- the rules -------------------------------------------------------------------------------------------


def _disabled(stats: BufferPoolStats, _config: BufferPoolConfig) -> Change | None:
    # Mapping less than 32 KiB costs about what a pool does.
    if stats.maps < ENOUGH or stats.mapped_bytes < stats.maps * MEDIUM_FROM:
        return None
    return Change(
        {"enabled": True},
        f"the pool is disabled: {counted(stats.maps, 'request')} mapped {format_size(stats.mapped_bytes)}, each for itself",
        "memory is reused: no mapping, and no page fault for each 4 KiB",
        {"maps": stats.maps, "mapped_bytes": stats.mapped_bytes},
    )


def _leases_are_lost(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    # One is a fault of the program already.
    if not stats.lost_leases or config.leak_detection is LeakDetection.FULL:
        return None
    return Change(
        {"leak_detection": LeakDetection.FULL},
        f"{stats.lost_leases:,} of {counted(stats.total_gets, 'lease')} {were(stats.lost_leases)} lost, and not every place is recorded",
        "each loss names the line that took the lease",
        {"lost_leases": stats.lost_leases, "total_gets": stats.total_gets},
    )


def _no_lease_is_lost(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    if config.leak_detection is not LeakDetection.FULL or stats.lost_leases or stats.total_puts < ENOUGH_LEASES:
        return None
    return Change(
        {"leak_detection": LeakDetection.SAMPLED},
        f"none of {stats.total_puts:,} leases was lost, and each is recorded and overwritten",
        "a lease costs a fraction; losses are still reported",
        {"total_puts": stats.total_puts},
    )


def _timeout_short(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    timeout, gate = config.acquire_timeout, stats.gate
    # 0 is a decision: never wait.
    if not 0 < timeout < SHORT_TIMEOUT_SECONDS or stats.system_pressure >= HIGH:
        return None
    late = 0
    # A call's own timeout is none of ours. Whoever gave up by the configured one waited as long as that; and nobody waits
    # much longer than that.
    if 0.9 * timeout * stats.overloads <= stats.wait_seconds <= 4 * timeout * stats.waits:
        late += stats.overloads
    # What those waited who gave up at the gate is not counted: there, those who were served tell.
    if gate.waited and timeout / 4 <= gate.wait_seconds / gate.waited <= 4 * timeout:
        late += gate.timed_out
    if not _often(late, stats.total_gets):
        return None
    return Change(
        {"acquire_timeout": USUAL_TIMEOUT_SECONDS},
        f"{late:,} requests gave up after {format_duration(timeout)}",
        "they are served a little later instead of failing",
        {"overloads": stats.overloads, "timed_out": gate.timed_out, "wait_seconds": stats.wait_seconds},
    )


def _chunk_small(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    chunk = _chunk(config)
    chunked = stats.of(strategy=CHUNKED)
    if chunk > SLOW_CHUNK_BYTES or chunked.count < ENOUGH or 2 * chunked.bytes < stats.copied_bytes:
        return None
    piece = stats.copied_bytes / max(1, stats.moved_chunks)
    # Smaller pieces than that are what the sources give, larger ones what a call gave as its own chunk; and under
    # pressure chunks are small on purpose.
    if not chunk / 2 <= piece <= chunk or chunked.bytes < 2 * chunk * chunked.count or stats.pressure is not NORMAL:
        return None
    values: dict[str, object] = {} if config.chunk_size is None else {"chunk_size": None}
    if config.default_buffer_size <= SLOW_CHUNK_BYTES:
        values |= _default_of(config, BEST_CHUNK_BYTES)
    return Change(
        values,
        f"{chunked.count:,} copies were moved in {stats.moved_chunks:,} pieces of {format_size(piece)} on average",
        "fewer calls for each byte: from 64KiB down a copy is 15 % slower and more",
        {"chunked_operations": chunked.count, "moved_chunks": stats.moved_chunks, "copied_bytes": stats.copied_bytes},
    )


def _chunk_large(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    # Larger chunks may suit a larger cache of the processor, so only where they make others wait, or are used under
    # pressure, as those that are given are.
    short = _lacks_memory(stats, config) or (stats.pressure >= HIGH and config.chunk_size is not None)
    if not short or _chunk(config) <= LARGE_CHUNK_BYTES or stats.copies < ENOUGH:
        return None
    values: dict[str, object] = {} if config.chunk_size is None else {"chunk_size": None}
    if config.default_buffer_size > LARGE_CHUNK_BYTES:
        best = max(BEST_CHUNK_BYTES, config.min_buffer_size)
        if best == config.default_buffer_size:
            return None
        values["default_buffer_size"] = best
    waited = _waits(stats) + stats.gate.waited
    return Change(
        values,
        f"{stats.copies:,} copies use chunks of {format_size(_chunk(config))}, and {counted(waited, 'request')} waited "
        f"(pressure {stats.pressure.name})",
        "less memory for each copy, at the same speed",
        {"copies": stats.copies, "waited": waited, "peak_bytes": stats.peak_bytes},
    )


def _chunk_never_fits(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    chunk, limit = config.chunk_size, stats.ledger_limit
    if chunk is None or not limit or chunk <= limit or stats.fallbacks < ENOUGH_TROUBLES:
        return None
    return Change(
        {"chunk_size": None},
        f"{stats.fallbacks:,} copies fell back: a chunk of {format_size(chunk)} is more than the {format_size(limit)} "
        "that may ever be held",
        "a chunk that fits is chosen",
        {"fallbacks": stats.fallbacks, "ledger_limit": limit},
    )


def _strategy_falls_back(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    # Where memory is refused, or not had in time, less of it serves: that is no fault of the strategy.
    fell = stats.fallbacks - stats.refusals - stats.overloads
    # Below a quarter of the copies, the configured strategy serves most of them.
    if config.large_object_strategy is ADAPTIVE or fell < max(ENOUGH_TROUBLES, stats.copies / 4):
        return None
    if _chunk_never_fits(stats, config) is not None:
        return None
    return Change(
        {"large_object_strategy": ADAPTIVE},
        f"{fell:,} of {counted(stats.copies, 'copy', 'copies')} could not be {config.large_object_strategy.value}",
        "each copy goes the way that serves its ends and size best",
        {"fallbacks": fell, "copies": stats.copies},
    )


def _direct_maps(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    # Copies that the kernel serves map nothing, so direct is right for them. A lease may be larger than is pooled.
    private, direct = _private(stats), stats.of(strategy=DIRECT)
    if config.large_object_strategy is not DIRECT or private < max(ENOUGH, stats.copies / 4):
        return None
    if 2 * direct.bytes < stats.copied_bytes or _asked(stats, config.max_buffer_size, LARGEST_SIZE):
        return None
    return Change(
        {"large_object_strategy": ADAPTIVE},
        f"{private:,} times memory was mapped for one use only, while {counted(direct.count, 'operation was', 'operations were')} direct",
        "what the kernel cannot copy goes through memory that is reused",
        {"private_leases": private, "direct_operations": direct.count, "copies": stats.copies},
    )


def _largest_small(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    private = _private(stats)
    most = config.max_buffer_size
    wanted = [
        share for share in stats.sizes
        if most < share.size <= LARGEST_POOLED_BYTES and share.weight >= ENOUGH_TROUBLES
    ]  # fmt: skip
    if private < max(ENOUGH, stats.total_gets / 20) or not wanted or stats.pressure is not NORMAL:
        return None
    size = max(share.size for share in wanted)
    return Change(
        _largest_of(config, size, LARGEST_AT_ONCE),
        f"{private:,} of {stats.total_gets:,} leases had memory mapped for them alone; up to {format_size(size)} is "
        "asked for often",
        "that memory is reused: no mapping, and no page fault for each 4 KiB",
        {"private_leases": private, "total_gets": stats.total_gets, "size": size},
    )


def _least_large(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    least = config.min_buffer_size
    total = sum(share.weight for share in stats.sizes)
    small = _asked(stats, 0, least // 4)
    # So few bytes wasted where fewer than three of four requests are that small, that fewer classes are worth it.
    if least <= LEAST_BUFFER_BYTES or total < 2 * ENOUGH or small < 0.75 * total:
        return None
    most = max(share.size for share in stats.sizes if share.size <= least // 4)
    return Change(
        {"min_buffer_size": max(LEAST_BUFFER_BYTES, most)},
        f"{100 * small / total:.0f} % of late requests are for at most {format_size(most)}, and get "
        f"{format_size(least)} each",
        "a quarter of the memory, or less, for each of them",
        {"share": small / total, "size": most},
    )


def _threshold_low(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    gate = stats.gate
    # Below 32 KiB an object costs less to move than to decide about.
    if config.large_object_threshold > MEDIUM_FROM or gate.entered < ENOUGH or gate.waited + gate.refused < ENOUGH:
        return None
    values: dict[str, object] = {"large_object_threshold": USUAL_THRESHOLD}
    if config.very_large_object_threshold <= USUAL_THRESHOLD:
        values["very_large_object_threshold"] = USUAL_VERY_LARGE
    return Change(
        values,
        f"{gate.waited:,} of {gate.entered:,} operations stood in line at the gate, and objects from "
        f"{format_size(config.large_object_threshold)} on must pass it",
        "small operations no longer wait for large ones",
        {"entered": gate.entered, "waited": gate.waited, "refused": gate.refused},
    )


def _threshold_high(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    gate, threshold = stats.gate, config.large_object_threshold
    passing = _asked(stats, USUAL_THRESHOLD, threshold - 1)
    # Without an entry there may be no gate at all, which no threshold changes.
    if (
        threshold <= USUAL_VERY_LARGE
        or not gate.entered
        or passing < ENOUGH
        or not _often(_waits(stats), stats.total_gets)
    ):
        return None
    return Change(
        {"large_object_threshold": USUAL_THRESHOLD},
        f"{_waits(stats):,} requests waited for memory, and {passing:,.0f} late ones of more than "
        f"{format_size(USUAL_THRESHOLD)} passed the gate unasked",
        "a bounded number of them holds memory at once",
        {"waits": _waits(stats), "passing": passing, "entered": gate.entered},
    )


def _queue_short(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    # A line of the usual length that is full is overload, and to say so is right.
    if (
        not _often(stats.gate.refused, stats.gate.entered)
        or config.max_queued_large_ops >= USUAL_QUEUE
        or stats.system_pressure >= HIGH
    ):
        return None
    return Change(
        {"max_queued_large_ops": USUAL_QUEUE},
        f"{stats.gate.refused:,} large operations were sent away, {config.max_queued_large_ops:,} may wait",
        "bursts wait instead of failing",
        {"refused": stats.gate.refused, "entered": stats.gate.entered},
    )


def _gate_narrow(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    gate, operations = stats.gate, config.max_concurrent_large_ops
    long = gate.wait_seconds >= LONG_WAIT_SECONDS * gate.entered
    if gate.entered < ENOUGH or 4 * gate.waited < gate.entered or not long or stats.pressure is not NORMAL:
        return None
    # With little memory left, the gate does its work.
    if _lacks_memory(stats, config) or 2 * stats.peak_bytes > stats.ledger_limit:
        return None
    # As many as fit, each with a chunk, into half of the memory.
    wanted = min(USUAL_OPERATIONS, stats.ledger_limit // (2 * _chunk(config)))
    if wanted <= operations or _threshold_low(stats, config) is not None:
        return None
    return Change(
        {"max_concurrent_large_ops": wanted},
        f"{gate.waited:,} of {gate.entered:,} large operations stood in line, {gate.wait_seconds:.1f} s together, while "
        f"at most {format_size(stats.peak_bytes)} of {format_size(stats.ledger_limit)} were in use",
        "shorter waits, where the ends of copies are slow; some more memory in use",
        {"entered": gate.entered, "waited": gate.waited, "wait_seconds": gate.wait_seconds},
    )


def _gate_wide(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    gate, operations = stats.gate, config.max_concurrent_large_ops
    if (
        gate.entered < ENOUGH
        or gate.waited
        or not _often(_waits(stats), stats.total_gets)
        or stats.system_pressure < HIGH
    ):
        return None
    if operations == 1:
        return None
    return Change(
        {"max_concurrent_large_ops": max(1, operations // 2)},
        f"pressure is {stats.system_pressure.name} and {_waits(stats):,} requests waited for memory, while none of "
        f"{gate.entered:,} large operations stood in line",
        "fewer hold memory at once, the others wait for a place and hold none",
        {"entered": gate.entered, "waits": _waits(stats)},
    )


def _pool_small(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    limit = config.max_pool_bytes
    if stats.system_pressure >= HIGH or 2 * limit > LARGEST_SIZE:
        return None
    # Where others share the ledger, its limit is what they wait for, which is no field of ours. 0: a snapshot without one.
    shares = stats.ledger_limit > limit
    if shares and not _spills(stats, config):
        return None
    # Where few leases come back, they are held for long, or lost sight of: then there is no size that is enough.
    if stats.total_puts < ENOUGH or 4 * stats.active_buffers > stats.total_gets:
        return None
    waits = _waits(stats)
    thrashes = _often_mapped(stats) and 10 * stats.peak_bytes >= 9 * limit
    if not (shares or _lacks_memory(stats, config) or thrashes):
        return None
    # These are the cause, where they are found.
    if any(rule(stats, config) is not None for rule in (_chunk_large, _threshold_high, _timeout_short)):
        return None
    waited = waits + stats.gate.waited
    return Change(
        {"max_pool_bytes": 2 * limit},
        f"{counted(waited, 'request')} waited, {stats.overloads:,} in vain for memory; {format_size(stats.mapped_bytes)} were "
        f"mapped in {counted(stats.maps, 'step')}, {format_size(stats.peak_bytes)} at the peak",
        "memory is at hand instead of waited for, or mapped again",
        {"waited": waited, "overloads": stats.overloads, "peak_bytes": stats.peak_bytes, "maps": stats.maps},
    )


def _spills(stats: BufferPoolStats, config: BufferPoolConfig) -> bool:
    """Whether leases that are small enough to be pooled get memory mapped for them alone: the pool has all that it may
    have, while a larger ledger, shared with others, has room."""
    if config.large_object_strategy is DIRECT or _asked(stats, config.max_buffer_size, LARGEST_SIZE):
        return False
    return _private(stats) >= max(ENOUGH, stats.total_gets / 20) and 10 * stats.peak_bytes >= 9 * config.max_pool_bytes


def _often_mapped(stats: BufferPoolStats) -> bool:
    """Whether arenas are mapped again and again, at least once a minute on average."""
    times = stats.mapped_bytes / stats.peak_bytes if stats.peak_bytes else 0.0
    arenas = stats.maps - _private(stats)
    return times >= OFTEN_MAPPED and 60 * times >= stats.seconds and 2 * arenas > stats.maps >= OFTEN_MAPPED


def _pool_large(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    held = stats.arena_bytes + stats.private_bytes
    half = max(config.max_pool_bytes // 2, config.max_buffer_size)
    if stats.system_pressure < HIGH or held < MUCH_IDLE_BYTES or stats.total_gets < ENOUGH or _waits(stats):
        return None
    if not half < min(held, config.max_pool_bytes):
        return None
    return Change(
        {"max_pool_bytes": half},
        f"pressure is {stats.system_pressure.name}, and the pool holds {format_size(held)} of "
        f"{format_size(config.max_pool_bytes)}",
        "memory for the rest of the system; large requests wait before it runs out",
        {"held": held, "pressure": int(stats.system_pressure)},
    )


def _idle_short(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    if config.max_idle_age >= USUAL_IDLE_SECONDS or not _often_mapped(stats) or stats.pressure is not NORMAL:
        return None
    if 10 * stats.peak_bytes >= 9 * config.max_pool_bytes:
        return None  # it went back for want of room, not by age
    return Change(
        {"max_idle_age": USUAL_IDLE_SECONDS},
        f"{format_size(stats.mapped_bytes)} were mapped in {stats.seconds:.0f} s, though at most "
        f"{format_size(stats.peak_bytes)} were in use",
        "memory is still there after a pause",
        {"maps": stats.maps, "mapped_bytes": stats.mapped_bytes, "peak_bytes": stats.peak_bytes},
    )


def _idle_long(stats: BufferPoolStats, config: BufferPoolConfig) -> Change | None:
    # From HIGH on nothing is kept anyway. A ledger that is nearly full asks for ELEVATED by itself.
    full = stats.ledger_held >= 0.95 * stats.ledger_limit
    idle = stats.idle_bytes
    if stats.pressure is not ELEVATED or full or config.max_idle_age <= USUAL_IDLE_SECONDS or stats.total_gets < ENOUGH:
        return None
    if idle < max(MUCH_IDLE_BYTES, stats.arena_bytes / 2):
        return None
    return Change(
        {"max_idle_age": USUAL_IDLE_SECONDS},
        f"pressure is {stats.pressure.name}, and {format_size(idle)} of {format_size(stats.arena_bytes)} are idle",
        "idle memory goes back to the system earlier",
        {"idle_bytes": idle, "arena_bytes": stats.arena_bytes},
    )


# In order: of two that name the same field, the first one counts.
RULES = (
    Rule("leases_are_lost", Severity.WARNING, _leases_are_lost),
    Rule("no_lease_is_lost", Severity.INFO, _no_lease_is_lost),
    Rule("timeout_short", Severity.WARNING, _timeout_short),
    Rule("chunk_never_fits", Severity.WARNING, _chunk_never_fits),
    Rule("chunk_large", Severity.WARNING, _chunk_large),
    Rule("chunk_small", Severity.WARNING, _chunk_small),
    Rule("strategy_falls_back", Severity.WARNING, _strategy_falls_back),
    Rule("direct_maps", Severity.WARNING, _direct_maps),
    Rule("threshold_low", Severity.WARNING, _threshold_low),
    Rule("threshold_high", Severity.WARNING, _threshold_high),
    Rule("queue_short", Severity.WARNING, _queue_short),
    Rule("gate_narrow", Severity.WARNING, _gate_narrow),
    Rule("gate_wide", Severity.WARNING, _gate_wide),
    Rule("largest_small", Severity.WARNING, _largest_small),
    Rule("least_large", Severity.INFO, _least_large),
    Rule("pool_small", Severity.WARNING, _pool_small),
    Rule("pool_large", Severity.WARNING, _pool_large),
    Rule("idle_short", Severity.WARNING, _idle_short),
    Rule("idle_long", Severity.INFO, _idle_long),
)
RULES_DISABLED = (Rule("disabled", Severity.INFO, _disabled),)
