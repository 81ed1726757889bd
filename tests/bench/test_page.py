"""The page of a report says what the report says, what was missed first; the page that is kept is the one that its report
makes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from daramjwee.bench import page, pictures
from daramjwee.bench.expectations import EXPECT, EXPECT_NOT
from daramjwee.bench.report import Report, from_json, read, to_json
from daramjwee.bench.samples import Row, at_least, at_most, row_of
from daramjwee.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs"


def cell(way, seen, us, **changes):
    """A row of the scenario matrix."""
    labels = {"pair": "file to file", "size": "256KiB", "class": "large", "way": way}
    beside = {"us": us, "faults": 0.0, "reads": 3.0, "writes": 2.0}
    name = f"file to file, 256KiB: {way}"
    fields = {"labels": labels, "beside": beside, "detail": way != "adaptive", "only": "matrix"} | changes
    return Row(scenario="strategies", name=name, seen=seen, **fields)


def made_up(**changes):
    rows = (
        msgspec.structs.replace(
            row_of("hit in memory", "cache.get / dict.get", [7.0, 8.0, 9.0], target=at_most(7.5)), only="hit"
        ),
        Row(scenario="hit in memory", name="cachebox | LRU", note="failed: OSError: no", only="hit"),
        cell("adaptive", 0.9, 20.0, target=at_least(0.97), note="pooled; best: write(read())"),
        cell("pooled", 0.8, 22.0),
        cell("chunked", None, 0.0, note="cannot serve here: falls back to direct", beside={}),
        cell("direct", 0.5, 40.0),
        cell("write(read())", 0.9, 18.0),
    )
    fields = {
        "version": "9.9", "quick": True, "machine": {"processor": "abacus, 2 usable"}, "seconds": 61.0, "rows": rows,
        "took": {"hit": 20.0, "matrix": 41.0},
    }  # fmt: skip
    return Report(**(fields | changes))


def test_what_was_missed_comes_before_anything_else():
    """With figure, spread, runs, what was wanted, and the command that shows it again."""
    text = page.page_of(made_up(), "performance.md")
    missed, rest = text.split("## What to expect")
    assert "0 of 2 targets are met. These are not:" in missed
    row = '| hit in memory: cache.get / dict.get | 8 x | 7 to 9 | 3 | <= 7.50 x | `make bench ARGS="--only hit"` |'
    assert row in missed
    assert "quick run" in missed
    assert r"Without a figure: hit in memory: cachebox | LRU: failed: OSError: no." in missed
    assert "abacus, 2 usable" in rest


def test_a_report_without_misses_says_so_and_failures_are_named():
    """A scenario that failed is no figure that was met."""
    rows = (row_of("s", "n", [1.0], target=at_least(1)),)
    text = page.page_of(made_up(rows=rows, failures={"fill": "MemoryError: no room"}, quick=False), "x.md")
    assert "1 of 1 target is met. None is missed." in text
    assert '**`make bench ARGS="--only fill"` failed**: MemoryError: no room' in text
    assert "quick run" not in text


@pytest.mark.parametrize(("load", "said"), [(None, False), (0.2, False), (3.456, True)])
def test_a_machine_that_was_busy_is_said_to_be(load, said):
    """Whoever reads the times then knows what they are worth."""
    text = page.page_of(made_up(load=load), "performance.md")
    assert ("on average 3.46 processes wanted to run" in text) is said
    assert ("not quiet" in text) is said


def test_a_target_without_a_figure_is_said():
    """It is neither met nor missed."""
    rows = (Row(scenario="s", name="n", target=at_least(1), note="this system does not tell"),)
    assert "s: n: has a target and no figure (this system does not tell)." in page.page_of(made_up(rows=rows), "x.md")


def test_sentences_carry_figures_of_the_report_and_only_those_it_has():
    """A figure that is missing is said to be; a sentence without any is left out."""
    text = page.page_of(made_up(), "performance.md")
    assert "takes (no figure), **8 x** a bare `dict.get`" in text
    assert "**Memory has a bound.**" not in text


def test_strategies_are_tables_of_sizes_by_ways():
    """With what a user would take and its time, a dash where a way cannot serve, and what was wanted where it is missed."""
    text = page.page_of(made_up(), "performance.md")
    assert "| 256KiB (large) | 0.90 (wanted 0.97) | 0.80 | - | 0.50 | `write(read())`, 18 us |" in text
    assert "| file to file | 256KiB | 0; 3 + 2 | 0; 3 + 2 | - | 0; 3 + 2 | - | 0; 3 + 2 | - |" in text
    adaptive = (
        "| file to file, 256KiB: adaptive | 0.90 x |  |  | >= 0.97 x | **no** | pooled; best: write(read()); us 20,"
    )
    assert adaptive in text
    assert "| file to file, 256KiB: pooled |" not in text
    assert "](pictures/file-to-file.svg)" in text
    assert "](pictures/plain-to-file.svg)" not in text


def test_many_rows_of_paths_and_sizes_are_one_table_and_other_details_another():
    """Each figure with its spread and its runs; what is missed stands out, what was not measured is a dash."""
    figures = {("copy", "1", "1KiB"): 0.9, ("copy", "1", "1MiB"): 1.0, ("copy", "8", "1MiB"): 2.0}
    rows = [
        Row(
            scenario="end to end", name=f"{path}, {threads}, {size}", seen=seen, low=0.8, high=seen, runs=15, detail=True,
            target=at_least(0.97), labels={"path": path, "threads": threads, "size": size}, only="endtoend",
        )
        for (path, threads, size), seen in figures.items()
    ]  # fmt: skip
    rows.append(
        Row(scenario="end to end", name="copy, 1KiB: page faults", seen=21, runs=1, detail=True, only="endtoend")
    )
    text = page.page_of(made_up(rows=tuple(rows)), "performance.md")
    assert "in brackets; wanted is >= 0.97." in text
    assert "| what | threads | 1KiB | 1MiB |" in text
    assert "| copy | 1 | **0.90** (0.80 to 0.90, 15) | 1 (0.80 to 1, 15) |" in text
    assert "| copy | 8 | - | 2 (0.80 to 2, 15) |" in text
    assert "The same in detail:" in text
    assert "| copy, 1KiB: page faults | 21 x |  | 1 |  |  |  |" in text


def test_text_cannot_end_its_cell():
    """Names and notes are anybody's."""
    assert r"| cachebox \| LRU | - |" in page.page_of(made_up(), "performance.md")


def test_a_page_is_written_with_its_report_and_its_pictures(tmp_path):
    """All three say the same; the report that is kept makes the same page again."""
    source = tmp_path / "report.json"
    source.write_bytes(to_json(made_up()))
    (tmp_path / "docs").mkdir()
    target = tmp_path / "docs" / "performance.md"
    paths = page.make(str(target), str(source))
    assert [str(Path(path).relative_to(tmp_path / "docs")) for path in paths] == [
        "performance.md",
        "performance.json",
        "pictures/file-to-file.svg",
    ]
    assert from_json(Path(paths[1]).read_bytes()) == made_up()
    assert target.read_text() == page.page_of(read(paths[1]), "performance.md")


@pytest.mark.parametrize("text", [None, b"", b"[1]", b'{"version": "1"}'])
def test_what_is_no_report_is_refused(tmp_path, text):
    """Before anything is written."""
    source = tmp_path / "report.json"
    if text is not None:
        source.write_bytes(text)
    with pytest.raises(ConfigError, match=r"--from(.|\n)*is no report of the bench"):
        page.make(str(tmp_path / "page.md"), str(source))
    assert not (tmp_path / "page.md").exists()


def test_the_page_that_is_kept_is_the_one_that_its_report_makes():
    """Nobody writes a figure by hand."""
    kept = (DOCS / "performance.md").read_text(encoding="utf-8")
    assert kept == page.page_of(read(str(DOCS / "performance.json")), "performance.md")


def test_the_report_that_is_kept_has_every_figure_that_is_spoken_of():
    """A row that was renamed would silently leave a sentence without its figure."""
    report = read(str(DOCS / "performance.json"))
    rows = {(row.only, row.name) for row in report.rows}
    spoken = {place for saying in (*EXPECT, *EXPECT_NOT) for place in saying.figures}
    assert spoken <= rows
    assert all(saying.text.count("{}") == len(saying.figures) for saying in (*EXPECT, *EXPECT_NOT))


def test_the_pictures_of_the_page_are_there():
    """One for each pair of ends that is drawn."""
    for pair in pictures.lines_of(read(str(DOCS / "performance.json"))):
        assert (DOCS / "pictures" / pictures.file_of(pair)).read_text(encoding="utf-8").startswith("<?xml")
