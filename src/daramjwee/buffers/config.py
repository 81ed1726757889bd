"""The settings of a buffer pool: every field, its default, and one check of the whole.

Invariant: a `BufferPoolConfig` that exists is consistent; sizes in it are bytes (int), durations seconds (float).
Threads: any; it is immutable.
Design: docs/design/memory.md
"""

from __future__ import annotations

import enum
import operator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from daramjwee.buffers.strategy import Strategy
from daramjwee.errors import ConfigError, Problem
from daramjwee.units import KIB, MIB, format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daramjwee.units import Duration, Size

_Choice = TypeVar("_Choice", bound=enum.Enum)

# More than any machine holds: a larger value is a slip of the unit, and would overflow in the system's calls.
LARGEST_SIZE = 1 << 50
LARGEST_DURATION = 366 * 86400.0
LARGEST_COUNT = 1 << 20


class LeakDetection(enum.StrEnum):
    """How much is recorded about who leased a buffer, for the warning when it is lost.

    OFF: nothing. SAMPLED: the first lease of each buffer and every 64th after. FULL: every lease, with its stack (up
    to 8 frames); memory is also filled with 0xDB when it comes back, so that whoever reads it without having written it is
    found out.
    """

    OFF = "off"
    SAMPLED = "sampled"
    FULL = "full"


_OR_CHOOSE = "or leave it out (None) to have it chosen"
# (field, what must hold, other field, the same in words, mend). The first rule comes first: where it is broken,
# the others about the same fields would only repeat it.
RULES: tuple[tuple[str, Callable[[int, int], bool], str, str, str], ...] = (
    ("min_buffer_size", operator.le, "max_buffer_size", "not exceed", "lower it or raise the other"),
    ("default_buffer_size", operator.ge, "min_buffer_size", "not be below", "raise it or lower the other"),
    ("default_buffer_size", operator.le, "max_buffer_size", "not exceed", "lower it or raise the other"),
    ("chunk_size", operator.ge, "min_buffer_size", "not be below", f"raise it, {_OR_CHOOSE}"),
    ("chunk_size", operator.le, "max_buffer_size", "not exceed", f"lower it, {_OR_CHOOSE}"),
    ("large_object_threshold", operator.lt, "very_large_object_threshold", "be below", "lower it or raise the other"),
    ("max_pool_bytes", operator.ge, "max_buffer_size", "not be below", "raise it or lower the other"),
)


class BufferPoolConfig(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """How a buffer pool behaves. Sizes may be given as "64KiB", durations as "30s" or a timedelta.

    `enabled`: False serves every request from private memory, given back at once, and gates nothing.
    `default_buffer_size`: a chunk for objects of unknown size. `min_buffer_size`, `max_buffer_size`: bounds of what is
    pooled; above them memory is mapped for one lease only. `large_object_threshold`: from here on an object is large: a
    configured strategy is obeyed, and operations pass the gate. `very_large_object_threshold`: from here on it counts as
    very large. `large_object_strategy`: how large objects are copied. `chunk_size`: None chooses (the default size;
    512 KiB for sockets from 4 MiB objects up; less under pressure); given, it is obeyed.
    `max_concurrent_large_ops`: large operations of an `AdaptiveBufferPool` that run at once; up to `max_queued_large_ops`
    more wait in line. `acquire_timeout`: how long a request waits, for its place and for memory.
    `max_pool_bytes`: arenas kept by this pool. `max_idle_age`: after that, memory nobody uses goes back to the system.
    `metrics_interval`: how often a pool in use looks at its figures, for trends and alerts. `enable_detailed_metrics`: keep
    latencies as histograms, and measure pauses of Python's collector. `leak_detection`: see `LeakDetection`. What each
    trades for what: docs/design/strategy.md.

    `ConfigError` lists every problem found, each with its field, the value as given, and what to do.
    """

    enabled: bool = True
    default_buffer_size: int = 256 * KIB
    min_buffer_size: int = 4 * KIB
    max_buffer_size: int = MIB
    large_object_threshold: int = 256 * KIB
    very_large_object_threshold: int = MIB
    large_object_strategy: Strategy = Strategy.ADAPTIVE
    chunk_size: int | None = None
    max_concurrent_large_ops: int = 16
    max_queued_large_ops: int = 1024
    acquire_timeout: float = 30.0
    max_idle_age: float = 60.0
    max_pool_bytes: int = 64 * MIB
    metrics_interval: float = 10.0
    leak_detection: LeakDetection = LeakDetection.SAMPLED
    enable_detailed_metrics: bool = False

    if TYPE_CHECKING:
        # What may be given is wider than what is kept.
        def __init__(
            self,
            *,
            enabled: bool = True,
            default_buffer_size: Size = ...,
            min_buffer_size: Size = ...,
            max_buffer_size: Size = ...,
            large_object_threshold: Size = ...,
            very_large_object_threshold: Size = ...,
            large_object_strategy: Strategy | str = ...,
            chunk_size: Size | None = None,
            max_concurrent_large_ops: int = 16,
            max_queued_large_ops: int = 1024,
            acquire_timeout: Duration = ...,
            max_idle_age: Duration = ...,
            max_pool_bytes: Size = ...,
            metrics_interval: Duration = ...,
            leak_detection: LeakDetection | str = ...,
            enable_detailed_metrics: bool = False,
        ) -> None: ...

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        given = {field: getattr(self, field) for field in self.__struct_fields__}
        defaults = dict(zip(self.__struct_fields__, self.__struct_defaults__, strict=True))
        for field, value in _normalised(given, problems).items():
            # Of what equals the default, the default itself: `repr` leaves out what it finds to be that very object.
            kept = defaults[field] if value == defaults[field] else value
            msgspec.structs.force_setattr(self, field, kept)
        faulty = {problem.field for problem in problems}
        problems += _contradictions(self, given, faulty)
        if problems:
            raise ConfigError(problems, subject="BufferPoolConfig")

    def replace(self, **changes: Any) -> BufferPoolConfig:
        """A configuration with `changes` made, checked as a whole. An unknown field is a `ConfigError`."""
        unknown = [name for name in changes if name not in self.__struct_fields__]
        if unknown:
            known = ", ".join(self.__struct_fields__)
            problems = [Problem(name, changes[name], f"is no field; the fields are {known}") for name in unknown]
            raise ConfigError(problems, subject="BufferPoolConfig")
        return msgspec.structs.replace(self, **changes)


def _normalised(given: dict[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """The fields as they are kept; a value that cannot be one is added to `problems` and left out."""
    kept: dict[str, Any] = {}
    for field, value in given.items():
        try:
            kept[field] = _PARSERS.get(field, _size)(value)
        except (ValueError, TypeError, OverflowError) as error:
            problems.append(Problem(field, value, str(error)))
    return kept


def _size(value: Any) -> int:
    size = parse_size(value)
    if not 1 <= size <= LARGEST_SIZE:
        raise ValueError(f"must be from 1 byte to {format_size(LARGEST_SIZE)}; mind the unit")
    return size


def _duration(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds > LARGEST_DURATION:
        raise ValueError("must be at most a year (366d); mind the unit")
    return seconds


def _interval(value: Any) -> float:
    seconds = _duration(value)
    if seconds == 0:
        raise ValueError("must be above 0")
    return seconds


def _operations(value: Any) -> int:
    if type(value) is int and value < 1:
        raise ValueError("must be at least 1; to switch the pool off set enabled = False")
    return _count(value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("must be a whole number (int)")
    if value < 1:
        raise ValueError("must be at least 1")
    if value > LARGEST_COUNT:
        raise ValueError(f"must be at most {LARGEST_COUNT:,}")
    return value


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be True or False")
    return value


def _choice(value: Any, kind: type[_Choice]) -> _Choice:
    if isinstance(value, kind):
        return value
    try:
        return kind(value.strip().lower() if isinstance(value, str) else value)
    except ValueError:
        raise ValueError(f"must be one of {', '.join(repr(member.value) for member in kind)}") from None


_PARSERS: dict[str, Callable[[Any], object]] = {
    "enabled": _switch,
    "enable_detailed_metrics": _switch,
    "acquire_timeout": _duration,
    "max_idle_age": _duration,
    "metrics_interval": _interval,
    "max_concurrent_large_ops": _operations,
    "max_queued_large_ops": _count,
    "large_object_strategy": lambda value: _choice(value, Strategy),
    "leak_detection": lambda value: _choice(value, LeakDetection),
    "chunk_size": lambda value: None if value is None else _size(value),
}  # every other field is a size


def _contradictions(config: BufferPoolConfig, given: dict[str, Any], faulty: set[str]) -> Iterator[Problem]:
    """Rules between two fields. A rule is not asked about a field that is faulty already, by itself or by a rule."""
    for field, holds, other, relation, mend in RULES:
        if field in faulty or other in faulty:
            continue
        left, right = getattr(config, field), getattr(config, other)
        if left is not None and not holds(left, right):
            faulty.update((field, other) if field == "min_buffer_size" else (field,))
            shown = given[other] if isinstance(given[other], str) else format_size(right)
            yield Problem(field, given[field], f"must {relation} {other} ({shown}); {mend}")
