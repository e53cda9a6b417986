"""A real store on a faulty disk, and what it must hold."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kvstore.errors import StoreClosedError, StoreError, StoreFailedError
from kvstore.files import is_full
from kvstore.store import Store, StoreOptions
from tests.simulation.record import SimulationError
from tests.simulation.store.checks import check, check_opened
from tests.simulation.store.written import WrittenLog
from tests.simulation.timeline import Mark
from tests.support.faulty_files import CrashError, FaultyFiles

if TYPE_CHECKING:
    from tests.simulation.store.partition import Partition

T = TypeVar("T")

DATA = Path("/data")
CLUSTER = "6b1f2a3c-0000-4000-8000-000000000001"
HARMLESS = ("a write fails", "there is no room")  # what the disk holds is as good as before
ROT = ("a place can't be read", "a turned bit is read")


class GoneError(Exception):
    """The operation ends here: the replica's process is down, or its disk has no room."""


@dataclass(eq=False)
class Held:
    """What a replica must hold, under one incarnation. Gone with a wipe."""

    log: WrittenLog  # all that was appended and not cut
    durable: int = 0  # the store said that it has everything up to here on its disk
    known: int = 0  # the highest commit index that the store was told, or found
    applied: int = 0
    horizon: int = 0
    purged_to: int = 0
    may_purge: int = 0  # the highest index up to which deletes may go, here or where the log was copied from


class Replica:
    """One of the partition. `store` is None while its process is down."""

    def __init__(self, partition: "Partition", pod: str, options: dict[str, Any]) -> None:
        self.partition, self.record, self.pod = partition, partition.record, pod
        self._empty_disk()
        self.options = StoreOptions(**options, new_incarnation=self._new_incarnation)
        self.store: Store | None = None
        self.runs = 0
        self.tries = 0  # to start, since it last ran
        self.incarnations = 0
        self.incarnation = ""  # that the disk must have
        self.wiping = False  # a wipe has begun: it may have another one, and then nothing else
        self.held = Held(WrittenLog())
        self.touched = False  # since it was last checked
        self.struck: set[str] = set()  # what the disk did to the operation under way
        self.rotten = False  # some place of the disk is not as it was written
        self.suspect = False  # a sync failed: no start but with rebuild
        self.doubted = False  # a sync failed, and it could not be noted
        self.following = ""  # the leader's run with which it has found where their logs part
        self.acked = 0  # what it has acknowledged to this leader
        self.away_until = 0.0

    def _empty_disk(self) -> None:
        self.files = FaultyFiles()
        self.files.may_fail = self._may_fail
        self.kept: dict[str, int] = {}  # the replication state that was saved
        self.keeping: dict[str, int] | None = None  # that may have been

    # --- for the timeline --------------------------------------------------------------------------------------------

    @property
    def who(self) -> str:
        return f"{self.pod}-r{self.runs}"

    def note(self, what: str, mark: Mark = Mark.NOTE) -> None:
        epoch, index = self.held.log.end
        self.record.note(self.who, what, mark, epoch=epoch, index=index)

    def fail(self, invariant: int, what: str, error: BaseException | None = None) -> None:
        """Raises SimulationError."""
        self.record.fail(self.who, invariant, what, error)

    # --- its process -------------------------------------------------------------------------------------------------

    @property
    def good(self) -> bool:
        """Whether its disk has all that it acknowledged."""
        return not (self.rotten or self.suspect or self.doubted)

    @property
    def whole(self) -> bool:
        """Whether it has all of a compacted log (rule 14)."""
        return self.held.log.end[1] >= self.held.horizon

    def do(self, what: str, call: Callable[[Store], T]) -> T:
        """Have the store do something. Raises GoneError when it failed or died, as its disk made it."""
        if self.store is None:
            raise GoneError
        self.touched = True
        self.struck.clear()
        try:
            done = call(self.store)
        except (CrashError, StoreError, OSError) as e:
            if self.files.crashed:
                self._lost_power_while(what)
            else:
                self._failed(what, e)
            raise GoneError from None
        if "a sync fails" in self.struck:
            self.fail(27, f"{what}: it goes on though a sync failed")
        return done

    def _lost_power_while(self, what: str) -> None:
        self.note(f"{what}: power off in the middle", Mark.FAULT)
        if "a sync fails" in self.struck:
            self.doubted = True
            self.partition.leaves(self, "its disk failed")
        self.lose_power()

    def _failed(self, what: str, error: BaseException) -> None:
        assert self.store is not None
        if not self.struck and not self.rotten:
            raise SimulationError(self.record.raised(self.who, f"{what}, on a disk that is well,", error))
        self.note(f"{what}: {type(error).__name__}: {error}", Mark.DISK)
        if self.struck <= {"there is no room"} and is_full(error) and self.store.failure is None:
            return
        if "a sync fails" in self.struck:
            self._check_gives_up(what, error)
        self.stop("its process ends")
        if not self.good:
            self.partition.leaves(self, "its disk failed")

    def _check_gives_up(self, what: str, error: BaseException) -> None:
        """Rule 4: nothing more is done after a failed sync, in this run or a later one."""
        assert self.store is not None
        try:
            self.store.flush()
        except (StoreFailedError, StoreClosedError):
            self.suspect, self.doubted = self.struck == {"a sync fails"}, True
        else:
            self.fail(27, f"{what}: {error!r}, and it goes on", error)

    def start(self, *, rebuild: bool = False) -> None:
        """A new process. What can't be opened, as its disk failed, is rebuilt."""
        self.runs += 1
        self.tries += 1
        self.struck.clear()
        self.following = ""
        self.wiping |= rebuild
        try:
            store = Store.open(
                DATA,
                cluster_id=CLUSTER,
                partition=0,
                pod=self.pod,
                rebuild=rebuild,
                files=self.files,
                options=self.options,
            )
        except (CrashError, StoreError, OSError) as e:
            if self.files.crashed:
                self._lost_power_while("starts")
            else:
                self._not_opened(e, rebuild=rebuild)
        else:
            if self.suspect and store.incarnation == self.incarnation:
                self.fail(27, "a sync failed in its last run, and it takes its disk for good")
            self.store = store
            check_opened(self, store)
            self.touched, self.tries = True, 0
            self.note(f"started with a log to {store.end.index}, applied to {store.applied}", Mark.START)

    def _not_opened(self, error: BaseException, *, rebuild: bool) -> None:
        self.note(f"can't start: {type(error).__name__}: {error}", Mark.DISK)
        if not (self.struck or self.rotten or self.suspect or self.doubted):
            self.fail(22, f"can't start, though its disk is well: {error!r}", error)
        if "a sync fails" in self.struck:
            self.suspect, self.doubted = isinstance(error, StoreFailedError) and len(self.struck) == 1, True
        self.files.stop()
        if self.struck & {"a sync fails", *HARMLESS}:  # once more, later
            return
        self.partition.leaves(self, "its disk failed")
        if rebuild:
            self.note("puts its files aside: they don't say whose they are", Mark.DISK)
            self._empty_disk()
        self.start(rebuild=True)

    def stop(self, what: str) -> None:
        """The process ends at once; the page cache stays."""
        self.note(what, Mark.END)
        self.store = None
        self.files.stop()

    def lose_power(self) -> None:
        """What was not synced is lost, or not."""
        self.store = None
        torn = "disks" not in self.partition.options.calm
        self.files.crash(self.record.stream(f"{self.pod} crash {self.runs}") if torn else None)
        self.note("its machine is off", Mark.END)

    def became_empty(self, incarnation: str) -> None:
        """Under a new incarnation nothing of the old one is left."""
        self.partition.counts["rebuilds"] += bool(self.incarnation)
        self.held = Held(WrittenLog())
        self.incarnation, self.wiping = incarnation, False
        self.rotten = self.suspect = self.doubted = False
        self.following, self.acked = "", 0
        self.partition.check_empty_may_be(self)

    def _new_incarnation(self) -> str:
        self.incarnations += 1
        return f"{self.pod}-i{self.incarnations}"

    def _may_fail(self, what: str) -> bool:
        """No fault takes the last good copy."""
        if what not in HARMLESS and not self.partition.others_are_good(self):
            return False
        self.struck.add(what)
        self.rotten |= what in ROT
        self.record.note("faults", f"{what} on {self.pod}", Mark.FAULT)
        self.partition.counts[what] += 1
        return True

    # --- what a store is asked for -----------------------------------------------------------------------------------

    def append(self, data: bytes) -> None:
        """A leader's batches, or a copy of them; the caller adds them to what is held."""
        self.do("appends", lambda store: store.append(data))

    def flush(self) -> None:
        self.do("flushes", lambda store: store.flush())
        end = self.held.log.end[1]
        if end > self.held.durable:
            self.held.durable = end
            self.note(f"has all to {end} on its disk", Mark.DISK)

    def commit(self, index: int) -> None:
        """As far as it is durable."""
        self.do("commits", lambda store: store.commit(index))
        held = self.held
        held.known = max(held.known, min(index, held.log.end[1]))
        before, held.applied = held.applied, max(held.applied, min(index, held.durable))
        if held.applied > before:
            self.note(f"commits to {held.applied}", Mark.COMMIT)

    def cut(self, after: int) -> None:
        """Until it is done both may be found, the log before and after."""
        self.note(f"cuts its log behind {after}", Mark.DISK)
        self.held.durable = min(self.held.durable, after)
        self.do("cuts", lambda store: store.cut(after))
        self.held.log.cut(after)
        self.partition.counts["cuts"] += 1

    def inherit(self, horizon: int, purged_to: int) -> None:
        """What comes is from a compacted log."""
        held = self.held
        if horizon > held.horizon or purged_to > held.purged_to:
            self.note(f"inherits: compacted to {horizon}, deletes gone to {purged_to}", Mark.DISK)
            held.may_purge = max(held.may_purge, purged_to)
            self.partition.counts["copies of compacted logs"] += 1
            self.do("inherits", lambda store: store.inherit(horizon, purged_to))
            held.horizon, held.purged_to = max(held.horizon, horizon), max(held.purged_to, purged_to)

    def save_state(self, number: int) -> None:
        """What replication must not forget."""
        new = {"accepted": number}
        self.keeping = new if self.store is not None else self.keeping
        self.do("saves its state", lambda store: store.save_state(new))
        self.kept, self.keeping = new, None

    def wipe(self) -> None:
        self.note("wipes its disk", Mark.DISK)
        self.wiping = True
        self.became_empty(self.do("wipes", lambda store: store.wipe_for_rebuild()))

    def close(self) -> None:
        """A clean end: all is written and synced."""
        self.do("closes", lambda store: store.close())
        self.held.durable = self.held.log.end[1]
        self.stop("ends cleanly")

    def check(self) -> None:
        """After an operation, if it had to do with this replica."""
        if self.touched and self.store is not None:
            self.do("is asked for all it has", lambda store: check(self, store))
            self.touched = False
