"""The shell that drives a core: order of effects, defects, connections that end too soon."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvcommon.clock import SystemClock
from kvcoord.contract import MemberInfo, PartitionState, ReplicaId, RunId, Versioned
from kvcoord.memory import MemoryCoordination, MemoryStore
from kvnode.core import effects as ef
from kvnode.core import events as ev
from kvnode.core.messages import Go
from kvnode.core.types import Batch, Config, Meta, Role
from kvnode.shell.disk import Disk
from kvnode.shell.host import Host
from kvnode.shell.metafile import meta_from_json, meta_to_json
from kvnode.shell.transport import Connection
from kvstore.batch import RecordType, encode_batch
from kvstore.errors import StoreFailedError
from kvstore.store import Store, StoreOptions

ME = RunId(ReplicaId("a", "1"), "r")
OTHER = RunId(ReplicaId("b", "1"), "s")


class NoNetwork:
    """Connections that end before anyone has looked at them."""

    def __init__(self) -> None:
        self.dials = 0

    async def listen(self, make: Callable[[], Connection]) -> None:
        pass

    async def dial(self, address: str, make: Callable[[], Connection]) -> None:
        self.dials += 1
        make().connection_lost(None)

    async def close(self) -> None:
        pass


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    options = StoreOptions(durability="memory", new_incarnation=lambda: "1")
    coordination = MemoryStore().session()
    await coordination.start()
    with Store.open(tmp_path, cluster_id="c", partition=0, options=options) as store:
        host = Host(
            Config("c", 0, ME),
            store,
            coordination=coordination,
            network=NoNetwork(),
            clock=SystemClock(),
            disk=Disk,
        )
        yield host
        await host.close()


def answers(host: Host, monkeypatch: pytest.MonkeyPatch, *effects: ef.Effect) -> None:
    """Make the core answer the next event with these effects, and later ones with none."""
    rest = [list(effects)]
    monkeypatch.setattr(host.core, "step", lambda *_: rest.pop(0) if rest else [])


def broken(*_: Any) -> list[ef.Effect]:
    raise RuntimeError("defect")


async def test_a_defect_in_a_step_ends_the_process(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the node learns of it, and the replica does nothing more."""
    monkeypatch.setattr(host.core, "step", broken)
    with pytest.raises(RuntimeError, match="defect"):
        host.step(ev.Tick())
    with pytest.raises(RuntimeError, match="defect"):
        await host.rebuild
    host.step(ev.Tick())


async def test_a_defect_while_a_message_is_taken_ends_the_process(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise asyncio would only close the connection."""
    connection = Connection(1, host, dialed=False)
    host.accepted(connection)
    monkeypatch.setattr(host.core, "step", broken)
    with pytest.raises(RuntimeError):
        host.received(connection, Go(1, OTHER))
    assert host.rebuild.done()
    assert isinstance(host.rebuild.exception(), RuntimeError)


async def test_a_defect_in_the_background_ends_the_process(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that ended would leave the replica blind."""
    monkeypatch.setattr(host._coordination, "watch_deaths", broken)
    await host.start()
    with pytest.raises(RuntimeError, match="defect"):
        await host.rebuild


async def test_the_disk_begins_once_a_step_has_sent_and_before_it_applies(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that the step appends, in one flush; but what was committed before is not worth waiting for."""
    done: list[str] = []

    def append(e: ef.Write) -> None:
        host._disk.appended = True
        done.append(f"append {e.batch.first}")

    def begin() -> None:
        host._disk.appended = False
        done.append("begin")

    host._handlers[ef.Write] = append
    host._handlers[ef.Send] = lambda _: done.append("send")
    monkeypatch.setattr(host._disk, "begin", begin)
    monkeypatch.setattr(host.store, "commit", lambda index: done.append(f"apply {index}"))
    writes = [ef.Write(Batch(1, n, n, b"")) for n in (1, 2, 3)]
    answers(host, monkeypatch, writes[0], writes[1], ef.Send(1, Go(1, ME)))
    host.step(ev.Tick())
    assert done == ["append 1", "append 2", "send", "begin"]
    done.clear()
    answers(host, monkeypatch, writes[2], ef.Committed(2, enough=True))
    host.step(ev.Tick())
    assert done == ["append 3", "begin", "apply 2"]


async def test_effects_are_carried_out_in_their_order(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """And events that they cause come after all of them."""
    done: list[str] = []
    for kind in (ef.Persist, ef.Send, ef.Committed):
        host._handlers[kind] = lambda e: done.append(type(e).__name__)

    def read_state(_: ef.ReadState) -> None:
        done.append("ReadState")
        host.step(ev.Tick())

    host._handlers[ef.ReadState] = read_state
    steps = [[ef.ReadState(), ef.Persist(host.core.common.meta), ef.Committed(1, enough=True)], [ef.Send(1, Go(1, ME))]]
    monkeypatch.setattr(host.core, "step", lambda *_: steps.pop(0))
    host.step(ev.Tick())
    assert done == ["ReadState", "Persist", "Committed", "Send"]


async def test_a_connection_that_ended_at_once_was_not_made(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The core would wait for an answer on it for seconds."""
    events: list[ev.Event] = []
    host.members = {"b": MemberInfo("b", 0, OTHER.replica, "s", "", "h:1", "")}
    monkeypatch.setattr(host, "step", events.append)
    await host._dial(OTHER)
    assert events == [ev.DialFailed(OTHER)]
    assert host._connections == {}


async def test_another_run_at_the_leaders_address_is_not_dialed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses are reused."""
    events: list[ev.Event] = []
    host.members = {"b": MemberInfo("b", 0, OTHER.replica, "later", "", "h:1", "")}
    monkeypatch.setattr(host, "step", events.append)
    await host._dial(OTHER)
    assert events == [ev.DialFailed(OTHER)]


async def test_a_position_inside_a_batch_ends_that_connection_only(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower's nonsense does not end its leader."""
    records = [(int(RecordType.PUT), b"k", b"v", 1, 0)] * 3
    host.store.append(encode_batch(1, 1, 0, records))
    answers(host, monkeypatch, ef.ReadLog(1, 2))
    host.step(ev.Tick())
    assert not host.rebuild.done()


async def test_a_log_that_can_not_be_read_makes_the_replica_go(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a failed write."""

    def failing(*_: object) -> bytes:
        raise StoreFailedError("broken")

    monkeypatch.setattr(host.store, "read", failing)
    with monkeypatch.context() as one:
        answers(host, one, ef.ReadLog(1, 0))
        host.step(ev.Tick())
    await asyncio.sleep(0)
    assert host.core.role is Role.FAILED
    assert "broken" in host.core.failure


async def test_a_failed_replica_writes_nothing_more_to_its_disk(host: Host) -> None:
    """What it learns of the state is for its own rebuilding only."""
    host.step(ev.WriteFailed("broken"))
    host.store._failure = StoreFailedError("broken")
    out = PartitionState(3, OTHER, (OTHER.replica,), ("a", "b"), 1, serial=9)
    host.step(ev.StateSeen(out, 9))
    assert "disk failed" in await host.rebuild
    host.store._failure = None


async def test_a_disk_that_fails_as_it_is_told_that_it_is_excluded_does_not_keep_a_replica_from_being_rebuilt(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state that excludes it can't be kept, so what follows from it is not done; it is known all the same."""
    another_run = RunId(ME.replica, "of which its disk knows nothing")
    host.step(ev.StateSeen(PartitionState(2, another_run, (ME.replica, OTHER.replica), ("a", "b"), 1, serial=2), 2))

    def failing(_: object) -> None:
        raise StoreFailedError("broken")

    monkeypatch.setattr(host.store, "save_state", failing)
    host.step(ev.StateSeen(PartitionState(3, OTHER, (OTHER.replica,), ("a", "b"), 1, serial=3), 3))
    assert "disk failed" in await asyncio.wait_for(host.rebuild, 5)


async def test_after_close_nothing_is_taken(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late callbacks of a closed replica find nothing to harm."""
    await host.close()
    monkeypatch.setattr(host.core, "step", broken)
    host.step(ev.Tick())
    assert not host.rebuild.done()


def test_meta_comes_back_from_json() -> None:
    """All of it, with a state and without."""
    state = PartitionState(3, OTHER, (OTHER.replica, ME.replica), ("a", "b"), 1, serial=9, generation=2)
    meta = meta_from_json({"accepted_epoch": 3, "state": None, "state_version": -1})
    assert meta_from_json(meta_to_json(meta)) == meta
    full = type(meta)(4, state, 12, replace(state, serial=10), ("r7", "r8"))
    assert meta_from_json(meta_to_json(full)) == full


def test_meta_of_a_release_that_did_not_note_claims_knows_that_of_its_state() -> None:
    """Else a leader would take its own disk for an older copy after an upgrade."""
    state = PartitionState(3, ME, (ME.replica, OTHER.replica), ("a", "b"), 1)
    blob = meta_to_json(Meta(3, state, 4))
    del blob["claims"]
    assert meta_from_json(blob).claims == (ME.run,)


async def test_a_change_of_the_state_does_not_outlive_the_session_in_which_the_state_was_read(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is put back after the loss has the versions of before: the change would meet one of them."""
    coordination = host._coordination
    assert isinstance(coordination, MemoryCoordination)
    state = PartitionState(1, ME, (ME.replica,), ("a", "b"), min_in_sync=1)
    await coordination.create_partition(0, state)
    read = coordination.read_partition

    async def lost_as_it_is_read(partition: int) -> Versioned[PartitionState] | None:
        found = await read(partition)
        coordination.expire()
        return found

    seen: list[ev.Event] = []
    monkeypatch.setattr(coordination, "read_partition", lost_as_it_is_read)
    monkeypatch.setattr(host, "step", seen.append)
    await host._compare_and_set(ef.CompareAndSet(0, replace(state, serial=2)))
    assert seen == [ev.CasAnswered(0, None)]
    assert await read(0) == Versioned(state, 0)


@pytest.mark.parametrize("older", [{"generation": 1, "serial": 3}, {"generation": 2, "serial": 4}])
async def test_a_change_of_the_state_does_not_meet_an_older_one_of_the_same_version(
    host: Host, older: dict[str, int]
) -> None:
    """The data was turned back: who knows better may know more than this replica, which is for rule 19 to find out."""
    state = PartitionState(1, ME, (ME.replica,), ("a", "b"), min_in_sync=1, generation=2, serial=5)
    there = replace(state, **older)  # type: ignore[arg-type]
    coordination = host._coordination
    await coordination.create_partition(0, there)
    await host._compare_and_set(ef.CompareAndSet(0, replace(state, serial=6)))
    assert await coordination.read_partition(0) == Versioned(there, 0)
    await host._compare_and_set(ef.CompareAndSet(0, replace(there, serial=there.serial + 1)))
    assert await coordination.read_partition(0) == Versioned(replace(there, serial=there.serial + 1), 1)
