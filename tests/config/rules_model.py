"""The rules of a configuration, told a second time: which fields of a mapping are at fault.

Written from the documents and shares no code with `daramjwee.config`, so that the two can be held to each other. What is
here is plain and slow on purpose: one function for each kind of value, one line for each rule.
"""

from __future__ import annotations

import math
import re

KIB, MIB = 1024, 1024 * 1024
SIZE_UNITS = {
    "": 1, "b": 1, "k": KIB, "kib": KIB, "m": MIB, "mib": MIB, "g": KIB * MIB, "gib": KIB * MIB, "t": MIB * MIB,
    "tib": MIB * MIB, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4,
}  # fmt: skip
DURATION_UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
# Of buffers; and of all else.
LARGEST_SIZE = 1024 * MIB * MIB
LARGEST_ROOM = 1024 * LARGEST_SIZE
LARGEST_DURATION = 366 * 86400
LARGEST_COUNT = MIB
# Names of headers whose values are secrets: by the whole name, or by a part of it.
SECRET_HEADERS = {"authorization", "cookie", "proxy-authorization"}
SECRET_PARTS = ("token", "secret", "key", "password")
# Values that give themselves away, whatever they are called: credentials of HTTP, a user or password in a URL.
SECRET_VALUE = re.compile(r"\s*(bearer|basic)\s|.*://[^/\s]*@", re.IGNORECASE)


# -- kinds of values: True where the value is one ------------------------------------------------------------------


def number_of(value, units):
    """The number that text with a unit means; None where it means none, or one beyond all measure."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", value)
    if match is None or match[2].lower() not in units:
        return None
    number = float(match[1]) * units[match[2].lower()]
    return number if math.isfinite(number) else None


def bytes_of(value):
    """Whole bytes: a whole number of 0 or more, or text with a unit."""
    if isinstance(value, str):
        number = number_of(value, SIZE_UNITS)
        return None if number is None else int(number)
    return value if type(value) is int and value >= 0 else None


def seconds_of(value):
    """Seconds: a finite number of 0 or more, or text with a unit."""
    if isinstance(value, str):
        return number_of(value, DURATION_UNITS)
    return value if type(value) in (int, float) and math.isfinite(value) and value >= 0 else None


def size(value, least=1, most=LARGEST_ROOM):
    return bytes_of(value) is not None and least <= bytes_of(value) <= most


def duration(value, most=LARGEST_DURATION, *, zero=True):
    seconds = seconds_of(value)
    return seconds is not None and seconds <= most and (zero or seconds > 0)


def count(value, least=1, most=LARGEST_COUNT):
    return type(value) is int and least <= value <= most


def switch(value):
    return type(value) is bool


def one_of(*words):
    return lambda value: isinstance(value, str) and value in words


def optional(kind):
    return lambda value: value is None or kind(value)


def text(value):
    return isinstance(value, str) and value != ""


# -- fields: what each must be by itself ---------------------------------------------------------------------------


def pool_size(value):
    return size(value, 1, LARGEST_SIZE)


BUFFERS = {
    "enabled": switch,
    "default_buffer_size": pool_size,
    "min_buffer_size": pool_size,
    "max_buffer_size": pool_size,
    "large_object_threshold": pool_size,
    "very_large_object_threshold": pool_size,
    "large_object_strategy": one_of("pooled", "chunked", "direct", "adaptive"),
    "chunk_size": optional(pool_size),
    "max_concurrent_large_ops": count,
    "max_queued_large_ops": count,
    "acquire_timeout": duration,
    "max_idle_age": duration,
    "max_pool_bytes": pool_size,
    "metrics_interval": lambda value: duration(value, zero=False),
    "leak_detection": one_of("off", "sampled", "full"),
    "enable_detailed_metrics": switch,
}
BUFFER_DEFAULTS = {
    "default_buffer_size": 256 * KIB, "min_buffer_size": 4 * KIB, "max_buffer_size": MIB,
    "large_object_threshold": 256 * KIB, "very_large_object_threshold": MIB, "chunk_size": None,
    "max_pool_bytes": 64 * MIB,
}  # fmt: skip
FRESHNESS = dict.fromkeys(
    ("fresh", "stale_while_revalidate", "stale_if_error", "negative"), optional(lambda value: duration(value, math.inf))
)
EVERY_TIER = {
    "capacity": size,
    "max_entries": optional(lambda value: count(value, 1, math.inf)),
    "policy": one_of("sieve", "lru"),
    "max_object_size": optional(size),
}
TIERS = {
    "memory": EVERY_TIER,
    "file": {
        **EVERY_TIER,
        "folder": text,
        "free_space_floor": lambda value: size(value, 0),
        "durability": one_of("flush", "fsync"),
        "verify": one_of("first", "always", "off"),
    },
    "given": {"name": text},
}
ORIGINS = {
    "http": {
        "base": lambda value: isinstance(value, str) and (value == "" or url(value)),
        "timeout": lambda value: duration(value, math.inf, zero=False),
        "connect_timeout": lambda value: duration(value, math.inf, zero=False),
        "retries": lambda value: count(value, 0, math.inf),
        "redirects": lambda value: count(value, 0, math.inf),
        "pool_size": lambda value: count(value, 1, math.inf),
        "verify": lambda value: switch(value) or text(value),
    },
    "file": {"folder": text},
    "given": {"name": text},
}
REQUIRED = {"memory": {"capacity"}, "file": {"capacity", "folder"}, "given": {"name"}}
ORIGIN_REQUIRED = {"http": {"base"}, "file": {"folder"}, "given": {"name"}}
TOP = {
    "memory_limit": lambda value: size(value, 4 * MIB),
    "workers": lambda value: count(value, 1, 1024),
}
TABLES = {"tiers", "origin", "freshness", "buffers", "schema"}


def url(value):
    """A base that keys can come after: http or https, a host, no query or fragment, no user or password in it."""
    match = re.fullmatch(r"(?i:https?)://([^/?#]+)(/[^?#]*)?", value)
    return match is not None and "@" not in match[1] and all(ord(character) > 32 for character in value)


# -- the whole -----------------------------------------------------------------------------------------------------


def faults_of(mapping):
    """The dotted names of all fields at fault."""
    faults = {name for name in mapping if name not in TOP and name not in TABLES}
    faults |= {name for name, kind in TOP.items() if name in mapping and not kind(mapping[name])}
    if "tiers" in mapping:
        faults |= faults_of_tiers(mapping["tiers"])
    if mapping.get("origin") is not None:
        faults |= faults_of_origin(mapping["origin"])
    if "freshness" in mapping:
        faults |= faults_of_table("freshness", mapping["freshness"], FRESHNESS)
    if mapping.get("buffers") is not None:
        faults |= faults_of_buffers(mapping["buffers"])
    return faults


def faults_of_table(name, table, kinds, required=()):
    """What is no table is at fault as a whole; else each of its fields by itself, and those that it lacks."""
    if not isinstance(table, dict):
        return {name}
    faults = {f"{name}.{field}" for field in table if field not in kinds}
    faults |= {f"{name}.{field}" for field, kind in kinds.items() if field in table and not kind(table[field])}
    return faults | {f"{name}.{field}" for field in required if field not in table}


def faults_of_buffers(table):
    faults = faults_of_table("buffers", table, BUFFERS)
    if faults == {"buffers"}:
        return faults
    told = {field for field in BUFFER_DEFAULTS if f"buffers.{field}" in faults}

    def value(field):
        given = table.get(field, BUFFER_DEFAULTS[field])
        return bytes_of(given)

    # (at fault, with which other field, holds). A rule is not asked about a field that is at fault already, and of two
    # bounds that contradict each other neither is good to judge a third field by.
    rules = (
        ("min_buffer_size", "max_buffer_size", lambda low, high: low <= high),
        ("default_buffer_size", "min_buffer_size", lambda it, low: it >= low),
        ("default_buffer_size", "max_buffer_size", lambda it, high: it <= high),
        ("chunk_size", "min_buffer_size", lambda it, low: it >= low),
        ("chunk_size", "max_buffer_size", lambda it, high: it <= high),
        ("large_object_threshold", "very_large_object_threshold", lambda large, very: large < very),
        ("max_pool_bytes", "max_buffer_size", lambda pool, high: pool >= high),
    )
    for field, other, holds in rules:
        if field in told or other in told or (field == "chunk_size" and table.get("chunk_size") is None):
            continue
        if not holds(value(field), value(other)):
            faults.add(f"buffers.{field}")
            told |= {field, other} if field == "min_buffer_size" else {field}
    return faults


def faults_of_tiers(tiers):
    """At least one; each by itself; no folder twice."""
    if not isinstance(tiers, list) or not tiers:
        return {"tiers"}
    faults = set()
    folders = set()
    for index, tier in enumerate(tiers):
        name = f"tiers[{index}]"
        if not isinstance(tier, dict):
            faults.add(name)
            continue
        kind = tier.get("type")
        if isinstance(kind, str) and kind in TIERS:
            fields = {field: value for field, value in tier.items() if field != "type"}
            faults |= faults_of_table(name, fields, TIERS[kind], REQUIRED[kind])
        else:
            # Of a tier of no known kind, what every kind has is judged all the same.
            faults |= {f"{name}.type"}
            faults |= faults_of_table(name, {field: tier[field] for field in EVERY_TIER if field in tier}, EVERY_TIER)
        largest, capacity = tier.get("max_object_size"), tier.get("capacity")
        both = largest is not None and capacity is not None and kind != "given"
        if both and not faults & {f"{name}.max_object_size", f"{name}.capacity"}:
            faults |= {f"{name}.max_object_size"} if bytes_of(largest) > bytes_of(capacity) else set()
        if kind == "file" and f"{name}.folder" not in faults:
            # The later one: the first is as good as any.
            if tier["folder"] in folders:
                faults.add(f"{name}.folder")
            folders.add(tier["folder"])
    return faults


def faults_of_origin(origin):
    if not isinstance(origin, dict):
        return {"origin"}
    kind = origin.get("type")
    if not isinstance(kind, str) or kind not in ORIGINS:
        return {"origin.type"}
    fields = {field: value for field, value in origin.items() if field not in ("type", "headers")}
    faults = faults_of_table("origin", fields, ORIGINS[kind], ORIGIN_REQUIRED[kind])
    if "headers" in origin:
        if kind != "http" or not isinstance(origin["headers"], dict):
            faults.add("origin.headers")
        else:
            for name, value in origin["headers"].items():
                faults |= {f"origin.headers.{name}{part}" for part in faults_of_header(name, value)}
    return faults


def faults_of_header(name, value):
    """Text without line breaks, or a reference to a secret; a name that tells of a secret takes the latter only. Of a
    reference the part at fault is named."""
    if isinstance(value, dict):
        faults = {f".{part}" for part in value if part not in ("env", "file")}
        if faults:
            return faults
        faults = {f".{part}" for part, place in value.items() if not text(place)}
        # By one of the two: the first is told of none and of both.
        return faults or ({".env"} if len(value) != 1 else set())
    lowered = name.lower()
    secret = lowered in SECRET_HEADERS or any(part in lowered for part in SECRET_PARTS)
    plain = isinstance(value, str) and not set(value) & set("\r\n\0") and not SECRET_VALUE.match(value)
    return set() if plain and not secret else {""}
