"""`daramjwee get`: through the cache, whole or not at all."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess

import pytest

from daramjwee.cli.get import default_folder, key_of


def test_the_second_get_in_a_new_process_is_a_hit_with_the_origin_down(daramjwee, origin, folder, tmp_path):
    """What one process fetched the next has at once, origin or not."""
    first = daramjwee("get", origin.url("whole"), "--cache", folder)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith(b"MISS  625KiB in ")
    origin.stop()
    second = daramjwee("get", origin.url("whole"), "--cache", folder, "-o", tmp_path / "out.bin")
    assert second.returncode == 0, second.stderr
    assert second.stdout.startswith(b"HIT  625KiB in ")
    assert (tmp_path / "out.bin").read_bytes() == origin.server.body
    assert second.stderr == b""


def test_without_output_the_line_ends_with_a_file_that_has_the_bytes(daramjwee, origin, folder):
    """`get URL` fills the cache and says where the bytes are; --json says the same to programs."""
    for status in ("MISS", "HIT"):
        done = daramjwee("get", origin.url("whole"), "--cache", folder, "--json")
        got = json.loads(done.stdout)
        assert (got["status"], got["bytes"], got["output"]) == (status, len(origin.server.body), None)
        with open(got["path"], "rb") as file:
            assert file.read() == origin.server.body
        assert 0 < got["first_byte_seconds"] <= got["seconds"]
    line = daramjwee("get", origin.url("whole"), "--cache", folder).stdout.decode().rstrip("\n")
    assert line.endswith(f", kept in {got['path']}")
    assert origin.seen == ["/whole/object.bin"]


def test_a_dash_writes_the_bytes_and_nothing_else_to_standard_output(daramjwee, origin, folder):
    """`-o -` is for pipes: the line for people goes to standard error."""
    for status in (b"MISS", b"HIT"):
        done = daramjwee("get", origin.url("whole"), "--cache", folder, "-o", "-")
        assert done.stdout == origin.server.body
        assert done.stderr.startswith(status)


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(daramjwee, origin, folder):
    """`get -o - | head` is no error to talk about."""
    process = daramjwee.start("get", origin.url("whole"), "--cache", folder, "-o", "-")
    assert process.stdout.read(10) == origin.server.body[:10]
    process.stdout.close()
    assert (process.wait(50), process.stderr.read()) == (141, b"")
    process.stderr.close()


def test_file_urls_go_through_the_cache_too(daramjwee, folder, tmp_path):
    """A file URL is fetched like any other."""
    (tmp_path / "a file").write_bytes(b"in a file")
    url = f"file://{tmp_path}/a%20file"
    for status in (b"MISS", b"HIT"):
        assert daramjwee("get", url, "--cache", folder).stdout.startswith(status)


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [("cut", 5, b"cut short"), ("broken", 5, b"500"), ("absent", 4, b"404")],
)
def test_an_origin_that_fails_leaves_what_was_there(daramjwee, origin, folder, tmp_path, kind, status, words):
    """The exit status names the kind of error; the file is as before, nothing lies beside it, nothing is cached."""
    out = tmp_path / "out" / "out.bin"
    out.parent.mkdir()
    out.write_bytes(b"before")
    done = daramjwee("get", origin.url(kind), "--cache", folder, "-o", out)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""
    assert out.read_bytes() == b"before"
    assert os.listdir(out.parent) == ["out.bin"]
    assert list(folder.rglob("*.body")) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("options", [["-o", "{out}"], ["--refresh"], []])
def test_an_interrupted_get_leaves_nothing_and_does_not_wait_for_the_origin(
    daramjwee, origin, folder, tmp_path, number, status, options
):
    """Ctrl-C and a plain kill, with an origin that stands still: it says so, is gone within seconds, and leaves no
    temporary file and no half entry."""
    out = tmp_path / "out" / "out.bin"
    out.parent.mkdir()
    arguments = [option.format(out=out) for option in options]
    process = daramjwee.start("get", origin.url("stall"), "--cache", folder, *arguments)
    assert origin.server.half_sent.wait(50)
    process.send_signal(number)
    assert process.stderr.readline().startswith(b"interrupted")
    _, errors = process.communicate(timeout=25)  # the origin's own patience is twice that
    assert (process.returncode, errors.decode()) == (status, "")
    assert os.listdir(out.parent) == []
    assert [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size >= 10_000] == []


def test_a_second_signal_of_the_same_wish_does_not_disturb_the_cleaning(daramjwee, origin, folder, tmp_path):
    """`timeout` and terminals send one twice: one message, one status, nothing left."""
    out = tmp_path / "out" / "out.bin"
    out.parent.mkdir()
    process = daramjwee.start("get", origin.url("stall"), "--cache", folder, "-o", out)
    assert origin.server.half_sent.wait(50)
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline() == b"interrupted (SIGTERM)\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=25)
    assert (process.returncode, errors) == (143, b"")
    assert os.listdir(out.parent) == []


def test_a_signal_ends_it_as_it_should_when_nobody_can_be_told(daramjwee, origin, folder, tmp_path):
    """The terminal is gone, and its program hangs up: the status is that of the signal, and nothing is left."""
    process = daramjwee.start("get", origin.url("stall"), "--cache", folder, "-o", tmp_path / "out.bin")
    assert origin.server.half_sent.wait(50)
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(25) == 129
    process.stdout.close()
    assert sorted(os.listdir(tmp_path)) == ["cache", "home"]


def test_an_existing_file_keeps_its_mode_and_a_link_stays_a_link(daramjwee, origin, folder, tmp_path):
    """Replacing a file changes its bytes only."""
    real, link = tmp_path / "real.bin", tmp_path / "link.bin"
    real.write_bytes(b"before")
    real.chmod(0o640)
    link.symlink_to(real)
    assert daramjwee("get", origin.url("whole"), "--cache", folder, "-o", link).returncode == 0
    assert link.is_symlink()
    assert real.read_bytes() == origin.server.body
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_device_is_written_to_and_not_replaced(daramjwee, origin, folder):
    """`-o /dev/null` must never make a file of it."""
    assert daramjwee("get", origin.url("whole"), "--cache", folder, "-o", "/dev/null").returncode == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    full = daramjwee("get", origin.url("whole"), "--cache", folder, "-o", "/dev/full")
    assert (full.returncode, full.stderr) == (1, b"daramjwee: /dev/full: No space left on device\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ftp://example.org/x"], b"http"),
        (["{url}", "-o", "{folder}"], b"is a folder"),
        (["{url}", "--capacity", "lots"], b"--capacity = 'lots': give a size such as"),
        (["{url}", "--fresh", "soon"], b"--fresh = 'soon': give a duration such as"),
        (["{url}", "--json", "-o", "-"], b"standard output"),
        (["{url}", "--no-such-option"], b"--no-such-option"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_fetched(daramjwee, origin, folder, tmp_path, arguments, words):
    """Status 2, what is wrong and with which value; the origin is not asked."""
    filled = [a.format(url=origin.url("whole"), folder=tmp_path) for a in arguments]
    done = daramjwee("get", *filled, "--cache", folder)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert origin.seen == []


def test_fresh_zero_asks_and_refresh_asks_but_neither_moves_bytes_again(daramjwee, origin, folder):
    """An unchanged object is confirmed, not transferred; a changed one is fetched."""
    url = origin.url("whole")
    seen = []
    for options in ([], ["--fresh", "0"], ["--refresh"]):
        seen.append(json.loads(daramjwee("get", url, "--cache", folder, "--json", *options).stdout)["status"])
    assert seen == ["MISS", "REVALIDATED", "REVALIDATED"]
    origin.server.body = b"changed"
    got = json.loads(daramjwee("get", url, "--cache", folder, "--json", "--refresh").stdout)
    assert (got["status"], got["bytes"]) == ("MISS", 7)


def test_an_origin_that_fails_later_does_not_take_the_copy_away(daramjwee, origin, folder, tmp_path):
    """Past its lifetime a copy is still served when the origin is down, and that is said."""
    daramjwee("get", origin.url("whole"), "--cache", folder)
    origin.stop()
    done = daramjwee("get", origin.url("whole"), "--cache", folder, "--fresh", "0", "-o", tmp_path / "out.bin")
    assert (done.returncode, done.stdout[:5]) == (0, b"STALE")
    assert b"stale" in done.stderr


def test_what_may_not_be_kept_is_written_but_never_kept(daramjwee, origin, folder, tmp_path):
    """no-store: with -o it is a BYPASS; without, there is nothing to show for it."""
    done = daramjwee("get", origin.url("nostore"), "--cache", folder, "-o", tmp_path / "out.bin")
    assert (done.returncode, done.stdout[:6]) == (0, b"BYPASS")
    assert (tmp_path / "out.bin").read_bytes() == origin.server.body
    done = daramjwee("get", origin.url("nostore"), "--cache", folder)
    assert done.returncode == 6
    assert b"no-store" in done.stderr
    done = daramjwee("get", origin.url("whole"), "--cache", tmp_path / "small", "--capacity", "100KiB")
    assert done.returncode == 9, done.stderr
    assert b"--capacity" in done.stderr


def test_what_was_not_kept_is_not_said_to_be(daramjwee, origin, folder, tmp_path):
    """`--capacity` below the object: -o has it, and line and JSON say why the cache has not; the origin forbids
    nothing then, whatever way the bytes went."""
    small = ["--cache", folder, "--capacity", "1KiB", "-o", tmp_path / "out.bin"]
    for options in ([], ["--refresh"]):
        done = daramjwee("get", origin.url("whole"), *small, *options)
        assert done.stdout.startswith(b"MISS  625KiB in "), done.stderr
        assert b", not kept: larger than --capacity 1KiB -> " in done.stdout
        assert (tmp_path / "out.bin").read_bytes() == origin.server.body
    assert json.loads(daramjwee("get", origin.url("whole"), *small, "--json").stdout)["not_kept"]
    forbidden = daramjwee("get", origin.url("nostore"), "--cache", folder, "-o", tmp_path / "out.bin", "--json")
    assert json.loads(forbidden.stdout)["not_kept"] == "the origin forbids it"
    kept = daramjwee("get", origin.url("whole"), "--cache", tmp_path / "large", "-o", tmp_path / "out.bin", "--json")
    assert json.loads(kept.stdout)["not_kept"] is None


def test_a_smaller_capacity_says_what_it_dropped(daramjwee, origin, folder):
    """What the folder held before makes way at once: standard error says so, and help says so beforehand."""
    daramjwee("get", origin.url("whole", "a"), "--cache", folder)
    daramjwee("get", origin.url("whole", "b"), "--cache", folder)
    done = daramjwee("get", origin.url("whole", "b"), "--cache", folder, "--capacity", "700KiB")
    assert done.returncode == 0, done.stderr
    assert b"held 2 entries with 1.2MiB" in done.stderr
    assert b"capacity 700KiB): dropped 1 of them" in done.stderr
    assert len(list(folder.rglob("*.body"))) == 1
    assert b"at once" in daramjwee("get", "--help").stdout


def test_an_error_speaks_of_the_command_line_and_not_of_the_library(daramjwee, origin, folder):
    """No names of classes or parameters that nobody typed."""
    done = daramjwee("get", origin.url("whole").replace("http:", "https:"), "--cache", folder)
    assert done.returncode == 5
    assert b"TLS failed: this port does not speak it; try http://" in done.stderr
    done = daramjwee("get", "file:///no/such/file", "--cache", folder)
    assert (done.returncode, done.stderr) == (4, b"daramjwee: file:///no/such/file: there is no such file\n")


def test_secrets_of_a_url_are_not_shown_and_not_stored(daramjwee, origin, folder):
    """A password and a signature are neither printed, nor logged, nor found in the folder; they still tell two URLs
    apart."""
    plain = origin.url("whole", "object.bin?signature=verysecret&part=1").replace("//", "//joe:hushhush@")
    other = plain.replace("part=1", "part=2")
    for url, status in ((plain, b"MISS"), (other, b"MISS"), (plain, b"HIT")):
        done = daramjwee("--debug", "get", url, "--cache", folder)
        assert done.stdout.startswith(status), done.stderr
        assert not any(word in done.stdout + done.stderr for word in (b"verysecret", b"hushhush"))
    kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert not any(word in kept for word in (b"verysecret", b"hushhush"))
    assert origin.seen == [
        "/whole/object.bin?signature=verysecret&part=1",
        "/whole/object.bin?signature=verysecret&part=2",
    ]
    done = daramjwee("get", plain.replace("/whole/", "/broken/"), "--cache", folder)
    assert done.returncode == 5
    assert not any(word in done.stderr for word in (b"verysecret", b"hushhush"))


def test_a_url_without_secrets_is_its_own_key():
    """Whoever looks into the cache finds what was asked for."""
    assert key_of("https://example.org/a/b") == "https://example.org/a/b"
    keys = {key_of(f"https://example.org/a?token={n}") for n in range(3)}
    assert len(keys) == 3
    assert all(key.startswith("https://example.org/a?token=*** ") for key in keys)


def test_the_default_folder_is_the_users_own_and_private(daramjwee, origin, monkeypatch, tmp_path):
    """$XDG_CACHE_HOME when it is absolute, else ~/.cache; nobody else may look into it."""
    done = daramjwee("get", origin.url("whole"))
    assert done.returncode == 0, done.stderr
    kept = daramjwee.home / ".cache" / "daramjwee"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == str(tmp_path / "daramjwee")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/joe")
    assert default_folder() == "/home/joe/.cache/daramjwee"


def test_a_folder_that_cannot_be_used_is_named(daramjwee, origin, tmp_path):
    """No traceback when the cache cannot be made: status and message say which path, and that it is a file."""
    (tmp_path / "file").write_bytes(b"")
    done = daramjwee("get", origin.url("whole"), "--cache", tmp_path / "file" / "cache")
    assert done.returncode == 6, done.stderr
    assert b"file" in done.stderr
    assert b"Traceback" not in done.stderr
    done = daramjwee("get", origin.url("whole"), "--cache", tmp_path / "file")
    assert (done.returncode, origin.seen) == (2, [])
    assert b"--cache = " in done.stderr
    assert b"is a file, not a folder" in done.stderr


def test_two_gets_of_one_url_at_once_both_have_every_byte(daramjwee, origin, folder, tmp_path):
    """Two processes on one folder do not disturb each other."""
    outs = [tmp_path / f"{n}.bin" for n in range(3)]
    running = [daramjwee.start("get", origin.url("whole"), "--cache", folder, "-o", out) for out in outs]
    for process, out in zip(running, outs, strict=True):
        _, errors = process.communicate(timeout=50)
        assert process.returncode == 0, errors
        assert out.read_bytes() == origin.server.body


def test_a_terminal_sees_a_bar_and_a_pipe_does_not(daramjwee, origin, folder):
    """The bar is for eyes; it is drawn on standard error and wiped away at the end."""
    outside, inside = pty.openpty()
    environment = daramjwee.environment() | {"TERM": "xterm-256color"}
    line = daramjwee.line("get", origin.url("stall"), "--cache", folder)
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=inside, stdin=inside) as process:
        os.close(inside)
        assert origin.server.half_sent.wait(50)
        seen = b""
        while b"312" not in seen:  # half of 625 KiB
            seen += os.read(outside, 4096)
        origin.server.go_on.set()
        assert process.stdout.read().startswith(b"MISS")
    os.close(outside)
    assert process.returncode == 0
