"""The router's Redis port: a command goes to the partition of its key, or is split, or is answered here."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from kvcommon.clock import Clock
from kvcommon.numbers import CLIENT_DEADLINE
from kvcommon.slots import slot_of
from kvcoord.view import ClusterView
from kvresp import errors, replies
from kvresp.commands import COMMANDS, Command, command_of
from kvresp.connection import LATER, MAX_CLIENTS, Cell, Connection, Door
from kvresp.errors import CommandError
from kvresp.meaning import plan_of
from kvresp.session import REDIS_VERSION, Session
from kvrouter.redis.backend import Backend
from kvrouter.redis.cursors import CursorError, read_cursor, with_router_cursor
from kvrouter.redis.forwarder import Forwarder
from kvrouter.redis.joining import Joined
from kvrouter.redis.lanes import Lane
from kvrouter.redis.local import answer_local
from kvrouter.redis.requests import Request, pack
from kvrouter.redis.splitting import ALL_PARTITIONS, SPLITTABLE, JoinAll, join, split

log = structlog.get_logger()

SWEEP_SECONDS = 0.25  # by so much at most a command is answered after its deadline
DRAIN_POLL_SECONDS = 0.01
BARRIERS = frozenset({"hello", "reset"})  # they change how replies are written
_HELLO_3 = pack((b"HELLO", b"3"))
_UNKNOWN = replies.error(errors.UNKNOWN_OUTCOME)
_CROSS_SLOT = replies.error(errors.CROSS_SLOT)
_CURSOR = replies.error(errors.INVALID_CURSOR)
_NO_MAP = replies.error("CLUSTERDOWN The router does not know the cluster's map yet")
_NOT_DONE = replies.error("CLUSTERDOWN Not done: no leader took the command before its deadline. Try again")
_LATE_READ = replies.error("CLUSTERDOWN The leader did not reply before the command's deadline. Try again")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the door, beside those of each connection (kvresp.connection)."""

    connections: int = MAX_CLIENTS
    total_bytes: int = 256 << 20  # of all commands under way; above it, who has one under way begins no more
    deadline: float = CLIENT_DEADLINE  # seconds for a command


class Client:
    """What the door keeps of a connection: its lanes, by partition."""

    __slots__ = ("connection", "door", "lanes", "map_version")

    def __init__(self, door: "RouterDoor", connection: Connection) -> None:
        self.door = door
        self.connection = connection
        self.lanes: dict[int, Lane] = {}
        self.map_version = 0

    def settled(self, cost: int) -> None:
        """A command has its reply."""
        self.door.held_bytes -= cost
        self.connection.completed()

    def lane(self, partition: int) -> Lane:
        """This client's lane to a partition."""
        lane = self.lanes.get(partition)
        if lane is None:
            session = self.connection.session
            lane = self.door.forwarder.lane(self, partition, session.id, session.protocol)
            self.lanes[partition] = lane
        return lane


class RouterDoor(Door):
    """Serves from `start` to `drain` and `close`. It is a kvresp.session.Server, too: what CONFIG GET and INFO show."""

    cluster = False
    role = "master"
    commands: Mapping[str, Command] = COMMANDS

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        super().__init__(loop.time, max_clients=self.limits.connections)
        self.forwarder = Forwarder(
            loop,
            dial=partial(_dial, loop),
            greeting=lambda protocol: _HELLO_3 if protocol == 3 else b"",
            unknown=_UNKNOWN,
            rehome=_rehome,
        )
        self.held_bytes = 0
        self.done = 0  # commands executed
        self._loop = loop
        self._clock = clock
        self._clients: dict[Connection, Client] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._started = self._loop.time()

    # -- what it is told -----------------------------------------------------------------------------------------------

    def view_changed(self, view: ClusterView) -> None:
        """Follow map and leaders."""
        self.forwarder.view_changed(view)

    async def start(self, host: str, port: int) -> int:
        self._sweep()
        return await super().start(host, port)

    async def drain(self, grace: float) -> None:
        """Listen no more; commands under way have so many seconds. Then end everything."""
        if self._server is not None:
            self._server.close()
        end = self._loop.time() + grace
        while self.held_bytes and self._loop.time() < end:  # noqa: ASYNC110 - what each command would pay to tell
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        await self.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.forwarder.close()

    def opened(self, connection: Connection, address: str, local_address: str) -> Session | None:
        session = super().opened(connection, address, local_address)
        if session is not None:
            self._clients[connection] = Client(self, connection)
        return session

    def closed(self, connection: Connection) -> None:
        super().closed(connection)
        self.forwarder.forget(self._clients.pop(connection).lanes)
        expire(connection.waiting, float("inf"))  # nobody waits for them any more

    # -- commands ------------------------------------------------------------------------------------------------------

    def execute(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        """Do a command (see Door)."""
        try:
            command = command_of(args)
        except CommandError as error:
            return replies.error(str(error))
        session = connection.session
        session.last = args[0]
        self.done += 1
        if command.first:
            return self._on_keys(connection, command, args)
        if command.name == "scan":
            return self._scan(connection, args)
        if command.name in ALL_PARTITIONS:
            return self._to_all(connection, args, ALL_PARTITIONS[command.name])
        if command.name not in BARRIERS:
            return answer_local(command, args, session, self)
        if connection.waiting:
            return LATER
        reply = answer_local(command, args, session, self)
        self._clients[connection].lanes.clear()  # all are idle; new ones speak the protocol chosen now
        return reply

    def _on_keys(self, connection: Connection, command: Command, args: list[bytes]) -> bytes | object | None:
        forwarder = self.forwarder
        owners = forwarder.owners
        if not owners:
            return _NO_MAP
        client = self._clients[connection]
        if connection.waiting and (
            client.map_version != forwarder.map_version or self.held_bytes > self.limits.total_bytes
        ):
            return LATER  # a command must not overtake an earlier one on its key that goes to the slot's last owner
        client.map_version = forwarder.map_version
        keys = command.keys(args)
        slot = slot_of(keys[0])
        if len(keys) > 1 and any(slot_of(key) != slot for key in keys):
            return self._on_slots(client, command, args)
        request = Request(client, pack(args), slot, keys, self._loop.time() + self.limits.deadline, command.writes)
        self.held_bytes += request.cost
        connection.defer(request)
        client.lane(owners[slot]).submit(request)
        return None

    def _on_slots(self, client: Client, command: Command, args: list[bytes]) -> bytes | None:
        name = command.name.upper().encode()
        if name not in SPLITTABLE:
            return _CROSS_SLOT
        try:
            plan_of(command, args)
        except CommandError as error:
            return replies.error(str(error))
        parts = split(name, args[1:])
        joined = Joined(client, partial(join, name, parts), self._loop.time() + self.limits.deadline)
        step, _ = SPLITTABLE[name]
        requests = [
            Request(joined, pack(part.command), part.slot, part.command[1::step], joined.deadline, command.writes)
            for part in parts
        ]
        owners = self.forwarder.owners
        self._send_all(client, joined, requests, [owners[request.slot] for request in requests])
        return None

    def _to_all(self, connection: Connection, args: Sequence[bytes], join_all: JoinAll) -> bytes | None:
        partitions = self.forwarder.partitions
        if not partitions:
            return _NO_MAP
        client = self._clients[connection]
        joined = Joined(client, join_all, self._loop.time() + self.limits.deadline)
        requests = [Request(joined, pack(args), -1, (), joined.deadline, False) for _ in partitions]
        self._send_all(client, joined, requests, partitions)
        return None

    def _scan(self, connection: Connection, args: Sequence[bytes]) -> bytes | None:
        partitions = self.forwarder.partitions
        if not partitions:
            return _NO_MAP
        try:
            number, cursor = read_cursor(args[1], partitions)
        except CursorError:
            return _CURSOR
        client = self._clients[connection]
        request = Request(
            client,
            pack([args[0], b"%d" % cursor, *args[2:]]),
            -1,
            (),
            self._loop.time() + self.limits.deadline,
            False,
            partial(with_router_cursor, partition=number, partitions=partitions),
        )
        self.held_bytes += request.cost
        connection.defer(request)
        client.lane(number).submit(request)
        return None

    def _send_all(self, client: Client, joined: Joined, requests: Sequence[Request], partitions: Sequence[int]) -> None:
        joined.of(requests)
        self.held_bytes += joined.cost
        client.connection.defer(joined)
        for request, partition in zip(requests, partitions, strict=True):
            client.lane(partition).submit(request)

    # -- deadlines -----------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in list(self.connections):
            expire(connection.waiting, now)
        self.forwarder.look(int(self.limits.deadline / SWEEP_SECONDS) + 1)
        self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    # -- what the server says of itself --------------------------------------------------------------------------------

    @property
    def configuration(self) -> Mapping[str, str]:
        """What CONFIG GET shows: what clients ask for, as a Redis would have it."""
        return {
            "appendonly": "yes",
            "appendfsync": "always",
            "cluster-enabled": "no",
            "databases": "1",
            "maxclients": str(self.limits.connections),
            "maxmemory": "0",
            "maxmemory-policy": "noeviction",
            "save": "",
            "timeout": "0",
        }

    def wall(self) -> float:
        return self._clock.wall_ms() / 1000

    def info(self) -> Mapping[str, Mapping[str, object]]:
        """INFO's sections."""
        return {
            "Server": {
                "redis_version": REDIS_VERSION,
                "redis_mode": "standalone",
                "kvcluster_role": "router",
                "uptime_in_seconds": int(self._loop.time() - self._started),
            },
            "Clients": {"connected_clients": len(self.connections), "maxclients": self.limits.connections},
            "Stats": {
                "total_connections_received": self.connected,
                "rejected_connections": self.refused,
                "total_commands_processed": self.done,
            },
            "Replication": {"role": "master", "connected_slaves": 0},
            "Cluster": {"cluster_enabled": 0},
        }

    def reset_counts(self) -> None:
        """CONFIG RESETSTAT."""
        self.connected = self.refused = self.done = 0


def expire(waiting: Sequence[Cell], now: float) -> None:
    """Answer commands whose deadline has passed; they are in the order of their deadlines."""
    for cell in list(waiting):
        if cell.reply is not None or not isinstance(cell, Request | Joined):
            continue
        if cell.deadline > now:
            return
        for request in cell.requests if isinstance(cell, Joined) else (cell,):
            request.settle(
                (_UNKNOWN if request.writes else _LATE_READ) if request.sent else request.why_not or _NOT_DONE
            )


def _rehome(lane: Lane, request: Request) -> None:
    """Send a request on a slot that has moved to the partition that owns it now."""
    client = lane.owner
    assert isinstance(client, Client)
    client.lane(client.door.forwarder.owners[request.slot]).submit(request)


async def _dial(loop: asyncio.AbstractEventLoop, address: str, backend: Backend) -> None:
    host, _, port = address.rpartition(":")
    await loop.create_connection(lambda: backend, host.strip("[]"), int(port))
