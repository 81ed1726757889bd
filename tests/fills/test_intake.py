"""The intake of a flight: what its origin sends is held against what it announced, and memory is borrowed and given back."""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig, MemoryLedger
from daramjwee.errors import FetchError, NotFound
from daramjwee.fills.body import open_body
from daramjwee.fills.intake import Fill, Intake
from daramjwee.fills.window import PIECE_BYTES
from daramjwee.model import Metadata


class Source(io.RawIOBase):
    """Fills what it is given with zeros, `left` bytes in all, and notes what it was given."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.asked: list[int] = []

    def readable(self) -> bool:
        return True

    def readinto(self, view: Any, /) -> int:
        self.asked.append(len(view))
        count = min(len(view), self.left)
        self.left -= count
        return count


@pytest.fixture
def pool() -> Iterator[AdaptiveBufferPool]:
    with AdaptiveBufferPool(BufferPoolConfig(), ledger=MemoryLedger("16MiB")) as pool:
        yield pool
        assert pool.stats().active_buffers == 0
        assert not pool._chunks.suspects


def begin(pool: AdaptiveBufferPool, body: Any, *, size: int | None = None, digest: str | None = None) -> Intake:
    """An intake that has asked, and expects what was announced."""
    metadata = Metadata(size=size, digest=digest)
    intake = Intake("key", pool)
    fill = intake.ask(lambda: Fill(open_body(body), metadata, None))
    assert fill.metadata is metadata
    intake.expect(metadata)
    return intake


def take(intake: Intake) -> bytes:
    """Pull to the end, check the whole, and close."""
    pieces: list[bytes] = []
    try:
        while piece := intake.pull(sum(map(len, pieces)), short=False):
            pieces.append(bytes(piece))
        intake.check_whole(sum(map(len, pieces)))
    finally:
        intake.close()
    assert intake.pulls == len(pieces) + 1
    return b"".join(pieces)


@pytest.mark.parametrize("size", [None, 6])
@pytest.mark.parametrize("pieces", [[b"abcdef"], [b"abc", b"def"]])
def test_a_body_that_is_as_announced_comes_whole(
    pool: AdaptiveBufferPool, pieces: list[bytes], size: int | None
) -> None:
    """With its digest in either case of letters."""
    digest = f"sha256:{hashlib.sha256(b'abcdef').hexdigest().upper()}"
    assert take(begin(pool, iter(pieces), size=size, digest=digest)) == b"abcdef"


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (5, "the origin sent more than the 5 bytes it announced for 'key'; nothing was kept"),
        (7, "the origin ended after 6 of the 7 bytes it announced for 'key'; nothing was kept, fetch it again"),
    ],
)
def test_another_size_than_announced_is_an_error(pool: AdaptiveBufferPool, size: int, said: str) -> None:
    """By a single byte, whichever piece it comes with."""
    with pytest.raises(FetchError, match=f"^{re.escape(said)}$"):
        take(begin(pool, iter([b"abc", b"def"]), size=size))


def test_other_bytes_than_announced_are_an_error(pool: AdaptiveBufferPool) -> None:
    """That names both digests."""
    wanted, seen = hashlib.sha256(b"abcdeF").hexdigest(), hashlib.sha256(b"abcdef").hexdigest()
    said = f"'key' has sha256 {seen}, but {wanted} was announced; nothing was kept"
    with pytest.raises(FetchError, match=f"^{re.escape(said)}$"):
        take(begin(pool, iter([b"abc", b"def"]), digest=f"sha256:{wanted}"))


def test_a_source_that_fails_is_told_with_how_far_it_came(pool: AdaptiveBufferPool) -> None:
    """Foreign errors are wrapped, ours come as they are."""

    def failing(error: Exception) -> Iterator[bytes]:
        yield b"abc"
        raise error

    said = "the origin failed while sending 'key', after 3 bytes: OSError: gone; nothing was kept, fetch it again"
    with pytest.raises(FetchError, match=f"^{re.escape(said)}$") as caught:
        take(begin(pool, failing(OSError("gone"))))
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(NotFound, match=r"^none$"):
        take(begin(pool, failing(NotFound("none"))))


def test_the_thread_in_the_code_of_an_origin_is_known(pool: AdaptiveBufferPool) -> None:
    """While it is asked and while it is pulled from, also when that fails; at no other time."""
    me = threading.get_ident()
    intake = Intake("key", pool)
    seen: list[int | None] = []

    def body() -> Iterator[bytes]:
        seen.append(intake.asking)
        yield b"abc"
        raise OSError("gone")

    def fetch() -> Fill:
        seen.append(intake.asking)
        return Fill(open_body(body()), Metadata(), None)

    assert intake.asking is None
    intake.expect(intake.ask(fetch).metadata)
    assert intake.asking is None
    intake.pull(0, short=False)
    assert intake.asking is None
    with pytest.raises(FetchError):
        intake.pull(3, short=False)
    assert intake.asking is None
    assert seen == [me, me]
    intake.close()


@pytest.mark.parametrize(
    ("size", "asked"), [(None, PIECE_BYTES), (0, 1), (10, 10), (PIECE_BYTES, PIECE_BYTES), (1 << 40, PIECE_BYTES)]
)
def test_the_memory_for_pieces_is_as_large_as_they_can_be(
    pool: AdaptiveBufferPool, size: int | None, asked: int
) -> None:
    """One byte at least, in which the end is seen; and never more than a piece."""
    source = Source(0)
    intake = begin(pool, source, size=size)
    assert pool.stats().active_buffers == 1
    assert len(intake.pull(0, short=False)) == 0
    assert source.asked == [asked]
    intake.close()


def test_memory_that_was_borrowed_before_is_what_pieces_pass_through(pool: AdaptiveBufferPool) -> None:
    """Whoever stages borrows first. Through no gate: it is held for as long as the origin takes."""
    intake = Intake("key", pool)
    intake.borrow(1 << 40)
    fill = intake.ask(lambda: Fill(open_body(Source(0)), Metadata(), None))
    intake.expect(fill.metadata)
    assert pool.stats().active_buffers == 1
    assert pool.gate.stats().entered == 0
    intake.close()


def test_a_piece_that_is_read_from_the_lease_outlives_the_pull_that_sees_the_end(pool: AdaptiveBufferPool) -> None:
    """That one is given memory of its own, of one byte."""
    source = Source(10)
    intake = begin(pool, source, size=10)
    intake.pull(0, short=False)
    assert len(intake.pull(10, short=True)) == 0
    assert source.asked == [10, 1]
    intake.close()


def test_memory_goes_back_once_and_the_body_is_closed_with_it(pool: AdaptiveBufferPool) -> None:
    """In whatever order it ends; a piece in the lease is let go first, or the chunk would be in quarantine."""
    source = Source(10)
    intake = begin(pool, source)
    assert len(intake.pull(0, short=False)) == 10
    intake.return_lease()
    assert pool.stats().active_buffers == 0
    assert not pool._chunks.suspects
    assert not source.closed
    intake.return_lease()
    intake.close()
    intake.close()
    assert source.closed


def test_a_body_whose_memory_was_refused_is_closed(pool: AdaptiveBufferPool) -> None:
    """It is the intake's from the moment at which the origin gave it."""
    source = Source(10)
    intake = Intake("key", pool)
    intake.ask(lambda: Fill(open_body(source), Metadata(digest="none:00"), None))
    with pytest.raises(ValueError, match="none"):
        intake.expect(Metadata(digest="none:00"))
    intake.close()
    assert source.closed
