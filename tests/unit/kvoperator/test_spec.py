import re
from typing import Any

import pytest

from kvcommon.errors import ConfigurationError
from kvoperator.quantity import parse_quantity
from kvoperator.spec import parse_spec


def test_an_empty_spec_gets_every_default() -> None:
    spec = parse_spec({})

    assert (spec.partitions, spec.replicas, spec.min_in_sync, spec.durability) == (3, 3, 2, "fsync")
    assert (spec.zookeeper.managed, spec.zookeeper.members) == (True, 3)
    assert (spec.storage.size, spec.storage.retention, spec.router.replicas) == ("10Gi", "Retain", 2)


@pytest.mark.parametrize(("replicas", "expected"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (7, 4)])
def test_min_in_sync_follows_the_replicas_when_left_out(replicas: Any, expected: Any) -> None:
    assert parse_spec({"replicas": replicas}).min_in_sync == expected


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        ({"zookeeper": {"replicas": 2}}, "zookeeper.replicas is 2: it must be odd"),
        ({"zookeeper": {"replicas": 0}}, "spec.zookeeper.replicas is 0"),
        ({"replicas": 3, "minInSync": 4}, "minInSync is 4 with 3 replicas"),
        ({"partitons": 3}, "spec.partitons: unknown field"),
        ({"router": {"replica": 3}}, "spec.router.replica: unknown field"),
        ({"storage": {"size": "10 GB"}}, "spec.storage.size is '10 GB'"),
        (
            {"storage": {"size": "256Mi"}},
            "storage.size is 256Mi: a node takes no write while less than 256Mi of its volume are free; ask for 512Mi",
        ),
        ({"storage": {"size": "536870911"}}, "storage.size is 536870911: a node takes no write"),
        ({"durability": "maybe"}, "spec.durability is 'maybe'"),
        ({"zookeeper": {"connect": "zk:2181", "replicas": 3}}, "give either connect or replicas"),
        ({"zookeeper": {"connect": "zk"}}, "spec.zookeeper.connect is 'zk'"),
        ({"partitions": 1025}, "spec.partitions is 1025"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_by_field_and_value(manifest: Any, text: Any) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(text)):
        parse_spec(manifest)


@pytest.mark.parametrize("size", ["512Mi", "0.5Gi", "536870912", "1G"])
def test_a_volume_may_be_as_small_as_a_node_can_write_on(size: str) -> None:
    assert parse_spec({"storage": {"size": size}}).storage.size == size


def test_zookeepers_volumes_may_be_smaller() -> None:
    zookeeper = parse_spec({"zookeeper": {"storage": {"size": "64Mi"}}}).zookeeper

    assert zookeeper.storage is not None
    assert zookeeper.storage.size == "64Mi"


def test_an_external_ensemble_has_no_members_of_ours() -> None:
    zookeeper = parse_spec({"zookeeper": {"connect": "a:2181,b:2181"}}).zookeeper

    assert (zookeeper.managed, zookeeper.members) == (False, 0)


def test_resources_may_be_numbers_as_yaml_writes_them() -> None:
    spec = parse_spec({"resources": {"requests": {"cpu": 2, "memory": "1Gi"}}})

    assert spec.resources is not None
    assert spec.resources.requests == {"cpu": "2", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("small", "large"), [("1Gi", "1025Mi"), ("1G", "1Gi"), ("999M", "1G"), ("1.5Gi", "2Gi"), ("100", "1k")]
)
def test_quantities_compare_by_what_they_stand_for(small: Any, large: Any) -> None:
    assert parse_quantity(small) < parse_quantity(large)
