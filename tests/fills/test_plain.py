"""Looking for the plain file of a stream: the same object or an error, kept until it is closed."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from daramjwee.buffers import BufferPool
from daramjwee.fills.plain import MOST_LOOKS, PlainFile
from daramjwee.fills.stream import CacheStream
from daramjwee.model import Metadata, Status
from daramjwee.stores.protocol import Entry

KNOWN = Metadata(size=3, stored_at=7.0, etag='"a"')


class File:
    """An entry with a path, unless its file is gone."""

    def __init__(self, metadata: Metadata = KNOWN, *, gone: bool = False) -> None:
        self.metadata = metadata
        self.size = metadata.size or 0
        self.closed = 0
        self._gone = gone

    @property
    def path(self) -> str:
        if self._gone:
            raise io.UnsupportedOperation("it is gone")
        return "/a/b"

    def readinto_at(self, offset: int, view: memoryview, /) -> int:
        return 0

    def close(self) -> None:
        self.closed += 1


def giving(*files: File) -> Callable[[str], Entry | None]:
    """Gives each once, and then none."""
    left = list(files)

    def locate(key: str) -> Entry | None:
        assert key == "key"
        return left.pop(0) if left else None

    return locate


def test_what_was_found_is_kept_and_found_again() -> None:
    """Whoever has its path may ask once more; it is closed with the stream, and not before."""
    file = File()
    plain = PlainFile(giving(file), "key")
    assert plain.find(KNOWN) is file
    assert plain.find(KNOWN) is file
    assert file.closed == 0
    plain.close()
    assert file.closed == 1


def test_where_no_tier_has_plain_files_there_is_none() -> None:
    """And nothing to close; one that comes later is found."""
    plain = PlainFile(giving(), "key")
    assert plain.find(KNOWN) is None
    plain.close()


@pytest.mark.parametrize(
    ("metadata", "same"),
    [
        (Metadata(size=3, stored_at=7.0), True),
        (Metadata(size=3, stored_at=8.0, etag='"a"'), True),
        (Metadata(size=3, stored_at=8.0, etag='"b"'), False),
        (Metadata(size=3, stored_at=8.0), False),
        (Metadata(size=4, stored_at=7.0), False),
        (Metadata(size=4, stored_at=8.0, etag='"a"'), False),
    ],
)
def test_another_object_is_refused(metadata: Metadata, *, same: bool) -> None:
    """One that was stored at the same moment, or has the same strong validator, and the same size is the same."""
    file = File(metadata)
    plain = PlainFile(giving(file), "key")
    if same:
        assert plain.find(KNOWN) is file
    else:
        with pytest.raises(io.UnsupportedOperation, match="'key' was replaced since it was opened: open it again"):
            plain.find(KNOWN)
    plain.close()
    assert file.closed == 1


@pytest.mark.parametrize("gone", range(MOST_LOOKS))
def test_a_file_whose_place_was_taken_is_looked_for_again(gone: int) -> None:
    """The one that took it is the object, too."""
    lost, file = [File(gone=True) for _ in range(gone)], File()
    plain = PlainFile(giving(*lost, file), "key")
    assert plain.find(KNOWN) is file
    assert [each.closed for each in lost] == [1] * gone
    plain.close()


def test_it_is_not_looked_for_for_ever() -> None:
    """The last error is told; nothing stays open."""
    lost = [File(gone=True) for _ in range(MOST_LOOKS)]
    plain = PlainFile(giving(*lost, File()), "key")
    with pytest.raises(io.UnsupportedOperation, match="it is gone"):
        plain.find(KNOWN)
    plain.close()
    assert [each.closed for each in lost] == [1] * MOST_LOOKS


class Bare:
    """An entry of a tier that keeps no plain files."""

    size = 3

    def readinto_at(self, offset: int, view: memoryview, /) -> int:
        return 0

    def close(self) -> None:
        pass


class Owner:
    pool: BufferPool

    def __init__(self, *files: File) -> None:
        self.locate = giving(*files)

    def mend(self, *_: object) -> None:
        raise AssertionError("no tier failed")


def test_a_stream_keeps_the_file_that_it_named_until_it_is_closed() -> None:
    """However often it names it."""
    file = File()
    with CacheStream(Bare(), "key", Status.HIT, KNOWN, Owner(file)) as stream:
        assert [stream.path(), stream.path()] == ["/a/b", "/a/b"]
        assert file.closed == 0
    assert file.closed == 1
