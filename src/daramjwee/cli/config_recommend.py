"""`daramjwee config recommend`: what a running process has done, judged, as settings to put into a file.

Invariant: what is printed is TOML that `daramjwee config check` accepts; reasons are comments in it. Nothing is changed.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from daramjwee.cli.config import Changes, Source, examined_of, plain, sound
from daramjwee.cli.config_view import text_of, toml_value
from daramjwee.cli.options import expanded
from daramjwee.cli.render import print_json, printable, show
from daramjwee.config.secret import shown
from daramjwee.errors import ConfigError, FetchError, Problem
from daramjwee.units import counted, format_duration

if TYPE_CHECKING:
    from daramjwee.buffers.insight.finding import Finding
    from daramjwee.config.load import Examined
    from daramjwee.config.model import CacheConfig
    from daramjwee.observe.document import Document

SUBJECT = "config recommend"
CALIBRATE = "daramjwee bench --calibrate measures which buffer settings win on this machine, without a process"
TABLE = "buffers"


class Advice(NamedTuple):
    """What a process was advised. `findings`: of `advise`; `remarks`: of `health()`, which propose no value; `changes`:
    field and value; `problems`: what would be wrong with them in the configuration that was named; `overridden`: what
    counts before a file; `other`: settings that differ between the process and that configuration."""

    pid: int
    version: str
    seconds: float
    operations: int
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...]
    changes: dict[str, Any]
    problems: tuple[Problem, ...]
    overridden: dict[str, str]
    other: tuple[str, ...]


def recommend(
    place: Annotated[
        str | None,
        typer.Argument(
            metavar="FOLDER|SOCKET",
            show_default=False,
            help="The folder of a file tier, or a socket; else the folders of the configuration are looked into.",
        ),
    ] = None,
    source: Source = None,
    changes: Changes = None,
    pid: Annotated[
        int | None, typer.Option(metavar="PID", help="Of several processes, this one.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print it as one JSON document.")] = False,
) -> int:
    """Ask a running process what it has done, and print the settings that would have done better, with the reasons.

    The process offers its dashboard (`cache.offer_dashboard()`). What is printed is TOML, to be put into the file of its
    configuration. With SOURCE the changes are tried on it. Exits with 4 when no process offers a dashboard there.
    """
    from daramjwee.observe import ask
    from daramjwee.observe.client import decode

    # A file that is not there is meant as one all the same, and its problem is told.
    if source is None and place is not None and (os.path.isfile(expanded(place)) or place.endswith((".toml", ".json"))):
        place, source = None, place
    examined = examined_of(source, changes or [], SUBJECT)
    config: CacheConfig = sound(examined, source)
    document = decode(ask(_socket([expanded(place)] if place is not None else _folders(config), pid)))
    advice = judged(document)
    if source is not None or config.buffers != type(config.buffers)():
        advice = _tried(advice, examined, config, document.pools[0].config)
    if json:
        print_json(plain(_as_data(advice)))
    else:
        show(to_toml(advice), end="")
    return ConfigError.exit_status if advice.problems else 0


def _folders(config: CacheConfig) -> list[str]:
    """Where processes with this configuration put their sockets."""
    found = [tier.folder for tier in config.tiers if hasattr(tier, "folder")]
    if not found:
        mend = f"name the folder of a file tier, a socket, or a configuration that has a file tier; {CALIBRATE}"
        raise ConfigError([Problem("FOLDER|SOCKET", None, mend)], subject=SUBJECT)
    return found


def _socket(places: Sequence[str], pid: int | None) -> str:
    """The one process that is meant."""
    from daramjwee.observe import NoDashboard, find
    from daramjwee.observe.place import pid_in

    found: list[str] = []
    for place in places:
        try:
            found += find(place)
        except NoDashboard:
            continue  # told below, of all places together
    pids = {path: pid_in(os.path.basename(path)) for path in found}
    wanted = [path for path in found if pid is None or pids[path] in (pid, None)]
    if not wanted:
        who = "no process offers its dashboard" if pid is None else f"process {pid} offers no dashboard"
        raise NoDashboard(f"{who} in {', '.join(map(shown, places))}: call cache.offer_dashboard() in it; {CALIBRATE}")
    if len(wanted) > 1:
        named = ", ".join(str(pids[path] or path) for path in wanted)
        mend = f"there are {len(wanted)} ({named}), and one is judged: choose it"
        raise ConfigError([Problem("--pid", pid, mend)], subject=SUBJECT)
    return wanted[0]


def judged(document: Document) -> Advice:
    """The advice to the pool of a document, by the settings it runs with."""
    from daramjwee.buffers.config import BufferPoolConfig
    from daramjwee.buffers.insight.advice import advise

    if not document.pools:
        raise FetchError(f"process {document.pid} tells of no pool: there is nothing to judge")
    pool = document.pools[0]
    # A process of another release may have other settings.
    settings: dict[str, Any] = {
        name: pool.config[name] for name in pool.config.keys() & set(BufferPoolConfig.__struct_fields__)
    }
    try:
        config = BufferPoolConfig(**settings)
    except ConfigError as error:  # it is not the caller's configuration that is at fault
        fields = ", ".join(problem.field for problem in error.problems)
        raise FetchError(
            f"process {document.pid} tells of settings that cannot be ({fields}): upgrade daramjwee"
        ) from None
    figures = ((name, getattr(pool.stats, name)) for name in pool.stats.__struct_fields__)
    wrong = [f"{name} = {figure}" for name, figure in figures if isinstance(figure, int | float) and figure < 0]
    if wrong:
        raise FetchError(f"process {document.pid} tells of figures that cannot be: {', '.join(wrong)}; ask again")
    findings = advise(pool.stats, config)
    named = {finding.code for finding in findings}
    return Advice(
        pid=document.pid,
        version=document.version,
        seconds=pool.stats.seconds,
        operations=pool.stats.total_operations,
        findings=findings,
        # Health says what is wrong now: with advice about the same, that is enough.
        remarks=tuple(
            f"{row.severity}: {row.seen}; {row.remedy}"
            for row in pool.findings
            if row.source == "health" and row.code not in named
        ),
        changes={finding.field: finding.proposed for finding in findings if finding.field is not None},
        problems=(),
        overridden={},
        other=(),
    )


def _tried(advice: Advice, examined: Examined, config: CacheConfig, running: Mapping[str, Any]) -> Advice:
    """The same with what the configuration says to the changes, and where the process runs with another."""
    try:
        config.buffers.replace(**advice.changes)
    except ConfigError as error:
        problems = tuple(problem._replace(field=f"{TABLE}.{problem.field}") for problem in error.problems)
    else:
        problems = ()
    sources = {name: examined.sources.get(f"{TABLE}.{name}", "") for name in advice.changes}
    above = {name: said for name, said in sources.items() if said.startswith(("environment", "argument"))}
    wanted = plain(config.buffers)
    other = tuple(name for name, value in wanted.items() if name in running and running[name] != value)
    return advice._replace(problems=problems, overridden=above, other=other)


def _as_data(advice: Advice) -> dict[str, Any]:
    """With every field of every finding, those without a value too."""
    findings = [{name: getattr(finding, name) for name in finding.__struct_fields__} for finding in advice.findings]
    problems = [problem._asdict() for problem in advice.problems]
    return {**advice._asdict(), "findings": findings, "problems": problems}


def to_toml(advice: Advice) -> str:
    """The changes as a table, and all else as comments."""
    return "\n".join(_lines(advice)) + "\n"


def _lines(advice: Advice) -> Iterator[str]:
    yield _comment(
        f"Process {advice.pid}, daramjwee {advice.version}: judged by {counted(advice.operations, 'operation')} in "
        f"{format_duration(advice.seconds)}."
    )
    if advice.other:
        yield _comment(f"It runs with other settings than the configuration that was named: {', '.join(advice.other)}.")
    for remark in advice.remarks:
        yield _comment(remark)
    if not advice.changes:
        yield _comment(f"No setting of the pool to change; {CALIBRATE}.")
        return
    yield from ("schema = 3", "", f"[{TABLE}]")
    for finding in advice.findings:
        if finding.field is None:
            yield _comment(f"{finding.severity.value}: {finding.seen}; {finding.remedy}")
            continue
        name = finding.field
        yield _comment(f"{finding.severity.value}: {finding.seen}" + (f": {finding.gain}" if finding.gain else ""))
        if finding.proposed is None:
            # TOML has no word for it.
            yield _comment(f"{name} (now {text_of(name, plain(finding.current))}): leave it out")
        else:
            now = text_of(name, plain(finding.current))
            yield f"{name} = {toml_value(name, plain(finding.proposed))}  # now {printable(now)}"
        if name in advice.overridden:
            yield _comment(f"{advice.overridden[name]} counts before the file: change it there")
    for problem in advice.problems:
        yield _comment(f"not with the configuration that was named: {problem}")


def _comment(text: str) -> str:
    return f"# {printable(text)}"
