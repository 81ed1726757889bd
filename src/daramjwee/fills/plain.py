"""Plain files: the object of a stream in a tier that keeps plain files, where its own source has none.

Invariant: what is found is the object that the stream has, or an error; it is kept until `close`.
Threads: as the stream.
Design: docs/design/fills.md
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from daramjwee.errors import shorten

if TYPE_CHECKING:
    from collections.abc import Callable

    from daramjwee.model import Metadata
    from daramjwee.stores.protocol import Entry

# A plain file that a copy of itself replaces meanwhile, such as a fill makes, is looked for again; so often at most.
MOST_LOOKS = 3


class PlainFile:
    """The entry of one key that is a plain file; `locate` opens it, or says that there is none."""

    __slots__ = ("_entry", "_key", "_locate")

    def __init__(self, locate: Callable[[str], Entry | None], key: str) -> None:
        self._locate = locate
        self._key = key
        self._entry: Entry | None = None

    def find(self, known: Metadata) -> Entry | None:
        """The entry, open; None where no tier has one. `io.UnsupportedOperation` when it is not what `known` describes."""
        for left in reversed(range(MOST_LOOKS)):
            if self._entry is None:
                self._entry = self._locate(self._key)
            entry = self._entry
            if entry is None:
                return None
            if not _same_object(entry.metadata, known):
                raise io.UnsupportedOperation(f"{shorten(self._key)} was replaced since it was opened: open it again")
            try:
                getattr(entry, "path", None)  # from here on the file is kept
            except io.UnsupportedOperation:
                if not left:
                    raise
                # The copy that is made after each fill came in between, and took the place of the one that we found.
                self._entry = None
                entry.close()
            else:
                break
        return self._entry

    def close(self) -> None:
        if self._entry is not None:
            self._entry.close()


def _same_object(one: Metadata, other: Metadata) -> bool:
    validator = one.strong_validator
    same = one.stored_at == other.stored_at or (validator is not None and validator == other.strong_validator)
    return same and one.size == other.size
