"""Events: what changed between the last status and this one, as far as a person can act on it or wants to know.

Made of the two statuses alone, so that an operator that was restarted neither repeats nor forgets one.
"""

from kvoperator.actions import Event
from kvoperator.status import Condition, KVClusterStatus, PartitionRow


def events(before: KVClusterStatus, after: KVClusterStatus) -> list[Event]:
    """Events to post once `after` is written."""
    found: list[Event] = []
    if after.phase == "Deleting":
        return found
    if after.born and not before.born:
        found.append(Event("Normal", "Born", f"cluster {after.clusterId}: every partition has its state"))
    for row in after.partitions:
        found += _of_row(before.row(row.partition), row)
    return found + _of_conditions(before, after)


def _of_row(before: PartitionRow | None, after: PartitionRow) -> list[Event]:
    found: list[Event] = []
    if before is None:
        return found
    where = f"partition {after.partition}"
    if after.leader and after.leader != before.leader:
        was = f", before {before.leader}" if before.leader else ""
        found.append(Event("Normal", "LeaderChanged", f"{where}: {after.leader} leads, epoch {after.epoch}{was}"))
    lost = [pod for pod in before.inSync if pod not in after.inSync]
    back = [pod for pod in after.inSync if pod not in before.inSync]
    if lost:
        left = ", ".join(after.inSync) or "none"
        found.append(Event("Warning", "ReplicaOutOfSync", f"{where}: {', '.join(lost)} left; in sync now: {left}"))
    if back and before.inSync:
        found.append(Event("Normal", "ReplicaInSync", f"{where}: {', '.join(back)} is in sync again"))
    return found


def _of_conditions(before: KVClusterStatus, after: KVClusterStatus) -> list[Event]:
    found: list[Event] = []
    trouble, was = _trouble(after), _trouble(before)
    if trouble and trouble.reason != (was.reason if was else ""):
        found.append(Event("Warning", trouble.reason, trouble.message))
    if was and not trouble:
        found.append(Event("Normal", "Recovered", f"no longer degraded ({was.reason})"))
    available, had = after.condition("Available"), before.condition("Available")
    if available and (had is None or had.status != available.status):
        if available.status == "True":
            found.append(Event("Normal", "Available", available.message))
        elif had is not None:
            found.append(Event("Warning", "Unavailable", available.message))
    return found


def _trouble(status: KVClusterStatus) -> Condition | None:
    """The condition Degraded, when it is so, and for more than what the rows tell already."""
    condition = status.condition("Degraded")
    if condition is None or condition.status != "True" or condition.reason == "ReplicaOutOfSync":
        return None
    return condition
