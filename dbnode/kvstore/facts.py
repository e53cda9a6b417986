"""What a store says of itself, to whoever asks."""

from kvstore.applier import Applier
from kvstore.errors import StoreError
from kvstore.home import Home
from kvstore.incoming import Position
from kvstore.log import Log
from kvstore.maintenance import Maintenance, Progress
from kvstore.meta import EpochStart, Meta
from kvstore.sessions import Sessions


class Facts:
    """The readable side of `kvstore.store.Store`: nothing here changes anything."""

    _home: Home
    _log: Log
    _applier: Applier
    _maintenance: Maintenance
    _failure: StoreError | None
    _end: Position
    _durable: Position
    _committed: int
    _hint: int
    _highest_version: int
    _epochs: tuple[EpochStart, ...]

    @property
    def incarnation(self) -> str:
        """The id of this disk's life; a new one after `wipe_for_rebuild`."""
        return self._home.meta.incarnation

    @property
    def identity(self) -> Meta:
        """What the directory says of itself."""
        return self._home.meta

    @property
    def end(self) -> Position:
        """The last record appended, durable or not."""
        return self._end

    @property
    def durable(self) -> Position:
        """The last record on the disk (with durability "memory": written to the system)."""
        return self._durable

    @property
    def applied(self) -> int:
        """The index up to which records are in the index of keys, and visible."""
        return self._applier.applied

    @property
    def commit_hint(self) -> int:
        """The largest commit index in any batch of the log: a lower bound of what is committed."""
        return self._hint

    @property
    def committed(self) -> int:
        """The largest index known to be committed, by `commit` or by the log; `cut` goes no deeper."""
        return self._committed

    @property
    def horizon(self) -> int:
        """Below this index the log is compacted: it folds to the right state only from here on (rule 14)."""
        return self._home.horizon.index

    @property
    def purged_to(self) -> int:
        """Deletes up to here may be gone from the log: whoever has less starts from empty (rule 16)."""
        return self._home.horizon.purged_to

    @property
    def purges(self) -> int:
        """Another number after deletes have gone from the log; -1 while that happens."""
        return self._maintenance.purges

    @property
    def epochs(self) -> tuple[EpochStart, ...]:
        """(epoch, first index) of every epoch in the log, ascending."""
        return self._epochs

    @property
    def highest_version(self) -> int:
        """The highest record version that was ever in this log, as far as it has been read."""
        return self._highest_version

    @property
    def sessions(self) -> Sessions:
        """The results of clients' batches, as far as applied."""
        return self._applier.sessions

    @property
    def keys(self) -> int:
        """How many keys have a value."""
        return len(self._applier.index)

    @property
    def log_bytes(self) -> int:
        """Size of the log's files."""
        return self._log.size

    @property
    def segments(self) -> int:
        """How many files the log has."""
        return self._log.segment_count

    @property
    def pending_bytes(self) -> int:
        """Bytes of batches that are appended but not applied; they are in memory."""
        return self._applier.pending_bytes

    @property
    def failure(self) -> StoreError | None:
        """Why the store does nothing more; None while it works."""
        return self._failure

    @property
    def free_bytes(self) -> int:
        """Free space of the file system. Raises OSError."""
        return self._home.files.free_bytes(self._home.path)

    @property
    def short_of_room(self) -> bool:
        """Whether a write has needed the room kept back, and there is not that much again. Any thread may ask."""
        return self._home.ballast.short

    @property
    def progress(self) -> Progress:
        """What `maintain` has done, and is doing. Any thread may ask."""
        return self._maintenance.progress
