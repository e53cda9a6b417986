"""From `kubectl apply` to a database that keeps what is written to it."""

import asyncio
from typing import Any

from kvclient import AsyncClient
from tests.e2e.cluster import Cluster
from tests.e2e.kube import condition
from tests.support.workload import LoopThread

AVAILABLE_WITHIN = 90.0
KEYS = 20_000
AT_ONCE = 500


def test_an_applied_cluster_is_available_within_ninety_seconds(shared: Cluster) -> None:
    print(f"\nAvailable after {shared.available_after:.1f} s")
    assert shared.available_after <= AVAILABLE_WITHIN


def test_kubectl_get_kvc_shows_it(cluster: Cluster) -> None:
    table = cluster.kube.kubectl("get", "kvc", "-n", cluster.namespace)
    print(f"\n{table}")
    heading, row = table.splitlines()
    shown = dict(zip(heading.split(), row.split(), strict=False))
    assert shown["NAME"] == cluster.name
    assert shown["AVAILABLE"] == "True"
    assert shown["PARTITIONS"] == "3/3"
    assert shown["INSYNC"] == "9/9"


def test_status_says_who_leads_and_who_is_in_sync(cluster: Cluster) -> None:
    resource = cluster.resource()
    status = resource["status"]
    assert status["observedGeneration"] == resource["metadata"]["generation"]
    assert status["clusterId"] == cluster.topology().cluster_id
    for row, state in zip(status["partitions"], cluster.partitions(), strict=True):
        assert (row["partition"], row["leader"], row["epoch"]) == (state.partition, state.leader, state.epoch)
        assert sorted(row["inSync"]) == sorted(state.in_sync) == sorted(state.replicas)
    for kind, wanted in (("Available", "True"), ("Progressing", "False"), ("Degraded", "False")):
        found: dict[str, Any] | None = condition(resource, kind)
        assert found is not None, f"no condition {kind}"
        assert found["status"] == wanted, f"{kind} is {found['status']}: {found['reason']}: {found['message']}"


def test_the_leaders_pod_carries_a_label(cluster: Cluster) -> None:
    leaders = cluster.kube.list(
        "pods", cluster.namespace, f"kvcluster.dev/cluster={cluster.name},kvcluster.dev/role=leader"
    )
    assert sorted(pod["metadata"]["name"] for pod in leaders) == sorted(state.leader for state in cluster.partitions())


def test_twenty_thousand_keys_written_through_the_service_are_read_back(cluster: Cluster) -> None:
    keys = [f"many/{number}".encode() for number in range(KEYS)]

    async def write_and_read() -> list[bytes]:
        async with await AsyncClient.connect(cluster.address(), mode="router") as client:
            gate = asyncio.Semaphore(AT_ONCE)

            async def write(key: bytes) -> int:
                async with gate:
                    return await client.put(key, b"value of " + key)

            async def read(key: bytes, version: int) -> bool:
                async with gate:
                    record = await client.get(key)
                return record is not None and (record.value, record.version) == (b"value of " + key, version)

            versions = await asyncio.gather(*map(write, keys))
            assert len(set(versions)) == KEYS, "versions are unique in the cluster"
            right = await asyncio.gather(*map(read, keys, versions))
            return [key for key, well in zip(keys, right, strict=True) if not well]

    wrong = LoopThread.shared().run(write_and_read())
    assert not wrong, f"{len(wrong)} keys are not as written, among them {wrong[:3]}"
