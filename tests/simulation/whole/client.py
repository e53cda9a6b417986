"""What all clients of a whole cluster are: one process each, which asks one thing after the other."""

import asyncio
from random import Random
from typing import TYPE_CHECKING

from tests.simulation import schedule
from tests.simulation.requests import request_name
from tests.simulation.timeline import Mark
from tests.simulation.whole.world import Actor

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import WholeCluster

TIMEOUT = 4.0
CLOCKS = 1.011  # how much longer than said a node's second may be, by its clock's rate


class Client:
    """One client. Its n-th request depends on the seed, its number and n alone."""

    def __init__(self, cluster: "WholeCluster", number: int) -> None:
        self.cluster, self.number = cluster, number
        self.loop = cluster.loop
        self.who = f"client {number}"
        self.actor = Actor(self.loop, self.who, f"client{number}")
        self.rng = self.loop.stream(self.who)
        self.think = self.rng.choice([0.02, 0.1, 0.3])
        self.served = 0
        self.sequence = 0
        cluster.actors.append(self.actor)

    def start(self) -> None:
        self.actor.spawn(self._main(), "main")

    async def prepare(self) -> None:
        """Find its way to the cluster."""

    async def request(self) -> None:
        """Ask something, as `rng` has it, and write down what came of it."""
        raise NotImplementedError

    async def _main(self) -> None:
        await self.prepare()
        given = self.cluster.options.requests
        if given is not None:
            for asked in [a for a in given if a.client == self.number]:
                await asyncio.sleep(max(0.0, asked.at - self.loop.now))
                if self.cluster.load:
                    await self._ask(asked.number)
            return
        number = 0
        while self.cluster.load:
            number += 1
            await asyncio.sleep(self.rng.random() * self.think * 2)
            await self._ask(number)

    async def _ask(self, number: int) -> None:
        self.rng = Random(f"{self.loop.seed} {self.who} request {number}")
        self.sequence = number
        self.cluster.asked.append(schedule.Asked(self.number, number, self.loop.now))
        await self.request()

    @property
    def name(self) -> str:
        """Of the request that is under way."""
        return request_name(self.number, self.sequence)

    def note(self, what: str) -> None:
        """A line of the timeline."""
        self.loop.note(self.who, what, Mark.CLIENT)
