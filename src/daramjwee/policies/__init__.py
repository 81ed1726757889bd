"""Eviction order with weights in bytes: `Sieve`, `Lru`, and `make_policy` by name. No IO, no locks, no bytes.

Invariant: every item that was added and not removed comes out of `evict` exactly once.
Threads: the caller's lock guards every method; only `item.visited` may be set without it.
Design: docs/design/stores.md
"""

from __future__ import annotations

from daramjwee.policies.lru import Lru
from daramjwee.policies.order import Policy, Ranked
from daramjwee.policies.sieve import Sieve

__all__ = ["POLICY_NAMES", "Lru", "Policy", "Ranked", "Sieve", "make_policy"]

_POLICIES: dict[str, type[Policy]] = {Sieve.name: Sieve, Lru.name: Lru}
POLICY_NAMES = tuple(_POLICIES)


def make_policy(name: str) -> Policy:
    """A fresh policy by its `name`; `ValueError` lists the names there are."""
    kind = _POLICIES.get(name)
    if kind is None:
        raise ValueError(f"no policy is called {name!r}; use one of {', '.join(POLICY_NAMES)}")
    return kind()
