"""A store's directory, apart from its log: locked, known to be the right one, and its small files."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kvstore.ballast import Ballast
from kvstore.errors import CorruptionError
from kvstore.files import Files, Lock
from kvstore.hint import SUFFIX as HINT_SUFFIX
from kvstore.horizon import HORIZON, WHOLE, Horizon, read_horizon, write_horizon
from kvstore.incoming import Position
from kvstore.log import LogBatch
from kvstore.meta import EPOCHS, META, EpochStart, Meta, check_owner, read_epochs, read_meta, write_epochs, write_meta
from kvstore.segment import SUFFIX
from kvstore.spares import SUFFIX as SPARE_SUFFIX
from kvstore.spares import Spares


class Home:
    """The locked directory. Any thread may call `save` and `save_horizon`, the rest whoever owns the log's files."""

    def __init__(self, files: Files, path: Path, meta: Meta, lock: Lock, *, ballast: Ballast, spares: Spares) -> None:
        """For `enter` only."""
        self.files = files
        self.path = path
        self.ballast = ballast
        self.spares = spares
        self.meta = meta
        """What `meta` holds, as last written."""
        self.epochs: tuple[EpochStart, ...] = ()
        """The epoch table, as last written or loaded."""
        self.horizon = WHOLE
        """What compaction took, as last written or loaded."""
        self._lock = lock
        self._saving = threading.Lock()

    @classmethod
    def enter(
        cls,
        files: Files,
        path: Path,
        *,
        cluster_id: str,
        partition: int,
        pod: str,
        new_incarnation: Callable[[], str],
        ballast_bytes: int,
        spares: Callable[[Files, Path], Spares],
    ) -> "Home":
        """Lock the directory and learn whose it is; make it ours if it is nobody's.

        Raises LockedError, WrongClusterError, FormatVersionError, CorruptionError (nothing was touched), OSError.
        """
        files.make_directory(path)
        lock = files.lock_directory(path)
        try:
            meta = read_meta(files, path)
            if meta is None:
                _refuse_headless(files, path)
                meta = Meta(cluster_id, partition, new_incarnation(), pod)
                write_meta(files, path, meta)
            check_owner(meta, path, cluster_id, partition)
        except BaseException:
            lock.release()
            raise
        ballast = Ballast(files, path, ballast_bytes)
        ballast.hold()
        return cls(files, path, meta, lock, ballast=ballast, spares=spares(files, path))

    def begin_run(self, boot_id: str, *, synced: bool, new_incarnation: Callable[[], str]) -> bool:
        """Note what this run will do; whether the incarnation is a new one because the last run didn't survive (rule 11).

        A run without syncs survives its clean end, or a start in the same boot of the host, for which `boot_id`
        stands; one that is empty is never the same. Raises OSError.
        """
        before = self.meta.unsynced_boot
        lost = bool(before) and (before != boot_id or not boot_id)
        now = "" if synced else boot_id or "unknown"
        if lost:
            self.save(incarnation=new_incarnation(), unsynced_boot=now)
        elif before != now:
            self.save(unsynced_boot=now)
        return lost

    def end_run(self) -> None:
        """Note that everything is synced. Raises OSError."""
        if self.meta.unsynced_boot:
            self.save(unsynced_boot="")

    def save(self, **changes: Any) -> None:
        """Change fields of `meta`; durable when it returns. Raises OSError, or TypeError for what isn't JSON."""
        with self._saving:
            meta = replace(self.meta, **changes)
            self.ballast.write(write_meta, self.files, self.path, meta)
            self.meta = meta

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Change the replication state; durable when it returns. Raises OSError, TypeError."""
        self.save(replication=dict(state))

    def load_epochs(self) -> tuple[EpochStart, ...]:
        """The epoch table as it is on the disk. Raises CorruptionError, FormatVersionError."""
        self.epochs = read_epochs(self.files, self.path) or ()
        return self.epochs

    def save_epochs(self, epochs: tuple[EpochStart, ...]) -> None:
        """Change the epoch table, if it is another; durable when it returns. Raises OSError."""
        if epochs != self.epochs:
            self.ballast.write(write_epochs, self.files, self.path, epochs)
            self.epochs = epochs

    def load_horizon(self) -> Horizon:
        """The horizon as it is on the disk. Raises CorruptionError, FormatVersionError."""
        self.horizon = read_horizon(self.files, self.path)
        return self.horizon

    def save_horizon(self, horizon: Horizon) -> None:
        """Raise the horizon, if this one is higher; durable when it returns. Raises OSError."""
        with self._saving:
            joined = self.horizon.joined(horizon)
            if joined != self.horizon:
                self.ballast.write(write_horizon, self.files, self.path, joined)
                self.horizon = joined

    def wipe(self, incarnation: str) -> None:
        """Empty the directory of log and epochs. The new incarnation is durable before anything goes. Raises OSError."""
        self.save(incarnation=incarnation, wiping=True)
        self.spares.drop()  # what they hold is newer than a log that begins anew
        for name in reversed(self.files.list(self.path)):
            if name.endswith((SUFFIX, HINT_SUFFIX, SPARE_SUFFIX)) or name in (EPOCHS, HORIZON):
                self.files.remove(self.path / name)
        self.files.sync_directory(self.path)
        self.epochs, self.horizon = (), WHOLE
        self.save(wiping=False, suspect=False)

    def tidy(self) -> None:
        """Remove spare files, what a crash left of files that were being replaced, and hints of segments that are gone."""
        names = self.files.list(self.path)
        for name in names:
            whole, _, ending = name.rpartition(".")
            ours = whole in (META, EPOCHS, HORIZON) or whole.endswith((SUFFIX, HINT_SUFFIX))
            orphan = f".{ending}" == HINT_SUFFIX and whole + SUFFIX not in names
            if (ending == "tmp" and ours) or orphan or f".{ending}" == SPARE_SUFFIX:
                self.files.remove(self.path / name)

    def leave(self) -> None:
        """Unlock the directory."""
        self._lock.release()


def _refuse_headless(files: Files, directory: Path) -> None:
    found = [n for n in files.list(directory) if n.endswith(SUFFIX) or n in (EPOCHS, HORIZON)]
    if found:
        what = f"missing, but {found[0]} is there. Remove the directory's files if another replica has the data"
        raise CorruptionError(str(directory / META), 0, what)


def with_epochs_of(known: Sequence[EpochStart], batches: Sequence[LogBatch]) -> tuple[EpochStart, ...]:
    """The epoch table with the epochs that begin in `batches`, which follow."""
    epochs = list(known)
    for batch in batches:
        if batch.header.epoch > (epochs[-1][0] if epochs else 0):
            epochs.append((batch.header.epoch, batch.header.first))
    return tuple(epochs)


def epochs_upto(epochs: Sequence[EpochStart], end: Position) -> tuple[EpochStart, ...]:
    """The epoch table of a log cut at `end`."""
    return tuple(e for e in epochs if e[1] <= end.index)
