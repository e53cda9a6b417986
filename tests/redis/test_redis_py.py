"""redis-py, unchanged: its plain client on the router, its cluster client on the nodes."""

import pytest
import redis
from redis.cluster import LoadBalancingStrategy, RedisCluster
from redis.exceptions import ResponseError

from tests.redis.ours import BlockingCluster
from tests.redis.test_tools import key_of

FOLLOWERS = LoadBalancingStrategy.ROUND_ROBIN_REPLICAS
pytestmark = pytest.mark.xdist_group("redis clients")


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_plain_client_on_the_router(whole_cluster: BlockingCluster, protocol: int) -> None:
    """Strings, counters, several keys, pipelines, iteration, over all partitions."""
    host, port = whole_cluster.router
    a, b = (key_of(partition, f"plain{protocol}") for partition in range(2))
    with redis.Redis(host=host, port=port, protocol=protocol, client_name="me", decode_responses=True) as client:
        assert client.set(a, "1") is True
        assert client.set(a, "2", nx=True) is None
        assert client.set(a, "2", xx=True, get=True) == "1"
        assert client.incrby(a, 40) == 42
        assert client.append(b, "xyz") == 3
        assert client.getrange(b, 1, -1) == "yz"
        assert client.mget(a, b, "nothing") == ["42", "xyz", None]
        assert client.mset({a: "m", b: "n"}) is True
        assert client.rename(a, a) is True
        assert client.exists(a, b, a) == 3
        with client.pipeline(transaction=False) as pipeline:
            replies = pipeline.get(a).get(b).incr(f"{a}:count").strlen(b).execute()
        assert replies == ["m", "n", 1, 1]
        assert set(client.scan_iter(match=f"plain{protocol}*")) == {a, b, f"{a}:count"}
        assert client.getdel(a) == "m"
        assert client.delete(a, b, f"{a}:count") == 2
        assert client.client_getname() == "me"
        assert client.wait(0, 10) >= 0
        with pytest.raises(ResponseError, match="wrong number of arguments"):
            client.execute_command("GET")


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_cluster_client_on_the_nodes(whole_cluster: BlockingCluster, protocol: int) -> None:
    """It finds the leaders from any node, and iterates over all of them."""
    host, port = whole_cluster.nodes[-1]
    a, b = (key_of(partition, f"cluster{protocol}") for partition in range(2))
    with RedisCluster(host=host, port=port, protocol=protocol, decode_responses=True) as client:
        assert len(client.get_primaries()) == 2
        assert len(client.get_replicas()) == 4
        assert client.set(a, "1") is True
        assert client.set(b, "2") is True
        assert client.mget_nonatomic(a, b) == ["1", "2"]
        assert client.mset_nonatomic({a: "3", b: "4"}) is not None
        with client.pipeline() as pipeline:
            assert pipeline.incr(a).incr(b).get(a).execute() == [4, 5, "4"]
        assert set(client.scan_iter(match=f"cluster{protocol}*")) == {a, b}
        assert client.delete(a, b) == 2


def test_the_cluster_client_may_read_from_followers(whole_cluster: BlockingCluster) -> None:
    """After READONLY a follower answers by itself."""
    host, port = whole_cluster.nodes[0]
    with RedisCluster(host=host, port=port, load_balancing_strategy=FOLLOWERS, decode_responses=True) as client:
        for partition in range(2):
            key = key_of(partition, "followers")
            assert client.set(key, "v") is True
            assert {client.get(key) for _ in range(6)} <= {"v", None}
