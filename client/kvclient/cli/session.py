"""What kvctl asks of a cluster."""

import asyncio

import grpc
from grpc import aio

from kvclient.aio import AsyncClient, Mode
from kvclient.cli.show import MemberStatus
from kvclient.errors import UnavailableError
from kvclient.grpc_transport import ChannelFactory, describe, parse_addresses, ready
from kvcommon.numbers import GRPC_PORT
from kvproto.v1 import cluster_pb2, cluster_pb2_grpc


class Session:
    """One endpoint, and how long to wait for it."""

    def __init__(self, endpoint: str, timeout: float) -> None:
        """`endpoint`: host[:port] of a router or a node; `timeout` in seconds."""
        self.endpoint = parse_addresses((endpoint,), GRPC_PORT)[0]
        self.timeout = timeout
        self._channels = ChannelFactory()

    async def client(self) -> AsyncClient:
        """A client: through the endpoint when that is a router, straight to the nodes when it is one of them."""
        mode = await self._mode()
        return await AsyncClient.connect(self.endpoint, mode=mode, timeout=self.timeout)

    async def topology(self) -> cluster_pb2.Topology:
        """The cluster as the endpoint sees it. Raises UnavailableError."""
        channel = self._channels(self.endpoint)
        try:
            await ready(channel)
            stub = cluster_pb2_grpc.ClusterStub(channel)
            return await stub.GetTopology(cluster_pb2.GetTopologyRequest(), timeout=self.timeout)
        except (aio.AioRpcError, ConnectionError) as error:
            raise self._unavailable(error) from None
        finally:
            await channel.close()

    async def statuses(self, topology: cluster_pb2.Topology) -> list[MemberStatus]:
        """What every member says of itself."""
        return await asyncio.gather(*(self._status(member) for member in topology.members))

    async def _status(self, member: cluster_pb2.Member) -> MemberStatus:
        channel = self._channels(member.grpc_address)
        try:
            await ready(channel)
            stub = cluster_pb2_grpc.ClusterStub(channel)
            answer = await stub.GetNodeStatus(cluster_pb2.GetNodeStatusRequest(), timeout=min(self.timeout, 3.0))
            if answer.pod != member.pod:  # pod addresses are reused
                return MemberStatus(member, None, f"{member.grpc_address} is now that of {answer.pod}")
            return MemberStatus(member, answer)
        except (aio.AioRpcError, ConnectionError) as error:
            return MemberStatus(member, None, f"{member.grpc_address}: {describe(error)}")
        finally:
            await channel.close()

    async def _mode(self) -> Mode:
        """A router has no node status."""
        channel = self._channels(self.endpoint)
        try:
            await ready(channel)
            stub = cluster_pb2_grpc.ClusterStub(channel)
            await stub.GetNodeStatus(cluster_pb2.GetNodeStatusRequest(), timeout=self.timeout)
            return "direct"
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return "router"
            raise self._unavailable(error) from None
        except ConnectionError as error:
            raise self._unavailable(error) from None
        finally:
            await channel.close()

    def _unavailable(self, error: BaseException) -> UnavailableError:
        hint = "is it a router or node of the cluster? Set --endpoint or KV_ENDPOINT"
        return UnavailableError(f"{self.endpoint}: {describe(error)}; {hint}")
