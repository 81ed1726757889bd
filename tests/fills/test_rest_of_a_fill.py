"""Reading all of a running fill at once: it waits for the end, and takes the bytes as the tier keeps them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daramjwee import Cache, FetchError, FetchResult, FileStore, LimitExceeded, MemoryStore
from daramjwee.errors import Closed
from daramjwee.model import Metadata
from daramjwee.stores.memory_staging import MemoryStaging
from daramjwee.testing.origin import Gate

KIB = 1024
PIECE = 256 * KIB
BODY = bytes(range(251)) * 4800  # five pieces, and no two alike


def pieces(body: bytes, *, fail_at: int | None = None) -> Iterator[bytes]:
    """A body of unknown size, and perhaps one that breaks off."""
    for at in range(0, len(body), PIECE):
        if at == fail_at:
            raise OSError("the line went dead")
        yield body[at : at + PIECE]


@pytest.fixture(params=["memory", "file"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cache]:
    store: Any = MemoryStore("16MiB") if request.param == "memory" else FileStore(tmp_path / "tier", capacity="64MiB")
    with Cache(store) as made:
        yield made


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, len(BODY)])
@pytest.mark.parametrize("sized", [True, False])
def test_all_of_a_fill_is_exactly_its_bytes(cache: Cache, size: int, *, sized: bool) -> None:
    """By `get` and by `read`, from the start and from within, of known and of unknown size."""
    body = BODY[:size]

    def fetch(_: object) -> FetchResult:
        return FetchResult(pieces(body), size=size if sized else None)

    assert cache.get("get", fetch) == body
    with cache.open("read", fetch) as stream:
        assert stream.read() == body
        assert stream.read() == b""
        assert stream.tell() == size
    with cache.open("rest", fetch) as stream:
        begin = stream.read(size // 3)
        assert begin + stream.read() == body
    with cache.open("range", fetch, start=size // 4, stop=size // 2) as stream:
        assert stream.read() == body[size // 4 : size // 2]


def test_a_cold_get_hands_out_the_very_object_that_memory_keeps() -> None:
    """No second copy of the bytes: of one piece and of several that were joined when they were published."""
    for size in (1000, PIECE, 3 * PIECE):
        with Cache(MemoryStore("16MiB")) as cache:
            cold = cache.get("key", lambda _, size=size: pieces(BODY[:size]))  # type: ignore[misc]
            assert cold == BODY[:size]
            assert cache.get("key") is cold


def test_progress_is_told_while_the_bytes_arrive(cache: Cache) -> None:
    """Who wants to follow a fill reads along."""
    told: list[int] = []
    with cache.open("key", lambda _: pieces(BODY), progress=lambda done, _: told.append(done)) as stream:
        assert stream.read() == BODY
    assert len(told) > 1
    assert told[-1] == len(BODY)


def test_get_waits_for_no_more_than_it_may_give(cache: Cache) -> None:
    """The answer comes while the origin still has the rest."""
    gate = Gate()

    def slow() -> Iterator[bytes]:
        yield from pieces(BODY)
        gate.wait()

    with pytest.raises(LimitExceeded, match="more than max_bytes=1MiB"):
        cache.get("key", lambda _: slow(), max_bytes="1MiB")
    gate.open()


def test_a_fill_that_fails_is_told_as_ever(cache: Cache) -> None:
    """And nothing of it is given, or kept."""
    with (
        cache.open("key", lambda _: pieces(BODY, fail_at=2 * PIECE)) as stream,
        pytest.raises(FetchError, match="dead"),
    ):
        stream.read()
    with pytest.raises(FetchError, match="dead"):
        cache.get("key", lambda _: pieces(BODY, fail_at=2 * PIECE))
    assert "key" not in cache


def test_bytes_that_pass_through_a_window_are_read_as_they_come() -> None:
    """There is no staging to take them from; nor where the tier runs full in the middle."""
    with Cache(MemoryStore("1MiB", max_object_size="512KiB")) as cache:
        assert cache.get("unsized", lambda _: pieces(BODY)) == BODY
        assert cache.get("sized", lambda _: FetchResult(pieces(BODY), size=len(BODY))) == BODY
        assert "unsized" not in cache


def test_a_fill_that_stands_still_is_waited_for_no_longer_than_the_time_limit(cache: Cache) -> None:
    """It goes on, and is read when it is whole."""
    gate = Gate()

    def slow() -> Iterator[bytes]:
        yield BODY[:PIECE]
        gate.wait()
        yield BODY[PIECE:]

    with cache.open("key", lambda _: slow()), cache.open("key", lambda _: b"not asked", timeout=0.05) as stream:
        with pytest.raises(FetchError, match="timeout"):
            stream.read()
        gate.open()
        assert cache.get("key", lambda _: b"not asked") == BODY


def test_what_lost_a_race_is_still_given_whole_to_its_reader(cache: Cache) -> None:
    """A `set` in the meantime is what the key has; whoever read along gets what the origin sent, to its end."""
    gate = Gate()

    def slow() -> Iterator[bytes]:
        yield BODY[:PIECE]
        gate.wait()
        yield BODY[PIECE:]

    with cache.open("key", lambda _: slow()) as stream:
        seen: list[bytes] = []
        reader = threading.Thread(target=lambda: seen.append(stream.read()))
        reader.start()
        gate.wait_reached()
        cache.set("key", b"newer")
        gate.open()
        reader.join(30)
        assert seen == [BODY]
    assert cache.get("key") == b"newer"


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_staging_peeks_at_what_it_has_from_first_to_last(kind: str, tmp_path: Path) -> None:
    """While it grows, when its commit was refused, once it is committed; and not after an abort."""
    store: Any = MemoryStore("16MiB") if kind == "memory" else FileStore(tmp_path / "tier", capacity="64MiB")
    with store:
        for guard in (None, lambda: False):
            staging = store.stage("key", Metadata(size=None, stored_at=0.0))
            assert staging.peek_at(0, 10) == b""
            for piece in pieces(BODY):
                staging.write(piece)
            assert staging.peek_at(5, PIECE) == BODY[5 : 5 + PIECE]
            entry = staging.commit(guard=guard)
            assert staging.peek_at(5, len(BODY)) == BODY[5:]
            assert staging.peek_at(len(BODY), 1) == b""
            assert isinstance(staging, MemoryStaging) == (kind == "memory")
            if entry is None:
                staging.abort()
                with pytest.raises(Closed):
                    staging.peek_at(0, 1)
            else:
                entry.close()
