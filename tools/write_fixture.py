"""Write what this release keeps on disk to tests/fixtures/VERSION: a file tier's folder, and configurations.

Later releases must read it. Run it once a release, and never again for the same one:

    .venv/bin/python tools/write_fixture.py
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import msgspec

from daramjwee import BufferPoolConfig, Cache, FileStore, Freshness, NotFound, __version__
from daramjwee.config.load import load

FIXTURES = Path(__file__).parent.parent / "tests" / "fixtures"
# As a person writes it: every table, values in the units people use, secrets by reference.
CACHE_TOML = """\
schema = 3
memory_limit = "256MiB"
workers = 2

[[tiers]]
type = "memory"
capacity = "64MiB"
max_entries = 1000

[[tiers]]
type = "file"
folder = "/var/cache/daramjwee"
capacity = "20GiB"
policy = "lru"
durability = "fsync"
verify = "always"

[origin]
type = "http"
base = "https://example.org/models/"
timeout = "1m"
headers = { accept = "*/*", authorization = { env = "EXAMPLE_TOKEN" } }

[freshness]
fresh = "5m"
stale_while_revalidate = "1h"
stale_if_error = "1d"
negative = "30s"

[buffers]
chunk_size = "512KiB"
large_object_strategy = "chunked"
max_concurrent_large_ops = 8
leak_detection = "off"
"""


def content(size: int) -> bytes:
    """Bytes that compress well in a repository and still differ from block to block."""
    return b"".join(b"%08x" % (n // 512) for n in range(size // 8 + 1))[:size]


def main() -> int:
    folder = FIXTURES / __version__
    if folder.exists():
        sys.stderr.write(f"{folder} exists: what a release wrote is never written again\n")
        return 1
    objects = {
        "small": content(100),
        "empty": b"",
        "three blocks": content(3 * 256 * 1024 - 5),
        "odd/../key\0\U0001f43f": content(1000),
    }

    def absent(_request: object) -> bytes:
        raise NotFound("not there")

    with Cache(FileStore(folder / "tier", capacity="16MiB"), freshness=Freshness(negative="3650d")) as cache:
        for key, data in objects.items():
            cache.set(
                key, data, etag='"1"', last_modified="Tue, 24 Nov 2026 00:00:00 GMT", ttl="36500d", tags=["tag"],
                attributes={"content-type": "text/plain"}, digest="sha256:" + hashlib.sha256(data).hexdigest(),
            )  # fmt: skip
        cache.get("absent", absent, default=None)
    expected = {key: hashlib.sha256(data).hexdigest() for key, data in objects.items()}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    config = BufferPoolConfig(chunk_size="512KiB", acquire_timeout="5s", max_pool_bytes="32MiB")
    (folder / "buffers.json").write_bytes(msgspec.json.format(msgspec.json.encode(config)) + b"\n")
    # What a person wrote, and what it means: every field, also those that were left out.
    (folder / "cache.toml").write_text(CACHE_TOML)
    meaning = load(folder / "cache.toml", environ={}).config.to_mapping()
    (folder / "cache.json").write_bytes(msgspec.json.format(msgspec.json.encode(meaning)) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
