"""A machine's clocks: a boot-time one whose rate is wrong, by what may change within the assumed bound, and the time of day."""

from bisect import bisect_right

from kvcommon.versions import EPOCH_MS
from tests.simulation.record import Record


class Clock:
    """Shows `offset` at true time 0. The time of day is wrong by a constant, in milliseconds."""

    def __init__(self, record: Record, rate: float, offset: float, wall_offset: float) -> None:
        self._record, self._wall_offset = record, wall_offset
        self._shown, self._at, self._rates = [offset], [0.0], [rate]  # since when it runs at which rate

    def now(self) -> float:
        return self._shown[-1] + (self._record.now - self._at[-1]) * self._rates[-1]

    def wall_ms(self) -> int:
        return EPOCH_MS + int((self._record.now + 1000) * 1000 + self._wall_offset)

    def true(self, local: float) -> float:
        """The true time at which this clock showed `local`."""
        since = max(0, bisect_right(self._shown, local) - 1)
        return self._at[since] + (local - self._shown[since]) / self._rates[since]

    def run_at(self, rate: float) -> None:
        """From now on."""
        self._shown.append(self.now())
        self._at.append(self._record.now)
        self._rates.append(rate)
