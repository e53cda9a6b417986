"""One run: the seed's operations one after the other, then no more trouble, and everybody must have the same."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import structlog

from kvstore.batch import RecordType
from kvstore.errors import CutBelowCommitError
from kvstore.sessions import session_key
from kvstore.store import Store
from tests.simulation.record import Record, SimulationError
from tests.simulation.report import Report
from tests.simulation.schedule import Asked, Options, Struck
from tests.simulation.store.checks import CLIENTS, SEQUENCES, check_log
from tests.simulation.store.partition import Partition
from tests.simulation.store.plan import Operation, operations
from tests.simulation.store.replica import GoneError, Replica
from tests.simulation.timeline import Mark
from tests.support.faulty_files import CrashError

ROUNDS = 12  # after the last operation, until all have everything


class World:
    """All parts of a run."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.record = Record(options.seed, verbose=options.verbose)
        self.partition = Partition(options, self.record)
        self.counts = self.partition.counts
        self.struck: list[Struck] = []
        self.asked: list[Asked] = []
        self.rng = Random()
        """The randomness of the operation under way."""

    @property
    def replicas(self) -> list[Replica]:
        return self.partition.replicas

    def run(self) -> None:
        """Raises SimulationError."""
        for replica in self.replicas:
            replica.start()
        for operation in operations(self.options):
            self.record.now = operation.at
            self._note(operation)
            self._do(operation)
        self.record.now = self.options.seconds
        self._settle()

    def _note(self, operation: Operation) -> None:
        if operation.fault:
            self.struck.append(Struck(operation.number, operation.at, operation.kind))
            self.counts[f"fault {operation.kind}"] += 1
        else:
            self.asked.append(Asked(operation.replica, operation.number, operation.at))

    def _do(self, operation: Operation) -> None:
        self.rng = operation.rng(self.options.seed)
        replica = self.replicas[operation.replica]
        carry_out: Callable[[Replica], None] = getattr(self, "_" + operation.kind.replace(" ", "_"))
        with suppress(GoneError):
            carry_out(replica)
        for each in self.replicas:
            with suppress(GoneError):
                each.check()

    # --- what is asked of stores -------------------------------------------------------------------------------------

    def _write(self, _: Replica) -> None:
        self.partition.propose(
            *([self._change() for _ in range(self.rng.randint(1, 4))] for _ in range(self.rng.randint(1, 3)))
        )
        self.counts["batches"] += 1

    def _change(self) -> tuple[RecordType, bytes, bytes]:
        rng, value = self.rng, self.rng.randbytes(self.rng.randrange(60))
        kind = rng.choices([RecordType.PUT, RecordType.DELETE, RecordType.SESSION], [5, 3, 1])[0]
        if kind == RecordType.SESSION:
            return kind, session_key(rng.choice(CLIENTS), rng.randrange(SEQUENCES)), value
        return kind, rng.choice(self.partition.keys), value if kind == RecordType.PUT else b""

    def _flush(self, replica: Replica) -> None:
        replica.flush()
        self.partition.acknowledge(replica)

    def _feed(self, replica: Replica) -> None:
        self.partition.feed(replica, self.rng.choice([1, 200, 1 << 20]))

    def _commit(self, replica: Replica) -> None:
        """The leader, as far as it can or less, or a follower as far as the leader."""
        if replica is self.partition.leader:
            self.partition.commit(upto=self.rng.choice([1.0, self.rng.random()]))
        else:
            self.partition.follow_commit(replica)

    def _in_step(self, _: Replica) -> None:
        """A write goes all the way."""
        self._write(_)
        for replica in self.replicas:
            with suppress(GoneError):
                self._feed(replica)
                self._flush(replica)
        self.partition.commit()
        for replica in self.replicas:
            with suppress(GoneError):
                self.partition.follow_commit(replica)

    def _tidy(self, replica: Replica) -> None:
        """Hints and compaction, in pieces."""
        passed = self.partition.tell_passed()
        replica.held.may_purge = max(replica.held.may_purge, passed)
        for _ in range(self.rng.choice([1, 2, 5])):
            done = replica.do("tidies its log", lambda store: _maintain(store, passed))
            if not done:
                break
            replica.note(done, Mark.DISK)
            self.counts["pieces of upkeep"] += 1

    def _read_the_log(self, replica: Replica) -> None:
        replica.do("reads its log", partial(check_log, replica, piece=self.rng.choice([200, 1 << 20])))

    def _verify(self, replica: Replica) -> None:
        replica.do("verifies a segment", lambda store: store.verify())

    def _save_state(self, replica: Replica) -> None:
        replica.save_state(self.rng.randrange(1 << 20))

    def _join(self, replica: Replica) -> None:
        self.partition.join(replica)

    def _start(self, replica: Replica) -> None:
        if replica.store is None and self.record.now >= replica.away_until:
            replica.files.capacity = None
            replica.start()
            if replica not in self.partition.named:
                self.partition.named.append(replica)

    def _restart(self, replica: Replica) -> None:
        replica.close()
        replica.start()

    def _lead(self, replica: Replica) -> None:
        partition = self.partition
        if (
            replica in partition.in_sync
            and replica is not partition.leader
            and replica.store is not None
            and replica.whole
        ):
            partition.lead(replica)

    def _cut_too_deep(self, replica: Replica) -> None:
        """Whoever asks for it is wrong, and is refused."""
        floor = max(replica.held.known, min(replica.held.horizon, replica.held.log.end[1]))
        if not floor:
            return
        after = self.rng.choice([0, *(b.last for b in replica.held.log.batches if b.last < floor)])
        if not replica.do("is to cut what is committed", lambda store: _is_refused(store, after)):
            replica.fail(9, f"cut its log behind {after}; it knows that {floor} is committed")

    # --- trouble -----------------------------------------------------------------------------------------------------

    def _kill(self, replica: Replica) -> None:
        if replica.store is not None:
            replica.stop("is killed")

    def _power_off(self, replica: Replica) -> None:
        if replica.store is not None:
            replica.lose_power()

    def _power_off_in_the_middle(self, replica: Replica) -> None:
        """Of what its store does next."""
        replica.files.crash_in = self.rng.randint(1, 20)

    def _power_off_in_upkeep(self, replica: Replica) -> None:
        replica.files.crash_in = self.rng.randint(1, 12)
        self._tidy(replica)

    def _power_off_in_a_start(self, replica: Replica) -> None:
        self._power_off(replica)
        replica.files.crash_in = self.rng.randint(1, 12)
        self._start(replica)

    def _power_off_of_all(self, _: Replica) -> None:
        for replica in self.replicas:
            self._power_off(replica)

    def _failed_sync(self, replica: Replica) -> None:
        replica.files.failing_syncs = 1

    def _failed_write(self, replica: Replica) -> None:
        replica.files.failing_writes = 1

    def _no_room(self, replica: Replica) -> None:
        replica.files.capacity = sum(replica.files.sizes()) + self.rng.choice([0, 100, 1000])

    def _unreadable_place(self, replica: Replica) -> None:
        self._damage(replica, None)

    def _turned_bit(self, replica: Replica) -> None:
        self._damage(replica, self.rng.randrange(8))

    def _damage(self, replica: Replica, bit: int | None) -> None:
        """Somewhere; it is met when it is read, if ever."""
        place = self._place(replica, newest=0.5)
        if place is not None:
            replica.files.damage(*place, bit)
            how = "can't be read" if bit is None else "reads wrongly"
            self.record.note("faults", f"{place[0].name} of {replica.pod} {how} at {place[1]}", Mark.FAULT)

    def _turned_bit_at_rest(self, replica: Replica) -> None:
        """The process has ended, and starts again. Often it is where torn writes are."""
        place = self._place(replica, newest=0.6)
        if place is None or not self.partition.others_are_good(replica):
            return
        self._kill(replica)
        replica.rotten = True
        replica.files.flip(*place, self.rng.randrange(8))
        self.record.note("faults", f"a bit of {place[0].name} of {replica.pod} turns, at {place[1]}", Mark.FAULT)
        self._start(replica)

    def _place(self, replica: Replica, *, newest: float) -> tuple[Path, int] | None:
        """A file, with this probability the log's last, and an offset; None while there is damage already."""
        written = ((path, len(data.rstrip(b"\0"))) for path, data in sorted(replica.files.snapshot().items()))
        found = [(path, length) for path, length in written if length]
        if not found or replica.files.troubled or not replica.good:
            return None
        last = [place for place in found if place[0].suffix == ".log"][-1:]
        path, length = self.rng.choice((last * (self.rng.random() < newest)) or found)
        return path, self.rng.randrange(length)

    def _wipe(self, replica: Replica, *, unlucky: float = 0.5) -> None:
        """It becomes another replica, first of all one whose disk is damaged; perhaps the power goes off meanwhile."""
        partition = self.partition
        replica = next((r for r in self.replicas if not r.good), replica)
        if replica.store is not None and partition.others_are_good(replica):
            partition.leaves(replica, "it is to be rebuilt")
            if self.rng.random() < unlucky:
                replica.files.crash_in = self.rng.randint(1, 8)
            replica.wipe()

    def _long_away(self, replica: Replica) -> None:
        """It is taken out of the partition meanwhile: nothing waits for it."""
        partition = self.partition
        if len(partition.named) > 1 and partition.others_are_good(replica):
            self._kill(replica)
            partition.leaves(replica, "it is away")
            partition.named = [r for r in partition.named if r is not replica]
            replica.away_until = self.record.now + self.rng.uniform(2.0, 6.0)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Without faults all come to have the same, in this run and the next."""
        partition = self.partition
        self.record.note("world", "no more faults", Mark.HEAL)
        for replica in self.replicas:
            replica.files.heal()
            replica.files.capacity = replica.files.crash_in = None
            replica.away_until = 0.0
        for _ in range(ROUNDS):
            for replica in self.replicas:
                with suppress(GoneError):
                    self._one_round(replica)
            if len(partition.in_sync) == len(self.replicas) and self._all_alike():
                break
        else:
            self.record.fail("partition", 24, f"not all have the same after {ROUNDS} rounds without faults")
        for replica in self.replicas:
            replica.do("reads its log", partial(check_log, replica, piece=1 << 20))
            replica.close()
            replica.start()
            replica.check()

    def _one_round(self, replica: Replica) -> None:
        self._start(replica)
        if not replica.good:
            self._wipe(replica, unlucky=0.0)
        partition = self.partition
        partition.feed(replica, 1 << 20)
        self._flush(replica)
        partition.join(replica)
        partition.commit()
        partition.follow_commit(replica)
        while replica.do("tidies its log", lambda store: store.maintain()):
            pass
        replica.check()

    def _all_alike(self) -> bool:
        ends = {r.held.log.end for r in self.replicas}
        return len(ends) == 1 and all(
            r.held.applied == self.partition.committed == r.held.log.end[1] for r in self.replicas
        )


def _maintain(store: Store, passed: int) -> str:
    """The next piece of work, and what it was."""
    store.allow_purge(passed)
    before = store.progress.compactions
    if not store.maintain():
        return ""
    compacted = f"compacted its log, to {store.horizon}, deletes gone to {store.purged_to}"
    return compacted if store.progress.compactions > before else "tidied its log"


def _is_refused(store: Store, after: int) -> bool:
    try:
        store.cut(after)
    except CutBelowCommitError:
        return True
    return False


@contextmanager
def _silent() -> Iterator[None]:
    """What the store logs is not for this run's reader."""

    def drop(*_: Any) -> Any:
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[drop])
    try:
        yield
    finally:
        structlog.configure(**before)


def simulate(options: Options) -> Report:
    """One whole run."""
    world, failure = World(options), None
    with _silent():
        try:
            world.run()
        except SimulationError as e:
            failure = e.failure
        except (Exception, CrashError) as e:
            failure = world.record.raised("world", "the run", e)
    return Report(
        options,
        failure,
        tuple(world.record.timeline.lines),
        tuple(world.struck),
        tuple(world.asked),
        len(world.asked),
        world.partition.committed,
        dict(world.counts),
        0.0,
    )
