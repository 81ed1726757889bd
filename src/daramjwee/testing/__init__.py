"""For users and authors of stores: the store suite, a clock, a scripted origin, a check for leaks.

Invariant: each name is imported when it is first used, so that only `StoreSuite` needs pytest.
Threads: any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daramjwee.testing.clock import ManualClock
    from daramjwee.testing.leaks import no_leaks
    from daramjwee.testing.origin import Gate, ScriptedOrigin
    from daramjwee.testing.store_suite import CAPACITY, StoreSuite, fetch, pattern, put, read_all

_HOMES = {
    "CAPACITY": "store_suite",
    "Gate": "origin",
    "ManualClock": "clock",
    "ScriptedOrigin": "origin",
    "StoreSuite": "store_suite",
    "fetch": "store_suite",
    "no_leaks": "leaks",
    "pattern": "store_suite",
    "put": "store_suite",
    "read_all": "store_suite",
}
__all__ = [
    "CAPACITY",
    "Gate",
    "ManualClock",
    "ScriptedOrigin",
    "StoreSuite",
    "fetch",
    "no_leaks",
    "pattern",
    "put",
    "read_all",
]


if not TYPE_CHECKING:  # a checker that sees it takes every misspelt name for one that exists

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        try:
            module = import_module(f"{__name__}.{_HOMES[name]}")
        except ModuleNotFoundError as error:
            if error.name != "pytest":
                raise
            raise ImportError(f"{__name__}.{name} needs pytest, which is not installed: pip install pytest") from error
        return getattr(module, name)
