"""Fence: a fill that began before a set, delete or refresh of its key never replaces the newer state.

A fill claims its key when it begins. Whatever changes the key advances it: earlier claims are over from that
instant, and the guard that a store asks at publication says so. A claim exists only while its work runs, so
nothing is kept for keys at rest.

Invariant: of all claims of one key at most those made since the last advance are current.
Threads: any; one lock, held for a few dictionary operations. `Claim.is_current` takes none, as it is called
under the lock of a store.
Design: docs/design/concurrency.md
"""

from __future__ import annotations

import threading


class Claim:
    """The right to publish for a key, until somebody advances it."""

    __slots__ = ("_current", "changing", "key")

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
        self._claims: dict[str, set[Claim]] = {}

    def __len__(self) -> int:
        return len(self._claims)

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
                claims.discard(claim)
                if not claims:
                    del self._claims[claim.key]

    def _claim(self, key: str, *, advance: bool, changing: bool = False) -> Claim:
        claim = Claim(key, changing=changing)
        with self._lock:
            claims = self._claims.setdefault(key, set())
            if advance:
                for earlier in claims:
                    earlier._current = False
            elif any(other.changing for other in claims):
                claim._current = False
            claims.add(claim)
        return claim
