"""Size classes, endpoints and strategies: how large an object is, what its two ends can do, how its bytes are moved.

Pure: values in, values out.
Design: docs/design/strategy.md
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.buffers.pressure import EFFECTS, NORMAL, PressureLevel
from daramjwee.errors import ConfigError, Problem
from daramjwee.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daramjwee.buffers.config import BufferPoolConfig

# Below this an object costs less to move than to decide about; the other two bounds are configured.
MEDIUM_FROM = 32 * KIB
# To and from sockets, large objects go in larger chunks: 5 to 7 % fewer calls and switches. Elsewhere 256 KiB is best:
# more does not fit into the processor's second-level cache together with the source (docs/design/memory.md).
LARGE_CHUNK_FROM = 4 * MIB
LARGE_CHUNK_BYTES = 512 * KIB
# A socket of this machine takes 208 KiB before it blocks: of 128 KiB chunks one is read while the last one is taken
# out, which is 1.4 times as fast as with 256 KiB, 1.8 times as with 512 KiB, and from 4 MiB objects up 1.3 to 1.8 times
# as fast as sendfile, at the same processor time of both sides together (docs/design/memory.md).
LOCAL_CHUNK_BYTES = 128 * KIB
# Below it a kernel copy's preparing calls cost more than they save.
KERNEL_FROM = 64 * KIB


class SizeClass(enum.StrEnum):
    """How large an object is: small < 32 KiB <= medium < `large_object_threshold` <= large
    < `very_large_object_threshold` <= very large."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"
    VERY_LARGE = "very_large"


class Strategy(enum.StrEnum):
    """How bytes are moved.

    POOLED: one leased buffer for the whole object. CHUNKED: a loop over one reused chunk. DIRECT: no pooled
    memory, the kernel's own copy where both ends are descriptors, else a private buffer that is given back
    at once. ADAPTIVE: chosen for each operation.
    """

    POOLED = "pooled"
    CHUNKED = "chunked"
    DIRECT = "direct"
    ADAPTIVE = "adaptive"


class Endpoint(enum.StrEnum):
    """What one end of a copy can do.

    FILE: a regular file, behind a plain file object. SOCKET: a plain socket of a network, LOCAL: of
    this machine (AF_UNIX). PIPE: a pipe, behind a plain file object.
    MEMORY: a source that shares its own memory (`io.BytesIO`). READINTO: a source that fills memory it is given.
    PLAIN: a source that only returns bytes, or any other sink.
    """

    FILE = "file"
    SOCKET = "socket"
    LOCAL = "local socket"
    PIPE = "pipe"
    MEMORY = "memory"
    READINTO = "readinto"
    PLAIN = "plain"


class Decision(NamedTuple):
    """How to move an object: by which `strategy`, in pieces of `chunk_size` bytes, and the `reason`. `fallback`: what was
    configured cannot serve, and this serves instead."""

    strategy: Strategy
    chunk_size: int
    reason: str
    fallback: bool


# An access to a member costs 95 ns, a module's name 10: the hot paths use these.
POOLED = Strategy.POOLED
CHUNKED = Strategy.CHUNKED
DIRECT = Strategy.DIRECT
ADAPTIVE = Strategy.ADAPTIVE
FILE = Endpoint.FILE
SOCKET = Endpoint.SOCKET
LOCAL = Endpoint.LOCAL
PIPE = Endpoint.PIPE
MEMORY = Endpoint.MEMORY
READINTO = Endpoint.READINTO
PLAIN = Endpoint.PLAIN

# Reasons that whoever carries a decision out asks for.
CONFIGURED = "configured"
SHARES = "the file system shares the bytes"
_CUT = "the configured chunk is larger than memory may ever be"

_new_tuple = tuple.__new__


def class_bounds(config: BufferPoolConfig) -> tuple[int, int, int]:
    """Where the second, third and fourth size class begin."""
    large = config.large_object_threshold
    # Never above the next one: what is large by configuration is large, however small.
    return min(MEDIUM_FROM, large), large, config.very_large_object_threshold


def size_class(size: int, config: BufferPoolConfig) -> SizeClass:
    """The class of an object of `size` bytes under the thresholds of `config`. `ConfigError` for other arguments."""
    problems = [*_problems_of("size", size, 0), *_no_config(config)]
    if problems:
        raise ConfigError(problems, subject="size_class")
    if size >= config.very_large_object_threshold:
        return SizeClass.VERY_LARGE
    if size >= config.large_object_threshold:
        return SizeClass.LARGE
    return SizeClass.MEDIUM if size >= MEDIUM_FROM else SizeClass.SMALL


def select_strategy(  # noqa: C901 - in one function, as each call takes time
    size: int | None,
    config: BufferPoolConfig,
    *,
    src: Endpoint = READINTO,
    dst: Endpoint = PLAIN,
    pressure: PressureLevel = NORMAL,
    clones: bool = False,
    most: int | None = None,
) -> Decision:
    """The strategy, the chunk size in bytes, and the reason, for an object of `size` bytes (None: unknown). Pure.

    `src`, `dst`: what its ends can do. `pressure`: how short memory is. `clones`: whether a file's bytes can be
    shared with the other file instead of copied. `most`: how much memory may ever be leased at once (None: as much as
    `max_pool_bytes`). A `chunk_size` in `config` is obeyed always, a strategy from `large_object_threshold` up and for
    unknown sizes; where one cannot serve, `Decision.fallback` is true and the reason says why. Raises `ConfigError` for wrong
    arguments; an end and a level may also be given by value ("file", 2).
    """
    special = src is not READINTO or dst is not PLAIN
    # A type costs three times as much as an identity: the usual ends are known by that.
    if (size is not None and (type(size) is not int or size < 0)) or (
        special
        and (
            (src is not FILE and src is not PLAIN and type(src) is not Endpoint)
            or (dst is not PLAIN and dst is not SOCKET and dst is not FILE and type(dst) is not Endpoint)
        )
    ):
        return _select_again(size, config, src, dst, pressure, clones, most)
    try:
        if most is None:
            most = config.max_pool_bytes
        given = chunk = config.chunk_size
    except AttributeError:
        return _select_again(size, config, src, dst, pressure, clones, most)
    if chunk is None:
        chunk = config.default_buffer_size
        if special:
            if dst is SOCKET or (src is SOCKET and dst is not LOCAL):
                if size is not None and size >= LARGE_CHUNK_FROM:
                    largest = config.max_buffer_size
                    if largest > LARGE_CHUNK_BYTES:
                        largest = LARGE_CHUNK_BYTES
                    if largest > chunk:
                        chunk = largest
            elif dst is LOCAL and chunk > LOCAL_CHUNK_BYTES:
                chunk = max(config.min_buffer_size, LOCAL_CHUNK_BYTES)
    if pressure is not NORMAL:
        if type(pressure) is not PressureLevel:
            return _select_again(size, config, src, dst, pressure, clones, most)
        if given is None:
            chunk = _under_pressure(chunk, config, pressure)
    try:
        cut = chunk > most
    except TypeError:
        return _select_again(size, config, src, dst, pressure, clones, most)
    if cut:
        if type(most) is not int or most < 1:
            return _select_again(size, config, src, dst, pressure, clones, most)
        chunk = most
        cut = given is not None
    if cut or config.large_object_strategy is not ADAPTIVE or not config.enabled:
        decision = _configured(size, config, chunk, most, cut)
        if decision is not None:
            return decision
    if special and ((src is not PLAIN and src is not READINTO) or dst is PIPE):
        if src is MEMORY:
            return _decision(DIRECT, chunk, "the source shares its own memory", False)
        # Else the kernel has no part in it: no call for what it says of most copies.
        if (src is FILE or src is PIPE or dst is PIPE) and (
            clones or pressure is not NORMAL or (dst is not FILE and dst is not PLAIN)
        ):
            reason = _kernel_reason(size, src, dst, pressure, clones)
            if reason is not None:
                return _new_tuple(Decision, (DIRECT, chunk, reason, False))
    if size is None:
        return _decision(CHUNKED, chunk, _CUT if cut else "unknown size", cut)
    if size <= chunk:
        least = config.min_buffer_size
        if size < least:
            size = min(least, chunk)
        return _new_tuple(Decision, (POOLED, size, "it fits into one chunk", False))
    return _new_tuple(Decision, (CHUNKED, chunk, _CUT if cut else "larger than one chunk", cut))


def _select_again(
    size: Any, config: Any, src: Any, dst: Any, pressure: Any, clones: bool, most: Any
) -> Decision:  # fmt: skip
    """The same with what was meant by what was given, or all that is wrong with it."""
    problems: list[Problem] = []
    for field, value, least in (("size", size, 0), ("most", most, 1)):
        if value is not None:
            problems += _problems_of(field, value, least, ", or None")
    problems += _no_config(config)
    ends = {}
    for field, value in (("src", src), ("dst", dst)):
        try:
            ends[field] = Endpoint(value)
        except ValueError:
            values = ", ".join(f'"{end}"' for end in Endpoint)
            problems.append(Problem(field, value, f"must be an Endpoint, or its value: {values}"))
    try:
        pressure = PressureLevel(pressure)
    except ValueError:
        problems.append(Problem("pressure", pressure, "must be a PressureLevel, such as PressureLevel.HIGH"))
    if problems:
        raise ConfigError(problems, subject="select_strategy")
    size, most = None if size is None else int(size), None if most is None else int(most)
    return select_strategy(size, config, **ends, pressure=pressure, clones=clones, most=most)


def _problems_of(field: str, value: object, least: int, also: str = "") -> Iterator[Problem]:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        yield Problem(field, value, f"must be bytes, an int of {least} or more{also}")


def _no_config(config: object) -> Iterator[Problem]:
    from daramjwee.buffers.config import BufferPoolConfig

    if not isinstance(config, BufferPoolConfig):
        yield Problem("config", config, "must be a BufferPoolConfig")


def _decision(strategy: Strategy, chunk: int, reason: str, fallback: bool) -> Decision:
    # What Decision(...) does, without its Python-level __new__: half of the time.
    return _new_tuple(Decision, (strategy, chunk, reason, fallback))


def _under_pressure(chunk: int, config: BufferPoolConfig, pressure: PressureLevel) -> int:
    bound = EFFECTS[pressure].most_chunk
    return chunk if bound is None or chunk <= bound else max(bound, config.min_buffer_size)


def _configured(size: int | None, config: BufferPoolConfig, chunk: int, most: int, cut: bool) -> Decision | None:
    """What the configuration prescribes; None where it leaves the choice."""
    if not config.enabled:
        return _decision(DIRECT, chunk, _CUT if cut else "the pool is disabled", cut)
    wanted = config.large_object_strategy
    if wanted is ADAPTIVE or (size is not None and size < config.large_object_threshold):
        return None
    if wanted is POOLED:
        if size is None:
            return _decision(CHUNKED, chunk, "pooled is configured, but the size is unknown", True)
        if size > most or size > config.max_pool_bytes:
            return _decision(CHUNKED, chunk, "pooled is configured, but the object is larger than the pool", True)
        return _decision(POOLED, min(max(size, config.min_buffer_size), most), CONFIGURED, False)
    return _decision(wanted, chunk, _CUT if cut else CONFIGURED, cut)


def _kernel_reason(size: int | None, src: Endpoint, dst: Endpoint, pressure: PressureLevel, clones: bool) -> str | None:
    """Why the kernel's own copy serves best; None where it does not, or cannot."""
    if size is not None and size < KERNEL_FROM:
        return None
    if src is FILE:
        if dst is SOCKET or (dst is LOCAL and size is not None and size < LARGE_CHUNK_FROM):
            return "sendfile spares a copy through this process"
        if clones and dst is FILE:
            return SHARES
    elif src is PIPE and (dst is SOCKET or dst is LOCAL or dst is PIPE):
        return "splice spares a copy through this process"
    # Between files the kernel moves 64 KiB at a time: 16-25 % slower than a 256 KiB chunk. From a file to a pipe it
    # gains nothing, from a pipe to a file it takes twice as long (docs/design/memory.md).
    if pressure is not NORMAL and EFFECTS[pressure].kernel_first and kernel_serves(src, dst):
        return "memory is short, the kernel needs none"
    return None


def kernel_serves(src: Endpoint, dst: Endpoint) -> bool:
    """Whether the kernel has a way from `src` to `dst`."""
    if src is FILE or src is PIPE:
        return dst is FILE or dst is SOCKET or dst is LOCAL or dst is PIPE
    return (src is SOCKET or src is LOCAL) and dst is PIPE
