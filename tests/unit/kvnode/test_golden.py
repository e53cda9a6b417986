"""What a node keeps in the store's files in formats of its own, as released: these files only ever get additions beside them."""

import json
from pathlib import Path
from typing import Any

from kvcommon.slotmap import SlotMap
from kvcoord.contract import ClusterIdentity, PartitionState, ReplicaId, RunId
from kvnode.core.types import Meta
from kvnode.operations import Code, Kind, Operation, Outcome, Written
from kvnode.sessions import decode_outcomes, encode_outcomes
from kvnode.shell.metafile import meta_from_json, meta_to_json
from kvnode.shell.testimony import Kept, kept_from_json, kept_to_json
from kvstore.meta import META, read_meta, write_meta
from kvstore.meta import Meta as StoreMeta
from tests.support.faulty_files import FaultyFiles
from tests.unit.kvstore.support import DATA

GOLDEN = Path(__file__).parent / "golden"
ME, OTHER, NEW = (ReplicaId(f"c-p3-{i}", f"disk{i}") for i in range(3))
STATE = PartitionState(
    epoch=7,
    leader=RunId(ME, "run1"),
    in_sync=(ME, OTHER),
    replicas=("c-p3-0", "c-p3-1", "c-p3-2"),
    min_in_sync=2,
    serial=12,
    generation=2,
)
TRIED = PartitionState(7, STATE.leader, (ME, OTHER, NEW), STATE.replicas, min_in_sync=2, serial=13, generation=2)
CORE = Meta(accepted_epoch=7, state=STATE, state_version=4, tried=TRIED, claims=("run0", "run1"))
KEPT = Kept(ClusterIdentity("id", "c", partitions=4, replicas=3), SlotMap.even(4, version=5))
OPERATIONS: list[Operation] = [
    (Kind.PUT, b"a", b"value", None),
    (Kind.GET, b"b", b"", None),
    (Kind.DELETE, b"c", b"", 9),
]
OUTCOMES = [Outcome(Code.OK, 6 << 22), Outcome(Code.OK, 5, b"read"), Outcome(Code.VERSION_MISMATCH, 8)]


def hex_of(name: str) -> bytes:
    lines = (GOLDEN / name).read_text().splitlines()
    return bytes.fromhex("".join(line.partition("#")[0] for line in lines))


def replication(name: str = "replication.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / name).read_text())
    return found


def test_outcomes_of_a_batch_are_written_as_released() -> None:
    assert encode_outcomes(OPERATIONS, OUTCOMES) == hex_of("outcomes.hex")


def test_released_outcomes_of_a_batch_are_read() -> None:
    """What the Get gave is read again."""
    first, read, last = OUTCOMES
    assert list(decode_outcomes(hex_of("outcomes.hex"))) == [first, None, last]
    assert read.value


def test_outcomes_of_writes_that_all_were_done_are_written_as_released() -> None:
    assert encode_outcomes(OPERATIONS[:1] * 3, Written(range(6 << 22, (6 << 22) + 3))) == hex_of("series.hex")


def test_released_outcomes_of_writes_that_all_were_done_are_read() -> None:
    assert list(decode_outcomes(hex_of("series.hex"))) == [Outcome(Code.OK, (6 << 22) + i) for i in range(3)]


def test_what_a_node_keeps_in_meta_is_written_as_released() -> None:
    """To the byte, as the store has it on the disk."""
    files = FaultyFiles()
    kept = {**meta_to_json(CORE), "kept": kept_to_json(KEPT)}
    write_meta(files, DATA, StoreMeta("cluster", 3, "disk0", "c-p3-0", replication=kept))
    assert json.dumps(replication(), sort_keys=True, separators=(",", ":")).encode() in files.read(DATA / META)
    assert (GOLDEN / "replication.json").read_text() == json.dumps(kept, sort_keys=True, indent=1) + "\n"
    found = read_meta(files, DATA)
    assert found is not None
    assert found.replication == replication()


def test_what_a_released_node_kept_in_meta_is_read() -> None:
    assert meta_from_json(replication()) == CORE
    assert kept_from_json(replication()["kept"]) == KEPT


def test_what_a_release_without_claims_kept_is_read() -> None:
    """It did not note which runs claimed, nor what it tried, nor anything of the cluster."""
    old = replication("replication-without-claims.json")
    assert meta_from_json(old) == Meta(7, STATE, 4, None, ("run1",))
    assert kept_from_json(old.get("kept")) == Kept()
