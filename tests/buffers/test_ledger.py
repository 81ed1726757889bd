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
    """Explored exhaustively: takes, joins, leaves, gives, abandons and changes of the limit in any order, 5 deep."""
    first_limit, amounts = 3, (1, 2, 3)
    seen = set()
    explored = 0

    def build(path):
        limit = first_limit
        kernel = LedgerKernel(limit)
        held: list[int] = []  # what callers hold and owe
        tickets: list[Ticket] = []
        granted_order: list[Ticket] = []
        held_before = 0
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
            elif step == "resize":
                limit = value
                told = kernel.resize(limit)
                refused = [ticket for ticket in before if ticket.need > limit]
                assert [ticket for ticket in told if ticket.refused] == refused
                assert all(ticket.granted for ticket in told if not ticket.refused)
                for ticket in refused:
                    tickets.remove(ticket)
            elif step == "abandon":
                granted = [ticket for ticket in tickets if ticket.granted and ticket.need in held]
                held.remove(granted[value].need)
                kernel.abandon(granted[value])
                tickets.remove(granted[value])
                granted_order.remove(granted[value])
            else:
                kernel.leave(before[value])
                tickets.remove(before[value])
            for ticket in tickets:
                if ticket.granted and ticket not in granted_order:
                    granted_order.append(ticket)
                    held.append(ticket.need)
            waiting = [ticket for ticket in tickets if not ticket.granted]
            assert kernel.held == sum(held)
            # A lowered limit takes nothing back, and lets nothing more in.
            assert kernel.held <= limit or kernel.held <= held_before
            held_before = kernel.held
            assert list(kernel.line) == waiting
            assert granted_order == [ticket for ticket in tickets if ticket.granted][: len(granted_order)]
            # Nobody waits for what is free.
            assert not waiting or kernel.held + waiting[0].need > limit
        granted = [ticket.need for ticket in tickets if ticket.granted and ticket.need in held]
        return held, [ticket.need for ticket in tickets if not ticket.granted], granted, limit

    todo = deque([()])
    while todo:
        path = todo.popleft()
        held, waiting, granted, limit = build(path)
        explored += 1
        state = (tuple(sorted(held)), tuple(waiting), tuple(granted), limit, len(path))
        if state in seen or len(path) == 5:
            continue
        seen.add(state)
        todo.extend((*path, ("take", amount)) for amount in amounts)
        todo.extend((*path, ("join", amount)) for amount in amounts)
        todo.extend((*path, ("give", index)) for index in range(len(held)))
        todo.extend((*path, ("leave", index)) for index in range(len(waiting)))
        todo.extend((*path, ("abandon", index)) for index in range(len(granted)))
        todo.extend((*path, ("resize", amount)) for amount in (1, 2, 4) if amount != limit)
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


@pytest.mark.parametrize("count", ["x", 1.5, True, -1, None])
def test_what_is_no_number_of_bytes_is_neither_charged_nor_credited(count):
    """It is refused by the call that gives it, and the ledger goes on as before."""
    ledger = MemoryLedger(100)
    ledger.charge(60)
    for call in (ledger.try_charge, ledger.charge, ledger.credit, ledger.credit_later):
        with pytest.raises(ConfigError, match="count = "):
            call(count)
    assert not ledger.noted and ledger.held == 60 and ledger.try_charge(40)


def test_all_that_is_wrong_with_a_charge_is_told_at_once():
    """Also where there is room, and nobody need wait."""
    ledger = MemoryLedger(100)
    with pytest.raises(ConfigError) as caught:
        ledger.charge(-1, timeout="x")
    assert [problem.field for problem in caught.value.problems] == ["count", "timeout"]
    with pytest.raises(ConfigError, match="timeout = 'x'"):
        ledger.charge(1, timeout="x")
    with pytest.raises(ConfigError, match=r"count = 1\.5"):
        ledger.charge(1.5, timeout="1s")
    assert ledger.held == 0


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


def test_a_higher_limit_wakes_who_waits_and_a_lower_one_takes_nothing_back():
    """Nothing more is charged before enough came back."""
    ledger = MemoryLedger(100)
    ledger.charge(100)
    thread = threading.Thread(target=ledger.charge, args=(50,), kwargs={"timeout": 30})
    thread.start()
    while not ledger.waiting:
        thread.join(0.001)
    ledger.resize("150B")
    thread.join()
    assert ledger.held == ledger.limit == 150
    ledger.resize(60)
    assert (ledger.held, ledger.limit) == (150, 60)
    ledger.credit(90)
    assert not ledger.try_charge(1)
    ledger.credit(10)
    assert ledger.try_charge(10) and not ledger.try_charge(1)


def test_who_waits_for_more_than_a_lowered_limit_is_told_and_the_next_one_served():
    """`LimitExceeded` at once, and not after the timeout."""
    ledger = MemoryLedger(100)
    ledger.charge(90)
    outcomes: dict[int, object] = {}

    def wait_for(count: int) -> None:
        try:
            ledger.charge(count, timeout=30)
            outcomes[count] = "held"
        except LimitExceeded as error:
            outcomes[count] = error

    threads = []
    for position, count in enumerate((80, 20), start=1):
        threads.append(threading.Thread(target=wait_for, args=(count,)))
        threads[-1].start()
        while ledger.waiting < position:
            threads[-1].join(0.001)
    ledger.resize(50)
    threads[0].join()
    assert isinstance(outcomes[80], LimitExceeded) and 20 not in outcomes
    ledger.credit(90)
    threads[1].join()
    assert outcomes[20] == "held" and ledger.held == 20


def test_a_lowered_limit_asks_for_idle_memory():
    """What is held beyond it and idle is given up by its holders."""
    ledger = MemoryLedger(100)
    ledger.charge(100)
    asked: list[int] = []

    def reclaim(count: int) -> int:
        asked.append(count)
        ledger.credit(count)
        return count

    ledger.add_reclaimer(reclaim)
    ledger.resize(70)
    assert asked == [30] and ledger.held == 70
    with pytest.raises(ConfigError, match="limit"):
        ledger.resize(0)
    assert ledger.limit == 70


@pytest.mark.parametrize("granted", [False, True])
def test_a_place_given_up_in_a_finalizer_leaves_nothing_behind(granted):
    """Also while the lock is taken, and also what was granted there."""
    ledger = MemoryLedger(10)
    ledger.charge(10)
    ticket = Ticket(4)
    ledger.join_line(ticket)
    if granted:
        ledger.credit(10)
        assert ticket.granted and ledger.held == 4
    with ledger._lock:  # what a collector run inside the ledger's own work looks like
        ledger.abandon(ticket)
    assert ledger.held == (0 if granted else 10) and ledger.waiting == 0
    ledger.abandon(ticket)
    assert ledger.held == (0 if granted else 10)
