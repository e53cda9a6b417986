"""A disk that can't be opened: when it may be emptied, and what a person is told."""

import asyncio
from dataclasses import replace
from pathlib import Path

from kvcoord.contract import MemberInfo, PartitionState, ReplicaId
from kvcoord.memory import MemoryStore
from kvnode.damage import counts_on, incarnation_of, put_aside, remedy
from kvnode.registration import keep_registered, trouble_of
from kvstore.store import Store

STATE = PartitionState(2, None, (ReplicaId("a", "1"), ReplicaId("b", "1")), ("a", "b"), 1)


def test_the_in_sync_set_counts_on_the_incarnation_that_it_names() -> None:
    """Another incarnation of the pod is another disk."""
    assert counts_on(STATE, "a", "1")
    assert not counts_on(STATE, "a", "2")
    assert not counts_on(STATE, "c", "1")


def test_a_disk_that_does_not_know_who_it_is_may_be_any_of_its_pods() -> None:
    """Whatever incarnation of the pod is in sync may be on it."""
    assert counts_on(STATE, "a", None)
    assert not counts_on(STATE, "c", None)


def test_the_remedy_names_who_is_waited_for_or_the_command() -> None:
    """Nobody else has the data: a person decides."""
    assert "once b have taken it out" in remedy(STATE, "a")
    alone = PartitionState(2, None, (ReplicaId("a", "1"),), ("a", "b"), 1)
    assert "kvrecover --take" in remedy(alone, "a")


def test_files_are_put_aside_and_an_older_such_folder_goes(tmp_path: Path) -> None:
    """Nothing that a person may want is deleted the first time."""
    Store.open(tmp_path, cluster_id="c", partition=0).close()
    (tmp_path / "meta").write_bytes(b"rubbish")
    old = tmp_path / "damaged-20200101T000000"
    old.mkdir()
    (old / "meta").write_bytes(b"older")
    assert incarnation_of(tmp_path) is None
    aside = put_aside(tmp_path)
    assert (aside / "meta").read_bytes() == b"rubbish"
    assert [path.name for path in tmp_path.iterdir()] == [aside.name]
    with Store.open(tmp_path, cluster_id="c", partition=0) as store:
        assert store.end.index == 0


async def test_a_trouble_is_told_when_it_comes_and_when_it_goes() -> None:
    """The registration is replaced, nothing else of it changes."""
    store = MemoryStore()
    node, watcher = store.session(), store.session()
    await node.start()
    await watcher.start()
    member = MemberInfo("a", 0, ReplicaId("a", "1"), "r", "h:1", "h:2", "h:3")
    seen: list[str] = []
    now = ""
    telling = asyncio.create_task(keep_registered(node, lambda: replace(member, trouble=now), every=0.0))
    async for members in watcher.watch_members():
        if "a" in members:
            seen.append(members["a"].trouble)
            now = trouble_of("DiskFull", "no\n space") if len(seen) == 1 else ""
        if len(seen) == 3:
            break
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    assert seen == ["", "DiskFull: no space", ""]
