"""redis-cli and redis-benchmark, as Debian has them, against nodes and router."""

import subprocess

import pytest

from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from tests.redis.ours import BlockingCluster

pytestmark = pytest.mark.xdist_group("redis clients")
Address = tuple[str, int]


def key_of(partition: int, prefix: str = "k") -> str:
    """A key of one of the whole cluster's two partitions."""
    owners = SlotMap.even(2).owners
    return next(key for i in range(1000) if owners[slot_of((key := f"{prefix}{i}").encode())] == partition)


def run(program: str, address: Address, *arguments: str, stdin: str = "") -> str:
    """What a program says on stdout; it must end well within a minute."""
    command = [program, "-h", address[0], "-p", str(address[1]), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def test_redis_cli_talks_to_the_router(whole_cluster: BlockingCluster) -> None:
    """Keys of all partitions through one address, in RESP2 and RESP3."""
    router, a, b = whole_cluster.router, key_of(0, "cli"), key_of(1, "cli")

    assert run("redis-cli", router, "MSET", a, "1", b, "2") == "OK\n"
    assert run("redis-cli", router, "-3", "MGET", a, b) == "1\n2\n"
    assert run("redis-cli", router, "INCR", a) == "2\n"
    assert "ERR value is not an integer or out of range" in run("redis-cli", router, "INCRBY", a, "x")
    assert set(run("redis-cli", router, "--scan", "--pattern", "cli*").split()) == {a, b}
    assert run("redis-cli", router, "DEL", a, b) == "2\n"


def test_redis_cli_goes_through_a_pipe(whole_cluster: BlockingCluster) -> None:
    """Many commands in one input, and its mass insertion."""
    router, a, b = whole_cluster.router, key_of(0, "pipe"), key_of(1, "pipe")

    said = run("redis-cli", router, stdin=f"SET {a} 1\nSET {b} 2\nGET {a}\nGET {b}\nDBSIZE\n").split()
    assert said[:4] == ["OK", "OK", "1", "2"]
    lines = "".join(f"SET {key} {i}\r\n" for i in range(50) for key in (a, b))
    assert "errors: 0, replies: 100" in run("redis-cli", router, "--pipe", stdin=lines)
    assert run("redis-cli", router, "MGET", a, b) == "49\n49\n"


def test_redis_cli_follows_the_cluster(whole_cluster: BlockingCluster) -> None:
    """From any node, in cluster mode, to any key."""
    for node in whole_cluster.nodes:
        for partition in range(2):
            key, port = key_of(partition, "follow"), str(node[1])
            assert run("redis-cli", node, "-c", "SET", key, port).strip().endswith("OK")
            assert run("redis-cli", node, "-c", "GET", key).strip().endswith(port)


def test_redis_cli_sees_a_whole_cluster(whole_cluster: BlockingCluster) -> None:
    """Its own check of a cluster finds all slots covered, and masters with replicas."""
    node = whole_cluster.nodes[0]

    said = run("redis-cli", node, "--cluster", "check", f"{node[0]}:{node[1]}")

    assert "[OK] All 16384 slots covered." in said
    assert "[OK] All nodes agree about slots configuration." in said
    assert said.count("M: ") == 2
    assert said.count("S: ") == 4


def test_redis_benchmark_runs_on_the_router(whole_cluster: BlockingCluster) -> None:
    """Every test of it that our commands are enough for, with and without pipelining."""
    tests = "ping_inline,ping_mbulk,set,get,incr,mset"
    for pipeline in ("1", "8"):
        said = run(
            "redis-benchmark",
            whole_cluster.router,
            "-t",
            tests,
            "-n",
            "400",
            "-c",
            "8",
            "-P",
            pipeline,
            "-r",
            "100",
            "--csv",
        )
        names = {line.split(",")[0].strip('"') for line in said.splitlines()[1:]}
        assert names == {"PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"}


def test_redis_benchmark_runs_on_the_cluster(whole_cluster: BlockingCluster) -> None:
    """It finds the masters from one node and uses them all."""
    said = run(
        "redis-benchmark", whole_cluster.nodes[0], "--cluster", "-t", "set,get,incr", "-n", "400", "-c", "8", "-q"
    )

    assert "2 master nodes" in said
    assert said.count("requests per second") == 3
