"""What happened, line by line, for a person: who, when, what, and that run's epoch and the end of its log."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from kvcoord.contract import PartitionState
from kvnode.core.messages import Ack, Append, Compacted, Go, Hello, Leave, Message, Passed, Refuse, Welcome
from kvnode.core.types import Position

KEPT = 4000


class Mark(StrEnum):
    """Of which kind a line is; pictures choose colours and shapes by it."""

    NOTE = "note"
    START = "start"
    END = "end"
    ROLE = "role"
    FAULT = "fault"
    ASTRAY = "astray"  # a fault of a single message
    HEAL = "heal"
    SEND = "send"
    RECEIVE = "receive"
    DISK = "disk"
    COMMIT = "commit"
    COORDINATION = "coordination"
    OPERATOR = "operator"
    CLIENT = "client"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened at a true time, in seconds. `link` pairs the sending of a message with its arrival.

    `detail`: one of very many of its kind, heartbeats and acknowledgements, that a reader wants to see only at last.
    `pauses`: the run that a fault pauses.
    """

    at: float
    who: str
    mark: Mark
    what: str
    epoch: int | None = None
    index: int | None = None
    link: int = 0
    detail: bool = False
    pauses: str = ""


class Timeline:
    """The lines of a run: all of them, or without details and only the newest."""

    def __init__(self, *, verbose: bool) -> None:
        self.verbose = verbose
        self.lines: deque[Line] = deque(maxlen=None if verbose else KEPT)
        self._links = 0

    def link(self) -> int:
        """A number for a message."""
        self._links += 1
        return self._links

    def add(self, line: Line) -> None:
        if self.verbose or not line.detail:
            self.lines.append(line)


def rows(lines: Iterable[Line], *, details: bool = False) -> list[str]:
    """The timeline as text, one row per line, under a heading."""
    found = [f"{'when':>11}  {'who':<13} {'epoch':>5} {'index':>6}  what"]
    for line in lines:
        if line.detail and not details:
            continue
        epoch = "" if line.epoch is None else str(line.epoch)
        index = "" if line.index is None else str(line.index)
        sign = _SIGNS.get(line.mark, "")
        found.append(f"{line.at:11.6f}  {line.who:<13} {epoch:>5} {index:>6}  {sign}{line.what}")
    return found


_SIGNS = {Mark.FAULT: "FAULT: ", Mark.ASTRAY: "FAULT: ", Mark.HEAL: "healed: ", Mark.BROKEN: ">>> BROKEN: "}


def at(place: Position) -> str:
    """A place in a log, epoch and index, as everywhere in a timeline."""
    return f"{place.epoch}:{place.index}"


def describe(message: Message) -> str:
    """A message between replicas, in words."""
    match message:
        case Append(batches=()):
            return f"heartbeat {message.sequence}: commit {message.commit}{'' if message.leased else ', without lease'}"
        case Append():
            first, last = message.batches[0].first, message.batches[-1].last
            return f"append {first}..{last} after {at(message.prev)}, commit {message.commit}"
        case Ack():
            return f"acknowledge: heard {message.heard}, durable to {message.durable}"
        case Hello():
            end = message.end
            return f"hello to {message.to.run}: epoch {message.epoch}, my log ends at {at(end)}"
        case Welcome():
            return f"welcome in epoch {message.epoch}: our logs are the same to {at(message.parting)}"
        case Refuse():
            return f"refuse in epoch {message.epoch}: {message.reason.name.lower().replace('_', ' ')}"
        case Go():
            return f"go: {message.run.run} hands epoch {message.epoch} over"
        case Compacted():
            return f"compacted to {message.horizon}, deletes gone to {message.purged_to}"
        case Passed():
            return f"everyone has all to {message.index}"
        case Leave():
            return "leave: my disk failed" if message.broken else "leave: take me out"


def describe_state(state: PartitionState) -> str:
    """A partition's state, in words."""
    leader = state.leader.run if state.leader is not None else "nobody"
    return f"epoch {state.epoch} led by {leader}, in sync {', '.join(str(r) for r in state.in_sync)}"
