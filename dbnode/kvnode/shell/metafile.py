"""The core's meta as the store's opaque JSON, and back."""

from dataclasses import asdict
from typing import Any

from kvcoord.codec import DamagedValueError
from kvcoord.contract import PartitionState, ReplicaId, RunId
from kvnode.core.types import Meta


def meta_to_json(meta: Meta) -> dict[str, Any]:
    """The core's meta as the store's opaque blob."""
    return {
        "accepted_epoch": meta.accepted_epoch,
        "state_version": meta.state_version,
        "state": _state(meta.state),
        "tried": _state(meta.tried),
        "claims": list(meta.claims),
    }


def _state(state: PartitionState | None) -> dict[str, Any] | None:
    if state is None:
        return None
    leader = None if state.leader is None else {"replica": state.leader.replica._asdict(), "run": state.leader.run}
    return {**asdict(state), "leader": leader, "in_sync": [replica._asdict() for replica in state.in_sync]}


def meta_from_json(blob: Any) -> Meta:
    """The core's meta from the store's blob; empty for a new replica. Raises DamagedValueError for what is none."""
    if not blob:
        return Meta()
    try:
        return _meta(blob)
    except (LookupError, TypeError, AttributeError, ValueError) as e:
        raise DamagedValueError(f"what the disk keeps of replication can't be read: {type(e).__name__}: {e}") from e


def _meta(blob: dict[str, Any]) -> Meta:
    if "accepted_epoch" not in blob:
        return Meta()
    state = _to_state(blob["state"])
    led = [state.leader.run] if state is not None and state.leader is not None else []
    claims = tuple(blob.get("claims", led))  # an older release did not note them
    return Meta(blob["accepted_epoch"], state, blob["state_version"], _to_state(blob.get("tried")), claims)


def _to_state(state: dict[str, Any] | None) -> PartitionState | None:
    if state is None:
        return None
    leader = state["leader"]
    run = None if leader is None else RunId(ReplicaId(**leader["replica"]), leader["run"])
    in_sync = tuple(ReplicaId(**r) for r in state["in_sync"])
    return PartitionState(**{**state, "leader": run, "in_sync": in_sync, "replicas": tuple(state["replicas"])})
