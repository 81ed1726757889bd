"""Where a socket may be, how it gets its name, and what becomes of those left behind."""

from __future__ import annotations

import itertools
import os
import socket
import stat

import pytest

from daramjwee.errors import ConfigError
from daramjwee.observe import place as places
from daramjwee.observe.place import Folder, listen, lives, living, new_name, pid_in, trust_problem

ME, ROOT, OTHER = 1000, 0, 1001
LONG = "a-long-name-of-a-folder/" * 9


def status_of(mode, owner):
    return os.stat_result((mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "owner", "user", "problem"),
    [
        (0o040700, ME, ME, None),
        (0o040755, ME, ME, None),
        (0o041777, ROOT, ME, None),  # /tmp
        (0o041777, ME, ME, None),
        (0o040755, ROOT, ME, None),
        (0o040700, ME, ROOT, None),  # a container's root, in a volume of the host's user
        (0o040770, ME, ME, "others may write to it (mode 0770)"),
        (0o040777, ROOT, ME, "others may write to it (mode 0777)"),
        (0o040755, OTHER, ME, "belongs to another user (id 1001)"),
        (0o041777, OTHER, ME, "belongs to another user (id 1001)"),
        (0o100600, ME, ME, "is no folder"),
    ],
)
def test_a_place_is_refused_when_others_could_put_their_socket_there(mode, owner, user, problem):
    """Whoever can replace the socket could answer in our name."""
    found = trust_problem(status_of(mode, owner), user)
    assert found is None if problem is None else found.startswith(problem)


@pytest.mark.parametrize("below", ["", LONG])
def test_a_socket_is_private_and_reached_in_a_folder_with_a_path_of_any_length(place, below):
    """The system takes 107 bytes for the path of a socket; a folder's may be longer."""
    path = place / below
    path.mkdir(parents=True, exist_ok=True)
    assert below == "" or len(str(path)) > 200
    with Folder(str(path)) as folder:
        listener, name, _ = listen(folder, None)
        with listener:
            assert pid_in(name) == os.getpid()
            assert os.listdir(path) == [name]
            assert stat.filemode(os.lstat(name, dir_fd=folder.fd).st_mode) == "srw-------"
            assert list(living(folder)) == [name]


def test_a_socket_has_its_name_only_when_it_listens(place, monkeypatch):
    """Else whoever looks in between would take it for a dead one, and remove it."""
    link = os.link
    seen = []

    def looked_at(source, target, **options):
        seen.append((lives(folder, source), folder.identity(target)))
        link(source, target, **options)

    with Folder(str(place)) as folder:
        monkeypatch.setattr(os, "link", looked_at)
        listen(folder, None)[0].close()
    assert seen == [(True, None)]


def test_where_a_socket_cannot_be_linked_it_is_renamed(place, monkeypatch):
    """Some systems give sockets no second name."""

    def refuse(*_args, **_options):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with Folder(str(place)) as folder:
        listener, name, _ = listen(folder, "s")
        with listener:
            assert lives(folder, name)
            assert os.listdir(place) == ["s"]


def test_who_looks_removes_what_is_dead_and_nothing_else(place):
    """A killed process leaves its socket; who connects to it is refused."""
    with Folder(str(place)) as folder:
        alive, name, _ = listen(folder, None)
        dead = [listen(folder, None), listen(folder, "named.sock")]
        for listener, _, _ in dead:
            listener.close()
        young, old = new_name("new"), new_name("new")
        for forgotten in (young, old):
            listen(folder, forgotten)[0].close()
        os.utime(place / old, (0, 0))
        (place / new_name("sock")).write_text("no socket")
        (place / new_name("sock")).symlink_to(name)
        left = set(os.listdir(place)) - {old, dead[0][1]}
        with alive:
            assert list(living(folder)) == [name]
        assert set(os.listdir(place)) == left
        assert {young, "named.sock"} < left


def test_a_named_socket_replaces_a_dead_one_and_nothing_else(place):
    """Neither another process's socket nor a file is ours to remove."""
    with Folder(str(place)) as folder:
        first, _, identity = listen(folder, "s")
        with first, pytest.raises(ConfigError, match="another process offers its dashboard there; name another"):
            listen(folder, "s")
        second, _, renewed = listen(folder, "s")
        second.close()
        assert renewed != identity
        folder.remove("s", identity)  # the first one's: it is not there any more
        assert os.listdir(place) == ["s"]
        (place / "file").write_text("mine")
        with pytest.raises(ConfigError, match="is there already and is no socket; name another"):
            listen(folder, "file")
        assert (place / "file").read_text() == "mine"
        assert sorted(os.listdir(place)) == ["file", "s"]


def test_two_that_want_one_name_at_once_do_not_both_get_it(place, monkeypatch):
    """Between the look and the link, another was quicker: look again."""
    link = os.link
    quicker = []

    def link_late(source, target, **options):
        if not quicker:
            monkeypatch.setattr(os, "link", link)
            quicker.append(listen(folder, target)[0])
        link(source, target, **options)

    with Folder(str(place)) as folder:
        monkeypatch.setattr(os, "link", link_late)
        with pytest.raises(ConfigError, match="another process offers"):
            listen(folder, "s")
        assert lives(folder, "s")
        assert os.listdir(place) == ["s"]
        quicker[0].close()


def test_a_name_that_is_too_long_is_refused_before_anything_is_made(place):
    """The folder may have any length, the name in it may not."""
    with Folder(str(place)) as folder:
        with pytest.raises(OSError, match="too long for a socket on this system"):
            listen(folder, "n" * 100)
    assert os.listdir(place) == []


def test_a_step_that_fails_leaves_nothing_behind(place, monkeypatch):
    """Let the 1st, 2nd, ... call fail until all pass."""
    real = {name: getattr(os, name) for name in ("lstat", "chmod", "link", "unlink")}
    left = 0

    def failing(name):
        def call(*args, **options):
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(5, "Input/output error")
            return real[name](*args, **options)

        return call

    for name in real:
        monkeypatch.setattr(places.os, name, failing(name))
    for nth in itertools.count(1):
        left = nth
        with Folder(str(place)) as folder:
            try:
                listener, name, identity = listen(folder, None)
            except OSError:
                # What could not even be looked at again is removed by who comes a minute later.
                assert all(entry.endswith(".new") and nth == 1 for entry in os.listdir(place))
            else:
                listener.close()
                folder.remove(name, identity)
            for entry in os.listdir(place):
                real["unlink"](place / entry)
        if left > 0:
            break
    assert nth > 4


def test_who_cannot_be_judged_counts_as_living(place, monkeypatch):
    """A full line of connections is no sign of death."""
    with Folder(str(place)) as folder:
        monkeypatch.setattr(places, "BACKLOG", 0)
        listener, name, _ = listen(folder, None)
        waiting = []
        with listener:
            while True:
                connection = socket.socket(socket.AF_UNIX)
                waiting.append(connection)
                connection.setblocking(False)
                try:
                    connection.connect(folder.address(name))
                except BlockingIOError:
                    break
            assert lives(folder, name)
        for connection in waiting:
            connection.close()
