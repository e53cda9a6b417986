"""What is wrong, in the order in which a person should look at it: the reasons of the condition Degraded.

docs/operator.md has a row for each reason, with what to do.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from kvoperator.names import COMPONENT_ROUTER
from kvoperator.plans import rolling
from kvoperator.plans.rows import unserved
from kvoperator.snapshot import ObjectKey, PodView, Snapshot
from kvoperator.spec import KVClusterSpec
from kvoperator.status import PartitionRow

IMAGE = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
START = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
MEMBERS = ("ReplicaDamaged", "DiskFull", "SlowDisk")
"""What a replica may say of itself."""
SCHEDULING_PATIENCE = timedelta(seconds=10)
"""A pod is unschedulable for a moment while its volume is being made."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: a word for programs, a sentence for people."""

    reason: str
    message: str


def some(items: Iterable[object], limit: int = 3) -> str:
    """The first few of many, for a sentence."""
    texts = [str(item) for item in items]
    return ", ".join(texts[:limit]) + (f" and {len(texts) - limit} more" if len(texts) > limit else "")


def name_problems(taken: Sequence[ObjectKey]) -> list[Problem]:
    """Names that someone else has."""
    if not taken:
        return []
    names = some(f"{key.kind} {key.name}" for key in taken)
    return [
        Problem(
            "NameTaken",
            f"{names}: there is an object of that name that is not this KVCluster's; it is left alone. Delete or rename "
            "it, or give this KVCluster another name",
        )
    ]


def pod_problems(snapshot: Snapshot) -> list[Problem]:
    """Pods that can't start, by cause."""
    pods = sorted(snapshot.pods.values(), key=lambda p: p.name)
    found: list[Problem] = []
    for reason, belongs, describe in _CAUSES:
        here = [p for p in pods if belongs(snapshot, p)]
        if here:
            found.append(Problem(reason, f"{some(p.name for p in here)}: {describe(here[0])}"))
    return found


def _unschedulable(snapshot: Snapshot, pod: PodView) -> bool:
    since = pod.unschedulable_since
    return bool(pod.unschedulable) and (since is None or snapshot.now - since >= SCHEDULING_PATIENCE)


_Cause = tuple[str, Callable[[Snapshot, PodView], bool], Callable[[PodView], str]]
_CAUSES: tuple[_Cause, ...] = (
    (
        "ImageCannotBePulled",
        lambda _, p: p.waiting in IMAGE,
        lambda p: (
            f"image {p.image} can't be pulled ({p.waiting}: {_short(p.waiting_message)}); correct spec.image, or "
            "make it available to the machines"
        ),
    ),
    ("PodCannotStart", lambda _, p: p.waiting in START, lambda p: f"{p.waiting}: {_short(p.waiting_message)}"),
    (
        "PodCrashing",
        lambda _, p: p.waiting == "CrashLoopBackOff",
        lambda p: (
            f"ended {p.restarts} times, last with exit code {p.exit_code}; see `kubectl logs --previous {p.name}`"
        ),
    ),
    (
        "PodUnschedulable",
        _unschedulable,
        lambda p: f"no machine takes it: {_short(p.unschedulable)}",
    ),
)


def _short(text: str, limit: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def service_problems(snapshot: Snapshot, spec: KVClusterSpec, rows: Sequence[PartitionRow]) -> list[Problem]:
    """What keeps a born cluster from serving, or from surviving the next failure."""
    rolls = {row.partition for row in rows if rolling.outdated(snapshot, row.partition)}
    leaderless = unserved(snapshot, rows)
    short = [row for row in rows if len(row.inSync) < spec.min_in_sync]
    out = [row for row in rows if row not in short and len(row.inSync) < row.replicas and row.partition not in rolls]
    found = []
    if leaderless:
        found.append(Problem("PartitionWithoutLeader", "; ".join(_leaderless(snapshot, row) for row in leaderless[:3])))
    if short:
        found.append(
            Problem(
                "BelowMinInSync",
                "; ".join(
                    f"partition {row.partition} refuses writes: {len(row.inSync)} of {spec.min_in_sync} needed replicas "
                    f"in sync ({some(row.inSync) or 'none'})"
                    for row in short[:3]
                ),
            )
        )
    if out:
        found.append(
            Problem(
                "ReplicaOutOfSync",
                "; ".join(f"partition {row.partition}: {some(_missing(snapshot, row))}" for row in out[:3]),
            )
        )
    return found


def _leaderless(snapshot: Snapshot, row: PartitionRow) -> str:
    if not row.leader:
        return f"partition {row.partition} has no leader"
    pod = snapshot.pods.get(row.leader)
    why = "does not exist" if pod is None else "is not ready"
    return f"partition {row.partition}: its leader {row.leader} {why}"


def _missing(snapshot: Snapshot, row: PartitionRow) -> list[str]:
    return [name for name in snapshot.names.replicas(row.partition, row.replicas) if name not in row.inSync]


def member_problems(snapshot: Snapshot, spec: KVClusterSpec) -> list[Problem]:
    """What replicas say is wrong with them, by reason; those whose registration is gone say nothing any more."""
    coordination = snapshot.coordination
    if coordination is None:
        return []
    by_reason: dict[str, list[str]] = {}
    for pod, member in sorted(coordination.members.items()):
        reason, _, text = member.trouble.partition(": ")
        if reason in MEMBERS and pod in coordination.connected and member.partition < spec.partitions:
            by_reason.setdefault(reason, []).append(f"{pod}: {_short(text)}")
    return [Problem(reason, "; ".join(by_reason[reason][:3])) for reason in MEMBERS if reason in by_reason]


def away_problems(snapshot: Snapshot) -> list[Problem]:
    """ZooKeeper away. Reads and writes go on without it; changes of leaders and in-sync sets wait."""
    if snapshot.coordination is not None:
        return []
    return [
        Problem(
            "ZooKeeperUnavailable",
            f"ZooKeeper can't be asked ({_short(snapshot.coordination_error) or 'no answer'}): partitions go on as "
            "they are, but no leader can be replaced",
        )
    ]


def zookeeper_problems(snapshot: Snapshot, spec: KVClusterSpec) -> list[Problem]:
    """An ensemble of ours that is short of members."""
    view = snapshot.statefulsets.get(snapshot.names.zookeeper)
    ready = view.ready if view else 0
    if not spec.zookeeper.managed or ready >= spec.zookeeper.members:
        return []
    return [Problem("ZooKeeperNotReady", f"{ready} of {spec.zookeeper.members} ZooKeeper members are ready")]


def router_problems(snapshot: Snapshot, spec: KVClusterSpec) -> list[Problem]:
    """Routers that should serve and don't; one that is being replaced is not missed."""
    if snapshot.routers and snapshot.routers.updated < snapshot.routers.replicas:
        return []
    wanted = spec.router.replicas
    ready = snapshot.routers.ready if snapshot.routers else 0
    if ready >= wanted:
        return []
    pods = some(sorted(p.name for p in snapshot.pods.values() if p.component == COMPONENT_ROUTER and not p.ready))
    return [
        Problem("RouterNotReady", f"{ready} of {wanted} routers are ready" + (f"; not ready: {pods}" if pods else ""))
    ]


def failure_problems(snapshot: Snapshot) -> list[Problem]:
    """What the operator could not do."""
    if not snapshot.failures:
        return []
    return [Problem("ApplyFailed", "; ".join(_short(text) for text in snapshot.failures[:3]))]
