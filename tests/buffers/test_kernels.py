"""The pure cores of gate, ledger and lease, explored: every order of steps, equal states merged, seeded faults found.

The gate's and the ledger's kernels are the real ones. The lock-free protocol (free deque, `alert`, `pending`, a lock
that nobody who gives back waits for) is modelled here step by step, as chunks.py and gate.py carry it out.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import pytest

from daramjwee.buffers.gate_kernel import GRANTED, WAITING, GateKernel, Ticket
from daramjwee.buffers.ledger import LedgerKernel
from daramjwee.buffers.ledger import Ticket as LedgerTicket

# -- the gate's kernel --------------------------------------------------------------------------------------

AGEING = 1
PENALTIES = (0, 1, 2)
LIMITS = ((2, 3, 2), (1, 2, 1), (3, None, 2))  # operations, bytes, queued: the first is the start
NEEDS = (1, 3)


class Asked(NamedTuple):
    """A ticket as the model knows it. `order`: the how manieth of those that came to wait."""

    need: int
    penalty: int
    arrived: int
    order: int
    key: tuple[float, int]


class GateWorld(NamedTuple):
    now: int
    limits: tuple[int, int | None, int]
    active: int
    active_bytes: int
    arrivals: int
    line: tuple[Asked, ...]  # in the kernel's order
    held: tuple[tuple[int, int], ...]  # need and charge of those under way, sorted
    asked: int
    changes: int


def due(ticket: Asked) -> tuple[int, int]:
    """What decides who goes first, by the promise and not by the kernel."""
    return ticket.arrived + ticket.penalty * AGEING, ticket.order


class GateModel:
    """One step at a time: thaw a kernel, do something, compare with what was promised, freeze it."""

    def __init__(self, kind=GateKernel, *, requests=4, moments=3, changes=1, needs=NEEDS) -> None:
        self.kind, self.requests, self.moments, self.changes, self.needs = kind, requests, moments, changes, needs
        self.start = GateWorld(0, LIMITS[0], 0, 0, 0, (), (), 0, 0)

    def thaw(self, world):
        kernel = self.kind(*world.limits, AGEING)
        kernel.active, kernel.active_bytes, kernel.arrivals = world.active, world.active_bytes, world.arrivals
        known = {}
        for asked in world.line:
            ticket = Ticket(asked.need, asked.penalty)
            ticket.state, ticket.key = WAITING, asked.key
            kernel.line.append(ticket)
            known[ticket] = asked
        held = []
        for need, charged in world.held:
            ticket = Ticket(need)
            ticket.state, ticket.charged = GRANTED, charged
            held.append(ticket)
        return kernel, known, held

    def settle(self, world, kernel, known, held, newcomer=None, **changes):
        """Compare what the kernel did with the promise; the next world."""
        stood = [*world.line, *([known[newcomer]] if newcomer is not None else [])]
        entered = [known[ticket] for ticket in known if ticket.state is GRANTED]
        waiting = [known[ticket] for ticket in known if ticket.state is WAITING]
        gone = [asked for asked in stood if asked not in entered and asked not in waiting]
        in_order = sorted((asked for asked in stood if asked not in gone), key=due)
        assert sorted(entered, key=due) == in_order[: len(entered)], "somebody was overtaken"
        told = [known[ticket] for ticket in kernel.granted]
        assert told == [asked for asked in in_order[: len(entered)] if newcomer is None or asked != known[newcomer]], (
            "a grant was lost, or told in another order"
        )
        held = [t for t in held if t.state is GRANTED] + [t for t in known if t.state is GRANTED]
        operations, most, _ = changes.get("limits", world.limits)
        for ticket in known:
            if ticket.state is GRANTED:
                assert ticket.charged == (0 if most is None else ticket.need), "a grant is charged for what it needs"
        charged = sum(ticket.charged for ticket in held)
        assert kernel.active == len(held), "the count of operations is wrong"
        assert kernel.active_bytes == charged, "the count of bytes is wrong"
        if entered:
            assert len(held) <= operations, "more operations than allowed"
            assert most is None or charged <= most, "more bytes than allowed"
        assert [known[ticket] for ticket in kernel.line] == sorted(waiting, key=due), "the line is out of order"
        if waiting:
            head = min(waiting, key=due)
            fits = len(held) < operations and (most is None or charged + head.need <= most)
            assert not fits, "the head of the line waits although it fits"
            assert most is None or all(asked.need <= most for asked in waiting), "one waits that can never fit"
        return world._replace(
            active=kernel.active, active_bytes=kernel.active_bytes, arrivals=kernel.arrivals,
            line=tuple(known[ticket]._replace(key=ticket.key) for ticket in kernel.line),
            held=tuple(sorted((ticket.need, ticket.charged) for ticket in held)),
            **changes,
        )  # fmt: skip

    def moves(self, world):
        if world.now < self.moments:
            yield "a moment passes", lambda: world._replace(now=world.now + 1)
        if world.asked < self.requests:
            for need in self.needs:
                if world.limits[1] is None or need <= world.limits[1]:
                    for penalty in PENALTIES:
                        yield f"request {need} with penalty {penalty}", partial(self.request, world, need, penalty)
        for place in range(len(world.line)):
            yield f"number {place} leaves the line", partial(self.leave, world, place)
        for place, holder in enumerate(world.held):
            if holder not in world.held[:place]:
                yield f"{holder[0]} is given back", partial(self.give, world, place)
                yield f"{holder[0]} leaves too late", partial(self.leave_late, world, place)
        if world.changes < self.changes:
            for limits in LIMITS:
                if limits != world.limits:
                    yield f"limits become {limits}", partial(self.reconfigure, world, limits)

    def request(self, world, need, penalty):
        kernel, known, held = self.thaw(world)
        ticket = Ticket(need, penalty)
        asked = Asked(need, penalty, world.now, world.arrivals, (0.0, 0))
        accepted = kernel.request(ticket, float(world.now))
        room = len(held) < world.limits[0] and (
            world.limits[1] is None or sum(holder.charged for holder in held) + need <= world.limits[1]
        )
        first = all(due(asked) < due(other) for other in world.line)
        if not accepted:
            assert len(world.line) >= world.limits[2], "refused although the line has room"
            assert not (room and first), "refused although it could have begun"
            return self.settle(world, kernel, known, held, asked=world.asked + 1)
        assert len(kernel.line) <= max(world.limits[2], len(world.line)), "the line is longer than allowed"
        known[ticket] = asked
        return self.settle(world, kernel, known, held, ticket, asked=world.asked + 1)

    def leave(self, world, place):
        kernel, known, held = self.thaw(world)
        ticket = kernel.line[place]
        kernel.leave(ticket)
        assert ticket.state is not WAITING, "it has left, and still waits"
        return self.settle(world, kernel, known, held)

    def give(self, world, place):
        kernel, known, held = self.thaw(world)
        kernel.give(held[place])
        with pytest.raises(ValueError, match="given back before"):
            kernel.give(held[place])
        return self.settle(world, kernel, known, held)

    def leave_late(self, world, place):
        kernel, known, held = self.thaw(world)
        kernel.leave(held[place])
        assert held[place].state is GRANTED, "what was granted meanwhile must stay the caller's"
        return self.settle(world, kernel, known, held)

    def reconfigure(self, world, limits):
        kernel, known, held = self.thaw(world)
        dropped = kernel.reconfigure(*limits)
        assert all(ticket.need > limits[1] for ticket in dropped), "one was dropped that still fits"
        return self.settle(world, kernel, known, held, limits=limits, changes=world.changes + 1)


def test_every_order_of_events_at_the_gate_keeps_limits_and_order(explorer):
    """Limits are never exceeded, the line is in order, its head never overtaken nor waiting in vain, no grant lost."""
    for model in (GateModel(requests=4, moments=2, changes=1), GateModel(requests=4, moments=3, changes=0)):
        seen = explorer.explore(model.start, model.moves)
        assert seen.states > 2000 and seen.ends > 0


class ForgetsToAdvanceAfterLeave(GateKernel):
    __slots__ = ()

    def leave(self, ticket):
        advance, GateKernel.advance = GateKernel.advance, lambda kernel: None
        try:
            super().leave(ticket)
        finally:
            GateKernel.advance = advance


class OvertakesTheHead(GateKernel):
    __slots__ = ()

    def advance(self):
        for ticket in tuple(self.line):
            if self.fits(ticket.need):
                self.line.remove(ticket)
                self._grant(ticket)
                self.granted.append(ticket)


class CountsBytesTwice(GateKernel):
    __slots__ = ()

    def _grant(self, ticket):
        super()._grant(ticket)
        self.active_bytes += ticket.charged


class TakesBackWhatWasGranted(GateKernel):
    __slots__ = ()

    def leave(self, ticket):
        self.end(ticket) if ticket.state is GRANTED else super().leave(ticket)


class NeverAges(GateKernel):
    __slots__ = ()

    def request(self, ticket, now):
        return super().request(ticket, 0.0)


class LetsNewcomersPastAFullHouse(GateKernel):
    __slots__ = ()

    def fits(self, need):
        return self.max_bytes is None or self.active_bytes + need <= self.max_bytes


class SleepsThroughHigherLimits(GateKernel):
    __slots__ = ()

    def reconfigure(self, *limits):
        self.max_operations, self.max_bytes, self.max_queued = limits
        return []


class QueuesWhoCouldBegin(GateKernel):
    __slots__ = ()

    def request(self, ticket, now):
        if self.take(ticket):
            return True
        fits, GateKernel.fits = GateKernel.fits, lambda kernel, need: False
        try:
            return super().request(ticket, now)
        finally:
            GateKernel.fits = fits


class LosesTheSecondGrant(GateKernel):
    __slots__ = ()

    def advance(self):
        super().advance()
        while len(self.granted) > 1:
            self.granted.pop()


class IgnoresTheBoundOfTheLine(GateKernel):
    __slots__ = ()

    def request(self, ticket, now):
        most, self.max_queued = self.max_queued, 99
        try:
            return super().request(ticket, now)
        finally:
            self.max_queued = most


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (ForgetsToAdvanceAfterLeave, "waits although it fits"),
        (OvertakesTheHead, "overtaken"),
        (CountsBytesTwice, "count of bytes"),
        (TakesBackWhatWasGranted, "stay the caller's"),
        (NeverAges, "overtaken|out of order"),
        (LetsNewcomersPastAFullHouse, "more operations"),
        (SleepsThroughHigherLimits, "waits although it fits|never fit"),
        (QueuesWhoCouldBegin, "waits although it fits"),
        (LosesTheSecondGrant, "grant was lost"),
        (IgnoresTheBoundOfTheLine, "longer than allowed"),
    ],
)
def test_a_fault_in_the_gate_is_found_with_the_path_to_it(explorer, broken, why):
    """An exploration that finds nothing in a broken kernel shows nothing about the right one."""
    model = GateModel(broken)
    with pytest.raises(explorer.Counterexample, match=why) as caught:
        explorer.explore(model.start, model.moves)
    assert 1 <= len(caught.value.path) <= 7
    assert all(label in str(caught.value) for label in caught.value.path)


# -- the ledger's kernel ------------------------------------------------------------------------------------


class LedgerWorld(NamedTuple):
    held: int
    inherited: int
    line: tuple[int, ...]
    holders: tuple[int, ...]
    peak: int


class LedgerModel:
    def __init__(self, kind=LedgerKernel, *, limit=4, waiters=3, holders=4) -> None:
        self.kind, self.limit, self.waiters, self.holders = kind, limit, waiters, holders
        self.start = LedgerWorld(0, 1, (), (), 0)

    def thaw(self, world):
        kernel = self.kind(self.limit, world.inherited)
        kernel.held, kernel.peak = world.held, world.peak
        kernel.line.extend(map(LedgerTicket, world.line))
        return kernel, list(kernel.line), list(world.holders)

    def settle(self, world, kernel, stood, holders):
        entered = [ticket for ticket in stood if ticket.granted]
        waiting = [ticket for ticket in stood if not ticket.granted]
        assert entered == stood[: len(entered)], "somebody was overtaken"
        holders = sorted([*holders, *(ticket.need for ticket in entered)])
        assert kernel.held == sum(holders), "held is not what was charged minus what was credited"
        assert kernel.held <= self.limit, "more is held than the limit"
        assert kernel.peak == max(world.peak, kernel.held), "the peak is wrong"
        assert list(kernel.line) == waiting, "the line is out of order"
        assert not waiting or kernel.held + waiting[0].need > self.limit, "the first waits although it fits"
        return LedgerWorld(
            kernel.held, kernel.inherited, tuple(ticket.need for ticket in waiting), tuple(holders), kernel.peak
        )

    def moves(self, world):
        for need in range(self.limit + 1):
            if len(world.holders) < self.holders:
                yield f"try {need}", partial(self.take, world, need)
                if len(world.line) < self.waiters:
                    yield f"join for {need}", partial(self.join, world, need)
        for place in range(len(world.line)):
            yield f"number {place} leaves", partial(self.leave, world, place)
        for place in range(len(world.holders)):
            yield f"credit {world.holders[place]}", partial(self.give, world, place)
        if world.inherited and not world.held:
            yield "credit what a parent charged", partial(self.give_inherited, world)

    def take(self, world, need):
        kernel, stood, holders = self.thaw(world)
        taken = kernel.take(need)
        assert taken == (not stood and sum(holders) + need <= self.limit), "a request slips past the line or the limit"
        return self.settle(world, kernel, stood, [*holders, need] if taken else holders)

    def join(self, world, need):
        kernel, stood, holders = self.thaw(world)
        ticket = LedgerTicket(need)
        kernel.join(ticket)
        return self.settle(world, kernel, [*stood, ticket], holders)

    def leave(self, world, place):
        kernel, stood, holders = self.thaw(world)
        granted = kernel.leave(stood[place])
        assert granted == [ticket for ticket in stood if ticket.granted], "a grant was lost"
        del stood[place]
        return self.settle(world, kernel, stood, holders)

    def give(self, world, place):
        kernel, stood, holders = self.thaw(world)
        granted = kernel.give(holders.pop(place))
        assert granted == [ticket for ticket in stood if ticket.granted], "a grant was lost"
        return self.settle(world, kernel, stood, holders)

    def give_inherited(self, world):
        kernel, stood, holders = self.thaw(world)
        kernel.give(world.inherited)
        assert kernel.inherited == 0, "what a parent charged is credited once"
        return self.settle(world, kernel, stood, holders)


def test_every_order_of_charges_and_credits_keeps_the_bound_and_the_order(explorer):
    """`held` is exact and within the limit, the line is first come, first served, no grant is lost."""
    model = LedgerModel()
    seen = explorer.explore(model.start, model.moves)
    assert seen.states > 500 and seen.steps > 5000


class LedgerForgetsAfterLeave(LedgerKernel):
    __slots__ = ()

    def leave(self, ticket):
        self.line.remove(ticket)
        return []


class LedgerSlipsPastTheLine(LedgerKernel):
    __slots__ = ()

    def take(self, need):
        if self.held + need > self.limit:
            return False
        self._hold(need)
        return True


class LedgerOvertakes(LedgerKernel):
    __slots__ = ()

    def _advance(self):
        granted = []
        for ticket in tuple(self.line):
            if self.held + ticket.need <= self.limit:
                self.line.remove(ticket)
                ticket.granted = True
                self._hold(ticket.need)
                granted.append(ticket)
        return granted


class LedgerHoldsTwice(LedgerKernel):
    __slots__ = ()

    def _hold(self, need):
        super()._hold(need)
        super()._hold(need)


class LedgerCreditsTheParentFirst(LedgerKernel):
    __slots__ = ()

    def give(self, count):
        mine = min(count, self.inherited)
        self.inherited -= mine
        return super().give(count - mine)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (LedgerForgetsAfterLeave, "waits although it fits"),
        (LedgerSlipsPastTheLine, "slips past"),
        (LedgerOvertakes, "overtaken"),
        (LedgerHoldsTwice, "held is not"),
        (LedgerCreditsTheParentFirst, "held is not"),
    ],
)
def test_a_fault_in_the_ledger_is_found_with_the_path_to_it(explorer, broken, why):
    """As for the gate."""
    model = LedgerModel(broken)
    with pytest.raises(explorer.Counterexample, match=why) as caught:
        explorer.explore(model.start, model.moves)
    assert 1 <= len(caught.value.path) <= 5


# -- the protocol without a lock ------------------------------------------------------------------------------


class Thread(NamedTuple):
    """One thread: where it is, what it has in hand, how often it will come again."""

    at: str
    rounds: int
    thing: int | None = None
    given: int | None = None  # by another, who holds the lock
    woken: bool = False
    slow: bool = False  # what it has came out of the line, or of the kernel
    after_work: str = ""  # where it goes on after the work under the lock
    after_settle: str = ""


class Shared(NamedTuple):
    free: tuple[int, ...]
    room: tuple[int, ...] = ()  # with the kernel: neither free nor with a thread
    ended: tuple[int, ...] = ()
    news: tuple[int, ...] = ()
    line: tuple[int, ...] = ()
    alert: bool = False
    pending: bool = False
    holder: int | None = None
    threads: tuple[Thread, ...] = ()


def resolve(thread):
    """Choices that concern this thread alone are no steps; and what it no longer needs must not keep states apart."""
    if thread.at == "asked":
        thread = thread._replace(at="sleep" if thread.thing is None else "use")
    elif thread.at == "asked_no_more":
        thread = thread._replace(at="round" if thread.thing is None else "use")
    if thread.at == "round":
        return Thread("look" if thread.rounds > 1 else "done", thread.rounds - 1)
    if thread.at in ("use", "sleep"):
        thread = thread._replace(after_work="", after_settle="")
    return thread


class Protocol:
    """Chunks or places, taken and given back as chunks.py and gate.py do it, at the granularity of atomic steps.

    `apart`: what was granted by the kernel goes back by a deque of its own, and is always attended to (the gate);
    else by the free ones (the chunks). `leaves`: threads that may give up waiting. `fault`: what is done wrongly.
    """

    def __init__(self, *, threads=3, rounds=1, things=1, apart=True, leaves=(), fault="") -> None:
        self.things, self.apart, self.leaves, self.fault = things, apart, leaves, fault
        self.start = Shared(tuple(range(things)), threads=(Thread("look", rounds),) * threads)

    def moves(self, shared):
        for number, thread in enumerate(shared.threads):
            step = getattr(self, "at_" + thread.at, None)
            if step is None or (thread.at == "sleep" and not thread.woken) or (
                thread.at in ("lock", "leave") and shared.holder is not None
            ):  # fmt: skip
                pass
            else:
                yield f"thread {number}: {thread.at}", partial(self.go, step, shared, number, thread)
            if thread.at == "sleep" and number in self.leaves:
                yield f"thread {number}: gives up", partial(self.put, shared, number, thread, "leave")

    def go(self, step, shared, number, thread):
        return step(shared, number, thread)

    @staticmethod
    def put(shared, number, thread, at, **changes):
        """The thread goes on at `at`. `changes` with a leading `my_` are the thread's own."""
        mine = {name[3:]: value for name, value in changes.items() if name.startswith("my_")}
        ours = {name: value for name, value in changes.items() if not name.startswith("my_")}
        threads = list(ours.pop("threads", shared.threads))
        threads[number] = resolve(threads[number]._replace(at=at, **mine))
        return shared._replace(threads=tuple(threads), **ours)

    # acquire: look at `alert`, pop a free one; else the lock
    def at_look(self, shared, number, thread):
        return self.put(shared, number, thread, "lock" if shared.alert else "pop")

    def at_pop(self, shared, number, thread):
        if not shared.free:
            return self.put(shared, number, thread, "lock")
        return self.put(
            shared, number, thread, "use", free=shared.free[:-1], my_thing=shared.free[-1], my_slow=False
        )  # fmt: skip

    def at_lock(self, shared, number, thread):
        return self.put(shared, number, thread, "work", holder=number, my_after_work="ask")

    def at_ask(self, shared, number, thread):
        """Under the lock: from the kernel's room, else from the free ones, else into the line."""
        if shared.room and not shared.line:
            return self.put(
                shared, number, thread, "raise_alert", room=shared.room[1:], my_thing=shared.room[0], my_slow=True
            )  # fmt: skip
        if shared.free and not shared.line:
            return self.put(shared, number, thread, "ask", free=shared.free[:-1], room=(shared.free[-1],))
        return self.put(
            shared, number, thread, "serve" if self.fault == "alert after looking" else "raise_alert",
            line=(*shared.line, number), my_after_work="raise_alert",
        )  # fmt: skip

    def at_raise_alert(self, shared, number, thread):
        if self.fault == "alert after looking":
            return self.put(shared, number, thread, "unlock", alert=bool(shared.line), my_after_settle="asked")
        return self.put(shared, number, thread, "serve", alert=True, my_after_work="unlock", my_after_settle="asked")

    def at_unlock(self, shared, number, thread):
        then = "settle"
        if self.fault == "nobody looks after letting go":
            then = "tell_and_go"
        return self.put(shared, number, thread, then, holder=None)

    def at_tell_and_go(self, shared, number, thread):
        if shared.news:
            return self.tell(shared, number, thread)
        return self.put(shared, number, thread, thread.after_settle)

    def at_sleep(self, shared, number, thread):
        return self.put(shared, number, thread, "use", my_thing=thread.given, my_given=None, my_woken=False)

    def at_leave(self, shared, number, thread):
        """Under the lock: out of the line, or with what was given in the same moment."""
        line = tuple(other for other in shared.line if other != number)
        given = None if self.fault == "a grant is dropped by who gives up" else thread.given
        # Each request sleeps on something of its own: news of this one do not wake the next.
        news = tuple(other for other in shared.news if other != number)
        return self.put(
            shared, number, thread, "work", holder=number, line=line, news=news, my_thing=given, my_given=None, my_woken=False,
            my_after_work="unlock", my_after_settle="asked_no_more",
        )  # fmt: skip

    # the work under the lock
    def at_work(self, shared, number, thread):
        changes = {}
        if self.fault != "pending cleared after the work":
            changes["pending"] = False
        if self.fault == "alert lowered while somebody waits":
            changes["alert"] = False
        return self.put(shared, number, thread, "take_back", **changes)

    def at_take_back(self, shared, number, thread):
        if shared.ended:
            return self.put(
                shared, number, thread, "take_back", room=(*shared.room, shared.ended[0]), ended=shared.ended[1:]
            )  # fmt: skip
        return self.put(shared, number, thread, "serve")

    def at_serve(self, shared, number, thread):
        if shared.line and shared.room:
            first = shared.line[0]
            threads = list(shared.threads)
            threads[first] = threads[first]._replace(given=shared.room[0], slow=True)
            return self.put(
                shared, number, thread, "serve", threads=threads, room=shared.room[1:], line=shared.line[1:],
                news=(*shared.news, first),
            )  # fmt: skip
        if shared.line and shared.free:
            return self.put(shared, number, thread, "serve", room=(shared.free[-1],), free=shared.free[:-1])
        return self.put(shared, number, thread, "set_alert")

    def at_set_alert(self, shared, number, thread):
        if thread.after_work == "raise_alert":  # the fault: looked, and only then says that it waits
            return self.put(shared, number, thread, "raise_alert")
        return self.put(shared, number, thread, "issue", alert=bool(shared.line))

    def at_issue(self, shared, number, thread):
        if shared.room and not shared.line:
            return self.put(
                shared, number, thread, "issue", free=(*shared.free, shared.room[0]), room=shared.room[1:]
            )  # fmt: skip
        if self.fault == "pending cleared after the work":
            return self.put(shared, number, thread, thread.after_work, pending=False)
        return self.put(shared, number, thread, thread.after_work)

    # giving back: append, then read `alert`, then have it attended to
    def at_use(self, shared, number, thread):
        if self.fault == "alert read before giving back":
            then = "give_seen" if shared.alert or (thread.slow and self.apart) else "give_unseen"
            return self.put(shared, number, thread, then)
        return self.give(shared, number, thread, "attend" if thread.slow and self.apart else "read_alert")

    def at_give_seen(self, shared, number, thread):
        return self.give(shared, number, thread, "attend")

    def at_give_unseen(self, shared, number, thread):
        return self.give(shared, number, thread, "round")

    def give(self, shared, number, thread, at):
        if thread.slow and self.apart:
            return self.put(shared, number, thread, at, ended=(*shared.ended, thread.thing), my_thing=None)
        return self.put(shared, number, thread, at, free=(*shared.free, thread.thing), my_thing=None)

    def at_read_alert(self, shared, number, thread):
        return self.put(shared, number, thread, "attend" if shared.alert else "round")

    def at_attend(self, shared, number, thread):
        if self.fault == "the work is not left to the holder":
            return self.put(shared, number, thread, "try_lock", my_after_settle="round")
        return self.put(shared, number, thread, "settle", pending=True, my_after_settle="round")

    def at_settle(self, shared, number, thread):
        if shared.news:
            return self.tell(shared, number, thread)
        return self.put(shared, number, thread, "try_lock" if shared.pending else thread.after_settle)

    def tell(self, shared, number, thread):
        first = shared.news[0]
        threads = list(shared.threads)
        threads[first] = threads[first]._replace(woken=True)
        return self.put(shared, number, thread, thread.at, threads=threads, news=shared.news[1:])

    def at_try_lock(self, shared, number, thread):
        if shared.holder is not None:
            return self.put(shared, number, thread, thread.after_settle)
        return self.put(shared, number, thread, "work", holder=number, my_after_work="unlock")

    # what must hold
    def check(self, shared):
        places = [*shared.free, *shared.room, *shared.ended]
        for thread in shared.threads:
            places += [thing for thing in (thread.thing, thread.given) if thing is not None]
        assert sorted(places) == list(range(self.things)), "a thing is in two places, or in none"

    def final(self, shared):
        stuck = [number for number, thread in enumerate(shared.threads) if thread.at != "done"]
        assert not stuck, f"a lost wake-up: {stuck} sleep for ever"
        assert not shared.line and shared.holder is None and not shared.pending and not shared.news
        assert sorted(shared.free) == list(range(self.things)) and not shared.alert, "the quick way is shut for ever"


SHAPES = [
    {"threads": 2, "rounds": 3},
    {"threads": 3},
    {"threads": 3, "things": 2},
    {"threads": 2, "rounds": 2, "leaves": (0, 1)},
    {"threads": 3, "leaves": (1,)},
]


@pytest.mark.parametrize("apart", [True, False], ids=["gate", "chunks"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_interleaving_loses_a_wake_up_or_a_thing(explorer, shape, apart):
    """Nobody sleeps for ever beside something free, whoever is interrupted where; everything is in one place."""
    model = Protocol(apart=apart, **shape)
    seen = explorer.explore(model.start, model.moves, check=model.check, final=model.final)
    assert seen.states > 1000 and seen.ends > 0


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("alert after looking", "lost wake-up"),
        ("alert read before giving back", "lost wake-up"),
        ("pending cleared after the work", "lost wake-up|quick way"),
        ("alert lowered while somebody waits", "lost wake-up"),
        ("nobody looks after letting go", "lost wake-up|quick way|pending"),
        ("the work is not left to the holder", "lost wake-up|quick way"),
        ("a grant is dropped by who gives up", "in none"),
    ],
)
@pytest.mark.parametrize("apart", [True, False], ids=["gate", "chunks"])
def test_a_fault_in_the_protocol_is_found_with_the_path_to_it(explorer, fault, why, apart):
    """The usual mistakes of such a protocol, each found by some small shape."""
    found = []
    for shape in SHAPES if "gives up" not in fault else reversed(SHAPES):
        model = Protocol(apart=apart, fault=fault, **shape)
        try:
            explorer.explore(model.start, model.moves, check=model.check, final=model.final)
        except explorer.Counterexample as error:
            found.append(error)
            break
    assert found, f"{fault}: nothing was found"
    assert found[0].path
    with pytest.raises(explorer.Counterexample, match=why):
        raise found[0]
