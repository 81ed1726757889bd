"""`daramjwee demo`: a small run is right, a lying origin is caught, nothing stays behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import threading

import pytest

from daramjwee.bench.origin import synthetic_bytes
from daramjwee.bench.origin_server import OriginServer
from daramjwee.cli.demo import memory
from daramjwee.cli.demo.files import installation, pick_files
from daramjwee.cli.demo.play import play
from daramjwee.cli.demo.record import MEMORY_TIER_BYTES, Settings, faults_of, settings_of
from daramjwee.cli.demo.screen import Lines, Silent
from daramjwee.cli.demo.stage import BIG, digests_of
from daramjwee.errors import ConfigError

SMALL = ["--size", "8MiB", "--readers", "8", "--latency", "5ms", "--bandwidth", "256MB"]
STEPS = [
    "cold_read", "warm_read_memory", "warm_read_file", "cold_read_big", "warm_read_big", "range_read",
    "readers_together", "reader_leaves", "delete_races_fill",
]  # fmt: skip


def test_a_small_run_is_right_and_says_so_in_one_json_document(daramjwee, tmp_path):
    """Every documented key, measured in this run; status 0; the folder is as empty as before."""
    done = daramjwee("demo", "--json", "--folder", tmp_path / "home", *SMALL)
    report = json.loads(done.stdout)
    assert done.returncode == 0, [step for step in report["steps"] if not step["ok"]]
    assert report["ok"] is True
    assert (report["origin_fetches"], report["readers"], report["digests_right"]) == (1, 8, 8)
    assert 5 <= report["first_byte_ms"] < 1000 * report["wall_s"]
    assert 8 * 1024 * 1024 / 256e6 < report["single_reader_wall_s"] < report["seconds"]
    assert 0 <= report["peak_memory_bytes"] <= report["cache"]["memory_limit_bytes"]
    assert [step["name"] for step in report["steps"]] == STEPS
    for step in report["steps"]:
        assert step["ok"]
        assert step["seconds"] > 0
        assert len(step["seen"]) > 10
        assert step["checks"]
        assert all(check["ok"] for check in step["checks"])
    assert os.listdir(tmp_path / "home") == []


def test_a_pipe_gets_plain_lines_and_a_table(daramjwee, tmp_path):
    """No escape sequence; what the origin is; a line for each step; the figures that matter."""
    done = daramjwee("demo", "--folder", tmp_path, *SMALL)
    text = done.stdout.decode()
    assert done.returncode == 0, text
    assert done.stderr == b""
    assert "\x1b" not in text
    assert "slow on purpose: 5.0ms to the first byte, then 244.1MiB/s" in text
    assert text.count("\nok ") == len(STEPS)
    assert "8 readers, 1 origin fetch, 8 digests right" in text
    assert "every figure as it has to be" in text
    assert max(map(len, text.split("\nstep ")[1].split("\n\n")[0].splitlines())) <= 80


def test_a_terminal_sees_it_live(daramjwee, tmp_path):
    """Bars while it runs, a mark for each step, the table; the same figures."""
    outside, inside = pty.openpty()
    environment = daramjwee.environment() | {"TERM": "xterm-256color", "COLUMNS": "120"}
    line = daramjwee.line("demo", "--folder", tmp_path, *SMALL)
    seen = b""
    with subprocess.Popen(line, env=environment, stdout=inside, stderr=inside, stdin=inside) as process:
        os.close(inside)
        with contextlib.suppress(OSError):  # how a terminal says that nobody is there any more
            while piece := os.read(outside, 65536):
                seen += piece
    os.close(outside)
    text = seen.decode()
    assert process.returncode == 0, text
    assert text.count("✓") == len(STEPS)
    assert "8 readers, 1 origin fetch, 8 digests right" in text
    assert "8 readers, cold" in text


def test_an_interrupted_run_removes_its_folder_and_ends_its_origin(daramjwee, tmp_path):
    """Ctrl-C: status 130, nothing on the disk, and the origin's pipe is closed, so that it is gone."""
    process = daramjwee.start("demo", "--folder", tmp_path, "--bandwidth", "1MB")
    while not process.stdout.readline().startswith(b"checked"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    # The origin inherits our standard error: it ends with the last process that has it open.
    _, errors = process.communicate(timeout=50)
    assert process.returncode == 130, errors
    assert errors == b"interrupted\n"
    assert os.listdir(tmp_path) == ["home"]


class LyingServer(OriginServer):
    """Serves the big object with one byte changed, and says it is the right one."""

    def find(self, path):
        found = super().find(path)
        if path != f"/{BIG}":
            return found
        wrong = found.size // 2

        def read(start, stop):
            data = bytearray(found.read(start, stop))
            if start <= wrong < stop:
                data[wrong - start] ^= 1
            return bytes(data)

        return found._replace(read=read)


class ForgetfulServer(OriginServer):
    """Counts each fetch twice: what the demo would see of a cache that fetches too often."""

    def count(self, path):
        super().count(path)
        super().count(path)


class InProcess:
    """One of the servers above, as the demo wants an origin."""

    def __init__(self, kind, folder, sizes):
        self.server = kind(folder, sizes, 0.0, None)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def counts(self):
        return self.server.counts()

    def reset(self):
        self.server.reset()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def play_small(kind, tmp_path, watch=None):
    """A small run against a server of ours."""
    settings = Settings(big_bytes=8 << 20, readers=4, files=6, largest_file_bytes=1 << 20)
    return play(
        settings,
        watch or Silent(),
        folder=str(tmp_path),
        origin=lambda folder, sizes, _: InProcess(kind, folder, sizes),
    )


def test_an_honest_server_in_this_process_is_right(tmp_path):
    """The runs below fail because of what they sabotage, not because of where they run."""
    report = play_small(OriginServer, tmp_path)
    assert report.ok, faults_of(report.steps)
    assert os.listdir(tmp_path) == []


def test_one_wrong_byte_of_the_origin_is_caught_by_every_reader(tmp_path):
    """The digests are made without the origin and without the cache: a changed byte cannot pass."""
    out = io.StringIO()
    lines = Lines(out)
    report = play_small(LyingServer, tmp_path, lines)
    lines.close(report)
    assert not report.ok
    assert report.digests_right == 0
    wrong = {step.name for step in report.steps if not step.ok}
    assert wrong == {"cold_read_big", "warm_read_big", "range_read", "readers_together"}
    assert "WRONG: 4 readers, cold: CRC-32C right: wanted 4, seen 0" in out.getvalue()


def test_a_second_fetch_is_a_fault(tmp_path):
    """One fetch for all readers is the promise: two are wrong, whatever the bytes are."""
    report = play_small(ForgetfulServer, tmp_path)
    assert not report.ok
    assert report.origin_fetches == 2
    assert any("origin fetches: wanted 1, seen 2" in fault for fault in faults_of(report.steps))


def test_an_origin_that_dies_is_a_failed_step_and_not_a_traceback(tmp_path):
    """Each step that cannot be done says why; the others are still there; the run is wrong."""

    class Dying(Silent):
        def opened(self, stage):
            self.stage = stage

        def began(self, title, total):
            if title.startswith("4 readers"):
                self.stage.origin.close()

    settings = Settings(big_bytes=8 << 20, readers=4, latency=0.0, bandwidth=10**9, files=4, largest_file_bytes=1 << 20)
    report = play(settings, Dying(), folder=str(tmp_path))
    assert not report.ok
    assert [step.name for step in report.steps] == STEPS
    assert [step.ok for step in report.steps] == [True] * 6 + [False] * 3
    assert all("refused" in step.error for step in report.steps[6:])
    assert (report.origin_fetches, report.peak_memory_bytes) == (None, None)
    assert len(faults_of(report.steps)) == 3
    assert os.listdir(tmp_path) == []


def test_the_exit_status_of_a_wrong_run_is_one(monkeypatch, tmp_path, capsys):
    """What scripts look at."""
    from daramjwee.cli.demo import command
    from daramjwee.cli.demo import play as module

    settings = Settings(big_bytes=8 << 20, readers=2, files=3, largest_file_bytes=1 << 20)
    real = module.play
    monkeypatch.setattr(
        module, "play",
        lambda *a, **k: real(*a, **k, origin=lambda folder, sizes, _: InProcess(LyingServer, folder, sizes)),
    )  # fmt: skip
    assert command.show(settings, folder=str(tmp_path), json=True) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_a_disk_without_room_is_refused_before_anything_starts(monkeypatch, tmp_path):
    """What is free, what is needed, what to do; the origin is not started."""
    import shutil

    full = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    with pytest.raises(ConfigError, match=r"--folder = .* has 1MiB free, .* are needed"):
        play_small(None, tmp_path)
    assert os.listdir(tmp_path) == []


def test_the_files_are_real_spread_over_sizes_and_within_the_limit():
    """From the smallest to the largest of the installation, each once."""
    folder = installation()
    files = pick_files(folder, 12, 8 << 20)
    sizes = [file.size for file in files]
    assert len(files) == len({file.name for file in files}) == 12
    assert sizes == sorted(sizes)
    assert sizes[0] < 100 and 100_000 < sizes[-1] <= 8 << 20
    assert all(os.path.getsize(os.path.join(folder, file.name)) == file.size for file in files)
    assert sum(size <= MEMORY_TIER_BYTES // 8 for size in sizes) > 3
    assert pick_files(folder, 12, 8 << 20) == files


@pytest.mark.parametrize(
    ("reset", "resident", "means"),
    [(True, {"VmRSS": 100, "VmHWM": 130}, "during the step"), (False, {"VmRSS": 100, "VmHWM": 130}, "upper bound")],
)
def test_the_peak_is_what_came_on_top_and_says_how_it_was_measured(monkeypatch, reset, resident, means):
    """Where the kernel does not let us begin anew, the figure is an upper bound, and is called one."""
    monkeypatch.setattr(memory, "forget_peak", lambda: reset)
    monkeypatch.setattr(memory, "resident_bytes", lambda field="VmRSS": resident[field])
    peak = memory.PeakMeter().read()
    assert peak.bytes == 30
    assert means in peak.means


def test_without_proc_the_peak_comes_from_getrusage(monkeypatch):
    """A system without /proc has a figure too, of another kind."""
    monkeypatch.setattr(memory, "resident_bytes", lambda field="VmRSS": None)
    peak = memory.PeakMeter().read()
    assert peak.bytes >= 0
    assert "getrusage" in peak.means


def test_digests_are_those_of_the_bytes():
    """The yardstick itself is right."""
    import hashlib

    from crc32c import crc32c

    data = synthetic_bytes("x", 0, 3_000_000)
    assert digests_of("x", 3_000_000) == (f"{crc32c(data):08x}", hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"size": "1MiB"}, "--size"), ({"size": "big"}, "--size"), ({"readers": 1}, "--readers"),
        ({"latency": "soon"}, "--latency"), ({"bandwidth": "0"}, "--bandwidth"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(change, field):
    """The field, the value, what to give instead; all at once."""
    given = {"size": "256MiB", "readers": 32, "latency": "50ms", "bandwidth": "64MB"}
    assert settings_of(**given) == Settings()
    with pytest.raises(ConfigError) as error:
        settings_of(**given | change)
    assert [problem.field for problem in error.value.problems] == [field]
