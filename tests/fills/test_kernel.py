"""The flight kernel, explored: every order of events of small flights, equal states merged."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from daramjwee.fills.kernel import Do, FlightKernel, Phase

ASLEEP_NEVER = -1


class Reader(NamedTuple):
    """One reader of the model. `sleep`: the head it waits for, None while awake. `end`: how it came out."""

    offset: int = 0
    sleep: int | None = None
    end: str | None = None


class World(NamedTuple):
    """One state of a whole small flight: the kernel, its readers, who pumps, and what the origin still has."""

    kernel: tuple[object, ...]
    readers: tuple[Reader, ...]
    pump: str | None  # "starter", "filler", or the number of a reader
    left: int  # units the origin still has
    filler: bool  # whether a filler can be had


def freeze(kernel: FlightKernel) -> tuple[object, ...]:
    return tuple(
        frozenset(value.items()) if isinstance(value, dict) else frozenset(value) if isinstance(value, set) else value
        for value in (getattr(kernel, name) for name in FlightKernel.__slots__)
    )


def thaw(frozen: tuple[object, ...], kind: type[FlightKernel] = FlightKernel) -> FlightKernel:
    kernel = kind(window=1)
    for name, value in zip(FlightKernel.__slots__, frozen, strict=True):
        if name == "readers":
            value = dict(value)
        elif name == "detached":
            value = set(value)
        setattr(kernel, name, value)
    return kernel


class Explorer:
    """Walks every order of steps of a flight of `total` units; checks what holds in each state it meets."""

    def __init__(
        self,
        *,
        total: int,
        sized: bool,
        least: tuple[int, ...],
        filler: bool,
        kernel: type[FlightKernel] = FlightKernel,
        late: bool = False,
    ) -> None:
        self.total, self.sized, self.least, self.kind, self.late = total, sized, least, kernel, late
        first = kernel(window=1)
        readers = []
        for number in range(len(least)):
            if late and number:
                readers.append(Reader(end="outside"))
            else:
                assert first.join(number, 0)
                readers.append(Reader())
        self.start = World(freeze(first), tuple(readers), "starter", total, filler)

    def run(self) -> set[World]:
        seen = {self.start}
        todo = [self.start]
        while todo:
            world = todo.pop()
            following = list(self.steps(world))
            self.check(world, bool(following))
            for after in following:
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
        return seen

    def check(self, world: World, can_move: bool) -> None:
        kernel = thaw(world.kernel, self.kind)
        assert kernel.pumping == (world.pump is not None), "F2: the role and its holder disagree"
        for number, reader in enumerate(world.readers):
            assert reader.offset <= kernel.head, "F1: a reader has bytes that did not arrive"
            if reader.end == "end":
                assert kernel.phase is Phase.DONE and reader.offset == self.total, "F1: a clean end too early"
            if self.sized and reader.offset == self.total and reader.end != "failed":
                assert kernel.phase in (Phase.DONE, Phase.FAILED), "F1: the last byte before the outcome"
            if (
                reader.end is None
                and number in kernel.readers
                and kernel.windowed
                and kernel.tail >= (kernel.spooled or 0)
            ):
                assert kernel.tail <= max(reader.offset, kernel.spooled or 0), "F3: a needed byte was let go"
        active = [reader for reader in world.readers if reader.end is None]
        if active and not can_move:
            raise AssertionError(f"F4: readers wait for ever: {world}")

    def steps(self, world: World) -> list[World]:
        found = []
        if world.pump in ("starter", "filler"):
            found += self.pump_steps(world, world.pump)
        for number, reader in enumerate(world.readers):
            if world.pump == str(number):
                found += self.pump_steps(world, str(number))
            elif reader.end is None and reader.sleep is None:
                found += self.reader_steps(world, number)
            elif reader.end == "outside":
                found += self.join_steps(world, number)
        return found

    def pump_steps(self, world: World, who: str) -> list[World]:
        """One pull of the holder of the role: a piece (staged or not), the end, or a failure; then the hand-over."""
        kernel = thaw(world.kernel, self.kind)
        found = []
        if kernel.phase is Phase.STARTING:
            for spool in (True, False):
                kernel = thaw(world.kernel, self.kind)
                kernel.started(self.total if self.sized else None, spool=spool)
                found.append(self.wake(world, kernel, everybody=True))
            failed = thaw(world.kernel, self.kind)
            failed.failed()
            return [*found, self.wake(world._replace(pump=None), failed, everybody=True)]
        if who == "filler" and kernel.window_full:
            return []
        if world.left:
            for lose in (False, True):
                kernel = thaw(world.kernel, self.kind)
                if lose and kernel.windowed:
                    continue
                if lose:
                    kernel.spool_lost()
                kernel.received(1)
                kernel.trim()
                after = self.wake(world._replace(left=world.left - 1), kernel, everybody=lose)
                found += self.hand_over(after, who)
        else:
            kernel.ending()
            kernel.done()
            found.append(self.wake(world._replace(pump=None), kernel, everybody=True))
        kernel = thaw(world.kernel, self.kind)
        kernel.failed()
        found.append(self.wake(world._replace(pump=None), kernel, everybody=True))
        return found

    def hand_over(self, world: World, who: str) -> list[World]:
        if who == "filler":
            return [world]
        found = []
        if world.filler:
            found.append(world._replace(pump="filler"))
        kernel = thaw(world.kernel, self.kind)
        kernel.stop_pumping()
        if kernel.readers:
            found.append(self.wake(world._replace(pump=None), kernel, everybody=True))
        else:
            kernel.failed()
            found.append(self.wake(world._replace(pump=None), kernel, everybody=True))
        return found

    def reader_steps(self, world: World, number: int) -> list[World]:
        kernel = thaw(world.kernel, self.kind)
        reader = world.readers[number]
        left = self.leave(world, number)
        turn = kernel.turn(number, reader.offset, self.least[number], max(self.least[number], 1))
        if turn.do is Do.READ:
            assert turn.amount > 0
            offset = reader.offset + turn.amount
            if kernel.spooled is not None and reader.offset < kernel.spooled:
                assert offset <= kernel.spooled, "one read from two places"
            room = kernel.windowed and kernel.moved(number, offset)
            after = self.put(world, number, reader._replace(offset=offset))
            return [left, self.wake(after, kernel, everybody=room and not kernel.pumping)]
        if turn.do is Do.PUMP:
            assert kernel.try_pump()
            return [left, self.put(world, number, reader)._replace(kernel=freeze(kernel), pump=str(number))]
        if turn.do is Do.WAIT:
            return [left, self.put(world, number, reader._replace(sleep=turn.amount))]
        end = {Do.END: "end", Do.FAIL: "failed", Do.DETACHED: "detached"}[turn.do]
        return [self.leave(self.put(world, number, reader._replace(end=end)), number, end)]

    def join_steps(self, world: World, number: int) -> list[World]:
        kernel = thaw(world.kernel, self.kind)
        if not kernel.join(number, 0):
            return [self.put(world, number, Reader(end="refused"))]
        return [self.put(world, number, Reader())._replace(kernel=freeze(kernel))]

    def leave(self, world: World, number: int, end: str = "left") -> World:
        kernel = thaw(world.kernel, self.kind)
        orphaned = kernel.leave(number)
        kernel.trim()
        world = self.put(world, number, world.readers[number]._replace(end=end))
        if orphaned and kernel.windowed and not kernel.pumping:
            kernel.failed()
        elif orphaned and kernel.try_pump():
            world = world._replace(pump="filler")
        return self.wake(world, kernel, everybody=not kernel.pumping)

    def put(self, world: World, number: int, reader: Reader) -> World:
        readers = list(world.readers)
        readers[number] = reader
        return world._replace(readers=tuple(readers))

    def wake(self, world: World, kernel: FlightKernel, *, everybody: bool) -> World:
        held_back = kernel.size is not None and kernel.head >= kernel.size and not kernel.over
        readers = tuple(
            reader._replace(sleep=None)
            if reader.sleep is not None and (everybody or (reader.sleep <= kernel.head and not held_back))
            else reader
            for reader in world.readers
        )
        return world._replace(kernel=freeze(kernel), readers=readers)


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("filler", [True, False])
@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("least", [(1, 1), (1, 3), (2, 2), (3, 3)])
def test_every_order_of_a_small_flight_keeps_the_invariants(
    sized: bool, filler: bool, late: bool, least: tuple[int, ...]
) -> None:
    """F1 to F4 hold in every state that two readers, a starter and a filler can reach."""
    states = Explorer(total=3, sized=sized, least=least, filler=filler, late=late).run()
    assert any(all(reader.end == "end" for reader in world.readers) for world in states)


def test_three_readers_keep_the_invariants() -> None:
    """The same with three readers that ask for different amounts."""
    states = Explorer(total=2, sized=True, least=(1, 2, 1), filler=False).run()
    assert len(states) > 500


class _ForgetsToHoldBack(FlightKernel):
    """A seeded fault: the last byte is given away before the outcome is known."""

    __slots__ = ()

    def turn(self, reader: int, offset: int, least: int, most: int):
        size, self.size = self.size, None
        try:
            return super().turn(reader, offset, least, most)
        finally:
            self.size = size


class _TrimsToTheFastest(FlightKernel):
    """A seeded fault: the window follows the fastest reader instead of the slowest."""

    __slots__ = ()

    def trim(self) -> None:
        if self.spooled is not None:
            self.tail = max(self.tail, min(self.head, max(self.readers.values(), default=self.head)))


class _SleepsThroughTheRole(FlightKernel):
    """A seeded fault: nobody takes the pump role over once the starter has let it go."""

    __slots__ = ()

    def turn(self, reader: int, offset: int, least: int, most: int):
        turn = super().turn(reader, offset, least, most)
        return turn if turn.do is not Do.PUMP else turn._replace(do=Do.WAIT, amount=offset + least)


@pytest.mark.parametrize(
    ("fault", "law"),
    [(_ForgetsToHoldBack, "F1"), (_TrimsToTheFastest, "F3"), (_SleepsThroughTheRole, "F4")],
)
def test_the_explorer_finds_a_seeded_fault(fault: type[FlightKernel], law: str) -> None:
    """The exploration can fail: a kernel with one fault is caught by the invariant that the fault breaks."""
    with pytest.raises(AssertionError, match=law):
        Explorer(total=3, sized=True, least=(1, 2), filler=False, kernel=fault).run()


def test_a_reader_that_is_too_slow_is_detached_only_while_others_wait() -> None:
    """One slow reader alone may take its time; with others at the head it is let go."""
    kernel = FlightKernel(window=2)
    kernel.join(1, 0)
    kernel.started(None, spool=False)
    kernel.received(2)
    assert kernel.detach_slowest() == ()
    kernel.join(2, 0)
    kernel.moved(2, 2)
    assert kernel.detach_slowest() == (1,)
    assert kernel.turn(1, 0, 1, 1).do is Do.DETACHED
    assert not kernel.window_full


def test_a_full_window_does_not_stop_the_pull_that_sees_the_end() -> None:
    """Once all announced bytes are here the end must be seen, however slow the readers."""
    kernel = FlightKernel(window=1)
    kernel.join(1, 0)
    kernel.started(2, spool=False)
    kernel.received(2)
    assert not kernel.window_full
