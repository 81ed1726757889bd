"""Levels of memory pressure: what readings ask for, when a level is left, what each changes; and polling."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.buffers import MemoryLedger, PressureLevel, pressure
from daramjwee.buffers.ledger_kernel import Ticket
from daramjwee.buffers.pressure import EFFECTS, Measure, MemoryPressure, Thresholds
from daramjwee.buffers.pressure_kernel import Sample, State, refuse, step
from daramjwee.errors import ConfigError
from daramjwee.testing.clock import ManualClock
from daramjwee.units import GIB, KIB, MIB, format_size

NORMAL, ELEVATED, HIGH, CRITICAL = PressureLevel
DEFAULT = Thresholds()
PAGE = Path(__file__).parents[2] / "docs" / "design" / "pressure.md"


def used(share: float, *, measure: Measure = Measure.LIMIT, waiting: int = 0, **counts: int) -> Sample:
    return Sample("cgroup", measure, share, f"{share:.0%}", "/app", tuple(counts.items()), waiting)


def level_of(*samples: Sample, after: Sample | None = None, thresholds: Thresholds = DEFAULT) -> PressureLevel:
    """The level that samples ask for, seen after another one."""
    state = State() if after is None else step(State(), [after], 0.0, thresholds)[0]._replace(level=NORMAL)
    return step(state, samples, 1.0, thresholds)[0].level


# -- what readings ask for ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measure", "levels"),
    [
        (Measure.LIMIT, {0.79: NORMAL, 0.80: ELEVATED, 0.90: HIGH, 0.95: CRITICAL, 1.5: CRITICAL}),
        (Measure.THROTTLE, {0.79: NORMAL, 0.80: ELEVATED, 0.90: HIGH, 0.95: HIGH, 1.5: HIGH}),
        (Measure.MACHINE, {0.84: NORMAL, 0.85: ELEVATED, 0.90: HIGH, 0.95: CRITICAL}),
        (Measure.SOME, {0.09: NORMAL, 0.10: ELEVATED, 0.30: HIGH, 0.60: CRITICAL}),
        (Measure.FULL, {0.04: NORMAL, 0.05: ELEVATED, 0.10: HIGH, 0.30: CRITICAL}),
        (Measure.LEDGER, {0.94: NORMAL, 0.95: ELEVATED, 1.0: ELEVATED, 1.5: ELEVATED}),
    ],
)
def test_each_measure_asks_by_its_own_thresholds(measure, levels):
    """`memory.high` alone never asks for CRITICAL, and a full ledger for no more than ELEVATED."""
    assert {share: level_of(used(share, measure=measure)) for share in levels} == levels


def test_the_worst_reading_decides_and_is_named():
    """One reading is enough, and the reason is that one, with its figures."""
    state, readings = step(State(), [used(0.1), used(0.92), used(0.7, measure=Measure.SOME)], 0.0, DEFAULT)
    assert [reading.level for reading in readings] == [NORMAL, HIGH, CRITICAL]
    assert (state.level, state.reason) == (CRITICAL, "cgroup: 70%")


@pytest.mark.parametrize(
    ("share", "event", "level"),
    [
        (0.10, "max", NORMAL),
        (0.79, "max", NORMAL),
        (0.80, "max", HIGH),
        (0.90, "max", CRITICAL),
        (0.79, "failcnt", NORMAL),
        (0.80, "failcnt", HIGH),
        (0.10, "oom", CRITICAL),
        (0.10, "oom_kill", CRITICAL),
        (0.10, "oom_group_kill", CRITICAL),
        (0.10, "low", NORMAL),
    ],
)
def test_meeting_the_limit_counts_only_where_the_working_set_is_large(share, event, level):
    """Page cache meets the limit all day where files are streamed; a kill always counts."""
    assert level_of(used(share, **{event: 8}), after=used(share, **{event: 7})) is level
    assert level_of(used(share, **{event: 8}), after=used(share, **{event: 8})) is level_of(used(share))


def test_events_from_before_the_first_look_and_set_back_counters_say_nothing():
    """A group may have seen kills years ago; another group's counters begin lower."""
    assert level_of(used(0.1, oom_kill=9)) is NORMAL
    assert level_of(used(0.1, oom_kill=3), after=used(0.1, oom_kill=9)) is NORMAL
    state, _ = step(State(), [used(0.1, oom_kill=3)], 0.0, DEFAULT)
    state, readings = step(state, [used(0.1, oom_kill=5)], 1.0, DEFAULT)
    assert readings[0].events == {"oom_kill": 2} and "oom_kill +2" in state.reason


def test_requests_that_wait_are_high_and_critical_when_they_have_waited_long():
    """By the time in which somebody waited at every look; one look without, and it begins anew."""
    state, line = State(), used(1.0, measure=Measure.LEDGER, waiting=2)
    levels = []
    for now in (0, 9.9, 10.0):
        state, _ = step(state, [line], now, DEFAULT)
        levels.append(state.level)
    assert levels == [HIGH, HIGH, CRITICAL]
    state, _ = step(State(waiting_since=0.0), [used(0.5, measure=Measure.LEDGER)], 20.0, DEFAULT)
    assert state.waiting_since is None
    assert step(state, [line], 21.0, DEFAULT)[0].level is HIGH


# -- rising and falling ----------------------------------------------------------------------------------------


def test_a_level_is_entered_at_once_and_left_one_at_a_time():
    """Each step down takes `calm_seconds` of readings below the level's threshold less the margin."""
    state, _ = step(State(), [used(0.96)], 0.0, DEFAULT)
    seen = [state.level]
    for now in range(1, 35):
        state, _ = step(state, [used(0.1)], float(now), DEFAULT)
        seen.append(state.level)
    assert seen == [CRITICAL] * 11 + [HIGH] * 10 + [ELEVATED] * 10 + [NORMAL] * 4
    assert state == State()._replace(seen=state.seen) and state.reason == ""


@pytest.mark.parametrize(("share", "level"), [(0.93, CRITICAL), (0.915, HIGH), (0.88, HIGH), (0.86, ELEVATED)])
def test_readings_within_the_margin_keep_the_level_for_ever(share, level):
    """It is left only where the next lower one is right."""
    state, _ = step(State(), [used(0.96)], 0.0, DEFAULT)
    for now in range(1, 200):
        state, _ = step(state, [used(share)], float(now), DEFAULT)
    assert state.level is level


def test_one_near_reading_begins_the_calm_anew():
    """Calm means every reading, not most."""
    state, _ = step(State(), [used(0.96)], 0.0, DEFAULT)
    for now in range(1, 200):
        state, _ = step(state, [used(0.93 if now % 9 == 0 else 0.1)], float(now), DEFAULT)
    assert state.level is CRITICAL


def test_a_level_that_falls_says_what_it_came_from():
    """The reason of a level on the way down is not a reading of now."""
    state, _ = step(State(), [used(0.96)], 0.0, DEFAULT)
    reasons = []
    for now in (1.0, 11.0, 21.0, 31.0):
        state, _ = step(state, [used(0.1)], now, DEFAULT)
        reasons.append(state.reason)
    assert reasons == ["cgroup: 96%", "falling: cgroup: 96%", "falling: cgroup: 96%", ""]


def test_a_refusal_is_critical_at_once_and_falls_like_all():
    """The system said no: whatever the readings say."""
    state = refuse(State(), "no memory for an arena of 2MiB")
    assert (state.level, state.reason) == (CRITICAL, "refusal: no memory for an arena of 2MiB")
    state, _ = step(state, [used(0.1)], 0.0, DEFAULT)
    assert step(state, [used(0.1)], 9.0, DEFAULT)[0].level is CRITICAL
    assert step(state, [used(0.1)], 10.0, DEFAULT)[0].level is HIGH
    assert step(state, [], 10.0, DEFAULT)[0].level is HIGH, "sources that are gone keep nothing up"


shares = st.floats(0, 1.2)
measures = st.sampled_from(Measure)
samples = st.lists(
    st.builds(
        Sample,
        st.just("s"),
        measures,
        shares,
        st.just("d"),
        st.sampled_from(["/a", "/b"]),
        st.lists(st.tuples(st.sampled_from(["max", "high", "oom_kill"]), st.integers(0, 4)), max_size=2).map(tuple),
        st.integers(0, 2),
    ),
    max_size=3,
)
states = st.builds(
    State,
    st.sampled_from(PressureLevel),
    st.just("r"),
    st.none() | st.floats(0, 100),
    st.none() | st.floats(0, 100),
    st.just(((("s", "/a", "max"), 2), (("s", "/b", "oom_kill"), 2))),
)


@given(states, samples, st.data())
def test_worse_readings_never_give_a_lower_level(state, mild, data):
    """Monotone: a higher share, one more event, one more who waits."""
    worse = [
        sample._replace(
            share=data.draw(st.floats(sample.share, 1.3)),
            counts=tuple((name, count + data.draw(st.integers(0, 2))) for name, count in sample.counts),
            waiting=sample.waiting + data.draw(st.integers(0, 1)),
        )
        for sample in mild
    ]
    before, after = step(state, mild, 100.0, DEFAULT)[0], step(state, worse, 100.0, DEFAULT)[0]
    assert before.level <= after.level
    assert before.level >= state.level - 1, "never more than one level down at once"
    assert isinstance(after.level, PressureLevel)


@given(st.lists(st.tuples(st.floats(0, 20), samples), max_size=60))
def test_changes_are_bounded_by_time_and_pass_for_good(looks):
    """Whatever comes: at most one fall in `calm_seconds`, three rises more than falls; and NORMAL at the end."""
    state, now, rises, falls, last_change = State(), 0.0, 0, 0, None
    for pause, look in looks:
        now += pause
        before = state.level
        state, _ = step(state, look, now, DEFAULT)
        if state.level < before:
            assert last_change is None or now - last_change >= DEFAULT.calm_seconds
            falls += 1
        rises += state.level > before
        if state.level != before:
            last_change = now
    assert falls <= now / DEFAULT.calm_seconds and rises <= falls + 3
    for _ in range(4):
        now += DEFAULT.calm_seconds + 0.001  # sums of floats fall short of it
        state, _ = step(state, [used(0.1)], now, DEFAULT)
    assert state.level is NORMAL and state.reason == ""


@given(st.sampled_from((0.80, 0.90, 0.95)), st.lists(st.floats(-0.0299, 0.02), min_size=1, max_size=200))
def test_noise_around_a_threshold_changes_the_level_once(threshold, noise):
    """Within the margin there is one rise for each level, and no fall."""
    state, levels = State(), []
    for now, wobble in enumerate(noise):
        state, _ = step(state, [used(threshold + wobble)], float(now), DEFAULT)
        levels.append(state.level)
    assert levels == sorted(levels)


class World(NamedTuple):
    """`calm`: how many looks in a row have been far below the level, counted apart from the kernel."""

    state: State
    calm: int


def explore_levels(explorer, seconds, step=step):
    """Every order of readings and refusals, one second apart, from NORMAL."""
    thresholds = Thresholds(calm_seconds=seconds)
    asks = {0.1: NORMAL, 0.78: NORMAL, 0.82: ELEVATED, 0.88: ELEVATED, 0.91: HIGH, 0.93: HIGH, 0.96: CRITICAL}
    near = {0.1: NORMAL, 0.78: ELEVATED, 0.82: ELEVATED, 0.88: HIGH, 0.91: HIGH, 0.93: CRITICAL, 0.96: CRITICAL}

    def look(world: World, share: float, *, refused: bool = False) -> World:
        # One second after the look before, which a state refers to as 0.
        state = refuse(world.state) if refused else world.state
        after, _ = step(state, [used(share)], 1.0, thresholds)
        level = state.level
        calm = 0 if near[share] >= level else 1 if refused else world.calm + 1
        if asks[share] > level:
            assert after.level is asks[share]
        elif calm > seconds:
            assert after.level == level - 1
            calm = 1
        else:
            assert after.level is level
        since = None if after.calm_since is None else after.calm_since - 1.0
        return World(after._replace(calm_since=since, reason="", seen=()), calm)

    def moves(world: World):
        yield "refusal", lambda: look(world, 0.1, refused=True)
        for share in asks:
            yield str(share), lambda share=share: look(world, share)

    def gets_home(world: World) -> None:
        for _ in range(3 * (seconds + 1)):
            world = look(world, 0.1)
        assert world.state.level is NORMAL

    return explorer.explore(World(State(), 0), moves, check=gets_home)


@pytest.mark.parametrize("seconds", [1, 2, 3])
def test_every_order_of_readings_keeps_the_promise(explorer, seconds):
    """Explored: rises at once to what is asked, falls by one and only after the calm, and gets home from everywhere."""
    assert explore_levels(explorer, seconds).states > 4 * seconds


def falls_at_once(state, looks, now, thresholds):
    return step(state._replace(calm_since=-100.0), looks, now, thresholds)


def falls_to_the_bottom(state, looks, now, thresholds):
    after, readings = step(state, looks, now, thresholds)
    return (after if after.level >= state.level else State()), readings


def forgets_the_margin(state, looks, now, thresholds):
    return step(state, looks, now, msgspec.structs.replace(thresholds, share_margin=0.0))


def never_falls(state, looks, now, thresholds):
    after, readings = step(state, looks, now, thresholds)
    return (after if after.level >= state.level else state), readings


@pytest.mark.parametrize("fault", [falls_at_once, falls_to_the_bottom, forgets_the_margin, never_falls])
def test_the_exploration_finds_seeded_faults(explorer, fault):
    """It can fail."""
    with pytest.raises(explorer.Counterexample):
        explore_levels(explorer, 2, fault)


# -- thresholds --------------------------------------------------------------------------------------------------


def test_thresholds_report_all_faults_at_once():
    """Field, value and mend of each."""
    with pytest.raises(ConfigError) as caught:
        Thresholds(
            limit_share=(0.9, 0.8, 0.95),
            machine_share=(0.85, 0.9, 95),
            stall_some=0.5,
            ledger_share=True,
            wait_seconds="soon",
            calm_seconds=0,
            stall_margin=-1,
        )
    fields = [problem.field for problem in caught.value.problems]
    assert fields == [
        "limit_share",
        "machine_share",
        "stall_some",
        "ledger_share",
        "wait_seconds",
        "stall_margin",
        "calm_seconds",
    ]
    assert "three shares that rise" in str(caught.value) and "above 0, at most 1" in str(caught.value)


def test_a_margin_that_reaches_a_lower_level_is_a_contradiction():
    """It would keep the upper level where the lower one is not even reached."""
    with pytest.raises(ConfigError) as caught:
        Thresholds(share_margin=0.05, stall_margin=0.5)
    assert [problem.field for problem in caught.value.problems] == [
        "limit_share",
        "machine_share",
        "stall_some",
        "stall_full",
    ]
    assert "share_margin reaches from 0.95 down to 0.9; lower it, or spread the shares" in str(caught.value)
    with pytest.raises(ConfigError, match=r"ledger_share = 0\.02"):
        Thresholds(ledger_share=0.02)


def test_thresholds_take_lists_and_durations_and_keep_numbers():
    """As a configuration file gives them."""
    made = Thresholds(limit_share=[0.5, 0.7, 1], calm_seconds="1m", wait_seconds="500ms")
    assert (made.limit_share, made.calm_seconds, made.wait_seconds) == ((0.5, 0.7, 1.0), 60.0, 0.5)
    assert made == Thresholds(limit_share=(0.5, 0.7, 1.0), calm_seconds=60, wait_seconds=0.5)


def test_thresholds_and_readings_go_into_documents_and_come_back():
    """Frozen values, with a schema; what is given in a document is checked like any other."""
    _, (reading,) = step(State(), [used(0.96, max=3)], 0.0, DEFAULT)
    for value in (reading, DEFAULT, Thresholds(calm_seconds="1m")):
        assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value
        assert msgspec.json.schema(type(value))
        with pytest.raises(AttributeError):
            value.share = 1
    with pytest.raises(ValueError, match="must be a share"):
        msgspec.json.decode(b'{"ledger_share": 7}', type=Thresholds)


# -- what each level changes ---------------------------------------------------------------------------------------


def test_effects_never_grow_with_the_level():
    """Each level takes at most what the one below takes, and one large operation always runs."""
    assert len(EFFECTS) == len(PressureLevel)
    for milder, harder in pairwise(EFFECTS):
        assert (harder.most_chunk or GIB) <= (milder.most_chunk or GIB)
        assert harder.keeps_idle <= milder.keeps_idle and harder.promotes <= milder.promotes
        assert harder.kernel_first >= milder.kernel_first
        assert harder.reads_ahead <= milder.reads_ahead and harder.large_operations <= milder.large_operations
    assert EFFECTS[NORMAL].most_chunk is None and EFFECTS[NORMAL].large_operations == 1.0
    assert EFFECTS[CRITICAL].large_operations > 0


def row(level: PressureLevel) -> str:
    """A line of the table of levels on the page."""
    effect = EFFECTS[level]
    cells = (
        level.name,
        "no bound" if effect.most_chunk is None else format_size(effect.most_chunk).replace("KiB", " KiB"),
        "kept until it is old" if effect.keeps_idle else "given back at once",
        "by the kernel, which needs none" if effect.kernel_first else "by a chunk",
        "yes" if effect.promotes else "no",
        f"{effect.reads_ahead} pieces" if effect.reads_ahead != 1 else "1 piece",
        "all" if effect.large_operations == 1 else f"{effect.large_operations:.0%}, at least one",
    )
    return "| " + " | ".join(cells) + " |"


def test_the_page_tells_what_the_levels_change():
    """docs/design/pressure.md has the table of EFFECTS, line by line, and every threshold."""
    text = PAGE.read_text(encoding="utf-8")
    head = "| level | largest chunk that is chosen | idle memory | file to file | promotion | reads ahead | large operations |"
    table = text[text.index(head) :].splitlines()[2:]
    assert table[: len(EFFECTS)] == [row(level) for level in PressureLevel]
    for field in Thresholds.__struct_fields__:
        value = getattr(DEFAULT, field)
        shown = " / ".join(f"{share:g}" for share in value) if isinstance(value, tuple) else f"{value:g}"
        assert f"| `{field}` | {shown} |" in text


# -- polling -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clock():
    return ManualClock()


def test_a_poll_reads_at_most_once_an_interval(fake_root, clock):
    """By the clock that is handed in; `force` reads always."""
    root = fake_root()
    root.meminfo(total="10GiB", available="8GiB")
    made = MemoryPressure(root=root.path, clock=clock)
    assert (made.level, made.readings, made.reason) == (NORMAL, (), "")
    assert made.poll() is NORMAL
    root.meminfo(total="10GiB", available="256MiB")
    clock.advance(0.9)
    assert made.poll() is NORMAL and made.level is NORMAL
    assert made.poll(force=True) is CRITICAL and made.level is CRITICAL
    assert made.reason == "meminfo: 256MiB available of 10GiB"
    root.meminfo(total="10GiB", available="8GiB")
    for _ in range(40):
        clock.advance(1)
        made.poll()
    assert made.level is NORMAL and made.reason == ""


def test_the_ledger_alone_steps_through_the_levels(fake_root, clock):
    """A full ledger is ELEVATED, one that lets others wait HIGH, after ten seconds CRITICAL; and back."""
    ledger = MemoryLedger(MIB)
    made = MemoryPressure(root=fake_root().path, ledger=ledger, clock=clock)
    assert made.poll() is NORMAL
    ledger.charge(MIB)
    levels = []
    clock.advance(1)
    levels.append(made.poll())
    ticket = Ticket(MIB)
    ledger.join_line(ticket)
    for _ in range(12):
        clock.advance(1)
        levels.append(made.poll())
    assert levels == [ELEVATED] + [HIGH] * 10 + [CRITICAL] * 2
    assert made.reason == "ledger: 1MiB held of 1MiB, 1 waiting"
    ledger.abandon(ticket)
    ledger.credit(MIB)
    for _ in range(40):
        clock.advance(1)
        made.poll()
    assert made.level is NORMAL and ledger.held == 0


def test_a_refusal_holds_from_the_moment_it_is_noted(fake_root, clock):
    """Without a poll, and whatever the readings say; back by the rule for all."""
    root = fake_root()
    root.meminfo()
    made = MemoryPressure(root=root.path, clock=clock)
    made.poll()
    made.note_refusal("no memory for an arena of 2MiB")
    assert (made.level, made.reason) == (CRITICAL, "refusal: no memory for an arena of 2MiB")
    assert made.poll() is CRITICAL, "not due, and CRITICAL all the same"
    levels = []
    for _ in range(35):
        clock.advance(1)
        levels.append(made.poll())
    assert levels[0] is CRITICAL and levels[-1] is NORMAL
    assert levels == sorted(levels, reverse=True)


def test_refusals_of_many_threads_are_never_lost_and_never_pile_up(fake_root, clock):
    """Noted while another thread polls: CRITICAL at every moment, whoever comes first."""
    made = MemoryPressure(root=fake_root().path, clock=clock)
    made.note_refusal()
    start, seen = threading.Barrier(5), []

    def note():
        start.wait(30)
        for _ in range(2000):
            made.note_refusal()
            seen.append(made.level is CRITICAL)

    threads = [threading.Thread(target=note) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait(30)
    while any(thread.is_alive() for thread in threads):
        made.poll(force=True)
    for thread in threads:
        thread.join(30)
    assert len(seen) == 8000 and all(seen) and len(made._refusals) <= 1
    made.poll(force=True)
    assert made.level is CRITICAL and not made._refusals


def test_no_memory_to_read_with_is_a_refusal(fake_root, clock, monkeypatch):
    """The poll itself may be what finds out."""
    made = MemoryPressure(root=fake_root().path, clock=clock)

    def read(now):
        raise MemoryError

    monkeypatch.setattr(made._sources, "read", read)
    assert made.poll() is CRITICAL
    assert "no memory to read" in made.reason


@pytest.fixture
def slow_reading(fake_root, clock, monkeypatch, announced):
    """A pressure that another thread reads just now: it, a call that lets that thread end, and the shares it has yet to read."""
    made = MemoryPressure(root=fake_root().path, clock=clock)
    made._lock = announced(made._lock)
    inside, go, shares = threading.Event(), threading.Event(), [0.1, 0.96]

    def read(now):
        share = shares.pop(0)
        inside.set()
        assert go.wait(30)
        return [Sample("cgroup", Measure.LIMIT, share, f"{share:.0%}")]

    monkeypatch.setattr(made._sources, "read", read)
    reader = threading.Thread(target=made.poll)
    reader.start()
    assert inside.wait(30)

    def end() -> None:
        go.set()
        reader.join(30)

    yield made, end, shares
    end()


def test_nobody_waits_long_for_a_slow_file(slow_reading, monkeypatch):
    """One thread reads at a time; the others get the level as it is."""
    made, _, shares = slow_reading
    monkeypatch.setattr("daramjwee.buffers.pressure.PATIENCE_SECONDS", 0.01)
    assert made.poll(force=True) is NORMAL and shares == [0.96]


@pytest.mark.parametrize("force", [False, True])
def test_who_asks_while_another_reads_gets_what_was_so_when_it_asked(slow_reading, clock, force):
    """That thread may have passed already what has changed since: it is waited for, and read again."""
    made, end, shares = slow_reading
    clock.advance(0 if force else made.interval)
    with ThreadPoolExecutor(1) as asker:
        asked = asker.submit(made.poll, force=force)
        assert made._lock.found_taken.wait(30)
        end()
        assert asked.result(30) is CRITICAL and not shares


def test_who_asks_while_another_reads_for_it_does_not_read_again(slow_reading):
    made, _, shares = slow_reading
    with ThreadPoolExecutor(1) as asker:
        asked = asker.submit(made.poll)
        # Begun in the same instant by the clock: nothing is due, so nobody waits.
        assert asked.result(30) is NORMAL and shares == [0.96]


def test_a_signal_that_polls_in_the_midst_of_reading_does_not_wait_for_itself(fake_root, clock, monkeypatch, announced):
    made = MemoryPressure(root=fake_root().path, clock=clock)
    made._lock = announced(made._lock)
    inner = []

    def read(now):
        if not inner:
            inner.append(None)
            inner[0] = made.poll(force=True)
        return [Sample("cgroup", Measure.LIMIT, 0.96, "96%")]

    monkeypatch.setattr(made._sources, "read", read)
    assert made.poll() is CRITICAL and inner == [NORMAL] and made._lock.limits == (True, 0.0)


def test_an_interrupted_poll_can_be_done_again(fake_root, clock, monkeypatch):
    """What leaves `poll` by an exception that is not about memory leaves no lock behind."""
    made = MemoryPressure(root=fake_root().path, clock=clock)
    with monkeypatch.context() as patch:

        def read(now):
            raise KeyboardInterrupt

        patch.setattr(made._sources, "read", read)
        with pytest.raises(KeyboardInterrupt):
            made.poll()
    assert made.poll(force=True) is NORMAL
    assert not made._lock.locked()


def test_a_forked_child_finds_its_own_sources(fake_root, clock, untraced):
    """It may be in another group, and the lock may have been held: it looks anew, and keeps the level it was at."""
    root = fake_root(group="/parent")
    root.v2(current="98MiB", max="100MiB")
    made = MemoryPressure(root=root.path, clock=clock)
    assert made.poll() is CRITICAL
    root.group = "/child"
    root.v2(current="1MiB", max="100MiB")
    with made._lock:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                kept = made.level is CRITICAL
                made.poll(force=True)
                code = 0 if kept and [reading.group for reading in made.readings] == ["/child"] else 2
            finally:
                os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_wrong_arguments_are_all_named():
    """Before anything is read."""
    with pytest.raises(ConfigError) as caught:
        MemoryPressure(root=None, ledger=5, thresholds=0.5, interval="often")
    assert [problem.field for problem in caught.value.problems] == ["interval", "root", "ledger", "thresholds"]


def test_repr_tells_level_reason_and_sources(fake_root, clock):
    """Anything that lives long can be asked."""
    root = fake_root()
    root.meminfo(total="10GiB", available="1GiB")
    made = MemoryPressure(root=root.path, ledger=MemoryLedger(KIB), clock=clock)
    assert repr(made) == "<MemoryPressure NORMAL, reads meminfo, ledger>"
    made.poll()
    assert repr(made) == "<MemoryPressure HIGH (meminfo: 1GiB available of 10GiB), reads meminfo, ledger>"
    assert repr(MemoryPressure(root=root.path / "none")) == "<MemoryPressure NORMAL, reads nothing>"


def test_the_module_offers_what_it_says():
    """Names that others import from here exist."""
    assert all(hasattr(pressure, name) for name in pressure.__all__)


def test_a_root_is_that_of_when_it_was_given(fake_root, monkeypatch, tmp_path):
    """A forked child looks for its sources anew, and may be in another folder."""
    root = fake_root()
    root.v2(current=97, max=100)
    monkeypatch.chdir(root.path)
    pressure = MemoryPressure(root=".")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    pressure._after_fork_in_child()
    assert pressure.poll() is PressureLevel.CRITICAL
