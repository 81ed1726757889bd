"""Every setting in one table: its name in files and in the environment, its default, and when to change it.

Invariant: a row for each field of each part of a `CacheConfig`, and no other (a test compares them).
Threads: any; immutable.
Design: docs/settings.md
"""

from __future__ import annotations

from daramjwee.config.setting import CONFIG_VARIABLE, PREFIX, REQUIRED, Kind, Setting

__all__ = ["BY_PATH", "CONFIG_VARIABLE", "PREFIX", "REQUIRED", "SETTINGS", "Kind", "Setting"]


def _live(path: str) -> bool:
    room, _, name = path.partition(".")
    if room == "tiers":
        return name.rpartition(".")[2] in {"capacity", "max_entries", "max_object_size"}
    return room != "origin"


def _row(
    path: str,
    kind: Kind,
    default: str | int | bool | None,
    meaning: str,
    trade: str,
    change_when: str,
    *,
    env: str | None = "",
    optional: bool = False,
) -> Setting:
    env = PREFIX + path.upper().replace(".", "_") if env == "" else env
    return Setting(path, env, default, _live(path), meaning, trade, change_when, kind, optional)


def _tier_rows(kind: str) -> tuple[Setting, ...]:
    """The limits that each kind of tier has."""
    at = f"tiers.{kind}"
    where = "in memory" if kind == "memory" else "on disk"
    most = "its part of memory_limit" if kind == "memory" else "the disk it may take"
    return (
        _row(
            f"{at}.capacity", Kind.SIZE, REQUIRED,
            f"bytes of objects kept {where}, those being written included",
            f"more: fewer fetches; less: {most} is smaller",
            "the hit ratio is low and evictions are many, or the machine has other use for the room",
            env=None,
        ),
        _row(
            f"{at}.max_entries", Kind.COUNT, None,
            "number of objects kept; none: one per 256 bytes of capacity, at least 1024",
            "each entry costs a few hundred bytes of memory that capacity does not count",
            "objects are tiny and very many",
            env=None, optional=True,
        ),
        _row(
            f"{at}.policy", Kind.CHOICE, "sieve",
            "which object makes way: sieve, or lru (that used longest ago)",
            "sieve keeps what is read again and needs no lock for a hit; lru follows a shift of what is read at once",
            "what is read moves on in time and never comes back: lru",
            env=None,
        ),
        _row(
            f"{at}.max_object_size", Kind.SIZE, None,
            "larger objects are not kept in this tier; none: as large as capacity"
            + ("" if kind == "file" else ", and an eighth of it for a stream that a tier below could take"),
            "less: one object cannot push out many; more: large ones are served from here",
            "objects of very different sizes share the tier",
            env=None, optional=True,
        ),
    )  # fmt: skip


SETTINGS: tuple[Setting, ...] = (
    _row(
        "memory_limit", Kind.SIZE, "512MiB",
        "bytes that buffers, memory tiers and queued bytes may hold together",
        "more: larger memory tiers, more operations at once; less: requests wait for memory, then get Overloaded",
        "the container is smaller than twice of it, or memory tiers should be larger",
    ),
    _row(
        "workers", Kind.COUNT, 4,
        "threads for copies between tiers and for renewals in the background",
        "more: stale entries and lower tiers catch up sooner; less: fewer threads and connections",
        "many stale entries are renewed at a slow origin",
    ),
    _row(
        "tiers", Kind.PART, "memory:256MiB",
        "the tiers, fastest first: a list of tables, or text such as memory:256MiB;file:cache?capacity=20GiB",
        "each tier below keeps more for longer, and costs a copy of what is fetched",
        "objects should outlive the process, or are larger than an eighth of the memory tier: add a file tier",
    ),
    *_tier_rows("memory"),
    _row(
        "tiers.file.folder", Kind.PATH, REQUIRED,
        "a folder of its own, made for this user alone (0700)",
        "a local disk is faster; a disk shared by machines is filled once",
        "always: it has no default",
        env=None,
    ),
    *_tier_rows("file"),
    _row(
        "tiers.file.free_space_floor", Kind.SIZE, "64MiB",
        "bytes of the disk left free; entries make way for them, 0 for none",
        "more: room for others on that disk; less: the cache may fill it",
        "other programs write to the same disk: raise it",
        env=None,
    ),
    _row(
        "tiers.file.durability", Kind.CHOICE, "flush",
        "what a written object survives: flush, a killed process; fsync, a power cut too",
        "fsync waits for the disk at each object",
        "fetching again after a power cut is dear: fsync",
        env=None,
    ),
    _row(
        "tiers.file.verify", Kind.CHOICE, "first",
        "when checksums are compared: first, at the first read in a process; always; off",
        "always costs about as much as the read itself; off may serve damaged bytes",
        "the disk is not trusted, or others write to it: always",
        env=None,
    ),
    _row(
        "origin", Kind.PART, None,
        "where keys come from that no tier has: an http, https or file URL, or a table; none: each open says so itself",
        "one origin for all keys is simpler; a fetch function of each open can do more",
        "keys are paths below one URL or folder",
        optional=True,
    ),
    _row(
        "origin.base", Kind.PART, REQUIRED,
        'http: the URL that keys are paths below; "" where keys are whole URLs',
        "with a base a key cannot lead to another host",
        "always: it has no default",
        env="DARAMJWEE_ORIGIN",
    ),
    _row(
        "origin.headers", Kind.PART, None,
        'http: sent with each request; a secret as { env = "NAME" } or { file = "/run/secrets/x" }',
        "they go to the host that was asked, to none that it redirects to",
        "the origin wants credentials",
        env=None,
    ),
    _row(
        "origin.timeout", Kind.DURATION, "30s",
        "http: the longest time without a byte",
        "more: patience with a slow origin; less: failures are seen, and stale entries served, sooner",
        "the origin takes long to begin an answer",
    ),
    _row(
        "origin.connect_timeout", Kind.DURATION, "10s",
        "http: the longest time to connect",
        "more: far or busy hosts are reached; less: a dead host is noticed sooner",
        "the origin stands nearby: 1s to 3s",
    ),
    _row(
        "origin.retries", Kind.COUNT, 2,
        "http: how often a request that failed before its body began is sent again",
        "more: short failures are not seen; less: callers hear of trouble sooner, the origin is asked less",
        "whoever calls tries again itself: 0",
    ),
    _row(
        "origin.redirects", Kind.COUNT, 10,
        "http: how many redirects are followed for one request",
        "each is a request more; 0 takes no answer from elsewhere",
        "the origin must not send callers elsewhere: 0",
    ),
    _row(
        "origin.pool_size", Kind.COUNT, 32,
        "http: connections to one host that are kept for the next request",
        "more: fewer new connections under load; less: fewer idle ones at the origin",
        "more fetches than that run at once",
    ),
    _row(
        "origin.verify", Kind.TRUST, True,
        "http: whether certificates are checked; a path is a bundle of certificates to trust",
        "false lets anyone on the way read and change what is fetched",
        "the origin has a certificate of a private authority: the path of its bundle",
    ),
    _row(
        "origin.folder", Kind.PATH, REQUIRED,
        "file: keys are paths below this folder",
        "nothing outside of it is read",
        "always: it has no default",
        env="DARAMJWEE_ORIGIN",
    ),
    _row(
        "freshness.fresh", Kind.DURATION, None,
        "how long an entry is served without asking the origin, unless it says so itself; none: for ever",
        "more: fewer requests to the origin; less: changes are seen sooner",
        "objects change under their key",
        optional=True,
    ),
    _row(
        "freshness.stale_while_revalidate", Kind.DURATION, None,
        "for how long after that an entry is served at once while it is renewed in the background; none: it is not",
        "more: callers never wait for a renewal; less: older bytes are not served",
        "a renewal takes longer than callers like to wait",
        optional=True,
    ),
    _row(
        "freshness.stale_if_error", Kind.DURATION, None,
        "for how long after fresh an entry is served when the origin fails; none: the failure is the answer",
        "more: an origin may be away for longer; less: older bytes are not served",
        "old bytes are better than none",
        optional=True,
    ),
    _row(
        "freshness.negative", Kind.DURATION, None,
        "how long it is remembered that the origin has no such key; none: it is not",
        "more: fewer requests for what is not there; less: what appears is seen sooner",
        "many keys are asked for that do not exist",
        optional=True,
    ),
    _row(
        "buffers.enabled", Kind.SWITCH, True,
        "whether buffers are pooled and large operations take turns",
        "false: each request maps memory of its own, nothing bounds the large ones in number",
        "to compare, or to find out whether the pool is at fault",
    ),
    _row(
        "buffers.default_buffer_size", Kind.SIZE, "256KiB",
        "a chunk where the size of an object is not known, and of a copy",
        "more: fewer calls per byte where the processor's cache is large; less: less memory for each running copy",
        "bench --calibrate says so",
    ),
    _row(
        "buffers.min_buffer_size", Kind.SIZE, "4KiB",
        "the smallest buffer that is pooled",
        "more: fewer sizes, more wasted in each small buffer; less: the reverse",
        "no buffer below a certain size is ever asked for",
    ),
    _row(
        "buffers.max_buffer_size", Kind.SIZE, "1MiB",
        "the largest buffer that is pooled; larger ones are mapped for one use",
        "more: larger buffers are used again; less: less idle memory",
        "buffers above it are asked for all the time",
    ),
    _row(
        "buffers.large_object_threshold", Kind.SIZE, "256KiB",
        "from here on an object is large: a strategy that was set counts for it, and it takes its turn",
        "more: fewer operations take turns; less: more of them are bounded in number",
        "medium objects are many and memory is short: lower it",
    ),
    _row(
        "buffers.very_large_object_threshold", Kind.SIZE, "1MiB",
        "from here on an object counts as very large in the statistics",
        "none but where a line of the statistics is drawn",
        "the statistics should separate other sizes",
    ),
    _row(
        "buffers.large_object_strategy", Kind.CHOICE, "adaptive",
        "how large objects are copied: adaptive (chosen each time), chunked, direct, pooled",
        "chunked: constant memory; direct: no pooled memory; pooled: whole objects in memory",
        "a measurement of your own says that one serves better",
    ),
    _row(
        "buffers.chunk_size", Kind.SIZE, None,
        "the chunk of every copy; none: chosen for each, and smaller when memory is short",
        "given, it is obeyed always: under memory pressure and for sockets too",
        "bench --calibrate says so",
        optional=True,
    ),
    _row(
        "buffers.max_concurrent_large_ops", Kind.COUNT, 16,
        "large operations that run at once",
        "more: better where ends are slow, more memory; less: steadier memory, longer waits",
        "operations wait in line while memory and the network have room",
    ),
    _row(
        "buffers.max_queued_large_ops", Kind.COUNT, 1024,
        "large operations that may wait in line; the next is Overloaded at once",
        "more: longer bursts are absorbed; less: callers hear earlier, and can go elsewhere",
        "callers had better be refused than wait",
    ),
    _row(
        "buffers.acquire_timeout", Kind.DURATION, "30s",
        "how long a request waits for its turn and for memory, before it is Overloaded",
        "more: patience under load; less: trouble is heard of earlier",
        "callers give up earlier than that themselves",
    ),
    _row(
        "buffers.max_idle_age", Kind.DURATION, "60s",
        "after that, memory nobody uses goes back to the system",
        "more: fewer page faults after a pause; less: others have the memory sooner",
        "load comes in bursts further apart than a minute",
    ),
    _row(
        "buffers.max_pool_bytes", Kind.SIZE, "64MiB",
        "memory the pool keeps, in use and idle, within memory_limit",
        "more: more buffers at once before one waits; less: memory others may use",
        "many large operations run at once and wait for memory",
    ),
    _row(
        "buffers.metrics_interval", Kind.DURATION, "10s",
        "how often a pool in use looks at its figures, for trends and alerts",
        "more: alerts are slower and cheaper; less: raised earlier",
        "alerts should be raised within seconds",
    ),
    _row(
        "buffers.leak_detection", Kind.CHOICE, "sampled",
        "what is recorded of who leased a buffer: off, sampled, full",
        "full knows each place and finds late use, at several times the cost of a lease; off says no place",
        "a buffer was lost and its place is not known: full, for as long as it takes to find out",
    ),
    _row(
        "buffers.enable_detailed_metrics", Kind.SWITCH, False,
        "whether latencies are kept as histograms, and pauses of Python's collector measured",
        "2 % of a 256 KiB copy, a fifth of a lease",
        "percentiles are wanted",
    ),
)  # fmt: skip

BY_PATH: dict[str, Setting] = {setting.path: setting for setting in SETTINGS}
