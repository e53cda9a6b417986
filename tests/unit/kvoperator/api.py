"""An API server in memory, as far as the operator asks one; and the controllers that it leaves work to."""

import asyncio
import copy
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any
from urllib.parse import unquote

from kvoperator.kube import KINDS, Json, Kube, KubeError, PatchType, path_of

Key = tuple[str, str, str]  # kind, namespace, name


class MemoryKube(Kube):
    """Objects in a dict. `before_call` may raise, to stand for whatever goes wrong between operator and API server."""

    def __init__(self) -> None:
        self.objects: dict[Key, Json] = {}
        self.calls: list[tuple[str, str]] = []
        self.before_call: Callable[[str, str], None] = lambda method, path: None
        self._numbers = count(1)
        self._changed = asyncio.Event()

    def close(self) -> None:
        pass

    # What a test does as a person or a controller

    def put(self, kind: str, name: str, body: Json, namespace: str = "ns") -> Json:
        """Make an object, or replace it."""
        old = self.objects.get((kind, namespace, name))
        meta = {"name": name, "namespace": namespace, **body.get("metadata", {})}
        meta["uid"] = old["metadata"]["uid"] if old else f"uid-{next(self._numbers)}"
        stored = {"kind": kind, **copy.deepcopy(body), "metadata": meta}
        spec_changed = old is None or old.get("spec") != stored.get("spec")
        meta["generation"] = (old["metadata"]["generation"] if old else 0) + (1 if spec_changed else 0)
        if old is None or {**old, "metadata": _plain(old)} != {**stored, "metadata": _plain(stored)}:
            meta["resourceVersion"] = str(next(self._numbers))
        else:
            meta["resourceVersion"] = old["metadata"]["resourceVersion"]
        self.objects[kind, namespace, name] = stored
        self._change()
        return stored

    def remove(self, kind: str, name: str, namespace: str = "ns") -> None:
        """As `kubectl delete`: at once, or once the finalizers are gone."""
        found = self.objects[kind, namespace, name]
        if found["metadata"].get("finalizers"):
            found["metadata"]["deletionTimestamp"] = "2026-11-21T08:00:00Z"
        else:
            del self.objects[kind, namespace, name]
        self._change()

    def of(self, kind: str) -> dict[str, Json]:
        """Objects of a kind, by name."""
        return {name: body for (k, _, name), body in self.objects.items() if k == kind}

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for something to become true; looked at after every change."""
        async with asyncio.timeout(10):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()

    # What the operator asks

    async def _call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: PatchType | None = None,
    ) -> Json:
        await asyncio.sleep(0)
        self.before_call(method, path)
        self.calls.append((method, path))
        self._change()
        kind, namespace, name, subresource = _parse(path)
        if method == "GET" and not name:
            return {
                "items": [
                    copy.deepcopy(b) for b in self._labelled(kind, namespace, (query or {}).get("labelSelector", ""))
                ]
            }
        if method == "POST":
            return self._create(kind, namespace, body or {})
        found = self.objects.get((kind, namespace, name))
        if method == "PATCH" and content_type == "application/apply-patch+yaml" and not subresource:
            return self._apply(kind, namespace, name, found, body or {})
        if found is None:
            raise KubeError(404, f"{path} not found")
        if method == "GET":
            return copy.deepcopy(found)
        if method == "DELETE":
            _check_uid(found, ((body or {}).get("preconditions") or {}).get("uid"))
            self.remove(kind, name, namespace)
            return {}
        if method == "PUT":
            return self._replace(kind, name, namespace, found, body or {})
        return self._merge(kind, name, namespace, found, body or {})

    def _labelled(self, kind: str, namespace: str, selector: str) -> list[Json]:
        wanted = dict(part.split("=") for part in selector.split(",") if part)
        mine = (b for (k, n, _), b in self.objects.items() if k == kind and n == namespace)
        return [b for b in mine if wanted.items() <= b["metadata"].get("labels", {}).items()]

    def _create(self, kind: str, namespace: str, body: Json) -> Json:
        meta = body["metadata"]
        name = meta.get("name") or f"{meta['generateName']}{next(self._numbers)}"
        if (kind, namespace, name) in self.objects:
            raise KubeError(409, f"{kind} {name} exists")
        return copy.deepcopy(self.put(kind, name, {**body, "metadata": {**meta, "name": name}}, namespace))

    def _apply(self, kind: str, namespace: str, name: str, found: Json | None, body: Json) -> Json:
        uid = body["metadata"].get("uid")
        if uid and (found is None or found["metadata"]["uid"] != uid):
            raise KubeError(409, f"{kind} {name} is another one")
        kept = {k: v for k, v in (found or {}).items() if k == "status"}
        meta = {**(found or {}).get("metadata", {}), **body["metadata"]}
        return copy.deepcopy(self.put(kind, name, {**kept, **body, "metadata": meta}, namespace))

    def _replace(self, kind: str, name: str, namespace: str, found: Json, body: Json) -> Json:
        if body["metadata"].get("resourceVersion") != found["metadata"]["resourceVersion"]:
            raise KubeError(409, f"{kind} {name} has been changed")
        return copy.deepcopy(self.put(kind, name, body, namespace))

    def _merge(self, kind: str, name: str, namespace: str, found: Json, body: Json) -> Json:
        _check_uid(found, body.get("metadata", {}).get("uid"))
        merged = _merged(found, body)
        stored = self.put(kind, name, merged, namespace)
        if "deletionTimestamp" in stored["metadata"] and not stored["metadata"].get("finalizers"):
            del self.objects[kind, namespace, name]
            self._change()
        return copy.deepcopy(stored)


def _plain(body: Json) -> Json:
    return {k: v for k, v in body["metadata"].items() if k not in ("resourceVersion", "generation")}


def _check_uid(found: Json, uid: str | None) -> None:
    if uid and found["metadata"]["uid"] != uid:
        raise KubeError(409, "it is another one")


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return copy.deepcopy(new)
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def _parse(path: str) -> tuple[str, str, str, str]:
    for kind in KINDS:
        base = path_of(kind, "*")
        head, tail = base.split("*")
        if (
            path.startswith(head)
            and (rest := path[len(head) :].split("/", 1))
            and f"/{rest[1]}/".startswith(f"{tail}/")
        ):
            name, _, subresource = unquote(rest[1][len(tail) :].lstrip("/")).partition("/")
            return kind, rest[0], name, subresource
    raise AssertionError(f"the operator asks for {path}")


def run_pods(kube: MemoryKube, namespace: str = "ns") -> None:
    """The StatefulSet and Deployment controllers and the kubelets: a ready pod for each that is asked for."""
    for (kind, where, name), body in list(kube.objects.items()):
        if where != namespace or kind not in ("StatefulSet", "Deployment"):
            continue
        wanted = body["spec"]["replicas"]
        for i in range(wanted):
            if ("Pod", where, f"{name}-{i}") not in kube.objects:
                run_pod(kube, body, f"{name}-{i}", node=f"node-{i}")
        status = {
            "observedGeneration": body["metadata"]["generation"],
            "replicas": wanted,
            "readyReplicas": wanted,
            "updatedReplicas": wanted,
            "updateRevision": f"{name}-r1",
        }
        kube.put(kind, name, {**body, "status": status}, where)


def run_pod(kube: MemoryKube, owner: Json, name: str, *, node: str) -> None:
    """One ready pod."""
    template = owner["spec"]["template"]
    container = template["spec"]["containers"][0]
    labels = {**template["metadata"]["labels"], "controller-revision-hash": f"{owner['metadata']['name']}-r1"}
    state = {"name": container["name"], "image": container["image"], "state": {"running": {}}, "restartCount": 0}
    status = {"conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [state]}
    body = {"metadata": {"labels": labels}, "spec": {**template["spec"], "nodeName": node}, "status": status}
    kube.put("Pod", name, body, owner["metadata"]["namespace"])
