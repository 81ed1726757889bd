"""What only the machine can tell of a configuration: folders, files of secrets, extras, memory.

Invariant: it looks and changes nothing; no secret that is looked at is shown.
Threads: one.
Design: docs/cli.md
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from daramjwee.config.model import FileOriginConfig, FileTier, GivenOrigin, GivenTier, HttpOriginConfig
from daramjwee.config.secret import Secret
from daramjwee.observe.doctor import Case, Check, State, examine
from daramjwee.origins import redact_url

if TYPE_CHECKING:
    from daramjwee.config.model import CacheConfig

MEMORY_CHECKS = ("container_memory", "machine_memory", "address_space")
# Of those that try nothing.
FOLDER_CHECKS = ("folder", "folder_private", "folder_times", "folder_space", "folder_inodes", "folder_filesystem")
# What a check of a folder is about, where that is not the folder itself.
FIELDS = {"folder_space": "free_space_floor", "folder_inodes": "max_entries"}


class Seen(NamedTuple):
    """An answer, and the field of the configuration that it is about."""

    field: str
    check: Check


def look(config: CacheConfig) -> tuple[Seen, ...]:
    """What this machine says of `config`, in the order of its fields."""
    return (*_tiers(config), *_origin(config), *_memory(config))


def _memory(config: CacheConfig) -> Iterator[Seen]:
    for check in examine(Case(memory_limit=config.memory_limit), only=MEMORY_CHECKS):
        yield Seen("memory_limit", check)


def _tiers(config: CacheConfig) -> Iterator[Seen]:
    for index, tier in enumerate(config.tiers):
        name = f"tiers[{index}]"
        if isinstance(tier, FileTier):
            case = Case(folder=os.path.abspath(tier.folder), free_space_floor=tier.free_space_floor)
            for check in examine(case, only=FOLDER_CHECKS):
                yield Seen(f"{name}.{FIELDS.get(check.name, 'folder')}", _for_a_check(check))
            if os.path.isdir(tier.folder) and not os.access(tier.folder, os.R_OK | os.W_OK | os.X_OK):
                seen = f"{tier.folder} may not be read and written by this user"
                remedy = "let the user who runs the cache write to it (chown, chmod u+rwx)"
                yield Seen(f"{name}.folder", Check("folder_writable", State.PROBLEM, seen, remedy))
        elif isinstance(tier, GivenTier):
            yield Seen(name, _given(f"the store {tier.name}"))


def _for_a_check(check: Check) -> Check:
    """An answer of the doctor where nothing was tried out, and a folder that will be made is as good as one that is."""
    if check.name == "folder" and check.state is State.NOTE:
        return Check("folder", State.OK, check.seen)
    tries = "try it: daramjwee doctor FOLDER"
    remedy = check.remedy.replace("see folder_operations, which was tried", tries).replace(
        "see folder_operations", tries
    )
    return Check(check.name, check.state, check.seen, remedy)


def _given(what: str) -> Check:
    return Check(
        "given", State.NOTE, f"{what} is one that a program made", "nothing has to be done; nobody else has it"
    )


def _origin(config: CacheConfig) -> Iterator[Seen]:
    origin = config.origin
    if isinstance(origin, FileOriginConfig):
        yield from _origin_folder(origin.folder)
    elif isinstance(origin, GivenOrigin):
        yield Seen("origin", _given(f"the origin {origin.name}"))
    elif isinstance(origin, HttpOriginConfig):
        if importlib.util.find_spec("urllib3") is None:
            seen = f"{redact_url(origin.base) or 'an http origin'} needs the extra http, which is not installed"
            yield Seen("origin", Check("http_extra", State.PROBLEM, seen, 'pip install "daramjwee[http]"'))
        if isinstance(origin.verify, str) and not os.path.exists(origin.verify):
            seen, remedy = f"there is no {origin.verify}", "name the file of certificates to trust, or give true"
            yield Seen("origin.verify", Check("certificates", State.PROBLEM, seen, remedy))
        for name, value in origin.headers.items():
            if isinstance(value, Secret):
                yield Seen(f"origin.headers.{name}", _secret(value))


def _origin_folder(folder: str) -> Iterator[Seen]:
    if not os.path.isdir(folder):
        seen, remedy = f"{folder} is no folder", "make it first, or name another"
        yield Seen("origin.folder", Check("origin_folder", State.PROBLEM, seen, remedy))
    elif not os.access(folder, os.R_OK | os.X_OK):
        seen, remedy = (
            f"{folder} may not be read by this user",
            "let the user who runs the cache read it (chmod, chown)",
        )
        yield Seen("origin.folder", Check("origin_folder", State.PROBLEM, seen, remedy))


def _secret(secret: Secret) -> Check:
    """Whether there is one. What it is, is nobody's business here."""
    problem = secret.missing()
    where = secret.env or secret.file
    if problem is None:
        return Check("secret", State.OK, f"{where} has a value")
    seen, _, remedy = problem.mend.partition("; ")
    return Check("secret", State.PROBLEM, f"{where} {seen}", remedy or "put the secret there, for this user to read")
