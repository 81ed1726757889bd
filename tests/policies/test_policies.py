"""Policies against naive models: the same operations, the same victims, the same weights."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.policies import POLICY_NAMES, Lru, Ranked, Sieve, make_policy


class Item(Ranked):
    __slots__ = ("key",)

    def __init__(self, key: int, weight: int) -> None:
        super().__init__(weight)
        self.key = key


class NaiveLru:
    def __init__(self):
        self.order = []

    def add(self, key):
        self.order.append(key)

    def remove(self, key):
        self.order.remove(key)

    def hit(self, key):
        self.order.remove(key)
        self.order.append(key)

    def evict(self):
        return self.order.pop(0) if self.order else None


class NaiveSieve:
    """Written from the rule alone: a list of [key, visited], and the index of the hand."""

    def __init__(self):
        self.order, self.hand = [], None

    def add(self, key):
        self.order.append([key, False])

    def remove(self, key):
        at = [pair[0] for pair in self.order].index(key)
        self._drop(at)

    def _drop(self, at):
        del self.order[at]
        if self.hand is not None and self.hand > at:
            self.hand -= 1
        if self.hand is not None and self.hand >= len(self.order):
            self.hand = None

    def hit(self, key):
        next(pair for pair in self.order if pair[0] == key)[1] = True

    def evict(self):
        if not self.order:
            return None
        at = self.hand or 0
        while self.order[at][1]:
            self.order[at][1] = False
            at = (at + 1) % len(self.order)
        key = self.order[at][0]
        self.hand = at + 1
        self._drop(at)
        return key


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["add", "hit", "hit", "remove", "evict"]), st.integers(0, 12), st.integers(0, 1000)),
    max_size=120,
)


@pytest.mark.parametrize(("policy_type", "model_type"), [(Sieve, NaiveSieve), (Lru, NaiveLru)])
@given(operations=OPERATIONS)
def test_a_policy_evicts_exactly_what_its_naive_model_evicts(policy_type, model_type, operations):
    """Same operations, same victims, and count and weight are those of the items inside."""
    policy, model, items = policy_type(), model_type(), {}
    for verb, key, weight in operations:
        if verb == "add" and key not in items:
            items[key] = Item(key, weight)
            policy.add(items[key])
            model.add(key)
        elif verb == "hit" and key in items:
            policy.touch(items[key])
            model.hit(key)
        elif verb == "remove" and key in items:
            policy.remove(items.pop(key))
            model.remove(key)
        elif verb == "evict":
            victim = policy.evict()
            assert (None if victim is None else victim.key) == model.evict()
            if victim is not None:
                del items[victim.key]
        assert len(policy) == len(items) == len(list(policy))
        assert policy.weight == sum(item.weight for item in items.values())


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_every_item_comes_out_exactly_once(name):
    """Draining a policy yields every item once, then None."""
    policy = make_policy(name)
    for key in range(50):
        policy.add(Item(key, 1))
    assert sorted(policy.evict().key for _ in range(50)) == list(range(50))
    assert policy.evict() is None and policy.weight == 0


def test_a_sieve_hit_is_one_plain_attribute_and_spares_the_item_once():
    """Setting `visited` is all that a hit does; the hand clears it in passing."""
    policy, old, new = Sieve(), Item(1, 1), Item(2, 1)
    policy.add(old)
    policy.add(new)
    old.visited = True
    assert policy.evict() is new
    assert old.visited is False
    assert policy.evict() is old


def test_the_hand_stops_although_readers_keep_setting_every_bit():
    """Hits that arrive while the hand walks cannot keep it walking for ever."""

    class AlwaysHit(Item):
        __slots__ = ()
        visited = property(lambda self: True, lambda self, value: None)

    policy = Sieve()
    for key in range(5):
        policy.add(AlwaysHit(key, 1))
    assert policy.evict() is not None and len(policy) == 4


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_an_item_cannot_be_added_twice_and_removing_it_twice_does_nothing(name):
    policy, item = make_policy(name), Item(1, 7)
    policy.add(item)
    with pytest.raises(ValueError, match="remove it first"):
        policy.add(item)
    policy.remove(item)
    policy.remove(item)
    assert (len(policy), policy.weight) == (0, 0)
    assert item.newer is None and item.older is None


def test_an_unknown_policy_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="sieve, lru"):
        make_policy("mru")


def test_a_policy_tells_what_it_holds():
    policy = Sieve()
    policy.add(Item(1, 512))
    assert repr(policy) == "<Sieve 1 item, 512 bytes>"
