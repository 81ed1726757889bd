"""What is legal but unwise in a configuration: each with its reason, and what to do instead.

Invariant: a rule says only what follows from the settings alone, on any machine; the defaults break none.
Threads: any; pure.
Design: docs/settings.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from daramjwee.buffers.config import LeakDetection
from daramjwee.buffers.pressure import EFFECTS
from daramjwee.buffers.strategy import MEDIUM_FROM, Strategy
from daramjwee.config.origin import FileOriginConfig, HttpOriginConfig
from daramjwee.config.secret import Secret
from daramjwee.config.tiers import FileTier, MemoryTier, place_of
from daramjwee.stores.memory import LARGEST_WHOLE
from daramjwee.units import GIB, MIB, format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daramjwee.config.model import CacheConfig

# More threads than this take turns at Python's lock more than they wait for an origin.
MOST_USEFUL_WORKERS = 64
# Objects would have to be larger than this on average for a tier of so few entries to fill.
LARGEST_MEAN_ENTRY = GIB
MOST_USEFUL_RETRIES = 10
LONGEST_NEGATIVE = 3600.0
# Who waits for longer than this meant milliseconds, or would rather hear of a failure.
LONGEST_WAIT = 600.0
# A tier of less was given without a unit, or holds next to nothing.
LEAST_CAPACITY = MIB
SHORTEST_INTERVAL = 0.1
# Folders that are memory on Linux.
MEMORY_FOLDERS = ("/dev/shm", "/run")  # noqa: S108 - to warn of them
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Unwise(NamedTuple):
    """One setting that is legal but unwise: the `field`, its `value`, the `reason`, and what to do (`mend`)."""

    field: str
    value: Any
    reason: str
    mend: str

    def __str__(self) -> str:
        shown = format_size(self.value) if _is_size(self.field, self.value) else repr(self.value)
        return f"{self.field} = {shown}: {self.reason}; {self.mend}"


def unwise(config: CacheConfig) -> tuple[Unwise, ...]:
    """Every setting of `config` that is legal but unwise, in the order of its parts."""
    return tuple(
        found for rules in (_limits, _tiers, _folders, _origin, _freshness, _buffers) for found in rules(config)
    )


def _limits(config: CacheConfig) -> Iterator[Unwise]:
    limit = config.memory_limit
    memory = [(i, tier) for i, tier in enumerate(config.tiers) if isinstance(tier, MemoryTier)]
    room = sum(tier.capacity for _, tier in memory)
    pool = config.buffers.max_pool_bytes if config.buffers.enabled else 0
    if room > limit:
        index, largest = max(memory, key=lambda pair: pair[1].capacity)
        whole = "memory tiers together" if len(memory) > 1 else "it"
        reason = f"{whole} may hold {format_size(room)}, but memory_limit is {format_size(limit)}: never full"
        yield Unwise(f"tiers[{index}].capacity", largest.capacity, reason, "lower it or raise memory_limit")
    elif memory and pool <= limit < room + pool:
        reason = (
            f"memory tiers ({format_size(room)}) and buffers (max_pool_bytes, {format_size(pool)}) do not fit into it "
            "together: entries are evicted while buffers are in use"
        )
        yield Unwise("memory_limit", limit, reason, f"raise it to {format_size(room + pool)}, or lower one of them")
    if pool > limit:
        reason = f"is above memory_limit ({format_size(limit)}): never reached"
        yield Unwise("buffers.max_pool_bytes", pool, reason, "lower it or raise the other")
    if config.workers > MOST_USEFUL_WORKERS:
        reason = "threads beyond some dozens wait for each other more than for an origin, and each takes memory"
        yield Unwise("workers", config.workers, reason, f"lower it to {MOST_USEFUL_WORKERS} or less")


def _tiers(config: CacheConfig) -> Iterator[Unwise]:
    tiers = config.tiers
    for index, tier in enumerate(tiers):
        above = tiers[:index]
        at = f"tiers[{index}]"
        if isinstance(tier, MemoryTier) and any(isinstance(other, FileTier) for other in above):
            reason = "stands below a file tier: the slow one is asked first, and memory hardly ever"
            yield Unwise(at, "memory", reason, "name the memory tier first")
        elif isinstance(tier, MemoryTier) and any(isinstance(other, MemoryTier) for other in above):
            reason = "is a second memory tier: it keeps once more what the first one keeps"
            yield Unwise(at, "memory", reason, "make one tier of both capacities")
        if not isinstance(tier, MemoryTier | FileTier):
            continue
        if isinstance(tier, FileTier) and above:
            upper = above[-1]
            if isinstance(upper, MemoryTier) and tier.capacity <= upper.capacity:
                reason = f"keeps no more than the memory tier above it ({format_size(upper.capacity)})"
                yield Unwise(f"{at}.capacity", tier.capacity, reason, "raise it, or leave this tier out")
        if tier.capacity < LEAST_CAPACITY:
            reason = "holds next to nothing; a number without a unit is bytes"
            yield Unwise(f"{at}.capacity", tier.capacity, reason, 'give a size with its unit, such as "256MiB"')
        yield from _entries(at, tier)
        if isinstance(tier, FileTier):
            yield from _file_tier(at, tier)
    if all(isinstance(tier, MemoryTier) for tier in tiers):
        largest = max(tier.max_object_size or tier.capacity for tier in tiers if isinstance(tier, MemoryTier))
        if largest < LARGEST_WHOLE:
            reason = f"objects larger than {format_size(largest)} are read through and not kept: there is no file tier"
            yield Unwise("tiers", "memory", reason, "add a file tier, or raise the capacity")


def _entries(at: str, tier: MemoryTier | FileTier) -> Iterator[Unwise]:
    if tier.max_entries is None:
        return
    mean = tier.capacity // tier.max_entries
    largest = tier.max_object_size or tier.capacity
    if mean > largest or mean > LARGEST_MEAN_ENTRY:
        reason = (
            f"so few never fill the capacity of {format_size(tier.capacity)}: each would have to have "
            f"{format_size(mean)}{f', and none may have more than {format_size(largest)}' if mean > largest else ''}"
        )
        yield Unwise(f"{at}.max_entries", tier.max_entries, reason, "raise it, or leave it out")


def _file_tier(at: str, tier: FileTier) -> Iterator[Unwise]:
    if tier.verify == "off":
        reason = "bytes that the disk damaged, or that somebody changed, are served"
        mend = 'leave it at "first": each block is checked once in a process'
        yield Unwise(f"{at}.verify", tier.verify, reason, mend)
    if tier.free_space_floor == 0:
        reason = "the cache may fill the disk to its last byte, and others on it fail"
        yield Unwise(f"{at}.free_space_floor", 0, reason, "leave some space, such as 64MiB")
    place = place_of(tier.folder)
    if any(_lies_in(place, memory) for memory in MEMORY_FOLDERS):
        reason = "lies in memory on Linux, which memory_limit does not count, and is gone after a restart"
        yield Unwise(f"{at}.folder", tier.folder, reason, "give a folder on a disk, or a memory tier of that capacity")


def _folders(config: CacheConfig) -> Iterator[Unwise]:
    """Folders that lie in each other: what is one's own would be another's to list, to fill, or to remove."""
    places = [(f"tiers[{i}].folder", tier.folder) for i, tier in enumerate(config.tiers) if isinstance(tier, FileTier)]
    if isinstance(config.origin, FileOriginConfig):
        places.append(("origin.folder", config.origin.folder))
    for index, (field, folder) in enumerate(places):
        for other, whose in places[:index]:
            here, there = place_of(folder), place_of(whose)
            if _lies_in(here, there) or _lies_in(there, here):
                reason = f"and {other} ({whose}) lie in each other: the files of one are among those of the other"
                yield Unwise(field, folder, reason, "give each a folder beside the other")


def _origin(config: CacheConfig) -> Iterator[Unwise]:
    origin = config.origin
    if not isinstance(origin, HttpOriginConfig):
        return
    secrets = [name for name, value in origin.headers.items() if isinstance(value, Secret)]
    if config.freshness.fresh is None:
        reason = "an object whose answer says nothing of its lifetime (Cache-Control) is never asked for again"
        yield Unwise("freshness.fresh", None, reason, 'give one, such as "5m"')
    if origin.verify is False:
        reason = "certificates are not checked: anyone on the way may read and change what is fetched"
        yield Unwise(
            "origin.verify", False, reason, "leave it true, or give the path of a bundle of certificates to trust"
        )
    if secrets and not origin.base:
        reason = f"the headers {', '.join(secrets)} go to every host that a key names, as base is empty"
        yield Unwise("origin.base", "", reason, "give the URL that they are for")
    if secrets and origin.base.lower().startswith("http://") and _host_of(origin.base) not in LOOPBACK:
        reason = f"the headers {', '.join(secrets)} go over the network in the clear"
        yield Unwise("origin.base", origin.base, reason, "use https")
    for name in ("timeout", "connect_timeout"):
        if getattr(origin, name) > LONGEST_WAIT:
            reason = f"an origin that stalls holds its readers for {format_duration(getattr(origin, name))}"
            yield Unwise(
                f"origin.{name}", getattr(origin, name), reason, "lower it; a number without a unit is seconds"
            )
    if origin.retries > MOST_USEFUL_RETRIES:
        reason = "the wait before each grows to 5 s: a caller hears late of an origin that is away"
        yield Unwise("origin.retries", origin.retries, reason, "lower it to 5 or less")


def _freshness(config: CacheConfig) -> Iterator[Unwise]:
    freshness = config.freshness
    if freshness.fresh is None:
        for name in ("stale_while_revalidate", "stale_if_error"):
            value = getattr(freshness, name)
            if value:
                reason = "without fresh, only an object whose origin says its lifetime is ever stale"
                yield Unwise(f"freshness.{name}", value, reason, 'give fresh, too, such as "5m"')
    if freshness.negative is not None and freshness.negative > LONGEST_NEGATIVE:
        reason = f"an object that appears at the origin is not seen for up to {format_duration(freshness.negative)}"
        yield Unwise(
            "freshness.negative", freshness.negative, reason, 'lower it; "30s" spares the origin most requests'
        )


def _buffers(config: CacheConfig) -> Iterator[Unwise]:
    buffers = config.buffers
    if not buffers.enabled:
        reason = "each request maps memory of its own, and nothing bounds the number of large operations"
        yield Unwise("buffers.enabled", False, reason, "leave it true, but to compare")
        return
    for field, broken, reason, mend in _BUFFER_RULES:
        value = getattr(buffers, field)
        if broken(config, value):
            yield Unwise(f"buffers.{field}", value, reason, mend)
    piece = buffers.chunk_size or buffers.default_buffer_size
    fit = min(buffers.max_pool_bytes, config.memory_limit) // piece
    if fit < buffers.max_concurrent_large_ops:
        reason = f"chunks of {format_size(piece)} for so many do not fit into memory: {fit} run, the others wait"
        mend = "lower it, or raise max_pool_bytes and memory_limit"
        yield Unwise("buffers.max_concurrent_large_ops", buffers.max_concurrent_large_ops, reason, mend)


def _obeyed_under_pressure(config: CacheConfig, chunk: int | None) -> bool:
    smallest = EFFECTS[-1].most_chunk or 0
    chunked = config.buffers.large_object_strategy in {Strategy.ADAPTIVE, Strategy.CHUNKED}
    return chunk is not None and chunked and chunk > max(smallest, config.buffers.min_buffer_size)


# (field, when it is unwise, why, what to do)
_BUFFER_RULES: tuple[tuple[str, Callable[[CacheConfig, Any], bool], str, str], ...] = (
    (
        "chunk_size",
        _obeyed_under_pressure,
        "is obeyed always: chunks do not get smaller when memory is short, and not larger for sockets",
        "leave it out; default_buffer_size sets the usual chunk, and gives way",
    ),
    (
        "acquire_timeout",
        lambda _, value: bool(value == 0),
        "nothing waits: whatever does not fit at once is Overloaded",
        'give some seconds, such as "30s"',
    ),
    (
        "acquire_timeout",
        lambda _, value: bool(value > LONGEST_WAIT),
        "callers wait for so long before they hear that there is no room",
        "lower it; a number without a unit is seconds",
    ),
    (
        "leak_detection",
        lambda _, value: value is LeakDetection.FULL,
        "costs several times as much as a lease itself; it is for finding a leak",
        'go back to "sampled" when it is found',
    ),
    (
        "max_idle_age",
        lambda _, value: bool(value == 0),
        "memory goes back to the system at once: the next operation pays for its pages again",
        'give some seconds, such as "60s"',
    ),
    (
        "metrics_interval",
        lambda _, value: bool(value < SHORTEST_INTERVAL),
        "the pool looks at its figures all the time",
        'give a second or more, such as "10s"',
    ),
    (
        "large_object_threshold",
        lambda _, value: bool(value < MEDIUM_FROM),
        "small objects take their turn in the line of the large ones",
        f"raise it to {format_size(MEDIUM_FROM)} or more",
    ),
    (
        "large_object_strategy",
        lambda _, value: value is Strategy.POOLED,
        "an object of up to max_pool_bytes is held in memory whole while it is copied",
        'leave it at "adaptive", or give "chunked"',
    ),
)


def _lies_in(folder: str, other: str) -> bool:
    return folder == other or folder.startswith(other.rstrip("/") + "/")


def _host_of(url: str) -> str:
    from urllib.parse import urlsplit

    return urlsplit(url).hostname or ""


def _is_size(field: str, value: Any) -> bool:
    name = field.rpartition(".")[2]
    return type(value) is int and (name.endswith(("_size", "_bytes", "_threshold", "_floor")) or name in _SIZES)


_SIZES = {"capacity", "memory_limit"}
