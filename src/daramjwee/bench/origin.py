"""A slow HTTP origin in a process of its own, with latency and bandwidth stated: what demo and benchmarks fetch from.

Invariant: one response carries at most `bandwidth` bytes a second however it is written, and its first byte leaves
after `latency`; every GET is counted before it is answered. The server ends with its standard input, so it never
outlives whoever started it.
Threads: an `OriginProcess` may be used from any thread.
Design: docs/design/origins.md
"""

from __future__ import annotations

import json
import os
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

from daramjwee.units import parse_duration, parse_size

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from daramjwee.units import Duration, Size

BLOCK_BYTES = 1024 * 1024
STAMP_BYTES = 8
# What the server may take to say its port: it is a fresh interpreter, on a machine that may be busy.
START_SECONDS = 60.0
STOP_SECONDS = 10.0


@lru_cache(maxsize=16)
def _block(name: str) -> bytes:
    import random

    return random.Random(name).randbytes(BLOCK_BYTES)


def synthetic_bytes(name: str, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of the synthetic object `name`; it has no end, its size is what the server was told.

    One random block of 1 MiB, made from the name, over and over, each with its number stamped in: any part is
    made at the price of a copy, no two blocks are equal, and a client knows the digest without a transfer.
    """
    parts = []
    while start < stop:
        index, offset = divmod(start, BLOCK_BYTES)
        end = min(BLOCK_BYTES, offset + stop - start)
        if offset < STAMP_BYTES:
            stamp = index.to_bytes(STAMP_BYTES, "little")
            parts.append(stamp[offset:end])
        parts.append(_block(name)[max(offset, STAMP_BYTES) : end])
        start += end - offset
    return b"".join(parts)


def synthetic_digest(name: str, size: int, algorithm: str = "sha256") -> str:
    """The hexadecimal digest of the synthetic object `name` of `size` bytes, made without the server."""
    import hashlib

    digest = hashlib.new(algorithm, usedforsecurity=False)
    for start in range(0, size, BLOCK_BYTES):
        digest.update(synthetic_bytes(name, start, min(size, start + BLOCK_BYTES)))
    return digest.hexdigest()


class OriginProcess:
    """A running origin. `close`, or leaving its `with`, ends it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, sizes: Mapping[str, int]) -> None:
        self._process = process
        self._sizes = dict(sizes)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def object_url(self, name: str) -> str:
        """Where the file or synthetic object `name` is served."""
        from urllib.parse import quote

        return f"{self.url}/{quote(name)}"

    def digest(self, name: str, algorithm: str = "sha256") -> str:
        """The digest of the synthetic object `name`."""
        return synthetic_digest(name, self._sizes[name], algorithm)

    def counts(self) -> dict[str, int]:
        """GET requests since the start or the last `reset`, by path."""
        counts: dict[str, int] = json.loads(self._ask("/-/counts"))
        return counts

    def reset(self) -> None:
        """Count from zero again."""
        self._ask("/-/reset")

    def close(self) -> None:
        """End the process; twice is fine."""
        import subprocess

        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(self, path: str) -> bytes:
        from http.client import HTTPConnection

        # Not through urllib: a proxy named in the environment has no business between us and our own child.
        connection = HTTPConnection("127.0.0.1", self.port, timeout=STOP_SECONDS)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<OriginProcess {self.url}, {'ended' if self._process.poll() is not None else 'running'}>"


def slow_origin(
    folder: str | os.PathLike[str] | None = None,
    *,
    synthetic: Mapping[str, Size] | None = None,
    latency: Duration = 0.0,
    bandwidth: Size | None = None,
) -> OriginProcess:
    """Start an origin on a free port of the loopback; leaving its `with` ends it.

    It serves the files of `folder` and the `synthetic` objects (name: size), each response after `latency` and
    at `bandwidth` bytes a second (None: as fast as it can).
    """
    import subprocess

    import daramjwee

    sizes = {name: parse_size(size) for name, size in (synthetic or {}).items()}
    arguments = ["--latency", str(parse_duration(latency))]
    arguments += [] if bandwidth is None else ["--bandwidth", str(parse_size(bandwidth))]
    arguments += [] if folder is None else ["--folder", os.fspath(folder)]
    for name, size in sizes.items():
        arguments += ["--synthetic", f"{name}={size}"]
    # The child has to find this very package, also where it is not installed but on a path set by hand.
    package = os.path.dirname(next(iter(daramjwee.__path__)))
    path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH")) if p)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", "from daramjwee.bench.origin_server import main; main()", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = _first_line(process)
        return OriginProcess(process, json.loads(line)["port"], sizes)
    except BaseException:
        process.kill()
        process.communicate()
        raise


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    import select

    stdout = process.stdout
    assert stdout is not None
    if not select.select([stdout], [], [], START_SECONDS)[0]:
        raise TimeoutError(f"the origin did not start within {START_SECONDS:.0f} s")
    line = stdout.readline()
    if not line.endswith(b"\n"):
        raise RuntimeError(f"the origin ended at once, with status {process.wait()}; it says why above")
    return line


if __name__ == "__main__":
    from daramjwee.bench.origin_server import main

    main()
