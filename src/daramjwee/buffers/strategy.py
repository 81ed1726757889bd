"""Size classes and strategies: the words for how large an object is and how its bytes are moved.

Pure: values in, values out.
Design: docs/design/memory.md
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from daramjwee.units import KIB

if TYPE_CHECKING:
    from daramjwee.buffers.config import BufferPoolConfig

# Below this an object costs less to move than to decide about; the other two bounds are configured.
MEDIUM_FROM = 32 * KIB


class SizeClass(enum.Enum):
    """How large an object is: small < 32 KiB <= medium < `large_object_threshold` <= large
    < `very_large_object_threshold` <= very large."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"
    VERY_LARGE = "very_large"


class Strategy(enum.Enum):
    """How bytes are moved.

    POOLED: one leased buffer for the whole object. CHUNKED: a loop over one reused chunk. DIRECT: no pooled
    memory, the kernel's own copy where both ends are descriptors, else a private buffer that is given back
    at once. ADAPTIVE: chosen for each operation.
    """

    POOLED = "pooled"
    CHUNKED = "chunked"
    DIRECT = "direct"
    ADAPTIVE = "adaptive"


# An access to a member costs 95 ns, a module's name 10: the hot paths use these.
POOLED = Strategy.POOLED
CHUNKED = Strategy.CHUNKED
DIRECT = Strategy.DIRECT
ADAPTIVE = Strategy.ADAPTIVE


def size_class(size: int, config: BufferPoolConfig) -> SizeClass:
    """The class of an object of `size` bytes under the thresholds of `config`."""
    if size >= config.very_large_object_threshold:
        return SizeClass.VERY_LARGE
    if size >= config.large_object_threshold:
        return SizeClass.LARGE
    return SizeClass.MEDIUM if size >= MEDIUM_FROM else SizeClass.SMALL
