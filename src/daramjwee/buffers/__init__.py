"""Memory on loan and moving bytes: the buffer pool, leases, the ledger, copies and tees. Usable alone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from daramjwee.buffers.adaptive import AdaptiveBufferPool
from daramjwee.buffers.chunked import chunked_copy
from daramjwee.buffers.config import BufferPoolConfig, LeakDetection
from daramjwee.buffers.copy import CopyResult
from daramjwee.buffers.gate import GateStats, LargeOperationGate, Priority
from daramjwee.buffers.kernel_copy import send_file
from daramjwee.buffers.latency import LatencyHistogram
from daramjwee.buffers.lease import Lease
from daramjwee.buffers.ledger import MemoryLedger
from daramjwee.buffers.pool import BufferPool
from daramjwee.buffers.pressure import PressureLevel
from daramjwee.buffers.stats import (
    AllocationStats,
    BufferPoolStats,
    ChunkClassStats,
    Operations,
    OperationStats,
    SizeShare,
)
from daramjwee.buffers.strategy import Decision, Endpoint, SizeClass, Strategy, select_strategy, size_class
from daramjwee.buffers.tee import ChunkedTeeReader, TeeStats

if TYPE_CHECKING:
    from daramjwee.buffers.insight.advice import advise
    from daramjwee.buffers.insight.alerts import Alert, AlertRule
    from daramjwee.buffers.insight.finding import Finding, Severity
    from daramjwee.buffers.insight.monitor import Monitor
    from daramjwee.buffers.insight.trend import Trend, TrendPoint
    from daramjwee.buffers.pressure import MemoryPressure, Reading, Thresholds

__all__ = [
    "AdaptiveBufferPool",
    "Alert",
    "AlertRule",
    "AllocationStats",
    "BufferPool",
    "BufferPoolConfig",
    "BufferPoolStats",
    "ChunkClassStats",
    "ChunkedTeeReader",
    "CopyResult",
    "Decision",
    "Endpoint",
    "Finding",
    "GateStats",
    "LargeOperationGate",
    "LatencyHistogram",
    "LeakDetection",
    "Lease",
    "MemoryLedger",
    "MemoryPressure",
    "Monitor",
    "OperationStats",
    "Operations",
    "PressureLevel",
    "Priority",
    "Reading",
    "Severity",
    "SizeClass",
    "SizeShare",
    "Strategy",
    "TeeStats",
    "Thresholds",
    "Trend",
    "TrendPoint",
    "advise",
    "chunked_copy",
    "select_strategy",
    "send_file",
    "size_class",
]

# What tells of a pool is imported when it is first asked for: moving bytes needs none of it.
_LATE = {
    "Alert": "insight.alerts",
    "AlertRule": "insight.alerts",
    "Finding": "insight.finding",
    "MemoryPressure": "pressure",
    "Monitor": "insight.monitor",
    "Reading": "pressure",
    "Severity": "insight.finding",
    "Thresholds": "pressure",
    "Trend": "insight.trend",
    "TrendPoint": "insight.trend",
    "advise": "insight.advice",
}

if not TYPE_CHECKING:  # a checker that sees it takes every misspelt name for one that exists

    def __getattr__(name: str) -> object:
        home = _LATE.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
