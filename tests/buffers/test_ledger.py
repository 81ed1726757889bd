"""MemoryLedger: the bound, the line, the reclaimers."""

from __future__ import annotations

import gc
import os
import threading
from collections import deque

import pytest

from daramjwee.buffers import MemoryLedger
from daramjwee.buffers.ledger import LedgerKernel, Ticket
from daramjwee.errors import ConfigError, LimitExceeded, Overloaded


def test_every_interleaving_of_the_kernel_keeps_the_bound_and_the_order():
    """Explored exhaustively: takes, joins, leaves and gives of small amounts in any order, 6 deep."""
    limit, amounts = 3, (1, 2, 3)
    seen = set()
    explored = 0

    def build(path):
        kernel = LedgerKernel(limit)
        held: list[int] = []  # what callers hold and owe
        tickets: list[Ticket] = []
        granted_order: list[Ticket] = []
        for step, value in path:
            before = [ticket for ticket in tickets if not ticket.granted]
            if step == "take":
                taken = kernel.take(value)
                assert taken == (not before and sum(held) + value <= limit)
                if taken:
                    held.append(value)
            elif step == "join":
                ticket = Ticket(value)
                tickets.append(ticket)
                kernel.join(ticket)
            elif step == "give":
                kernel.give(held.pop(value))
            else:
                kernel.leave(before[value])
                tickets.remove(before[value])
            for ticket in tickets:
                if ticket.granted and ticket not in granted_order:
                    granted_order.append(ticket)
                    held.append(ticket.need)
            waiting = [ticket for ticket in tickets if not ticket.granted]
            assert kernel.held == sum(held) <= limit
            assert list(kernel.line) == waiting
            assert granted_order == [ticket for ticket in tickets if ticket.granted][: len(granted_order)]
            # Nobody waits for what is free.
            assert not waiting or kernel.held + waiting[0].need > limit
        return held, [ticket.need for ticket in tickets if not ticket.granted]

    todo = deque([()])
    while todo:
        path = todo.popleft()
        held, waiting = build(path)
        explored += 1
        state = (tuple(sorted(held)), tuple(waiting), len(path))
        if state in seen or len(path) == 6:
            continue
        seen.add(state)
        todo.extend((*path, ("take", amount)) for amount in amounts)
        todo.extend((*path, ("join", amount)) for amount in amounts)
        todo.extend((*path, ("give", index)) for index in range(len(held)))
        todo.extend((*path, ("leave", index)) for index in range(len(waiting)))
    assert explored > 500


def test_charges_and_credits_are_counted_exactly():
    """`held` is what was charged minus what was credited; `peak` remembers the most."""
    ledger = MemoryLedger("1KiB")
    assert ledger.limit == 1024 and ledger.try_charge(1000) and not ledger.try_charge(25)
    ledger.credit(600)
    ledger.credit_later(100)
    assert ledger.held == 300 and ledger.peak == 1000
    assert repr(ledger) == "<MemoryLedger 300B of 1KiB held, peak 1000B>"


@pytest.mark.parametrize("limit", [0, -1, "many", True])
def test_a_limit_that_cannot_be_is_refused(limit):
    """`ConfigError` names it."""
    with pytest.raises(ConfigError, match="limit"):
        MemoryLedger(limit)


def test_a_request_that_can_never_fit_is_told_at_once():
    """`LimitExceeded`, without a wait."""
    ledger = MemoryLedger(100)
    with pytest.raises(LimitExceeded, match="101B can never fit into the memory limit of 100B"):
        ledger.charge(101)


def test_crediting_more_than_is_held_is_an_error():
    """Something credited twice is a bug of the caller, and said."""
    with pytest.raises(ValueError, match="credited twice"):
        MemoryLedger(100).credit(1)


def test_a_wait_in_vain_is_overloaded_with_a_time_to_retry():
    """Nothing is held afterwards, and the line is empty again."""
    ledger = MemoryLedger(100)
    ledger.charge(60)
    with pytest.raises(Overloaded, match="41B of memory") as caught:
        ledger.charge(41, timeout=0)
    assert caught.value.retry_after > 0
    assert ledger.held == 60 and ledger.waiting == 0


def test_waiters_are_served_in_order_and_never_overtaken():
    """A small request behind a large one waits, and `try_charge` does not slip past."""
    ledger = MemoryLedger(100)
    ledger.charge(80)
    order: list[int] = []

    def wait_for(count: int) -> None:
        ledger.charge(count, timeout=30)
        order.append(count)

    threads = []
    for position, count in enumerate((90, 10), start=1):
        thread = threading.Thread(target=wait_for, args=(count,))
        thread.start()
        threads.append(thread)
        while ledger.waiting < position:
            threads[-1].join(0.001)
    assert not ledger.try_charge(10)
    ledger.credit(80)
    for thread in threads:
        thread.join()
    assert sorted(order) == [10, 90] and ledger.held == 100


def test_reclaimers_are_asked_before_anybody_waits():
    """One after another, for what is missing, with no lock held; what fails is logged and passed over."""
    ledger = MemoryLedger(100)
    ledger.charge(100)
    asked: list[tuple[str, int]] = []

    def broken(count: int) -> int:
        raise RuntimeError("no")

    def little(count: int) -> int:
        asked.append(("little", count))
        ledger.credit(10)
        return 10

    def enough(count: int) -> int:
        asked.append(("enough", count))
        ledger.credit(count)
        return count

    for reclaim in (broken, little, enough):
        ledger.add_reclaimer(reclaim)
    ledger.charge(30, timeout=0)
    assert asked == [("little", 30), ("enough", 20)] and ledger.held == 100
    ledger.remove_reclaimer(little)
    ledger.remove_reclaimer(little)
    asked.clear()
    ledger.charge(5, timeout=0)
    assert asked == [("enough", 5)]


def test_a_failing_reclaimer_is_logged(caplog):
    """It must not fail the request of somebody else, and must not be silent."""
    ledger = MemoryLedger(10)
    ledger.charge(10)

    def broken(count: int) -> int:
        raise RuntimeError("cannot")

    ledger.add_reclaimer(broken)
    with pytest.raises(Overloaded):
        ledger.charge(1, timeout=0)
    assert "failed to free 1 bytes" in caplog.text and "cannot" in caplog.text


def test_a_bound_method_does_not_keep_its_object_alive():
    """An owner that is gone is not asked."""

    class Owner:
        def reclaim(self, count: int) -> int:
            raise AssertionError("asked after its end")

    ledger = MemoryLedger(10)
    owner = Owner()
    ledger.add_reclaimer(owner.reclaim)
    del owner
    gc.collect()
    ledger.charge(10)
    with pytest.raises(Overloaded):
        ledger.charge(1, timeout=0)


def test_sixteen_threads_leave_the_exact_count():
    """The bound holds at every look, and everything is credited at the end."""
    ledger = MemoryLedger(1000)
    over: list[int] = []
    start = threading.Barrier(17)

    def work(seed: int) -> None:
        start.wait()
        for turn in range(300):
            count = (seed * 31 + turn * 17) % 400 + 1
            ledger.charge(count, timeout=30)
            if ledger.held > 1000:
                over.append(ledger.held)
            (ledger.credit if turn % 2 else ledger.credit_later)(count)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    start.wait()
    for thread in threads:
        thread.join()
    assert not over and ledger.held == 0 and ledger.waiting == 0 and 0 < ledger.peak <= 1000


def test_a_credit_from_a_finalizer_inside_the_lock_is_not_lost():
    """It neither blocks nor disappears: the holder of the lock applies it."""
    ledger = MemoryLedger(10)
    ledger.charge(10)
    with ledger._lock:  # what a collector run inside the ledger's own work looks like
        ledger.credit_later(4)
        assert ledger._kernel.held == 10
    assert ledger.held == 6


def test_a_forked_child_begins_with_nothing_held():
    """A new epoch, a free lock; what was charged before may still be credited and counts no more."""
    ledger = MemoryLedger(100)
    ledger.charge(70)
    epoch = ledger.epoch
    with ledger._lock:  # as if another thread were inside at the moment of the fork
        pid = os.fork()
    if pid == 0:
        ok = ledger.held == 0 and ledger.epoch == epoch + 1 and ledger.try_charge(100)
        ledger.credit(100)
        ledger.credit(70)
        os._exit(0 if ok and ledger.held == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert ledger.held == 70 and ledger.epoch == epoch
