"""Memory on loan and moving bytes: the buffer pool, leases, the ledger, copies and tees. Usable alone."""

from __future__ import annotations

from daramjwee.buffers.adaptive import AdaptiveBufferPool
from daramjwee.buffers.chunked import chunked_copy
from daramjwee.buffers.config import BufferPoolConfig, LeakDetection
from daramjwee.buffers.copy import CopyResult
from daramjwee.buffers.gate import GateStats, LargeOperationGate, Priority
from daramjwee.buffers.kernel_copy import send_file
from daramjwee.buffers.lease import Lease
from daramjwee.buffers.ledger import MemoryLedger
from daramjwee.buffers.pool import BufferPool
from daramjwee.buffers.pressure import PressureLevel
from daramjwee.buffers.stats import BufferPoolStats, ChunkClassStats
from daramjwee.buffers.strategy import Decision, Endpoint, SizeClass, Strategy, select_strategy, size_class
from daramjwee.buffers.tee import ChunkedTeeReader, TeeStats

__all__ = [
    "AdaptiveBufferPool",
    "BufferPool",
    "BufferPoolConfig",
    "BufferPoolStats",
    "ChunkClassStats",
    "ChunkedTeeReader",
    "CopyResult",
    "Decision",
    "Endpoint",
    "GateStats",
    "LargeOperationGate",
    "LeakDetection",
    "Lease",
    "MemoryLedger",
    "PressureLevel",
    "Priority",
    "SizeClass",
    "Strategy",
    "TeeStats",
    "chunked_copy",
    "select_strategy",
    "send_file",
    "size_class",
]
