"""The metadata file of an entry: encoded and checked. Pure: bytes in, values out.

Invariant: `decode` accepts only what `encode` wrote for that very file name, bit for bit.
Threads: any.
Design: docs/design/file-format.md
"""

from __future__ import annotations

import struct

import msgspec

from daramjwee.model import Metadata
from daramjwee.stores.file import layout
from daramjwee.units import counted

MAGIC = b"DJME"
RECORD_VERSION = 1
# One checksum for so many bytes: less costs more calls than it saves, more makes a range read pay for its block
# (the whole file under one checksum read 0.23 x as fast as unchecked, one per 256 KiB 0.58 x).
BLOCK_BYTES = 256 * 1024

_HEAD = struct.Struct("<4sHHI")  # magic, version, zero, payload length; then the CRC-32C of head and payload
_CRC = struct.Struct("<I")
PAYLOAD_AT = _HEAD.size + _CRC.size


class MetaRecord(msgspec.Struct, frozen=True):
    """What the file says. `checksums`: CRC-32C of each block of the body, 4 bytes each, little-endian."""

    key: str
    metadata: Metadata
    size: int
    block_size: int
    checksums: bytes
    generation: int
    body: str


class BadRecord(Exception):
    """The file is not a whole metadata record of the version we know; the text says why."""


class UnknownVersion(BadRecord):
    """A record of a later version: not ours to judge, nor to remove."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(MetaRecord)


def encode(record: MetaRecord) -> bytes:
    """The bytes of the metadata file."""
    from crc32c import crc32c

    payload = _encoder.encode(record)
    head = _HEAD.pack(MAGIC, RECORD_VERSION, 0, len(payload))
    return head + _CRC.pack(crc32c(payload, crc32c(head))) + payload


def length_of(head: bytes) -> int:
    """How long the file is that begins with `head`, as it says itself; 0 when it is none of ours."""
    return PAYLOAD_AT + int(_HEAD.unpack_from(head)[3]) if len(head) >= PAYLOAD_AT and head[:4] == MAGIC else 0


def decode(data: bytes, name: str) -> MetaRecord:
    """The record in the file called `name` (its last part). `BadRecord` when anything does not fit."""
    from crc32c import crc32c

    if len(data) < PAYLOAD_AT:
        raise BadRecord(f"has {counted(len(data), 'byte')}, fewer than its head")
    magic, version, zero, length = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise BadRecord("does not begin as a metadata record")
    if version > RECORD_VERSION:
        raise UnknownVersion(f"is a record of version {version}, this release knows {RECORD_VERSION}")
    payload = data[PAYLOAD_AT:]
    (checksum,) = _CRC.unpack_from(data, _HEAD.size)
    if zero or length != len(payload) or checksum != crc32c(payload, crc32c(data[: _HEAD.size])):
        raise BadRecord("does not match its checksum")
    try:
        record = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"cannot be read: {error}") from error
    _check(record, name)
    return record


def _check(record: MetaRecord, name: str) -> None:
    digest = layout.key_hash(record.key)
    if layout.parse_meta_name(name) != (digest, record.generation):
        raise BadRecord("belongs under another name")
    body = layout.parse_body_name(record.body)
    if body is None or body[0] != digest:
        raise BadRecord("names a body of another key")
    if record.block_size < 1 or record.size < 0 or record.metadata.size != record.size:
        raise BadRecord("has sizes that contradict each other")
    if len(record.checksums) != 4 * -(-record.size // record.block_size):
        raise BadRecord("has not one checksum for each block")
