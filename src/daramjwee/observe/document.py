"""The dashboard document: all that a process tells of its pool and cache, as one JSON document.

Invariant: format 1 only ever gains fields; a reader leaves alone what it does not know. Nothing in it comes from a key, a
URL or a body: figures, levels, names of settings, metrics and tiers, and sentences made of these.
Threads: values only.
Design: docs/monitoring.md
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from daramjwee.buffers.pressure import Reading
from daramjwee.buffers.stats import BufferPoolStats, GateStats, OperationStats, sum_of
from daramjwee.errors import redact_url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daramjwee.buffers.config import BufferPoolConfig
    from daramjwee.buffers.insight.alerts import Alert
    from daramjwee.buffers.insight.finding import Finding
    from daramjwee.buffers.insight.trend import Trend

FORMAT = 1
# Half an hour of a trend with the default interval: enough to see where it goes.
MOST_POINTS = 180

Plain = int | float | bool | str | None


class OperationRow(msgspec.Struct, frozen=True, kw_only=True):
    """Operations of one size class by one strategy ("all": of all), with their latency in nanoseconds: `mean` of the
    `timed` ones, the others with `enable_detailed_metrics`."""

    size_class: str
    strategy: str
    count: int
    bytes: int
    timed: int
    mean: float
    p50: int
    p90: int
    p99: int
    max: int


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What was done each second of the last `seconds`; `reuse_rate`: the share of leases served from a free chunk."""

    seconds: float = 0.0
    operations: float = 0.0
    bytes: float = 0.0
    gets: float = 0.0
    hits: float = 0.0
    waits: float = 0.0
    overloads: float = 0.0
    reuse_rate: float = 0.0


class LedgerSection(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes held by all who share the pool's ledger, of its limit, and the share."""

    held: int
    limit: int
    share: float


class GateSection(msgspec.Struct, frozen=True, kw_only=True):
    """Large operations: `stats.active` of `limit` under way, `stats.waiting` of `most_waiting` in line."""

    limit: int
    most_waiting: int
    stats: GateStats


class PressureSection(msgspec.Struct, frozen=True, kw_only=True):
    """The level of memory pressure, why, for how long this dashboard has seen it, and what was read last."""

    level: str
    reason: str
    seen_seconds: float
    readings: tuple[Reading, ...]


class AlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that crossed a threshold, or came back. `at`: seconds since the epoch."""

    metric: str
    state: str
    severity: str
    value: float | None
    threshold: float | None
    at: float
    message: str


class Alerts(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts that hold now, and the last ones, oldest first."""

    active: tuple[AlertRow, ...] = ()
    recent: tuple[AlertRow, ...] = ()


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One interval of a trend. `at`: when it began, in seconds before the document was made (negative)."""

    at: float
    count: int
    mean: float | None
    low: float | None
    high: float | None


class TrendSection(msgspec.Struct, frozen=True, kw_only=True):
    """How one metric went, oldest first. `interval`: seconds; `slope`: change a second."""

    metric: str
    interval: float
    slope: float | None
    points: tuple[Point, ...]


class FindingRow(msgspec.Struct, frozen=True, kw_only=True):
    """A `Finding`. `source`: "health" or "advice". `direction`: "raise" or "lower" a number, "set" what is none."""

    source: str
    code: str
    severity: str
    seen: str
    remedy: str
    field: str | None = None
    current: Any = None
    proposed: Any = None
    gain: str = ""
    direction: str | None = None
    figures: dict[str, float | None] = {}


class PoolSection(msgspec.Struct, frozen=True, kw_only=True):
    """One buffer pool. `kind`: its class; `state`: open, closed or disabled; `config`: the settings in force; `stats`:
    its snapshot as it is; `operations`: the same by size class and strategy with latencies, "all" first."""

    kind: str
    state: str
    config: dict[str, Plain]
    stats: BufferPoolStats
    operations: tuple[OperationRow, ...]
    rates: Rates
    ledger: LedgerSection
    gate: GateSection | None
    pressure: PressureSection
    alerts: Alerts
    trends: tuple[TrendSection, ...]
    findings: tuple[FindingRow, ...]


class TierSection(msgspec.Struct, frozen=True, kw_only=True):
    """One tier of a cache: hits it answered, and what it holds. `bytes` of `capacity` with stagings."""

    name: str
    hits: int
    bytes: int
    entries: int
    capacity: int
    max_entries: int | None
    stagings: int
    evictions: int


class CacheSection(msgspec.Struct, frozen=True, kw_only=True):
    """What `cache.stats()` says."""

    hits: int
    stale: int
    joined: int
    revalidated: int
    bypassed: int
    negative: int
    misses: dict[str, int]
    origin_fetches: int
    fetch_errors: int
    evictions: int
    events: dict[str, int]
    memory_used: int
    memory_limit: int
    flights: int
    tiers: tuple[TierSection, ...]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A process, its buffer pools, and its cache where it has one.

    `at`: seconds since the epoch. `uptime_seconds`: since the dashboard was offered.
    """

    format: int = FORMAT
    version: str
    python: str
    pid: int
    at: float
    uptime_seconds: float
    pools: tuple[PoolSection, ...]
    cache: CacheSection | None = None


class Sample(msgspec.Struct, frozen=True):
    """The figures of a moment: what rates are taken from."""

    at: float
    stats: BufferPoolStats


def schema() -> dict[str, Any]:
    """The JSON schema of the document."""
    return msgspec.json.schema(Document)


def rates_between(before: Sample, now: Sample) -> Rates:
    """What was done each second in between. Counters that were reset meanwhile count as nothing done."""
    seconds = now.at - before.at
    if seconds <= 0:
        return Rates()

    def added(field: str) -> int:
        more: int = getattr(now.stats, field) - getattr(before.stats, field)
        return max(0, more)

    hits, misses = added("pool_hits"), added("pool_misses")
    return Rates(
        seconds=seconds,
        operations=added("total_operations") / seconds,
        bytes=added("copied_bytes") / seconds,
        gets=added("total_gets") / seconds,
        hits=hits / seconds,
        waits=added("waits") / seconds,
        overloads=added("overloads") / seconds,
        reuse_rate=hits / (hits + misses) if hits + misses else 0.0,
    )


def operation_rows(cells: Iterable[OperationStats]) -> tuple[OperationRow, ...]:
    """A row for all, then one for each cell in which there was something."""
    used = [cell for cell in cells if cell.count]
    return (
        _row("all", "all", sum_of(used)),
        *(_row(cell.size_class.value, cell.strategy.value, cell) for cell in used),
    )


def _row(size_class: str, strategy: str, of: Any) -> OperationRow:
    latency = of.latency
    return OperationRow(
        size_class=size_class, strategy=strategy, count=of.count, bytes=of.bytes, timed=of.timed, mean=of.mean_ns,
        p50=latency.p50, p90=latency.p90, p99=latency.p99, max=latency.longest,
    )  # fmt: skip


def config_values(config: BufferPoolConfig) -> dict[str, Plain]:
    """The settings as plain values: bytes, seconds, names."""
    plain: dict[str, Plain] = msgspec.to_builtins(config)
    return plain


def alert_row(alert: Alert) -> AlertRow:
    return AlertRow(
        metric=alert.metric, state=alert.state.value, severity=alert.severity.value, value=_number(alert.value),
        threshold=_number(alert.threshold), at=alert.at, message=alert.message,
    )  # fmt: skip


def trend_section(metric: str, trend: Trend, now: float) -> TrendSection:
    points = trend.points[-MOST_POINTS:]
    return TrendSection(
        metric=metric,
        interval=trend.interval,
        slope=_number(trend.slope),
        points=tuple(
            Point(at=p.at - now, count=p.count, mean=_number(p.mean), low=_number(p.low), high=_number(p.high))
            for p in points
        ),
    )


def finding_rows(health: Iterable[Finding], advice: Iterable[Finding]) -> tuple[FindingRow, ...]:
    """What health says, then what only advice says."""
    rows = [_finding_row("health", finding) for finding in health]
    said = {(row.code, row.field) for row in rows}
    return (*rows, *(_finding_row("advice", f) for f in advice if (f.code, f.field) not in said))


def _finding_row(source: str, finding: Finding) -> FindingRow:
    return FindingRow(
        source=source, code=finding.code, severity=finding.severity.value, seen=finding.seen, remedy=finding.remedy,
        field=finding.field, current=msgspec.to_builtins(finding.current), gain=finding.gain,
        proposed=msgspec.to_builtins(finding.proposed), direction=finding.direction,
        figures={name: _number(value) for name, value in finding.figures.items()},
    )  # fmt: skip


def cache_section(stats: Any) -> CacheSection:
    """`stats`: a `CacheStats`, which stands in a room above this one."""
    same = {name: getattr(stats, name) for name in CacheSection.__struct_fields__ if name != "tiers"}
    tiers = tuple(
        # A store may call itself as it likes.
        TierSection(name=redact_url(tier.name), hits=tier.hits, **tier.usage._asdict())
        for tier in stats.tiers
    )
    return CacheSection(**same, tiers=tiers)


def _number(value: float | None) -> float | None:
    """JSON has no word for what is no finite number."""
    return None if value is None or not math.isfinite(value) else float(value)
