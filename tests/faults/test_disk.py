"""A file tier that fails under a cache: the read is served all the same, the event counted, nothing left."""

from __future__ import annotations

import errno
import hashlib
import itertools
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from daramjwee import Cache, CorruptEntry, FetchError, FileStore, MemoryStore, Status, StoreError
from daramjwee.stores.file.files import Files
from daramjwee.testing.leaks import no_leaks
from daramjwee.testing.origin import ScriptedOrigin

if TYPE_CHECKING:
    from pathlib import Path

BIG = os.urandom(1_500_000)
STEPS = [BIG[i : i + 100_000] for i in range(0, len(BIG), 100_000)]


class FaultyFiles(Files):
    """Lets one call of the operating system fail: the `nth` of those named, or every one from the `nth` on."""

    def __init__(self, names: tuple[str, ...], nth: int, *, code: int = errno.ENOSPC, for_good: bool = False) -> None:
        self.calls = 0
        self.armed = False  # a folder that cannot be used at all is refused at once, so starting up is let through
        for name in names:
            setattr(self, name, self._failing(name, getattr(Files, name), nth, code, for_good))

    def _failing(self, name: str, real: Any, nth: int, code: int, for_good: bool) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += self.armed
            if self.armed and (self.calls == nth or (for_good and self.calls > nth)):
                raise OSError(code, f"{os.strerror(code)} (call {self.calls}, {name})")
            return real(*args, **kwargs)

        return call


def make_store(folder: Path, files: FaultyFiles | None = None) -> FileStore:
    kind = FileStore if files is None else type("FaultyStore", (FileStore,), {"files": files})
    store = kind(folder, capacity="64MiB")
    if files is not None:
        files.armed = True
    return store


def bodies_in(folder: Path) -> list[Path]:
    return list((folder / "objects").rglob("*.body"))


@pytest.mark.parametrize("size", ["right", None])
def test_a_disk_that_fills_up_during_a_fill_fails_no_reader(tmp_path: Path, size: str | None) -> None:
    """Whenever it happens: all bytes are read, the failure is counted, and nothing of the object is left."""
    for nth in itertools.count(1):
        folder = tmp_path / str(nth)
        files = FaultyFiles(("write",), nth, for_good=True)
        origin = ScriptedOrigin()
        origin.script("big", *STEPS, size=size)
        with Cache(make_store(folder, files), origin=origin, memory_limit="32MiB") as cache:
            with no_leaks(cache, threads=False), cache.open("big") as stream:
                got = hashlib.sha256()
                while data := stream.read1(70_000):
                    got.update(data)
                assert got.digest() == hashlib.sha256(BIG).digest(), nth
            if files.calls < nth:
                assert "big" in cache
                break
            assert "big" not in cache
            assert cache.stats().events["write_failed"] >= 1
            assert cache.stats().tiers[0].usage.bytes == 0
        assert bodies_in(folder) == []
    assert nth > 10


def test_any_failing_call_degrades_to_less_caching(tmp_path: Path) -> None:
    """The 1st, 2nd, ... nth call of the operating system fails once: the reads are right each time."""
    names = ("open", "write", "link", "rename", "fstat", "preadv", "pread", "mkdir", "unlink", "statvfs", "utime")
    for nth in itertools.count(1):
        files = FaultyFiles(names, nth, code=errno.EIO)
        origin = ScriptedOrigin({"big": BIG, "small": b"small"})
        with Cache(make_store(tmp_path / str(nth), files), origin=origin, memory_limit="32MiB") as cache:
            for key, data in (("big", BIG), ("small", b"small"), ("big", BIG), ("small", b"small")):
                assert cache.get(key) == data, (nth, key)
            with suppress(StoreError):  # a delete that fails is said
                cache.delete("big")
            assert cache.get("big") == BIG
        if files.calls < nth:
            break
    assert nth > 20


def test_a_folder_that_is_not_writable_still_serves_from_the_origin(tmp_path: Path) -> None:
    """Each read comes from the origin, and the log says why nothing is kept."""
    files = FaultyFiles(("open", "mkdir", "makedirs"), nth=1, code=errno.EACCES, for_good=True)
    origin = ScriptedOrigin({"k": b"data"})
    with Cache(make_store(tmp_path, files), origin=origin) as cache:
        for _ in range(2):
            assert cache.get("k") == b"data"
        assert origin.fetches() == 2
        assert cache.stats().events["write_failed"] >= 2


def damage(path: Path, at: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["flip first", "flip last", "truncate", "lengthen", "empty", "remove"])
@pytest.mark.parametrize("seen_before", [True, False])
def test_a_damaged_entry_is_served_from_the_origin_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str, seen_before: bool
) -> None:
    """Altered, cut, gone: `get` gives the right bytes, the event is counted and logged, and the entry is good again."""
    origin = ScriptedOrigin({"big": BIG})
    with Cache(make_store(tmp_path), origin=origin) as cache:
        cache.get("big")
        if seen_before:
            assert cache.get("big") == BIG
        (body,) = bodies_in(tmp_path)
        if how == "remove":
            body.unlink()
        elif how.startswith("flip"):
            damage(body, 0 if how == "flip first" else len(BIG) - 1)
        else:
            size = {"truncate": len(BIG) - 1, "lengthen": len(BIG) + 1, "empty": 0}[how]
            os.truncate(body, size)
        with caplog.at_level(logging.WARNING):
            assert cache.get("big") == BIG
        assert origin.fetches() == 2
        assert "big" in caplog.text
        events = cache.stats().events
        assert events.get("corrupt", 0) + events.get("missing", 0) == 1
        assert cache.get("big") == BIG
        assert origin.fetches() == 2


def test_a_small_damaged_entry_under_a_stream_is_served_from_the_origin(tmp_path: Path) -> None:
    """Nothing was given yet: the stream goes on from a new fetch and the reader notices nothing."""
    origin = ScriptedOrigin({"k": b"some bytes"})
    with Cache(make_store(tmp_path), origin=origin) as cache:
        cache.get("k")
        (body,) = bodies_in(tmp_path)
        damage(body, 3)
        with cache.open("k") as stream:
            assert stream.read(4) == b"some"
            assert stream.read() == b" bytes"
    assert origin.fetches() == 2


@pytest.mark.parametrize(("etag", "mended"), [('"strong"', True), ('W/"weak"', False), (None, False)])
def test_damage_in_mid_stream_is_mended_only_by_the_same_object(tmp_path: Path, etag: str | None, mended: bool) -> None:
    """Bytes given cannot be taken back: a strong validator must prove that the origin still has the same ones."""
    origin = ScriptedOrigin()
    origin.script("big", *STEPS, etag=etag)
    with Cache(make_store(tmp_path), origin=origin) as cache:
        cache.get("big")
        (body,) = bodies_in(tmp_path)
        damage(body, 1_000_000)
        with cache.open("big") as stream:
            first = stream.read(500_000)
            if mended:
                assert first + stream.read() == BIG
            else:
                with pytest.raises(CorruptEntry, match="big"):
                    stream.read()
        assert cache.get("big") == BIG


def test_damage_is_not_mended_by_another_object(tmp_path: Path) -> None:
    """The origin has changed meanwhile: its new bytes never follow the old ones."""
    origin = ScriptedOrigin()
    origin.script("big", *STEPS, etag='"1"')
    with Cache(make_store(tmp_path), origin=origin) as cache:
        cache.get("big")
        (body,) = bodies_in(tmp_path)
        damage(body, 1_000_000)
        origin.script("big", b"x" * len(BIG), etag='"2"')
        with cache.open("big") as stream:
            assert stream.read(500_000) == BIG[:500_000]
            with pytest.raises(CorruptEntry):
                stream.read()
        assert cache.get("big") == b"x" * len(BIG)


def test_a_damaged_entry_with_its_origin_down_is_an_error_and_never_wrong_bytes(tmp_path: Path) -> None:
    """Without an origin, or with one that fails."""
    origin = ScriptedOrigin({"k": b"some bytes"})
    with Cache(make_store(tmp_path), origin=origin) as cache:
        cache.get("k")
        (body,) = bodies_in(tmp_path)
        damage(body, 3)
        origin.script("k", ConnectionError("down"))
        with pytest.raises((FetchError, CorruptEntry)):
            cache.get("k")


def test_a_failing_tier_does_not_keep_others_from_working(tmp_path: Path) -> None:
    """Memory above a broken file tier: hits come from memory, copies to the file tier fail visibly."""
    files = FaultyFiles(("write",), 1, for_good=True)
    origin = ScriptedOrigin({"k": b"data"})
    with Cache(MemoryStore("1MiB"), make_store(tmp_path, files), origin=origin) as cache:
        assert cache.get("k") == b"data"
        with cache.open("k") as stream:
            assert stream.status is Status.HIT
        assert cache._engine.flights.workers.wait_idle(30)
        assert cache.stats().events["copy_failed"] == 1
        assert origin.fetches() == 1
