"""What a running process tells of itself: its dashboard document, on a private Unix socket; and what a doctor finds.

Each name is imported when it is first asked for: one who asks has no need of what one who offers needs.
Design: docs/monitoring.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daramjwee.observe.client import NoDashboard, ask, decode, find
    from daramjwee.observe.offer import Dashboard, offer_dashboard

__all__ = ["Dashboard", "NoDashboard", "ask", "decode", "find", "offer_dashboard"]

_HOMES = {
    "Dashboard": "offer", "NoDashboard": "client", "ask": "client", "decode": "client", "find": "client",
    "offer_dashboard": "offer",
}  # fmt: skip


if not TYPE_CHECKING:  # a checker that sees it takes every misspelt name for one that exists

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value: object = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value
