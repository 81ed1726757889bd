"""`daramjwee stats`: what running processes tell, for people and for programs, once or again and again."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading

import msgspec
import pytest

from daramjwee import AdaptiveBufferPool
from daramjwee.cli.stats_view import Page, Remark, Table, drawing_of, page_of, text_of
from daramjwee.observe import ask, decode, offer_dashboard
from daramjwee.observe.document import schema
from daramjwee.observe.place import Folder

SECONDS = 50
# Offers, works, says where, and works on until it is told to end.
PROGRAM = """
import io, os, sys, threading
from daramjwee import BufferPoolConfig, Cache, FileStore
cache = Cache(FileStore(sys.argv[1], capacity="64MiB"), buffers=BufferPoolConfig(enable_detailed_metrics=True))
cache.set("k", bytes(300_000))
def work():
    cache.get("k")
    cache.buffers.copy(io.BytesIO(bytes(300_000)), io.BytesIO(), 300_000)
    cache.buffers.acquire(5000).release()
for _ in range(200):
    work()
place = sys.argv[2] if len(sys.argv) > 2 else None
print(cache.offer_dashboard(place).path, flush=True)
stop = threading.Event()
def load():
    while not stop.wait(0.01):
        work()
thread = threading.Thread(target=load)
thread.start()
sys.stdin.readline()
stop.set()
thread.join()
cache.close()
"""


class Process:
    """A running `PROGRAM`. `path`: of its socket."""

    def __init__(self, daramjwee, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, *map(str, arguments)], env=daramjwee.environment(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self.process.pid
        self.path = self.process.stdout.readline().strip()

    def end(self):
        if self.process.poll() is None:
            self.process.communicate("\n", timeout=SECONDS)
        return self.process.returncode


@pytest.fixture
def start(daramjwee):
    """`start(folder)`: a process that offers the dashboard of its cache."""
    running = []

    def start(*arguments):
        running.append(Process(daramjwee, *arguments))
        return running[-1]

    yield start
    for process in running:
        process.end()


@pytest.fixture
def process(start, folder):
    return start(folder)


def test_a_pipe_gets_plain_lines(daramjwee, folder, process):
    """Rates, classes by strategy, ledger, gate, pressure, the cache: no escape sequence."""
    done = daramjwee("stats", folder)
    text = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert "\x1b" not in text
    assert text.startswith(f"process {process.pid}, daramjwee ")
    for pattern in (
        r"^rates +[0-9.,]+ operations/s, [0-9.]+[KMGTi]*B/s, [0-9.,]+ leases/s",
        r"^ledger +[0-9.]+[KMGi]*B of 512MiB",
        r"^gate +[0-9]+ of 16 under way; 0 of 1,024 in line",
        r"^pressure +(NORMAL|ELEVATED|HIGH|CRITICAL) for ",
        r"^cache +[0-9,]+ hits",
        r"^operations +strategy +count +bytes +mean +p50 +p90 +p99 +max$",
        r"^all +all +[0-9,]+ ",
        r"^large +[a-z]+ +[0-9,]+ +[0-9.]+[KMGi]*B( +[0-9.]+(ns|us|ms|s)){5}$",
        r"^small +pooled +[0-9,]+ ",
        r"^file +[0-9,]+ +293.0KiB +64MiB +1 ",
    ):
        assert re.search(pattern, text, re.MULTILINE), (pattern, text)


def test_json_is_the_document_itself(daramjwee, folder, process):
    """By the folder, by the socket, by the process; the same fields as the schema."""
    for arguments in ([folder], [process.path], [folder, "--pid", process.pid]):
        done = daramjwee("stats", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["pid"] == process.pid
        assert decode(done.stdout).pools[0].operations[0].count >= 400
        assert set(told) == set(schema()["$defs"]["Document"]["properties"])


def test_the_schema_is_printed_without_a_process(daramjwee):
    """For programs that check or generate."""
    done = daramjwee("stats", "--schema")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads(msgspec.json.encode(schema()))


def test_a_socket_elsewhere_is_asked_by_its_path(daramjwee, start, folder, tmp_path):
    """Where the process was told to put it."""
    process = start(folder, tmp_path / "elsewhere.sock")
    assert daramjwee("stats", folder).returncode == 4
    done = daramjwee("stats", tmp_path / "elsewhere.sock")
    assert done.stdout.startswith(f"process {process.pid},".encode())


def test_several_processes_are_all_shown_or_one_is_chosen(daramjwee, start, folder):
    """One JSON document is one process's."""
    both = [start(folder), start(folder)]
    text = daramjwee("stats", folder).stdout.decode()
    assert sorted(map(int, re.findall(r"^process ([0-9]+),", text, re.MULTILINE))) == sorted(p.pid for p in both)
    chosen = daramjwee("stats", folder, "--pid", both[1].pid)
    assert re.findall(rb"^process ([0-9]+),", chosen.stdout) == [str(both[1].pid).encode()]
    done = daramjwee("stats", folder, "--json")
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"there are 2 processes" in done.stderr
    assert b"choose one with --pid" in done.stderr
    done = daramjwee("stats", folder, "--pid", 1)
    assert done.returncode == 4
    assert b"process 1 offers no dashboard" in done.stderr
    assert str(both[0].pid).encode() in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["{folder}"], 4, "no process offers its dashboard in {folder}: call cache.offer_dashboard()"),
        (["{folder}", "--watch"], 4, "no process offers its dashboard in {folder}"),
        (["{folder}/none"], 4, "there is no folder or socket {folder}/none"),
        (["{folder}/file"], 2, "give the folder of a file tier, or a socket"),
        ([], 2, "name the folder of a file tier, or the socket of a process"),
        ([""], 2, "name the folder of a file tier, or the socket of a process"),
        (["{folder}", "--interval", "often"], 2, "give a duration such as 30s"),
        (["{folder}", "--interval", "0"], 2, "must be at least 0.1 s"),
        (["{folder}", "--pid", "me"], 2, "--pid"),
    ],
)
def test_what_cannot_be_shown_is_said_with_what_to_do(daramjwee, folder, arguments, status, message):
    """A documented status, nothing on standard output."""
    folder.mkdir(mode=0o700)
    (folder / "file").write_text("x")
    done = daramjwee("stats", *(each.format(folder=folder) for each in arguments))
    assert done.returncode == status, done.stderr
    assert done.stdout == b""
    assert message.format(folder=folder) in " ".join(done.stderr.decode().split())


@contextlib.contextmanager
def answering(path, *bodies):
    """Somebody else at a socket, who answers each that asks with the next body."""
    with socket.socket(socket.AF_UNIX) as listener, Folder(os.path.dirname(path)) as place:
        listener.bind(place.address(os.path.basename(path)))
        listener.listen()
        listener.settimeout(SECONDS / 2)

        def answer():
            for body in bodies:
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    return  # nobody asked: the test says what happened instead
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


def test_what_a_stranger_sends_cannot_move_the_cursor(daramjwee, tmp_path, process):
    """Control characters in any text are shown, not obeyed."""
    evil = "\x1b[2J\x07\x9b31m"
    told = json.loads(ask(process.path))
    told["version"] = told["pools"][0]["kind"] = told["pools"][0]["operations"][0]["size_class"] = evil
    told["pools"][0]["findings"] = [{"source": "s", "code": "c", "severity": evil, "seen": evil, "remedy": "r"}]
    told["cache"]["tiers"][0]["name"] = evil
    told["pools"][0]["pressure"]["level"] = evil
    with answering(tmp_path / "s", json.dumps(told).encode()):
        done = daramjwee("stats", tmp_path / "s")
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    text = done.stdout.decode()
    assert all(c.isprintable() for c in text.replace("\n", ""))
    assert text.count("\\x1b[2J\\x07\\x9b31m") == 7


def test_what_is_no_dashboard_is_said_with_status_5(daramjwee, tmp_path):
    """Neither garbage nor a later format is shown as if it were one."""
    for body, words in ((b"\x1b[2J", "no dashboard document"), (b'{"format":9}', "upgrade daramjwee")):
        path = tmp_path / words.partition(" ")[0]
        with answering(path, body):
            done = daramjwee("stats", path)
        assert done.returncode == 5
        assert words.encode() in done.stderr
        assert b"\x1b" not in done.stderr


def test_one_that_cannot_be_shown_hides_no_other(daramjwee, folder, process):
    """It is named on standard error, and the status is that of its error; in JSON there is no mistaking either."""
    liar = folder / "dashboard-1-0123456789ab.sock"
    with socket.socket(socket.AF_UNIX) as listener, Folder(str(folder)) as place:
        listener.bind(place.address(liar.name))
        listener.listen()
        over = threading.Event()

        def answer():
            while True:
                connection, _ = listener.accept()
                with connection:
                    if over.is_set():
                        return
                    with contextlib.suppress(OSError):  # whoever only looks whether we live has gone
                        connection.sendall(b"nonsense")
                        connection.shutdown(socket.SHUT_WR)
                        connection.recv(4096)

        thread = threading.Thread(target=answer)
        thread.start()
        done = daramjwee("stats", folder)
        chosen = daramjwee("stats", folder, "--pid", process.pid, "--json")
        over.set()
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(place.address(liar.name))
        thread.join()
    assert done.returncode == 5
    assert done.stdout.startswith(f"process {process.pid},".encode())
    assert f"{liar} is no dashboard".encode() in done.stderr
    assert json.loads(chosen.stdout)["pid"] == process.pid


def lines_of(process, count):
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def test_watching_into_a_pipe_prints_a_line_each_time_until_the_process_ends(daramjwee, folder, process):
    """One document a line; then it says so, with status 4."""
    with daramjwee.start("stats", folder, "--watch", "--json", "--interval", "0.1s") as watching:
        told = lines_of(watching, 3)
        assert [document["pid"] for document in told] == [process.pid] * 3
        counts = [document["pools"][0]["operations"][0]["count"] for document in told]
        assert counts == sorted(counts)
        assert told[2]["at"] > told[0]["at"]
        assert process.end() == 0
        _, errors = watching.communicate(timeout=SECONDS)
    assert watching.returncode == 4
    assert b"the process has ended, or offers no dashboard any more" in errors


def test_watching_plain_prints_blocks_and_follows_who_comes_and_goes(daramjwee, start, folder):
    """The folder is looked at anew each time."""
    first = start(folder)
    with daramjwee.start("stats", folder, "--watch", "--interval", "0.1s") as watching:
        pids = iter(lambda: watching.stdout.readline(), b"")
        pids = (int(match[1]) for line in pids if (match := re.match(rb"process ([0-9]+),", line)))
        assert next(pids) == first.pid
        second = start(folder)
        while next(pids) != second.pid:
            pass
        first.end()
        while {next(pids), next(pids)} != {second.pid}:  # what was told before its end is in the pipe still
            pass
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=SECONDS)
    assert watching.returncode == 130
    assert errors == b"interrupted\n"


def test_a_reader_that_goes_away_ends_the_watching(daramjwee, folder, process):
    """As in `daramjwee stats --watch --json | head -1`."""
    with daramjwee.start("stats", folder, "--watch", "--json", "--interval", "0.1s") as watching:
        lines_of(watching, 1)
        watching.stdout.close()
        assert watching.wait(SECONDS) == 141
        assert watching.stderr.read() == b""


class Terminal:
    """`daramjwee ARGUMENTS` on a terminal of its own."""

    def __init__(self, daramjwee, *arguments, columns=120, term="xterm-256color"):
        self.outside, inside = pty.openpty()
        self.resize(30, columns)
        environment = daramjwee.environment() | {"TERM": term}
        environment.pop("COLUMNS")
        self.process = subprocess.Popen(
            daramjwee.line(*arguments), env=environment, stdin=inside, stdout=inside, stderr=inside
        )
        os.close(inside)
        self.seen = b""

    def resize(self, rows, columns):
        fcntl.ioctl(self.outside, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, words, since=0):
        """Read on until `words` are there."""
        while words not in self.seen[since:]:
            self.seen += os.read(self.outside, 65536)

    def end(self):
        """Read to the end; the exit status."""
        with contextlib.suppress(OSError):  # how a terminal says that nobody is there any more
            while piece := os.read(self.outside, 65536):
                self.seen += piece
        os.close(self.outside)
        return self.process.wait(SECONDS)


ALTERNATE, BACK, CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


def test_a_terminal_sees_it_live_through_a_resize_until_ctrl_c(daramjwee, folder, process):
    """On a screen of its own, drawn again and again; the old screen and the cursor come back."""
    terminal = Terminal(daramjwee, "stats", folder, "--watch", "--interval", "0.1s")
    terminal.until(b"operations/s")
    assert ALTERNATE in terminal.seen
    for rows, columns in ((10, 40), (2, 12), (50, 200)):
        terminal.resize(rows, columns)
        for _ in range(2):
            terminal.until(b"process", since=len(terminal.seen))
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    end = terminal.seen.rindex(BACK)
    assert CURSOR in terminal.seen
    assert b"interrupted" in terminal.seen
    assert b"Traceback" not in terminal.seen
    assert ALTERNATE not in terminal.seen[end:]


def test_a_socket_of_another_name_in_the_folder_is_told(daramjwee, folder):
    """Who offers a pool at `pool.sock` and asks for the folder learns what to type."""
    folder.mkdir(mode=0o700)
    path = folder / "pool.sock"
    with AdaptiveBufferPool() as pool, offer_dashboard(pool, path):
        done = daramjwee("stats", folder)
        assert done.returncode == 4
        assert done.stderr.decode().rstrip().endswith(f"; there is {path}")
        assert daramjwee("stats", path).returncode == 0


def test_a_pool_that_rests_tells_no_share_of_nothing(tmp_path):
    """0 % of no leases from free chunks would look like a fault."""
    with AdaptiveBufferPool() as pool, offer_dashboard(pool, tmp_path) as dashboard:
        told = msgspec.json.decode(ask(dashboard.path))
    assert "free chunks" not in text_of(page_of(decode(msgspec.json.encode(told))))
    told["pools"][0]["rates"] |= {"gets": 4.0, "reuse_rate": 0.75}
    assert "4.0 leases/s, 75.0% of them from free chunks; over" in text_of(page_of(decode(msgspec.json.encode(told))))


def test_the_worst_is_told_first_and_what_is_over_last(tmp_path):
    """Alerts that hold and findings together; a severity of a later release is shown all the same."""
    with AdaptiveBufferPool() as pool, offer_dashboard(pool, tmp_path) as dashboard:
        told = msgspec.json.decode(ask(dashboard.path))
    row = {"metric": "m", "state": "raised", "value": 1.0, "threshold": 0.0, "at": told["at"]}
    active = [row | {"severity": kind, "message": f"a {kind} alert"} for kind in ("info", "warning", "critical")]
    over = row | {"state": "cleared", "severity": "critical", "message": "one that is over"}
    found = [
        {"source": "health", "code": "c", "severity": kind, "seen": f"a {kind} finding", "remedy": "mend it"}
        for kind in ("catastrophic", "warning", "critical")
    ]
    told["pools"][0] |= {"alerts": {"active": active, "recent": [*active, over]}, "findings": found}
    remarks = page_of(decode(msgspec.json.encode(told))).remarks
    order = [
        "critical alert",
        "critical finding",
        "warning alert",
        "warning finding",
        "info alert",
        "catastrophic",
        "over",
    ]
    assert len(remarks) == len(order)
    for words, remark in zip(order, remarks, strict=True):
        assert words in remark.text


def test_what_is_wrong_stands_above_the_tables():
    """A terminal of 24 lines shows no more than the first of them."""
    from rich.console import Console

    facts, tables = (("pool", Remark("", "open")),), (Table(("tier", "hits"), (("memory", "1"),), 1),)
    page = Page("process 1", facts, tables, (Remark("critical", "alert: overloads"),))
    console = Console(width=80)
    with console.capture() as captured:
        console.print(drawing_of([page]))
    for text in (text_of(page), captured.get()):
        places = [text.index(words) for words in ("process 1", "open", "alert: overloads", "tier", "memory")]
        assert places == sorted(places)


def test_a_terminal_is_told_when_the_process_ends(daramjwee, folder, process):
    """On the screen that was there before, with status 4."""
    terminal = Terminal(daramjwee, "stats", folder, "--watch", "--interval", "0.1s")
    terminal.until(b"operations/s")
    process.end()
    assert terminal.end() == 4
    assert b"the process has ended" in terminal.seen[terminal.seen.rindex(BACK) :]


def test_a_terminal_sees_a_table_once(daramjwee, folder, process):
    """Coloured, and no screen of its own; a terminal that can do nothing gets plain blocks."""
    terminal = Terminal(daramjwee, "stats", folder)
    assert terminal.end() == 0
    assert b"\x1b[1m" in terminal.seen
    assert ALTERNATE not in terminal.seen
    assert re.search(rb"large +[a-z]+ +[0-9]", terminal.seen)
    terminal = Terminal(daramjwee, "stats", folder, "--watch", "--interval", "0.1s", term="dumb")
    terminal.until(b"operations/s")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 143
    assert b"\x1b" not in terminal.seen
