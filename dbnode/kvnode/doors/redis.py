"""The Redis door: this node as a node of a Redis Cluster, on the request service.

GET is answered at once under the lease; a SET goes into the service's queue, and those that follow each other on one
connection, or come from many in one turn of the loop, go together. Everything else is a plan (`kvresp.meaning`): evaluated at once if it only reads, as an atomic group
if it writes. What follows a write on the same connection sees it: reads then go through the queue, too.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kvcommon.clock import Clock
from kvcommon.numbers import MAX_KEY_BYTES
from kvcommon.slots import SLOTS, slot_of
from kvcoord.view import ClusterView
from kvnode.core.types import Role
from kvnode.doors.redis_cells import PlanCell, PutsCell, SharedCell
from kvnode.doors.redis_cluster import ClusterPicture, lines
from kvnode.doors.redis_info import node_info
from kvnode.doors.redis_scan import Scans
from kvnode.operations import Code, Outcome
from kvnode.reading import RefusedError
from kvnode.service import Service
from kvnode.shell.host import Host
from kvnode.work import LOST
from kvresp import errors
from kvresp.commands import COMMANDS, Command, command_of
from kvresp.connection import LATER, MAX_CLIENTS, Connection, Door, Pending
from kvresp.counts import Count
from kvresp.errors import CommandError
from kvresp.limits import MAX_BULK_BYTES
from kvresp.meaning import integer_argument, plan_of
from kvresp.replies import OK, Error, Reply, Verbatim, bulk, encode, error, null
from kvresp.scan import parse_scan
from kvresp.session import answer, check_wait

FOLLOWER_LAG: Final = 1.0
"""Seconds that a read after READONLY may be behind the leader; a follower that can't show it sends to the leader."""
WRITE_DEADLINE: Final = 10.0
"""Seconds after which a write that is still queued is not begun any more."""
KEYS_PER_TURN: Final = 20_000
"""How many keys CLUSTER COUNTKEYSINSLOT looks at before others have their turn."""
MAX_KEYS_IN_SLOT: Final = 10_000

_GET: Final = frozenset((b"GET", b"get"))
_SET: Final = frozenset((b"SET", b"set"))  # spelled otherwise, or with options: by themselves

Run = Callable[[Connection, list[bytes]], bytes | object | None]


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """What the door says of its process."""

    cluster_id: str
    pod: str
    durable: bool  # whether a write is on disk when it is acknowledged
    max_clients: int = MAX_CLIENTS


class _Entry:
    """How a command is done, and counted."""

    __slots__ = ("count", "run")

    def __init__(self, run: Run, count: Count) -> None:
        self.run, self.count = run, count


class RedisDoor(Door):
    """The Redis protocol on one node."""

    cluster = True
    commands: Mapping[str, Command] = COMMANDS

    def __init__(
        self,
        host: Host,
        service: Service,
        *,
        view: Callable[[], ClusterView],
        clock: Clock,
        number: Callable[[int], int],
        settings: RedisSettings,
        moving: Callable[[int], int | None] | None = None,
    ) -> None:
        """`number(n)` is random below n. `moving` names the partition that a slot is on its way to, for ASK."""
        super().__init__(clock.now, max_clients=settings.max_clients)
        self._host, self._service, self._view, self._clock = host, service, view, clock
        self._settings, self._moving = settings, moving
        self._scans = Scans(host.store.key_list, host.store.contains, number)
        self._tasks: set[asyncio.Task[None]] = set()
        own: dict[str, Run] = {
            "asking": self._asking,
            "cluster": self._cluster,
            "dbsize": self._dbsize,
            "get": self._get,
            "hello": self._alone,
            "readonly": self._readonly,
            "readwrite": self._readwrite,
            "reset": self._alone,
            "scan": self._scan,
            "set": self._set,
            "wait": self._wait,
            "waitaof": self._wait,
        }
        self._entries: dict[bytes, _Entry] = {}
        for name, command in COMMANDS.items():
            run = own.get(name) or (self._planned if command.first else self._answered)
            entry = _Entry(run, self.counts.of[name])
            self._entries[name.encode()] = self._entries[name.upper().encode()] = entry
        self._get_count, self._set_count = self.counts.of["get"], self.counts.of["set"]
        self._unknown = _Entry(self._answered, self.counts.of["unknown"])

    def wall(self) -> float:
        return self._clock.wall_ms() / 1000

    def execute(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        name = args[0]
        entry = self._entries.get(name) or self._entries.get(name.lower(), self._unknown)
        entry.count.calls += 1
        return entry.run(connection, args)

    def execute_many(self, connections: Sequence[Connection], commands: Sequence[list[bytes]]) -> None:
        """As `execute`, but plain GETs and SETs in one pass each (see Door)."""
        if self._moving is not None:
            super().execute_many(connections, commands)
            return
        readers: list[Connection] = []
        wanted: list[bytes] = []
        writers: list[Connection] = []
        keys: list[bytes] = []
        values: list[bytes] = []
        for connection, command in zip(connections, commands, strict=True):
            size, name = len(command), command[0]
            if size == 2 and name in _GET and not connection.session.read_only:
                readers.append(connection)
                wanted.append(command[1])
            elif size == 3 and name in _SET and 0 < len(command[1]) <= MAX_KEY_BYTES:
                writers.append(connection)
                keys.append(command[1])
                values.append(command[2])
            else:
                connection.do(command)
        if readers:
            self._get_many(readers, wanted)
        if writers:
            self._set_many(writers, keys, values)

    def _get_many(self, connections: Sequence[Connection], keys: Sequence[bytes]) -> None:
        values = self._service.read_many(keys, connections[0].now)
        if values is None:
            super().execute_many(connections, [[b"GET", key] for key in keys])
            return
        self._get_count.calls += len(keys)
        for connection, value in zip(connections, values, strict=True):
            transport = connection.transport
            if transport is not None:
                if value is None:
                    transport.write(null(connection.session.protocol))
                else:
                    transport.write(b"$%d\r\n%b\r\n" % (len(value), value))

    def _set_many(self, connections: Sequence[Connection], keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        now = connections[0].now
        puts = self._service.put_many(keys, values, now, now + WRITE_DEADLINE)
        if puts is None:
            super().execute_many(connections, [[b"SET", key, value] for key, value in zip(keys, values, strict=True)])
            return
        self._set_count.calls += len(keys)
        size = sum(map(len, keys)) + sum(map(len, values))
        cell = SharedCell(connections, self, self._set_count, keys, size // len(keys))
        puts.waiters.append(cell)
        for connection in connections:
            connection.defer(cell)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await super().close()

    # --- keys --------------------------------------------------------------------------------------------------------

    def _get(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        session = connection.session
        if len(args) != 2 or connection.waiting or session.read_only or self._moving is not None:
            return self._planned(connection, args)
        key = args[1]
        slot = slot_of(key)
        try:
            value = self._service.read(slot, key, connection.now)
        except RefusedError as e:
            return self._refuse(args, e.outcome, slot)
        return null(session.protocol) if value is None else b"$%d\r\n%b\r\n" % (len(value), value)

    def _set(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        if len(args) != 3 or self._moving is not None or not 0 < len(args[1]) <= MAX_KEY_BYTES:
            return self._planned(connection, args)
        _, key, value = args
        slot, now = slot_of(key), connection.now
        puts = self._service.put(slot, key, value, now, now + WRITE_DEADLINE)
        if isinstance(puts, Outcome):
            return self._refuse(args, puts, slot)
        size = len(key) + len(value)
        if connection.waiting:
            last = connection.waiting[-1]
            if type(last) is PutsCell and last.puts is puts:
                last.keys.append(key)
                last.cost += size
                connection.grown(size)
                return None
        cell = PutsCell(connection, self, self._set_count, puts, key, size)
        puts.waiters.append(cell)
        connection.defer(cell)
        return None

    def _planned(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        """A command with keys."""
        session = connection.session
        try:
            command = command_of(args)
            slot = self._slot(command.keys(args))
            redirect = None if self._moving is None else self._ask(slot, connection)
            if redirect is not None:
                return self._fail(args, redirect)
            plan = plan_of(command, args)
        except CommandError as e:
            return self._fail(args, str(e))
        if command.writes or (connection.waiting and not session.read_only):
            count = self._count(args)
            cell = PlanCell(connection, self, count, plan, slot, session.active + WRITE_DEADLINE)
            connection.defer(cell)
            self._service.transact(slot, cell)
            return None
        if connection.waiting:
            return self._later(args)
        refused = self._service.unfit(slot, max_lag=FOLLOWER_LAG if session.read_only else None)
        if refused is not None:
            return self._refuse(args, refused, slot)
        try:
            _, reply = plan.decide(self._service.get)
        except RefusedError as e:
            return self._refuse(args, e.outcome, slot)
        return self._say(connection, args, reply)

    def _slot(self, keys: Sequence[bytes]) -> int:
        """The one slot of all the keys. Raises CommandError."""
        slot = slot_of(keys[0])
        for key in keys[1:]:
            if slot_of(key) != slot:
                raise CommandError(errors.CROSS_SLOT)
        return slot

    def _ask(self, slot: int, connection: Connection) -> str | None:
        """While a slot moves away: where to ask, unless the client was sent here to ask."""
        asking, connection.session.asking = connection.session.asking, False
        to = None if self._moving is None else self._moving(slot)
        if to is None or asking:
            return None
        leader = self._view().leader_of(to)
        return errors.ask(slot, leader.redis_address) if leader and leader.redis_address else errors.NO_SLOT

    def _scan(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        if connection.waiting:
            return self._later(args)
        try:
            command_of(args)
            scan = parse_scan(args)
        except CommandError as e:
            return self._fail(args, str(e))
        refused = self._unfit_to_look()
        if refused is not None:
            return self._refuse(args, refused, 0)
        cursor, keys = self._scans.page(scan)
        return self._say(connection, args, [b"%d" % cursor, keys])

    def _dbsize(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        if connection.waiting:
            return self._later(args)
        if len(args) != 1:
            return self._fail(args, errors.wrong_number("dbsize"))
        refused = self._unfit_to_look()
        if refused is not None:
            return self._refuse(args, refused, 0)
        return b":%d\r\n" % self._host.store.keys

    def _unfit_to_look(self) -> Outcome | None:
        """Of commands without keys: a leader needs its lease; a follower tells what it has, as Redis's replicas do."""
        lag = None if self._host.core.role is Role.LEADER else float("inf")
        return self._service.unfit(None, max_lag=lag)

    # --- replication -------------------------------------------------------------------------------------------------

    def _wait(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        """WAIT and WAITAOF: what was acknowledged is on every in-sync replica already."""
        if connection.waiting:
            return self._later(args)
        try:
            name = command_of(args).name
            check_wait(args)
        except CommandError as e:
            return self._fail(args, str(e))
        if self._host.core.role is not Role.LEADER:
            return self._fail(args, f"ERR {name.upper()} cannot be used with replica instances.")
        followers = max(0, len(self._host.core.describe_in_sync()) - 1)
        if name == "wait":
            return b":%d\r\n" % followers
        return self._say(connection, args, [1, followers] if self._settings.durable else [0, 0])

    def _readonly(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        return self._switch(connection, args, read_only=True)

    def _readwrite(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        return self._switch(connection, args, read_only=False)

    def _switch(self, connection: Connection, args: list[bytes], *, read_only: bool) -> bytes:
        if len(args) != 1:
            return self._fail(args, errors.wrong_number(args[0].decode().lower()))
        connection.session.read_only = read_only
        return OK

    def _asking(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        if len(args) != 1:
            return self._fail(args, errors.wrong_number("asking"))
        connection.session.asking = True
        return OK

    # --- the cluster -------------------------------------------------------------------------------------------------

    def _cluster(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        try:
            command = command_of(args)
            if command.name in ("cluster|countkeysinslot", "cluster|getkeysinslot"):
                return self._keys_in_slot(connection, args)
            return self._say(connection, args, self._describe(command.name, connection, args))
        except CommandError as e:
            return self._fail(args, str(e))

    def _describe(self, name: str, connection: Connection, args: Sequence[bytes]) -> Reply:
        picture = ClusterPicture(self._view(), self._settings.cluster_id, self._settings.pod)
        match name:
            case "cluster|slots":
                return picture.slots()
            case "cluster|shards":
                return picture.shards()
            case "cluster|nodes":
                return Verbatim(picture.text())
            case "cluster|info":
                return Verbatim(lines(picture.info().items()))
            case "cluster|myid":
                return picture.me
            case "cluster|keyslot":
                return slot_of(args[2])
        return answer(command_of(args), args, connection.session, self)

    def _keys_in_slot(self, connection: Connection, args: Sequence[bytes]) -> object | None:
        if connection.waiting:
            return self._later(args)
        numbers = [integer_argument(a) for a in args[2:]]
        if not 0 <= numbers[0] < SLOTS:
            raise CommandError("ERR Invalid slot")
        if len(numbers) == 2 and numbers[1] < 0:
            raise CommandError("ERR Invalid slot or number of keys")
        cell = Pending(connection)
        connection.defer(cell)
        most = min(numbers[1], MAX_KEYS_IN_SLOT) if len(numbers) == 2 else None
        protocol = connection.session.protocol
        task = asyncio.create_task(self._fill_keys_in_slot(cell, numbers[0], most, protocol), name="keys in slot")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return None

    async def _fill_keys_in_slot(self, cell: Pending, slot: int, most: int | None, protocol: int) -> None:
        """Go through all keys, some at a time, for those of a slot."""
        keys = self._host.store.key_list()
        found: list[bytes] = []
        for at in range(0, len(keys), KEYS_PER_TURN):
            found += [key for key in keys[at : at + KEYS_PER_TURN] if slot_of(key) == slot]
            if most is not None and len(found) >= most:
                break
            await asyncio.sleep(0)
        cell.fill(encode(len(found) if most is None else found[:most], protocol))

    # --- the rest ----------------------------------------------------------------------------------------------------

    def _answered(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        """A command about the connection or the server."""
        try:
            command = command_of(args)
            return self._say(connection, args, answer(command, args, connection.session, self))
        except CommandError as e:
            return self._fail(args, str(e))

    def _alone(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        """HELLO and RESET change how replies are written: not before those to earlier commands are."""
        return self._later(args) if connection.waiting else self._answered(connection, args)

    def _say(self, connection: Connection, args: Sequence[bytes], reply: Reply) -> bytes:
        if type(reply) is bytes:
            return bulk(reply)
        if isinstance(reply, Error):
            return self._fail(args, reply)
        return encode(reply, connection.session.protocol)

    def _fail(self, args: Sequence[bytes], text: str) -> bytes:
        self._count(args).errors += 1
        return error(text)

    def _refuse(self, args: Sequence[bytes], outcome: Outcome, slot: int) -> bytes:
        return self._fail(args, self.refusal(outcome, slot))

    def _later(self, args: Sequence[bytes]) -> object:
        """It will be executed again: it is counted then."""
        self._count(args).calls -= 1
        return LATER

    def _count(self, args: Sequence[bytes]) -> Count:
        return self._entries.get(args[0].lower(), self._unknown).count

    def refusal(self, outcome: Outcome, slot: int) -> str:
        """How an outcome is said to a client of a cluster: where to go, whether to try again, what is not known."""
        code, message = outcome.code, outcome.message
        if code in (Code.MOVED, Code.NOT_LEADER, Code.TOO_STALE):
            return self._moved(slot)
        if code == Code.OUTCOME_UNKNOWN:
            return errors.UNKNOWN_OUTCOME if outcome is LOST else errors.unknown_outcome(message)
        if code == Code.TOO_FEW_REPLICAS:
            return errors.NO_REPLICAS
        if code == Code.RESOURCE_EXHAUSTED and self._service.disk_full:
            return f"MISCONF {message}"
        return f"{_KINDS.get(Code(code), 'ERR')} {message}"

    def _moved(self, slot: int) -> str:
        view = self._view()
        if view.slot_map is None:
            return errors.NO_SLOT
        leader = view.leader_of(view.slot_map.owners[slot])
        if leader is None or not leader.redis_address or leader.pod == self._settings.pod:
            return errors.NO_SLOT  # nobody leads yet, or this node does in a moment: clients come back for that
        return errors.moved(slot, leader.redis_address)

    # --- what it says of itself --------------------------------------------------------------------------------------

    @property
    def role(self) -> str:
        return "master" if self._host.core.role is Role.LEADER else "slave"

    @property
    def configuration(self) -> Mapping[str, str]:
        return {
            "appendfsync": "always",
            "appendonly": "yes" if self._settings.durable else "no",
            "cluster-enabled": "yes",
            "databases": "1",
            "maxclients": str(self.max_clients),
            "maxmemory": "0",
            "maxmemory-policy": "noeviction",
            "proto-max-bulk-len": str(MAX_BULK_BYTES),
            "save": "",
            "timeout": "0",
        }

    def info(self) -> Mapping[str, Mapping[str, object]]:
        return node_info(self._host, self, self._view(), durable=self._settings.durable)

    def reset_counts(self) -> None:
        self.counts.reset()


_KINDS: Final = {
    Code.UNAVAILABLE: "CLUSTERDOWN",
    Code.RESOURCE_EXHAUSTED: "TRYAGAIN",
    Code.DEADLINE_EXCEEDED: "TRYAGAIN",
}
"""What is said to be tried again was certainly not begun. Codes with replies of their own aren't here."""
