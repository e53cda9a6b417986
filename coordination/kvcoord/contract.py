"""What coordination promises, and the frozen values it holds.

Everything here is small, changed rarely, and changed only by compare-and-set. The replication protocol's safety rests
on `compare_and_set_partition`; nothing rests on a clock of the coordination service, and on its sessions only that data
which is begun anew, empty, knows none of those before.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from kvcommon.errors import KVClusterError
from kvcommon.slotmap import SlotMap

T = TypeVar("T")


class CoordinationUnavailableError(KVClusterError):
    """The service could not be asked. A write that raises this may or may not have been, or yet be, done ("maybe")."""


class ReplicaId(NamedTuple):  # a key of the dicts that each message of a leader's life asks: C hashes it
    """One replica: a pod and the incarnation of its disk. A pod with an empty or older disk is another replica."""

    pod: str
    incarnation: str

    def __str__(self) -> str:
        return f"{self.pod}/{self.incarnation}"


class RunId(NamedTuple):
    """One run of one replica's process. An epoch belongs to one run (rule 1)."""

    replica: ReplicaId
    run: str

    def __str__(self) -> str:
        return f"{self.replica}/{self.run}"


@dataclass(frozen=True, slots=True)
class PartitionState:
    """Who leads a partition and who is in sync: the one truth of the replication protocol.

    `serial` grows by one with every change of this state. `generation` is that of the coordination data; a restore
    makes a new one (rule 19). `in_sync` is ordered: the first that is not the leader is the designated backup.
    `leader` None: nobody has led yet; any in-sync replica may claim. `replicas` are the pods that belong here: the
    operator's to change, with `min_in_sync`; a replica of another pod is in sync only until its leader can spare it.
    """

    epoch: int
    leader: RunId | None
    in_sync: tuple[ReplicaId, ...]
    replicas: tuple[str, ...]
    min_in_sync: int
    serial: int = 1
    generation: int = 1

    @property
    def age(self) -> tuple[int, int]:
        """(generation, serial): of two states of a partition, the greater one is the newer."""
        return self.generation, self.serial

    def belongs(self, replica: ReplicaId) -> bool:
        """Whether the replica's pod is one of the partition's, and not taken out of it."""
        return replica.pod in self.replicas


@dataclass(frozen=True, slots=True)
class Versioned(Generic[T]):
    """A value with the version that a compare-and-set names. Versions of one value only grow."""

    value: T
    version: int


@dataclass(frozen=True, slots=True)
class Won:
    """The compare-and-set was done; the value now has this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The value had another version than the one named (or existed, for a creation); nothing was changed."""


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """What a running node says of itself. Addresses are host:port."""

    pod: str
    partition: int
    replica: ReplicaId
    run: str
    grpc_address: str
    replication_address: str
    http_address: str
    pipeline_address: str = ""  # empty: an older release's node, which has none
    redis_address: str = ""  # what clients of the Redis protocol are told; empty: it does not speak it
    dns_name: str = ""
    boot_id: str = ""
    container_id: str = ""
    empty: bool = False  # its log has never held a record: may be a partition's first replica
    trouble: str = ""  # "<reason>: <sentence>" of what is wrong with it, the reasons of docs/operator.md


@dataclass(frozen=True, slots=True)
class Death:
    """The word of death: this run's container is terminated, by the kubelet's word (rule 7). Void for any other run."""

    pod: str
    run: str
    container_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class ClusterIdentity:
    """Who this cluster is; made once, at birth."""

    cluster_id: str  # UUID
    name: str
    partitions: int
    replicas: int
    generation: int = 1


class Coordination(Protocol):
    """One cluster's coordination data.

    Every method may raise CoordinationUnavailableError. Watches never end and never raise it: they wait until the
    service is back, and yield the current value first, then every later one they see (they may skip values, never go
    back, always reach the newest). A value that vanished or was made anew, because the coordination data was lost, is
    yielded: rule 19 asks for it. Closing the coordination ends them. One that can't be read raises
    `kvcoord.codec.DamagedValueError` or `NewerFormatError`, from reads and watches alike.

    The version after a creation is 0; each change adds one. One coordination registers one pod.
    """

    async def start(self) -> None:
        """Begin to connect; returns at once or when connected. Nothing else may be called before."""
        ...

    async def close(self) -> None:
        """Let go of everything, this process's registration included."""
        ...

    @property
    def connected(self) -> bool:
        """Whether the service answered lately; for status and metrics, never for decisions."""
        ...

    @property
    def session(self) -> int:
        """Which session this is; another number after each that ended. Data that is begun anew, empty, knows none of those before."""
        ...

    async def read_identity(self) -> ClusterIdentity | None: ...
    async def create_identity(self, identity: ClusterIdentity, *, session: int | None = None) -> Won | Lost:
        """Once, at birth; or put back by a node, after a loss.

        With a `session`, here as below, it is done in this session or not at all: what was decided upon what was read in
        it does not meet data that was begun anew since (rule 19).
        """
        ...

    async def read_map(self) -> Versioned[SlotMap] | None: ...
    async def create_map(self, slot_map: SlotMap, *, session: int | None = None) -> Won | Lost: ...
    async def compare_and_set_map(self, expected_version: int, slot_map: SlotMap) -> Won | Lost: ...
    def watch_map(self) -> AsyncIterator[Versioned[SlotMap] | None]: ...

    async def read_partition(self, partition: int) -> Versioned[PartitionState] | None:
        """The newest state (a read that is ordered after every write acknowledged before it: ZooKeeper's sync)."""
        ...

    async def create_partition(
        self, partition: int, state: PartitionState, *, session: int | None = None
    ) -> Won | Lost:
        """A partition's birth, by the operator or `make run`, once; or its state put back by a node, after a loss."""
        ...

    async def compare_and_set_partition(
        self, partition: int, expected_version: int, state: PartitionState, *, session: int | None = None
    ) -> Won | Lost: ...

    def watch_partition(self, partition: int) -> AsyncIterator[Versioned[PartitionState] | None]: ...

    async def register_member(self, member: MemberInfo) -> None:
        """Say who this process is, until `close` or the end of its session; made again by itself after a lost session.

        Called again it replaces what was said before. Returns once first done; while the service is away it goes on
        trying in the background after raising. A newer run of the same pod takes the place for good: the older one
        then does not register again, which it only logs.
        """
        ...

    async def read_members(self) -> Mapping[str, MemberInfo]: ...

    def watch_members(self) -> AsyncIterator[Mapping[str, MemberInfo]]:
        """Members by pod name. One whose session ended is gone; while the service is away nothing is yielded."""
        ...

    async def report_death(self, death: Death) -> None:
        """Replaces any earlier word about the pod."""
        ...

    def watch_deaths(self) -> AsyncIterator[Mapping[str, Death]]:
        """The newest word per pod name."""
        ...
