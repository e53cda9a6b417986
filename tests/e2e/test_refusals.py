"""What can't be done is refused with a sentence that says why, and does no harm."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from kvcommon.numbers import MAX_KEY_BYTES, MAX_VALUE_BYTES
from kvproto.v1 import kv_pb2, kv_pb2_grpc
from tests.e2e.cluster import Cluster, partition_of
from tests.e2e.experiment import WITHOUT_A_FOLLOWER, Experiment
from tests.e2e.kube import Kube, KubeError, condition, wait_until
from tests.e2e.namespaces import empty_namespace, remove_namespace
from tests.e2e.platforms import Platform
from tests.e2e.release import Release
from tests.e2e.test_lifecycle import small

Manifest = dict[str, Any]
NAMESPACE = "kv-e2e-refused"
# Where nobody listens: refused at once, in no registry's time.
NO_SUCH_IMAGE = "127.0.0.1:1/no/such-image:1"


def put_at(path: str, value: object) -> Callable[[Manifest], None]:
    """A change of one field of the spec."""

    def change(manifest: Manifest) -> None:
        *parents, last = path.split(".")
        place = manifest["spec"]
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value

    return change


def refusal(kube: Kube, manifest: Manifest, namespace: str, change: Callable[[Manifest], None]) -> str:
    """What `kubectl apply` says to the changed manifest. AssertionError when it is taken."""
    changed = copy.deepcopy(manifest)
    change(changed)
    try:
        said = kube.apply(changed, namespace, "--dry-run=server")
    except KubeError as error:
        return error.output
    raise AssertionError(f"was accepted: {said}")


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("zookeeper.replicas", 2, "odd"),
        ("zookeeper.replicas", 0, "zookeeper.replicas"),
        ("minInSync", 4, "minInSync must not be larger than replicas"),
        ("shards", 3, 'unknown field "spec.shards"'),
        ("storage.size", "much", "spec.storage.size"),
    ],
)
def test_a_new_cluster_that_can_not_be_is_refused(
    shared: Cluster, example: Manifest, path: str, value: object, sentence: str
) -> None:
    manifest = copy.deepcopy(example)
    manifest["metadata"]["name"] = "never"
    assert sentence in refusal(shared.kube, manifest, shared.namespace, put_at(path, value))


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("storage.size", "512Mi", "a volume can't shrink"),
        ("partitions", 4, "partitions can't be changed yet"),
        ("replicas", 5, "replicas can't be changed yet"),
    ],
)
def test_a_change_that_can_not_be_is_refused(
    shared: Cluster, example: Manifest, path: str, value: object, sentence: str
) -> None:
    before = shared.resource()["metadata"]["generation"]
    assert sentence in refusal(shared.kube, example, shared.namespace, put_at(path, value))
    assert shared.resource()["metadata"]["generation"] == before


@pytest.fixture(scope="module")
def namespace(kube: Kube, operator: Release) -> Iterator[str]:
    """A namespace for KVClusters that come to nothing."""
    empty_namespace(kube, NAMESPACE)
    yield NAMESPACE
    remove_namespace(kube, NAMESPACE)


def wait_degraded(cluster: Cluster, reason: str, named: str, *, available: str = "False") -> str:
    """Until Degraded has this reason and a message with these words; the message. Available is as given meanwhile."""

    def probe() -> str | None:
        found = condition(cluster.resource(), "Degraded")
        if found is None or found["status"] != "True":
            return None
        return str(found["message"]) if found["reason"] == reason and named in found["message"] else None

    message = wait_until(f"Degraded: {reason}, naming {named}", probe, 120, interval=0.5)
    print(f"\n{reason}: {message}")
    serving = condition(cluster.resource(), "Available")
    assert serving is not None
    assert serving["status"] == available
    return message


def test_an_image_that_does_not_exist_is_named_in_the_status(kube: Kube, platform: Platform, namespace: str) -> None:
    broken = Cluster(kube, platform, namespace, "imageless")
    kube.apply(small(broken.name, NO_SUCH_IMAGE, "Delete"), namespace)
    assert "correct spec.image" in wait_degraded(broken, "ImageCannotBePulled", NO_SUCH_IMAGE)


def test_an_image_that_does_not_exist_stops_a_roll_before_it_harms_anybody(cluster: Cluster, example: Manifest) -> None:
    """A running cluster is told to use it: one follower waits for it, the others go on, and the way back is at once."""
    leaders = {state.leader for state in cluster.partitions()}
    before = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in cluster.node_pods()}
    wrong = copy.deepcopy(example)
    put_at("image", NO_SUCH_IMAGE)(wrong)
    with Experiment(cluster, "wrong image") as experiment:
        experiment.strike()
        try:
            cluster.kube.apply(wrong, cluster.namespace)
            wait_degraded(cluster, "ImageCannotBePulled", NO_SUCH_IMAGE, available="True")
            experiment.flow()
        finally:
            cluster.kube.apply(example, cluster.namespace)
        cluster.wait_whole()
        experiment.finish()
    after = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in cluster.node_pods()}
    replaced = [name for name in before if before[name] != after[name]]
    assert len(replaced) == 1, f"{replaced} were replaced"
    assert replaced[0] not in leaders
    assert {state.leader for state in cluster.partitions()} == leaders
    assert max(map(experiment.gap, experiment.partitions)) <= WITHOUT_A_FOLLOWER


def test_a_name_that_is_taken_is_left_to_its_owner_until_it_is_free(
    kube: Kube, platform: Platform, namespace: str
) -> None:
    newcomer = Cluster(kube, platform, namespace, "taken")
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "taken"},
        "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]},
    }
    kube.apply(theirs, namespace)
    before = kube.get("services", "taken", namespace)
    kube.apply(small(newcomer.name, NO_SUCH_IMAGE, "Delete"), namespace)
    assert "Delete or rename it" in wait_degraded(newcomer, "NameTaken", "Service taken")
    assert kube.get("services", "taken", namespace) == before
    selector = f"kvcluster.dev/cluster={newcomer.name}"
    assert not kube.list("statefulsets,deployments,services,pods", namespace, selector), "half a cluster was made"

    kube.kubectl("delete", "service", "taken", "-n", namespace)
    wait_until(
        "all of it made once the name is free",
        lambda: len(kube.list("statefulsets,deployments", namespace, selector)) == 3,
        30,
    )
    assert kube.get("services", "taken", namespace)["metadata"]["uid"] != before["metadata"]["uid"]


@pytest.mark.parametrize("door", ["router", "node"])
@pytest.mark.parametrize(
    ("request_", "code", "sentence"),
    [
        (kv_pb2.PutRequest(key=b"", value=b"v"), grpc.StatusCode.INVALID_ARGUMENT, "key"),
        (kv_pb2.PutRequest(key=b"k" * (MAX_KEY_BYTES + 1), value=b"v"), grpc.StatusCode.INVALID_ARGUMENT, "4097"),
        (kv_pb2.PutRequest(key=b"k", value=b"v" * (MAX_VALUE_BYTES + 1)), grpc.StatusCode.INVALID_ARGUMENT, "1048577"),
    ],
    ids=["empty key", "long key", "big value"],
)
def test_a_request_that_can_not_be_is_refused_by_every_door(
    cluster: Cluster, door: str, request_: kv_pb2.PutRequest, code: grpc.StatusCode, sentence: str
) -> None:
    address = cluster.address()
    if door == "node":
        owner = partition_of(cluster)(request_.key)
        address = cluster.pod_address(cluster.pod(cluster.partition(owner).leader))
    stub = kv_pb2_grpc.KeyValueStub(cluster.channel(address))
    with pytest.raises(grpc.RpcError) as refused:
        stub.Put(request_, timeout=10)
    assert isinstance(refused.value, grpc.Call)
    assert refused.value.code() is code
    assert sentence in (refused.value.details() or "")


def test_a_request_past_its_deadline_ends_and_leaves_the_door_open(cluster: Cluster) -> None:
    stub = kv_pb2_grpc.KeyValueStub(cluster.channel(cluster.address()))
    with pytest.raises(grpc.RpcError) as late:
        stub.Put(kv_pb2.PutRequest(key=b"late", value=b"v"), timeout=0.0001)
    assert isinstance(late.value, grpc.Call)
    # Unknown, if the router had sent it on and said so before gRPC's own timer had the word.
    assert late.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN), late.value
    written = stub.Put(kv_pb2.PutRequest(key=b"in time", value=b"v"), timeout=10)
    assert stub.Get(kv_pb2.GetRequest(key=b"in time"), timeout=10).version == written.version
