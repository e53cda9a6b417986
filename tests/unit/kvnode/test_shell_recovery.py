"""Who puts back what coordination lost, when it is lost again meanwhile."""

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
KEPT = Kept(ClusterIdentity("id", "c", 1, 2), SlotMap.even(1))


class Replica:
    """Sees the loss of a state that it knows, and hears the same of the leader; `meanwhile` happens as it asks."""

    loss = (Loss.MISSING, -1)

    def __init__(self) -> None:
        self.looks = 0
        self.meanwhile = self.look

    def testify(self) -> Answer:
        return Answer(0, Witness(ME, "r", True, STATE), KEPT)

    async def ask_others(self) -> list[Answer]:
        await self.meanwhile()
        return [Answer(0, Witness(LEADER, "r", True, STATE), KEPT)]

    async def look(self) -> None:
        self.looks += 1


async def test_what_was_heard_at_one_loss_is_not_put_back_at_the_next() -> None:
    """Others have put the state back and changed it, without this replica; all that is lost once more."""
    store = MemoryStore()
    late, leader = store.session("late"), store.session("leader")
    await late.start()
    await leader.start()
    replica = Replica()

    async def lost_again() -> None:
        back = replace(STATE, serial=4, generation=2)
        await leader.create_partition(0, back)
        await leader.compare_and_set_partition(0, 0, replace(back, in_sync=(LEADER,), serial=5))
        store.put_back({})
        for session in store.sessions:
            session.expire()

    replica.meanwhile = lost_again
    recovery = Recovery(0, replica, late)
    with pytest.raises(CoordinationUnavailableError, match="session is another"):
        await recovery.try_once()
    assert await leader.read_partition(0) is None


async def test_what_was_heard_at_this_loss_is_put_back() -> None:
    session = MemoryStore().session()
    await session.start()
    replica = Replica()
    assert await Recovery(0, replica, session).try_once() == ""
    found = await session.read_partition(0)
    assert found is not None
    assert found.value == replace(STATE, serial=4, generation=2)
    assert replica.looks == 1
