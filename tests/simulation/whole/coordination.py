"""Coordination as the seed has it: kvcoord's store in memory, whose calls are slow, lost or doubted, and whose data may be."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kvcoord.cells import Cell
from kvcoord.contract import Lost, Won
from kvcoord.memory import Call, Fate, MemoryCoordination, MemoryStore

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import WholeCluster


class Coordination(MemoryStore):
    """kvcoord's store in memory; who reaches it, how fast, and which answers are lost is the seed's."""

    def __init__(self, cluster: "WholeCluster", *, calm: bool) -> None:
        super().__init__(hook=self._fate, context=cluster.loop._outside)
        self.cluster = cluster
        self.loop = cluster.loop
        self.usual_maybe = 0.0 if calm else 0.02
        self.maybe = self.usual_maybe
        self.base = 0.001 if calm else self.loop.stream("coordination").choice([0.001, 0.005, 0.02])
        self.slow = 0.0
        self.down = False
        self.pending = 0  # changes that may yet be done

    def session(self, name: str = "") -> MemoryCoordination:
        session = super().session(name)
        self.loop.after(0.0, self.cluster.show_away)
        return session

    def _delay(self, session: str) -> float:
        rng = self.loop.stream(f"coordination {session}")
        return rng.uniform(0.2, 2.0) * self.base + rng.random() * self.slow

    def _fate(self, call: Call) -> Fate:
        rng = self.loop.stream(f"coordination {call.session}")
        delay = self._delay(call.session)
        if call.operation == "watch":
            return Fate(delay=delay)
        fate = Fate(delay=delay, answer_delay=self._delay(call.session), patience=1.0)
        if call.writes and rng.random() < self.maybe:
            late, done = rng.choice([0.05, 0.5, 3.0]) * rng.random(), rng.random() < 0.5
            fate = Fate(delay=late, applied=done, answered=False, patience=rng.uniform(0.1, 1.0))
        if call.writes and fate.applied:
            self.pending += 1
            self.loop.after(fate.delay + 0.001, self._settled)
        return fate

    def _settled(self) -> None:
        self.pending -= 1

    def create(self, cell: str, data: bytes) -> Won | Lost:
        outcome = super().create(cell, data)
        if isinstance(outcome, Won):
            self.cluster.changed(cell, None, data)
        return outcome

    def compare_and_set(self, cell: str, expected_version: int, data: bytes) -> Won | Lost:
        before = self.get(cell)
        outcome = super().compare_and_set(cell, expected_version, data)
        if isinstance(outcome, Won):
            self.cluster.changed(cell, before, data)
        return outcome

    def turn_back(self, cells: Mapping[str, Cell]) -> None:
        """Other data takes the place of what is there; {}: it is lost. No session outlives it, nothing that was asked before is done."""
        assert not self.pending
        self.put_back(cells)
