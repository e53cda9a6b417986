"""What AsyncKazoo relies on in kazoo: a request belongs to the session in which it was queued; and whom it tries to reach."""

import socket
import threading
from collections.abc import Iterator

import pytest
from kazoo.exceptions import SessionExpiredError
from kazoo.protocol.states import KeeperState

from kvcoord.kazoo_client import SILENT_FOR, _Candidates, _Client, _Handler


class NoSocket:
    """Wakes nobody."""

    def send(self, _: bytes) -> None:
        pass


def reconnecting() -> _Client:
    """A client that has lost its connection, in the middle of a session."""
    client = _Client(hosts="127.0.0.1:1")
    client._connection._write_sock = NoSocket()
    client._state, client._session_id = KeeperState.CONNECTING, 5
    return client


def test_what_is_queued_when_a_session_ends_is_never_sent() -> None:
    client = reconnecting()
    result = client.create_async("/a", b"x")
    client._session_callback(KeeperState.EXPIRED_SESSION)
    assert not client._queue
    assert isinstance(result.exception, SessionExpiredError)


def test_a_session_does_not_end_between_a_look_at_it_and_the_queue() -> None:
    """The thread that hears of the end waits for whoever holds the fence."""
    client = reconnecting()
    tried, over = threading.Event(), threading.Event()

    def end() -> None:
        tried.set()
        client._session_callback(KeeperState.EXPIRED_SESSION)
        over.set()

    thread = threading.Thread(target=end)
    with client.fence:
        thread.start()
        assert tried.wait(5)
        assert not over.wait(0.1)
        assert client._session_id == 5
        result = client.create_async("/a", b"x")
    thread.join(5)
    assert over.is_set()
    assert isinstance(result.exception, SessionExpiredError)


SERVERS = [("a", "10.0.0.1", 2181), ("b", "10.0.0.2", 2181), ("c", "10.0.0.3", 2181)]


def test_who_did_not_answer_an_attempt_is_left_out_for_a_while() -> None:
    """Else each round waits for it before it comes to the next, or after."""
    now = 100.0
    candidates = _Candidates(lambda: now)
    assert candidates.ordered(SERVERS) == SERVERS
    candidates.silent(("10.0.0.1", 2181))
    assert candidates.ordered(SERVERS) == SERVERS[1:]
    now += SILENT_FOR
    assert candidates.ordered(SERVERS) == SERVERS


def test_all_are_tried_when_none_has_answered() -> None:
    candidates = _Candidates()
    for _, address, port in SERVERS:
        candidates.silent((address, port))
    assert candidates.ordered(SERVERS) == SERVERS


@pytest.fixture
def silent_server() -> Iterator[tuple[str, int]]:
    """One whose machine takes no more connections, and says nothing, as one without power."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        yield address
        for one in waiting:
            one.close()


def test_an_attempt_that_is_not_answered_is_noted(silent_server: tuple[str, int]) -> None:
    candidates = _Candidates()
    with pytest.raises(TimeoutError):
        _Handler(candidates).create_connection(address=silent_server, timeout=10.0)
    living = ("b", "127.0.0.2", 2181)
    assert candidates.ordered([("a", *silent_server), living]) == [living]
