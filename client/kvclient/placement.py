"""Where a batch goes: to the partition's leader or a replica, or always to the routers."""

import random
from collections.abc import Sequence
from typing import Protocol

from kvclient.operations import ReadMode, ReadProfile
from kvclient.topology import Endpoint, View


class Placement(Protocol):
    """Chooses endpoints."""

    def target(
        self, view: View, partition: int, profile: ReadProfile | None, current: Endpoint | None
    ) -> Endpoint | None:
        """Where operations of a partition go now (profile None: writes); None while nobody is known.

        `current` is kept where it still serves as well as any other.
        """
        ...

    def failed(self, endpoint: Endpoint) -> None:
        """The endpoint did not answer, or refused to serve; choose another where there is one."""
        ...


class DirectPlacement:
    """Straight to the nodes: leaders, and any replica for reads that allow it."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._suspect: Endpoint | None = None

    def target(
        self, view: View, partition: int, profile: ReadProfile | None, current: Endpoint | None
    ) -> Endpoint | None:
        if profile is None or profile.mode is ReadMode.LINEARIZABLE:
            return view.leader(partition)
        replicas = view.replicas(partition)
        if current in replicas and current != self._suspect:
            return current
        others = [endpoint for endpoint in replicas if endpoint != self._suspect]
        return self._rng.choice(others) if others else view.leader(partition)

    def failed(self, endpoint: Endpoint) -> None:
        self._suspect = endpoint


class RouterPlacement:
    """Everything to one of the given addresses, until it fails."""

    def __init__(self, addresses: Sequence[str], rng: random.Random) -> None:
        self._endpoints = [Endpoint("", "", address) for address in addresses]
        rng.shuffle(self._endpoints)

    def target(
        self, view: View, partition: int, profile: ReadProfile | None, current: Endpoint | None
    ) -> Endpoint | None:
        del view, partition, profile, current
        return self._endpoints[0]

    def failed(self, endpoint: Endpoint) -> None:
        if endpoint == self._endpoints[0]:
            self._endpoints.append(self._endpoints.pop(0))
