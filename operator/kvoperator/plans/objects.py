"""Which objects are to be applied, and which of their names are someone else's."""

import hashlib
import json
from collections.abc import Sequence

from kvoperator.actions import Action, Apply, GrowClaim
from kvoperator.builders.context import Context, Manifest
from kvoperator.builders.everything import build
from kvoperator.names import COMPONENT_NODE, COMPONENT_ZOOKEEPER
from kvoperator.quantity import parse_quantity
from kvoperator.snapshot import ClaimView, ObjectKey, Snapshot
from kvoperator.spec import KVClusterSpec, ZooKeeperStorage


def key_of(manifest: Manifest) -> ObjectKey:
    """The key of a manifest."""
    return ObjectKey(manifest["kind"], manifest["metadata"]["name"])


def digest_of(manifest: Manifest) -> str:
    """Changes exactly when the manifest does."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]


def desired(snapshot: Snapshot, spec: KVClusterSpec, cluster_id: str) -> tuple[Manifest, ...]:
    """All objects as they should be, in the order in which they are made."""
    context = Context(snapshot.names, snapshot.cluster.uid, cluster_id, spec, snapshot.default_image)
    return tuple(_keeping_claims(snapshot, manifest) for manifest in build(context))


def _keeping_claims(snapshot: Snapshot, manifest: Manifest) -> Manifest:
    """A StatefulSet's claim templates can't be changed: those that are there stay; a larger size goes to the claims."""
    there = snapshot.statefulsets.get(manifest["metadata"]["name"])
    if manifest["kind"] != "StatefulSet" or there is None or not there.claim_templates:
        return manifest
    return {**manifest, "spec": {**manifest["spec"], "volumeClaimTemplates": list(there.claim_templates)}}


def claim_names(snapshot: Snapshot, spec: KVClusterSpec) -> tuple[str, ...]:
    """The names of all volume claims that the StatefulSets will make or take up."""
    names = snapshot.names
    pods = [f"{names.zookeeper}-{i}" for i in range(spec.zookeeper.members)]
    pods += [pod for p in range(spec.partitions) for pod in names.replicas(p, spec.replicas)]
    return tuple(names.claim(pod) for pod in pods)


def taken_names(snapshot: Snapshot, spec: KVClusterSpec, manifests: Sequence[Manifest]) -> tuple[ObjectKey, ...]:
    """Objects that have one of our names and are not ours; they are never touched."""
    owner = snapshot.cluster.uid
    views = [snapshot.objects.get(key_of(manifest)) for manifest in manifests]
    objects = [view.key for view in views if view is not None and view.owner_uid != owner]
    claims = [snapshot.claims[name] for name in claim_names(snapshot, spec) if name in snapshot.claims]
    foreign = [ObjectKey("PersistentVolumeClaim", c.name) for c in claims if c.cluster != snapshot.names.cluster]
    return (*objects, *foreign)


def foreign_volumes(snapshot: Snapshot, spec: KVClusterSpec, cluster_id: str) -> tuple[str, ...]:
    """Claims with our names whose data is that of another cluster id."""
    found = (snapshot.claims.get(name) for name in claim_names(snapshot, spec))
    return tuple(c.name for c in found if c and c.cluster == snapshot.names.cluster and c.cluster_id != cluster_id)


def known_cluster_ids(snapshot: Snapshot) -> frozenset[str]:
    """The ids on volumes that an earlier KVCluster of this name has left."""
    mine = (c for c in snapshot.claims.values() if c.cluster == snapshot.names.cluster and not c.deleting)
    return frozenset(c.cluster_id for c in mine if c.cluster_id)


def applies(snapshot: Snapshot, manifests: Sequence[Manifest], taken: Sequence[ObjectKey]) -> list[Action]:
    """Apply what is not there, was changed here, or was changed by someone else since it was applied."""
    actions: list[Action] = []
    for manifest in manifests:
        key, digest = key_of(manifest), digest_of(manifest)
        view, last = snapshot.objects.get(key), snapshot.applied.get(key)
        if key in taken or (view is not None and view.deleting):
            continue
        if view is None or last is None or (last.digest, last.uid, last.mark) != (digest, view.uid, view.mark):
            actions.append(Apply(key, view.uid if view else None, digest, manifest))
    return actions


def growths(snapshot: Snapshot, spec: KVClusterSpec) -> list[Action]:
    """Volumes that are to be larger than what was asked for until now."""
    actions: list[Action] = []
    for name in claim_names(snapshot, spec):
        claim = snapshot.claims.get(name)
        if claim is None or claim.deleting or claim.cluster != snapshot.names.cluster:
            continue
        size = _size_of(claim, spec)
        if size and parse_quantity(size) > parse_quantity(claim.requested):
            actions.append(GrowClaim(claim.name, claim.uid, size))
    return actions


def _size_of(claim: ClaimView, spec: KVClusterSpec) -> str:
    if claim.component == COMPONENT_NODE:
        return spec.storage.size
    if claim.component == COMPONENT_ZOOKEEPER:
        return (spec.zookeeper.storage or ZooKeeperStorage.model_validate({})).size
    return ""
