"""For users and authors of stores: the store suite, a clock, a scripted origin, a check for leaks.

Invariant: each name is imported when it is first used, so that only `StoreSuite` needs pytest.
Threads: any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daramjwee.testing.clock import ManualClock
    from daramjwee.testing.leaks import no_leaks
    from daramjwee.testing.origin import Gate, ScriptedOrigin
    from daramjwee.testing.store_suite import StoreSuite

_HOMES = {
    "Gate": "origin",
    "ManualClock": "clock",
    "ScriptedOrigin": "origin",
    "StoreSuite": "store_suite",
    "no_leaks": "leaks",
}
__all__ = ["Gate", "ManualClock", "ScriptedOrigin", "StoreSuite", "no_leaks"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
