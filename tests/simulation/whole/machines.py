"""A machine with its disk and clocks, which outlive a process, and the model of the log's thread."""

from random import Random
from typing import TYPE_CHECKING, Any

from kvcoord.contract import ReplicaId
from tests.simulation import disk as shadows
from tests.simulation.clock import Clock
from tests.simulation.whole.disk_faults import COPY_UNDER_WAY
from tests.simulation.whole.nodes import NodeProcess
from tests.support.faulty_files import FaultyFiles

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import Partition, WholeCluster


BALLAST_BYTES = 20_000


class Machine:
    """What outlives a process."""

    def __init__(self, cluster: "WholeCluster", partition: "Partition", pod: str) -> None:
        self.cluster, self.partition, self.pod = cluster, partition, pod
        self.loop = cluster.loop
        self.rng = rng = self.loop.stream(f"machine {pod}")
        error = 0.0 if "clocks" in cluster.options.calm else cluster.timing.clock_rate_error
        rate = 1 + rng.choice([-error, error, rng.uniform(-error, error)])
        self.clock = Clock(self.loop, rate, rng.uniform(0, 1e6), rng.uniform(-300, 300))
        self.files = FaultyFiles()
        self.sync_base = 0.001 if "disks" in cluster.options.calm else rng.choice([0.0005, 0.003, 0.02])
        self.caches: dict[str, Any] = {}  # half of all read each record and batch from their files
        if self.loop.stream(f"caches of {pod}").random() < 0.5 or cluster.faults.has_rare(COPY_UNDER_WAY):
            self.caches = {"read_cache_bytes": 1, "record_cache_bytes": 0}
        self.kernel_syncs = self.loop.stream(f"syncs of {pod}").random() < 0.5
        self.slow_disk = 0.0  # seconds that a sync may take at most, above the usual
        self.least_free = 0  # bytes that a leader keeps free on its disk; 0: none looks
        self.ballast = 0  # bytes that its store keeps back, which half of all do
        if self.loop.stream(f"ballast of {pod}").random() < 0.5:
            self.ballast, self.least_free = BALLAST_BYTES, 1
        self.incarnations = 0
        self.runs = 0
        self.boots = 1
        self.process: NodeProcess | None = None
        self.down_for_good = 0  # reasons for which it is not to be started
        self.leaves = False  # it is being, or was, taken away

    def new_incarnation(self) -> str:
        self.incarnations += 1
        return f"{self.pod}-i{self.incarnations}"

    def shadow(self, incarnation: str) -> shadows.Disk:
        """The shadow of this incarnation's log."""
        replica = ReplicaId(self.pod, incarnation)
        known = self.partition.checker.disks.get(replica)
        if known is None:
            known = shadows.Disk(replica, self.partition.payloads)
            self.partition.checker.known_disk(known)
        return known

    def power_off(self, rng: Random | None = None) -> None:
        """What was not synced is lost, or, as `rng` has it, some of it."""
        self.boots += 1
        self.files.crash(rng)

    def sync_delay(self) -> float:
        return self.rng.uniform(0.2, 2.0) * self.sync_base + self.rng.random() * self.slow_disk

    def start(self) -> None:
        if self.process is None and not self.down_for_good and not self.leaves:
            self.cluster.operator.kubernetes.starting(self)
            self.runs += 1
            self.process = NodeProcess(self)
            self.process.actor.spawn(self.process.main(), "main")
