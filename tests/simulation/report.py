"""How a run went, whichever world it was of."""

from dataclasses import dataclass

from tests.simulation.record import Failure
from tests.simulation.schedule import Asked, Options, Struck
from tests.simulation.timeline import Line


@dataclass(frozen=True, slots=True)
class Report:
    """How a run went; `failure` is None when nothing was wrong."""

    options: Options
    failure: Failure | None
    lines: tuple[Line, ...]
    faults: tuple[Struck, ...]  # that struck, in order
    requests: tuple[Asked, ...]  # that were begun, in order
    operations: int
    served: int
    counts: dict[str, int]
    healed_after: float
