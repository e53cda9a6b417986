import asyncio
from dataclasses import replace

from kvcommon.slotmap import SlotMap
from kvcoord.contract import ClusterIdentity, PartitionState, Won
from kvcoord.memory import FINE, Call, Fate, MemoryStore
from kvcoord.view import ClusterView, ClusterWatch
from tests.unit.kvcoord.contract_suite import STATE, member


async def seen(watch: ClusterWatch, pods: int) -> ClusterView:
    async for view in watch.changes():
        if view.complete and len(view.connected) == pods and view.identity is not None:
            return view
    raise AssertionError("changes never end")


async def test_a_slow_answer_to_one_question_loses_no_answer_to_another() -> None:
    def slow_identity(call: Call) -> Fate:
        return Fate(delay=0.1) if (call.operation, call.target) == ("read", "identity") else FINE

    store = MemoryStore()
    writer = store.session("writer")
    await writer.start()
    await writer.create_identity(ClusterIdentity("id", "c", 1, 3))
    await writer.create_map(SlotMap.even(1))
    await writer.create_partition(0, STATE)
    await writer.register_member(member())
    store.hook = slow_identity
    reader = store.session("reader")
    await reader.start()
    watch = ClusterWatch(reader)
    watch.start()
    async with asyncio.timeout(5):
        view = await seen(watch, 1)
    assert set(view.members) == {member().pod}
    assert view.identity == ClusterIdentity("id", "c", 1, 3)
    await watch.close()
    await reader.close()
    await writer.close()


async def test_a_member_that_went_keeps_its_last_address_unconnected() -> None:
    store = MemoryStore(session_timeout=0.05)
    writer, reader = store.session("writer"), store.session("reader")
    await writer.start()
    await reader.start()
    await writer.create_identity(ClusterIdentity("id", "c", 1, 3))
    assert isinstance(await writer.create_map(SlotMap.even(1)), Won)
    await writer.create_partition(0, STATE)
    await writer.register_member(member())
    watch = ClusterWatch(reader)
    watch.start()
    async with asyncio.timeout(5):
        await seen(watch, 1)
        await writer.close()
        view = await seen(watch, 0)
    assert view.members[member().pod].grpc_address == member().grpc_address
    await watch.close()
    await reader.close()


async def test_a_view_follows_what_is_put_back_after_the_data_was_turned_back() -> None:
    """At a lower version of the same cell, with a serial that is no higher: the generation says that it is newer (rule 19)."""
    store = MemoryStore()
    writer, reader = store.session("writer"), store.session("reader")
    await writer.start()
    await reader.start()
    await writer.create_map(SlotMap.even(1))
    await writer.create_partition(0, STATE)
    old, states = store.cells(), [replace(STATE, serial=STATE.serial + n) for n in range(1, 5)]
    for version, state in enumerate(states):
        assert isinstance(await writer.compare_and_set_partition(0, version, state), Won)
    watch = ClusterWatch(reader)
    watch.start()
    async with asyncio.timeout(5):
        await until(watch, states[-1])
        store.put_back(old)
        back = replace(states[1], generation=STATE.generation + 1)
        assert isinstance(await writer.compare_and_set_partition(0, 0, back), Won)
        await until(watch, back)
    await watch.close()
    await reader.close()
    await writer.close()


async def until(watch: ClusterWatch, state: PartitionState) -> None:
    """The view has it."""
    async for view in watch.changes():
        if 0 in view.partitions and view.partitions[0].value == state:
            return
