"""Small files replaced as a whole: a magic, a format version, a length and a checksum before the content."""

import struct
from pathlib import Path
from typing import Final

from kvstore.checksum import crc32c
from kvstore.errors import CorruptionError, FormatVersionError

_HEADER = struct.Struct("<8sHHII")  # magic, format version, flags (0), content length, crc of all else
_UNCHECKED = struct.Struct("<8sHHI")
HEADER_BYTES: Final = _HEADER.size
FORMAT_VERSION: Final = 1


def seal(magic: bytes, content: bytes) -> bytes:
    """A file's bytes; `magic` has 8."""
    head = _UNCHECKED.pack(magic, FORMAT_VERSION, 0, len(content))
    return head + struct.pack("<I", crc32c(head + content)) + content


def unseal(magic: bytes, data: bytes, path: Path) -> bytes:
    """The content. Raises FormatVersionError for a newer file, CorruptionError for anything else that isn't right."""
    if len(data) < HEADER_BYTES:
        raise CorruptionError(str(path), 0, f"{len(data)} bytes where the header alone has {HEADER_BYTES}")
    found, version, flags, length, crc = _HEADER.unpack_from(data)
    if found != magic:
        raise CorruptionError(str(path), 0, f"starts with {found!r} instead of {magic!r}")
    if crc32c(data[:16] + data[HEADER_BYTES:]) != crc:
        raise CorruptionError(str(path), 16, "wrong checksum")
    if version > FORMAT_VERSION:
        raise FormatVersionError(str(path), version, FORMAT_VERSION)
    if version != FORMAT_VERSION or flags or length != len(data) - HEADER_BYTES:
        raise CorruptionError(str(path), 8, f"version {version}, flags {flags}, {length} bytes of content said")
    return data[HEADER_BYTES:]
