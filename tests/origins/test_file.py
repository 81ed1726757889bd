"""`FileOrigin`: objects that are files, and nothing outside of the folder."""

from __future__ import annotations

import os
import re

import pytest

from daramjwee.errors import ConfigError, FetchError, NotFound, NotModified
from daramjwee.fills.body import metadata_of, open_body
from daramjwee.model import FetchRequest, Metadata
from daramjwee.origins import FileOrigin, HttpOrigin, origin_for
from daramjwee.testing.leaks import no_leaks


@pytest.fixture
def folder(tmp_path):
    served = tmp_path / "served"
    (served / "sub").mkdir(parents=True)
    (served / "a.txt").write_bytes(b"alpha")
    (served / "sub" / "b c%20?#.txt").write_bytes(b"beta")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (tmp_path / "served-too").mkdir()
    (tmp_path / "served-too" / "x").write_bytes(b"secret")
    return served


def read_out(result, piece: int = 3) -> bytes:
    body = open_body(result.body)
    view = memoryview(bytearray(piece))
    data = b"".join(iter(lambda: bytes(body.pull(view)), b""))
    body.close()
    return data


def test_keys_are_paths_in_the_folder(folder):
    origin = FileOrigin(folder)
    result = origin(FetchRequest("a.txt"))
    assert result.size == 5 and result.last_modified.endswith("GMT")
    assert read_out(result) == b"alpha"
    assert read_out(origin(FetchRequest("sub/b c%20?#.txt"))) == b"beta"


def test_without_a_folder_keys_are_file_urls_or_absolute_paths(folder):
    origin = FileOrigin()
    assert read_out(origin(FetchRequest(str(folder / "a.txt")))) == b"alpha"
    assert read_out(origin(FetchRequest((folder / "sub" / "b c%20?#.txt").as_uri()))) == b"beta"
    assert read_out(origin(FetchRequest(f"file://localhost{folder}/a.txt"))) == b"alpha"


@pytest.mark.parametrize("key", ["a.txt", "file:a.txt", "file://elsewhere/x", "http://host/x"])
def test_without_a_folder_other_keys_are_refused_with_the_reason(key):
    with pytest.raises(FetchError, match=r"file:///|file://|this machine"):
        FileOrigin()(FetchRequest(key))


@pytest.mark.parametrize("key", ["missing", "a.txt/below", "sub/missing", "nul\0", "file-too-long-" * 30 + "x"])
def test_what_is_not_there_is_not_found(folder, key):
    """A name longer than the file system allows cannot be a file either."""
    with pytest.raises(NotFound, match=re.escape(repr(key)[:10])):
        FileOrigin(folder)(FetchRequest(key))


@pytest.mark.parametrize("key", ["../secret.txt", "sub/../../secret.txt", "..", "../served-too/x"])
def test_no_key_leads_out_of_the_folder(folder, key):
    with pytest.raises(NotFound, match="not below the folder"):
        FileOrigin(folder)(FetchRequest(key))
    with pytest.raises(NotFound, match="not below the folder"):
        FileOrigin(folder)(FetchRequest(str(folder.parent / "secret.txt")))


def test_links_are_followed_inside_the_folder_and_not_out_of_it(folder):
    (folder / "inside").symlink_to("sub/b c%20?#.txt")
    (folder / "out").symlink_to("../secret.txt")
    (folder / "sub" / "folder-out").symlink_to(folder.parent / "served-too")
    (folder / "loop").symlink_to("loop")
    origin = FileOrigin(folder)
    assert read_out(origin(FetchRequest("inside"))) == b"beta"
    for key in ("out", "sub/folder-out/x"):
        with pytest.raises(NotFound, match="leads out of the folder"):
            origin(FetchRequest(key))
    with pytest.raises((NotFound, FetchError)):
        origin(FetchRequest("loop"))


def test_a_link_put_in_after_the_check_is_not_followed(folder, monkeypatch):
    """The path is walked without following links, so a race between check and open cannot lead out."""
    real = os.path.realpath

    def resolve_then_swap(path, *args, **kwargs):
        resolved = real(path, *args, **kwargs)
        if str(path).endswith("sub/x"):
            (folder / "sub").rename(folder / "old")
            (folder / "sub").symlink_to(folder.parent / "served-too")
        return resolved

    origin = FileOrigin(folder)
    (folder / "sub" / "x").write_bytes(b"public")
    monkeypatch.setattr(os.path, "realpath", resolve_then_swap)
    with pytest.raises((NotFound, FetchError)):
        origin(FetchRequest("sub/x"))


@pytest.mark.parametrize("key", ["sub", ".", "sub/"])
def test_a_folder_is_no_object(folder, key):
    with pytest.raises(FetchError, match="is a folder"):
        FileOrigin(folder)(FetchRequest(key))


def test_a_pipe_is_refused_without_waiting_for_its_writer(folder):
    os.mkfifo(folder / "pipe")
    with pytest.raises(FetchError, match="no regular file"):
        FileOrigin(folder)(FetchRequest("pipe"))


def test_an_unchanged_file_is_not_modified(folder):
    origin = FileOrigin(folder)
    result = origin(FetchRequest("a.txt"))
    metadata = metadata_of(result, now=1.0)
    result.body.close()
    assert metadata.strong_validator == metadata.etag
    with pytest.raises(NotModified):
        origin(FetchRequest("a.txt", previous=metadata))
    (folder / "a.txt").write_bytes(b"ALPHA")
    os.utime(folder / "a.txt", ns=(1, 1))
    assert read_out(origin(FetchRequest("a.txt", previous=metadata))) == b"ALPHA"
    assert read_out(origin(FetchRequest("a.txt", previous=Metadata(etag='"other"')))) == b"ALPHA"


def test_a_fetch_goes_on_at_an_offset_while_the_file_is_the_same(folder):
    origin = FileOrigin(folder)
    whole = origin(FetchRequest("a.txt"))
    whole.body.close()
    rest = origin(FetchRequest("a.txt", offset=2, validator=whole.etag))
    assert rest.size == 3
    assert read_out(rest) == b"pha"
    with pytest.raises(FetchError, match="cannot be continued at 2"):
        origin(FetchRequest("a.txt", offset=2, validator='"other"'))
    with pytest.raises(FetchError, match="cannot be continued at 2"):
        origin(FetchRequest("a.txt", offset=2))


def test_a_file_that_changes_while_it_is_read_ends_in_an_error(folder):
    """Half old and half new bytes must not be published as the old file."""
    body = open_body(FileOrigin(folder)(FetchRequest("a.txt")).body)
    view = memoryview(bytearray(2))
    assert bytes(body.pull(view)) == b"al"
    with (folder / "a.txt").open("r+b") as file:
        file.write(b"OMEGA")
        file.flush()
        os.utime(file.fileno(), ns=(5, 5))
    with pytest.raises(FetchError, match="was changed while it was read"):
        for _ in range(5):
            body.pull(view)
    body.close()


@pytest.mark.parametrize("folder", ["/no/such/folder", __file__, 5, "nul\0", "", b"/"])
def test_a_folder_that_is_none_is_refused(folder):
    with pytest.raises(ConfigError, match="folder"):
        FileOrigin(folder)


def test_nothing_is_left_open(folder):
    origin = FileOrigin(folder)
    with no_leaks(descriptors=True):
        read_out(origin(FetchRequest("a.txt")))
        for key in ("missing", "sub", "../x", "sub/missing"):
            with pytest.raises((NotFound, FetchError)):
                origin(FetchRequest(key))
        with pytest.raises(FetchError):
            origin(FetchRequest("a.txt", offset=1))


def test_the_scheme_of_a_url_chooses_its_origin():
    assert isinstance(origin_for("file:///x"), FileOrigin)
    origin = origin_for("HTTPS://host/x")
    assert isinstance(origin, HttpOrigin)
    origin.close()
    for url in ("s3://bucket/key?secret=HIDDEN", "/path", "name", ""):
        with pytest.raises(ConfigError, match="give an http, https or file URL") as caught:
            origin_for(url)
        assert "HIDDEN" not in str(caught.value)
