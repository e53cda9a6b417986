"""What replicas ask each other, beside replication, when coordination's data was lost (rule 19)."""

from dataclasses import dataclass
from typing import Any

from kvcommon.slotmap import SlotMap
from kvcoord import codec
from kvcoord.contract import ClusterIdentity, PartitionState, ReplicaId
from kvcoord.recovery import Witness


@dataclass(frozen=True, slots=True)
class Kept:
    """What a node keeps on its disk of what belongs to the whole cluster."""

    identity: ClusterIdentity | None = None
    slot_map: SlotMap | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """The only message on its connection: it asks for all that the other knows."""

    cluster_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The only answer, from a replica of this partition."""

    partition: int
    testimony: Witness
    kept: Kept


def kept_to_json(kept: Kept) -> dict[str, Any]:
    """As a JSON object, in coordination's own formats."""
    return {
        "identity": kept.identity and codec.encode_identity(kept.identity).decode(),
        "map": kept.slot_map and codec.encode_map(kept.slot_map).decode(),
    }


def kept_from_json(blob: Any) -> Kept:
    """Empty for what never was kept. Raises DamagedValueError, NewerFormatError."""
    match blob or {}:
        case {**kept}:
            identity, slot_map = kept.get("identity") or "", kept.get("map") or ""
        case _:
            raise codec.DamagedValueError(f"{blob!r} is not what a node keeps of its cluster")
    if not isinstance(identity, str) or not isinstance(slot_map, str):
        raise codec.DamagedValueError("what a node keeps of its cluster is no text")
    return Kept(
        codec.decode_identity(identity.encode()) if identity else None,
        codec.decode_map(slot_map.encode()) if slot_map else None,
    )


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """As a JSON object."""
    t = answer.testimony
    return {
        "partition": answer.partition,
        "replica": [t.replica.pod, t.replica.incarnation],
        "run": t.run,
        "lost": t.lost,
        "state": _state(t.state),
        "tried": _state(t.tried),
        "accepted_epoch": t.accepted_epoch,
        "end": list(t.end),
        "kept": kept_to_json(answer.kept),
    }


def answer_from_json(body: dict[str, Any]) -> Answer:
    """Raises KVClusterError, LookupError, TypeError or ValueError for what is none."""
    pod, incarnation = (str(x) for x in body["replica"])
    epoch, index = (int(x) for x in body["end"])
    testimony = Witness(
        ReplicaId(pod, incarnation),
        str(body["run"]),
        bool(body["lost"]),
        _to_state(body["state"]),
        _to_state(body["tried"]),
        int(body["accepted_epoch"]),
        (epoch, index),
    )
    return Answer(int(body["partition"]), testimony, kept_from_json(body["kept"]))


def _state(state: PartitionState | None) -> str | None:
    return None if state is None else codec.encode_partition(state).decode()


def _to_state(text: str | None) -> PartitionState | None:
    return None if text is None else codec.decode_partition(text.encode())
