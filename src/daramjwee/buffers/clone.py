"""Clones: a file system that shares blocks gives a file the bytes of another without moving them.

Invariant: whether two devices share is found out once, by the first copy that could use it; a refusal moves nothing.
Threads: any.
Design: docs/design/memory.md
"""

from __future__ import annotations

import errno
import struct
import sys

# FICLONERANGE of Linux, for (source, its offset, length, target's offset). Machines that number it otherwise, and
# other systems, refuse it: no harm.
FICLONERANGE = 0x4020940D
# Offsets must be multiples of the file system's block: 4 KiB, but for the rare one, which refuses then.
BLOCK_BYTES = 4096
_AVAILABLE = sys.platform == "linux"
# "Not here, ever", as opposed to "not this range".
_NEVER = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EPERM)
# More devices than this were never seen by one process that does not mount and unmount all day.
_MOST_REMEMBERED = 4096

# Devices that share nothing, and pairs (source, target) that do not share with each other.
refusing: set[int | tuple[int, int]] = set()


def may_share(position: int) -> bool:
    """Whether a file may share its bytes from `position` on, if its device is not known to refuse."""
    return _AVAILABLE and not position % BLOCK_BYTES


def share(source: tuple[int, int, int], target: tuple[int, int, int], count: int, *, to_the_end: bool) -> int:
    """Have the `target` share `count` bytes of the `source`, both (descriptor, position, device); the bytes shared: 0
    when that is refused. `to_the_end`: `count` reaches the end of the source; else whole blocks only are shared."""
    fd, position, device = source
    out, out_position, out_device = target
    if (device, out_device) in refusing or out_position % BLOCK_BYTES or position % BLOCK_BYTES:
        return 0
    length = count if to_the_end else count - count % BLOCK_BYTES
    if length <= 0:
        return 0
    try:
        _ioctl(out, FICLONERANGE, struct.pack("=qQQQ", fd, position, length, out_position))
    except OSError as error:
        if error.errno in _NEVER and device == out_device:
            _remember(device)
        elif error.errno in _NEVER or error.errno == errno.EXDEV:
            _remember((device, out_device))
        return 0
    return length


def _remember(device: int | tuple[int, int]) -> None:
    if len(refusing) >= _MOST_REMEMBERED:
        refusing.clear()
    refusing.add(device)


def _ioctl(descriptor: int, request: int, argument: bytes) -> None:
    import fcntl

    fcntl.ioctl(descriptor, request, argument)
