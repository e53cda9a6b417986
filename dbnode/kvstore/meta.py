"""Who a directory belongs to, and what replication must not forget: the files `meta` and `epochs`."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from kvstore.errors import CorruptionError, WrongClusterError
from kvstore.files import Files, read_file, replace_file
from kvstore.sealed import HEADER_BYTES, seal, unseal

META: Final = "meta"
EPOCHS: Final = "epochs"
_META_MAGIC: Final = b"KVC-META"
_EPOCHS_MAGIC: Final = b"KVCEPOCH"
_ROW = struct.Struct("<QQ")

EpochStart = tuple[int, int]
"""(epoch, the first index written in it)."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What `meta` holds.

    `wiping`: a rebuild had begun to empty the directory. `suspect`: a sync failed in an earlier run, so the log may
    hold less than it seems to (rule 4). `unsynced_boot`: a boot of the host in which the store was open without syncs,
    and not closed since; empty if there is none (rule 11). `replication` is the node's own, a JSON object.
    """

    cluster_id: str
    partition: int
    incarnation: str
    pod: str = ""
    wiping: bool = False
    suspect: bool = False
    unsynced_boot: str = ""
    replication: Mapping[str, Any] = field(default_factory=dict)


def read_meta(files: Files, directory: Path) -> Meta | None:
    """What the directory says of itself; None for one never used. Raises CorruptionError, FormatVersionError."""
    path = directory / META
    data = read_file(files, path)
    if data is None:
        return None
    content = unseal(_META_MAGIC, data, path)
    try:
        return Meta(**json.loads(content))
    except (ValueError, TypeError) as e:
        raise CorruptionError(str(path), HEADER_BYTES, f"not what a meta file holds: {e}") from e


def write_meta(files: Files, directory: Path, meta: Meta) -> None:
    """Durable when it returns. Raises OSError, or TypeError if `replication` isn't JSON."""
    content = json.dumps(asdict(meta), sort_keys=True, separators=(",", ":")).encode()
    replace_file(files, directory / META, seal(_META_MAGIC, content))


def check_owner(meta: Meta, directory: Path, cluster_id: str, partition: int) -> None:
    """Raise WrongClusterError unless the directory is this cluster's and this partition's."""
    if meta.cluster_id != cluster_id:
        msg = (
            f"{directory} belongs to cluster {meta.cluster_id}, not to cluster {cluster_id}. "
            "Give this node its own cluster's disk, or an empty one; nothing was changed"
        )
        raise WrongClusterError(msg)
    if meta.partition != partition:
        msg = (
            f"{directory} belongs to partition {meta.partition} of cluster {cluster_id}, not to partition {partition}. "
            "Give this node its own partition's disk, or an empty one; nothing was changed"
        )
        raise WrongClusterError(msg)


def read_epochs(files: Files, directory: Path) -> tuple[EpochStart, ...] | None:
    """The epoch table, ascending; None if there is none. Raises CorruptionError, FormatVersionError."""
    path = directory / EPOCHS
    data = read_file(files, path)
    if data is None:
        return None
    content = unseal(_EPOCHS_MAGIC, data, path)
    if len(content) % _ROW.size:
        raise CorruptionError(str(path), HEADER_BYTES, f"{len(content)} bytes are no whole number of rows")
    rows = tuple(_ROW.iter_unpack(content))
    for (epoch, first), (later, start) in pairwise(rows):
        if not (epoch < later and first < start):
            raise CorruptionError(
                str(path), HEADER_BYTES, f"epoch {later} from {start} behind epoch {epoch} from {first}"
            )
    return rows


def write_epochs(files: Files, directory: Path, epochs: Sequence[EpochStart]) -> None:
    """Durable when it returns. Raises OSError."""
    replace_file(files, directory / EPOCHS, seal(_EPOCHS_MAGIC, b"".join(_ROW.pack(*row) for row in epochs)))


def epoch_at(epochs: Sequence[EpochStart], index: int) -> int:
    """The epoch in which the record at `index` was written; 0 if the table begins later."""
    return next((epoch for epoch, first in reversed(epochs) if first <= index), 0)
