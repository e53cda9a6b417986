"""The operator's rights: what the chart grants, what docs/operator.md says, and what is called are the same."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from kvoperator.handlers import WATCHED
from kvoperator.names import GROUP, PLURAL
from tests.unit.kvoperator.test_worker import World

ROOT = Path(__file__).resolve().parents[3]
Right = tuple[str, str, str]  # API group, resource, verb
APPLIED = (("", "services"), ("apps", "statefulsets"), ("apps", "deployments"), ("policy", "poddisruptionbudgets"))
"""Server-side apply is a patch that needs the right to create when there is nothing to patch."""
VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}


def granted() -> set[Right]:
    """By the chart, in the KVClusters' namespaces."""
    text = (ROOT / "charts/kvcluster/templates/rbac.yaml").read_text()
    found = re.search(r'define "kvcluster.rules" }}\n(.*?){{- end }}', text, re.DOTALL)
    assert found is not None
    rules = yaml.safe_load(found[1])
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


def documented() -> set[Right]:
    """By the table in docs/operator.md, but for its own namespace's Lease."""
    section = (ROOT / "docs/operator.md").read_text().split("\n## Rights\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")][1:]
    return set(_rights([[cell.strip().replace("`", "") for cell in row] for row in rows if "leases" not in row[1]]))


def _rights(rows: list[list[str]]) -> Iterator[Right]:
    for group, resources, verbs, *_ in rows:
        for resource in resources.split(", "):
            for verb in verbs.split(", "):
                yield ("" if group == "core" else group, resource, verb)


def called(calls: list[tuple[str, str]]) -> set[Right]:
    """What calls (method, path) need."""
    needed = set()
    for method, path in calls:
        api, _, rest = path.partition("/namespaces/")
        _, resource, *name = rest.split("/")
        group = "" if api == "/api/v1" else api.split("/")[2]
        verb = VERBS.get(method) or ("get" if name else "list")
        needed.add((group, "/".join([resource, *name[1:]]), verb))
    return needed


async def test_all_that_is_called_is_granted_and_nothing_is_granted_unsaid() -> None:
    """From birth to the end of a KVCluster with volumes to delete."""
    world = World()
    world.ask(storage={"size": "1Gi", "retention": "Delete"})
    async with world.operator():
        await world.make()
        world.kube.remove("KVCluster", "c")
        await world.kube.until(lambda: not world.kube.of("StatefulSet").keys() & {"c-p0", "c-p1"})
        for name in list(world.kube.of("Pod")):
            world.kube.remove("Pod", name)
        await world.kube.until(lambda: not world.kube.of("KVCluster"))
    await world.end_nodes()
    watched = {("", "pods"), (GROUP, PLURAL), *((group, plural) for group, _, plural in WATCHED)}
    needed = called(world.kube.calls) | {(*kind, verb) for kind in watched for verb in ("list", "watch")}
    needed |= {(group, resource, "create") for group, resource in APPLIED}

    assert documented() == granted()
    assert needed <= granted()
    assert {right for right in granted() - needed if right[2] != "list"} == {
        # What this one life had no need of.
        ("", "pods", "delete"),  # rolls
        ("", "persistentvolumeclaims", "patch"),  # growth
        ("", "persistentvolumeclaims", "delete"),  # nobody makes claims in this world
    }
