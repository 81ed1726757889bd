"""Names in the folder of a file tier. Pure: text in, text out.

Invariant: a name depends on the key by its SHA-256 only, so no key can name anything outside the folder.
Threads: any.
Design: docs/design/file-format.md
"""

from __future__ import annotations

import os
import re

FORMAT_VERSION = 1
MARKER_NAME = "DARAMJWEE"
MARKER_TEXT = f"daramjwee file tier\nformat {FORMAT_VERSION}\n"
OBJECTS = "objects"
STAGING = "staging"

_META = re.compile(r"([0-9a-f]{64})\.([0-9]{20})\.meta")
_BODY = re.compile(r"([0-9a-f]{64})\.([0-9a-f]+-[0-9a-f]{12})-[0-9a-f]+\.body")
_OWNER_LOCK = re.compile(r"([0-9a-f]+-[0-9a-f]{12})\.lock")
_MARKER = re.compile(r"daramjwee file tier\nformat ([0-9]+)\n")


def key_hash(key: str) -> str:
    """64 hex digits that stand for the key in file names."""
    import hashlib

    return hashlib.sha256(key.encode("utf-8")).hexdigest()


def new_owner() -> str:
    """A name for this process in this folder, never used before nor again."""
    return f"{os.getpid():x}-{os.urandom(6).hex()}"


def meta_name(digest: str, generation: int) -> str:
    """Path of a metadata file below `objects/`."""
    return f"{digest[:2]}/{digest}.{generation:020d}.meta"


def body_name(digest: str, owner: str, fill: int) -> str:
    """Path of a body below `objects/`."""
    return f"{digest[:2]}/{digest}.{owner}-{fill:x}.body"


def metadata_first(path: str) -> bool:
    """Sorts files into the order in which they are removed: a crash must not leave metadata without its body."""
    return not path.endswith(".meta")


def parse_meta_name(name: str) -> tuple[str, int] | None:
    """(digest, generation) of a metadata file's last part, None for any other name."""
    match = _META.fullmatch(name)
    return None if match is None else (match[1], int(match[2]))


def parse_body_name(name: str) -> tuple[str, str] | None:
    """(digest, owner) of a body's last part, None for any other name."""
    match = _BODY.fullmatch(name)
    return None if match is None else (match[1], match[2])


def parse_owner_lock(name: str) -> str | None:
    """The owner whose lock file this is, None for any other name."""
    match = _OWNER_LOCK.fullmatch(name)
    return None if match is None else match[1]


def parse_marker(text: str) -> int | None:
    """The format version a marker states, None when it is no marker of ours."""
    match = _MARKER.fullmatch(text)
    return None if match is None else int(match[1])
