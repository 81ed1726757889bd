"""A reader of the file tier's folder as release 0.1.0 wrote it: format 1, record version 1.

Written from docs/design/file-format.md as it was then, with nothing of the library, and not to follow it: what this reader
cannot read, that release cannot either.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
from typing import NamedTuple

import msgspec
from crc32c import crc32c

MARKER = "daramjwee file tier\nformat 1\n"
META = re.compile(r"([0-9a-f]{64})\.([0-9]{20})\.meta")
BODY = re.compile(r"([0-9a-f]{64})\.([0-9a-f]+-[0-9a-f]{12})-[0-9a-f]+\.body")
FIELDS = {
    "key": str,
    "metadata": dict,
    "size": int,
    "block_size": int,
    "checksums": bytes,
    "generation": int,
    "body": str,
}


class Refused(Exception):
    """That release refuses the folder, or does not use the record; the text says why."""


class Unknown(Refused):
    """A later version: neither used nor removed."""


class Entry(NamedTuple):
    """One object as it is on disk."""

    data: bytes
    metadata: dict
    generation: int


def read_folder(folder):
    """Every entry of the folder, by key. `Refused` where the folder is, or a record that counts."""
    with open(os.path.join(folder, "DARAMJWEE"), encoding="utf-8") as file:
        text = file.read()
    if text != MARKER:
        raise Refused(f"marker {text!r}")
    newest = {}
    objects = os.path.join(folder, "objects")
    for shard in os.listdir(objects):
        for name in os.listdir(os.path.join(objects, shard)):
            match = META.fullmatch(name)
            if match and shard == name[:2] and name > newest.get(match[1], ""):
                newest[match[1]] = name
    entries = {}
    for name in newest.values():
        key, entry = read_entry(os.path.join(objects, name[:2]), name)
        entries[key] = entry
    return entries


def read_entry(shard, name):
    """(key, entry) of a metadata file."""
    with open(os.path.join(shard, name), "rb") as file:
        record = decode(file.read())
    digest, generation = META.fullmatch(name).groups()
    if hashlib.sha256(record["key"].encode()).hexdigest() != digest or record["generation"] != int(generation):
        raise Refused("belongs under another name")
    body = BODY.fullmatch(record["body"])
    if body is None or body[1] != digest:
        raise Refused("names a body of another key")
    with open(os.path.join(shard, record["body"]), "rb") as file:
        data = file.read()
    if not len(data) == record["size"] == record["metadata"].get("size"):
        raise Refused("sizes differ")
    block = record["block_size"]
    sums = b"".join(struct.pack("<I", crc32c(data[at : at + block])) for at in range(0, len(data), block))
    if sums != record["checksums"]:
        raise Refused("checksums differ")
    return record["key"], Entry(data, record["metadata"], record["generation"])


def decode(data):
    """The map in a metadata file, byte for byte as the page says."""
    if len(data) < 16 or data[:4] != b"DJME":
        raise Refused("no record")
    version, zero, length, checksum = struct.unpack_from("<HHII", data, 4)
    if version > 1:
        raise Unknown(f"record version {version}")
    payload = data[16:]
    if zero or length != len(payload) or checksum != crc32c(payload, crc32c(data[:12])):
        raise Refused("head or checksum")
    record = msgspec.msgpack.decode(payload)
    for field, kind in FIELDS.items():
        if type(record.get(field)) is not kind:
            raise Refused(f"field {field}")
    if record["block_size"] != 262144:
        raise Refused("block size")
    return record


def strange_names(folder, *, modes=True):
    """What is in the folder and not on the page; with `modes`, what others than its owner may read."""
    strange = []
    for path, folders, files in os.walk(folder):
        below = os.path.relpath(path, folder)
        for name in (*folders, *files):
            full = os.path.join(path, name)
            mode = stat.S_IMODE(os.lstat(full).st_mode)
            private = mode == (0o700 if name in folders else 0o600)
            if (modes and not private) or not _known(below, name):
                strange.append((os.path.join(below, name), oct(mode)))
    return strange


def _known(below, name):
    parts = below.split(os.sep)
    if below == ".":
        return name in {"DARAMJWEE", "objects", "staging"}
    if below == "objects":
        return re.fullmatch("[0-9a-f]{2}", name)
    if below == "staging":
        return re.fullmatch(r"[0-9a-f]+-[0-9a-f]{12}(\.lock)?", name)
    if parts[0] == "objects":
        return (META.fullmatch(name) or BODY.fullmatch(name)) and name[:2] == parts[1]
    return re.fullmatch(r"[0-9a-f]+\.(body|meta)", name)
