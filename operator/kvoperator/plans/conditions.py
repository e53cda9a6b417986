"""Conditions: what was found, in Kubernetes' form. A condition's time changes only when its status does."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from kvoperator.observe import parse_time
from kvoperator.plans import birth, rolling
from kvoperator.plans.problems import Problem, some
from kvoperator.plans.rows import unserved
from kvoperator.snapshot import Snapshot
from kvoperator.spec import KVClusterSpec
from kvoperator.status import Condition, KVClusterStatus, PartitionRow

MESSAGE_LIMIT = 1500
SETTLING = timedelta(seconds=120)
JUST_NOW = timedelta(seconds=20)
Finding = tuple[bool, str, str]  # status, reason, message


def kubernetes_time(when: datetime) -> str:
    """As Kubernetes writes times."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def conditions(
    snapshot: Snapshot, available: Finding, progressing: Finding, problems: Sequence[Problem]
) -> list[Condition]:
    """The three conditions."""
    degraded: Finding = (False, "AsExpected", "nothing is wrong")
    if problems:
        degraded = (True, problems[0].reason, "; ".join(p.message for p in problems)[:MESSAGE_LIMIT])
    status = snapshot.cluster.status
    return [
        _condition(snapshot, status, "Available", available),
        _condition(snapshot, status, "Progressing", progressing),
        _condition(snapshot, status, "Degraded", degraded),
    ]


def _condition(snapshot: Snapshot, before: KVClusterStatus, kind: str, finding: Finding) -> Condition:
    is_so, reason, message = finding
    word = "True" if is_so else "False"
    last = before.condition(kind)
    same = last is not None and last.status == word
    return Condition.model_validate(
        {
            "type": kind,
            "status": word,
            "reason": reason,
            "message": message,
            "lastTransitionTime": last.lastTransitionTime if last and same else kubernetes_time(snapshot.now),
            "observedGeneration": snapshot.cluster.generation,
        }
    )


def settling(snapshot: Snapshot) -> bool:
    """Whether it has never been available, and not for long: then what is missing is still on its way."""
    last = snapshot.cluster.status.condition("Available")
    if last is None:
        return True
    since = parse_time(last.lastTransitionTime)
    return last.status != "True" and last.reason == "Creating" and since is not None and snapshot.now - since < SETTLING


def just_available(snapshot: Snapshot) -> bool:
    """Whether it is serving only just now: then the last ZooKeeper member and router are still on their way."""
    last = snapshot.cluster.status.condition("Available")
    if last is None or last.status != "True":
        return settling(snapshot)
    since = parse_time(last.lastTransitionTime)
    return since is not None and snapshot.now - since < JUST_NOW


def availability(snapshot: Snapshot, spec: KVClusterSpec, rows: Sequence[PartitionRow], *, born: bool) -> Finding:
    """Available: every partition has a leader that serves, and there is a router to reach it by."""
    if not born:
        return False, "Creating", "the cluster is being made"
    without = unserved(snapshot, rows)
    if without and settling(snapshot):
        return False, "Creating", f"waiting for leaders of partitions {some(row.partition for row in without)}"
    if without:
        return False, "PartitionsNotServed", f"nobody serves partitions {some(row.partition for row in without)}"
    routers = snapshot.routers.ready if snapshot.routers else 0
    if spec.router.replicas and not routers:
        return False, "NoRouterReady", "no router is ready; clients that connect to nodes directly are served"
    return True, "Serving", f"all {len(rows)} partitions are served"


def progress(snapshot: Snapshot, spec: KVClusterSpec, *, born: bool, applying: int) -> Finding:
    """Progressing: something is on its way by itself."""
    if not born:
        return True, "Creating", _creating(snapshot, spec)
    old = [pod.name for p in range(spec.partitions) for pod in rolling.outdated(snapshot, p)]
    if old:
        return True, "Rolling", f"pods of an older revision, replaced one by one: {some(old)}"
    routers = snapshot.routers
    if routers is not None and (not routers.settled or routers.updated < routers.replicas):
        return True, "RollingRouters", f"{routers.updated} of {routers.replicas} routers are of the newest revision"
    if applying:
        return True, "Applying", f"{applying} objects are being changed"
    return False, "Settled", "all is as the spec asks"


def _creating(snapshot: Snapshot, spec: KVClusterSpec) -> str:
    zookeeper = snapshot.statefulsets.get(snapshot.names.zookeeper)
    if spec.zookeeper.managed and (zookeeper is None or zookeeper.ready * 2 <= spec.zookeeper.members):
        ready = zookeeper.ready if zookeeper else 0
        return f"waiting for ZooKeeper: {ready} of {spec.zookeeper.members} members are ready"
    if snapshot.coordination is None:
        return f"waiting for ZooKeeper: {snapshot.coordination_error or 'not asked yet'}"
    missing = birth.unregistered(snapshot, spec)
    if missing:
        return f"waiting for nodes to register: {some(missing)}"
    return "giving the partitions their first state"
