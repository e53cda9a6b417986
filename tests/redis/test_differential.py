"""The same random commands to a real Redis and to another server: the same raw replies."""

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.redis.differences import DIFFERENCES, ROUTER_DIFFERENCES, Difference, alike, router_refuses
from tests.redis.random_commands import Command, sessions
from tests.redis.servers import Server
from tests.redis.wire import RawConnection, empty

pytestmark = pytest.mark.xdist_group("redis tables")
checked = settings(
    max_examples=100,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


@given(session=sessions)
@checked
def test_the_harness_finds_two_real_servers_alike(plain_redis: Server, session: list[Command]) -> None:
    """Random sessions say nothing that differs from run to run."""
    compare(plain_redis, plain_redis, session)


@given(session=sessions)
@checked
def test_a_node_replies_as_redis_does(cluster_redis: Server, our_node: Server, session: list[Command]) -> None:
    """Both with cluster support, so several keys of one command must share a slot."""
    compare(cluster_redis, our_node, session)


@given(session=sessions)
@checked
def test_the_router_replies_as_redis_does(plain_redis: Server, our_router: Server, session: list[Command]) -> None:
    """Both without: keys are any keys."""
    compare(plain_redis, our_router, [c for c in session if not router_refuses(c)], ROUTER_DIFFERENCES)


def compare(
    real: Server, ours: Server, session: list[Command], differences: Sequence[Difference] = DIFFERENCES
) -> None:
    """Do a session on both, from nothing: one command at a time, then all in one write. Asserts equal replies."""
    for at_once in (False, True):
        theirs, mine = (_replies(server, session, at_once=at_once) for server in (real, ours))
        for i, command in enumerate(session):
            expected, got = (alike(command, replies[i], differences) for replies in (theirs, mine))
            assert got == expected, f"{command}, command {i + 1} of {len(session)}, {at_once=}: a real Redis replies so"


def _replies(server: Server, session: list[Command], *, at_once: bool) -> list[bytes]:
    with RawConnection(server.address) as connection:
        empty(connection)
        if at_once:
            return connection.pipeline(session)
        return [connection.call(*command) for command in session]
