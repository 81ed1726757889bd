"""The file tier: the store suite, and what only it promises: a private folder, restarts, verification, limits of a disk."""

from __future__ import annotations

import errno
import gc
import io
import os
import stat
from pathlib import Path

import pytest

from daramjwee.errors import Closed, ConfigError, CorruptEntry, LimitExceeded, StoreError
from daramjwee.model import Metadata
from daramjwee.stores import FileStore
from daramjwee.stores.file.files import Descriptor
from daramjwee.testing.store_suite import CAPACITY, ODD_KEYS, PIECE, StoreSuite, fetch, pattern, put, read_all


class TestFileStore(StoreSuite):
    def make_store(self, tmp_path):
        return FileStore(tmp_path, capacity=CAPACITY)

    @pytest.fixture(autouse=True)
    def nothing_is_left_over(self, store, tmp_path):
        """After every test of the suite: no staging, and exactly one body and one metadata file per entry."""
        yield
        store.close()
        gc.collect()
        tier = tmp_path / "tier"
        assert list((tier / "staging").rglob("*")) == []
        names = [path.name for path in (tier / "objects").rglob("*.*")]
        bodies, metas = ([n for n in names if n.endswith(s)] for s in (".body", ".meta"))
        assert len(bodies) == len(metas) == len({name[:64] for name in names})
        assert sum(path.stat().st_size for path in (tier / "objects").rglob("*.body")) <= CAPACITY


class TestFileStoreLruAlwaysFsync(StoreSuite):
    """The other choice of every setting."""

    def make_store(self, tmp_path):
        return FileStore(
            tmp_path, capacity=CAPACITY, policy="lru", verify="always", durability="fsync", free_space_floor=0
        )

    def test_a_path_and_a_descriptor_name_exactly_the_body(self, store):
        """With "always" no descriptor is handed out: what is read through it could not be checked."""
        put(store, "k", b"abc")
        entry = store.open("k")
        entry.verify()
        with pytest.raises(io.UnsupportedOperation):
            entry.fileno()
        entry.close()


class TestFileStoreUnverified(StoreSuite):
    def make_store(self, tmp_path):
        return FileStore(str(tmp_path), capacity=CAPACITY, verify="off")


def test_all_wrong_arguments_are_named_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        FileStore("", capacity=-1, max_entries=True, policy="x", free_space_floor="?", durability="no", verify=None)
    fields = ["capacity", "max_entries", "policy", "free_space_floor", "durability", "verify", "folder"]
    assert [problem.field for problem in caught.value.problems] == fields
    assert list(tmp_path.iterdir()) == []


# -- the folder ------------------------------------------------------------------------------------------------


def test_everything_is_private_to_its_owner(make, tier):
    """Folders 0700, files 0600, also when the folder was open to others before."""
    tier.mkdir(mode=0o755)
    put(make(), "k", b"abc")
    for path in (tier, *tier.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("folder", ["", 3, "a\0b", Path("a\0b")])
def test_what_is_no_path_of_a_folder_is_refused_with_all_else_that_is_wrong(folder):
    """Before the system would say so, about nothing that was given."""
    with pytest.raises(ConfigError, match=r"folder = .*must be the path of a folder") as caught:
        FileStore(folder, capacity=0)
    assert [problem.field for problem in caught.value.problems] == ["capacity", "folder"]


def test_a_folder_with_other_files_is_refused_and_left_alone(make, tier):
    tier.mkdir()
    (tier / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="give an empty or a new folder"):
        make()
    assert [path.name for path in tier.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(("text", "why"), [("daramjwee file tier\nformat 12\n", "upgrade"), ("?", "cannot be read")])
def test_a_folder_of_a_later_format_is_refused_clearly(make, tier, text, why):
    put(make(), "k", b"abc")
    (tier / "DARAMJWEE").write_text(text)
    with pytest.raises(ConfigError, match=why):
        make()


@pytest.mark.parametrize("text", ["", "daramjwee fi"])
def test_a_making_that_was_cut_short_is_completed(make, tier, text):
    """An empty or partial marker is what a kill or a full disk leaves between its creation and its end."""
    tier.mkdir()
    (tier / "DARAMJWEE").write_text(text)
    put(make(), "k", b"abc")
    assert (tier / "DARAMJWEE").read_text().endswith("format 1\n")


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be used as a file tier") as caught:
        FileStore(tmp_path / "file" / "tier", capacity="1MiB")
    assert isinstance(caught.value.__cause__, NotADirectoryError)


def test_the_body_is_a_plain_file_with_exactly_the_bytes(make, tier, objects):
    put(make(), "k", pattern(300_000))
    (body,) = objects(".body")
    assert (tier / "objects" / body).read_bytes() == pattern(300_000)
    assert len(objects()) == 2


# -- restarts --------------------------------------------------------------------------------------------------


def test_the_next_process_finds_every_entry_with_its_metadata(make):
    store = make()
    for number, key in enumerate(ODD_KEYS):
        put(store, key, pattern(1000 * number), etag=f'"{number}"', tags=("t",), attributes={"a": key[:5]}, ttl=1.5)
    said = {key: store.stat(key) for key in ODD_KEYS}
    store.close()
    store = make()
    assert {key: store.stat(key) for key in list(store.keys())} == said
    assert all(fetch(store, key) == pattern(1000 * number) for number, key in enumerate(ODD_KEYS))


def test_a_deleted_or_replaced_entry_stays_so_after_a_restart(make, objects):
    store = make()
    for key in "ab":
        put(store, key, b"old " + key.encode())
    store.delete("a")
    put(store, "b", b"new")
    store.restamp("b", Metadata(etag='"2"'))
    store.close()
    store = make()
    assert (fetch(store, "a"), fetch(store, "b"), store.stat("b").etag) == (None, b"new", '"2"')
    assert len(objects()) == 2


def test_a_smaller_capacity_keeps_the_newest(make, objects):
    store = make()
    for number in range(10):
        put(store, f"k{number}", pattern(1000))
    store.close()
    store = make(capacity=3500)
    assert sorted(store.keys()) == ["k7", "k8", "k9"] and len(objects()) == 6
    assert (store.usage().bytes, store.usage().evictions) == (3000, 0)
    store.close()
    assert sorted(make(capacity=3500, max_entries=2).keys()) == ["k8", "k9"]


def test_the_sweep_removes_what_cannot_be_used_and_nothing_else(make, tier, objects, staged, caplog):
    """Damaged, misnamed and outdated metadata, metadata without a body, bodies without metadata, dead stagings."""
    store = make()
    for key in ("good", "torn", "flipped", "bodiless", "orphan", "empty", "shadowed"):
        put(store, key, key.encode())
    metas = {key: tier / "objects" / store._shelf.table[key].meta for key in list(store.keys())}
    bodies = {key: tier / "objects" / store._shelf.table[key].body for key in list(store.keys())}
    store.close()
    metas["torn"].write_bytes(metas["torn"].read_bytes()[:-1])
    data = bytearray(metas["flipped"].read_bytes())
    data[len(data) // 2] ^= 1
    metas["flipped"].write_bytes(data)
    metas["empty"].write_bytes(b"")
    bodies["bodiless"].unlink()
    metas["orphan"].unlink()
    # An outdated generation, and a newest one that is not what was written there: nothing older may come back.
    for key, generation in (("good", 0), ("shadowed", 10**19)):
        name = f"{metas[key].name[:64]}.{generation:020d}.meta"
        metas[key].with_name(name).write_bytes(metas[key].read_bytes())
    dead = tier / "staging" / "1-0123456789ab"
    dead.mkdir()
    (dead / "1.body").write_bytes(b"x")
    dead.with_suffix(".lock").write_bytes(b"")
    (tier / "objects" / "notes.txt").write_text("not ours")
    store = make()
    assert list(store.keys()) == ["good"] and fetch(store, "good") == b"good"
    assert store.bad_records == 4
    assert len(objects(".meta")) == len(objects(".body")) == 1 and staged() == []
    assert not dead.with_suffix(".lock").exists() and (tier / "objects" / "notes.txt").exists()
    assert "does not match its checksum" in caplog.text
    put(store, "good", b"newer")
    store.close()
    assert fetch(make(), "good") == b"newer", "generations go on above the highest that was seen"


def test_metadata_of_a_later_version_is_neither_used_nor_removed(make, tier, objects):
    """Nor is its body: a later release may come back for both."""
    store = make()
    put(store, "k", b"abc")
    path = tier / "objects" / store._shelf.table["k"].meta
    store.close()
    data = bytearray(path.read_bytes())
    data[4] = 9
    path.write_bytes(data)
    store = make()
    assert store.open("k") is None and store.bad_records == 1 and path.exists() and len(objects()) == 2


# -- verification ----------------------------------------------------------------------------------------------


def spoil(path, how, at=0):
    """Change a file the way a failing disk does: behind the store's back, with the same length or without."""
    if how == "flip":
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))
    elif how == "truncate":
        os.truncate(path, at)
    elif how == "extend":
        with open(path, "ab") as file:
            file.write(b"more")
    else:
        os.unlink(path)


SIZE = 3 * PIECE + 1000


@pytest.fixture
def one(make, recorder):
    """A store with one entry, and the path of its body."""
    store = make(observer=recorder)
    put(store, "k", pattern(SIZE))
    return store, store.body_path(store._shelf.table["k"])


@pytest.fixture
def recorder():
    from types import SimpleNamespace

    events = []
    return SimpleNamespace(events=events, notice=events.append, kinds=lambda: [event.kind for event in events])


@pytest.mark.parametrize("at", [0, PIECE - 1, PIECE, 2 * PIECE + 5, SIZE - 1])
@pytest.mark.parametrize("piece", [PIECE, 10**9, 100_000, 1000])
def test_a_flipped_bit_is_never_handed_out(one, recorder, objects, at, piece):
    """Whatever the reader's buffers: bytes before the damaged block are right, then `CorruptEntry`, then a miss."""
    store, path = one
    spoil(path, "flip", at)
    entry = store.open("k")
    out, done = bytearray(SIZE), 0
    with pytest.raises(CorruptEntry, match="checksum differs"):
        while done < SIZE:
            view = memoryview(out)[done : done + piece]
            done += entry.readinto_at(done, view)
    assert bytes(out[:done]) == pattern(SIZE)[:done] and done <= at
    first_of_block = at // PIECE * PIECE
    touched = out[max(done, first_of_block) : at + 1]
    assert not any(touched), "damaged bytes are wiped from the reader's buffer"
    entry.close()
    assert store.open("k") is None and objects() == [] and store.usage().bytes == 0
    assert recorder.kinds() == ["corrupt"] and recorder.events[0].key == "k" and recorder.events[0].tier == "file"


def test_a_range_read_checks_its_block_and_only_that(one):
    store, path = one
    spoil(path, "flip", 10)
    entry = store.open("k")
    view = memoryview(bytearray(100))
    assert entry.readinto_at(2 * PIECE + 50, view) == 100
    assert bytes(view) == pattern(SIZE)[2 * PIECE + 50 : 2 * PIECE + 150]
    with pytest.raises(CorruptEntry):
        entry.readinto_at(PIECE - 1, view)
    assert not any(view[:1])
    entry.close()


@pytest.mark.parametrize("how", ["flip", "truncate", "extend"])
@pytest.mark.parametrize("read_before", [False, True], ids=["unread", "verified"])
def test_damage_before_an_open_is_found_also_when_the_entry_was_verified(one, how, read_before):
    """A verified file is trusted by inode, size and time; any later change gives another time, and another check."""
    store, path = one
    if read_before:
        assert fetch(store, "k") == pattern(SIZE)
        entry = store.open("k")
        assert repr(entry) == "<FileEntry open, verified, 769.0KiB>"
        entry.close()
    spoil(path, how, at=SIZE // 2)
    with pytest.raises(CorruptEntry):
        fetch(store, "k")
    assert store.open("k") is None


@pytest.mark.parametrize("verify", ["first", "off", "always"])
def test_a_file_cut_short_while_it_is_open_is_never_a_silent_short_end(make, verify):
    store = make(verify=verify)
    put(store, "k", pattern(SIZE))
    fetch(store, "k")
    entry = store.open("k")
    assert entry.readinto_at(0, memoryview(bytearray(1000))) == 1000
    spoil(store.body_path(store._shelf.table["k"]), "truncate", 2 * PIECE + 1)
    with pytest.raises(CorruptEntry, match="ends"):
        read_all(entry, SIZE)
    with pytest.raises(Closed):
        entry.close() or entry.peek_at(0, 1)


def test_a_missing_body_is_a_miss(one, recorder, objects):
    store, path = one
    spoil(path, "unlink")
    assert store.open("k") is None
    assert objects() == [] and recorder.kinds() == ["missing"] and list(store.keys()) == []


def test_a_damaged_old_entry_does_not_take_its_successor_with_it(one):
    store, path = one
    entry = store.open("k")
    spoil(path, "flip", 5)
    put(store, "k", b"new")
    with pytest.raises(CorruptEntry):
        read_all(entry, SIZE)
    entry.close()
    assert fetch(store, "k") == b"new"


def test_always_checks_at_every_read_and_off_at_none(make, tmp_path):
    for verify, raises in (("always", True), ("off", False)):
        store = make(verify=verify, folder=tmp_path / verify)
        put(store, "k", pattern(SIZE))
        entry = store.open("k")
        assert read_all(entry, SIZE) == pattern(SIZE)
        spoil(store.body_path(store._shelf.table["k"]), "flip", 5)
        if raises:
            with pytest.raises(CorruptEntry):
                entry.readinto_at(0, memoryview(bytearray(10)))
        else:
            assert entry.readinto_at(0, memoryview(bytearray(10))) == 10
        entry.close()


def test_a_descriptor_is_handed_out_only_when_every_block_was_checked(one):
    store, _ = one
    entry = store.open("k")
    with pytest.raises(io.UnsupportedOperation):
        entry.fileno()
    entry.readinto_at(0, memoryview(bytearray(2 * PIECE)))
    with pytest.raises(io.UnsupportedOperation):
        entry.fileno()
    entry.verify()
    assert os.pread(entry.fileno(), 10, PIECE) == pattern(SIZE)[PIECE : PIECE + 10]
    entry.close()
    with pytest.raises(Closed):
        entry.fileno()
    entry = store.open("k")
    assert entry.fileno() >= 0, "verified for good in this process"
    entry.close()


def test_verify_finds_damage(one):
    store, path = one
    spoil(path, "flip", SIZE - 1)
    entry = store.open("k")
    with pytest.raises(CorruptEntry):
        entry.verify()
    entry.close()


# -- names, descriptors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["delete", "replace", "evict"])
def test_a_path_handed_out_stays_until_the_entry_closes(make, how, objects):
    store = make(capacity=1_000_000)
    put(store, "k", pattern(600_000))
    entry, other = store.open("k"), store.open("k")
    path = entry.path
    assert path == entry.path
    if how == "delete":
        store.delete("k")
    else:
        put(store, "k" if how == "replace" else "other", pattern(700_000, seed=1))
    with open(path, "rb") as file:
        assert file.read() == pattern(600_000)
    assert read_all(other, 600_000) == pattern(600_000)
    with pytest.raises(io.UnsupportedOperation, match="was replaced"):
        _ = other.path
    entry.close()
    other.close()
    assert not os.path.exists(path)
    assert len(objects(".body")) == (how != "delete")


def test_a_path_whose_entry_was_never_closed_is_let_go_by_collection(make, objects):
    store = make()
    put(store, "k", b"abc")
    entry = store.open("k")
    assert entry.path
    store.delete("k")
    assert len(objects(".body")) == 1
    del entry
    assert store.usage().bytes == 0 and objects() == []


def test_a_descriptor_is_closed_with_its_last_user_and_not_before(make):
    """A reader in the middle of a call keeps it; the entry of a commit shares the one of its staging."""
    store = make()
    staging = store.stage("k", Metadata())
    staging.write(b"abc")
    entry = staging.commit()
    user = entry._file
    assert isinstance(user, Descriptor)
    entry.close()
    assert os.pread(user.fd, 3, 0) == b"abc"
    assert staging.readinto_at(0, memoryview(bytearray(3))) == 3
    number = user.fd
    del user
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)
    with pytest.raises(Closed):
        staging.readinto_at(0, memoryview(bytearray(3)))


# -- limits of the disk ----------------------------------------------------------------------------------------


def test_free_space_is_left_to_others_and_entries_make_way_for_it(make, recorder, monkeypatch):
    """Below the floor: entries leave as far as that helps, then the write is refused, counted, and leaves nothing."""
    store = make(observer=recorder, free_space_floor=50_000)
    free = [200_000]
    bodies = store._disk.objects

    class Space:
        f_frsize = 1

        @property
        def f_bavail(self):
            held = sum(e.stat().st_size for shard in os.scandir(bodies) for e in os.scandir(shard.path))
            return free[0] - held

    monkeypatch.setattr(type(store.files), "statvfs", staticmethod(lambda path: Space()))
    for number in range(5):
        put(store, f"k{number}", pattern(60_000))
    assert store.usage().entries == 2
    free[0] = 0
    with pytest.raises(StoreError, match="free_space_floor"):
        store.stage("k", Metadata(size=60_000))
    assert store.usage().entries == 2 and store.usage().stagings == 0, "evicting would not have helped"
    assert recorder.kinds() == ["write_failed"]


def test_an_object_of_unknown_size_asks_for_free_space_as_it_grows(make, monkeypatch):
    store = make(capacity="64MiB", free_space_floor="1MiB")
    real, asked = os.statvfs, []
    monkeypatch.setattr(type(store.files), "statvfs", staticmethod(lambda path: asked.append(path) or real(path)))
    staging = store.stage("k", Metadata())
    for _ in range(40):
        staging.write(bytes(1024 * 1024))
    staging.abort()
    assert len(asked) == 3


def test_a_larger_object_than_allowed_is_refused_with_its_numbers(make):
    store = make(max_object_size=1000)
    assert store.max_object_size == store.largest_fill == 1000
    with pytest.raises(LimitExceeded, match="1,001 bytes"):
        store.stage("k", Metadata(size=1001))


def test_a_store_tells_its_state(make, tier):
    store = make()
    put(store, "k", bytes(1024))
    assert repr(store) == f"<FileStore {tier} 1 entry, 1KiB of 64MiB, 0 stagings>"
    staging = store.stage("secret", Metadata())
    assert repr(staging) == "<FileStaging 'secret' open, 0B>"
    staging.abort()
    store.close()
    assert repr(store) == f"<FileStore {tier} closed>"


def test_errno_reaches_the_person(make, recorder, tier):
    """A folder that turned read-only: what could not be done, where, and why; chained and counted."""
    from daramjwee.stores.file.files import Files

    class ReadOnly(Files):
        @staticmethod
        def open(path, flags, mode=0o600):
            if flags & os.O_CREAT and "staging" in path and path.endswith(".body"):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return os.open(path, flags, mode)

    store = make(files=ReadOnly(), observer=recorder)
    with pytest.raises(StoreError, match=r"could not create the file of 'k' in .*: Read-only file system") as caught:
        store.stage("k", Metadata(size=10))
    assert caught.value.__cause__.errno == errno.EROFS
    assert recorder.kinds() == ["write_failed"] and store.usage().stagings == 0 and store.usage().bytes == 0


def test_descriptors_of_verified_bodies_are_kept_within_a_bound_and_let_go(tmp_path, monkeypatch):
    """At most so many stay open, the most recent ones; a deleted or replaced entry keeps none, nor its disk space."""
    monkeypatch.setattr("daramjwee.stores.file.store.KEPT_DESCRIPTORS", 4)
    with FileStore(tmp_path, capacity="1MiB") as store:
        for number in range(10):
            put(store, f"k{number}", pattern(1000))
            for _ in range(2):
                assert fetch(store, f"k{number}") == pattern(1000)
        kept = [record.key for record in store._kept]
        assert kept == ["k6", "k7", "k8", "k9"]
        assert [key for key, record in store._shelf.table.items() if record.file is not None] == kept
        (tmp_path / "objects" / store._shelf.table["k9"].body).write_bytes(pattern(1000))
        for _ in range(2):
            assert fetch(store, "k9") == pattern(1000)
        assert [record.key for record in store._kept].count("k9") == 1
        store.delete("k8")
        put(store, "k7", b"new")
        assert [record.key for record in store._kept] == ["k6", "k9"]
