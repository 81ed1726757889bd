"""The trees that are compared: this checkout as it is now, and an older revision of it, both copied to a temporary folder.

Invariant: the checkout is only read, so it may have changes that are not committed, and may be edited meanwhile. Both
copies lie at paths of the same length: a process's speed depends on such things, too.
Threads: any.
Design: docs/design/bench.md
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from daramjwee.errors import ConfigError, Problem

PACKAGE = os.path.join("src", "daramjwee")
SUBJECT = "regress"
GIT_SECONDS = 120.0
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")


def checkout(start: str | os.PathLike[str] | None = None) -> Path:
    """The checkout around `start` (the working directory), else the one that this package was imported from."""
    import daramjwee

    given = Path.cwd() if start is None else Path(start).resolve()
    imported = Path(next(iter(daramjwee.__path__))).resolve()
    for folder in (given, *given.parents, imported.parent.parent):
        if (folder / PACKAGE / "__init__.py").is_file():
            return folder
    mend = f"no folder above it has {PACKAGE}/__init__.py, and daramjwee is not imported from a checkout; run it in one"
    raise ConfigError([Problem("the working directory", str(given), mend)], subject=SUBJECT)


def copy_now(root: Path, target: Path) -> Path:
    """The package as it lies in the checkout, copied below `target`; the folder to import from."""
    shutil.copytree(root / PACKAGE, target / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    return target / "src"


def copy_revision(root: Path, revision: str, target: Path) -> Path:
    """The package as it was at `revision`, copied below `target`; the folder to import from."""
    commit = commit_of(root, revision)
    packed = _git(root, revision, "archive", "--format=tar", commit, PACKAGE)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(target, filter="data")
        else:  # before Python 3.11.4; it comes from our own repository
            archive.extractall(target)  # noqa: S202 - what git made of our own tree; this Python has no filter
    return target / "src"


def commit_of(root: Path, revision: str) -> str:
    """The commit that `revision` names, with the package in it."""
    if revision.startswith("-"):
        raise _refused(revision, "is an option of git, not a revision; name a commit, a tag or a branch")
    found = _git(root, revision, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", may_fail=True)
    commit = found.decode().strip()
    if not commit:
        mend = f"is no commit of the repository at {root}; name a commit, a tag or a branch (`git log` shows them)"
        raise _refused(revision, mend)
    if not _git(root, revision, "ls-tree", commit, f"{PACKAGE}/__init__.py"):
        raise _refused(revision, f"has no {PACKAGE}/__init__.py; name a revision from after it was added")
    return commit


def _git(root: Path, revision: str, *arguments: str, may_fail: bool = False) -> bytes:
    # A hook of another repository that runs us has told where that one is.
    kept = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],  # noqa: S607 - the git of whoever runs this
            capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=GIT_SECONDS,
            env=kept | {"LC_ALL": "C"},  # its words are read below
        )  # fmt: skip
    except FileNotFoundError:
        raise _refused(revision, "older code is read with git, which is not installed; install it") from None
    words = done.stderr.decode(errors="replace").strip()
    if done.returncode and (words or not may_fail):
        if "not a git repository" in words:
            words = f"{root} is no git repository; run it in a clone, or compare with a file: --baseline FILE"
        raise _refused(revision, words or f"git {arguments[0]} ended with status {done.returncode}")
    return done.stdout


def _refused(revision: str, mend: str) -> ConfigError:
    return ConfigError([Problem("--against", revision, mend)], subject=SUBJECT)
