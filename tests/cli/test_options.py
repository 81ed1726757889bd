"""What a person typed: refused with its own name, its value, and what to type instead."""

from __future__ import annotations

import os

import pytest

from daramjwee.cli.options import check_url, file_url, folder_problem, url_problem
from daramjwee.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://", "has no host"),
        ("http://example.org:99999/x", "Port out of range"),
        ("https://example.org:0/x", "port 0"),
        ("file:relative", "has no absolute path; write file:///"),
        ("file://otherhost/x", "only files of this machine"),
        ("file:///", "names no file"),
        ("file:", "names no file"),
        ("ftp://example.org/x", "give an http, https or file URL"),
        ("no-such-file", "give an http, https or file URL"),
        ("", "give an http, https or file URL"),
    ],
)
def test_a_url_that_cannot_be_asked_is_refused_before_it_is(daramjwee, folder, url, words):
    """Status 2 and not that of an origin that failed; no cache is made."""
    assert words in url_problem(url)
    done = daramjwee("get", url, "--cache", folder)
    assert done.returncode == 2, done.stderr
    assert words.encode() in done.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/x", "HTTPS://example.org:8443/x?a=1", "http://[::1]:80/", "file:///srv/x", "file:/srv/x",
        "file://localhost/srv/x",
    ],
)  # fmt: skip
def test_a_url_that_can_be_asked_is_not_refused(url):
    """The check knows less than the origin, and must not stand in its way."""
    assert url_problem(url) is None


def test_a_refused_url_does_not_show_its_secrets():
    """The value is named, without user, password and query."""
    with pytest.raises(ConfigError) as error:
        check_url("ftp://joe:hushhush@example.org/x?token=verysecret")
    assert "hushhush" not in str(error.value)
    assert "verysecret" not in str(error.value)


def test_a_path_is_answered_with_its_url(daramjwee, folder, tmp_path, monkeypatch):
    """`get ./file`: the message has the URL to give, ready to use."""
    (tmp_path / "a b#c").write_bytes(b"here")
    monkeypatch.chdir(tmp_path)
    done = daramjwee("get", "./a b#c", "--cache", folder)
    url = f"file://{tmp_path}/a%20b%23c"
    assert done.returncode == 2
    assert f"its URL is {url}\n".encode() in done.stderr
    assert daramjwee("get", url, "--cache", folder).returncode == 0
    assert file_url("a b#c") == url


def test_all_wrong_options_are_told_at_once(daramjwee, folder):
    """By the names that they have on the command line."""
    done = daramjwee("get", "http://127.0.0.1/", "--cache", folder, "--fresh", "soon", "--capacity", "0")
    assert done.returncode == 2
    assert b"--fresh = 'soon': give a duration such as 30s" in done.stderr
    assert b"--capacity = '0': must be at least 1B" in done.stderr
    assert b"timedelta" not in done.stderr


def test_a_tilde_is_the_home_also_where_the_shell_leaves_it(daramjwee, origin, tmp_path, monkeypatch):
    """`--cache=~/x` must not make a folder that is called `~`."""
    monkeypatch.chdir(tmp_path)
    done = daramjwee("get", origin.url("whole"), "--cache=~/kept", "--output=~/out.bin")
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(daramjwee.home)) == ["kept", "out.bin"]
    assert os.listdir(tmp_path) == ["home"]
    done = daramjwee("demo", "--folder", "~/nope")
    assert f"the folder {daramjwee.home}/nope does not exist; make it first".encode() in done.stderr


def test_a_folder_that_takes_no_files_is_refused_with_its_name(daramjwee, tmp_path, monkeypatch):
    """Missing, a file, not ours to write to: each says which folder, and `demo --folder` says it with status 2."""
    (tmp_path / "file").write_bytes(b"")
    missing, file = str(tmp_path / "missing"), str(tmp_path / "file")
    assert folder_problem(missing) == f"the folder {missing} does not exist; make it first"
    assert folder_problem(file) == f"{file} is a file, not a folder; name another"
    assert folder_problem(f"{file}/x") == f"the folder {file}/x cannot be used (Not a directory); name another"
    assert folder_problem(str(tmp_path)) is None
    for folder in (missing, file, ""):
        done = daramjwee("demo", "--folder", folder)
        assert done.returncode == 2, done.stderr
        assert f"--folder = '{folder}': ".encode() in done.stderr
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert folder_problem(str(tmp_path)) == f"this user may not write to the folder {tmp_path}; name another"
