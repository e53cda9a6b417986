"""How much is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """One run's measures."""

    rounds: int = 5
    seconds: float = 2.0  # per series and round
    tasks: tuple[int, ...] = (1, 32, 128)
    kills: int = 10
    keys: int = 1_000_000  # loaded, for the memory they take
    starts: int = 1
    missed: int = 200_000  # records that a follower has to catch up with
    value_bytes: int = 256
    with_etcd: bool = True

    @property
    def keys_per_task(self) -> int:
        """Each task goes round its own keys."""
        return 50


QUICK = Plan(rounds=1, seconds=0.7, kills=3, keys=50_000, missed=5000)
FULL = Plan()
