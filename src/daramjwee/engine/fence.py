"""Fence: a fill that began before a set, delete or refresh of its key never replaces the newer state.

A fill claims its key when it begins. Whatever changes the key advances it: earlier claims are over from that
instant, and the guard that a store asks at publication says so. A claim exists only while its work runs, so
nothing is kept for keys at rest.

Invariant: of all claims of one key at most those made since the last advance are current. A claim is referred to weakly:
one that an interrupt took from whoever worked is over with the last reference to it.
Threads: any; one lock, held for a few dictionary operations. `Claim.is_current` takes none, as it is called
under the lock of a store.
Design: docs/design/concurrency.md
"""

from __future__ import annotations

import threading
import weakref


class Claim:
    """The right to publish for a key, until somebody advances it."""

    __slots__ = ("__weakref__", "_current", "changing", "key")

    def __init__(self, key: str, *, changing: bool = False) -> None:
        self.key = key
        self.changing = changing  # the tiers are being changed on its behalf: some have the old state, some the new
        self._current = True

    def is_current(self) -> bool:
        return self._current


class Fence:
    """The claims of all keys that are being worked on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[str, set[weakref.ref[Claim]]] = {}

    def __len__(self) -> int:
        with self._lock:
            return self._count_locked()

    def claim(self, key: str) -> Claim:
        """Begin a fill. While the key is being changed it may see the old state, so it is over before it begins."""
        return self._claim(key, advance=False)

    def advance(self, key: str, *, changing: bool = False) -> Claim:
        """Begin a change: every earlier claim of `key` is over, the new one is current. `changing`: so are those that
        are made before it is settled or released."""
        return self._claim(key, advance=True, changing=changing)

    def settle(self, claim: Claim) -> None:
        """The tiers have the new state, all that is left is to copy it."""
        claim.changing = False

    def release(self, claim: Claim) -> None:
        """The work is over, published or not. Releasing twice does nothing."""
        with self._lock:
            claims = self._claims.get(claim.key)
            if claims is not None:
                claims.discard(weakref.ref(claim))
                if not claims:
                    del self._claims[claim.key]

    def _claim(self, key: str, *, advance: bool, changing: bool = False) -> Claim:
        claim = Claim(key, changing=changing)
        mine = weakref.ref(claim)
        with self._lock:
            claims = self._claims.get(key)
            if claims is None:
                self._claims[key] = {mine}
            else:
                _enter_locked(claims, claim, advance=advance)
                claims.add(mine)
        return claim

    # Functions of their own: an interrupt at the end of a loop could leave the lock taken (see `MemoryLedger._wait`).

    def _count_locked(self) -> int:
        for key, claims in tuple(self._claims.items()):
            if not any(claim() is not None for claim in claims):
                del self._claims[key]
        return len(self._claims)


def _enter_locked(claims: set[weakref.ref[Claim]], claim: Claim, *, advance: bool) -> None:
    for held in tuple(claims):
        other = held()
        if other is None:
            claims.discard(held)
        elif advance:
            other._current = False
        elif other.changing:
            claim._current = False
