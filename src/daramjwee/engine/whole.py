"""All bytes of a stream at once, within a limit.

Invariant: no more than the limit and one piece is ever held.
Threads: as the stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daramjwee.errors import LimitExceeded, shorten
from daramjwee.fills.stream import STEP_BYTES
from daramjwee.units import format_size

if TYPE_CHECKING:
    from daramjwee.fills.stream import CacheStream


def read_all(stream: CacheStream, limit: int) -> bytes:
    """The bytes, or `LimitExceeded` when there are more than `limit`."""
    size = stream.size
    if size is None:
        rest = stream.take_rest(limit)
        if rest is not None:
            return rest
        pieces: list[bytes] = []
        total = 0
        while piece := stream.read1(STEP_BYTES):
            total += len(piece)
            if total > limit:
                break
            pieces.append(piece)
        else:
            return b"".join(pieces)
    elif size <= limit:
        return stream.read()
    much = "more than" if size is None else f"{format_size(size)}, more than"
    raise LimitExceeded(
        f"{shorten(stream.key)} has {much} max_bytes={format_size(limit)}: read it with open(), or raise max_bytes"
    )
