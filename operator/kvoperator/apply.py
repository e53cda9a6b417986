"""Doing what a plan says: each action is one call of Kubernetes or of coordination, and may be repeated."""

from collections.abc import Callable
from datetime import datetime

import structlog

from kvcoord.contract import Coordination, Lost
from kvoperator import actions as act
from kvoperator.kube import Kube, KubeError
from kvoperator.names import API_VERSION, FIELD_MANAGER, FINALIZER, KIND, LABEL_ROLE
from kvoperator.observe import view_object
from kvoperator.plans.birth import first_map
from kvoperator.plans.conditions import kubernetes_time
from kvoperator.snapshot import Applied, ClusterView, ObjectKey
from kvoperator.status import KVClusterStatus, dump_status

log = structlog.get_logger()
MAX_EVENT = 1000


class Applier:
    """Carries out actions for one KVCluster.

    `applied` and `reported` remember what was done, so that it is not done over and over; losing them does no harm.
    """

    def __init__(
        self, kube: Kube, coordination: Callable[[], Coordination | None], now: Callable[[], datetime]
    ) -> None:
        self._kube = kube
        self._coordination = coordination
        self._now = now
        self.applied: dict[ObjectKey, Applied] = {}
        self.reported: dict[str, str] = {}

    async def carry_out(self, cluster: ClusterView, action: act.Action) -> None:
        """Do it.

        Raises:
            KubeError, CoordinationUnavailableError: it could not be done, or it is not known whether it was.

        """
        namespace = cluster.names.namespace
        match action:
            case act.AddFinalizer():
                await self._finalizers(cluster, [*cluster.finalizers, FINALIZER])
            case act.RemoveFinalizer():
                await self._finalizers(cluster, [f for f in cluster.finalizers if f != FINALIZER])
            case act.Apply():
                await self._apply(namespace, action)
            case act.DeleteObject():
                log.info("deleting", kind=action.key.kind, name=action.key.name, why=action.reason)
                await self._kube.delete(action.key.kind, namespace, action.key.name, action.uid)
            case act.GrowClaim():
                log.info("growing a volume", claim=action.name, size=action.size)
                asked = {"resources": {"requests": {"storage": action.size}}}
                body = {"metadata": {"uid": action.uid}, "spec": asked}
                await self._kube.merge("PersistentVolumeClaim", namespace, action.name, body)
            case act.LabelPod():
                await self._label(namespace, action)
            case _:
                await self._coordinate(action)

    async def _finalizers(self, cluster: ClusterView, finalizers: list[str]) -> None:
        body = {"metadata": {"uid": cluster.uid, "finalizers": finalizers}}
        try:
            await self._kube.merge(KIND, cluster.names.namespace, cluster.names.cluster, body)
        except KubeError as error:
            if error.status not in (404, 409):
                raise

    async def _apply(self, namespace: str, action: act.Apply) -> None:
        # With the uid of what was seen, so that one that has been made anew by someone else meanwhile is not touched.
        metadata = {**action.manifest["metadata"], **({"uid": action.uid} if action.uid else {})}
        key = action.key
        answer = await self._kube.apply(key.kind, namespace, key.name, {**action.manifest, "metadata": metadata})
        view = view_object(key.kind, answer)
        known = self.applied.get(key)
        if known is None or known.digest != action.digest:
            log.info("applied", kind=key.kind, name=key.name, new=action.uid is None)
        self.applied[key] = Applied(action.digest, view.uid, view.mark)

    async def _label(self, namespace: str, action: act.LabelPod) -> None:
        body = {"metadata": {"uid": action.uid, "labels": {LABEL_ROLE: action.role}}}
        try:
            await self._kube.merge("Pod", namespace, action.name, body)
        except KubeError as error:
            if error.status not in (404, 409):
                raise
        log.info("labelled", pod=action.name, role=action.role)

    async def _coordinate(self, action: act.Action) -> None:
        coordination = self._coordination()
        if coordination is None:
            return
        match action:
            case act.CreateIdentity():
                outcome = await coordination.create_identity(action.identity, session=action.session)
                log.info("identity", cluster_id=action.identity.cluster_id, made=not isinstance(outcome, Lost))
            case act.CreateMap():
                outcome = await coordination.create_map(first_map(action.partitions), session=action.session)
                log.info("map", partitions=action.partitions, made=not isinstance(outcome, Lost))
            case act.CreatePartition():
                outcome = await coordination.create_partition(action.partition, action.state, session=action.session)
                in_sync = [str(replica) for replica in action.state.in_sync]
                log.info("partition", partition=action.partition, in_sync=in_sync, made=not isinstance(outcome, Lost))
            case act.ReportDeath():
                await self.report(action)
            case _:
                raise AssertionError(f"no such action: {action}")

    async def report(self, action: act.ReportDeath) -> None:
        """Pass on a word of death, once for each run."""
        death, coordination = action.death, self._coordination()
        if coordination is None or self.reported.get(death.pod) == death.run:
            return
        await coordination.report_death(death)
        self.reported[death.pod] = death.run
        log.info("word of death", pod=death.pod, run=death.run, epoch=death.epoch, container=death.container_id)

    async def write_status(self, cluster: ClusterView, status: KVClusterStatus) -> None:
        """Write the status, unless it is what is there. A KVCluster that is gone has none."""
        if status == cluster.status:
            return
        names = cluster.names
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": names.cluster, "namespace": names.namespace, "uid": cluster.uid},
            "status": dump_status(status),
        }
        try:
            await self._kube.apply(KIND, names.namespace, names.cluster, body, subresource="status")
        except KubeError as error:
            if error.status not in (404, 409):
                raise

    async def post(self, cluster: ClusterView, event: act.Event) -> None:
        """Post an Event on the KVCluster; one that can't be posted is only logged."""
        names, now = cluster.names, kubernetes_time(self._now())
        log.info("event", reason=event.reason, message=event.message, type=event.type)
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{names.cluster}-", "namespace": names.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": names.cluster,
                "namespace": names.namespace,
                "uid": cluster.uid,
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:MAX_EVENT],
            "source": {"component": FIELD_MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._kube.create("Event", names.namespace, body)
        except KubeError as error:
            log.warning("event not posted", error=str(error))
