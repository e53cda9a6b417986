"""States are told apart by what decides what can come, and kept to go on from."""

import copyreg
import pickle
import zlib
from collections import deque
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from kvcoord.contract import PartitionState, ReplicaId, RunId
from kvnode.core.replica import Replica
from kvnode.core.types import Batch, Config, EpochStart, LogView, Meta, Position
from tests.simulation.explore.world import World


def key(world: World, *, ticks: bool) -> int:
    """A hash of all that decides what can come; `ticks`: and who has ticked, which decides what is usual."""
    kept = {name: value for name, value in vars(world).items() if name not in ("told", "bounds")}
    return hash((freeze(kept), tuple(node.ticked for node in world.nodes) if ticks else ()))


def dump(world: World) -> bytes:
    """Everything, to go on from later."""
    return zlib.compress(pickle.dumps(world, pickle.HIGHEST_PROTOCOL), 1)


def load(data: bytes) -> World:
    """The world that was dumped."""
    world = pickle.loads(zlib.decompress(data))
    assert isinstance(world, World)
    return world


_PLAIN = (int, float, str, bytes, bool, type(None))
_FROZEN = (Batch, Position, PartitionState, ReplicaId, RunId, Meta, Config, EpochStart)


def freeze(value: Any) -> Any:
    """A hashable picture of a value, whatever it is made of."""
    kind = type(value)
    if kind in _PLAIN or kind in _FROZEN:
        return value
    if kind in (list, tuple, deque):
        return tuple(map(freeze, value))
    if kind is dict:
        return frozenset((freeze(k), freeze(v)) for k, v in value.items())
    if kind in (set, frozenset):
        return frozenset(map(freeze, value))
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return kind.__name__, *(freeze(getattr(value, f.name)) for f in fields(value) if f.metadata.get("key", True))
    if callable(value):
        return None  # a table of methods
    return kind.__name__, *((k, freeze(v)) for k, v in sorted(vars(value).items()) if k != "_handlers")


def _reduce(replica: Replica) -> Any:
    return _revive, (replica.config, {k: v for k, v in vars(replica).items() if k != "_handlers"})


def _revive(config: Config, state: dict[str, Any]) -> Replica:
    replica = Replica(config, Meta(), LogView(), 0.0)
    vars(replica).update(state)
    return replica


copyreg.pickle(Replica, _reduce)  # its table of handlers is made anew
