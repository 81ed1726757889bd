"""Calibration from measuring to a file that a configuration takes."""

from __future__ import annotations

import json
import tomllib

import pytest

from daramjwee.bench import calibrate, curve
from daramjwee.bench.curve import Cell, chunked
from daramjwee.buffers import BufferPoolConfig
from daramjwee.units import KIB, MIB


@pytest.fixture
def won():
    """A machine on which 512 KiB chunks are a fifth quicker for files."""
    return {
        Cell(pair, way, size): [size / 1e9 / (1.2 if way == chunked(512 * KIB) and pair == curve.FILE_TO_FILE else 1)] * 5
        for pair in calibrate.PAIRS
        for way in calibrate.WAYS
        for size in (MIB, 4 * MIB)
    }  # fmt: skip


def test_the_toml_is_a_configuration_with_its_reasons_in_comments(won):
    """`BufferPoolConfig(**tomllib.load(f)["buffers"])` and nothing else."""
    text = calibrate.to_toml(calibrate.calibration(won, quick=True))
    loaded = tomllib.loads(text)
    assert list(loaded) == ["buffers"]
    assert loaded["buffers"]["default_buffer_size"] == "512KiB"
    config = BufferPoolConfig(**loaded["buffers"])
    assert config == BufferPoolConfig(default_buffer_size="512KiB")
    first, machine, gain, *_ = text.splitlines()
    assert first.startswith("# Measured by daramjwee bench --calibrate --quick, daramjwee ")
    assert "CPython" in machine
    assert gain == "# Gain: default_buffer_size 1.10 x."  # the geometric mean of 1.2 and 1


def test_a_machine_that_is_like_all_others_gets_the_defaults_and_is_told_so():
    """Every setting is written out, so that the file says what it was decided about."""
    same = {
        Cell(p, w, s): [s / 1e9] * 5 for p in calibrate.PAIRS for w in calibrate.WAYS for s in calibrate.QUICK_SIZES
    }
    text = calibrate.to_toml(calibrate.calibration(same, quick=False))
    assert "# Gain: none beyond the noise, these are the defaults." in text.splitlines()
    assert BufferPoolConfig(**tomllib.loads(text)["buffers"]) == BufferPoolConfig()


def test_the_table_has_ways_by_sizes_for_each_pair_of_ends_and_the_choices(won):
    """With the spread of each figure, and why each setting is what it is."""
    lines = calibrate.to_text(calibrate.calibration(won, quick=False)).splitlines()
    head = lines.index(next(line for line in lines if line.startswith("file to file, GB/s")))
    assert lines[head].split()[-2:] == ["1MiB", "4MiB"]
    row = next(line for line in lines[head:] if line.startswith("chunks of 512KiB"))
    assert [cell.strip() for cell in row.split("  ") if cell.strip()][1:] == ["1.20 (1.20..1.20)"] * 2
    assert sum(line.startswith("pooled") for line in lines) == len(calibrate.PAIRS)
    choice = next(line for line in lines if line.startswith("default_buffer_size"))
    assert choice.split()[:5] == ["default_buffer_size", "512KiB", "256KiB", "1.10", "x"]


def test_json_has_the_figures_the_choices_and_the_settings(won):
    """For programs: nothing needs to be read out of the table."""
    document = json.loads(calibrate.to_json(calibrate.calibration(won, quick=False)))
    assert document["settings"]["default_buffer_size"] == "512KiB"
    assert document["choices"][0]["gain"] == pytest.approx(1.2**0.5)
    assert {"pair", "way", "size", "median", "low", "high", "runs"} == set(document["figures"][0])


def test_measuring_covers_every_pair_way_and_size(monkeypatch):
    """End to end, with tiny turns: what is decided from is what was measured."""
    monkeypatch.setattr(calibrate, "QUICK_SIZES", (64 * KIB, 256 * KIB))
    measure = curve.measure
    monkeypatch.setattr(
        curve,
        "measure",
        lambda pairs, ways, sizes, *, rounds, seconds: measure(pairs, ways, sizes, rounds=2, seconds=0.0002),
    )
    told = []
    found = calibrate.calibrate(quick=True, tell=told.append)
    cells = {(row["pair"], row["way"], row["size"]) for row in found.figures}
    assert cells == {(p, w, s) for p in calibrate.PAIRS for w in calibrate.WAYS for s in (64 * KIB, 256 * KIB)}
    assert all(row["median"] > 0 and row["runs"] == 2 for row in found.figures)
    assert len(told) == len(calibrate.PAIRS)
    BufferPoolConfig(**found.settings)


def test_each_way_is_the_strategy_it_is_called_by():
    """The bench would otherwise compare a thing with itself."""
    for way, strategy in (
        (curve.POOLED, "pooled_operations"), (chunked(64 * KIB), "chunked_operations"), (curve.DIRECT, "direct_operations"),
    ):  # fmt: skip
        from daramjwee.buffers import AdaptiveBufferPool

        with curve.Folder() as folder, AdaptiveBufferPool(curve.config_of(way)) as pool:
            path = folder.file_of(bytes(300_000))
            with open(path, "rb") as source, folder.new_file() as target:
                result = pool.copy(source, target)
            assert getattr(pool.stats(), strategy) == 1, way
            assert result.bytes == 300_000
    assert curve.config_of(chunked(64 * KIB)).chunk_size == 64 * KIB
    assert curve.config_of(curve.CHOSEN) == BufferPoolConfig()
    with pytest.raises(ValueError, match="no way to copy"):
        curve.config_of("teleport")


@pytest.mark.parametrize("pair", [*calibrate.PAIRS])
def test_what_a_user_would_write_is_measured_between_all_ends(pair):
    """Also to a socket, whose file would otherwise take only what fits."""
    ways = (curve.COPYFILEOBJ, curve.READ_WRITE)
    found = curve.measure_pair(pair, ways, (300_000,), rounds=1, seconds=0.0002)
    assert [(way, size) for way, size, _ in found] == [(way, 300_000) for way in ways]
    assert all(seconds[0] > 0 for _, _, seconds in found)
