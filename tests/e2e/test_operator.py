"""The operator comes and goes; what it made stays as it is, and clients notice nothing."""

import time

from tests.e2e.cluster import Cluster
from tests.e2e.experiment import Experiment
from tests.e2e.kube import wait_until
from tests.e2e.release import Release

KINDS = "statefulsets,deployments,services,poddisruptionbudgets,configmaps,persistentvolumeclaims,pods,kvclusters"
QUIET = 4.0  # seconds without a change, before
WATCHED = 15.0  # seconds after the new operator is ready


def versions(cluster: Cluster) -> dict[str, str]:
    """The resource version of every object in the namespace: any write changes it."""
    objects = cluster.kube.list(KINDS, cluster.namespace)
    return {f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in objects}


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Names of objects that are new, gone or written."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def test_restarting_the_operator_changes_nothing(cluster: Cluster, operator: Release) -> None:
    def quiet() -> bool:
        first = versions(cluster)
        time.sleep(QUIET)
        return versions(cluster) == first

    wait_until("nothing being written any more", quiet, 90)
    with Experiment(cluster, "operator restarted") as experiment:
        before = versions(cluster)
        experiment.strike()
        operator.restart()
        deadline = time.monotonic() + WATCHED
        while time.monotonic() < deadline:
            assert not changed(before, versions(cluster))
            time.sleep(1.0)
        experiment.finish()
    experiment.assert_unnoticed(*experiment.partitions)


def test_a_second_operator_waits(cluster: Cluster, operator: Release) -> None:
    before = versions(cluster)
    operator.scale(2)
    try:
        leases = cluster.kube.list("leases", operator.namespace)
        holders = {lease["spec"].get("holderIdentity", "") for lease in leases}
        names = {pod["metadata"]["name"] for pod in operator.pods()}
        holding = [name for name in names if any(name in holder for holder in holders)]
        assert len(holding) == 1, f"the operators {names} and the Lease's holders {holders}"
        assert not changed(before, versions(cluster))
    finally:
        operator.scale(1)
