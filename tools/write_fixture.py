"""Write what this release keeps on disk to tests/fixtures/VERSION: a file tier's folder and a configuration.

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

FIXTURES = Path(__file__).parent.parent / "tests" / "fixtures"


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
    return 0


if __name__ == "__main__":
    sys.exit(main())
