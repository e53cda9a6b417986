"""What compaction took, in the file `horizon`: below which index the log is no longer whole."""

import struct
from pathlib import Path
from typing import Final, NamedTuple

from kvstore.errors import CorruptionError
from kvstore.files import Files, read_file, replace_file
from kvstore.sealed import HEADER_BYTES, seal, unseal

HORIZON: Final = "horizon"
_MAGIC: Final = b"KVC-HRZN"
_ROW = struct.Struct("<QQ")


class Horizon(NamedTuple):
    """How far a log is not whole; both numbers only grow.

    `index`: records up to here may have superseded others that are gone; the log folds to the right state only from
    here on (rule 14). `purged_to`: deletes up to here may be gone (rule 16).
    """

    index: int = 0  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    purged_to: int = 0

    def joined(self, other: "Horizon") -> "Horizon":
        """The larger of each."""
        return Horizon(max(self.index, other.index), max(self.purged_to, other.purged_to))


WHOLE: Final = Horizon()


def read_horizon(files: Files, directory: Path) -> Horizon:
    """What the directory says; WHOLE if it says nothing. Raises CorruptionError, FormatVersionError."""
    path = directory / HORIZON
    data = read_file(files, path)
    if data is None:
        return WHOLE
    content = unseal(_MAGIC, data, path)
    if len(content) != _ROW.size:
        raise CorruptionError(str(path), HEADER_BYTES, f"{len(content)} bytes of content; it must have {_ROW.size}")
    horizon = Horizon(*_ROW.unpack(content))
    if horizon.purged_to > horizon.index:
        what = f"deletes are gone up to {horizon.purged_to}, above the horizon {horizon.index}"
        raise CorruptionError(str(path), HEADER_BYTES, what)
    return horizon


def write_horizon(files: Files, directory: Path, horizon: Horizon) -> None:
    """Durable when it returns. Raises OSError."""
    replace_file(files, directory / HORIZON, seal(_MAGIC, _ROW.pack(*horizon)))
