"""Who puts back what coordination lost, when it is lost again meanwhile."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from kvcommon.slotmap import SlotMap
from kvcoord.contract import ClusterIdentity, CoordinationUnavailableError, PartitionState, ReplicaId
from kvcoord.memory import MemoryStore
from kvcoord.recovery import Witness
from kvnode.core.doubt import Loss
from kvnode.shell.recovery import Recovery
from kvnode.shell.testimony import Answer, Kept

ME, LEADER = ReplicaId("c-p0-1", "disk"), ReplicaId("c-p0-0", "disk")
STATE = PartitionState(1, None, (LEADER, ME), ("c-p0-0", "c-p0-1"), min_in_sync=1, serial=3)
IDENTITY = ClusterIdentity("id", "c", 1, 2)
KEPT = Kept(IDENTITY, SlotMap.even(1))


class Replica:
    """Sees that the state it knows is lost, and hears the same of the leader; `meanwhile` happens as it asks."""

    loss: Loss | None = Loss.MISSING

    def __init__(self) -> None:
        self.meanwhile: Callable[[], Awaitable[None]] = self.look

    def testify(self) -> Answer:
        return Answer(0, Witness(ME, "r", True, STATE), KEPT)

    async def ask_others(self) -> list[Answer]:
        await self.meanwhile()
        return [Answer(0, Witness(LEADER, "r", True, STATE), KEPT)]

    async def look(self) -> None:
        """Nothing changes."""


class Lost:
    """Coordination's data as it is (`there`) when one replica, `late`, tries to put the state back."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.late, self.leader = self.store.session("late"), self.store.session("leader")
        self.replica = Replica()
        self.recovery = Recovery(0, self.replica, self.late)

    async def begin(self, *there: PartitionState) -> None:
        await self.late.start()
        await self.leader.start()
        for state in there:
            await self.leader.create_partition(0, state)

    async def put_back_by_others(self) -> None:
        """And changed, without the late one."""
        back = replace(STATE, serial=4, generation=2)
        there = await self.leader.read_partition(0)
        if there is None:
            version = 0
            await self.leader.create_partition(0, back)
        else:
            version = there.version + 1
            await self.leader.compare_and_set_partition(0, there.version, back)
        await self.leader.compare_and_set_partition(0, version, OTHERS)

    async def state(self) -> PartitionState | None:
        found = await self.leader.read_partition(0)
        return None if found is None else found.value


OTHERS = replace(STATE, serial=5, generation=2, in_sync=(LEADER,))
BACK = replace(STATE, serial=4, generation=2)
OLD = replace(STATE, in_sync=(LEADER,), serial=2)


@pytest.mark.parametrize("there", [(), (OLD,)])
async def test_what_was_heard_at_this_loss_is_put_back(there: tuple[PartitionState, ...]) -> None:
    """Of a state that is gone, or turned back to an older one."""
    lost = Lost()
    await lost.begin(*there)
    assert await lost.recovery.try_once() == ""
    assert await lost.state() == BACK
    assert await lost.leader.read_map() is not None
    assert await lost.leader.read_identity() == replace(IDENTITY, generation=2)


@pytest.mark.parametrize("there", [(), (OLD,)])
async def test_what_others_have_put_back_meanwhile_stays(there: tuple[PartitionState, ...]) -> None:
    lost = Lost()
    await lost.begin(*there)
    lost.replica.meanwhile = lost.put_back_by_others
    await lost.recovery.try_once()
    assert await lost.state() == OTHERS


@pytest.mark.parametrize("loss", Loss)
async def test_what_is_there_and_no_older_stays_whatever_was_seen_before(loss: Loss) -> None:
    """The loss that the replica saw may be one of other data."""
    lost = Lost()
    lost.replica.loss = loss
    await lost.begin(OTHERS)
    assert await lost.recovery.try_once() == ""
    assert await lost.state() == OTHERS


async def test_what_was_heard_at_one_loss_is_not_put_back_at_the_next() -> None:
    """Others have put the state back and changed it, without this replica; all that is lost once more."""
    lost = Lost()
    await lost.begin()

    async def lost_again() -> None:
        await lost.put_back_by_others()
        lost.store.put_back({})

    lost.replica.meanwhile = lost_again
    with pytest.raises(CoordinationUnavailableError, match="session is another"):
        await lost.recovery.try_once()
    assert await lost.state() is None
    assert await lost.leader.read_map() is None
    assert await lost.leader.read_identity() is None


async def test_what_was_read_of_one_copy_does_not_meet_the_version_of_another() -> None:
    """An older state was there; then all is lost, and what others put back has the version that was read."""
    lost = Lost()
    await lost.begin(OLD)

    async def begun_anew() -> None:
        lost.store.put_back({})
        await lost.leader.create_identity(IDENTITY)
        await lost.leader.create_map(SlotMap.even(1))
        await lost.leader.create_partition(0, OTHERS)

    lost.replica.meanwhile = begun_anew
    with pytest.raises(CoordinationUnavailableError, match="session is another"):
        await lost.recovery.try_once()
    assert await lost.state() == OTHERS
