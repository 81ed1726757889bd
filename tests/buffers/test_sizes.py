"""Sizes of chunks: the histogram, and the pure step that fits the sizes to what was asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.buffers import BufferPoolConfig
from daramjwee.buffers.sizes import (
    MOST_LEARNED,
    MOST_SIZES,
    PAGE_BYTES,
    SizeHistogram,
    arena_plans,
    class_sizes,
    recalibrate,
)

KIB, MIB = 1024, 1024 * 1024
CONFIG = BufferPoolConfig()
CONFIGURED = class_sizes(CONFIG)

pages = st.integers(1, 300).map(lambda count: count * PAGE_BYTES)
histograms = st.dictionaries(pages, st.floats(0, 5000), max_size=40)
configs = st.sampled_from(
    [
        CONFIG,
        BufferPoolConfig(min_buffer_size="64KiB", default_buffer_size="128KiB"),
        BufferPoolConfig(max_buffer_size="256KiB"),
        BufferPoolConfig(min_buffer_size=1, chunk_size=100_000),
        BufferPoolConfig(min_buffer_size="256KiB", max_buffer_size="256KiB"),
    ]
)


def waste(weights, sizes):
    """Bytes handed out beyond what was asked for."""
    total = 0.0
    for size, weight in weights.items():
        fits = [s for s in sizes if s >= size]
        total += weight * (fits[0] - size) if fits else 0.0
    return total


def test_classes_cover_the_configured_bounds_in_whole_pages():
    """Every configured size has a class, and the first arena of a class is small."""
    assert class_sizes(CONFIG) == (4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 512 * KIB, MIB)
    odd = BufferPoolConfig(min_buffer_size=1, max_buffer_size="3MiB", chunk_size=100_000)
    assert class_sizes(odd) == (4 * KIB, 16 * KIB, 64 * KIB, 102_400, 256 * KIB, 512 * KIB, MIB, 3 * MIB)
    assert arena_plans(256 * KIB, 0) == (256 * KIB,)
    assert arena_plans(256 * KIB, 1) == (2 * MIB, 256 * KIB)
    assert arena_plans(4 * KIB, 9) == (256 * KIB, 4 * KIB)
    assert arena_plans(MIB, 1) == (2 * MIB, MIB)
    assert arena_plans(3 * MIB, 5) == (3 * MIB,)


def test_a_popular_size_that_wastes_much_of_its_chunk_becomes_one():
    """300 KiB leased from 512 KiB wastes two fifths."""
    assert recalibrate({300 * KIB: 200.0}, CONFIGURED, CONFIG) == tuple(sorted({*CONFIGURED, 300 * KIB}))


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {300 * KIB: 100.0},  # too few to conclude from
        {500 * KIB: 1000.0},  # wastes little
        {300 * KIB: 20.0, 256 * KIB: 4000.0},  # a small part of all
        {256 * KIB: 5000.0, MIB: 5000.0},  # fits exactly
        {2 * MIB: 5000.0},  # not pooled
        {20 * KIB: 10.0},
    ],
)
def test_nothing_is_learned_without_a_good_reason(weights):
    """A class more keeps memory idle."""
    assert recalibrate(weights, CONFIGURED, CONFIG) == CONFIGURED


def test_a_learned_size_outlives_a_change_that_would_not_have_learned_it():
    """Hysteresis: kept until it saves less than a quarter of what it took to learn it."""
    learned = recalibrate({300 * KIB: 200.0}, CONFIGURED, CONFIG)
    fewer = {300 * KIB: 20.0, 256 * KIB: 500.0}
    assert recalibrate(fewer, CONFIGURED, CONFIG) == CONFIGURED
    assert recalibrate(fewer, learned, CONFIG) == learned
    assert recalibrate({300 * KIB: 5.0, 256 * KIB: 5000.0}, learned, CONFIG) == CONFIGURED


def test_what_nobody_uses_any_more_is_dropped():
    """Also when nobody uses anything."""
    learned = recalibrate({300 * KIB: 200.0}, CONFIGURED, CONFIG)
    assert recalibrate({}, learned, CONFIG) == CONFIGURED
    histogram = SizeHistogram()
    histogram.add(300 * KIB, 200)
    for _ in range(10):
        assert recalibrate(histogram.weights, learned, CONFIG) == (learned if histogram.weights else CONFIGURED)
        histogram.decay()
    assert not histogram.weights


def test_a_better_size_takes_the_place_of_the_least_when_there_are_many():
    """The number of learned sizes is bounded, not who came first."""
    weights = {size * KIB: 60_000.0 / size for size in (20, 32, 80, 130, 300, 600)}
    sizes = recalibrate(weights, CONFIGURED, CONFIG)
    assert len(sizes) == len(CONFIGURED) + MOST_LEARNED
    weights[700 * KIB] = 5_000.0
    assert 700 * KIB in recalibrate(weights, sizes, CONFIG)


@given(histograms, st.lists(st.integers(-5, 2 * MIB), max_size=12), configs)
def test_whatever_was_asked_for_the_sizes_are_lawful(weights, sizes, config):
    """Ascending whole pages within the bounds, the configured ones among them, few; and nothing gets worse."""
    configured = class_sizes(config)
    after = recalibrate(weights, tuple(sizes), config)
    assert list(after) == sorted(set(after)) and set(configured) <= set(after)
    assert all(size % PAGE_BYTES == 0 and configured[0] <= size <= configured[-1] for size in after)
    assert len(after) <= len(configured) + MOST_LEARNED
    assert waste(weights, after) <= waste(weights, configured)


@given(histograms, configs)
def test_the_same_requests_change_nothing_the_second_time(weights, config):
    """It does not flap."""
    once = recalibrate(weights, class_sizes(config), config)
    assert recalibrate(weights, once, config) == once
    doubled = {size: weight * 2 for size, weight in weights.items()}
    if sum(weights.values()) >= 128:
        assert set(once) <= set(recalibrate(doubled, once, config)) or len(once) > len(class_sizes(config))


@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(1, 64)), max_size=400))
def test_a_histogram_stays_small_and_its_sizes_fit(samples):
    """Sizes are rounded up by less than a page or 1/63, and the least popular are forgotten."""
    histogram = SizeHistogram()
    for size, weight in samples:
        histogram.add(size, weight)
        rounded = [s for s in histogram.weights if s >= size]
        assert min(rounded) <= max(PAGE_BYTES, size + max(PAGE_BYTES, size // 63))
        assert min(rounded) % PAGE_BYTES == 0
    assert sum(histogram.weights.values()) == sum(weight for _, weight in samples)
    histogram.decay()
    assert len(histogram.weights) <= MOST_SIZES
    assert all(weight >= 1.0 for weight in histogram.weights.values())
