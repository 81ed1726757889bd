"""The settings of a whole cache: from files, mappings, URLs and the environment, checked as one."""

from __future__ import annotations

from daramjwee.config.load import Examined, Loaded, examine, load
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
from daramjwee.config.url import tiers_of_url, url_of_tiers
from daramjwee.config.warnings import Unwise, unwise

__all__ = [
    "SETTINGS",
    "CacheConfig",
    "Examined",
    "FileOriginConfig",
    "FileTier",
    "GivenOrigin",
    "GivenTier",
    "HttpOriginConfig",
    "Loaded",
    "MemoryTier",
    "Secret",
    "Setting",
    "Unwise",
    "examine",
    "load",
    "tiers_of_url",
    "unwise",
    "url_of_tiers",
]
