"""What can go wrong with a store. All are `kvcommon.errors.KVClusterError`s."""

from kvcommon.errors import ConfigurationError, KVClusterError


class StoreError(KVClusterError):
    """The root of the store's errors."""


class CorruptionError(StoreError):
    """Bytes that are not what was written. The replica must be rebuilt from another; nothing is ever guessed.

    `file` is a path, or `<bytes>` for what a caller handed in; `offset` is where in it; `what` is what is wrong there.
    """

    def __init__(self, file: str, offset: int, what: str) -> None:
        super().__init__(f"{file} at offset {offset}: {what}")
        self.file = file
        self.offset = offset
        self.what = what


class FormatVersionError(StoreError, ConfigurationError):
    """Written by a newer release than this one. Nothing was touched."""

    def __init__(self, file: str, found: int, known: int) -> None:
        super().__init__(
            f"{file} has format version {found}; this release knows versions up to {known}. "
            "Run the release that wrote it, or a later one; nothing was changed"
        )
        self.file = file
        self.found = found
        self.known = known


class WrongClusterError(StoreError, ConfigurationError):
    """The directory belongs to another cluster or another partition. Nothing was touched."""


class LockedError(StoreError, ConfigurationError):
    """Another process has the directory open."""


class StoreClosedError(StoreError):
    """A call on a store after `close`."""


class StoreFailedError(StoreError):
    """A write or sync failed before (rule 4): what is on disk is unknown, so the store does nothing more."""


class NotAdjoiningError(StoreError):
    """A batch that does not follow the log's end."""


class BatchBoundaryError(StoreError):
    """An index inside a batch where only a batch's end makes sense."""


class CutBelowCommitError(StoreError):
    """A cut at or below what was applied (rule 15): the replica must be rebuilt under a new incarnation instead."""


class RecordTooLargeError(StoreError):
    """A key, record or batch beyond what the format can hold."""
