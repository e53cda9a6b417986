"""kvctl against fake nodes over real gRPC: what it prints, to whom, and its exit codes."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kvclient.cli.main import app
from kvcommon.slots import slot_of
from kvproto.v1 import kv_pb2
from tests.support.fake_node import FakeCluster, refusing, silent


@dataclass(frozen=True)
class Ended:
    """What a run of kvctl left."""

    exit_code: int
    stdout_bytes: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        return self.stdout_bytes.decode()


class Tool:
    """kvctl of one cluster."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    async def __call__(self, *arguments: str, stdin: bytes = b"") -> Ended:
        """Run it as a process: gRPC's poller does not bear a second event loop that ends before the fake nodes' does."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "kvclient.cli.main",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "KV_ENDPOINT": self.endpoint},
        )
        out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return Ended(process.returncode, out, err.decode())

    async def refused(self, *arguments: str) -> Ended:
        """Run a write that is refused to its deadline, again where the deadline found a try under way: that is 4, rightly."""
        for _ in range(5):
            ended = await self(*arguments)
            if ended.exit_code != 4:
                break
        return ended


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    cluster = FakeCluster(partitions=2)
    for partition in range(2):
        for number in range(2):
            await cluster.node(f"c-p{partition}-{number}", partition)
    yield cluster
    await cluster.stop()


@pytest.fixture
def kvctl(cluster: FakeCluster) -> Tool:
    return Tool(cluster.nodes["c-p0-1"].address)


async def test_what_was_put_is_got(kvctl: Tool, cluster: FakeCluster) -> None:
    put = await kvctl("put", "greeting", "hello")
    assert (put.exit_code, put.stdout) == (0, f"version {cluster.version}\n")
    got = await kvctl("get", "greeting")
    assert (got.exit_code, got.stdout_bytes) == (0, b"hello")


async def test_bytes_go_in_and_out_as_they_are(kvctl: Tool, tmp_path: Path) -> None:
    raw = bytes(range(256))
    file = tmp_path / "value"
    file.write_bytes(raw)
    assert (await kvctl("put", "a", "--file", str(file))).exit_code == 0
    assert (await kvctl("put", "b", stdin=raw)).exit_code == 0
    for key in ("a", "b"):
        assert (await kvctl("get", key)).stdout_bytes == raw
    shown = json.loads((await kvctl("get", "a", "-o", "json")).stdout)
    assert set(shown) == {"key", "value_base64", "version"}


async def test_json_answers_are_one_object_a_line(kvctl: Tool, cluster: FakeCluster) -> None:
    put = await kvctl("-o", "json", "create", "k", "v")
    assert json.loads(put.stdout) == {"key": "k", "version": cluster.version}
    got = await kvctl("get", "k", "-o", "json")
    assert json.loads(got.stdout) == {"key": "k", "value": "v", "version": cluster.version}


async def test_a_condition_that_does_not_hold_is_exit_code_1(kvctl: Tool) -> None:
    await kvctl("put", "there", "v")
    cases = {
        ("get", "missing"): "key 'missing' does not exist",
        ("update", "missing", "v"): "NOT_FOUND",
        ("delete", "missing"): "NOT_FOUND",
        ("create", "there", "v"): "ALREADY_EXISTS",
        ("put", "there", "v", "--expect", "3"): "VERSION_MISMATCH",
    }
    results = await asyncio.gather(*(kvctl(*arguments) for arguments in cases))
    for text, result in zip(cases.values(), results, strict=True):
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("kvctl: ")
        assert text in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("get",),
        ("put", "k", "v", "--file", "/nonexistent"),
        ("put", "k", "--file", "/nonexistent"),
        ("get", "k", "--read-mode", "sometimes"),
        ("get", "k", "--read-mode", "bounded"),
        ("get", ""),
        ("put", "k" * 5000, "v"),
        ("frobnicate",),
    ],
)
def test_wrong_usage_is_exit_code_2_and_asks_nobody(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, list(arguments), env={"KV_ENDPOINT": "127.0.0.1:1"})
    assert result.exit_code == 2
    assert "Traceback" not in result.output


async def test_nobody_there_is_exit_code_3(kvctl: Tool) -> None:
    commands = (("get", "k"), ("map",), ("status",))
    for result in await asyncio.gather(*(kvctl(*command, "-e", "127.0.0.1:1", "-t", "1") for command in commands)):
        assert result.exit_code == 3
        assert "127.0.0.1:1" in result.stderr


async def test_a_write_refused_to_its_deadline_is_3_and_an_unanswered_one_is_4(
    kvctl: Tool, cluster: FakeCluster
) -> None:
    for node in cluster.nodes.values():
        node.answer = refusing(kv_pb2.ERROR_CODE_TOO_FEW_REPLICAS)
    refused = await kvctl.refused("put", "k", "v", "-t", "0.5")
    assert (refused.exit_code, "TOO_FEW_REPLICAS" in refused.stderr) == (3, True)
    for node in cluster.nodes.values():
        node.answer = silent
    assert (await kvctl("put", "k", "v", "-t", "0.5")).exit_code == 4


async def test_the_map_shows_slots_and_leaders(kvctl: Tool) -> None:
    shown = (await kvctl("map")).stdout.splitlines()
    assert shown[0].split() == ["PARTITION", "SLOTS", "EPOCH", "LEADER", "IN", "SYNC", "REPLICAS"]
    assert shown[1].split()[:4] == ["0", "0-8191", "1", "c-p0-0"]
    told = json.loads((await kvctl("map", "-o", "json")).stdout)
    assert told["partitions"][1]["slots"] == [[8192, 16383]]


async def test_the_members_show_addresses(kvctl: Tool, cluster: FakeCluster) -> None:
    told = json.loads((await kvctl("members", "-o", "json")).stdout)
    assert {m["pod"]: m["grpc_address"] for m in told} == {pod: node.address for pod, node in cluster.nodes.items()}
    assert cluster.nodes["c-p1-0"].address in (await kvctl("members")).stdout


async def test_the_status_shows_roles_and_how_far_each_is_behind(kvctl: Tool, cluster: FakeCluster) -> None:
    result = await kvctl("status", "-o", "json")
    assert result.exit_code == 0
    told = {m["pod"]: m for m in json.loads(result.stdout)["members"]}
    assert (told["c-p0-0"]["role"], told["c-p0-0"]["lag"]) == ("leader", 0)
    assert (told["c-p0-1"]["role"], told["c-p0-1"]["lag"]) == ("follower", 3)


async def test_a_dead_leader_is_named_and_is_exit_code_3(kvctl: Tool, cluster: FakeCluster) -> None:
    await cluster.nodes["c-p1-0"].stop()
    result = await kvctl("status")
    assert result.exit_code == 3
    assert "unreachable" in result.stdout
    assert "no serving leader answered for partition 1" in result.stderr


async def test_an_endpoint_without_node_status_is_taken_for_a_router(kvctl: Tool, cluster: FakeCluster) -> None:
    for node in cluster.nodes.values():
        node.is_router = True
    owned = {cluster.slot_map.owners[slot_of(key.encode())]: key for key in ("k0", "k1", "k2", "k3")}
    endpoint = cluster.nodes["c-p0-0"].address
    assert (await kvctl("put", owned[0], "v", "-e", endpoint)).exit_code == 0
    refused = await kvctl.refused("put", owned[1], "v", "-e", endpoint, "-t", "0.5")
    assert refused.exit_code == 3, "the fake routes nothing"
    assert [pod for pod, node in cluster.nodes.items() if node.batches] == ["c-p0-0"]
