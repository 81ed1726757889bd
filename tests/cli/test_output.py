"""Where `get -o` writes, and what becomes of standard output and standard error that are closed or full."""

from __future__ import annotations

import errno
import io
import os
import pty
import signal
import subprocess

import pytest

from daramjwee import FetchResult
from daramjwee.cli import get as module
from daramjwee.cli.get import Wanted, fetch
from daramjwee.cli.output import replacing
from daramjwee.errors import ConfigError, FetchError

FULL = b"daramjwee: standard output: No space left on device\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder that we are in."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no/such/dir/x", "the folder no/such/dir does not exist; make it first"),
        ("", "is empty; name a file, or - for standard output"),
        ("file/x", "Not a directory; name another file"),
        ("folder", "is a folder; name a file in it"),
        ("new/", "is a folder; name a file in it"),
        ("x" * 300, "File name too long; name another file"),
        ("dangling", "does not exist; make it first"),
    ],
)
def test_an_output_that_cannot_be_is_refused_by_its_name(daramjwee, origin, folder, here, path, words):
    """Status 2 and the path that was typed, not that of a temporary file; the origin is not asked, nothing is made."""
    (here / "file").write_bytes(b"")
    (here / "folder").mkdir()
    (here / "dangling").symlink_to("nowhere/at/all")
    done = daramjwee("get", origin.url("whole"), "--cache", folder, "-o", path)
    assert done.returncode == 2, done.stderr
    assert f"--output = '{path[:60]}".encode() in done.stderr
    assert words.encode() in done.stderr
    assert b".part" not in done.stderr
    assert (origin.seen, folder.exists()) == ([], False)
    assert sorted(os.listdir(here)) == ["dangling", "file", "folder"]


def test_a_refusal_of_the_system_names_the_file_that_was_asked_for(here, monkeypatch):
    """Permission denied for the temporary file is told of the path that was given."""

    def refuse(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(ConfigError, match="--output = 'x': cannot be written \\(Permission denied\\)") as error:
            with replacing("x"):
                pass
    assert ".part" not in str(error.value)


def test_a_closed_standard_output_is_no_error(daramjwee, origin, folder, here):
    """`>&-`: the file is complete, so the status is 0, with and without --json; only `-o -` has nowhere to go."""
    for options in ([], ["--json"]):
        done = daramjwee.redirected(">&-", "get", origin.url("whole"), "--cache", folder, "-o", "out.bin", *options)
        assert (done.returncode, done.stderr) == (0, b"")
        assert (here / "out.bin").read_bytes() == origin.server.body
    done = daramjwee.redirected(">&-", "get", origin.url("whole"), "--cache", folder, "-o", "-")
    assert done.returncode == 2
    assert b"standard output is closed" in done.stderr


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "{url}", "--cache", "{folder}", "-o", "out.bin"], ["get", "{url}", "--cache", "{folder}", "-o", "-"],
        ["get", "{url}", "--cache", "{folder}", "--json"], ["--version"], ["get", "--help"],
    ],
)  # fmt: skip
def test_a_full_standard_output_is_one_message_and_status_one(
    daramjwee, origin, folder, here, monkeypatch, arguments, unbuffered
):
    """`>/dev/full`: no complaint of the interpreter after ours, and not its status 120."""
    line = [argument.format(url=origin.url("whole"), folder=folder) for argument in arguments]
    if unbuffered:
        usual = daramjwee.environment()
        monkeypatch.setattr(daramjwee, "environment", lambda: usual | {"PYTHONUNBUFFERED": "1"})
    done = daramjwee.redirected(">/dev/full", *line)
    assert (done.returncode, done.stderr) == (1, FULL)


def test_a_closed_standard_error_does_not_put_its_lines_among_the_bytes(daramjwee, origin, folder):
    """`-o - 2>&-` gives the bytes and nothing else, warnings and the line included."""
    for options in ([], ["--fresh", "0"]):
        done = daramjwee.redirected("2>&-", "get", origin.url("whole"), "--cache", folder, "-o", "-", *options)
        assert (done.returncode, done.stdout) == (0, origin.server.body)
        origin.stop()  # the second time there is a warning to write: the copy is stale


def run_on_a_terminal(daramjwee, *arguments):
    """Its status, what the terminal got, and standard error."""
    outside, inside = pty.openpty()
    with subprocess.Popen(
        daramjwee.line(*arguments), env=daramjwee.environment(), stdin=inside, stdout=inside, stderr=subprocess.PIPE
    ) as process:
        os.close(inside)
        seen = b""
        while True:
            try:
                data = os.read(outside, 65536)
            except OSError:  # how Linux says that nobody has the other end any more
                break
            if not data:
                break
            seen += data
        errors = process.stderr.read()
    os.close(outside)
    return process.returncode, seen, errors


def test_a_terminal_gets_bytes_only_when_they_are_asked_for_by_its_name(daramjwee, origin, folder):
    """`-o -` on a screen is a slip of the pen; `-o /dev/stdout` is not."""
    origin.server.body = b"\x01 some text \x02"
    status, seen, errors = run_on_a_terminal(daramjwee, "get", origin.url("whole"), "--cache", folder, "-o", "-")
    assert (status, seen, origin.seen) == (2, b"", [])
    assert b"-o /dev/stdout" in errors
    status, seen, errors = run_on_a_terminal(
        daramjwee, "get", origin.url("whole"), "--cache", folder, "-o", "/dev/stdout"
    )
    assert status == 0, errors
    assert b"\x01 some text \x02" in seen


def test_a_pipe_by_name_is_written_to_as_it_is(daramjwee, origin, folder):
    """/dev/stdout may lead to a pipe, which has no name of its own."""
    done = daramjwee("get", origin.url("whole"), "--cache", folder, "-o", "/dev/stdout")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(origin.server.body)


@pytest.mark.parametrize(("said", "sent"), [(0, 5000), (10, 5000), (5000, 10), (1, 0)])
def test_an_origin_that_says_a_wrong_size_leaves_no_file(here, monkeypatch, said, sent):
    """None of the bytes, too few, too many: an error, and neither FILE nor an entry; never a part with status 0."""

    class Wrong:
        def __call__(self, request):
            return FetchResult(io.BytesIO(b"x" * sent), size=said)

        def close(self):
            pass

    monkeypatch.setattr(module, "origin_for", lambda url: Wrong())
    wanted = Wanted(folder=str(here / "cache"), capacity=1 << 20, fresh=0.0, refresh=False)
    for output in ("out.bin", None):
        with pytest.raises(FetchError):
            fetch("http://example.org/x", output, wanted)
    assert os.listdir(here) == ["cache"]
    assert list((here / "cache").rglob("*.body")) == []


def test_a_file_that_says_it_is_empty_and_is_not_comes_whole(daramjwee, folder, here):
    """Files of /proc have size 0: their bytes count."""
    done = daramjwee("get", "file:///proc/self/status", "--cache", folder, "-o", "out")
    assert done.returncode == 0, done.stderr
    text = (here / "out").read_text()
    assert text.startswith("Name:")
    assert "nonvoluntary_ctxt_switches:" in text


def test_an_ignored_signal_stays_ignored(daramjwee, origin, folder, here):
    """`nohup daramjwee get` goes on when the terminal is closed."""
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *daramjwee.line("get", origin.url("stall"), "--cache", folder)],
        env=daramjwee.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert origin.server.half_sent.wait(50)
    process.send_signal(signal.SIGHUP)
    origin.server.go_on.set()
    said, errors = process.communicate(timeout=50)
    assert (process.returncode, errors) == (0, b"")
    assert said.startswith(b"MISS")
