"""States are told apart by what decides what can come; what an action does not touch is shared by those before and after it."""

import copyreg
import io
import pickle
from collections import deque
from collections.abc import Callable
from copy import copy
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary

from kvcoord.contract import PartitionState, ReplicaId, RunId
from kvnode.core import messages
from kvnode.core.replica import Replica
from kvnode.core.types import Batch, Config, EpochStart, LogView, Meta, Position
from tests.simulation.explore.parts import Action, Node
from tests.simulation.explore.world import World

_PLAIN = frozenset({int, float, str, bytes, bool, type(None)})
_SAID = (
    messages.Ack, messages.Append, messages.Compacted, messages.Go, messages.Hello, messages.Leave, messages.Passed,
    messages.Refuse, messages.Welcome,
)  # fmt: skip
_FROZEN = frozenset({Batch, Position, PartitionState, ReplicaId, RunId, Meta, Config, EpochStart, *_SAID})


# --- told apart ------------------------------------------------------------------------------------------------------


def key(world: World, *, ticks: bool) -> int:
    """A hash of all that decides what can come; `ticks`: and who has ticked, which decides what is usual."""
    left_out = ("told", "bounds", "ticked", "nodes", "disks")
    rest = {name: value for name, value in vars(world).items() if name not in left_out}
    lost = {replica: disk for replica, disk in world.disks.items() if all(disk is not n.disk for n in world.nodes)}
    ticked = frozenset(world.ticked) if ticks else None
    return hash((tuple(map(_picture, world.nodes)), freeze(rest), freeze(lost), ticked))


def _picture(node: Node) -> int:
    """A node's part of the key, worked out once: a node of a state is never changed."""
    if node.picture is None:
        node.picture = hash(freeze(node))
    return node.picture


def freeze(value: Any) -> Any:
    """A hashable picture of a value, whatever it is made of."""
    kind = type(value)
    if kind in _PLAIN or kind in _FROZEN:
        return value
    picture = _PICTURES.get(kind)
    if picture is None:
        picture = _PICTURES[kind] = _picture_of(kind)
    return picture(value)


def _sequence(value: Any) -> Any:
    return tuple([x if type(x) in _PLAIN or type(x) in _FROZEN else freeze(x) for x in value])


def _table(value: dict[Any, Any]) -> Any:
    return frozenset([(freeze(k), freeze(v)) for k, v in value.items()])


_PICTURES: dict[type, Callable[[Any], Any]] = {
    list: _sequence,
    tuple: _sequence,
    deque: _sequence,
    dict: _table,
    set: lambda value: frozenset([freeze(x) for x in value]),
    frozenset: lambda value: frozenset([freeze(x) for x in value]),
}


def _picture_of(kind: type) -> Callable[[Any], Any]:
    """How values of another type are made hashable."""
    name = kind.__name__
    if issubclass(kind, Enum):
        return lambda value: value.value
    if is_dataclass(kind):
        names = [f.name for f in fields(kind) if f.metadata.get("key", True)]
        return lambda value: (name, *[freeze(getattr(value, n)) for n in names])
    if callable(kind) and not hasattr(kind, "__dict__"):
        raise TypeError(f"what decides the future of {kind} is not known")
    # A leader's and a follower's parts all hold the replica's common part, which is looked at once.
    left_out = ("_handlers",) if kind is Replica else ("_handlers", "common")
    return lambda value: (name, *[(k, freeze(v)) for k, v in sorted(vars(value).items()) if k not in left_out])


# --- kept ------------------------------------------------------------------------------------------------------------


class Shelf:
    """Makes states of states. A node is copied by way of bytes; what can't change is kept once for all of them."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._values: list[Any] = []
        self._dumps: WeakKeyDictionary[Node, bytes] = WeakKeyDictionary()
        self._table = copyreg.dispatch_table | {Replica: _reduce} | dict.fromkeys(_FROZEN, self._number)

    def branch(self, world: World, action: Action) -> World:
        """The state again, to do an action in: what that changes is a copy, the rest is shared."""
        found = copy(world)
        found.nodes, found.disks, found.ticked = list(world.nodes), dict(world.disks), set(world.ticked)
        for i in world.touched(action):
            node = found.nodes[i] = self._copied(world.nodes[i])
            found.disks[node.disk.replica] = node.disk
        found.ends = [replace(end, queue=end.queue.copy()) for end in world.ends]
        found.attempts = list(map(copy, world.attempts))
        found.used, found.committed, found.writers = dict(world.used), list(world.committed), dict(world.writers)
        return found

    def _copied(self, node: Node) -> Node:
        dumped = self._dumps.get(node)
        if dumped is None:
            data = io.BytesIO()
            pickler = pickle.Pickler(data, pickle.HIGHEST_PROTOCOL)
            pickler.dispatch_table = self._table
            pickler.dump(replace(node, picture=None))
            dumped = self._dumps[node] = data.getvalue()
        found = _Unpickler(dumped, self._values).load()
        assert isinstance(found, Node)
        return found

    def _number(self, value: Any) -> Any:
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self._values)
            self._values.append(value)
        return _kept, (number,)


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, values: list[Any]) -> None:
        super().__init__(io.BytesIO(data))
        self._values = values

    def find_class(self, module: str, name: str) -> Any:
        return self._values.__getitem__ if name == _kept.__name__ else super().find_class(module, name)


def _kept(number: int) -> Any:
    """What stands in a dump for a value of the shelf."""
    raise AssertionError(f"value {number} is looked up on the shelf")


def _reduce(replica: Replica) -> Any:
    return _revive, (replica.config, {k: v for k, v in vars(replica).items() if k != "_handlers"})


def _revive(config: Config, state: dict[str, Any]) -> Replica:
    replica = Replica(config, Meta(), LogView(), 0.0)
    vars(replica).update(state)
    return replica
