"""What a store must show, whatever its disk did: compared with what the replica must hold."""

from typing import TYPE_CHECKING

from kvstore.batch import Record, iter_batches, iter_records
from kvstore.sessions import session_key
from kvstore.store import Store
from tests.simulation.store.written import State, fold, fold_in

if TYPE_CHECKING:
    from tests.simulation.store.replica import Replica

CLIENTS = [b"%016d" % i for i in range(2)]
SEQUENCES = 4


def check_opened(replica: "Replica", store: Store) -> None:
    """A start has found what it must, and nothing else. What is held is then what was found."""
    if store.incarnation != replica.incarnation:
        _check_new(replica, store)
    replica.wiping = False
    _check_state_kept(replica, store)
    held, end = replica.held, store.end.index
    log = held.log
    if end > log.end[1] or not log.is_end(end):
        replica.fail(10, f"its log ends at {end}; it was appended to {log.end[1]}")
    if end < held.durable:
        _check_lost(replica, store)
    log.cut(end)
    held.durable, held.known, held.applied = end, store.committed, store.applied
    if store.horizon < held.horizon or store.purged_to < held.purged_to:
        replica.fail(12, f"compacted to {store.horizon}, it says, but it was to {held.horizon}")
    held.horizon, held.purged_to = store.horizon, store.purged_to
    known = max(log.told(), min(store.horizon, end))
    committed = replica.partition.committed
    if not known <= store.applied <= committed:
        replica.fail(16, f"applied to {store.applied}; its log tells of {known}, and {committed} is committed")


def _check_new(replica: "Replica", store: Store) -> None:
    """Another replica: only after a wipe, and empty."""
    if replica.incarnation and not replica.wiping:
        replica.fail(22, f"is {store.incarnation} now, was {replica.incarnation}, and nobody had it wiped")
    if store.end.index or store.horizon:
        replica.fail(22, f"is {store.incarnation}, a new one, and has a log to {store.end.index}")
    replica.became_empty(store.incarnation)


def _check_state_kept(replica: "Replica", store: Store) -> None:
    found = dict(store.state)
    if found not in (replica.kept, replica.keeping):
        replica.fail(2, f"kept {found} of what replication must not forget; it had saved {replica.kept}")
    replica.kept, replica.keeping = found, None


def _check_lost(replica: "Replica", store: Store) -> None:
    """Only damage may take what was durable: at the log's very end, where it looks like a torn write, and is told of.

    Of what a start cuts that then ends in the middle, the next one knows nothing.
    """
    held, end = replica.held, store.end.index
    if not replica.rotten:
        replica.fail(22, f"its log ends at {end}; it had everything to {held.durable} on its disk")
    damaged = max(
        held.log.count(end) + 1, held.log.count(held.horizon)
    )  # batches in a copy of a compacted log are joined
    behind = held.log.batches[damaged : held.log.count(held.durable)]
    told = store.torn_bytes or replica.tries > 1
    if not told or any(b.header.commit > end for b in behind):
        replica.fail(22, f"takes damage behind {end} for a torn write; batches behind it say that it was committed")
    replica.partition.counts["durable records lost with a torn end"] += 1
    replica.partition.leaves(replica, f"has lost what it had behind {end}, and says so")


def check(replica: "Replica", store: Store) -> None:
    """Positions, and what it shows of each key."""
    held = replica.held
    found = (tuple(store.end), store.durable.index, store.applied, store.committed)
    expected = (held.log.end, held.durable, held.applied, max(held.known, store.commit_hint))
    if found != expected:
        replica.fail(11, f"end, durable, applied, committed are {found}; they must be {expected}")
    if store.epochs != held.log.epochs():
        replica.fail(3, f"says of its epochs {store.epochs}; they are {held.log.epochs()}")
    if store.applied > replica.partition.committed:
        replica.fail(16, f"shows records to {store.applied}; {replica.partition.committed} is committed")
    _check_horizon(replica, store)
    if store.applied >= store.horizon:
        _check_shown(replica, store, held.log.state(store.applied))


def _check_horizon(replica: "Replica", store: Store) -> None:
    held = replica.held
    if store.horizon < held.horizon or store.purged_to < held.purged_to:
        replica.fail(12, f"its horizon went back to {store.horizon}, {store.purged_to}")
    if store.purged_to > held.may_purge:
        replica.fail(13, f"deletes are gone to {store.purged_to}; not every replica has more than {held.may_purge}")
    replica.partition.counts["deletes let go"] += store.purged_to > held.purged_to
    held.horizon, held.purged_to = store.horizon, store.purged_to


def _check_shown(replica: "Replica", store: Store, expected: State) -> None:
    for key in replica.partition.keys:
        record = store.get(key)
        if record != expected.get(key):
            came_back = 13 if key not in expected else 11
            replica.fail(came_back, _differ("it", key, record, expected.get(key)))
    for client in CLIENTS:
        for sequence in range(SEQUENCES):
            session = expected.get(session_key(client, sequence))
            if store.sessions.lookup(client, sequence) != (session.value if session else None):
                replica.fail(14, f"has forgotten what became of batch {sequence} of {client!r}")


def check_log(replica: "Replica", store: Store, piece: int) -> None:
    """The log, read from its beginning in pieces: nothing but what was appended, and it folds to the same states."""
    log, found, position = replica.held.log, list[Record](), 0
    whole = {b.data for b in log.batches}
    while data := store.read(position, piece):
        for header, one in iter_batches(data):
            if header.first != position + 1:
                replica.fail(10, f"a batch from {header.first} behind index {position}")
            if one not in whole and header.last > store.horizon:
                replica.fail(3, f"the batch {header.first}..{header.last} has other bytes than were appended")
            found += iter_records(one)
            position = header.last
    if position != log.end[1]:
        replica.fail(10, f"its log can be read to {position}; it ends at {log.end[1]}")
    written = log.records()
    strange = set(found) - set(written)
    if strange:
        replica.fail(3, f"has a record of {min(strange).key!r} at index {min(strange).index}, which nobody wrote")
    _check_folds(replica, store, found, written)


def _check_folds(replica: "Replica", store: Store, found: list[Record], written: list[Record]) -> None:
    """Compacted and whole logs fold alike, from the horizon on; so does what a copier makes of both."""
    horizon, purged_to, end = store.horizon, store.purged_to, replica.held.log.end[1]
    ours: State = {}
    theirs: State = {}
    rest = iter([*found, None])
    at = next(rest)
    for record in written:
        fold_in(theirs, record)
        while at is not None and at.index <= record.index:
            fold_in(ours, at)
            at = next(rest)
        if record.index >= horizon and ours != theirs:
            replica.fail(
                13 if ours.keys() - theirs.keys() else 12, _differ_at(f"its log, to {record.index},", ours, theirs)
            )
    for after in {purged_to, horizon, (purged_to + horizon) // 2}:
        if end >= horizon:
            copy = fold([*(r for r in written if r.index <= after), *(r for r in found if r.index > after)])
            if copy != theirs:
                replica.fail(13, _differ_at(f"a copy of its log, by who had all to {after},", copy, theirs))


def _differ_at(whose: str, ours: State, theirs: State) -> str:
    key = min(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    return _differ(whose, key, ours.get(key), theirs.get(key))


def _differ(whose: str, key: bytes, found: Record | None, expected: Record | None) -> str:
    return f"{whose} gives {key!r} {_value(found)}; it must have {_value(expected)}"


def _value(record: Record | None) -> str:
    return "no value" if record is None else f"the value of index {record.index}"
