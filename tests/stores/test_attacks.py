"""Attacks on the file tier: what lies in its folder that it did not write, and other processes on the same folder."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path

import pytest

from daramjwee.errors import StoreError
from daramjwee.model import Metadata
from daramjwee.stores import FileStore
from daramjwee.stores.file import layout
from daramjwee.stores.file.files import Files

SIZE = 300_000


def make(folder: Path) -> FileStore:
    return FileStore(folder / "tier", capacity="16MiB", free_space_floor=0)


def put(store: FileStore, key: str, data: bytes) -> None:
    staging = store.stage(key, Metadata(size=len(data)))
    staging.write(data)
    entry = staging.commit()
    assert entry is not None
    entry.close()


def fetch(store: FileStore, key: str) -> bytes | None:
    entry = store.open(key)
    if entry is None:
        return None
    data = bytearray(entry.size)
    entry.readinto_at(0, memoryview(data))
    entry.close()
    return bytes(data)


def plant(folder: Path, generation: int = 7) -> Path:
    """Where the metadata file of a key that is not there would lie."""
    path = folder / "tier" / layout.OBJECTS / layout.meta_name(layout.key_hash("planted"), generation)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_a_delete_gives_the_space_of_a_kept_body_back(tmp_path: Path) -> None:
    """After a delete no descriptor keeps the bytes of the body on the disk."""
    with make(tmp_path) as store:
        put(store, "a", b"x" * SIZE)
        fetch(store, "a")
        fetch(store, "a")  # verified, and its descriptor kept
        kept = weakref.ref(store._shelf.table["a"].file)
        assert kept() is not None
        store.delete("a")
        assert kept() is None


def test_the_last_of_two_processes_to_commit_is_what_a_start_finds(tmp_path: Path) -> None:
    """Of a key, the highest generation is the newest commit, whichever process made it."""
    first, second = make(tmp_path), make(tmp_path)
    for number in range(5):
        put(second, f"other {number}", b"1")
    put(second, "key", b"older")
    put(first, "key", b"newer")
    first.close()
    second.close()
    with make(tmp_path) as store:
        assert fetch(store, "key") == b"newer"


class ForgottenByTheServer(Files):
    failing = False

    def fstat(self, fd: int) -> os.stat_result:
        if self.failing:
            raise OSError(116, "stale file handle")
        return os.fstat(fd)


def test_a_kept_descriptor_that_fails_is_a_failure_of_the_tier(tmp_path: Path) -> None:
    """A failure of the system is a `StoreError`, at an open of a kept body too."""
    with make(tmp_path) as store:
        put(store, "a", b"x" * SIZE)
        fetch(store, "a")
        fetch(store, "a")
        store.files = ForgottenByTheServer()
        store.files.failing = True
        with pytest.raises(StoreError):
            store.open("a")


@pytest.mark.parametrize("generation", [10**20 - 1, (1 << 64) - 2])
def test_a_planted_generation_does_not_end_all_writing(tmp_path: Path, generation: int) -> None:
    """What is committed beside a useless file of the highest name is found again."""
    make(tmp_path).close()
    plant(tmp_path, generation).write_bytes(b"garbage")
    with make(tmp_path) as store:
        for number in range(3):
            put(store, f"key {number}", b"y")
    with make(tmp_path) as store:
        assert len(list(store.keys())) == 3


def test_a_pipe_in_the_place_of_metadata_does_not_stop_a_start(tmp_path: Path) -> None:
    """A start ends, whatever lies in the folder."""
    make(tmp_path).close()
    path = plant(tmp_path)
    os.mkfifo(path)
    starting = threading.Thread(target=lambda: make(tmp_path).close())
    starting.start()
    starting.join(30)
    stuck = starting.is_alive()
    if stuck:  # let it go, so that no thread is left
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        starting.join()
    assert not stuck


def test_a_start_does_not_read_all_of_a_useless_metadata_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start's memory does not depend on the size of files that are not ours."""
    make(tmp_path).close()
    with open(plant(tmp_path), "wb") as file:
        file.truncate(64 << 20)
    read = []

    def counting(fd: int, count: int, offset: int) -> bytes:
        data = os.pread(fd, count, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(Files, "pread", staticmethod(counting))
    make(tmp_path).close()
    assert sum(read) < 1 << 20


def test_a_stray_file_among_the_shards_does_not_stop_a_start(tmp_path: Path) -> None:
    """Other names below `objects/` are ignored, those of two letters too."""
    make(tmp_path).close()
    (tmp_path / "tier" / layout.OBJECTS / "ab").write_text("a note")
    make(tmp_path).close()


def test_a_shard_that_was_removed_is_made_again(tmp_path: Path) -> None:
    """Who clears folders of the tier while it is in use loses entries, not the tier."""
    with make(tmp_path) as store:
        put(store, "a", b"1")
        shard = tmp_path / "tier" / layout.OBJECTS / layout.key_hash("a")[:2]
        for path in shard.iterdir():
            path.unlink()
        shard.rmdir()
        assert store.open("a") is None
        put(store, "a", b"2")
        assert fetch(store, "a") == b"2"
