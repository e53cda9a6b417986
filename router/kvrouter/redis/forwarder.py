"""All partitions' routes, kept to what coordination says of map and leaders."""

import asyncio
from collections.abc import Callable, Mapping

from kvcommon.slotmap import SlotMap
from kvcoord.view import ClusterView
from kvrouter.redis.lanes import Lane
from kvrouter.redis.requests import Request
from kvrouter.redis.route import Dial, Route
from kvrouter.redis.turn import Turn


class Forwarder:
    """Made and used on one event loop; `view_changed` before anything else."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        dial: Dial,
        greeting: Callable[[int], bytes],
        unknown: bytes,
        rehome: Callable[[Lane, Request], None],
    ) -> None:
        """`greeting`, `unknown` and `rehome` are as for Route."""
        self.turn = Turn(loop)
        self.map_version = 0  # 0: none is known yet
        self.owners: tuple[int, ...] = ()
        self.partitions: tuple[int, ...] = ()
        self._loop = loop
        self._dial = dial
        self._greeting = greeting
        self._unknown = unknown
        self._rehome = rehome
        self._routes: dict[int, Route] = {}

    def view_changed(self, view: ClusterView) -> None:
        """Follow a new map and new leaders."""
        slot_map = view.slot_map
        if slot_map is None:
            return
        if slot_map.version != self.map_version:
            self._follow(slot_map)
        for partition, route in self._routes.items():
            route.lead(_leader_address(view, partition))

    def lane(self, owner: object, partition: int, number: int, protocol: int) -> Lane:
        """A new lane to a partition of the map."""
        return Lane(owner, self._routes[partition], number, protocol)

    def forget(self, lanes: Mapping[int, Lane]) -> None:
        """The client that these lanes, by partition, belong to has gone."""
        for partition, lane in lanes.items():
            self._routes[partition].forget(lane)

    def look(self, patience: int) -> None:
        """To be called at even intervals: ends connections to nodes that have been silent for so many of them."""
        for route in self._routes.values():
            route.look(patience)

    @property
    def waiting(self) -> int:
        """Lanes that wait for their partition's leader."""
        return sum(route.waiting for route in self._routes.values())

    def close(self) -> None:
        """End all connections."""
        for route in self._routes.values():
            route.close()

    def _follow(self, slot_map: SlotMap) -> None:
        self.map_version, self.owners, self.partitions = slot_map.version, slot_map.owners, slot_map.partitions
        for partition in slot_map.partitions:
            if partition not in self._routes:
                self._routes[partition] = Route(
                    partition,
                    loop=self._loop,
                    turn=self.turn,
                    dial=self._dial,
                    greeting=self._greeting,
                    unknown=self._unknown,
                    owner_of=lambda slot: self.owners[slot],
                    rehome=self._rehome,
                )


def _leader_address(view: ClusterView, partition: int) -> str:
    leader = view.leader_of(partition)
    return leader.redis_address if leader else ""
