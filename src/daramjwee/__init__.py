"""daramjwee caches streams: read at once, fetch once, keep every byte inside one memory limit."""

from __future__ import annotations

__version__ = "0.1.0"
