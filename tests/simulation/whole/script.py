"""What a scenario may do to a whole cluster, and what it may expect of it; the scenarios are in `scenarios`.

Nothing happens to the cluster but what the scenario says, while clients go on asking. All of it is about partition 0;
partition 1 is there, too. Every invariant is watched, and at the end all is healed and judged, as after a seed's faults.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.record import UNEXPECTED
from tests.simulation.schedule import CALM, Options
from tests.simulation.timeline import Mark, describe_state
from tests.simulation.whole.clients import NOW, Ask, DirectClient
from tests.simulation.whole.cluster import WholeCluster
from tests.simulation.whole.machines import BALLAST_BYTES
from tests.simulation.whole.nodes import NodeProcess
from tests.support.faulty_files import FaultyFiles
from tests.support.history import Kind, Result
from tests.support.workload import Answer

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import Partition
    from tests.simulation.whole.machines import Machine

Events = Callable[["Script"], Awaitable[None]]

LOOKS = 0.01  # seconds between two looks whether what is expected has come about
SOON = 10.0  # seconds within which it must


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to a cluster of so many replicas in each partition."""

    events: Events
    replicas: int = 3

    @property
    def name(self) -> str:
        return self.events.__name__

    def options(self, seed: int = 1) -> Options:
        """A run in which nothing else happens. The seed gives who leads at first, requests, sizes and delays."""
        return Options(seed, self.replicas, world="whole", calm=frozenset(CALM), scenario=self.name)


class ByHand(DirectClient):
    """A client that asks what the scenario says."""

    def start(self) -> None:
        self.actor.spawn(self.prepare(), "prepare")

    async def request(self) -> None:
        raise AssertionError("it asks nothing by itself")


class Scripted(WholeCluster):
    """A whole cluster to which a scenario happens."""

    memory_share = 0.0

    def __init__(self, options: Options, events: Events) -> None:
        super().__init__(options)
        self._events = events
        for client in self.clients:
            client.think = 0.1
        self.by_hand = ByHand(self, len(self.clients))
        self.clients.append(self.by_hand)
        for machine in self.machines.values():
            machine.least_free, machine.ballast = 1 << 20, BALLAST_BYTES

    async def _trouble(self) -> None:
        await self._events(Script(self))


class Script:
    """Verbs for a scenario. Whom they are about is a machine of partition 0; times are seconds."""

    def __init__(self, cluster: Scripted) -> None:
        self.cluster, self.loop = cluster, cluster.loop
        self.partition: Partition = cluster.partitions[0]
        self.key = next(key for key in cluster.keys if cluster.partition_of(key) == 0)

    # --- time --------------------------------------------------------------------------------------------------------

    async def begin(self, records: int = 20) -> "list[Machine]":
        """Wait until the cluster serves and has so many records committed; gives the leader's machine, then the others in the order in which they would claim."""
        await self._until("someone leads and all are in sync", self.partition.whole)
        await self._until(f"{records} records are committed", lambda: self.partition.checker.top >= records)
        state = self.partition.state
        leader = state.leader
        assert leader is not None
        others = [r.pod for r in state.in_sync if r != leader.replica]
        return [self.partition.machines[pod] for pod in (leader.replica.pod, *others)]

    async def wait(self, seconds: float) -> None:
        """Let things go on."""
        await asyncio.sleep(seconds)

    async def _until(self, what: str, comes: Callable[[], bool], within: float = SOON) -> None:
        """Wait for it. Raises SimulationError when it does not come about in time."""
        until = self.loop.now + within
        while not comes():
            if self.loop.now > until:
                self._unexpected(f"{what} was expected within {within:g} s")
            await asyncio.sleep(LOOKS)
        self.loop.note("scenario", f"as expected: {what}")

    def _unexpected(self, what: str) -> None:
        self.loop.fail("scenario", UNEXPECTED, f"{what}; there is {describe_state(self.partition.state)}")

    def _note(self, what: str, mark: Mark = Mark.FAULT, *, pauses: str = "") -> None:
        self.loop.note("scenario", what, mark, pauses=pauses)

    # --- what is expected --------------------------------------------------------------------------------------------

    async def leads(self, *machines: "Machine", epoch: int, within: float = SOON) -> "Machine":
        """Wait until one of these leads in this epoch, and serves; gives it."""

        def found() -> "Machine | None":
            return next((m for m in machines if self.partition.state.epoch == epoch and self._serves(m)), None)

        pods = " or ".join(m.pod for m in machines)
        await self._until(f"{pods} leads in epoch {epoch}", lambda: found() is not None, within)
        leader = found()
        assert leader is not None
        return leader

    def _serves(self, machine: "Machine") -> bool:
        process = machine.process
        if process is None or not process.serving or self.partition.state.leader != process.run:
            return False
        return bool(process.core.accepting and process.clock.now() < process.core.lease_until)

    async def in_sync(self, *machines: "Machine", within: float = SOON) -> None:
        """Wait until just these are in sync."""
        pods = {m.pod for m in machines}
        what = f"in sync are {', '.join(sorted(pods))}"
        await self._until(what, lambda: {r.pod for r in self.partition.state.in_sync} == pods, within)

    async def all_in_sync(self, *machines: "Machine", epoch: int | None = None, within: float = SOON) -> None:
        """Wait until these are in sync, and there are no others; leadership has not moved from this epoch, if one is said."""
        await self.in_sync(*machines, within=within)
        self.expect("these are all", set(self.partition.machines) == {m.pod for m in machines})
        if epoch is not None:
            self.expect(f"nothing has moved from epoch {epoch}", self.epoch() == epoch)

    async def incarnation(self, machine: "Machine", number: int, within: float = SOON) -> None:
        """Wait until it is in sync as its n-th incarnation: 1 until its disk is emptied."""
        wanted = (machine.pod, f"{machine.pod}-i{number}")
        what = f"{machine.pod} is in sync as incarnation {number}"
        await self._until(
            what, lambda: wanted in {(r.pod, r.incarnation) for r in self.partition.state.in_sync}, within
        )

    async def fails(self, machine: "Machine", within: float = SOON) -> None:
        """Wait until it has met a failure of its disk."""
        await self._until(f"the disk of {machine.pod} has failed", lambda: self._process(machine).disk_failed, within)

    async def has_used_its_ballast(self, machine: "Machine", within: float = SOON) -> None:
        """Wait until a write of it has found no other room."""
        used = f"{machine.pod} has used its ballast"
        await self._until(used, lambda: self._process(machine).host.store.short_of_room, within)

    async def has_written(self, machine: "Machine", epoch: int, within: float = SOON) -> None:
        """Wait until its log ends durably in this epoch."""

        def has() -> bool:
            process = machine.process
            return process is not None and process.serving and process.disk.durable.epoch == epoch

        await self._until(f"the log of {machine.pod} ends in epoch {epoch}", has, within)

    async def acknowledges(self, writes: int, within: float = SOON) -> None:
        """Wait until clients were told OK so many times more."""
        counts = self.partition.checker.counts
        enough = counts.get("acknowledged", 0) + writes
        what = f"{writes} more writes are acknowledged"
        await self._until(what, lambda: counts.get("acknowledged", 0) >= enough, within)

    async def nothing_for(self, seconds: float) -> None:
        """Expect that no write is acknowledged for so long."""
        counts = self.partition.checker.counts
        before = counts.get("acknowledged", 0)
        await asyncio.sleep(seconds)
        self.expect(f"no write is acknowledged for {seconds:g} s", counts.get("acknowledged", 0) == before)

    def expect(self, what: str, comes_true: object) -> None:
        """This must be so now."""
        if not comes_true:
            self._unexpected(f"{what} was expected")
        self.loop.note("scenario", f"as expected: {what}")

    def epoch(self) -> int:
        """That of the state in coordination."""
        return self.partition.state.epoch

    # --- a client ----------------------------------------------------------------------------------------------------

    async def write(self) -> Answer:
        """A client puts a key."""
        return await self._ask(Kind.PUT, b"by hand")

    async def read(self) -> Answer:
        """A client gets a key, linearizably."""
        return await self._ask(Kind.GET, None)

    async def _ask(self, kind: Kind, value: bytes | None) -> Answer:
        client = self.cluster.by_hand
        client.sequence += 1
        answers = await client.actor.spawn(client.do([Ask(kind, self.key, value, None)], NOW), "by hand")
        answer: Answer = answers[0]
        return answer

    @staticmethod
    def done(answer: Answer) -> bool:
        """Whether it was done."""
        return answer.outcome.result in (Result.OK, Result.NOT_FOUND)

    # --- processes ---------------------------------------------------------------------------------------------------

    def kill(self, *machines: "Machine") -> None:
        """SIGKILL: the page cache stays. It stays down until `start`."""
        for machine in machines:
            self._note(f"kill {self._process(machine).who}")
            self._end(machine, silently=False)

    def power_off(self, *machines: "Machine") -> None:
        """Their machines lose power, and everything that was not synced; nobody is told."""
        for machine in machines:
            process = self._process(machine)
            lost = process.core.end.index - process.disk.durable.index
            self._note(f"power off {machine.pod}, with {lost} records that were not synced")
            self._end(machine, silently=True)
            machine.power_off()

    def _end(self, machine: "Machine", *, silently: bool) -> None:
        self._process(machine).end(silently=silently)
        machine.files.stop()
        machine.down_for_good += 1
        self.cluster.faults.heals.append(lambda: self._may_start(machine))

    def _may_start(self, machine: "Machine") -> None:
        machine.down_for_good = 0

    def start(self, *machines: "Machine") -> None:
        """What is down comes up."""
        for machine in machines:
            self._note(f"start {machine.pod}", Mark.HEAL)
            self._may_start(machine)
            machine.start()

    def pause(self, machine: "Machine") -> None:
        """SIGSTOP."""
        process = self._process(machine)
        self._note(f"pause {process.who}", pauses=process.who)
        process.pause()
        self.cluster.faults.heals.append(process.resume)

    def resume(self, machine: "Machine") -> None:
        """SIGCONT."""
        self._process(machine).resume()
        self.cluster.show_away()

    @staticmethod
    def _process(machine: "Machine") -> NodeProcess:
        process = machine.process
        assert process is not None, f"nothing runs on {machine.pod}"
        return process

    # --- network -----------------------------------------------------------------------------------------------------

    def cut(self, sources: "Machine | str", targets: "list[Machine]") -> None:
        """What one says to others does not arrive, until `heal`."""
        self._cut([(_host(sources), m.pod) for m in targets])

    def cut_back(self, sources: "list[Machine]", target: "Machine | str") -> None:
        """What some say to one does not arrive, until `heal`."""
        self._cut([(m.pod, _host(target)) for m in sources])

    def _cut(self, ways: list[tuple[str, str]]) -> None:
        self._note(f"cut {', '.join(f'{a} -> {b}' for a, b in ways)}")
        for way in ways:
            self.loop.net.cut(*way)
        self.cluster.faults.heals.append(self._heal_network)

    def heal(self) -> None:
        """All ways are free."""
        self._note("all ways are free", Mark.HEAL)
        self._heal_network()

    def _heal_network(self) -> None:
        net = self.loop.net
        for way, reasons in list(net.cuts.items()):
            for _ in range(reasons):
                net.heal(*way)

    # --- coordination ------------------------------------------------------------------------------------------------

    def coordination_away(self) -> None:
        """Nobody reaches it, until `coordination_back`."""
        self._note("coordination is away")
        self._coordination(down=True)
        self.cluster.faults.heals.append(lambda: self._coordination(down=False))

    def coordination_back(self) -> None:
        """Everybody reaches it again."""
        self._note("coordination is back", Mark.HEAL)
        self._coordination(down=False)

    def _coordination(self, *, down: bool) -> None:
        self.cluster.coordination.down = down
        self.cluster.show_away()

    def cut_coordination(self, machine: "Machine") -> None:
        """It does not reach coordination, until `reach_coordination`."""
        self._note(f"{machine.pod} does not reach coordination")
        self._reach(machine, away=1)
        self.cluster.faults.heals.append(lambda: self._reach(machine, away=0))

    def reach_coordination(self, machine: "Machine") -> None:
        """It reaches it again."""
        self._note(f"{machine.pod} reaches coordination", Mark.HEAL)
        self._reach(machine, away=0)

    def _reach(self, machine: "Machine", *, away: int) -> None:
        self.cluster.unreached[machine.pod] = away
        self.cluster.show_away()

    def lose_sessions(self, *machines: "Machine") -> None:
        """Their sessions end."""
        for machine in machines:
            self._note(f"the session of {machine.pod} ends")
            self._process(machine).session.expire()

    def lose_coordination(self) -> None:
        """All that coordination holds is gone, and all sessions."""
        self._note("coordination's data is lost")
        self.cluster.coordination.turn_back({})

    # --- disks -------------------------------------------------------------------------------------------------------

    def keep_no_room(self, *, ballast: bool = False) -> None:
        """No writes are refused before a disk is full to the last bytes, or to the ballast; to be said before anything runs."""
        for machine in self.partition.machines.values():
            machine.least_free, machine.ballast = 1, BALLAST_BYTES if ballast else 0

    def fill(self, machine: "Machine", left: int = 100_000) -> None:
        """Its disk has so many bytes left, until `make_room`."""
        self._note(f"the disk of {machine.pod} has {left} bytes left")
        files = machine.files
        files.capacity = sum(files.sizes()) + left
        self.cluster.faults.heals.append(lambda: setattr(files, "capacity", None))

    def make_room(self, machine: "Machine") -> None:
        """There is room again."""
        self._note(f"the disk of {machine.pod} has room again", Mark.HEAL)
        machine.files.capacity = None

    def fail_sync(self, machine: "Machine") -> None:
        """Its next sync is an I/O error."""
        self._note(f"the next sync of {machine.pod} is to fail")
        machine.files.failing_syncs = 1

    def turn_bit(self, machine: "Machine") -> None:
        """One bit in the middle of the old part of its log turns."""
        image = machine.files.snapshot()
        path = min(p for p, data in image.items() if p.suffix == ".log" and data.rstrip(b"\0"))
        at = len(image[path].rstrip(b"\0")) // 3
        self._note(f"a bit of {path.name} of {machine.pod} turns, at {at}")
        machine.files.damage(path, at, 3)

    def empty(self, machine: "Machine") -> None:
        """The disk of a machine that is down is lost: an empty one takes its place."""
        self._note(f"the disk of {machine.pod} is lost, an empty one takes its place")
        for disk in self.partition.checker.disks.values():
            if disk.replica.pod == machine.pod:
                disk.destroyed = True
        machine.files = FaultyFiles()

    async def turn_back(self, machine: "Machine", *, writes: int) -> None:
        """Its disk is copied; when so many writes more are acknowledged it is killed, and the copy takes the disk's place."""
        self._note(f"the disk of {machine.pod} is copied")
        disk = self._process(machine).disk
        files, kept = machine.files.copy(), disk.copy()
        await self.acknowledges(writes)
        self.kill(machine)
        self._note(f"{machine.pod} has its disk of before: its log ends at {kept.log[-1].end.index}")
        machine.files = files
        self.partition.checker.put_back(disk, kept)

    def slow(self, machine: "Machine", seconds: float) -> None:
        """From now on its syncs take so long at most; 0: as usual."""
        self._note(f"syncs of {machine.pod} take up to {seconds:g} s")
        machine.slow_disk = seconds

    # --- the operator ------------------------------------------------------------------------------------------------

    async def want_replicas(self, number: int) -> "list[Machine]":
        """A person asks for so many. Wait until the partition has pods by these names; gives their machines."""
        pods = self.cluster.names.replicas(0, number)
        self.cluster.operator.ask_for(number)
        await self._until(f"the replicas are {', '.join(pods)}", lambda: self.partition.state.replicas == pods)
        return [self.partition.machines[pod] for pod in pods]


def _host(end: "Machine | str") -> str:
    return end if isinstance(end, str) else end.pod
