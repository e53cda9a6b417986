import json
from typing import Any

import pytest

from kvoperator.builders.context import Context
from kvoperator.builders.everything import build
from kvoperator.names import Names
from kvoperator.spec import parse_spec
from tests.unit.kvoperator.pictures import ID, UID


def context(spec: Any = None, name: Any = "c") -> Any:
    return Context(Names(name, "ns"), UID, ID, parse_spec(spec or {}), "kvcluster:dev")


def objects(spec: Any = None, name: Any = "c") -> Any:
    return {(m["kind"], m["metadata"]["name"]): m for m in build(context(spec, name))}


def pod_spec(manifest: Any) -> Any:
    return manifest["spec"]["template"]["spec"]


def container(manifest: Any) -> Any:
    return pod_spec(manifest)["containers"][0]


def environment(manifest: Any) -> Any:
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container(manifest)["env"]}


WORKLOADS = [("StatefulSet", "c-zk"), ("StatefulSet", "c-p0"), ("Deployment", "c-router")]


def test_a_cluster_is_made_of_these_objects() -> None:
    assert set(objects({"partitions": 2})) == {
        ("Service", "c"),
        ("Service", "c-p0"),
        ("Service", "c-p1"),
        ("Service", "c-zk"),
        ("Service", "c-zk-peers"),
        ("StatefulSet", "c-p0"),
        ("StatefulSet", "c-p1"),
        ("StatefulSet", "c-zk"),
        ("Deployment", "c-router"),
        ("PodDisruptionBudget", "c-p0"),
        ("PodDisruptionBudget", "c-p1"),
        ("PodDisruptionBudget", "c-zk"),
        ("PodDisruptionBudget", "c-router"),
    }


def test_with_an_ensemble_of_its_own_no_zookeeper_is_made() -> None:
    made = objects({"zookeeper": {"connect": "a:2181,b:2182"}})

    assert not [name for _, name in made if name.startswith("c-zk")]
    assert environment(made["StatefulSet", "c-p0"])["KV_COORDINATION"] == f"zookeeper://a:2181,b:2182/kvcluster/{ID}"


def test_everything_goes_with_the_kvcluster() -> None:
    for manifest in build(context()):
        owners = manifest["metadata"]["ownerReferences"]
        assert [(o["kind"], o["name"], o["uid"], o["controller"]) for o in owners] == [("KVCluster", "c", UID, True)]


def test_two_clusters_of_one_namespace_share_no_name_and_no_pod() -> None:
    mine, other = objects(), objects(name="d")

    assert not set(mine) & set(other)
    for key in (k for k in mine if k[0] in ("Service", "StatefulSet", "Deployment")):
        spec = mine[key]["spec"]
        selector = spec["selector"].get("matchLabels", spec["selector"])
        assert selector["kvcluster.dev/cluster"] == "c"


@pytest.mark.parametrize("key", WORKLOADS)
def test_selectors_find_their_own_pods(key: Any) -> None:
    spec = objects()[key]["spec"]

    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("key", WORKLOADS)
def test_pods_are_restricted(key: Any) -> None:
    manifest = objects()[key]
    security = pod_spec(manifest)["securityContext"]

    assert security["runAsNonRoot"]
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(manifest)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod_spec(manifest)["automountServiceAccountToken"] is False


@pytest.mark.parametrize("key", WORKLOADS)
def test_every_folder_that_is_written_to_is_a_volume(key: Any) -> None:
    manifest = objects()[key]
    mounted = {m["mountPath"] for m in container(manifest)["volumeMounts"]}

    assert "/tmp" in mounted
    for variable, value in environment(manifest).items():
        if variable in ("KV_DATA_DIR", "ZOO_DATA_DIR", "ZOO_DATA_LOG_DIR", "ZOO_CONF_DIR", "ZOO_LOG_DIR"):
            assert any(value == m or value.startswith(m + "/") for m in mounted), variable


@pytest.mark.parametrize("key", WORKLOADS)
def test_pods_of_a_kind_sit_on_different_machines_if_they_can(key: Any) -> None:
    spec = pod_spec(objects()[key])
    term = spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"]

    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert (
        term["labelSelector"]["matchLabels"].items() <= objects()[key]["spec"]["template"]["metadata"]["labels"].items()
    )
    assert {c["whenUnsatisfiable"] for c in spec["topologySpreadConstraints"]} == {"ScheduleAnyway"}


def test_nodes_start_together_and_only_the_operator_replaces_them() -> None:
    spec = objects()["StatefulSet", "c-p0"]["spec"]

    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"] == {"type": "OnDelete"}


def test_a_node_is_told_who_it_is() -> None:
    env = environment(objects()["StatefulSet", "c-p2"])

    assert env["KV_POD"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert env["KV_ADVERTISE_HOST"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert env["KV_DNS_NAME"] == "$(KV_POD).c-p2.ns.svc"
    assert env["KV_PARTITION"] == "2"
    assert env["KV_CLUSTER_ID"] == ID
    assert env["KV_DURABILITY"] == "fsync"
    assert env["KV_COORDINATION"] == (
        "zookeeper://c-zk-0.c-zk-peers.ns.svc:2181,c-zk-1.c-zk-peers.ns.svc:2181,c-zk-2.c-zk-peers.ns.svc:2181"
        f"/kvcluster/{ID}"
    )


def test_a_variable_that_names_another_comes_after_it() -> None:
    names = [e["name"] for e in container(objects()["StatefulSet", "c-p0"])["env"]]

    assert names.index("KV_POD") < names.index("KV_DNS_NAME")


def test_roles_are_commands() -> None:
    made = objects()

    assert container(made["StatefulSet", "c-p0"])["args"] == ["kvnode"]
    assert container(made["Deployment", "c-router"])["args"] == ["kvrouter"]


def test_liveness_tolerates_thirty_seconds() -> None:
    for key in WORKLOADS:
        probe = container(objects()[key])["livenessProbe"]
        assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) >= 30


def test_nodes_find_one_another_before_they_are_ready() -> None:
    made = objects()

    for name in ("c-p0", "c-zk-peers"):
        assert made["Service", name]["spec"]["publishNotReadyAddresses"] is True
        assert made["Service", name]["spec"]["clusterIP"] == "None"
    assert "publishNotReadyAddresses" not in made["Service", "c"]["spec"]


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_volumes_of_nodes_and_zookeeper_follow_the_policy_and_no_scaling_deletes_one(policy: Any) -> None:
    made = objects({"storage": {"retention": policy}})

    for name in ("c-p0", "c-zk"):
        kept = made["StatefulSet", name]["spec"]["persistentVolumeClaimRetentionPolicy"]
        assert kept == {"whenDeleted": policy, "whenScaled": "Retain"}


def test_volume_claims_say_whose_data_they_hold() -> None:
    for name in ("c-p0", "c-zk"):
        (template,) = objects()["StatefulSet", name]["spec"]["volumeClaimTemplates"]
        assert template["metadata"]["labels"]["kvcluster.dev/cluster"] == "c"
        assert template["metadata"]["labels"]["kvcluster.dev/cluster-id"] == ID


def test_storage_is_as_asked() -> None:
    made = objects({"storage": {"size": "7Gi", "storageClassName": "fast"}, "zookeeper": {"storage": {"size": "2Gi"}}})
    node = made["StatefulSet", "c-p0"]["spec"]["volumeClaimTemplates"][0]["spec"]
    member = made["StatefulSet", "c-zk"]["spec"]["volumeClaimTemplates"][0]["spec"]

    assert (node["resources"], node["storageClassName"]) == ({"requests": {"storage": "7Gi"}}, "fast")
    assert member["resources"] == {"requests": {"storage": "2Gi"}}
    assert "storageClassName" not in member


def test_zookeeper_gives_six_second_sessions_and_notices_a_lost_leader_in_one_and_a_half() -> None:
    env = environment(objects()["StatefulSet", "c-zk"])
    tick = int(env["ZOO_TICK_TIME"])

    assert 2 * tick <= 6000 <= 20 * tick
    assert tick * int(env["ZOO_SYNC_LIMIT"]) <= 1500


def test_zookeeper_members_know_one_another() -> None:
    env = environment(objects({"zookeeper": {"replicas": 5}})["StatefulSet", "c-zk"])
    servers = env["ZOO_SERVERS"].split()

    assert len(servers) == 5
    assert servers[4] == "server.5=c-zk-4.c-zk-peers.ns.svc:2888:3888;2181"


def test_images_and_pull_secrets_are_the_specs() -> None:
    made = objects({"image": "r/kv:1", "imagePullSecrets": ["pull"], "imagePullPolicy": "Always"})

    for key in (("StatefulSet", "c-p0"), ("Deployment", "c-router")):
        assert container(made[key])["image"] == "r/kv:1"
        assert container(made[key])["imagePullPolicy"] == "Always"
        assert pod_spec(made[key])["imagePullSecrets"] == [{"name": "pull"}]


def test_without_resources_there_are_requests_so_that_no_pod_is_the_first_to_go() -> None:
    for key in WORKLOADS:
        assert set(container(objects()[key])["resources"]["requests"]) == {"cpu", "memory"}


def test_given_resources_are_taken_as_they_are() -> None:
    made = objects({"resources": {"limits": {"memory": "1Gi"}}})

    assert container(made["StatefulSet", "c-p0"])["resources"] == {"limits": {"memory": "1Gi"}}


def test_building_twice_gives_the_same() -> None:
    assert json.dumps(build(context()), sort_keys=True) == json.dumps(build(context()), sort_keys=True)


def test_the_longest_name_fits_every_label() -> None:
    for manifest in build(context({"partitions": 1}, name="n" * 40)):
        for label in manifest["metadata"]["labels"].values():
            assert len(label) <= 63
