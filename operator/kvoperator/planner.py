"""The operator's decisions: `plan(snapshot)` says what to do now, in order, and what the status is.

Pure: the same snapshot gives the same plan. Level-triggered: it looks at what is, never at what happened, so a plan that was
cut off half-way, or carried out twice, does no harm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kvcommon.numbers import GRPC_PORT
from kvoperator.actions import Action, AddFinalizer, Apply, Event, ReportDeath
from kvoperator.names import COMPONENT_ROUTER, FINALIZER, selector
from kvoperator.plans import birth, objects, problems
from kvoperator.plans.conditions import Finding, availability, conditions, just_available, progress, settling
from kvoperator.plans.deaths import deaths_due
from kvoperator.plans.deletion import deletions
from kvoperator.plans.events import events
from kvoperator.plans.problems import Problem
from kvoperator.plans.roles import labels_due
from kvoperator.plans.rolling import replacements
from kvoperator.plans.rows import rows, unserved
from kvoperator.snapshot import ObjectKey, Snapshot
from kvoperator.spec import KVClusterSpec
from kvoperator.status import KVClusterStatus, PartitionRow


@dataclass(frozen=True)
class Plan:
    """Actions in their order, then the status, then the events. `again`: look once more at once."""

    actions: tuple[Action, ...]
    status: KVClusterStatus
    events: tuple[Event, ...] = ()
    again: bool = field(default=False)


@dataclass(frozen=True)
class _Verdict:
    """What is to be said of the cluster."""

    phase: str
    available: Finding
    progressing: Finding
    problems: Sequence[Problem] = ()
    rows: Sequence[PartitionRow] = ()
    born: bool = False


def plan(snapshot: Snapshot) -> Plan:
    """What to do now."""
    if snapshot.cluster.deleting_since is not None:
        return _ending(snapshot)
    if FINALIZER not in snapshot.cluster.finalizers:
        return Plan((AddFinalizer(),), snapshot.cluster.status, again=True)
    spec = snapshot.cluster.spec
    if spec is None:
        return _refused(snapshot, Problem("InvalidSpec", snapshot.cluster.spec_error))
    cluster_id = snapshot.cluster.status.clusterId
    if not cluster_id:
        return _named(snapshot)
    foreign = objects.foreign_volumes(snapshot, spec, cluster_id)
    if foreign:
        return _refused(snapshot, _foreign(snapshot, foreign))
    return _living(snapshot, spec, cluster_id)


def _ending(snapshot: Snapshot) -> Plan:
    actions, message = deletions(snapshot)
    available = (False, "Deleting", "the KVCluster is being deleted")
    born = snapshot.cluster.status.born
    return _answer(snapshot, actions, _Verdict("Deleting", available, (True, "Deleting", message), born=born))


def _named(snapshot: Snapshot) -> Plan:
    """Settle the cluster's id and write it down, before anything is made that bears it."""
    known = objects.known_cluster_ids(snapshot)
    if len(known) > 1:
        spec = snapshot.cluster.spec
        assert spec is not None
        names = [c.name for c in snapshot.claims.values() if c.cluster_id in known]
        return _refused(snapshot, _foreign(snapshot, names))
    status = snapshot.cluster.status.model_copy(update={"clusterId": next(iter(known), snapshot.fresh_id)})
    return Plan((), status, again=True)


def _foreign(snapshot: Snapshot, names: Sequence[str]) -> Problem:
    return Problem(
        "ForeignVolumes",
        f"{problems.some(names)}: kept volumes of another cluster that had the name {snapshot.names.cluster}; nothing is "
        "started on them. Delete those that are not wanted, or use another name",
    )


def _refused(snapshot: Snapshot, problem: Problem) -> Plan:
    """Nothing is changed as long as this stands."""
    status = snapshot.cluster.status
    old = status.condition("Available")
    serving = old is not None and old.status == "True"
    available = (serving, old.reason if old else "Creating", old.message if old else "not made yet")
    progressing = (False, "Refused", problem.message)
    verdict = _Verdict("Degraded", available, progressing, [problem], status.partitions, status.born)
    return _answer(snapshot, [], verdict)


def _living(snapshot: Snapshot, spec: KVClusterSpec, cluster_id: str) -> Plan:
    manifests = objects.desired(snapshot, spec, cluster_id)
    taken = objects.taken_names(snapshot, spec, manifests)
    lost, misfit = birth.lost_data(snapshot, spec), birth.other_shape(snapshot, spec)
    born = snapshot.cluster.status.born or _is_born(snapshot, spec)
    # Before the birth a name taken stops everything: half a cluster would be in the way of its owner and of a rename.
    applies = [] if taken and not born else objects.applies(snapshot, manifests, taken)
    changing = frozenset(action.key for action in applies if isinstance(action, Apply))
    actions = [
        *_deaths(snapshot),
        *applies,
        *objects.growths(snapshot, spec),
        *birth.births(snapshot, spec, cluster_id),
        *labels_due(snapshot),
        *([] if lost or misfit else replacements(snapshot, spec, changing)),
    ]
    all_rows = rows(snapshot, spec)
    available = availability(snapshot, spec, all_rows, born=born)
    found = _problems(snapshot, spec, all_rows, born=born)
    grave = [*problems.name_problems(taken)]
    if misfit:
        grave.append(Problem("InvalidSpec", f"{misfit}; ask for what is kept, or delete the kept volumes"))
    if lost:
        grave.append(
            Problem("CoordinationDataLost", f"{lost}: nothing is made anew over data that exists; {birth.RECOVERY}")
        )
    verdict = _Verdict(
        phase=_phase(available[0], [*grave, *found], born=born),
        available=available,
        progressing=progress(snapshot, spec, born=born, applying=_changes(snapshot, applies)),
        problems=[*grave, *found],
        rows=all_rows,
        born=born,
    )
    return _answer(snapshot, actions, verdict)


def _deaths(snapshot: Snapshot) -> list[ReportDeath]:
    coordination = snapshot.coordination
    if coordination is None:
        return []
    due = deaths_due(snapshot.pods.values(), coordination.partitions, coordination.members, snapshot.reported)
    return [ReportDeath(death) for death in due]


def _changes(snapshot: Snapshot, applies: Sequence[Action]) -> int:
    """How many objects change. An operator that has just started applies all of them, which changes nothing."""
    made = [action for action in applies if isinstance(action, Apply)]
    return sum(action.uid is None or action.key in snapshot.applied for action in made)


def _is_born(snapshot: Snapshot, spec: KVClusterSpec) -> bool:
    return snapshot.coordination is not None and birth.all_there(snapshot.coordination, spec)


def _problems(
    snapshot: Snapshot, spec: KVClusterSpec, all_rows: Sequence[PartitionRow], *, born: bool
) -> list[Problem]:
    """While a cluster is being made, what is merely not there yet is progress, not a problem."""
    found = [*problems.pod_problems(snapshot), *problems.failure_problems(snapshot)]
    found += problems.member_problems(snapshot, spec)
    if born and not (settling(snapshot) and unserved(snapshot, all_rows)):
        found += problems.service_problems(snapshot, spec, all_rows)
        found += problems.away_problems(snapshot)
        if not just_available(snapshot):
            found += problems.zookeeper_problems(snapshot, spec)
            found += problems.router_problems(snapshot, spec)
    return found


def _phase(available: bool, found: Sequence[Problem], *, born: bool) -> str:
    if born and not available:
        return "Unavailable"
    if found:
        return "Degraded"
    return "Ready" if available else "Creating"


def _answer(snapshot: Snapshot, actions: Sequence[Action], verdict: _Verdict) -> Plan:
    before, spec, names = snapshot.cluster.status, snapshot.cluster.spec, snapshot.names
    all_rows = verdict.rows
    served = len(all_rows) - len(unserved(snapshot, all_rows))
    after = KVClusterStatus(
        observedGeneration=snapshot.cluster.generation,
        phase=verdict.phase,
        clusterId=before.clusterId,
        born=verdict.born,
        endpoint=f"{names.endpoint}:{GRPC_PORT}",
        readyPartitions=f"{served}/{spec.partitions if spec else len(all_rows)}",
        inSyncReplicas=f"{sum(len(r.inSync) for r in all_rows)}/{sum(r.replicas for r in all_rows)}",
        routers=snapshot.routers.replicas if snapshot.routers else 0,
        routerSelector=",".join(f"{k}={v}" for k, v in sorted(selector(names, COMPONENT_ROUTER).items())),
        conditions=conditions(snapshot, verdict.available, verdict.progressing, verdict.problems),
        partitions=list(all_rows),
    )
    return Plan(tuple(actions), after, tuple(events(before, after)))


def wanted_keys(snapshot: Snapshot, spec: KVClusterSpec) -> tuple[ObjectKey, ...]:
    """The keys of all objects that this cluster has or will have."""
    return tuple(objects.key_of(manifest) for manifest in objects.desired(snapshot, spec, "unknown"))
