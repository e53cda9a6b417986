"""Puts back what coordination has lost, from what the replicas keep on disk (rule 19).

Every replica that sees the loss tries; they come to the same, and creating what is there already changes nothing.
`kvcoord.recovery` decides.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from kvcoord.contract import Coordination, CoordinationUnavailableError, PartitionState, Versioned, Won
from kvcoord.recovery import newest_state, rebuilt
from kvnode.core.doubt import Loss
from kvnode.shell.testimony import Answer, Kept

log = structlog.get_logger()

EVERY = 0.5  # seconds between tries
LOOK = 5.0  # seconds between looks at the state: a turned-back value is no news to a watch


class Subject(Protocol):
    """The replica that it works for."""

    @property
    def loss(self) -> Loss | None:
        """What became of the partition's state in coordination."""
        ...

    def testify(self) -> Answer:
        """What this replica itself says."""
        ...

    async def ask_others(self) -> list[Answer]:
        """What other replicas say, of whatever partition."""
        ...

    async def look(self) -> None:
        """Have the partition's state read."""
        ...


def kept_by(answers: Collection[Answer]) -> Kept | str:
    """The identity and the newest map; a text says who must answer first: one replica of each partition."""
    maps = [a.kept.slot_map for a in answers if a.kept.slot_map is not None]
    identities = [a.kept.identity for a in answers if a.kept.identity is not None]
    if not maps or not identities:
        return "no node that answers has kept the cluster's identity and map"
    newest = max(maps, key=lambda m: m.version)
    heard = {a.partition for a in answers if a.kept.slot_map is not None}
    silent = sorted(set(newest.partitions) - heard)
    if silent:
        return f"no node of partitions {', '.join(map(str, silent))} answers, and one may know a newer map"
    return Kept(max(identities, key=lambda i: i.generation), newest)


class Recovery:
    """`note` says what it waits for, for a person; empty when nothing is lost."""

    def __init__(self, partition: int, subject: Subject, coordination: Coordination) -> None:
        self._partition, self._subject, self._coordination = partition, subject, coordination
        self.note = ""

    async def run(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Look now and then; while something is lost, try to put it back."""
        since_look = 0.0
        while True:
            await sleep(EVERY)
            since_look += EVERY
            if self._subject.loss is None:
                self._say("")
                if since_look >= LOOK:
                    since_look = 0.0
                    await self._subject.look()
                continue
            try:
                self._say(await self.try_once())
            except CoordinationUnavailableError as e:
                self._say(f"coordination can't be asked: {e}")

    async def try_once(self) -> str:
        """Put back what may be; what is waited for, if anything.

        All in one session of coordination: a try that began before the data was lost once more, and is slow, must not
        put back what it heard then. What is there is read before anybody is asked: what they say is no older.
        """
        session = self._coordination.session
        there = await self._coordination.read_partition(self._partition)
        answers = [self._subject.testify(), *await self._subject.ask_others()]
        if self._subject.loss is None:
            return ""
        waits = await self._put_back_cluster(answers, session)
        return waits or await self._put_back_state(there, answers, session)

    async def _put_back_cluster(self, answers: Sequence[Answer], session: int) -> str:
        coordination = self._coordination
        no_identity = await coordination.read_identity() is None
        no_map = await coordination.read_map() is None
        if not no_identity and not no_map:
            return ""
        kept = kept_by(answers)
        if isinstance(kept, str):
            return kept
        if no_identity and kept.identity is not None:
            identity = replace(kept.identity, generation=kept.identity.generation + 1)
            if isinstance(await coordination.create_identity(identity, session=session), Won):
                log.warning("cluster identity put back", generation=identity.generation)
        if no_map and kept.slot_map is not None:
            outcome = await coordination.create_map(kept.slot_map, session=session)
            if isinstance(outcome, Won):
                log.warning("slot map put back", version=kept.slot_map.version)
        return ""

    async def _put_back_state(
        self, there: Versioned[PartitionState] | None, answers: Sequence[Answer], session: int
    ) -> str:
        testimonies = [a.testimony for a in answers if a.partition == self._partition]
        newest = newest_state(testimonies)
        if there is not None and newest is not None and there.value.age >= newest.age:
            return ""  # somebody has put it back
        state = rebuilt(testimonies, missing=there is None)
        if isinstance(state, str):
            return state
        partition, coordination = self._partition, self._coordination
        if there is None:
            outcome = await coordination.create_partition(partition, state, session=session)
        else:
            outcome = await coordination.compare_and_set_partition(partition, there.version, state, session=session)
        if isinstance(outcome, Won):
            log.warning("partition state put back", epoch=state.epoch, serial=state.serial, generation=state.generation)
        return ""

    def _say(self, note: str) -> None:
        if note != self.note:
            self.note = note
            if note:
                log.error("coordination's data was lost; not put back yet", waits_for=note)
