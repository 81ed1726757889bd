"""The file tier: each body a plain file in a private folder, found again by the next process.

Invariant: what `layout` and `format` say is all there is on disk; the commit point is the creation of a metadata file.
Threads: see `store`.
Design: docs/design/stores.md, docs/design/file-format.md
"""

from __future__ import annotations

from daramjwee.stores.file.store import FileStore

__all__ = ["FileStore"]
