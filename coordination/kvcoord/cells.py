"""The contract on top of versioned cells: what the three implementations have in common.

An implementation keeps bytes in named cells, each with a version that starts at 0 and grows by one with every change,
and the members; this module makes typed values of them. Cell names are also ZooKeeper's node names (docs/coordination.md).
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from kvcommon.errors import KVClusterError
from kvcommon.slotmap import SlotMap
from kvcoord import codec
from kvcoord.contract import ClusterIdentity, Death, Lost, MemberInfo, PartitionState, Versioned, Won

T = TypeVar("T")

IDENTITY: Final = "identity"
MAP: Final = "map"
PARTITIONS: Final = "partitions"
MEMBERS: Final = "members"
RUNS: Final = "runs"
DEATHS: Final = "deaths"

CALL_TIMEOUT: Final = 2.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Cell:
    """The content of one cell. `birth` differs when the cell was made anew, its versions having started again."""

    data: bytes
    version: int
    birth: int = 0


def partition_cell(partition: int) -> str:
    """The cell of a partition's state."""
    return f"{PARTITIONS}/{partition}"


def run_cell(pod: str) -> str:
    """The cell that names the newest run of a pod."""
    return f"{RUNS}/{pod}"


def is_news(seen: Cell | None, now: Cell | None, *, first: bool) -> bool:
    """Whether a watch that last yielded `seen` yields `now`: the first reading, and later whatever is another.

    A cell that is gone, was made anew, or is back at a lower version is news: readings do not go back by themselves, so the
    coordination data was lost or turned back, which callers must see (rule 19).
    """
    if first or seen is None or now is None:
        return first or seen is not now
    return (now.birth, now.version) != (seen.birth, seen.version)


class CellCoordination(ABC):
    """Typed access to cells; see `kvcoord.contract.Coordination` for what each method promises."""

    @abstractmethod
    async def _read(self, cell: str) -> Cell | None:
        """The cell's content, ordered after every write acknowledged before."""

    @abstractmethod
    async def _create(self, cell: str, data: bytes, session: int | None = None) -> Won | Lost:
        """Make the cell, at version 0, unless it exists; in this session only, if one is given."""

    @abstractmethod
    async def _compare_and_set(
        self, cell: str, expected_version: int, data: bytes, session: int | None = None
    ) -> Won | Lost:
        """Replace the cell's content if it exists at this version; in this session only, if one is given."""

    @abstractmethod
    def _watch(self, cell: str) -> AsyncGenerator[Cell | None, None]:
        """The content now, then later ones; see `is_news`."""

    @abstractmethod
    async def _read_members(self) -> Mapping[str, bytes]:
        """The registrations by pod."""

    @abstractmethod
    def _watch_members(self) -> AsyncGenerator[Mapping[str, bytes], None]:
        """The registrations now, then after each change."""

    async def read_identity(self) -> ClusterIdentity | None:
        cell = await self._read(IDENTITY)
        return None if cell is None else codec.decode_identity(cell.data)

    async def create_identity(self, identity: ClusterIdentity, *, session: int | None = None) -> Won | Lost:
        return await self._create(IDENTITY, codec.encode_identity(identity), session)

    async def read_map(self) -> Versioned[SlotMap] | None:
        return _versioned(await self._read(MAP), codec.decode_map)

    async def create_map(self, slot_map: SlotMap, *, session: int | None = None) -> Won | Lost:
        return await self._create(MAP, codec.encode_map(slot_map), session)

    async def compare_and_set_map(self, expected_version: int, slot_map: SlotMap) -> Won | Lost:
        return await self._compare_and_set(MAP, expected_version, codec.encode_map(slot_map))

    async def watch_map(self) -> AsyncGenerator[Versioned[SlotMap] | None, None]:
        async with aclosing(self._watch(MAP)) as found:
            async for cell in found:
                yield _versioned(cell, codec.decode_map)

    async def read_partition(self, partition: int) -> Versioned[PartitionState] | None:
        return _versioned(await self._read(partition_cell(partition)), codec.decode_partition)

    async def create_partition(
        self, partition: int, state: PartitionState, *, session: int | None = None
    ) -> Won | Lost:
        return await self._create(partition_cell(partition), codec.encode_partition(state), session)

    async def compare_and_set_partition(
        self, partition: int, expected_version: int, state: PartitionState, *, session: int | None = None
    ) -> Won | Lost:
        data = codec.encode_partition(state)
        return await self._compare_and_set(partition_cell(partition), expected_version, data, session)

    async def watch_partition(self, partition: int) -> AsyncGenerator[Versioned[PartitionState] | None, None]:
        async with aclosing(self._watch(partition_cell(partition))) as found:
            async for cell in found:
                yield _versioned(cell, codec.decode_partition)

    async def read_members(self) -> Mapping[str, MemberInfo]:
        return _members(await self._read_members())

    async def watch_members(self) -> AsyncGenerator[Mapping[str, MemberInfo], None]:
        async with aclosing(self._watch_members()) as found:
            async for members in found:
                yield _members(members)

    async def report_death(self, death: Death) -> None:
        while True:
            cell = await self._read(DEATHS)
            known = {} if cell is None else codec.decode_deaths(cell.data)
            if known.get(death.pod) == death:
                return
            data = codec.encode_deaths({**known, death.pod: death})
            if cell is None:
                outcome = await self._create(DEATHS, data)
            else:
                outcome = await self._compare_and_set(DEATHS, cell.version, data)
            if isinstance(outcome, Won):
                return

    async def watch_deaths(self) -> AsyncGenerator[Mapping[str, Death], None]:
        async with aclosing(self._watch(DEATHS)) as found:
            async for cell in found:
                yield {} if cell is None else codec.decode_deaths(cell.data)


def _versioned(cell: Cell | None, decode: Callable[[bytes], T]) -> Versioned[T] | None:
    return None if cell is None else Versioned(decode(cell.data), cell.version)


def _members(found: Mapping[str, bytes]) -> dict[str, MemberInfo]:
    """One member that can't be read, be it a newer release's, does not hide the others."""
    members: dict[str, MemberInfo] = {}
    for pod, data in sorted(found.items()):
        try:
            members[pod] = codec.decode_member(data)
        except KVClusterError as error:
            log.warning("member left out", pod=pod, reason=str(error))
    return members
