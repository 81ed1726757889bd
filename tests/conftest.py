"""What every test is held to: bounded examples, no thread left behind, a budget of seconds for each folder."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from daramjwee.buffers.pressure import MemoryPressure
from daramjwee.buffers.reserve import reserve

settings.register_profile(
    "ci",
    max_examples=60,
    deadline=None,  # a busy machine is not a failure
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# For a person with time: make test ARGS="--hypothesis-profile=explore tests/buffers"
settings.register_profile("explore", max_examples=3000, deadline=None, print_blob=True)
settings.load_profile("ci")

TESTS = Path(__file__).parent

# Seconds of test time per folder of tests/, on two shared cores under coverage: about five times what they take when
# the machine is quiet, so that only a real change trips them. Where other programs have the processor, too, seconds count
# as much less as this run got less of it.
BUDGETS_SECONDS = defaultdict(
    lambda: 60.0,
    {
        "buffers": 240.0,
        "cache": 120.0,
        "stores": 200.0,
        "fills": 90.0,
        "faults": 90.0,
        "stress": 240.0,
        "cli": 240.0,
        "bench": 200.0,
        "config": 90.0,
        "house": 150.0,
    },
)
WHOLE_SUITE_SECONDS = 600.0

# A thread that was told to stop gets this long to do so before the test that started it fails.
FAREWELL_SECONDS = 10.0

_seconds: defaultdict[str, float] = defaultdict(float)
_tests: defaultdict[str, int] = defaultdict(int)
_began = time.monotonic()


@pytest.fixture
def untraced():
    """Without the measuring of coverage in this thread: it multiplies the time of what is called a million times, and an
    interrupt or a fork in its midst leaves its own lock taken."""
    trace = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(trace)


class _NoUpkeep:
    alive = True

    def keep(self, pool) -> None:
        pool.kept = True

    def leave(self, pool) -> None:
        pool.kept = False


@pytest.fixture
def unkept(monkeypatch):
    """Pools that no thread looks after: a test that looks itself would otherwise find somebody else looking."""
    for module in ("pool", "adaptive"):
        monkeypatch.setattr(f"daramjwee.buffers.{module}.upkeep", _NoUpkeep())


@pytest.fixture(autouse=True, scope="session")
def calm_machine(tmp_path_factory):
    """Pools read the pressure of a machine with plenty of memory, wherever the tests run. (Tests that read the real one, or
    a made-up one, name its root.) What the process keeps in reserve is there: no test is the first to use a pool."""
    reserve.lay_by()
    root = tmp_path_factory.mktemp("calm")
    (root / "proc").mkdir()
    (root / "proc" / "meminfo").write_text("MemTotal:       16777216 kB\nMemAvailable:   12582912 kB\n")
    defaults = MemoryPressure.__init__.__kwdefaults__
    before, defaults["root"] = defaults["root"], root
    yield
    defaults["root"] = before


def pytest_configure(config: pytest.Config) -> None:
    # Whoever runs the suite in the background, or by nohup, may have told it to ignore these, and all that it starts with it.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True, scope="module")
def small_heap():
    """What is there before a file of tests stays to the end. Else each of some thousand collections that tests ask for would
    go through all that was ever imported and reported: a tenth of a second, of which a test's own garbage is a hundredth."""
    gc.collect()
    gc.freeze()


class Soak:
    """The long run of `tests/stress/test_soak.py`, which takes a minute in a process of its own: it goes on while the tests
    before that one run."""

    # From here on, one test after the other keeps one processor busy; those of tests/stress come when its load is over.
    FIRST = ("tests/house/", "tests/model/", "tests/observe/", "tests/origins/", "tests/stores/", "tests/stress/")

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.wanted = False

    def start(self) -> None:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", str(TESTS.parent / "tools" / "soak.py"), *SOAK_ARGUMENTS],
                env=os.environ | {"PYTHONPATH": str(TESTS.parent / "src")}, text=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


# Idle for 8 s: shorter, and arenas come and go under the load, 2 MiB at a time.
SOAK_ARGUMENTS = ("--seconds", "60", "--max-idle-age", "8s", "--metrics-interval", "2s", "--json")
_soak = Soak()


@pytest.fixture(scope="session")
def long_run():
    """The long run, started now if no test before has started it."""
    _soak.start()
    return _soak.process


def pytest_collection_finish(session: pytest.Session) -> None:
    _soak.wanted = not session.config.option.collectonly and any("long_run" in i.fixturenames for i in session.items)


def pytest_runtest_logstart(nodeid: str) -> None:
    if _soak.wanted and nodeid.startswith(Soak.FIRST):
        _soak.start()


def pytest_unconfigure() -> None:
    _soak.end()


def _folder(nodeid: str) -> str:
    parts = Path(nodeid.split("::", 1)[0]).parts
    if "tests" in parts:
        parts = parts[parts.index("tests") + 1 :]
    return parts[0] if len(parts) > 1 else "."


def _share() -> float:
    """How much of one processor this run and the processes that it started had: all of it, on a machine of its own."""
    return min(1.0, sum(os.times()[:4]) / (time.monotonic() - _began))


def _over_budget() -> list[str]:
    share = _share()
    over = [f"tests/{name}" for name, spent in _seconds.items() if spent * share > BUDGETS_SECONDS[name]]
    if (time.monotonic() - _began) * share > WHOLE_SUITE_SECONDS:
        over.append("the whole suite")
    return over


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    folder = _folder(report.nodeid)
    _seconds[folder] += report.duration
    _tests[folder] += report.when == "call"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    # Threads that fixtures of a wider scope started are there already; what the test starts, it must end.
    item.stash[_THREADS_BEFORE] = frozenset(threading.enumerate())
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item):
    result = yield
    before = item.stash.get(_THREADS_BEFORE, None)
    if before is not None:
        started = [t for t in threading.enumerate() if t not in before and not t.daemon]
        deadline = time.monotonic() + FAREWELL_SECONDS
        for thread in started:
            thread.join(max(0.0, deadline - time.monotonic()))
        left = sorted(t.name for t in started if t.is_alive())
        if left:
            pytest.fail(f"the test left threads running: {', '.join(left)}", pytrace=False)
    return result


_THREADS_BEFORE: pytest.StashKey[frozenset[threading.Thread]] = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and _over_budget():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _tests:
        return
    terminalreporter.section("seconds by folder")
    terminalreporter.line(f"{'folder':<22}{'tests':>7}{'seconds':>10}{'budget':>9}")
    for name in sorted(_seconds):
        row = f"{'tests/' + name:<22}{_tests[name]:>7}{_seconds[name]:>10.1f}{BUDGETS_SECONDS[name]:>9.0f}"
        terminalreporter.line(row, red=_seconds[name] > BUDGETS_SECONDS[name])
    wall = time.monotonic() - _began
    terminalreporter.line(f"{'whole suite, wall':<22}{sum(_tests.values()):>7}{wall:>10.1f}{WHOLE_SUITE_SECONDS:>9.0f}")
    if (share := _share()) < 1:
        terminalreporter.line(f"This run had {share:.0%} of a processor: its seconds count as so much less.")
    for over in _over_budget():
        terminalreporter.line(
            f"OVER BUDGET: {over}. Make the tests quicker, or raise the budget with a reason.", red=True
        )
