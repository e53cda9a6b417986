"""The store: a log, an index over what of it is committed, and what the directory says of itself.

Threads. Three may call at the same time: the caller's thread (everything but these), a worker that calls `flush`, and
another that calls `maintain` and `verify`.
- The caller's thread owns the end of the log in memory, the index, the sessions and what waits to be applied.
- Whoever holds `_io` owns the files; `flush` takes it, and so do `cut`, `wipe_for_rebuild` and `close`, which wait for it.
- A flush may have two halves instead, on the caller's thread: `write_ahead`, which takes a moment, and `synced`. Between them
  nobody flushes, cuts or closes: who began it sees to that.
- Handed over: `_queue` (append puts in, flush takes out; it has its own lock), `_durable` and `_failure` (written under
  `_io` or by `synced`, read anywhere: one reference each). A batch's place in the files is set before `_durable` reaches it.
- Reading what was written needs no lock: files only grow there, and lists of segments are replaced, never changed.
- Maintenance works on segments that nobody changes any more: full, and applied as a whole. It takes `_io` to put its
  output in their place; it asks index and sessions while the caller changes them, and moves places in the index, which
  has a lock of its own for that. A segment it removed stays readable for who holds it; a place looked up before it was
  moved is looked up again (`get`). `_maintaining` is held meanwhile: `wipe_for_rebuild` and `close` set `_halt` and wait.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import structlog

from kvstore.applier import Applier
from kvstore.batch import Record
from kvstore.errors import (
    CorruptionError,
    CutBelowCommitError,
    NotAdjoiningError,
    StoreClosedError,
    StoreError,
    StoreFailedError,
)
from kvstore.facts import Facts
from kvstore.files import File, Files, OsFiles, SyncError
from kvstore.folded import Folded
from kvstore.handover import Handover
from kvstore.home import Home, epochs_upto, with_epochs_of
from kvstore.horizon import HORIZON, Horizon
from kvstore.incoming import BEGINNING, Position, split
from kvstore.log import Log, LogBatch, Unsynced
from kvstore.maintenance import HaltedError, Maintenance
from kvstore.meta import EpochStart
from kvstore.opening import Opening
from kvstore.options import Durability, StoreOptions
from kvstore.readcache import ReadCache
from kvstore.recent import RecentBatches
from kvstore.recovery import recover
from kvstore.sessions import Sessions

__all__ = ["Durability", "Position", "Store", "StoreOptions"]

log = structlog.get_logger()


class Store(Facts):
    """One replica's storage. Make it with `Store.open`; see the module's docstring for who may call what."""

    def __init__(self, home: Home, options: StoreOptions) -> None:
        """For `open` only."""
        self._home = home
        self._options = options
        self._io = threading.Lock()
        self._maintaining = threading.Lock()
        self._halt = threading.Event()
        self._failure: StoreError | None = None
        self._applier = Applier(options.index(), Sessions())
        self._reset()

    def _reset(self) -> None:
        options = self._options
        self._log = Log(
            self._home.files,
            self._home.path,
            options.segment_bytes,
            preallocate_bytes=options.preallocate_bytes,
            ballast=self._home.ballast,
            spares=self._home.spares,
        )
        self._queue = Handover()
        self._unsynced: tuple[Unsynced, Position] | None = None
        self._recent = RecentBatches(self._options.read_cache_bytes)
        self._read = ReadCache(self._options.record_cache_bytes)
        self._made: tuple[bytes, Folded] | None = None
        self._applier.clear()
        self._end = self._durable = BEGINNING
        self._committed = self._hint = self._highest_version = 0
        self._epochs: tuple[EpochStart, ...] = ()
        self._maintenance = self._make_maintenance()
        self.torn_bytes = 0
        """Bytes of a torn tail that were cut off at open (rule 17)."""
        self.incarnation_lost = False
        """Whether open gave a new incarnation, because the last run, without syncs, may have lost its end (rule 11)."""

    def _make_maintenance(self, hinted: Sequence[int] = ()) -> Maintenance:
        return Maintenance(
            self._home,
            self._applier,
            self._options,
            log=self._log,
            io=self._io,
            halt=self._halt,
            settle=self._settle,
            newest_version=lambda: self._highest_version,
            hinted=hinted,
        )

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        *,
        cluster_id: str,
        partition: int,
        pod: str = "",
        boot_id: str = "",
        rebuild: bool = False,
        files: Files | None = None,
        options: StoreOptions | None = None,
    ) -> "Store":
        """Open a directory, or make it; recover its log; bring the index up to the largest commit index in the log.

        With `rebuild` everything but the replication state is wiped first, under a new incarnation: for a directory
        that can't be opened because of a CorruptionError or StoreFailedError, when another replica has the data.
        `boot_id` names this boot of the host, for durability "memory": see `incarnation_lost`.
        Raises WrongClusterError, FormatVersionError, LockedError (nothing was touched), CorruptionError,
        StoreFailedError (a sync failed, now or in an earlier run, or the disk can't write any more, EIO), OSError.
        """
        options = options or StoreOptions()
        home = Home.enter(
            files or OsFiles(),
            Path(directory),
            cluster_id=cluster_id,
            partition=partition,
            pod=pod,
            new_incarnation=options.new_incarnation,
            ballast_bytes=options.ballast_bytes,
            spares=options.spares,
        )
        try:
            store = cls(home, options)
            if rebuild or home.meta.wiping:
                store._wipe(home.meta.incarnation if home.meta.wiping else options.new_incarnation())
            if home.meta.suspect:
                msg = f"a sync failed when {directory} was last in use: what it holds is unknown. Open it with rebuild"
                raise StoreFailedError(msg)
            try:
                store._recover()
                store.incarnation_lost = home.begin_run(
                    boot_id, synced=options.durability == "fsync", new_incarnation=options.new_incarnation
                )
            except OSError as e:
                if not isinstance(e, SyncError) and e.errno != errno.EIO:
                    raise
                raise store._fail("sync or write at the start", e) from e
        except BaseException:
            home.leave()
            raise
        return store

    # Writing

    def announce(self, data: bytes, folded: Folded) -> None:
        """The next batch to be appended, made here: what it changes is known and need not be read from it."""
        self._made = (data, folded)

    def append(self, data: bytes, *, trusted: bool = False) -> Position:
        """Queue whole batches behind the end; no I/O. All or none are taken. Returns the new end.

        `trusted` leaves the checksum out, for bytes made by this process. Raises CorruptionError for bytes that
        aren't valid batches, NotAdjoiningError, FormatVersionError, StoreFailedError, StoreClosedError.
        """
        self._check()
        known = self._made[1] if self._made is not None and self._made[0] is data else None
        self._made = None
        batches, folded, end = split(data, self._end, trusted=trusted, known=known)
        for batch, changes in zip(batches, folded, strict=True):
            self._recent.add(batch, self._durable.index)
            self._applier.add(batch, changes)
            self._note_commit(batch.header.commit)
            self._highest_version = max(self._highest_version, changes.highest)
        if end.epoch != self._end.epoch:
            self._epochs = with_epochs_of(self._epochs, batches)
        self._queue.put(batches)
        self._end = end
        return end

    def _note_commit(self, commit: int) -> None:
        if commit > self._hint:
            self._hint = commit
            self._committed = max(self._committed, commit)

    def flush(self) -> Position:
        """Write all that is queued, with one write and one sync; returns how far the log is durable.

        For one worker thread; the rest may be called meanwhile. A failure is final (rule 4): StoreFailedError, now
        and from every later call.
        """
        with self._io:
            self._check()
            self._check_synced()
            batches = self._queue.take()
            if not batches:
                return self._durable
            try:
                self._write(batches)
            except BaseException as e:
                raise self._fail("write", e) from e
            last = batches[-1].header
            self._durable = Position(last.epoch, last.last)
            return self._durable

    def write_ahead(self) -> File | None:
        """Write what is queued, if that takes a moment only; gives the file to be synced, whose end `synced` is to be told.

        For the caller's thread, instead of a flush of another: little data, into zeros that are there, waits for no disk
        as long as the file system itself moves. None: nothing was done, it takes a flush. Raises StoreFailedError.
        """
        if self._options.durability != "fsync" or not self._io.acquire(blocking=False):
            return None
        try:
            self._check()
            self._check_synced()
            batches = self._queue.waiting
            if not batches or batches[-1].header.epoch != self._durable.epoch:
                return None
            return self._write_ahead(batches)
        finally:
            self._io.release()

    def _write_ahead(self, batches: Sequence[LogBatch]) -> File | None:
        try:
            unsynced = self._log.write_ahead(batches)
        except BaseException as e:
            raise self._fail("write", e) from e
        if unsynced is None:
            return None
        self._queue.take()
        last = batches[-1].header
        self._unsynced = unsynced, Position(last.epoch, last.last)
        return unsynced.segment.file

    def synced(self, error: BaseException | None = None) -> None:
        """The file that `write_ahead` gave is on the disk, or its sync failed, which is final: StoreFailedError then."""
        if self._unsynced is None:
            msg = "nothing was written ahead"
            raise RuntimeError(msg)
        (unsynced, end), self._unsynced = self._unsynced, None
        if error is not None:
            raise self._fail("write", error) from error
        unsynced.settle()
        self._durable = end

    def _check_synced(self) -> None:
        if self._unsynced is not None:
            msg = "what was written ahead has to be synced first"
            raise RuntimeError(msg)

    def _write(self, batches: list[LogBatch]) -> None:
        if batches[-1].header.epoch != self._durable.epoch:
            self._home.save_epochs(with_epochs_of(self._home.epochs, batches))
        self._log.write(batches, sync=self._options.durability == "fsync")

    def commit(self, index: int) -> int:
        """Let records up to `index` be seen, as far as they are durable; returns `applied`.

        Call it again after a flush if `index` was beyond `durable`: nothing of it is remembered for records to come,
        which may be another leader's. An index below an earlier one changes nothing.
        """
        self._check()
        self._committed = max(self._committed, min(index, self._end.index))
        return self._applier.apply(min(index, self._durable.index))

    def cut(self, after_index: int) -> Position:
        """Remove everything behind `after_index`, durably; returns the new end. Waits for a running flush.

        Raises CutBelowCommitError below what is committed: wipe_for_rebuild then (rule 15). BatchBoundaryError if
        `after_index` is no batch's end, NotAdjoiningError if it is beyond the log's. StoreFailedError.
        """
        with self._io:
            self._check()
            self._check_synced()
            floor = max(self._committed, min(self.horizon, self._end.index))
            if after_index < floor:
                msg = (
                    f"a cut behind index {after_index} would take committed records: {floor} is committed. "
                    "Rebuild this replica from its leader"
                )
                raise CutBelowCommitError(msg)
            if after_index > self._end.index:
                msg = f"a cut behind index {after_index}, but the log ends at {self._end.index}"
                raise NotAdjoiningError(msg)
            if after_index < self._end.index:
                self._cut(after_index)
            return self._end

    def _cut(self, after_index: int) -> None:
        try:
            if after_index >= self._durable.index:
                end = self._queue.cut(after_index, self._durable)
            else:
                header = self._log.cut(after_index)
                end = self._durable = Position(header.epoch, header.last) if header else BEGINNING
                self._queue.take()
            self._epochs = epochs_upto(self._epochs, end)
            self._home.save_epochs(epochs_upto(self._home.epochs, end))
        except (OSError, CorruptionError) as e:
            raise self._fail("cut", e) from e
        self._applier.cut(after_index)
        self._recent.cut(after_index)
        self._end = end

    # Reading

    def contains(self, key: bytes) -> bool:
        """Whether a key has a value, as far as applied; reads no file."""
        return self._applier.index.get(key) is not None

    def key_list(self) -> list[bytes]:
        """All keys that have a value, as far as applied, in any order: 8 bytes each, and some 10 ms a million."""
        return self._applier.index.keys()

    def get(self, key: bytes) -> Record | None:
        """The newest committed record of a key, its checksum verified when it was read; None if it has no value.

        From memory if it was read lately, otherwise with one read of the file.

        Raises CorruptionError, OSError, StoreFailedError, StoreClosedError.
        """
        if self._failure:
            raise self._failure
        place = self._applier.index.get(key)
        while place is not None:
            record = self._read.young.get(place) or self._read.revive(place)
            if record is not None:
                return record
            try:
                record = self._log.value(place, key)
                self._read.add(place, record)
                return record
            except KeyError:  # compacted away since it was looked up
                before, place = place, self._applier.index.get(key)
                if place == before:
                    raise CorruptionError(str(self._home.path), 0, f"no segment at the place of key {key!r}") from None
        return None

    def get_many(self, keys: Sequence[bytes]) -> list[Record | None]:
        """`get` of each, without a call for those that were read lately. Raises what `get` does."""
        if self._failure:
            raise self._failure
        place_of, young = self._applier.index.get, self._read.young.get
        records = [None if (place := place_of(key)) is None else young(place) for key in keys]
        if None in records:
            return [self.get(key) if record is None else record for key, record in zip(keys, records, strict=True)]
        return records

    def read(self, after_index: int, max_bytes: int) -> bytes:
        """Whole batches behind `after_index`, durable or not: at least one if there is one, then up to `max_bytes`.

        From memory if they are recent. Batches adjoin: each begins behind the last index of the one before, though
        records may be missing inside them at or below `horizon`; read that afterwards. Raises BatchBoundaryError if `after_index` is inside a batch,
        CorruptionError, OSError, StoreFailedError, StoreClosedError.
        """
        self._check()
        if after_index >= self._end.index:
            return b""
        data = self._recent.read(after_index, max_bytes, self.horizon)
        return self._log.read(after_index, max_bytes, self.horizon) if data is None else data

    # Compaction

    def allow_purge(self, index: int) -> None:
        """Every replica of the partition has its log durably up to `index`: deletes may go there, once old enough."""
        self._maintenance.purge_to = index

    def inherit(self, horizon: int, purged_to: int) -> None:
        """What will be appended comes from a log with this horizon; durable when it returns (rules 14, 16).

        Raises StoreFailedError.
        """
        self._check()
        try:
            self._home.save_horizon(Horizon(horizon, purged_to))
        except OSError as e:
            raise self._fail("write of the horizon", e) from e

    def maintain(self) -> bool:
        """Do the next piece of work on the log: a hint, or a compaction; whether there was any. For one worker thread.

        Room is kept back again if a write has needed it and there is some.
        Raises CorruptionError (the replica must be rebuilt), StoreFailedError, StoreClosedError; OSError if the disk
        has no room, for instance: nothing was changed, try again later.
        """
        self._home.ballast.hold()
        return bool(self._do_maintenance(Maintenance.step))

    def verify(self) -> int:
        """Read one sealed segment and check it, the next each time; gives its size. Raises as `maintain` does."""
        return self._do_maintenance(Maintenance.verify)

    def _do_maintenance(self, work: Callable[[Maintenance], int]) -> int:
        with self._maintaining:
            self._check()
            try:
                return work(self._maintenance)
            except HaltedError:
                return 0
            except SyncError as e:
                raise self._fail("sync of a compaction", e) from e

    def _settle(self) -> int:
        """An index up to which all is committed and on the disk, and which nothing visible is beyond."""
        self._check()
        if self._options.durability == "memory":
            with self._io:
                self._log.sync()
                return min(self._committed, self._durable.index)
        return min(self._committed, self._durable.index)

    @contextlib.contextmanager
    def _without_maintenance(self) -> Iterator[None]:
        """Stop what `maintain` is doing, and keep it out."""
        self._halt.set()
        try:
            with self._maintaining:
                yield
        finally:
            self._halt.clear()

    # What replication must not forget

    @property
    def state(self) -> Mapping[str, Any]:
        """The replication state last saved; the node's own."""
        return self._home.meta.replication

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Keep a JSON object, durably when this returns (rules 3, 19). Blocks for a sync; any thread may call it.

        Raises TypeError if it isn't JSON, StoreFailedError.
        """
        self._check()
        try:
            self._home.save_state(state)
        except OSError as e:
            raise self._fail("write of the meta file", e) from e

    def wipe_for_rebuild(self) -> str:
        """Become an empty replica under a new incarnation, which is durable before anything is wiped (rules 4, 15).

        The replication state stays. Also heals a store that has failed, if the disk lets it. Returns the
        incarnation. Raises StoreFailedError, StoreClosedError.
        """
        with self._without_maintenance(), self._io:
            if isinstance(self._failure, StoreClosedError):
                raise self._failure
            self._wipe(self._options.new_incarnation())
            self._failure = None
            return self._home.meta.incarnation

    def _wipe(self, incarnation: str) -> None:
        self._log.close()
        try:
            self._home.wipe(incarnation)
        except OSError as e:
            raise self._fail("wipe", e) from e
        self._reset()
        log.warning("store wiped", directory=str(self._home.path), incarnation=incarnation)

    # Opening and closing

    def _recover(self) -> None:
        home = self._home
        epochs = home.load_epochs()
        horizon = home.load_horizon()
        opening = Opening(home.path, epochs, self._applier)
        options = self._options
        found = recover(
            home.files,
            home.path,
            options.segment_bytes,
            opening,
            preallocate_bytes=options.preallocate_bytes,
            ballast=home.ballast,
            spares=home.spares,
        )
        self._log, self.torn_bytes = found.log, found.torn
        self._end, self._highest_version = opening.end, opening.highest_version
        opening.know_committed(min(horizon.index, self._end.index))
        self._note_commit(opening.known_commit)
        self._applier.apply(self._hint)
        self._maintenance = self._make_maintenance(found.hinted)
        if self._hint > self._end.index:
            what = f"the log ends at index {self._end.index}, but {self._hint} was committed and on this disk"
            raise CorruptionError(str(home.path), 0, what)
        clean_to = max((s.clean_to for s in self._log.segments), default=0)
        if clean_to > horizon.index:
            what = f"says {horizon.index}, but a segment was compacted up to {clean_to}"
            raise CorruptionError(str(home.path / HORIZON), 0, what)
        self._durable = self._end
        self._epochs = epochs_upto(epochs, self._end)
        self._home.save_epochs(self._epochs)
        self._home.tidy()
        log.info(
            "store opened",
            directory=str(home.path),
            incarnation=self.incarnation,
            end=self._end.index,
            epoch=self._end.epoch,
            applied=self.applied,
            keys=self.keys,
            torn_bytes=self.torn_bytes,
        )

    def close(self) -> None:
        """Write and sync what is queued, unless the store failed, and let go of the directory. Twice is fine."""
        if isinstance(self._failure, StoreClosedError):
            return
        try:
            if self._failure is None:
                self.flush()
                self._log.seal(sync=False)
                if self._options.durability == "memory":
                    with self._io:
                        self._log.sync()
                        self._home.end_run()
        finally:
            with self._without_maintenance(), self._io:
                self._failure = StoreClosedError(f"the store in {self._home.path} is closed")
                self._log.close()
                with contextlib.suppress(OSError):  # the next start removes what is left
                    self._home.spares.drop()
                self._home.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        if self._failure:
            raise self._failure

    def _fail(self, what: str, cause: BaseException) -> StoreFailedError:
        """Refuse everything from here on, and try to leave a note for the next run."""
        failure = StoreFailedError(
            f"a {what} in {self._home.path} failed: {cause}. What is on its disk is unknown; "
            "this replica must leave and be rebuilt under a new incarnation"
        )
        self._failure = failure
        if isinstance(cause, SyncError):
            with contextlib.suppress(OSError):
                self._home.save(suspect=True)
        log.error("store failed", directory=str(self._home.path), during=what, error=repr(cause))
        return failure
