"""Where the router's own engine learns the map: from coordination."""

from collections.abc import AsyncIterator

from kvcoord.topology import topology_of
from kvcoord.view import ClusterWatch
from kvproto.v1 import cluster_pb2


class CoordinationSource:
    """The engine's topology source: coordination itself, so there is nobody else to ask.

    While coordination is away the last known view stays. It is a `kvclient.transport.TopologySource`.
    """

    def __init__(self, watch: ClusterWatch) -> None:
        self._watch = watch

    async def watch(self) -> AsyncIterator[cluster_pb2.Topology]:
        async for view in self._watch.changes():
            yield topology_of(view)

    def poke(self) -> None:
        return

    @property
    def trouble(self) -> str:
        return "coordination has not told the map yet"
