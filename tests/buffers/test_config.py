"""BufferPoolConfig: every field and default, and one check of the whole."""

from __future__ import annotations

from datetime import timedelta

import pytest

from daramjwee.buffers import BufferPoolConfig, LeakDetection, SizeClass, Strategy, size_class
from daramjwee.errors import ConfigError

KIB, MIB = 1024, 1024 * 1024


def test_defaults_are_the_documented_ones():
    """What the documentation promises when nothing is given."""
    config = BufferPoolConfig()
    assert {name: getattr(config, name) for name in config.__struct_fields__} == {
        "enabled": True,
        "default_buffer_size": 256 * KIB,
        "min_buffer_size": 4 * KIB,
        "max_buffer_size": MIB,
        "large_object_threshold": 256 * KIB,
        "very_large_object_threshold": MIB,
        "large_object_strategy": Strategy.ADAPTIVE,
        "chunk_size": None,
        "max_concurrent_large_ops": 16,
        "max_queued_large_ops": 1024,
        "acquire_timeout": 30.0,
        "max_idle_age": 60.0,
        "max_pool_bytes": 64 * MIB,
        "metrics_interval": 10.0,
        "leak_detection": "sampled",
        "enable_detailed_metrics": False,
    }


def test_sizes_durations_and_choices_may_be_text():
    """Values in the units people write are kept as bytes, seconds and members."""
    config = BufferPoolConfig(
        max_buffer_size="2MiB",
        chunk_size="512 KiB",
        acquire_timeout="1m",
        max_idle_age=timedelta(seconds=5),
        large_object_strategy="chunked",
        leak_detection="FULL",
    )
    assert (config.max_buffer_size, config.chunk_size) == (2 * MIB, 512 * KIB)
    assert (config.acquire_timeout, config.max_idle_age) == (60.0, 5.0)
    assert config.large_object_strategy is Strategy.CHUNKED and config.leak_detection is LeakDetection.FULL


def test_every_problem_is_reported_at_once_with_the_value_as_given():
    """One error names each faulty field, its value in the unit given, and what to do."""
    with pytest.raises(ConfigError) as caught:
        BufferPoolConfig(
            enabled=1,
            min_buffer_size="256KiB",
            max_buffer_size="64KiB",
            max_concurrent_large_ops=0,
            acquire_timeout="soon",
            leak_detection="maybe",
            metrics_interval=0,
        )
    assert {problem.field for problem in caught.value.problems} == {
        "enabled", "min_buffer_size", "max_concurrent_large_ops", "acquire_timeout", "leak_detection",
        "metrics_interval",
    }  # fmt: skip
    message = str(caught.value)
    assert "BufferPoolConfig has 6 problems" in message
    assert "min_buffer_size = 256KiB: must not exceed max_buffer_size (64KiB); lower it or raise the other" in message
    assert "max_concurrent_large_ops = 0: must be at least 1; to switch the pool off set enabled = False" in message
    assert "acquire_timeout = 'soon'" in message and '"30s"' in message


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("default_buffer_size", {"default_buffer_size": "2MiB"}),
        ("default_buffer_size", {"default_buffer_size": 1024}),
        ("chunk_size", {"chunk_size": "2MiB"}),
        ("chunk_size", {"chunk_size": 1}),
        ("large_object_threshold", {"large_object_threshold": "1MiB"}),
        ("max_pool_bytes", {"max_pool_bytes": "512KiB"}),
        ("min_buffer_size", {"min_buffer_size": 0}),
        ("max_buffer_size", {"max_buffer_size": -1}),
        ("max_buffer_size", {"max_buffer_size": "1 parsec"}),
        ("max_pool_bytes", {"max_pool_bytes": 1 << 60}),
        ("max_queued_large_ops", {"max_queued_large_ops": 1.5}),
        ("max_concurrent_large_ops", {"max_concurrent_large_ops": True}),
        ("acquire_timeout", {"acquire_timeout": float("inf")}),
        ("max_idle_age", {"max_idle_age": None}),
        ("large_object_strategy", {"large_object_strategy": "fast"}),
        ("large_object_strategy", {"large_object_strategy": 3}),
        ("enable_detailed_metrics", {"enable_detailed_metrics": "yes"}),
    ],
)
def test_a_value_that_cannot_be_is_refused(field, settings):
    """Each rule, alone, is one problem that names its field."""
    with pytest.raises(ConfigError) as caught:
        BufferPoolConfig(**settings)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert caught.value.problems[0].value == settings[field]
    assert caught.value.problems[0].mend


def test_replace_checks_the_whole_again():
    """A change that contradicts what stays is refused; a sound one leaves the original as it was."""
    config = BufferPoolConfig()
    assert config.replace(max_buffer_size="4MiB").max_buffer_size == 4 * MIB
    assert config.max_buffer_size == MIB
    with pytest.raises(ConfigError, match="max_pool_bytes"):
        config.replace(max_buffer_size="128MiB")
    with pytest.raises(ConfigError, match="is no field; the fields are enabled"):
        config.replace(buffer_size=3)


def test_a_config_is_immutable_and_hashable():
    """Two that say the same are equal."""
    config = BufferPoolConfig()
    with pytest.raises(AttributeError):
        config.enabled = False
    assert config == BufferPoolConfig(max_pool_bytes="64MiB") and hash(config) == hash(BufferPoolConfig())


def test_what_is_shown_is_what_is_no_default():
    """However it was given: equal configurations look alike."""
    spelled = BufferPoolConfig(min_buffer_size="4KiB", acquire_timeout="30s", leak_detection="sampled", chunk_size=None)
    assert repr(spelled) == repr(BufferPoolConfig()) == "BufferPoolConfig()"
    assert repr(BufferPoolConfig(max_idle_age="60s", chunk_size="64KiB")) == "BufferPoolConfig(chunk_size=65536)"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, SizeClass.SMALL), (32 * KIB - 1, SizeClass.SMALL), (32 * KIB, SizeClass.MEDIUM),
        (256 * KIB - 1, SizeClass.MEDIUM), (256 * KIB, SizeClass.LARGE), (MIB - 1, SizeClass.LARGE),
        (MIB, SizeClass.VERY_LARGE), (100 << 30, SizeClass.VERY_LARGE),
    ],
)  # fmt: skip
def test_size_classes_begin_at_their_thresholds(size, expected):
    """small < 32 KiB <= medium < 256 KiB <= large < 1 MiB <= very large."""
    assert size_class(size, BufferPoolConfig()) is expected


def test_size_classes_follow_the_configured_thresholds():
    """The last two bounds are settings."""
    config = BufferPoolConfig(large_object_threshold="2MiB", very_large_object_threshold="8MiB")
    assert size_class(MIB, config) is SizeClass.MEDIUM
    assert size_class(2 * MIB, config) is SizeClass.LARGE
    assert size_class(8 * MIB, config) is SizeClass.VERY_LARGE
