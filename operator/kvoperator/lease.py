"""One active operator: a Lease of coordination.k8s.io, held by renewing it. A second operator waits for its end.

A holder is given up on when its Lease has not changed for its whole duration by the *waiter's* clock: clocks of machines
are never compared. The holder itself stops a while before that.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from kvcommon.clock import Clock
from kvoperator.kube import Json, Kube, KubeError

log = structlog.get_logger()
LEASE_NAME = "kvcluster-operator"


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds. `give_up` < `duration`: a holder that can't renew has stopped before another begins."""

    duration: float = 15.0
    renew: float = 3.0
    give_up: float = 10.0
    ask: float = 1.0  # how often a waiter looks


class LeaseHolder:
    """Waits for the Lease, then keeps it."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        identity: str,
        *,
        clock: Clock,
        wall: Callable[[], datetime],
        times: LeaseTimes | None = None,
    ) -> None:
        self._kube, self._namespace, self._identity = kube, namespace, identity
        self._clock, self._wall, self._times = clock, wall, times or LeaseTimes()
        self._seen = ""
        self._seen_at = 0.0
        self.holder = ""

    async def acquire(self) -> None:
        """Return once this process holds the Lease."""
        while True:
            try:
                if await self._try():
                    log.info("lease taken", identity=self._identity)
                    return
            except KubeError as error:
                log.warning("lease not asked for", error=str(error))
            await asyncio.sleep(self._times.ask)

    async def keep(self) -> None:
        """Renew until it is lost, or could not be renewed for `give_up` seconds; then return."""
        renewed = self._clock.now()
        while True:
            await asyncio.sleep(self._times.renew)
            began = self._clock.now()
            try:
                async with asyncio.timeout(max(0.1, renewed + self._times.give_up - began)):
                    if not await self._try():
                        log.error("lease lost", holder=self.holder)
                        return
                renewed = began
            except (KubeError, TimeoutError) as error:
                log.warning("lease not renewed", error=str(error) or "no answer")
                if self._clock.now() - renewed >= self._times.give_up:
                    return

    async def release(self) -> None:
        """Let the next one begin at once."""
        try:
            lease = await self._kube.get("Lease", self._namespace, LEASE_NAME)
            if lease and lease.get("spec", {}).get("holderIdentity") == self._identity:
                lease["spec"]["holderIdentity"] = ""
                await self._kube.replace("Lease", self._namespace, LEASE_NAME, lease)
        except KubeError as error:
            log.warning("lease not released", error=str(error))

    async def _try(self) -> bool:
        lease = await self._kube.get("Lease", self._namespace, LEASE_NAME)
        try:
            if lease is None:
                body = {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": LEASE_NAME, "namespace": self._namespace},
                    "spec": self._spec({}),
                }
                await self._kube.create("Lease", self._namespace, body)
                return True
            if not self._free(lease):
                return False
            await self._kube.replace(
                "Lease", self._namespace, LEASE_NAME, {**lease, "spec": self._spec(lease.get("spec") or {})}
            )
            return True
        except KubeError as error:
            if error.status == 409:  # another one was quicker
                return False
            raise

    def _free(self, lease: Json) -> bool:
        """Whether it may be taken: ours, nobody's, or unchanged for longer than it lasts."""
        spec = lease.get("spec") or {}
        self.holder = str(spec.get("holderIdentity") or "")
        if self.holder in ("", self._identity):
            return True
        version, now = str(lease["metadata"]["resourceVersion"]), self._clock.now()
        if version != self._seen:
            self._seen, self._seen_at = version, now
        return now - self._seen_at > float(spec.get("leaseDurationSeconds") or self._times.duration)

    def _spec(self, before: Json) -> Json:
        now = self._wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = before.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._times.duration),
            "acquireTime": before.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if mine or not before else 1),
        }
