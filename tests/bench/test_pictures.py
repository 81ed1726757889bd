"""Pictures: the same figures give the same bytes, every line is there, and what is missing is named."""

from __future__ import annotations

import importlib.util
import json
import xml.etree.ElementTree as ET

import pytest

from daramjwee.bench import curve, pictures, runner
from daramjwee.bench.curve import Cell
from daramjwee.bench.report import Report
from daramjwee.bench.samples import Row
from daramjwee.bench.scenarios import matrix
from daramjwee.errors import ConfigError

SVG = "{http://www.w3.org/2000/svg}"


def figures(pair):
    """Made up; each way a little quicker than the one before."""
    return {
        Cell(pair, way, size): [size / 1e9 / (1 + nth)] * 3
        for nth, way in enumerate(pictures.ways_of(pair))
        for size in pictures.SIZES
    }


def texts(svg):
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("pair", pictures.PAIRS)
def test_a_picture_names_every_line_and_every_size(pair):
    """Letters stay letters, so that they can be read, searched and counted."""
    said = texts(pictures.draw(pair, figures(pair)))
    for way in pictures.ways_of(pair):
        assert pictures.STYLES[way].label in said
    assert {"64KiB", "256KiB", "1MiB", "4MiB", "16MiB", "64MiB", "object size", "GB/s, median"} <= set(said)
    assert any(text.startswith(pictures.TITLES[pair]) for text in said)


def test_the_same_figures_give_the_same_bytes_without_a_date(monkeypatch):
    """A picture in the documentation changes when the figures do, and at no other time."""
    import matplotlib as mpl

    once = pictures.draw(curve.FILE_TO_FILE, figures(curve.FILE_TO_FILE))
    monkeypatch.setitem(mpl.rcParams, "font.size", 30)  # whatever this user prefers
    monkeypatch.setitem(mpl.rcParams, "axes.labelcolor", "red")
    assert pictures.draw(curve.FILE_TO_FILE, figures(curve.FILE_TO_FILE)) == once
    assert len(once) < 60 * 1024
    assert b"dc:date" not in once
    assert once != pictures.draw(
        curve.FILE_TO_FILE, {c: [2 * s for s in v] for c, v in figures(curve.FILE_TO_FILE).items()}
    )


def test_a_picture_is_light_whatever_is_behind_it():
    """It paints its own white."""
    root = ET.fromstring(pictures.draw(curve.PLAIN_TO_FILE, figures(curve.PLAIN_TO_FILE)))
    patch = next(group for group in root.iter(f"{SVG}g") if group.get("id") == "patch_1")
    assert "#ffffff" in patch.find(f"{SVG}path").get("style")


def test_only_a_file_can_be_copied_by_the_kernel():
    """An object without descriptor has no such line."""
    assert curve.DIRECT in pictures.ways_of(curve.FILE_TO_SOCKET)
    assert curve.DIRECT not in pictures.ways_of(curve.PLAIN_TO_FILE)
    assert set(pictures.STYLES) == set(pictures.WAYS)


def test_a_run_writes_a_picture_for_each_pair_and_the_figures_behind_them(tmp_path, monkeypatch, capsys):
    """Through the command line, with figures that are made up."""
    monkeypatch.setattr(pictures, "_measured", lambda pair, **_: figures(pair))
    folder = tmp_path / "new" / "folder"
    assert runner.main(["--pictures", str(folder), "--quick"]) == 0
    names = ["file-to-file.svg", "plain-to-file.svg", "file-to-socket.svg", "curve.json"]
    assert capsys.readouterr().out.splitlines() == [str(folder / name) for name in names]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    document = json.loads((folder / "curve.json").read_bytes())
    assert document["unit"] == "GB/s"
    assert len(document["figures"]) == sum(len(figures(pair)) for pair in pictures.PAIRS)
    assert document["figures"][0] == {
        "pair": "file to file", "way": "chosen", "size": 65536, "median": 1.0, "low": 1.0, "high": 1.0, "runs": 3,
    }  # fmt: skip


def test_without_the_charting_library_the_extra_is_named_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    """And nothing is written."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(pictures, "_measured", lambda pair, **_: pytest.fail("measured"))
    with pytest.raises(SystemExit) as ended:
        runner.main(["--pictures", str(tmp_path / "folder")])
    assert ended.value.code == 2
    assert 'pip install "daramjwee[bench]"' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_pictures_into_a_file_and_beside_scenarios_are_refused(tmp_path, capsys):
    """Before anything is measured."""
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        pictures.check(str(file))
    for rest in (["--only", "hit"], ["--strict"], ["--json", "x"]):
        with pytest.raises(SystemExit) as ended:
            runner.main(["--pictures", str(tmp_path / "x"), *rest])
        assert ended.value.code == 2
        assert "goes with --quick only" in capsys.readouterr().err


def test_a_curve_is_measured_as_it_is_drawn(monkeypatch):
    """The real thing, with tiny turns and objects."""
    monkeypatch.setattr(pictures, "SIZES", (64 * 1024, 300_000))
    measured = pictures._measured(curve.FILE_TO_SOCKET, rounds=1, seconds=0.0002)
    assert len(measured) == 2 * len(pictures.WAYS)
    assert {style.label for style in pictures.STYLES.values()} <= set(
        texts(pictures.draw(curve.FILE_TO_SOCKET, measured))
    )


def reported(pair, ways):
    """A report with one row for each way and size."""
    rows = [
        Row(
            scenario="strategies", name=f"{pair}, {size}: {way}", seen=1.0, beside={"us": 10.0 * (1 + nth)},
            labels={"pair": pair, "size": size, "way": way},
        )
        for nth, way in enumerate(ways)
        for size in ("8KiB", "16MiB")
    ]  # fmt: skip
    return Report(version="9.9", quick=True, machine={}, seconds=1.0, rows=tuple(rows))


def test_a_report_is_drawn_with_a_line_for_each_way_that_it_has(tmp_path):
    """Bytes in a microsecond are megabytes in a second; what is no pair of ends of a picture is left out."""
    ways = ["adaptive", "pooled", "write(read())"]
    report = reported("plain to socket", ways)
    assert pictures.lines_of(report)["plain to socket"]["adaptive"] == [(8192, 0.8192), (16777216, 1677.7216)]
    (path,) = pictures.of_report(str(tmp_path / "new"), report)
    assert path == str(tmp_path / "new" / "plain-to-socket.svg")
    with open(path, "rb") as file:
        svg = file.read()
    assert {*ways, "8KiB", "16MiB"} <= set(texts(svg))
    pictures.of_report(str(tmp_path / "again"), report)
    assert (tmp_path / "again" / "plain-to-socket.svg").read_bytes() == svg
    assert pictures.of_report(str(tmp_path / "none"), reported("BytesIO to file", ways)) == []
    assert not (tmp_path / "none").exists()


def test_every_way_of_the_matrix_has_a_line_of_its_own():
    """No two look alike, and none is left out of a picture."""
    assert set(pictures.REPORT_STYLES) == {*matrix.STRATEGIES, *matrix.USERS}
    looks = {(style.colour, style.line, style.mark) for style in pictures.REPORT_STYLES.values()}
    assert len(looks) == len(pictures.REPORT_STYLES)
