"""What one process knows of the cluster through coordination: map, partition states, members; newest wins.

Routers, nodes and the operator keep one. While the service is away the view stays what it was; a member that vanished
keeps its last address, marked as not connected, until its pod registers again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from kvcommon.slotmap import SlotMap
from kvcoord.contract import ClusterIdentity, Coordination, MemberInfo, PartitionState, Versioned

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ClusterView:
    """A frozen picture. `members` hold everyone ever seen; `connected` the pods whose session is alive."""

    identity: ClusterIdentity | None = None
    slot_map: SlotMap | None = None
    partitions: Mapping[int, Versioned[PartitionState]] = field(default_factory=dict)
    members: Mapping[str, MemberInfo] = field(default_factory=dict)
    connected: frozenset[str] = frozenset()

    @property
    def complete(self) -> bool:
        """Whether the map and the state of each of its partitions are known."""
        return self.slot_map is not None and all(p in self.partitions for p in self.slot_map.partitions)

    def leader_of(self, partition: int) -> MemberInfo | None:
        """The member that leads a partition, where its address is known and is that of the leading run."""
        state = self.partitions.get(partition)
        leader = state.value.leader if state else None
        member = self.members.get(leader.replica.pod) if leader else None
        return member if member and leader and member.run == leader.run else None


class ClusterWatch:
    """Keeps a ClusterView current. `view` is replaced, never changed; `on_change` is called after each replacement."""

    def __init__(self, coordination: Coordination, on_change: Callable[[ClusterView], None] | None = None) -> None:
        self._coordination = coordination
        self._on_change = on_change
        self._tasks: list[asyncio.Task[None]] = []
        self._watched: set[int] = set()
        self._changed = asyncio.Event()
        self.view = ClusterView()

    def start(self) -> None:
        """Begin to watch."""
        self._spawn(self._watch_map(), "map")
        self._spawn(self._watch_members(), "members")

    async def close(self) -> None:
        """Stop watching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def changes(self) -> AsyncIterator[ClusterView]:
        """The view now, and again whenever it changed (changes in quick succession may be seen as one)."""
        while True:
            changed, seen = self._changed, self.view
            yield seen
            if self.view is seen:
                await changed.wait()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=f"watch {name}"))

    def _replace(self, view: ClusterView) -> None:
        self.view = view
        self._changed.set()
        self._changed = asyncio.Event()
        if self._on_change is not None:
            self._on_change(view)

    async def _watch_map(self) -> None:
        async for versioned in self._coordination.watch_map():
            if versioned is None:
                continue
            if self.view.identity is None:
                identity = await self._read_identity()  # other watches may replace the view meanwhile
                self.view = replace(self.view, identity=identity)
            slot_map, known = versioned.value, self.view.slot_map
            if known is not None and slot_map.version < known.version:
                continue  # the data was turned back
            for partition in slot_map.partitions:
                if partition not in self._watched:
                    self._watched.add(partition)
                    self._spawn(self._watch_partition(partition), f"partition {partition}")
            self._replace(replace(self.view, slot_map=slot_map))

    async def _read_identity(self) -> ClusterIdentity | None:
        try:
            return await self._coordination.read_identity()
        except Exception as e:  # the name is for people; the next map change asks again
            log.info("cluster identity not read", error=str(e))
            return None

    async def _watch_partition(self, partition: int) -> None:
        async for versioned in self._coordination.watch_partition(partition):
            known = self.view.partitions.get(partition)
            if versioned is None or (known is not None and versioned.value.age <= known.value.age):
                continue  # a state that was put back is newer than any that was lost, whatever its serial (rule 19)
            self._replace(replace(self.view, partitions={**self.view.partitions, partition: versioned}))

    async def _watch_members(self) -> None:
        async for members in self._coordination.watch_members():
            merged = {**self.view.members, **members}
            self._replace(replace(self.view, members=merged, connected=frozenset(members)))
