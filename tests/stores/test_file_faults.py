"""The file tier under faults: every call of the system fails once, the process is killed at every call, others work in
the same folder, threads race, the process forks. The invariant is always the same: whole or absent, and nothing left."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from daramjwee.errors import Closed, ConfigError, StoreError
from daramjwee.model import Metadata
from daramjwee.stores import FileStore
from daramjwee.stores.file.files import Files
from daramjwee.testing.store_suite import fetch, pattern, put, read_all

OLD, NEW = pattern(270_000, seed=1), pattern(300_000, seed=2)
CALLS = [name for name in vars(Files) if not name.startswith("_")]


class FaultyFiles(Files):
    """Counts the calls (of one name, or all), notes them, and lets the nth fail."""

    def __init__(self, fail_call=0, number=errno.EIO, only=None, instead=None):
        self.calls, self.log = 0, []
        self.fail_call, self.number, self.only, self.instead = fail_call, number, only, instead
        for name in CALLS:
            setattr(self, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name, real):
        def call(*args, **kwargs):
            if self.only is None or name == self.only:
                self.calls += 1
                self.log.append((name, *args))
                if self.calls == self.fail_call:
                    if self.instead is not None:
                        self.instead()
                    raise OSError(self.number, os.strerror(self.number))
            return real(*args, **kwargs)

        return call


def make_store(folder, files=None, **given):
    kind = FileStore if files is None else type("FaultyStore", (FileStore,), {"files": files})
    return kind(folder, **{"capacity": "1MiB"} | given)


def on_disk(tier):
    return sorted(p.name for p in tier.rglob("*") if p.is_file() and p.suffix in (".meta", ".body"))


def write_new(store):
    put(store, "k", NEW, etag='"new"')


def write_small_pieces(store):
    put(store, "k", NEW, piece=30_000, etag='"new"')


def delete(store):
    store.delete("k")


def restamp(store):
    store.restamp("k", Metadata(etag='"restamped"'))


def evict(store):
    put(store, "other", pattern(1024 * 1024))


def read(store):
    assert fetch(store, "k") in (OLD, None)


@pytest.mark.parametrize("durability", ["flush", "fsync"])
@pytest.mark.parametrize("act", [write_new, write_small_pieces, delete, restamp, evict, read])
def test_whichever_call_fails_the_entry_is_whole_or_absent_and_nothing_is_left(tmp_path, act, durability):
    """The 1st, 2nd, ... nth call fails until none does: only `StoreError` escapes, the store goes on working, and the
    next start finds whole entries and removes what could not be removed before."""
    for nth in itertools.count(1):
        tier = tmp_path / str(nth)
        store = make_store(tier, FaultyFiles(), durability=durability)
        put(store, "k", OLD, etag='"old"')
        files = store.files
        files.calls, files.fail_call = 0, nth
        try:
            act(store)
        except StoreError:
            pass
        made = files.calls
        files.fail_call = 0
        seen = fetch(store, "k")
        assert seen in (OLD, NEW, None)
        assert store.usage().stagings == 0
        assert store.usage().bytes == sum(store.stat(key).size for key in list(store.keys()))
        put(store, "after", b"still works")
        assert fetch(store, "after") == b"still works"
        store.close()
        gc.collect()
        again = make_store(tier)
        assert fetch(again, "k") in (OLD, NEW, None)
        if seen is not None:
            assert fetch(again, "k") == seen
        entries = len(list(again.keys()))
        assert len(on_disk(tier)) == 2 * entries, "nothing is left but one body and one metadata file per entry"
        again.close()
        if made < nth:
            break
    assert nth > 2


def test_whichever_call_of_a_start_fails_nothing_is_lost(tmp_path):
    """A start that fails says so, and harms nothing; one that gets through serves only whole entries."""
    for nth in itertools.count(1):
        tier = tmp_path / str(nth)
        with make_store(tier) as store:
            put(store, "k", OLD)
        files = FaultyFiles(nth)
        try:
            store = make_store(tier, files)
        except (StoreError, ConfigError):
            pass
        else:
            files.fail_call, made = 0, files.calls
            assert fetch(store, "k") in (OLD, None)
            store.close()
            if made < nth:
                break
        with make_store(tier) as store:
            assert fetch(store, "k") == OLD


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_costs_the_new_object_only(tmp_path, number):
    """The write is refused with the system's reason; what was written stays readable until the abort."""
    files, events = FaultyFiles(3, number, only="write"), []
    store = make_store(tmp_path / "t", files)
    store.attach(ledger=None, observer=type("O", (), {"notice": staticmethod(events.append)}), clock=None)
    files.calls = 0
    staging = store.stage("k", Metadata(size=1000))
    staging.write(bytes(100))
    staging.write(bytes(100))
    with pytest.raises(StoreError, match="could not write") as caught:
        staging.write(bytes(100))
    assert caught.value.__cause__.errno == number
    assert staging.written == 200 and read_all(staging, 200) == bytes(200)
    with pytest.raises(StoreError, match="abort it"):
        staging.write(b"x")
    with pytest.raises(StoreError, match="abort it"):
        staging.commit()
    staging.abort()
    assert [(event.kind, event.key, event.tier) for event in events] == [("write_failed", "k", "file")]
    assert on_disk(tmp_path / "t") == [] and store.usage().bytes == 0
    put(store, "k", b"abc")
    store.close()


def test_no_descriptor_left_is_a_store_error_and_harms_nothing(tmp_path):
    store = make_store(tmp_path / "t", FaultyFiles())
    put(store, "k", b"abc")
    files = store.files
    for call in (lambda: store.open("k"), lambda: store.stage("x", Metadata())):
        files.calls, files.fail_call, files.number, files.only = 0, 1, errno.EMFILE, "open"
        with pytest.raises(StoreError, match="Too many open files"):
            call()
    assert fetch(store, "k") == b"abc" and store.usage().stagings == 0
    store.close()


def test_short_writes_and_short_reads_are_gone_on_with(tmp_path):
    """The system may take or give fewer bytes than asked for."""

    class Halves(Files):
        write = staticmethod(lambda fd, view: os.write(fd, view[: len(view) // 2 + 1]))
        preadv = staticmethod(lambda fd, views, at: os.preadv(fd, (views[0][: len(views[0]) // 2 + 1],), at))
        pread = staticmethod(lambda fd, size, at: os.pread(fd, size // 2 + 1, at))

    store = make_store(tmp_path / "t", Halves())
    put(store, "k", NEW)
    for piece in (1000, 10**9, 100_000):
        entry = store.open("k")
        assert read_all(entry, len(NEW), piece) == NEW
        assert entry.peek_at(5, 70_000) == NEW[5:70_005]
        entry.close()
    store.close()
    with make_store(tmp_path / "t", Halves()) as store:
        assert fetch(store, "k") == NEW


def test_fsync_comes_before_the_name_and_the_folder_before_the_answer(tmp_path):
    """Contents reach the disk before the names that stand for them; "flush" asks for none of it."""
    store = make_store(tmp_path / "t", FaultyFiles(), durability="fsync")
    put(store, "warm", b"x")
    store.files.log.clear()
    put(store, "k", b"abc")
    names = [call[0] for call in store.files.log if call[0] in ("fsync", "rename", "link")]
    assert names == ["fsync", "rename", "fsync", "link", "fsync"] or names == [
        "fsync", "fsync", "rename", "fsync", "link", "fsync",
    ]  # fmt: skip
    store.close()
    with make_store(tmp_path / "u", FaultyFiles()) as store:
        put(store, "k", b"abc")
        assert "fsync" not in [call[0] for call in store.files.log]


# -- a process that dies ---------------------------------------------------------------------------------------


def die_in(tier, act, nth):
    """Do `act` in a forked child that is killed at its nth call of the system; False when it made fewer."""
    child = os.fork()
    if not child:
        try:
            files = FaultyFiles(instead=lambda: os.kill(os.getpid(), signal.SIGKILL))
            store = make_store(tier, files)
            files.calls, files.fail_call = 0, nth
            act(store)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("act", [write_new, delete, restamp, evict])
def test_a_writer_killed_at_any_call_leaves_whole_entries_and_nothing_the_next_start_keeps(tmp_path, act):
    """kill -9 before the 1st, 2nd, ... call: old or new, whole; the rest is swept."""
    seen = set()
    for nth in itertools.count(1):
        tier = tmp_path / str(nth)
        with make_store(tier) as store:
            put(store, "k", OLD, etag='"old"')
        died = die_in(tier, act, nth)
        store = make_store(tier)
        body = fetch(store, "k")
        assert body in (OLD, NEW, None)
        assert body is not None or act in (delete, evict)
        seen.add((body, None if body is None else store.stat("k").etag))
        assert len(on_disk(tier)) == 2 * len(list(store.keys()))
        assert [path.name for path in (tier / "staging").iterdir() if path.name != store._disk._owner.name] == [
            f"{store._disk._owner.name}.lock"
        ]
        store.close()
        if not died:
            break
    assert len(seen) == 2, "it died before the commit point as well as after it"


# -- two processes, one folder ---------------------------------------------------------------------------------


def test_a_start_leaves_the_stagings_of_a_living_process_alone(tmp_path):
    """A second store on the folder (in this process or another) sweeps nothing that is in use."""
    first = make_store(tmp_path / "t")
    staging = first.stage("k", Metadata())
    staging.write(b"abc")
    second = make_store(tmp_path / "t")
    third = second.stage("other", Metadata())
    third.write(b"xyz")
    staging.write(b"def")
    staging.commit().close()
    assert fetch(first, "k") == b"abcdef"
    with make_store(tmp_path / "t") as late:
        assert fetch(late, "k") == b"abcdef"
    third.commit().close()
    first.close()
    second.close()
    with make_store(tmp_path / "t") as late:
        assert sorted(late.keys()) == ["k", "other"]


def test_two_processes_that_commit_one_key_take_different_generations(tmp_path):
    """The exclusive creation decides; nobody overwrites, and the next start keeps the newer."""
    first, second = make_store(tmp_path / "t"), make_store(tmp_path / "t")
    put(first, "k", b"first")
    put(second, "k", b"second")
    assert first.stat("k").size == 5 and second.stat("k").size == 6
    first.close()
    second.close()
    with make_store(tmp_path / "t") as store:
        assert fetch(store, "k") == b"second"


def test_what_another_process_removed_is_a_miss(tmp_path):
    first = make_store(tmp_path / "t")
    put(first, "k", b"abc")
    with make_store(tmp_path / "t") as second:
        assert second.delete("k")
    assert first.open("k") is None and first.usage().bytes == 0
    first.close()


def test_many_processes_work_in_one_folder_and_every_read_is_whole(tmp_path):
    """Writers, deleters and sweeping starts, each a process: never a wrong byte, never an unexpected error."""

    def work(seed):
        for turn in range(15):
            with make_store(tmp_path / "t", capacity="700KiB") as store:
                key = f"k{(turn + seed) % 3}"
                body = fetch(store, key)
                assert body in (OLD, NEW, None)
                if turn % 5 == 4:
                    store.delete(key)
                else:
                    put(store, key, (OLD, NEW)[turn % 2])
                    assert fetch(store, key) in (OLD, NEW, None)

    children = []
    for seed in range(4):
        child = os.fork()
        if not child:
            status = 1
            try:
                work(seed)
                status = 0
            except BaseException as error:
                print(f"child {seed}: {type(error).__name__}: {error}", file=sys.stderr)
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    with make_store(tmp_path / "t") as store:
        assert all(fetch(store, key) in (OLD, NEW) for key in list(store.keys()))
        assert len(on_disk(tmp_path / "t")) == 2 * len(list(store.keys()))


def test_a_forked_child_uses_the_tier_and_the_parents_stagings_stay_the_parents(tmp_path):
    """The child reads and writes; it cannot go on with, or remove, what the parent was writing."""
    store = make_store(tmp_path / "t")
    put(store, "k", OLD)
    entry = store.open("k")
    staging = store.stage("s", Metadata())
    staging.write(b"abc")

    child = os.fork()
    if not child:
        status = 1
        try:
            with pytest.raises(Closed):
                staging.write(b"x")
            staging.abort()
            assert fetch(store, "k") == OLD == read_all(entry, len(OLD))
            put(store, "from the child", NEW)
            assert fetch(store, "from the child") == NEW and store.usage().stagings == 0
            store.close()
            status = 0
        except BaseException as error:
            print(f"child: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    staging.write(b"def")
    staging.commit().close()
    assert fetch(store, "s") == b"abcdef"
    entry.close()
    store.close()
    with make_store(tmp_path / "t") as store:
        assert sorted(store.keys()) == ["from the child", "k", "s"]


# -- threads ---------------------------------------------------------------------------------------------------


def test_a_delete_waits_for_a_publication_of_its_key_and_then_removes_it(tmp_path):
    """A delete that returns leaves nothing of the key, in the index or on disk, even against a commit half done."""
    at_link, go = threading.Event(), threading.Event()

    class Slow(Files):
        @staticmethod
        def link(source, target):
            os.link(source, target)
            at_link.set()
            assert go.wait(30)

    store = make_store(tmp_path / "t", Slow())
    staging = store.stage("k", Metadata())
    staging.write(b"abc")
    with ThreadPoolExecutor(2) as pool:
        commit = pool.submit(staging.commit)
        assert at_link.wait(30)
        delete = pool.submit(store.delete, "k")
        assert store.open("k") is None, "not visible before it is in the index"
        assert store.delete("other") is False, "other keys do not wait"
        go.set()
        commit.result(30).close()
        assert delete.result(30) is True
    assert store.open("k") is None and on_disk(tmp_path / "t") == []
    store.close()


def test_a_guard_that_turns_while_files_are_put_in_place_wins(tmp_path):
    """Asked again at the instant of publication: no entry, and nothing that the next start would find."""
    agreed = [True]

    class Turning(Files):
        @staticmethod
        def link(source, target):
            os.link(source, target)
            agreed[0] = False

    store = make_store(tmp_path / "t", Turning())
    staging = store.stage("k", Metadata())
    staging.write(b"abc")
    assert staging.commit(guard=lambda: agreed[0]) is None
    assert read_all(staging, 3) == b"abc" and store.open("k") is None
    staging.abort()
    assert on_disk(tmp_path / "t") == []
    store.close()


def test_closing_while_a_commit_is_half_done_publishes_nothing(tmp_path):
    at_link, go = threading.Event(), threading.Event()

    class Slow(Files):
        @staticmethod
        def link(source, target):
            os.link(source, target)
            at_link.set()
            assert go.wait(30)

    store = make_store(tmp_path / "t", Slow())
    staging = store.stage("k", Metadata())
    staging.write(b"abc")
    with ThreadPoolExecutor(2) as pool:
        commit = pool.submit(staging.commit)
        assert at_link.wait(30)
        close = pool.submit(store.close)
        while not store.closed:
            go.wait(0.001)
        go.set()
        close.result(30)
        with pytest.raises(Closed):
            commit.result(30)
    assert on_disk(tmp_path / "t") == []


def test_an_interruption_after_the_publication_undoes_nothing_and_blocks_nobody(tmp_path):
    """Ctrl-C while the replaced entry's files are removed: the new entry stays, and its key stays usable."""

    class Interrupted(Files):
        armed = False

        def __init__(self):
            self.unlink = self.interrupt

        def interrupt(self, path):
            if self.armed and "objects" in path:
                self.armed = False
                raise KeyboardInterrupt
            os.unlink(path)

    store = make_store(tmp_path / "t", Interrupted())
    put(store, "k", OLD)
    staging = store.stage("k", Metadata())
    staging.write(NEW)
    store.files.armed = True
    with pytest.raises(KeyboardInterrupt):
        staging.commit()
    staging.abort()
    assert fetch(store, "k") == NEW
    assert (store.usage().bytes, store.usage().stagings) == (len(NEW), 0)
    assert store.delete("k") is True
    store.close()
    del staging
    gc.collect()
    with make_store(tmp_path / "t") as store:
        assert store.open("k") is None and on_disk(tmp_path / "t") == []


def test_a_delete_that_failed_can_be_repeated_and_then_holds(tmp_path):
    """What could not be removed is kept in mind: a delete that returns leaves nothing for the next start."""
    store = make_store(tmp_path / "t", FaultyFiles())
    put(store, "k", OLD)
    files = store.files
    files.calls, files.fail_call, files.only = 0, 1, "unlink"
    with pytest.raises(StoreError, match="could not delete"):
        store.delete("k")
    assert store.open("k") is None, "not served any more, though its files are still there"
    assert len(on_disk(tmp_path / "t")) == 2
    assert store.delete("k") is False
    assert on_disk(tmp_path / "t") == []
    # The same for a replaced entry whose removal failed: metadata stays, then a delete takes both.
    put(store, "k", OLD)
    files.calls, files.fail_call = 0, 2  # the first removes the staged metadata
    put(store, "k", NEW)
    assert len(on_disk(tmp_path / "t")) == 3
    assert store.delete("k") is True
    store.close()
    assert on_disk(tmp_path / "t") == []
