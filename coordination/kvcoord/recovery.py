"""How a partition's lost state is rebuilt from what its replicas keep on disk (rule 19). Pure: testimonies in, verdict out.

A replica syncs every state before it acts on it, and a leader an addition before it tries it. So whatever was acted on
is known to a member of the in-sync set that it followed, or to one that an addition named: when all of these have
testified, and none knows a newer state, there is none. Each testifies while it sees the loss itself, and acts on no state
until it sees a newer one; so what was true when the first was asked is true when the state is put back.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from kvcoord.contract import PartitionState, ReplicaId


@dataclass(frozen=True, slots=True)
class Witness:
    """What one replica says. `tried`: an addition of its own that is not settled. `end`: (epoch, index) of its log."""

    replica: ReplicaId
    run: str
    lost: bool  # it sees the loss, too, and acts on nothing
    state: PartitionState | None
    tried: PartitionState | None = None
    accepted_epoch: int = 0
    end: tuple[int, int] = (0, 0)


def newest_state(testimonies: Collection[Witness]) -> PartitionState | None:
    """The newest state that anyone knows; None if nobody knows any."""
    states = [t.state for t in testimonies if t.state is not None]
    return max(states, key=lambda s: s.age, default=None)


def rebuilt(testimonies: Collection[Witness], *, missing: bool) -> PartitionState | str:
    """The state to put back, or why it can't be, for a person.

    `missing`: nothing is there; otherwise an older state is, and who knows no better than that need not see a loss.
    """
    newest = newest_state(testimonies)
    if newest is None:
        return "no replica that answers knows a state of this partition"
    if any(t.state is not None and t.state.age == newest.age and t.state != newest for t in testimonies):
        return f"replicas know different states of serial {newest.serial}: a person must choose one (kvrecover)"
    wanted = set(newest.in_sync)
    for t in testimonies:
        if t.tried is not None and t.tried.age > newest.age:
            wanted |= set(t.tried.in_sync)
    silent = sorted(wanted - {t.replica for t in testimonies})
    if silent:
        return (
            f"{', '.join(map(str, silent))} may know a newer state than serial {newest.serial} and can't be asked; "
            "bring it back, or let a person choose (kvrecover)"
        )
    if missing:
        # Who has never known a state misses none, and has acted on none.
        content = sorted(t.replica for t in testimonies if t.replica in wanted and not t.lost and t.state is not None)
        if content:
            return f"{', '.join(map(str, content))} sees no loss: it may use other coordination data than this replica"
    return _next_generation(newest)


def chosen(testimonies: Collection[Witness], pod: str, there: PartitionState | None) -> PartitionState | str:
    """The state that a person's word makes: this pod's replica alone is in sync, and claims. What others have is given up.

    `there` is what coordination has now. A text says why it can't be.
    """
    taken = next((t for t in testimonies if t.replica.pod == pod), None)
    known = [*(t.state for t in testimonies if t.state is not None), *([there] if there else [])]
    if taken is None:
        return f"{pod} does not answer"
    if not known:
        return "no replica that answers knows a state of this partition"
    newest = max(known, key=lambda s: s.age)
    epoch = max([newest.epoch, *(s.epoch for s in known), *(t.accepted_epoch for t in testimonies)])
    return replace(_next_generation(newest), epoch=epoch, leader=None, in_sync=(taken.replica,))


def _next_generation(state: PartitionState) -> PartitionState:
    return replace(state, generation=state.generation + 1, serial=state.serial + 1)
