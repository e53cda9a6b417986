"""etcd as the peer: three members on free ports with their default fsync, spoken to through Python.

"Through Python" is grpc.aio stubs on one channel, to the leader. The messages are the few fields of etcd's rpc.proto
that are needed, under their numbers (https://github.com/etcd-io/etcd/blob/main/api/etcdserverpb/rpc.proto), made at
run time: no generated file to keep.
"""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from kvlocal.ports import free_ports

KNOWN_PLACES = ("/var/cache/localkube/bin/etcd",)
MEMBERS = 3
START_SECONDS = 30.0

_FIELD = descriptor_pb2.FieldDescriptorProto
_SHAPES: dict[str, Sequence[tuple[str, int, str]]] = {
    "ResponseHeader": [("member_id", 2, "uint64")],
    "KeyValue": [("key", 1, "bytes"), ("mod_revision", 3, "int64"), ("value", 5, "bytes")],
    "RangeRequest": [("key", 1, "bytes")],
    "RangeResponse": [("kvs", 2, "*KeyValue")],
    "PutRequest": [("key", 1, "bytes"), ("value", 2, "bytes")],
    "PutResponse": [("header", 1, "ResponseHeader")],
    "RequestOp": [("request_put", 2, "PutRequest")],
    "TxnRequest": [("success", 2, "*RequestOp")],
    "TxnResponse": [("header", 1, "ResponseHeader"), ("succeeded", 2, "bool")],
    "StatusRequest": [],
    "StatusResponse": [("header", 1, "ResponseHeader"), ("leader", 4, "uint64")],
}
_SCALARS = {
    "bytes": _FIELD.TYPE_BYTES,
    "uint64": _FIELD.TYPE_UINT64,
    "int64": _FIELD.TYPE_INT64,
    "bool": _FIELD.TYPE_BOOL,
}


class EtcdMissingError(Exception):
    """There is no etcd to measure beside."""


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="bench/etcd.proto", package="etcdbench", syntax="proto3")
    for name, fields in _SHAPES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            made = message.field.add(name=field, number=number)
            made.label = _FIELD.LABEL_REPEATED if kind.startswith("*") else _FIELD.LABEL_OPTIONAL
            bare = kind.removeprefix("*")
            if bare in _SCALARS:
                made.type = _SCALARS[bare]
            else:
                made.type, made.type_name = _FIELD.TYPE_MESSAGE, f".etcdbench.{bare}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"etcdbench.{name}")) for name in _SHAPES}


MESSAGES = _messages()


class EtcdClient:
    """Stubs on one channel."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address)
        self.put = self._stub("KV/Put", "PutResponse")
        self.range = self._stub("KV/Range", "RangeResponse")
        self.txn = self._stub("KV/Txn", "TxnResponse")
        self.status = self._stub("Maintenance/Status", "StatusResponse")

    def _stub(self, method: str, answer: str) -> Callable[..., Any]:
        return self.channel.unary_unary(
            f"/etcdserverpb.{method}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=MESSAGES[answer].FromString,
        )

    async def put_one(self, key: bytes, value: bytes) -> None:
        await self.put(MESSAGES["PutRequest"](key=key, value=value))

    async def get_one(self, key: bytes) -> bytes:
        """A linearizable read; raises LookupError when the key is not there."""
        answer = await self.range(MESSAGES["RangeRequest"](key=key))
        if not answer.kvs:
            raise LookupError(f"etcd does not have {key!r}")
        return bytes(answer.kvs[0].value)

    async def put_many(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """One transaction of puts; etcd allows 128 operations by default."""
        put, operation = MESSAGES["PutRequest"], MESSAGES["RequestOp"]
        await self.txn(MESSAGES["TxnRequest"](success=[operation(request_put=put(key=k, value=v)) for k, v in pairs]))

    async def leads(self) -> bool:
        """Whether the member on this channel is the leader."""
        answer = await self.status(MESSAGES["StatusRequest"]())
        return bool(answer.leader == answer.header.member_id)

    async def close(self) -> None:
        await self.channel.close()


def find_etcd() -> str:
    """The binary on PATH or where the project's test cluster has it; EtcdMissingError when there is none."""
    found = shutil.which("etcd") or next((p for p in KNOWN_PLACES if os.access(p, os.X_OK)), None)
    if found is None:
        raise EtcdMissingError("no etcd on PATH: install Debian's etcd-server, or leave it out with --without-etcd")
    return found


def etcd_version(binary: str) -> str:
    """As the binary says it: `3.7.3`."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0].rpartition(" ")[2]


def _start(binary: str, folder: Path) -> tuple[list[subprocess.Popen[bytes]], list[str]]:
    ports = free_ports(2 * MEMBERS)
    clients, peers = ports[:MEMBERS], ports[MEMBERS:]
    cluster = ",".join(f"m{i}=http://127.0.0.1:{port}" for i, port in enumerate(peers))
    processes = []
    for i in range(MEMBERS):
        client, peer = f"http://127.0.0.1:{clients[i]}", f"http://127.0.0.1:{peers[i]}"
        arguments = [
            binary, "--name", f"m{i}", "--data-dir", str(folder / f"m{i}"), "--log-level", "error",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", cluster, "--initial-cluster-state", "new",
        ]  # fmt: skip
        with (folder / f"m{i}.log").open("wb") as log:
            processes.append(subprocess.Popen(arguments, stdout=log, stderr=log))
    return processes, [f"127.0.0.1:{port}" for port in clients]


async def _connect_to_leader(addresses: Sequence[str]) -> EtcdClient:
    deadline = time.monotonic() + START_SECONDS
    while True:
        for address in addresses:
            client = EtcdClient(address)
            try:
                if await client.leads():
                    return client
            except grpc.aio.AioRpcError:
                pass
            await client.close()
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"etcd did not elect a leader within {START_SECONDS:.0f} s; its logs are beside its data"
            )
        await asyncio.sleep(0.1)


@asynccontextmanager
async def etcd_cluster(folder: Path) -> AsyncIterator[EtcdClient]:
    """Three members with their data in `folder`, and a client on one channel to their leader."""
    folder.mkdir(parents=True, exist_ok=True)
    processes, addresses = _start(find_etcd(), folder)
    try:
        client = await _connect_to_leader(addresses)
        try:
            yield client
        finally:
            await client.close()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
