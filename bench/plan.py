"""How much is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """One run's measures."""

    rounds: int = 5
    seconds: float = 3.0  # per series and round
    tasks: tuple[int, ...] = (1, 32, 128)
    kills: int = 30
    keys: int = 1_000_000  # loaded, for the memory they take
    starts: int = 3
    value_bytes: int = 256
    with_etcd: bool = True

    @property
    def keys_per_task(self) -> int:
        """Each task goes round its own keys."""
        return 50


QUICK = Plan(rounds=1, seconds=0.7, kills=3, keys=50_000, starts=1)
FULL = Plan()
