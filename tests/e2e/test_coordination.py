"""ZooKeeper is away: what runs goes on."""

from tests.e2e.cluster import Cluster
from tests.e2e.experiment import Experiment
from tests.e2e.kube import is_ready, restarts, wait_until


def test_not_one_request_fails_while_all_of_zookeeper_is_dead(cluster: Cluster) -> None:
    before = {pod["metadata"]["name"]: restarts(pod) for pod in cluster.zookeeper_pods()}
    epochs = [state.epoch for state in cluster.partitions()]
    others = {pod["metadata"]["name"]: restarts(pod) for pod in (*cluster.node_pods(), *cluster.router_pods())}
    with Experiment(cluster, "zookeeper killed") as experiment:
        since = experiment.strike()
        for name in before:
            cluster.signal(name, "KILL")
        wait_until(
            "every ZooKeeper container started again",
            lambda: all(restarts(pod) > before[pod["metadata"]["name"]] for pod in cluster.zookeeper_pods()),
            60,
        )
        wait_until("ZooKeeper ready again", lambda: all(map(is_ready, cluster.zookeeper_pods())), 120)
        back = experiment.load.clock()
        cluster.wait_whole()
        experiment.finish()
    print(f"zookeeper killed: back after {back - since:.1f} s")
    experiment.assert_unnoticed(*experiment.partitions, until=back)
    failed = experiment.troubles(since, back)
    assert not failed, f"{len(failed)} requests failed, the first: {failed[0]}"
    assert [state.epoch for state in cluster.partitions()] == epochs, "nobody was to be replaced"
    assert {name: restarts(cluster.pod(name)) for name in others} == others, "losing ZooKeeper restarts nobody"
