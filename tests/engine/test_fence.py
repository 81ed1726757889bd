"""The fence: every order of claims, advances and publications of one key."""

from __future__ import annotations

import itertools
import threading

from daramjwee.engine.fence import Fence


def test_no_order_of_steps_lets_an_older_fill_replace_a_newer_state() -> None:
    """Two fills and two changes of a key, in every order: a fill publishes only if nothing changed since its start."""
    steps = ["claim a", "publish a", "claim b", "publish b", "change 1", "change 2"]
    orders = [
        order
        for order in itertools.permutations(steps)
        if order.index("claim a") < order.index("publish a") and order.index("claim b") < order.index("publish b")
    ]
    assert len(orders) == 180
    for order in orders:
        fence, claims = Fence(), {}
        for position, step in enumerate(order):
            what, name = step.split()
            if what == "claim":
                claims[name] = (fence.claim("k"), position)
            elif what == "change":
                fence.release(fence.advance("k"))
            else:
                claim, since = claims[name]
                changed = any(order[i].startswith("change") for i in range(since, position))
                assert claim.is_current() == (not changed), order
                fence.release(claim)
        assert len(fence) == 0, "a key at rest is remembered"


def test_keys_do_not_disturb_each_other() -> None:
    """A change of one key ends no claim of another."""
    fence = Fence()
    claim = fence.claim("a")
    fence.release(fence.advance("b"))
    assert claim.is_current()


def test_of_many_changes_at_once_exactly_the_last_stays_current() -> None:
    """64 threads change one key: one claim is current in the end, and none is lost."""
    fence, claims = Fence(), []
    barrier = threading.Barrier(64)

    def change() -> None:
        barrier.wait()
        claims.append(fence.advance("k"))

    threads = [threading.Thread(target=change) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim.is_current() for claim in claims) == 1
    for claim in claims:
        fence.release(claim)
        fence.release(claim)
    assert len(fence) == 0
