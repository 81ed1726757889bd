"""The settings of a whole cache: from files, mappings, URLs and the environment, checked as one."""

from __future__ import annotations

from daramjwee.config.model import (
    CacheConfig,
    FileOriginConfig,
    FileTier,
    GivenOrigin,
    GivenTier,
    HttpOriginConfig,
    MemoryTier,
    Secret,
)
from daramjwee.config.settings import SETTINGS, Setting

__all__ = [
    "SETTINGS",
    "CacheConfig",
    "FileOriginConfig",
    "FileTier",
    "GivenOrigin",
    "GivenTier",
    "HttpOriginConfig",
    "MemoryTier",
    "Secret",
    "Setting",
]
