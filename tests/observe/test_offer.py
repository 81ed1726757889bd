"""A process offers its dashboard: it answers whoever may ask, harms nobody, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import itertools
import json
import logging
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import warnings

import pytest

from daramjwee import (
    AdaptiveBufferPool,
    BufferPool,
    Cache,
    Closed,
    FetchResult,
    FileStore,
    LimitExceeded,
    MemoryStore,
    StoreError,
)
from daramjwee.buffers.insight.finding import Finding, Severity
from daramjwee.buffers.insight.health import health
from daramjwee.buffers.pressure import PressureLevel
from daramjwee.errors import ConfigError, FetchError
from daramjwee.observe import NoDashboard, ask, decode, find, offer, offer_dashboard, serve
from daramjwee.observe.place import Folder, lives
from daramjwee.observe.wire import REQUEST
from daramjwee.testing import ManualClock, ScriptedOrigin, no_leaks


def look(dashboard):
    return decode(ask(dashboard.path))


def work(pool, times=10):
    for _ in range(times):
        pool.copy(io.BytesIO(bytes(300_000)), io.BytesIO(), 300_000)
        pool.acquire(5000).release()


# -- what is told ------------------------------------------------------------------------------------------


def test_a_pool_alone_tells_what_it_did(pool, dashboard):
    """The snapshot as it is, the same by class and strategy, the settings, the gate, the ledger."""
    work(pool)
    (told,) = look(dashboard).pools
    assert told.stats.operations == pool.stats().operations
    assert (told.kind, told.state) == ("AdaptiveBufferPool", "open")
    assert told.config["max_pool_bytes"] == pool.config.max_pool_bytes
    assert told.config["large_object_strategy"] == "adaptive"
    assert told.operations[0].count == 20 == pool.stats().total_operations
    assert told.operations[0].bytes == 3_000_000
    (large,) = [row for row in told.operations if row.size_class == "large"]
    assert 0 < large.p50 <= large.p90 <= large.p99 <= large.max
    assert large.mean > 0
    assert (told.ledger.held, told.ledger.limit) == (pool.ledger.held, pool.ledger.limit)
    assert told.ledger.share == pool.ledger.held / pool.ledger.limit
    assert (told.gate.limit, told.gate.most_waiting) == (16, 1024)
    assert told.gate.stats.entered == 10
    assert told.pressure.level == "NORMAL"
    assert [trend.metric for trend in told.trends] == list(offer.TRENDS)


def test_a_process_tells_who_it_is(dashboard):
    """To tell one from another, and an old release from a new one."""
    import daramjwee

    told = look(dashboard)
    assert (told.format, told.pid, told.version) == (1, os.getpid(), daramjwee.__version__)
    assert told.python == ".".join(map(str, sys.version_info[:3]))
    assert told.uptime_seconds >= 0
    assert told.cache is None


def test_a_pool_without_a_gate_has_none(place):
    """`BufferPool` bounds nothing."""
    with BufferPool() as pool, offer_dashboard(pool, place) as dashboard:
        assert look(dashboard).pools[0].gate is None
        pool.close()
        assert look(dashboard).pools[0].state == "closed"


def test_rates_are_of_the_last_interval_that_is_long_enough(place):
    """Two that look at the same time do not take the figures from each other."""
    clock = ManualClock()
    with AdaptiveBufferPool(clock=clock) as pool, offer_dashboard(pool, place, clock=clock) as dashboard:
        work(pool, 5)
        clock.advance(2)
        assert look(dashboard).pools[0].rates.operations == 5.0
        clock.advance(0.1)
        work(pool, 4)
        rates = look(dashboard).pools[0].rates  # the last look is too new: from the one before
        assert rates.seconds == pytest.approx(2.1)
        assert rates.operations == pytest.approx(18 / 2.1)
        clock.advance(1.9)
        rates = look(dashboard).pools[0].rates
        assert (rates.seconds, rates.operations) == (pytest.approx(2.0), pytest.approx(4.0))
        assert rates.bytes == pytest.approx(600_000)


def test_pressure_and_its_alert_are_told_with_their_time(place):
    """The level, for how long it has been seen, what was read, and the alert that holds; then that it is over."""
    clock = ManualClock()
    with AdaptiveBufferPool(clock=clock) as pool, offer_dashboard(pool, place, clock=clock) as dashboard:
        pool.relieve(PressureLevel.HIGH)
        pool.maintain()
        told = look(dashboard).pools[0]
        assert told.pressure.level == "HIGH"
        assert {reading.source for reading in told.pressure.readings} >= {"ledger"}
        (alert,) = told.alerts.active
        assert (alert.metric, alert.state, alert.severity, alert.value, alert.at) == (
            "pressure", "raised", "warning", 2.0, clock.now(),
        )  # fmt: skip
        assert "from NORMAL to HIGH" in alert.message
        clock.advance(90)
        assert look(dashboard).pools[0].pressure.seen_seconds == 90.0
        pool.relieve(PressureLevel.NORMAL)
        pool.maintain()
        told = look(dashboard).pools[0]
        assert (told.pressure.level, told.pressure.seen_seconds) == ("NORMAL", 0.0)
        assert told.alerts.active == ()
        assert [alert.state for alert in told.alerts.recent] == ["raised", "cleared"]


def test_findings_of_health_and_advice_are_told(place, monkeypatch):
    """What was seen, and which field to change from which value to which."""
    with AdaptiveBufferPool() as pool, offer_dashboard(pool, place) as dashboard:
        pool.relieve(PressureLevel.HIGH)
        told = look(dashboard).pools[0].findings
        wanted = [finding.code for finding in health(pool.stats(), pool.config)]
        assert [row.code for row in told if row.source == "health"] == wanted
        assert wanted
        assert all(row.seen and row.remedy and row.severity in {"info", "warning", "critical"} for row in told)
        advice = Finding(
            code="x", severity=Severity.INFO, seen="s", remedy="r", field="chunk_size", current=None, proposed=65536
        )
        monkeypatch.setattr(offer, "advise", lambda stats, config: (advice,) if config is pool.config else ())
        last = look(dashboard).pools[0].findings[-1]
        assert (last.source, last.field, last.current, last.proposed, last.direction) == (
            "advice", "chunk_size", None, 65536, "set",
        )  # fmt: skip


def test_trends_go_on_from_the_offer(place):
    """A point for each look; none of a program that has too many trends of its own."""
    clock = ManualClock()
    with AdaptiveBufferPool(clock=clock) as pool:  # it holds no memory, so nobody else looks at it
        with offer_dashboard(pool, place, clock=clock) as dashboard:
            for _ in range(3):
                clock.advance(10)
                pool.monitor.look(pool.stats(), clock.monotonic())
            trends = look(dashboard).pools[0].trends
            assert [trend.metric for trend in trends] == list(offer.TRENDS)
            assert [point.at for point in trends[0].points] == [-20.0, -10.0, 0.0]
    with AdaptiveBufferPool(clock=clock) as pool:
        try:
            for keep in itertools.count(1):
                pool.monitor.trend("waits", keep=keep)
        except LimitExceeded:
            pass
        with offer_dashboard(pool, place, clock=clock) as dashboard:
            assert look(dashboard).pools[0].trends == ()


def test_a_cache_tells_its_tiers_and_fills(tmp_path):
    """In the folder of the first file tier, where nothing else was said."""
    with Cache(
        MemoryStore("1MiB"), FileStore(tmp_path / "t", capacity="8MiB"), origin=ScriptedOrigin({"k": b"x" * 9})
    ) as c:
        for _ in range(3):
            c.get("k")
        assert c.get("none", default=None) is None
        dashboard = c.offer_dashboard()
        assert os.path.dirname(dashboard.path) == str(tmp_path / "t")
        told = look(dashboard).cache
        stats = c.stats()
        assert told.hits == stats.hits == 2
        assert told.misses == stats.misses
        assert told.memory_limit == stats.memory_limit
        assert [tier.name for tier in told.tiers] == ["memory", "file"]
        assert told.tiers[1].capacity == 8 << 20
        assert told.tiers[0].entries == 1


def lose_a_lease(pool):
    pool.acquire(1 << 20)
    gc.collect()
    pool.stats()


SECRETS = ("s3cr3t", "hunter2", "example.org", "private-key", "sesame")


def test_no_key_no_url_and_no_secret_is_told(tmp_path):
    """Whoever watches a cache need not know what is in it; also not from what went wrong."""

    class Named(MemoryStore):
        name = "https://joe:hunter2@example.net/?token=sesame"

        def stage(self, key, metadata):
            if key == "private-key":
                raise StoreError(f"no room for {key}")
            return super().stage(key, metadata)

    def refuse(request):
        raise FetchError(f"{request.key} s3cr3t")

    def whole(request):
        return FetchResult(b"sesame" * 1000, tags=("private-key",))

    url = "https://user:hunter2@example.org/private-key?sig=s3cr3t"
    with Cache(Named("1MiB"), FileStore(tmp_path / "private-key", capacity="8KiB")) as cache:
        dashboard = cache.offer_dashboard()
        cache.get(url, whole)
        cache.get("private-key", whole)
        with pytest.raises(FetchError):
            cache.get(f"{url}2", refuse)
        with pytest.warns(ResourceWarning):
            lose_a_lease(cache.buffers)
        body = ask(dashboard.path).decode()
        told = decode(body.encode())
    assert told.cache.fetch_errors == 1
    assert told.cache.events["stage_refused"] >= 1
    assert told.cache.tiers[0].name == "https://***@example.net/?token=***"
    assert [secret for secret in SECRETS if secret in body] == []


# -- where -------------------------------------------------------------------------------------------------


def test_the_socket_is_its_owners_alone(dashboard):
    """And goes at the end, which may come twice."""
    mode = os.stat(dashboard.path).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert repr(dashboard) == f"<Dashboard open at {dashboard.path}>"
    dashboard.close()
    dashboard.close()
    assert not os.path.exists(dashboard.path)
    assert dashboard.closed
    assert repr(dashboard) == f"<Dashboard closed at {dashboard.path}>"
    with pytest.raises(NoDashboard, match="no process offers its dashboard at"):
        ask(dashboard.path)


def test_a_path_names_the_socket_and_a_folder_takes_one(pool, place):
    """Both in a folder that is there."""
    with offer_dashboard(pool, place / "mine.sock") as named, offer_dashboard(pool, f"{place}/") as other:
        assert named.path == str(place / "mine.sock")
        assert look(named).pid == look(other).pid == os.getpid()
        assert set(find(place)) == {
            other.path
        }  # a socket of another name may be anything: it is asked when it is named
        assert find(named.path) == (named.path,)
    assert os.listdir(place) == []


def test_a_path_that_cannot_be_is_refused_before_anything_is_made(pool, place, tmp_path):
    """Which, and what to do."""
    (place / "file").write_text("mine")
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with offer_dashboard(pool, place / "taken") as taken, no_leaks(pool, descriptors=True):
        for path, words in (
            ("", "must be the path of a folder"),
            (None, "must be the path of a folder"),
            (7, "must be the path of a folder"),
            (place / "no" / "s", "the folder does not exist; make it first"),
            (f"{place}/no/", "the folder does not exist; make it first"),
            (place / "file", "is there already and is no socket"),
            (place / "file" / "s", "no socket can be there (Not a directory)"),
            (taken.path, "another process offers its dashboard there"),
            (open_to_all, "others may write to it (mode 0777)"),
            (open_to_all / "s", "others may write to it (mode 0777)"),
            (place / ("n" * 100), "too long for a socket on this system"),
        ):
            with pytest.raises(ConfigError) as caught:
                offer_dashboard(pool, path)
            assert words in str(caught.value), path
            assert caught.value.problems[0].field == "path"
    assert os.listdir(open_to_all) == []
    assert os.listdir(place) == ["file"]


def test_a_cache_without_a_file_tier_has_to_be_told_where(place):
    """Nothing is guessed."""
    with Cache(MemoryStore("1MiB")) as cache:
        with pytest.raises(ConfigError, match="has no file tier: give the path"):
            cache.offer_dashboard()
        assert look(cache.offer_dashboard(place)).cache.tiers[0].name == "memory"
    with pytest.raises(Closed):
        cache.offer_dashboard(place)


def test_a_folder_with_a_long_path_is_offered_in_and_asked(tmp_path):
    """More than 200 characters, where a socket's path may have 107."""
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    with Cache(FileStore(folder, capacity="1MiB")) as cache:
        dashboard = cache.offer_dashboard()
        assert len(dashboard.path) > 200
        assert find(folder) == (dashboard.path,)
        assert look(dashboard).pid == os.getpid()
    assert find(folder) == ()


def test_a_file_tier_minds_no_socket_in_its_folder(tmp_path, start):
    """Neither the tier that is there, nor one that starts, sweeps, counts or serves it; in any release so far."""
    process = start(tmp_path)
    with FileStore(tmp_path, capacity="64MiB") as store:
        usage = store.usage()
        assert list(store.keys()) == ["k"]
        assert usage.entries == 1
        assert usage.bytes == 300_000
        with Cache(store) as cache:
            mine = cache.offer_dashboard()
            assert store.usage() == usage
            assert cache.get("k") == bytes(300_000)
            assert sorted(find(tmp_path)) == sorted([process.path, mine.path])
    assert find(tmp_path) == (process.path,)
    assert decode(ask(process.path)).pid == process.pid
    assert process.end() == 0


# -- the end -----------------------------------------------------------------------------------------------


def test_a_cache_that_closes_takes_its_dashboards_along(tmp_path):
    """Threads and descriptors too."""
    with no_leaks(descriptors=True), Cache(FileStore(tmp_path, capacity="1MiB")) as cache:
        dashboards = [cache.offer_dashboard() for _ in range(3)]
        assert len(find(tmp_path)) == 3
        ask(dashboards[0].path)
    assert find(tmp_path) == ()
    assert all(dashboard.closed for dashboard in dashboards)


def test_a_pool_that_is_collected_takes_its_dashboard_along(place):
    """A dashboard nobody closes keeps no pool alive, and ends with it."""
    pool = BufferPool()
    path = offer_dashboard(pool, place).path
    (thread,) = [t for t in threading.enumerate() if t.name == "daramjwee-dashboard"]
    ask(path)
    pool.close()
    del pool
    gc.collect()
    with pytest.raises(NoDashboard, match=r"is gone|any more"):  # whether its thread has seen it before or sees it now
        ask(path)
    thread.join(20)
    assert not thread.is_alive()
    assert os.listdir(place) == []


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError('x')", 1),
        ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
    ],
)
def test_an_interpreter_that_ends_removes_the_socket(tmp_path, start, end, status):
    """Closed or not."""
    process = start(tmp_path, f"sys.stderr = open(os.devnull, 'w')\nsys.stdin.readline()\n{end}")
    assert find(tmp_path) == (process.path,)
    process.process.stdin.write("\n")
    assert process.end() == status
    assert not os.path.exists(process.path)


def test_a_killed_process_leaves_a_socket_that_the_next_removes(tmp_path, start):
    """Whoever asks, and whoever offers."""
    killed = [start(tmp_path), start(tmp_path)]
    for process in killed:
        process.kill()
        assert os.path.exists(process.path)
    with pytest.raises(NoDashboard, match="any more"):
        ask(killed[0].path)
    another = start(tmp_path)
    assert [os.path.exists(process.path) for process in killed] == [False, False]
    another.kill()
    assert os.path.exists(another.path)
    assert find(tmp_path) == ()
    assert not os.path.exists(another.path)


def test_several_processes_of_one_folder_are_told_apart(tmp_path, start):
    """Each has a socket of its own."""
    both = [start(tmp_path), start(tmp_path)]
    assert sorted(find(tmp_path)) == sorted(process.path for process in both)
    assert [decode(ask(process.path)).pid for process in both] == [process.pid for process in both]
    assert both[0].end() == 0
    assert find(tmp_path) == (both[1].path,)


FORKS = """
child = os.fork()
if child == 0:
    (inherited,) = cache._dashboards
    print(inherited.closed, flush=True)
    inherited.close()
    mine = cache.offer_dashboard()
    print(mine.path, flush=True)
    sys.stdin.readline()
    sys.exit()
print(child, flush=True)
signal.pause()
"""


def test_a_forked_child_neither_serves_nor_removes_its_parents_socket(tmp_path, start):
    """It may offer its own. When the parent dies, nobody waits at its socket though the child lives on."""
    parent = start(tmp_path, FORKS)
    lines = [parent.line() for _ in range(3)]
    child = int(next(line for line in lines if line.isdigit()))
    (own,) = [line for line in lines if line.startswith("/")]
    assert "True" in lines
    assert sorted(find(tmp_path)) == sorted([parent.path, own])
    assert decode(ask(own)).pid == child
    assert decode(ask(parent.path)).pid == parent.pid
    os.kill(parent.pid, signal.SIGKILL)
    parent.process.wait()
    with Folder(str(tmp_path)) as folder:
        assert not lives(folder, os.path.basename(parent.path))
        assert lives(folder, os.path.basename(own))
    assert find(tmp_path) == (own,)
    parent.process.stdin.close()  # the child's, too
    parent.process.stdout.read()  # to its end
    assert find(tmp_path) == ()


def test_a_child_that_just_ends_leaves_the_parent_serving(pool, dashboard):
    """By `os._exit`, as a worker of multiprocessing does, and with the interpreter's end."""
    for end in (os._exit, sys.exit):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads is what is tested
            pid = os.fork()
        if pid == 0:
            try:
                offer._close_all()  # what the end of an interpreter calls
                end(0)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert look(dashboard).pid == os.getpid()


# -- clients -----------------------------------------------------------------------------------------------


def is_ended(connection):
    """Whether the other side sends nothing and goes."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:  # what was sent to it was never read
        return True


def test_who_connects_and_says_nothing_holds_up_nobody(dashboard, client):
    """More of them than are let in: others are answered, and the end comes at once."""
    silent = [client(dashboard.path) for _ in range(3 * serve.MOST_CLIENTS)]
    for connection in silent[::2]:
        with contextlib.suppress(BrokenPipeError):  # the first ones had to make way
            connection.sendall(b"GET / HT")
    for _ in range(5):
        assert look(dashboard).pid == os.getpid()
    dashboard.close()
    assert not dashboard._thread.is_alive()
    assert all(map(is_ended, silent))


def test_who_says_nothing_is_sent_away_in_time(pool, place, client, monkeypatch):
    """So is who sends one byte now and then."""
    monkeypatch.setattr(serve, "CLIENT_SECONDS", 0.05)
    with offer_dashboard(pool, place) as dashboard:
        assert is_ended(client(dashboard.path))
        begun = client(dashboard.path)
        with contextlib.suppress(BrokenPipeError):  # its time may be over before it says a word
            begun.sendall(b"GET /")
        assert is_ended(begun)
        slow = client(dashboard.path)
        with pytest.raises(BrokenPipeError):
            while True:
                slow.sendall(b"x")
        monkeypatch.setattr(serve, "CLIENT_SECONDS", 50.0)
        assert look(dashboard).pid == os.getpid()


def test_who_does_not_take_the_answer_is_sent_away_in_time(pool, place, client, monkeypatch):
    """Others are answered meanwhile; no more than one answer is kept for it."""
    monkeypatch.setattr(serve, "CLIENT_SECONDS", 1.0)
    with offer_dashboard(pool, place) as dashboard:
        real = dashboard._server._respond
        dashboard._server._respond = lambda head: bytes(10_000_000)
        deaf = client(dashboard.path)
        deaf.sendall(REQUEST)
        assert deaf.recv(1) == b"\0"
        dashboard._server._respond = real
        monkeypatch.setattr(serve, "CLIENT_SECONDS", 50.0)
        assert look(dashboard).pid == os.getpid()
        gone = select.poll()
        gone.register(deaf, 0)  # until the other side has hung up
        assert gone.poll(50_000)
        assert len(b"".join(iter(lambda: deaf.recv(1 << 20), b""))) < 9_999_999


GARBAGE = [
    b"\r\n\r\n",
    b"\x00" * 5000 + b"\n\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET / HTTP/1.0\r\n" + b"A: b\r\n" * 100_000,
    b"x" * 10_000_000,
    b"POST / HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n" + b"y" * 5_000_000,
    b"\xff\xfe" * 4 + b"\n\n",
]


@pytest.mark.parametrize("request_", GARBAGE, ids=range(len(GARBAGE)))
def test_whatever_is_sent_the_next_is_answered(dashboard, send, request_):
    """With a status, where there is time to read it."""
    try:
        answer = send(dashboard.path, request_)
    except ConnectionResetError:
        answer = b""  # it went on sending
    assert answer == b"" or answer.split()[1] in {b"400", b"405", b"431"}
    assert look(dashboard).pid == os.getpid()


def test_who_goes_away_in_the_middle_harms_nobody(tmp_path, start):
    """Also in a process in which a broken pipe ends it, as in many command line programs."""
    process = start(tmp_path, "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\nprint('ready', flush=True)")
    assert process.line() == "ready"
    with Folder(str(tmp_path)) as folder:
        for count in range(60):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(folder.address(os.path.basename(process.path)))
            connection.sendall(REQUEST[: count % (len(REQUEST) + 1)])
            connection.close()
    assert decode(ask(process.path)).pid == process.pid
    assert process.end() == 0


def test_curl_can_ask(dashboard, send):
    """What it sends is answered as it expects."""
    answer = send(dashboard.path, b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["pid"] == os.getpid()
    assert send(dashboard.path, b"GET /other HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 404 ")
    assert send(dashboard.path, b"DELETE / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 405 ")
    assert send(dashboard.path, b"HEAD / HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")[2] == b""


def test_many_that_ask_at_once_are_all_answered(pool, dashboard):
    """While the pool is at work."""
    stop = threading.Event()
    said = []

    def load():
        while not stop.is_set():
            work(pool, 1)

    def client():
        said.extend(look(dashboard).pools[0].stats for _ in range(20))

    workers = [threading.Thread(target=load) for _ in range(2)]
    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in workers + clients:
        thread.start()
    for thread in clients:
        thread.join()
    stop.set()
    for thread in workers:
        thread.join()
    assert len(said) == 80
    assert all(stats.total_puts <= stats.total_gets for stats in said)


# -- faults ------------------------------------------------------------------------------------------------


def test_an_error_of_the_pool_is_told_once_and_the_next_is_answered(pool, dashboard, send, caplog, monkeypatch):
    """Status 500 without the words of the error, which may say anything."""

    def broken():
        raise ValueError("key s3cr3t")

    with caplog.at_level(logging.WARNING, "daramjwee.observe"):
        for _ in range(2):
            monkeypatch.setattr(pool, "stats", broken)
            for _ in range(3):
                answer = send(dashboard.path, REQUEST)
                assert answer.startswith(b"HTTP/1.0 500 ")
                assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
                    "error": "the document could not be made: ValueError"
                }
            with pytest.raises(FetchError, match="answered with status 500; its log says why"):
                ask(dashboard.path)
            monkeypatch.undo()
            assert look(dashboard).pid == os.getpid()
    assert [record.message for record in caplog.records] == ["the dashboard document could not be made"] * 2
    assert caplog.records[0].exc_info[0] is ValueError
    assert caplog.records[0].event == "pool.dashboard_failed"


def test_what_cannot_be_made_leaves_nothing_behind(pool, place, monkeypatch):
    """No thread to be had, no descriptors left: said, and the folder is as it was."""

    def refuse(*_args):
        raise RuntimeError("can't start new thread")

    def none_left():
        raise OSError(errno.EMFILE, "Too many open files")

    with no_leaks(pool, descriptors=True):
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            offer_dashboard(pool, place)
        monkeypatch.undo()
        monkeypatch.setattr(serve.socket, "socketpair", none_left)
        with pytest.raises(ConfigError, match=r"no socket can be there \(Too many open files\)"):
            offer_dashboard(pool, place)
        monkeypatch.undo()
        assert os.listdir(place) == []
    with offer_dashboard(pool, place) as dashboard:
        assert look(dashboard).pid == os.getpid()


def test_without_descriptors_clients_wait_until_there_are_some(pool, dashboard, monkeypatch):
    """The thread neither dies nor runs hot."""
    turns = []
    real = serve.Server._accept
    asked = threading.Event()

    class Listener:
        """As the real one, with no descriptor to be had the first time."""

        def __init__(self, listener):
            self.listener = listener
            self.fileno = listener.fileno
            self.close = listener.close

        def accept(self):
            turns.append(self)
            asked.set()
            if len(turns) == 1:
                raise OSError(errno.EMFILE, "Too many open files")
            return self.listener.accept()

    monkeypatch.setattr(serve, "DEAF_SECONDS", 0.05)
    dashboard._server._listener = Listener(dashboard._server._listener)
    assert look(dashboard).pid == os.getpid()
    assert asked.is_set()
    assert 2 <= len(turns) < 5
    assert real is serve.Server._accept


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", FetchError, "is no dashboard"),
        (b"", FetchError, "is no dashboard"),
        (b"HTTP/1.0 503 Busy\r\n\r\n", FetchError, "answered with status 503"),
        (b"HTTP/1.0 410 Gone\r\n\r\n", NoDashboard, "is gone"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 3000, FetchError, "sends more than 2,000 bytes"),
        (None, FetchError, "did not answer within 0.5 s"),
    ],
)
def test_whatever_is_at_the_other_end_asking_ends(place, monkeypatch, said, error, words):
    """Somebody else's socket, a liar, a process that stands still."""
    from daramjwee.observe import client

    monkeypatch.setattr(client, "MOST_BYTES", 2000)
    path = str(place / "s")
    done = threading.Event()

    def answer(listener):
        for _ in range(client.TRIES if said == b"" else 1):
            connection, _ = listener.accept()
            with connection:
                if said is None:
                    done.wait(50)
                    return
                connection.recv(4096)
                try:
                    connection.sendall(said)
                except BrokenPipeError:
                    pass  # it had enough

    with socket.socket(socket.AF_UNIX) as listener, Folder(str(place)) as folder:
        listener.bind(folder.address("s"))
        listener.listen()
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        with pytest.raises(error, match=words):
            ask(path, timeout=0.5 if said is None else 50)
        done.set()
        thread.join()


def test_who_is_sent_away_without_a_word_asks_again(dashboard, monkeypatch):
    """Too many were there, or it was closed at that moment."""
    from daramjwee.observe import client

    real = client._exchange
    turns = []

    def dropped(path, deadline):
        turns.append(path)
        if len(turns) == 1:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        return bytearray() if len(turns) == 2 else real(path, deadline)

    monkeypatch.setattr(client, "_exchange", dropped)
    assert look(dashboard).pid == os.getpid()
    assert len(turns) == 3


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.EACCES, ConfigError, "belongs to another user; ask as that user"),
        (errno.ECONNREFUSED, NoDashboard, "any more"),
        (errno.EIO, FetchError, "could not ask at .*: Input/output error"),
    ],
)
def test_a_socket_that_cannot_be_connected_to_says_why(dashboard, monkeypatch, number, error, words):
    """Whose it is, that it is dead, or what the system says."""
    from daramjwee.observe import client

    def refuse(*_args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(client, "connect", refuse)
    with pytest.raises(error, match=words):
        ask(dashboard.path)


def test_asking_where_there_is_nothing_says_so(tmp_path, place):
    """No folder, no socket, a file."""
    with pytest.raises(NoDashboard, match="there is no folder or socket"):
        find(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="Not a directory"):
        find(tmp_path / "file")
    assert find(place) == ()
    with pytest.raises(NoDashboard):
        ask(place / "none")


def test_offering_costs_an_import_of_it_nothing():
    """Sockets come with the first dashboard."""
    code = "import sys, daramjwee; daramjwee.Cache, daramjwee.FileStore; print('socket' in sys.modules)"
    source = os.path.dirname(os.path.dirname(os.path.dirname(offer.__file__)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("subject", [None, 5, "pool"])
def test_what_is_no_pool_is_refused_with_what_to_give(tmp_path, subject):
    """A cache is the likely one; nothing is left in the folder."""
    with pytest.raises(TypeError, match=r"cannot offer a dashboard: give a BufferPool .* cache\.offer_dashboard\(\)"):
        offer_dashboard(subject, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_user_is_told_with_whom_to_ask_as(tmp_path, monkeypatch):
    """Not that it should be a folder, which it is."""

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr("daramjwee.observe.client.Folder", refuse)  # the tests may run as root, who may look anywhere
    with pytest.raises(ConfigError, match="may not be looked into by this user; ask as the user of the process"):
        find(tmp_path)
