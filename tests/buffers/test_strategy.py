"""select_strategy: every decision, case by case, and what holds for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daramjwee.buffers import BufferPoolConfig, PressureLevel, SizeClass, Strategy, select_strategy, size_class
from daramjwee.buffers.strategy import (
    FILE,
    KERNEL_FROM,
    LOCAL,
    MEMORY,
    PIPE,
    PLAIN,
    READINTO,
    SOCKET,
    Endpoint,
    kernel_serves,
)
from daramjwee.errors import ConfigError

KIB, MIB = 1024, 1024 * 1024
CONFIG = BufferPoolConfig()
NORMAL, ELEVATED, HIGH, CRITICAL = PressureLevel


def small(**settings) -> BufferPoolConfig:
    return CONFIG.replace(**settings)


# (size, configuration, other arguments) -> (strategy, chunk, part of the reason, fallback)
TABLE = [
    # Size against one chunk: the bounds and their neighbours.
    (None, CONFIG, {}, ("chunked", 256 * KIB, "unknown size", False)),
    (0, CONFIG, {}, ("pooled", 4 * KIB, "fits", False)),
    (1, CONFIG, {}, ("pooled", 4 * KIB, "fits", False)),
    (4 * KIB, CONFIG, {}, ("pooled", 4 * KIB, "fits", False)),
    (4 * KIB + 1, CONFIG, {}, ("pooled", 4 * KIB + 1, "fits", False)),
    (256 * KIB, CONFIG, {}, ("pooled", 256 * KIB, "fits", False)),
    (256 * KIB + 1, CONFIG, {}, ("chunked", 256 * KIB, "larger", False)),
    (64 * MIB, CONFIG, {}, ("chunked", 256 * KIB, "larger", False)),
    # Sockets: larger chunks for large objects.
    (4 * MIB - 1, CONFIG, {"src": SOCKET}, ("chunked", 256 * KIB, "larger", False)),
    (4 * MIB, CONFIG, {"src": SOCKET}, ("chunked", 512 * KIB, "larger", False)),
    (4 * MIB, CONFIG, {"dst": SOCKET}, ("chunked", 512 * KIB, "larger", False)),
    (None, CONFIG, {"dst": SOCKET}, ("chunked", 256 * KIB, "unknown", False)),
    (4 * MIB, small(max_buffer_size="300KiB"), {"dst": SOCKET}, ("chunked", 300 * KIB, "larger", False)),
    (4 * MIB, small(default_buffer_size=MIB), {"dst": SOCKET}, ("chunked", MIB, "larger", False)),
    # The kernel, where it pays.
    (8 * MIB, CONFIG, {"src": FILE, "dst": SOCKET}, ("direct", 512 * KIB, "sendfile", False)),
    (8 * MIB, CONFIG, {"src": FILE, "dst": LOCAL}, ("chunked", 128 * KIB, "larger", False)),
    (4 * MIB - 1, CONFIG, {"src": FILE, "dst": LOCAL}, ("direct", 128 * KIB, "sendfile", False)),
    (8 * MIB, CONFIG, {"dst": LOCAL}, ("chunked", 128 * KIB, "larger", False)),
    (8 * MIB, CONFIG, {"src": LOCAL}, ("chunked", 256 * KIB, "larger", False)),
    (None, CONFIG, {"src": FILE, "dst": LOCAL}, ("chunked", 128 * KIB, "unknown", False)),
    (None, CONFIG, {"src": PIPE, "dst": LOCAL}, ("direct", 128 * KIB, "splice", False)),
    (8 * MIB, small(min_buffer_size="192KiB"), {"dst": LOCAL}, ("chunked", 192 * KIB, "larger", False)),
    (8 * MIB, small(default_buffer_size="64KiB"), {"dst": LOCAL}, ("chunked", 64 * KIB, "larger", False)),
    (8 * MIB, small(chunk_size="256KiB"), {"src": FILE, "dst": LOCAL}, ("chunked", 256 * KIB, "larger", False)),
    (
        8 * MIB,
        small(large_object_strategy="direct"),
        {"src": FILE, "dst": LOCAL},
        ("direct", 128 * KIB, "configured", False),
    ),
    (KERNEL_FROM, CONFIG, {"src": FILE, "dst": SOCKET}, ("direct", 256 * KIB, "sendfile", False)),
    (KERNEL_FROM - 1, CONFIG, {"src": FILE, "dst": SOCKET}, ("pooled", KERNEL_FROM - 1, "fits", False)),
    (None, CONFIG, {"src": FILE, "dst": SOCKET}, ("direct", 256 * KIB, "sendfile", False)),
    (None, CONFIG, {"src": PIPE, "dst": SOCKET}, ("direct", 256 * KIB, "splice", False)),
    (None, CONFIG, {"src": PIPE, "dst": PIPE}, ("direct", 256 * KIB, "splice", False)),
    (None, CONFIG, {"src": PIPE, "dst": FILE}, ("chunked", 256 * KIB, "unknown", False)),
    (MIB, CONFIG, {"src": FILE, "dst": PIPE}, ("chunked", 256 * KIB, "larger", False)),
    (MIB, CONFIG, {"src": SOCKET, "dst": PIPE}, ("chunked", 256 * KIB, "larger", False)),
    (MIB, CONFIG, {"src": FILE, "dst": FILE}, ("chunked", 256 * KIB, "larger", False)),
    (MIB, CONFIG, {"src": FILE, "dst": FILE, "clones": True}, ("direct", 256 * KIB, "shares", False)),
    (MIB, CONFIG, {"src": FILE, "dst": PLAIN, "clones": True}, ("chunked", 256 * KIB, "larger", False)),
    (KERNEL_FROM - 1, CONFIG, {"src": FILE, "dst": FILE, "clones": True}, ("pooled", KERNEL_FROM - 1, "fits", False)),
    (10, CONFIG, {"src": MEMORY}, ("direct", 256 * KIB, "shares its own memory", False)),
    # Memory pressure.
    (MIB, CONFIG, {"pressure": ELEVATED}, ("chunked", 256 * KIB, "larger", False)),
    (8 * MIB, CONFIG, {"pressure": ELEVATED, "src": SOCKET}, ("chunked", 256 * KIB, "larger", False)),
    (MIB, CONFIG, {"pressure": HIGH}, ("chunked", 128 * KIB, "larger", False)),
    (MIB, CONFIG, {"pressure": CRITICAL}, ("chunked", 64 * KIB, "larger", False)),
    (100 * KIB, CONFIG, {"pressure": CRITICAL}, ("chunked", 64 * KIB, "larger", False)),
    (MIB, small(min_buffer_size="96KiB"), {"pressure": CRITICAL}, ("chunked", 96 * KIB, "larger", False)),
    (MIB, small(chunk_size="256KiB"), {"pressure": CRITICAL}, ("chunked", 256 * KIB, "larger", False)),
    (MIB, CONFIG, {"pressure": ELEVATED, "src": FILE, "dst": FILE}, ("chunked", 256 * KIB, "larger", False)),
    (MIB, CONFIG, {"pressure": HIGH, "src": FILE, "dst": FILE}, ("direct", 128 * KIB, "memory is short", False)),
    (MIB, CONFIG, {"pressure": HIGH, "src": PIPE, "dst": FILE}, ("direct", 128 * KIB, "memory is short", False)),
    (MIB, CONFIG, {"pressure": HIGH, "src": SOCKET, "dst": PIPE}, ("direct", 128 * KIB, "memory is short", False)),
    (MIB, CONFIG, {"pressure": HIGH, "src": FILE, "dst": PLAIN}, ("chunked", 128 * KIB, "larger", False)),
    # What is configured is obeyed, from the threshold up.
    (256 * KIB - 1, small(large_object_strategy="direct"), {}, ("pooled", 256 * KIB - 1, "fits", False)),
    (256 * KIB, small(large_object_strategy="direct"), {}, ("direct", 256 * KIB, "configured", False)),
    (None, small(large_object_strategy="direct"), {}, ("direct", 256 * KIB, "configured", False)),
    (MIB, small(large_object_strategy="chunked"), {"src": MEMORY}, ("chunked", 256 * KIB, "configured", False)),
    (
        MIB,
        small(large_object_strategy="chunked"),
        {"src": FILE, "dst": SOCKET},
        ("chunked", 256 * KIB, "configured", False),
    ),
    (256 * KIB, small(large_object_strategy="chunked"), {}, ("chunked", 256 * KIB, "configured", False)),
    (8 * MIB, small(large_object_strategy="pooled"), {}, ("pooled", 8 * MIB, "configured", False)),
    (64 * MIB, small(large_object_strategy="pooled"), {}, ("pooled", 64 * MIB, "configured", False)),
    (64 * MIB + 1, small(large_object_strategy="pooled"), {}, ("chunked", 256 * KIB, "larger than the pool", True)),
    (8 * MIB, small(large_object_strategy="pooled"), {"most": MIB}, ("chunked", 256 * KIB, "larger than the", True)),
    (None, small(large_object_strategy="pooled"), {}, ("chunked", 256 * KIB, "size is unknown", True)),
    (MIB, small(chunk_size="64KiB"), {"src": SOCKET}, ("chunked", 64 * KIB, "larger", False)),
    (8 * MIB, small(chunk_size="64KiB"), {"src": SOCKET}, ("chunked", 64 * KIB, "larger", False)),
    # A ledger smaller than a chunk: less than was chosen is no fallback, less than was given is one.
    (MIB, CONFIG, {"most": 100 * KIB}, ("chunked", 100 * KIB, "larger", False)),
    (MIB, small(chunk_size="256KiB"), {"most": 100 * KIB}, ("chunked", 100 * KIB, "configured chunk is larger", True)),
    (None, small(chunk_size="256KiB"), {"most": 100 * KIB}, ("chunked", 100 * KIB, "configured chunk", True)),
    (10, small(chunk_size="256KiB"), {"most": 100 * KIB}, ("pooled", 4 * KIB, "fits", False)),
    (
        MIB,
        small(chunk_size="256KiB", large_object_strategy="direct"),
        {"most": 100 * KIB},
        ("direct", 100 * KIB, "configured chunk is larger", True),
    ),
    # Disabled: nothing is pooled.
    (10, small(enabled=False), {}, ("direct", 256 * KIB, "disabled", False)),
    (MIB, small(enabled=False, large_object_strategy="pooled"), {}, ("direct", 256 * KIB, "disabled", False)),
]


@pytest.mark.parametrize(("size", "config", "others", "wanted"), TABLE)
def test_a_decision_follows_size_ends_pressure_and_configuration(size, config, others, wanted):
    """Strategy, chunk size, reason and fallback."""
    decision = select_strategy(size, config, **others)
    assert (decision.strategy.value, decision.chunk_size, decision.fallback) == (wanted[0], wanted[1], wanted[3])
    assert wanted[2] in decision.reason


sizes = st.none() | st.integers(0, 80 * MIB) | st.sampled_from([KERNEL_FROM, 256 * KIB, MIB, 4 * MIB, 64 * MIB])
configs = st.builds(
    small,
    large_object_strategy=st.sampled_from(Strategy),
    chunk_size=st.none() | st.sampled_from([4 * KIB, 64 * KIB, 300 * KIB, MIB]),
    large_object_threshold=st.sampled_from([1, 64 * KIB, 256 * KIB]),
    max_pool_bytes=st.sampled_from([MIB, 64 * MIB]),
    enabled=st.booleans(),
)


@settings(max_examples=600, deadline=None)
@given(
    size=sizes,
    config=configs,
    src=st.sampled_from(Endpoint),
    dst=st.sampled_from(Endpoint),
    pressure=st.sampled_from(PressureLevel),
    clones=st.booleans(),
    most=st.none() | st.integers(4 * KIB, 128 * MIB),
)
def test_every_decision_can_be_carried_out_and_obeys(size, config, src, dst, pressure, clones, most):
    """A chunk within the bounds; what is given is obeyed, or the decision says that and why it is not."""
    decision = select_strategy(size, config, src=src, dst=dst, pressure=pressure, clones=clones, most=most)
    strategy, chunk, reason, fallback = decision
    bound = config.max_pool_bytes if most is None else most
    assert strategy is not Strategy.ADAPTIVE and reason
    assert 0 < chunk <= bound, "more than may ever be leased"
    large = size is None or size >= config.large_object_threshold
    wanted = config.large_object_strategy
    if not config.enabled:
        assert strategy is Strategy.DIRECT
    elif wanted is not Strategy.ADAPTIVE and large:
        assert strategy is wanted or fallback
    if strategy is Strategy.POOLED:
        assert size is not None and size <= chunk and not fallback
    else:
        assert chunk <= max(config.max_buffer_size, config.default_buffer_size)
        if config.chunk_size is not None and chunk != config.chunk_size:
            assert chunk == bound and (fallback or src is MEMORY or kernel_serves(src, dst)), "given, and not obeyed"
        if config.chunk_size is None and pressure is CRITICAL:
            assert chunk <= 64 * KIB
    if strategy is Strategy.DIRECT and config.enabled and not (wanted is Strategy.DIRECT and large):
        assert src is MEMORY or kernel_serves(src, dst), "nothing could serve it directly"
    assert decision == select_strategy(size, config, src=src, dst=dst, pressure=pressure, clones=clones, most=most)


def test_more_pressure_never_means_more_memory():
    """Level by level, for each pair of ends."""
    for src in Endpoint:
        for dst in Endpoint:
            chunks = [select_strategy(MIB * 8, CONFIG, src=src, dst=dst, pressure=p).chunk_size for p in PressureLevel]
            assert chunks == sorted(chunks, reverse=True)


def test_size_classes_have_the_bounds_that_are_configured():
    """Small, medium, large, very large."""
    bounds = {0: "SMALL", 32 * KIB - 1: "SMALL", 32 * KIB: "MEDIUM", 256 * KIB: "LARGE", MIB: "VERY_LARGE"}
    for size, name in bounds.items():
        assert size_class(size, CONFIG) is SizeClass[name]
    assert size_class(MIB, small(very_large_object_threshold="2MiB")) is SizeClass.LARGE
    assert READINTO.value == "readinto"


def test_ends_and_a_level_may_be_given_by_value():
    """Text that is equal to a member means it."""
    for src in Endpoint:
        for dst in Endpoint:
            expected = select_strategy(8 * MIB, CONFIG, src=src, dst=dst, pressure=PressureLevel.HIGH)
            assert select_strategy(8 * MIB, CONFIG, src=str(src), dst=dst, pressure=PressureLevel.HIGH) == expected
            assert select_strategy(8 * MIB, CONFIG, src=src, dst=str(dst), pressure=2) == expected


WRONG = {
    "size": [-1, True, 1.5, 1e9, "1MiB"],
    "config": [None, 3, "pool"],
    "src": ["File", 3, None],
    "dst": ["File", 3, None],
    "pressure": [7, -1, "HIGH", None],
    "most": [-1, 0, "1MiB"],
}


@pytest.mark.parametrize("size", [None, 1, 8 * MIB])
@pytest.mark.parametrize("settings", [{}, {"chunk_size": MIB}, {"enabled": False}, {"large_object_strategy": "pooled"}])
@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_argument_is_refused_whatever_else_is_given(field, size, settings):
    """Not taken for another one, and no error of the code's own."""
    for wrong in WRONG[field]:
        for ends in ({}, {"src": Endpoint.MEMORY}, {"src": Endpoint.FILE, "dst": Endpoint.SOCKET}):
            given = {"size": size, "config": BufferPoolConfig(**settings), **ends, field: wrong}
            with pytest.raises(ConfigError) as caught:
                select_strategy(**given)
            assert [(problem.field, problem.value) for problem in caught.value.problems] == [(field, wrong)]


def test_all_that_is_wrong_with_a_decision_is_told_at_once():
    """Each with its value, and what to give instead."""
    with pytest.raises(ConfigError, match="select_strategy has 6 problems") as caught:
        select_strategy(-1, 3, src="File", dst="x", pressure=7, most=0)
    assert {problem.field for problem in caught.value.problems} == set(WRONG)
    assert 'src = \'File\': must be an Endpoint, or its value: "file", "socket"' in str(caught.value)


def test_a_class_of_what_has_no_size_is_refused():
    with pytest.raises(ConfigError) as caught:
        size_class(-1, None)
    assert [problem.field for problem in caught.value.problems] == ["size", "config"]
    for wrong in ("1MiB", True, 1.5, None):
        with pytest.raises(ConfigError, match="size = "):
            size_class(wrong, CONFIG)
