"""The Kubernetes API, as far as the operator uses it; the only module that knows the kubernetes client.

Objects are the API server's own JSON. Calls block in threads of their own pool, with explicit time-outs.
"""

import asyncio
import json
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal
from urllib.parse import urlencode

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from kvcommon.errors import ConfigurationError, KVClusterError
from kvoperator.names import API_VERSION, FIELD_MANAGER, GROUP, PLURAL, VERSION

Json = dict[str, Any]
CONNECT_TIMEOUT, READ_TIMEOUT = 3.0, 15.0
THREADS = 16

KINDS: Mapping[str, tuple[str, str]] = {
    "KVCluster": (API_VERSION, PLURAL),
    "Service": ("v1", "services"),
    "Pod": ("v1", "pods"),
    "Event": ("v1", "events"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "StatefulSet": ("apps/v1", "statefulsets"),
    "Deployment": ("apps/v1", "deployments"),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets"),
    "Lease": ("coordination.k8s.io/v1", "leases"),
}
PatchType = Literal["application/merge-patch+json", "application/apply-patch+yaml"]


class KubeError(KVClusterError):
    """The API server refused, or could not be reached (`status` 0)."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def path_of(kind: str, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
    """The URL's path of a kind's objects, or of one; `namespace` None: of all namespaces."""
    api, plural = KINDS[kind]
    parts = ["api", api] if api == "v1" else ["apis", api]
    if namespace is not None:
        parts += ["namespaces", namespace]
    return "/" + "/".join([*parts, plural, *([name] if name else []), *([subresource] if subresource else [])])


def accept_as_kubectl_does(context: ssl.SSLContext) -> None:
    """Verify certificates as Go does: Python 3.13 asks more of a CA's form than many clusters' own CAs have."""
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT


class Kube:
    """Calls of the API server. Any of them may raise KubeError; one that timed out may have been done."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kube")

    @classmethod
    def connect(cls) -> "Kube":
        """By the pod's service account, or by KUBECONFIG outside of a cluster.

        Raises:
            ConfigurationError: neither is there.

        """
        settings = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]  # the library's
        except config.ConfigException:
            try:
                config.load_kube_config(client_configuration=settings)  # type: ignore[no-untyped-call]  # the library's
            except config.ConfigException as error:
                raise ConfigurationError(
                    f"no way to Kubernetes: {error}; run in a pod with a service account, or set KUBECONFIG"
                ) from None
        settings.connection_pool_maxsize = THREADS
        settings.retries = urllib3.Retry(0)
        api = client.ApiClient(settings)
        context = urllib3.util.ssl_.create_urllib3_context()
        accept_as_kubectl_does(context)
        api.rest_client.pool_manager.connection_pool_kw["ssl_context"] = context
        return cls(api)

    def close(self) -> None:
        """Let go of connections and threads; calls under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._api.close()  # type: ignore[no-untyped-call]  # the library's

    async def served(self) -> bool:
        """Whether the API server knows KVClusters, which is to say that the CRD is there."""
        try:
            await self._call("GET", f"/apis/{GROUP}/{VERSION}")
        except KubeError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """An object, or None when there is none."""
        try:
            return await self._call("GET", path_of(kind, namespace, name))
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: str, namespace: str | None, selector: str = "") -> list[Json]:
        """Objects with these labels."""
        answer = await self._call(
            "GET", path_of(kind, namespace), query={"labelSelector": selector} if selector else {}
        )
        items: list[Json] = answer.get("items", [])
        return items

    async def create(self, kind: str, namespace: str, body: Json) -> Json:
        """Create an object; KubeError 409 when it is there already."""
        return await self._call("POST", path_of(kind, namespace), body, query={"fieldManager": FIELD_MANAGER})

    async def replace(self, kind: str, namespace: str, name: str, body: Json) -> Json:
        """Replace an object, if it still has the resourceVersion in `body`; KubeError 409 when not."""
        return await self._call("PUT", path_of(kind, namespace, name), body, query={"fieldManager": FIELD_MANAGER})

    async def apply(self, kind: str, namespace: str, name: str, body: Json, *, subresource: str | None = None) -> Json:
        """Server-side apply, as the one owner of the fields in `body`; KubeError 409 when `metadata.uid` is another."""
        return await self._call(
            "PATCH",
            path_of(kind, namespace, name, subresource),
            body,
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
            content_type="application/apply-patch+yaml",
        )

    async def merge(self, kind: str, namespace: str, name: str, body: Json) -> Json:
        """Change some fields; KubeError 409 when `metadata.uid` or `resourceVersion` is another."""
        return await self._call(
            "PATCH",
            path_of(kind, namespace, name),
            body,
            query={"fieldManager": FIELD_MANAGER},
            content_type="application/merge-patch+json",
        )

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete the object of this uid, and in the background what belongs to it. Gone already, or another: done."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._call("DELETE", path_of(kind, namespace, name), body)
        except KubeError as error:
            if error.status not in (404, 409):
                raise

    async def _call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: PatchType | None = None,
    ) -> Json:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._blocking, method, path, body, query, content_type)

    def _blocking(
        self, method: str, path: str, body: Json | None, query: Mapping[str, str] | None, content_type: str | None
    ) -> Json:
        target = f"{path}?{urlencode(query)}" if query else path
        headers = {"Accept": "application/json", "Content-Type": content_type or "application/json"}
        # Asked for at each call: a service account's token is replaced every hour.
        headers |= {auth["key"]: auth["value"] for auth in self._api.configuration.auth_settings().values()}
        text = None if body is None else json.dumps(body)
        try:
            answer = self._api.rest_client.pool_manager.request(
                method,
                self._api.configuration.host + target,
                headers=headers,
                body=text,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
                retries=False,
            )
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            raise KubeError(0, f"{method} {path}: the API server can't be reached ({error})") from error
        if not 200 <= answer.status < 300:
            raise KubeError(answer.status, f"{method} {path}: {_reason(answer.status, answer.data)}")
        result: Json = json.loads(answer.data)
        return result


def _reason(status: int, data: bytes) -> str:
    try:
        return f"{json.loads(data)['message']} ({status})"
    except (ValueError, KeyError, TypeError):
        return f"status {status}"
