"""Every command, its replies and its errors, as the tables have them: by a real Redis, by a node and by a router."""

import pytest

from tests.redis.notation import Case, Expected, read_tables
from tests.redis.servers import Server
from tests.redis.wire import ConnectionEndedError, RawConnection, empty

CASES = read_tables()
pytestmark = pytest.mark.xdist_group("redis tables")


def _named(cases: list[Case]) -> list[object]:
    return [pytest.param(case, id=f"{case.file}: {case.title}") for case in cases]


def _of(mode: str) -> list[Case]:
    return [case for case in CASES if mode in case.modes]


@pytest.mark.parametrize("case", _named([case for case in _of("plain") if not case.only_written]))
def test_a_real_redis_agrees_with_the_table(plain_redis: Server, case: Case) -> None:
    """What the table says of Redis is so, unless this Redis is too old to know."""
    if plain_redis.version >= case.since:
        judge(plain_redis.address, case)


@pytest.mark.parametrize("case", _named([case for case in _of("cluster") if not case.only_written]))
def test_a_real_redis_cluster_agrees_with_the_table(cluster_redis: Server, case: Case) -> None:
    """What the table says of a Redis Cluster's server is so, unless this Redis is too old to know."""
    if cluster_redis.version >= case.since:
        judge(cluster_redis.address, case)


@pytest.mark.parametrize("case", _named(_of("cluster")))
def test_a_node_agrees_with_the_table(our_node: Server, case: Case) -> None:
    """A node replies as a Redis Cluster's server does, and to what newer ones know as the table says."""
    judge(our_node.address, case)


@pytest.mark.parametrize("case", _named([case for case in _of("plain") if not case.one_server]))
def test_the_router_agrees_with_the_table(our_router: Server, case: Case) -> None:
    """The router replies as a plain Redis does, whose keys are of several partitions."""
    judge(our_router.address, case)


def judge(address: tuple[str, int], case: Case) -> None:
    """Run a case twice, step by step and as one write, and compare each reply."""
    with RawConnection(address) as cleaner:
        empty(cleaner)
        with RawConnection(address) as connection:
            for step in case.steps:
                connection.send(step.sent)
                _compare(connection, step.text, step.replies)
        empty(cleaner)
    with RawConnection(address) as connection:
        connection.send(b"".join(step.sent for step in case.steps))
        for step in case.steps:
            _compare(connection, f"{step.text} (all in one write)", step.replies)


def _compare(connection: RawConnection, sent: str, replies: tuple[Expected, ...]) -> None:
    for expected in replies:
        if expected.closed:
            assert connection.ended(), f"{sent}\n  the connection goes on"
            continue
        try:
            got = connection.reply()
        except ConnectionEndedError as error:
            pytest.fail(f"{sent}\n  expected {expected.text}\n  but {error}")
        except TimeoutError:
            pytest.fail(f"{sent}\n  expected {expected.text}\n  but there is no reply")
        assert expected.fits(got), f"{sent}\n  expected {expected.text}\n  got      {got!r}"
