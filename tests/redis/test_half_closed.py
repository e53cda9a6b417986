"""A client that closes its side at once, as `printf ... | nc` does, still gets every reply."""

import socket

import pytest

from tests.redis.servers import Server

pytestmark = pytest.mark.xdist_group("redis tables")


@pytest.mark.parametrize("server", ["plain_redis", "our_node", "our_router"])
def test_who_sends_no_more_still_gets_its_replies(server: str, request: pytest.FixtureRequest) -> None:
    """What is under way is answered, then the connection ends."""
    there: Server = request.getfixturevalue(server)
    with socket.create_connection(there.address, timeout=20) as connection:
        connection.sendall(b"SET half 1\r\nINCR half\r\nGET half\r\nDEL half\r\n")
        connection.shutdown(socket.SHUT_WR)

        said = b"".join(iter(lambda: connection.recv(4096), b""))

    assert said == b"+OK\r\n:2\r\n$1\r\n2\r\n:1\r\n"
