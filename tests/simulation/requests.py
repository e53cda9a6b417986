"""Which request of a client something is about, and when it was asked and told: for whoever looks for it in a timeline."""

from collections.abc import Sequence

from tests.simulation.schedule import Asked
from tests.support.history import History


def request_name(client: int, number: int) -> str:
    """As in `--requests`, and in the timeline."""
    return f"{client}:{number}"


def request_at(client: int, at: float, asked: Sequence[Asked], history: History) -> str:
    """The request that a client had under way at this time; it has one at a time."""
    begun = [a for a in asked if a.client == client and a.at <= at]
    if not begun:
        return f"a request of client {client}"
    request = begun[-1]
    told = max((o.returned or 0.0 for o in history if (o.client, o.invoked) == (client, request.at)), default=0.0)
    until = f"told at {told:.6f} s" if told else "never told"
    return f"request {request_name(client, request.number)} (asked at {request.at:.6f} s, {until})"
