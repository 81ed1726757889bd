"""Memory on loan and moving bytes: the buffer pool, leases, the ledger, copies and tees. Usable alone."""

from __future__ import annotations

from daramjwee.buffers.config import BufferPoolConfig, LeakDetection
from daramjwee.buffers.copy import CopyResult
from daramjwee.buffers.kernel_copy import send_file
from daramjwee.buffers.lease import Lease
from daramjwee.buffers.ledger import MemoryLedger
from daramjwee.buffers.pool import BufferPool
from daramjwee.buffers.stats import BufferPoolStats
from daramjwee.buffers.strategy import SizeClass, Strategy, size_class
from daramjwee.buffers.tee import ChunkedTeeReader, TeeStats

__all__ = [
    "BufferPool",
    "BufferPoolConfig",
    "BufferPoolStats",
    "ChunkedTeeReader",
    "CopyResult",
    "LeakDetection",
    "Lease",
    "MemoryLedger",
    "SizeClass",
    "Strategy",
    "TeeStats",
    "send_file",
    "size_class",
]
