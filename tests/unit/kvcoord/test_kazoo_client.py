"""What AsyncKazoo relies on in kazoo: a request belongs to the session in which it was queued."""

import threading

from kazoo.exceptions import SessionExpiredError
from kazoo.protocol.states import KeeperState

from kvcoord.kazoo_client import _Client


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
