"""Which settings win: made-up measurements in, settings out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.bench import calibrate, curve
from daramjwee.bench.curve import Cell, chunked
from daramjwee.bench.thresholds import FIELDS, Choice, compare, decide, settings
from daramjwee.buffers import BufferPoolConfig
from daramjwee.units import KIB, MIB

DEFAULTS = BufferPoolConfig()
# Rounds of a machine that is slow for a while: every way alike.
ROUNDS = [1.0, 1.01, 3.0, 0.99, 1.0, 1.02, 0.98]


def made_up(*quicker, sizes=calibrate.SIZES, noise=()):
    """Every way as quick as any other, except `quicker`: (pair or None, way, sizes from, times as quick)."""
    measured = {}
    for pair in calibrate.PAIRS:
        for way in calibrate.WAYS:
            for size in sizes:
                gain = 1.0
                for where, which, start, times in quicker:
                    if where in (None, pair) and which == way and size >= start:
                        gain *= times
                wobble = noise if (noise and way != curve.CHOSEN) else [1.0] * len(ROUNDS)
                measured[Cell(pair, way, size)] = [size * r * w / gain for r, w in zip(ROUNDS, wobble, strict=True)]
    return measured


def chosen(measured):
    return {choice.field: choice.value for choice in decide(measured, DEFAULTS) if choice.changed}


FILE, PLAIN, SOCKET = curve.FILE_TO_FILE, curve.PLAIN_TO_FILE, curve.PLAIN_TO_SOCKET
HALF, FULL, SMALL = chunked(512 * KIB), chunked(MIB), chunked(64 * KIB)


@pytest.mark.parametrize(
    ("quicker", "expected"),
    [
        pytest.param([], {}, id="all ways alike: the defaults"),
        pytest.param([(FILE, HALF, MIB, 1.1)], {"default_buffer_size": 512 * KIB}, id="larger chunks win"),
        pytest.param([(None, SMALL, MIB, 1.3)], {"default_buffer_size": 64 * KIB, "chunk_size": 64 * KIB,}, id="small ones win everywhere"),
        pytest.param([(FILE, HALF, MIB, 2.0), (PLAIN, HALF, 4 * MIB, 0.9)], {}, id="what wins here and loses there stays out"),
        pytest.param([(None, HALF, MIB, 1.015)], {}, id="a gain within the margin is none"),
        pytest.param([(FILE, HALF, 16 * MIB, 1.05)], {}, id="a gain in one place is too little in the whole"),
        pytest.param([(FILE, HALF, MIB, 1.1), (FILE, FULL, MIB, 1.105)], {"default_buffer_size": 512 * KIB}, id="a tie goes to the smaller chunk"),
        pytest.param([(FILE, HALF, MIB, 1.1), (FILE, FULL, MIB, 1.3)], {"default_buffer_size": MIB}, id="the best of two winners"),
        pytest.param([(SOCKET, HALF, 4 * MIB, 0.8)], {"chunk_size": 256 * KIB}, id="the exception for sockets loses"),
        pytest.param([(SOCKET, HALF, 4 * MIB, 1.2)], {}, id="the exception for sockets wins: as it is"),
        pytest.param([(FILE, HALF, 64 * KIB, 1.5), (FILE, HALF, MIB, 1 / 1.5)], {}, id="small objects do not choose the chunk"),
        pytest.param(
            [(None, curve.DIRECT, MIB, 1.2)],
            {"large_object_strategy": "direct", "large_object_threshold": MIB, "very_large_object_threshold": 4 * MIB},
            id="a strategy wins from 1 MiB on",
        ),
        pytest.param(
            [(None, curve.POOLED, 64 * KIB, 1.2)],
            {"large_object_strategy": "pooled", "large_object_threshold": 64 * KIB},
            id="a strategy wins below the default threshold, too",
        ),
        pytest.param(
            [(None, curve.POOLED, 256 * KIB, 1.1), (None, curve.DIRECT, 256 * KIB, 1.3)],
            {"large_object_strategy": "direct"},
            id="the better of two strategies, where large begins anyway",
        ),
        pytest.param([(FILE, curve.DIRECT, 64 * KIB, 3.0), (PLAIN, curve.DIRECT, 64 * KIB, 0.9)], {}, id="a strategy must not lose anywhere"),
    ],
)  # fmt: skip
def test_a_setting_changes_only_where_it_wins_beyond_the_noise(quicker, expected):
    """The whole decision as a table."""
    assert chosen(made_up(*quicker)) == expected


def test_a_gain_smaller_than_the_spread_is_noise():
    """The median is 4 % off, but a quarter of the pairs say the opposite."""
    noise = [0.96, 1.3, 0.9, 1.2, 0.96, 0.7, 0.96]
    assert chosen(made_up(noise=noise)) == {}
    assert chosen(made_up(noise=[0.96] * 7)) != {}


def test_a_slow_while_of_the_machine_does_not_count():
    """Pairs of one round are compared: a round that was three times as slow was so for both."""
    seen = compare(made_up((FILE, HALF, MIB, 1.1)), [(FILE, MIB), (FILE, 4 * MIB)], chunked(256 * KIB), HALF)
    assert seen.gain == pytest.approx(1.1)
    assert (seen.wins, seen.losses, seen.better) == (2, 0, True)


def test_what_was_not_measured_decides_nothing():
    """A shorter run leaves more defaults, and raises nothing."""
    assert chosen({}) == {}
    assert chosen(made_up((None, curve.DIRECT, MIB, 1.2), sizes=(64 * KIB,))) == {}
    assert compare({}, [(FILE, MIB)], "a", "b").better is False


def test_every_field_has_a_choice_with_a_reason():
    """In a fixed order, for the table."""
    choices = decide(made_up(), DEFAULTS)
    assert tuple(choice.field for choice in choices) == FIELDS
    assert all(choice.reason and choice.gain == 1 for choice in choices)


def test_sizes_are_written_as_people_write_them_and_what_is_left_to_the_pool_is_left_out():
    """The keys are fields; None has no word in TOML."""
    kept = settings(
        [Choice("a", 256 * KIB, 1, 1.0, ""), Choice("b", None, None, 1.0, ""), Choice("c", "direct", "x", 1.0, "")]
    )
    assert kept == {"a": "256KiB", "c": "direct"}


gains = st.tuples(
    st.sampled_from([None, *calibrate.PAIRS]), st.sampled_from(calibrate.WAYS), st.sampled_from(calibrate.SIZES),
    st.floats(0.3, 3),
)  # fmt: skip


@given(st.lists(gains, max_size=6))
def test_whatever_was_measured_the_settings_are_a_configuration(quicker):
    """The rules between fields hold for every choice, and a changed one has a gain or a rule behind it."""
    choices = decide(made_up(*quicker), DEFAULTS)
    config = BufferPoolConfig(**settings(choices))
    assert config.large_object_threshold < config.very_large_object_threshold
    for choice in choices:
        assert not choice.changed or choice.gain > 1 or choice.field.endswith("threshold")
