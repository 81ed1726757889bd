"""How a dashboard document looks: facts, remarks and tables, as text or on a terminal.

Invariant: every figure shown is one of the document; whatever it says cannot move the cursor.
Threads: values only.
Design: docs/cli.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.buffers.insight.metrics import METRICS, format_metric, format_ns
from daramjwee.cli.render import printable
from daramjwee.units import counted, format_duration, format_size

if TYPE_CHECKING:
    from daramjwee.observe.document import (
        AlertRow,
        CacheSection,
        Document,
        FindingRow,
        GateSection,
        PoolSection,
        TrendSection,
    )

# Of alerts that are over, the last few: the document has more.
MOST_PAST = 5
WORST = ("critical", "warning", "info")
STYLES = {"warning": "yellow", "critical": "bold red", "ELEVATED": "yellow", "HIGH": "red", "CRITICAL": "bold red"}


class Table(NamedTuple):
    """Rows of text below the names of the columns. The first `words` columns stand left, figures right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int


class Remark(NamedTuple):
    """A line, and what it is about: decides the colour."""

    kind: str
    text: str


class Page(NamedTuple):
    """What is shown of one process."""

    heading: str
    facts: tuple[tuple[str, Remark], ...]
    tables: tuple[Table, ...]
    remarks: tuple[Remark, ...]


def page_of(document: Document) -> Page:
    """What to show of a document, with everything in it printable."""
    facts: list[tuple[str, Remark]] = []
    tables: list[Table] = []
    remarks: list[Remark] = []
    for pool in document.pools:
        facts += [(name, Remark(kind, printable(text))) for name, kind, text in _facts_of(pool)]
        tables += [_operations_of(pool), _trends_of(pool)]
        remarks += _remarks_of(pool, document.at)
    if document.cache is not None:
        facts.append(("cache", Remark("", printable(_cache_line(document.cache)))))
        tables.append(_tiers_of(document.cache))
    heading = (
        f"process {document.pid}, daramjwee {document.version}, Python {document.python}, "
        f"offered for {format_duration(document.uptime_seconds)}"
    )
    shown = tuple(
        Table(table.columns, tuple(tuple(map(printable, row)) for row in table.rows), table.words)
        for table in tables
        if table.rows
    )
    return Page(printable(heading), tuple(facts), shown, tuple(Remark(r.kind, printable(r.text)) for r in remarks))


def _facts_of(pool: PoolSection) -> Iterator[tuple[str, str, str]]:
    """(name, kind, text), in the order in which they are shown."""
    yield "rates", "", _rates_line(pool)
    yield "pool", "", _pool_line(pool)
    yield "ledger", "", _ledger_line(pool)
    if pool.gate is not None:
        yield "gate", "", _gate_line(pool.gate)
    pressure = pool.pressure
    reason = f": {pressure.reason}" if pressure.reason else ""
    yield "pressure", pressure.level, f"{pressure.level} for {format_duration(pressure.seen_seconds)}{reason}"
    for reading in pressure.readings:
        yield "", reading.level.name, str(reading)


def _rates_line(pool: PoolSection) -> str:
    rates = pool.rates
    reused = f", {rates.reuse_rate:.1%} of them from free chunks" if rates.gets else ""  # of none there is no share
    return (
        f"{_count(rates.operations)} operations/s, {format_size(rates.bytes)}/s, {_count(rates.gets)} leases/s{reused}; "
        f"over {rates.seconds:.1f} s"
    )


def _pool_line(pool: PoolSection) -> str:
    stats = pool.stats
    return (
        f"{pool.kind} {pool.state}: {stats.active_buffers:,} on loan, {format_size(stats.arena_bytes)} in arenas "
        f"({format_size(stats.idle_bytes)} idle), {format_size(stats.private_bytes)} private, "
        f"{format_size(stats.peak_bytes)} at the peak"
    )


def _ledger_line(pool: PoolSection) -> str:
    stats = pool.stats
    return (
        f"{format_size(pool.ledger.held)} of {format_size(pool.ledger.limit)} ({pool.ledger.share:.1%}), "
        f"{stats.waiting:,} waiting for memory; {stats.waits:,} had to wait, {stats.overloads:,} in vain"
    )


def _gate_line(gate: GateSection) -> str:
    stats = gate.stats
    return (
        f"{stats.active:,} of {gate.limit:,} under way; {stats.waiting:,} of {gate.most_waiting:,} in line "
        f"(high {stats.waiting_high:,}, normal {stats.waiting_normal:,}, low {stats.waiting_low:,}); "
        f"{stats.entered:,} entered, {stats.refused:,} refused, {stats.timed_out:,} timed out"
    )


def _operations_of(pool: PoolSection) -> Table:
    return Table(
        ("operations", "strategy", "count", "bytes", "mean", "p50", "p90", "p99", "max"),
        tuple(
            (
                row.size_class, row.strategy, f"{row.count:,}", format_size(row.bytes), _time(row.mean), _time(row.p50),
                _time(row.p90), _time(row.p99), _time(row.max),
            )
            for row in pool.operations
        ),
        2,
    )  # fmt: skip


def _trends_of(pool: PoolSection) -> Table:
    """Those that have something to tell: a line of zeros is none."""
    return Table(
        ("trend", "low", "mean", "high", "last", "over"),
        tuple(
            (
                trend.metric, *(_figure(trend.metric, value) for value in _extremes(trend)),
                _span(len(trend.points) * trend.interval),
            )
            for trend in pool.trends
            if any(point.high for point in trend.points)
        ),
        1,
    )  # fmt: skip


def _extremes(trend: TrendSection) -> tuple[float | None, ...]:
    """The lowest, the mean, the highest, and the mean of the last interval."""
    points = [(p.count, p.mean or 0.0, p.low or 0.0, p.high or 0.0) for p in trend.points]
    count = sum(point[0] for point in points)
    mean = sum(point[0] * point[1] for point in points) / count if count else None
    return min(point[2] for point in points), mean, max(point[3] for point in points), points[-1][1]


def _span(seconds: float) -> str:
    return f"{seconds:.0f}s" if seconds < 120 else format_duration(seconds)


def _figure(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    # A process of a later release may have metrics that we do not know.
    return format_metric(metric, value) if metric in METRICS else f"{value:,.6g}"


def _cache_line(cache: CacheSection) -> str:
    counts = {
        "hit": cache.hits, "miss": sum(cache.misses.values()), "joined": cache.joined, "stale": cache.stale,
        "revalidated": cache.revalidated, "bypassed": cache.bypassed, "negative": cache.negative,
    }  # fmt: skip
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(cache.misses.items()))
    answers = ", ".join(
        counted(count, name, {"hit": "hits", "miss": "misses"}.get(name, name))
        for name, count in counts.items()
        if count or name in {"hit", "miss"}
    )
    events = "".join(f", {kind} {count:,}" for kind, count in sorted(cache.events.items()))
    return (
        f"{answers}{f' ({reasons})' if reasons else ''}; {counted(cache.flights, 'fill')} running, {counted(cache.origin_fetches, 'fetch', 'fetches')}, "
        f"{cache.fetch_errors:,} failed; {format_size(cache.memory_used)} of {format_size(cache.memory_limit)}{events}"
    )


def _tiers_of(cache: CacheSection) -> Table:
    return Table(
        ("tier", "hits", "bytes", "capacity", "entries", "stagings", "evictions"),
        tuple(
            (
                tier.name, f"{tier.hits:,}", format_size(tier.bytes), format_size(tier.capacity),
                f"{tier.entries:,}", f"{tier.stagings:,}", f"{tier.evictions:,}",
            )
            for tier in cache.tiers
        ),
        1,
    )  # fmt: skip


def _remarks_of(pool: PoolSection, now: float) -> Iterator[Remark]:
    """What is wrong, the worst first, as a terminal may have no room for all; then what is over."""
    wrong = [Remark(alert.severity, f"alert: {_alert_line(alert, now)}") for alert in pool.alerts.active]
    wrong += [Remark(finding.severity, _finding_line(finding)) for finding in pool.findings]
    # A severity of a later release comes last.
    yield from sorted(wrong, key=lambda remark: WORST.index(remark.kind) if remark.kind in WORST else len(WORST))
    past = [alert for alert in pool.alerts.recent if alert not in pool.alerts.active]
    for alert in past[-MOST_PAST:]:
        yield Remark("", f"{alert.state}: {_alert_line(alert, now)}")


def _alert_line(alert: AlertRow, now: float) -> str:
    return f"{alert.message} ({alert.severity}, {format_duration(max(0.0, now - alert.at))} ago)"


def _finding_line(finding: FindingRow) -> str:
    gain = f" ({finding.gain})" if finding.gain else ""
    return f"{finding.severity}: {finding.seen}; {finding.remedy}{gain}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _time(nanoseconds: float) -> str:
    return format_ns(nanoseconds) if nanoseconds else "-"


def text_of(page: Page) -> str:
    """The page as plain lines."""
    width = max((len(name) for name, _ in page.facts), default=0)
    lines = [page.heading, *(f"{name:<{width}}  {remark.text}".rstrip() for name, remark in page.facts)]
    if page.remarks:
        lines += ["", *(remark.text for remark in page.remarks)]
    for table in page.tables:
        lines += ["", *_aligned(table)]
    return "\n".join(lines)


def _aligned(table: Table) -> Iterator[str]:
    rows = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    for row in rows:
        cells = [
            cell.ljust(width) if i < table.words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def drawing_of(pages: Iterable[Page], remarks: Iterable[str] = ()) -> Any:
    """Pages for a terminal, one below the other; `remarks` come first."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(printable(remark), style="bold yellow") for remark in remarks]
    for page in pages:
        if parts:
            parts.append(Text())
        parts += _drawn(page)
    return Group(*parts)


def _drawn(page: Page) -> Iterator[Any]:
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    yield Text(page.heading, style="bold")
    facts = Grid.grid(padding=(0, 2, 0, 0))
    for name, remark in page.facts:
        facts.add_row(Text(name, style="dim"), Text(remark.text, style=STYLES.get(remark.kind, "")))
    yield facts
    # Above the tables: a terminal of 24 lines ends below them.
    if page.remarks:
        yield Text()
    for remark in page.remarks:
        yield Text(remark.text, style=STYLES.get(remark.kind, ""))
    for table in page.tables:
        grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for place, column in enumerate(table.columns):
            grid.add_column(Text(column), justify="left" if place < table.words else "right", no_wrap=True)
        for row in table.rows:
            grid.add_row(*map(Text, row))
        yield Text()
        yield grid
