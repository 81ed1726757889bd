"""The monitor: looks when due, one at a time; tells the log and whoever listens; survives what they raise."""

from __future__ import annotations

import logging
import os
import queue
import re
import sys
import threading
import tracemalloc
import warnings
from pathlib import Path

import pytest

from daramjwee.buffers import BufferPool, BufferPoolConfig, BufferPoolStats
from daramjwee.buffers.gate_stats import GateStats
from daramjwee.buffers.insight.alerts import Alert, AlertRule, AlertState
from daramjwee.buffers.insight.finding import Severity
from daramjwee.buffers.insight.monitor import (
    DEFAULT_RULES,
    KEPT_ALERTS,
    MOST_TRENDS,
    PRESSURE_RULE,
    Monitor,
)
from daramjwee.buffers.pressure import PressureLevel
from daramjwee.errors import ConfigError, LimitExceeded, Overloaded
from daramjwee.testing import ManualClock

WAITING = AlertRule("waiting", 5, cooldown=0)
PAGE = Path(__file__).parents[3] / "docs" / "monitoring.md"
# A record's own attributes, which `extra` must not replace.
OF_A_RECORD = set(vars(logging.makeLogRecord({})))


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def monitor(clock):
    return Monitor("10s", clock=clock, rules=())


@pytest.fixture
def look(monitor, clock):
    """Look at a snapshot with these figures, a second after the last look."""

    def look(**figures):
        clock.advance(1)
        monitor.look(BufferPoolStats(**figures), clock.monotonic())

    return look


def news(heard):
    return [(alert.state.value, alert.value) for alert in heard]


def test_an_alert_goes_to_callback_listener_list_and_log(monitor, look, clock, caplog):
    """Raised as a warning, cleared as information; with the same fields in the record as in the alert."""
    caplog.set_level(logging.INFO)
    own, every = [], []
    monitor.watch(WAITING, own.append)
    monitor.listen(every.append)
    look(waiting=5)
    look(waiting=7)
    look(waiting=9)
    (raised,) = monitor.active
    look(waiting=5)
    assert news(own) == news(every) == news(monitor.alerts) == [("raised", 7.0), ("cleared", 5.0)]
    assert (raised.rule, raised.at, raised.severity) == (WAITING, clock.now() - 2, Severity.WARNING)
    assert raised.message == "waiting is 7, above 5 (requests in line for memory)"
    assert monitor.active == ()
    up, down = caplog.records
    assert (up.levelno, down.levelno) == (logging.WARNING, logging.INFO)
    assert up.getMessage() == raised.message
    assert up.name == "daramjwee.buffers.insight.monitor"
    assert {name: getattr(up, name) for name in set(vars(up)) - OF_A_RECORD - {"message"}} == {
        "event": "pool.alert", "metric": "waiting", "state": "raised", "value": 7.0, "threshold": 5.0,
        "severity": "warning",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("severity", "level"),
    [("info", logging.INFO), ("warning", logging.WARNING), ("critical", logging.ERROR)],
)
def test_the_level_of_a_record_follows_the_severity(monitor, look, caplog, severity, level):
    caplog.set_level(logging.DEBUG)
    monitor.watch(AlertRule("waiting", 0, severity=severity))
    look(waiting=1)
    look(waiting=0)
    assert [record.levelno for record in caplog.records] == [level, logging.INFO]


PROVOKED = {
    "overloads": {"overloads": 1},
    "gate_refused": {"gate": GateStats(refused=1)},
    "gate_timed_out": {"gate": GateStats(timed_out=1)},
    "refusals": {"refusals": 2},
    "lost_leases": {"lost_leases": 1},
    "gate_lost": {"gate": GateStats(lost=1)},
    "quarantined": {"quarantined": 1},
}


@pytest.mark.parametrize("rule", DEFAULT_RULES, ids=str)
def test_each_default_rule_is_provoked_and_clears(clock, rule):
    """By what it is about and nothing else; a pool at rest clears it."""
    monitor = Monitor(1, clock=clock)
    monitor.look(BufferPoolStats(), 0)
    assert monitor.active == ()
    happened = BufferPoolStats(**PROVOKED[rule.metric])
    monitor.look(happened, 1)
    assert [alert.rule for alert in monitor.active] == [rule]
    rest = happened if rule.metric != "quarantined" else BufferPoolStats()
    monitor.look(rest, 2)
    assert news(monitor.alerts)[1:] == [("cleared", 0.0)]
    assert monitor.active == ()


def test_a_pool_that_works_hard_raises_nothing(clock):
    """A full ledger, a line, misses and page faults are no fault."""
    monitor = Monitor(1, clock=clock)
    monitor.look(
        BufferPoolStats(
            total_gets=9, pool_misses=9, waits=9, wait_seconds=5.0, fallbacks=3, waiting=5, active_buffers=9, maps=9,
            ledger_held=64, ledger_limit=64, gate=GateStats(waiting=9, waited=9, entered=99, cancelled=1),
        ),
        0,
    )  # fmt: skip
    assert monitor.alerts == ()


def test_what_happened_before_the_first_look_counts_in_it(monitor, look):
    """A lease that was lost before anybody looked is no less lost."""
    monitor.watch(AlertRule("lost_leases", 0))
    look(lost_leases=3)
    assert news(monitor.alerts) == [("raised", 3.0)]


def test_equal_rules_are_judged_once_and_heard_by_all(monitor, look):
    """Until the last of them has stopped."""
    one, two = [], []
    stop_one = monitor.watch(WAITING, one.append)
    stop_two = monitor.watch(AlertRule("waiting", 5.0, cooldown="0s"), two.append)
    look(waiting=6)
    stop_one()
    stop_one()
    look(waiting=0)
    stop_two()
    look(waiting=6)
    assert news(one) == [("raised", 6.0)]
    assert news(two) == news(monitor.alerts) == [("raised", 6.0), ("cleared", 0.0)]


def test_a_rule_that_is_stopped_while_raised_is_active_no_more(monitor, look):
    stop = monitor.watch(WAITING)
    look(waiting=6)
    assert len(monitor.active) == 1
    stop()
    assert monitor.active == ()


def test_a_listener_that_stopped_hears_nothing(monitor, look):
    heard = []
    monitor.watch(WAITING)
    stop = monitor.listen(heard.append)
    stop()
    stop()
    look(waiting=6)
    assert heard == []


def test_a_callback_that_an_earlier_one_stopped_is_not_called(monitor, look):
    """Also not by the announcement that is under way."""
    heard, stops = [], []
    monitor.watch(WAITING, lambda alert: [stop() for stop in stops])
    stops.append(monitor.watch(WAITING, heard.append))
    stops.append(monitor.listen(heard.append))
    look(waiting=6)
    assert heard == []


def test_a_rule_that_is_stopped_while_it_is_judged_raises_nothing():
    """Whoever has called `stop` finds no alert of it later."""
    stops = []

    class StoppingClock(ManualClock):
        def now(self):
            for stop in stops:
                stop()
            return super().now()

    monitor = Monitor(1, clock=StoppingClock(), rules=[AlertRule("refusals", 0)])
    stops.append(monitor.watch(WAITING))
    monitor.look(BufferPoolStats(waiting=6, refusals=1), 1.0)
    assert [alert.metric for alert in monitor.alerts] == [alert.metric for alert in monitor.active] == ["refusals"]


@pytest.mark.parametrize("error", [ValueError("mine"), RuntimeError(), OSError(5, "io"), StopIteration()])
def test_a_callback_that_raises_harms_nothing_and_is_logged_once(monitor, look, caplog, error):
    """Others are called, later looks go on, it is called again; one record for each rule, all counted."""
    heard, calls = [], []

    def fail(alert):
        calls.append(alert)
        raise error

    monitor.watch(WAITING, fail)
    monitor.watch(WAITING, heard.append)
    monitor.listen(fail)
    for _ in range(3):
        look(waiting=6)
        look(waiting=0)
    assert len(heard) == 6
    assert len(calls) == monitor.callback_failures == 12
    (record,) = [record for record in caplog.records if record.event == "pool.alert_callback_failed"]
    assert record.levelno == logging.ERROR
    assert record.metric == "waiting"
    assert record.exc_info[1] is error
    monitor.watch(AlertRule("refusals", 0), fail)
    look(refusals=1)
    assert sum(record.event == "pool.alert_callback_failed" for record in caplog.records) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_to_end_the_program_passes(monitor, look, error):
    """The alert is on the list all the same, and the next look goes on."""
    raising = [True]

    def leave(alert):
        if raising:
            raise error

    monitor.watch(WAITING, leave)
    with pytest.raises(error):
        look(waiting=6)
    assert monitor.callback_failures == 0
    raising.clear()
    look(waiting=0)
    assert news(monitor.alerts) == [("raised", 6.0), ("cleared", 0.0)]


def test_a_callback_may_use_the_monitor_and_the_pool(clock):
    """No lock is held: it looks, watches, stops, asks and maintains from inside."""
    heard = []
    with BufferPool(clock=clock) as pool:
        monitor = Monitor(1, clock=clock, rules=())

        def busy(alert):
            heard.append(alert.state)
            monitor.look(BufferPoolStats(waiting=99), 5)  # one is under way: returns at once
            monitor.listen(heard.append)()
            monitor.trend("waiting")
            assert len(monitor.alerts) == len(heard)
            assert repr(monitor)
            stop()
            with pool.acquire(100):
                pool.maintain()
            pool.stats()

        stop = monitor.watch(WAITING, busy)
        monitor.look(BufferPoolStats(waiting=6), 1)
        monitor.look(BufferPoolStats(waiting=0), 2)
    assert heard == [AlertState.RAISED]


def test_of_two_looks_at_once_one_is_done_and_the_other_returns(monitor, clock):
    """The second neither waits nor judges."""
    inside, leave = threading.Event(), threading.Event()

    def block(alert):
        inside.set()
        assert leave.wait(20)

    monitor.watch(WAITING, block)
    first = threading.Thread(target=monitor.look, args=(BufferPoolStats(waiting=6), 1.0))
    first.start()
    assert inside.wait(20)
    monitor.look(BufferPoolStats(waiting=0), 2.0)  # would clear it
    assert news(monitor.alerts) == [("raised", 6.0)]
    leave.set()
    first.join()
    monitor.look(BufferPoolStats(waiting=0), 3.0)
    assert news(monitor.alerts)[1:] == [("cleared", 0.0)]


def test_a_look_is_due_once_in_an_interval(monitor):
    """At once at first; then so often as was set last."""
    assert monitor.due(100.0)
    monitor.look(BufferPoolStats(), 100.0)
    assert not monitor.due(109.9)
    assert monitor.due(110.0)
    monitor.set_interval("2s")
    assert monitor.interval == 2.0
    assert monitor.due(102.0)
    assert not monitor.due(101.9)


def test_trends_have_a_value_for_each_look(monitor, clock):
    """All who ask for the same share it; a look without a figure leaves a gap."""
    rate = monitor.trend("reuse_rate")
    held = monitor.trend("ledger_held", interval="1m", keep=3)
    assert monitor.trend("reuse_rate") is rate
    assert monitor.trend("ledger_held", interval=60.0, keep=3) is held
    assert monitor.trend("ledger_held") is not held
    assert (rate.interval, held.interval, held.keep) == (10.0, 60.0, 3)
    hits = 0
    for at in range(30):
        hits += 3 if at != 4 else 0
        monitor.look(BufferPoolStats(pool_hits=hits, pool_misses=hits // 3, ledger_held=at), at * 10.0)
    assert len(held.points) == 3
    assert held.last == 29.0
    assert [point.at for point in rate.points] == [at * 10.0 for at in range(30) if at != 4]
    assert {point.mean for point in rate.points} == {0.75}


def test_a_trend_outlives_a_change_of_the_interval(monitor):
    trend = monitor.trend("waiting")
    monitor.set_interval(1)
    assert monitor.trend("waiting") is trend
    assert trend.interval == 10.0


def test_trends_are_bounded_in_number(monitor):
    """Whoever asks for ever new ones is told."""
    for keep in range(1, MOST_TRENDS + 1):
        monitor.trend("waiting", keep=keep)
    with pytest.raises(LimitExceeded, match="256 trends"):
        monitor.trend("waiting", keep=MOST_TRENDS + 1)
    assert monitor.trend("waiting", keep=7).keep == 7


def test_memory_stays_the_same_however_long_it_runs(monitor, clock):
    """5,000 looks with alerts at each, trends, failing callbacks and told alerts."""

    def fail(alert):
        raise ValueError

    monitor.watch(WAITING, fail)
    monitor.trend("waiting", interval=1, keep=50)
    calm, busy = BufferPoolStats(), BufferPoolStats(waiting=6)

    def run(looks, first):
        for at in range(first, first + looks):
            monitor.look(busy if at % 2 else calm, float(at))
            monitor.note_pressure(PressureLevel(at % 2), PressureLevel((at + 1) % 2), "told")

    logging.disable(logging.CRITICAL)
    tracemalloc.start()
    try:
        run(1000, 0)
        before = tracemalloc.get_traced_memory()[0]
        run(4000, 1000)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        logging.disable(logging.NOTSET)
    assert len(monitor.alerts) == KEPT_ALERTS
    assert grown < 16 * 1024
    assert monitor.callback_failures == 5000 - 1


LEVELS = PressureLevel


@pytest.mark.parametrize(
    ("before", "level", "state", "severity", "record", "words"),
    [
        (LEVELS.NORMAL, LEVELS.ELEVATED, "raised", "info", logging.INFO, "rose from NORMAL to ELEVATED"),
        (LEVELS.NORMAL, LEVELS.HIGH, "raised", "warning", logging.WARNING, "rose from NORMAL to HIGH"),
        (LEVELS.HIGH, LEVELS.CRITICAL, "raised", "critical", logging.ERROR, "rose from HIGH to CRITICAL"),
        (LEVELS.CRITICAL, LEVELS.HIGH, "raised", "warning", logging.WARNING, "fell from CRITICAL to HIGH"),
        (LEVELS.CRITICAL, LEVELS.NORMAL, "cleared", "critical", logging.INFO, "fell from CRITICAL to NORMAL"),
    ],
)
def test_each_change_of_pressure_is_told(monitor, caplog, before, level, state, severity, record, words):
    """To the log and to listeners, with the reason; active until it is normal again."""
    caplog.set_level(logging.DEBUG)
    heard = []
    monitor.listen(heard.append)
    monitor.note_pressure(before, level, "cgroup: 95 % of memory.max")
    (alert,) = heard
    assert (alert.state, alert.severity, alert.value) == (state, severity, float(level))
    assert alert.message == f"memory pressure {words}: cgroup: 95 % of memory.max"
    assert alert.metric == "pressure"
    assert [one.levelno for one in caplog.records] == [record]
    assert monitor.active == ((alert,) if state == "raised" else ())


def test_pressure_holds_as_one_alert_until_it_passes(monitor):
    """However often the level changes in between."""
    for before, level in ((0, 1), (1, 3), (3, 2)):
        monitor.note_pressure(PressureLevel(before), PressureLevel(level), "")
    (alert,) = monitor.active
    assert (alert.value, alert.message) == (2.0, "memory pressure fell from CRITICAL to HIGH")
    monitor.note_pressure(PressureLevel.HIGH, PressureLevel.NORMAL, "")
    assert monitor.active == ()
    assert len(monitor.alerts) == 4


def test_an_alert_of_elsewhere_is_told_to_who_watches_its_rule(monitor, clock):
    own = []
    monitor.watch(PRESSURE_RULE, own.append)
    alert = Alert(
        rule=PRESSURE_RULE, metric="pressure", state=AlertState.RAISED, value=1.0, threshold=0.0,
        severity=Severity.INFO, at=clock.now(), message="something",
    )  # fmt: skip
    monitor.tell(alert)
    assert own == [alert]
    assert monitor.alerts == monitor.active == (alert,)


def test_a_forked_child_looks_afresh(monitor, look):
    """Rules, callbacks and trends stay; alerts and states of the parent are gone, and a lock that was taken is free."""
    heard = []
    monitor.watch(WAITING, heard.append)
    trend = monitor.trend("waiting")
    look(waiting=6)
    monitor._lock.acquire()
    monitor._looking.acquire()
    monitor.after_fork()
    assert (monitor.active, monitor.alerts, trend.points) == ((), (), ())
    assert monitor.due(0.0)
    look(waiting=7)
    assert news(heard) == [("raised", 6.0), ("raised", 7.0)]
    assert trend.last == 7.0


def test_a_callback_may_fork(monitor, look):
    """In the child too the look comes to its end."""
    children = []

    def fork(alert):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of other tests may run beside
            child = os.fork()
        if not child:
            monitor.after_fork()
        children.append(child)

    monitor.watch(WAITING, fork)
    look(waiting=6)
    if children == [0]:
        os._exit(7 if monitor.alerts == () and monitor.callback_failures == 0 else 1)
    _, status = os.waitpid(children[0], 0)
    assert os.waitstatus_to_exitcode(status) == 7


def test_threads_that_watch_ask_and_look_at_once_do_no_harm(monitor):
    """Each callback that is not stopped hears raised and cleared in turns; nothing is left of those that stopped."""
    heard = []
    monitor.watch(WAITING, lambda alert: heard.append(alert.state))
    errors = []
    ready = threading.Barrier(6)

    def work(number):
        try:
            ready.wait()
            for at in range(300):
                if number < 2:
                    monitor.look(BufferPoolStats(waiting=6 if at % 2 else 0), float(at))
                elif number < 4:
                    stop = monitor.watch(WAITING if at % 2 else AlertRule("waiting", at), [].append)
                    monitor.trend("waiting", keep=1 + at % 5)
                    stop()
                else:
                    monitor.listen([].append)()
                    assert len(monitor.alerts) <= KEPT_ALERTS
                    assert len(monitor.active) <= 300
        except Exception as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors
    turns = [AlertState.RAISED, AlertState.CLEARED] * len(heard)
    assert heard == turns[: len(heard)]
    assert len(monitor._watches) == 1
    assert monitor._listeners == []


def test_a_finalizer_that_uses_the_pool_may_run_anywhere(monitor, look):
    """Also where the lock is held: the collector runs wherever memory is allocated."""

    class LockWithCollector:
        """Tells of pressure inside of each locked region, as a finalizer would by way of `maintain`."""

        def __init__(self, lock):
            self.lock = lock
            self.inside = False

        def __enter__(self):
            assert self.lock.acquire(timeout=20), "deadlock"
            if not self.inside:
                self.inside = True
                monitor.note_pressure(PressureLevel.NORMAL, PressureLevel.HIGH, "")
                monitor.note_pressure(PressureLevel.HIGH, PressureLevel.NORMAL, "")
                self.inside = False

        def __exit__(self, *exc):
            self.lock.release()

    monitor._lock = LockWithCollector(monitor._lock)
    heard = []
    stop = monitor.watch(WAITING, heard.append)
    monitor.listen([].append)()
    monitor.trend("waiting")
    look(waiting=6)
    assert [alert.metric for alert in monitor.active] == ["waiting"]
    assert monitor.alerts
    assert news(heard) == [("raised", 6.0)]
    stop()
    assert monitor.active == ()


async def later(alert):
    """Would never be awaited."""


@pytest.mark.parametrize("callback", ["text", 5, later])
def test_what_cannot_be_called_is_refused_at_once(monitor, callback):
    """Nothing is watched then."""
    with pytest.raises(ConfigError, match="callback"):
        monitor.watch(WAITING, callback)
    with pytest.raises(ConfigError, match="callback"):
        monitor.listen(callback)
    assert repr(monitor) == "<Monitor every 10s, 0 rules, 0 trends, 0 alerts active>"


def test_faulty_arguments_name_their_field(monitor):
    with pytest.raises(ConfigError, match="rule"):
        monitor.watch("overloads > 0")
    with pytest.raises(ConfigError, match="is no metric"):
        monitor.trend("hit_rate")
    with pytest.raises(ConfigError, match="interval"):
        monitor.trend("waiting", interval=0)
    with pytest.raises(ConfigError, match="keep"):
        monitor.trend("waiting", keep=0)
    for interval in (0, "often", -1):
        with pytest.raises(ConfigError, match="interval"):
            Monitor(interval)
        with pytest.raises(ConfigError, match="interval"):
            monitor.set_interval(interval)
    assert monitor.interval == 10.0


def test_repr_tells_its_state(clock):
    monitor = Monitor("1m", clock=clock)
    monitor.trend("waiting")
    monitor.look(BufferPoolStats(overloads=1), 0)
    assert repr(monitor) == "<Monitor every 60s, 7 rules, 1 trend, 1 alert active>"


def section(heading):
    return PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_page_has_the_default_rules():
    """docs/monitoring.md, compared with the code: rule and severity, in their order."""
    rows = re.findall(r"^\| `(.+? above .+?)` \| (\w+) \|", section("Alerts"), re.MULTILINE)
    assert rows == [(str(rule), rule.severity.value) for rule in DEFAULT_RULES]


def test_the_page_has_every_event_with_its_fields(monitor, look, caplog):
    """docs/monitoring.md: what is logged, compared with the records that are made."""

    def fail(alert):
        raise ValueError

    monitor.watch(WAITING, fail)
    look(waiting=6)
    rows = re.findall(r"^\| `(pool\.[\w.]+)` \| .*? \| (.*?) \|", section("Logs"), re.MULTILINE)
    assert {event: set(re.findall(r"`(\w+)`", fields)) for event, fields in rows if event.startswith("pool.alert")} == {
        record.event: set(vars(record)) - OF_A_RECORD - {"message", "event"} for record in caplog.records
    }


def test_a_real_pool_raises_what_happened_to_it(clock):
    """A request that waits in vain is told at the next look, by whoever looks: `maintain` or the thread for all pools."""
    heard = queue.SimpleQueue()
    (overloads,) = (rule for rule in DEFAULT_RULES if rule.metric == "overloads")
    with BufferPool(BufferPoolConfig(max_pool_bytes="1MiB", max_buffer_size="1MiB"), clock=clock) as pool:
        pool.monitor.watch(overloads, heard.put)
        with pool.acquire("1MiB"):
            with pytest.raises(Overloaded):
                pool.acquire("1MiB", timeout=0)
            clock.advance(pool.config.metrics_interval + 1)
            pool.maintain()
            alert = heard.get(timeout=20)
    assert (alert.metric, alert.state, alert.value, alert.severity) == ("overloads", "raised", 1.0, "critical")
