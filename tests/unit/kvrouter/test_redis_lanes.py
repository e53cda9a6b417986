"""The order of one client's commands for one partition while its leader changes."""

from kvrouter.redis.lanes import OVERTAKEN, Connection, Lane
from kvrouter.redis.requests import Request

MOVED, DOWN, OK = b"-MOVED 1 h:1\r\n", b"-CLUSTERDOWN no leader\r\n", b"+OK\r\n"
UNKNOWN = b"-UNKNOWN who knows\r\n"


class FakeConnection:
    """Keeps what was sent until the test replies."""

    def __init__(self) -> None:
        self.open = True
        self.under_way: list[tuple[Lane, Request]] = []
        self.sent: list[bytes] = []

    def send(self, lane: Lane, request: Request) -> None:
        self.sent.append(request.data)
        self.under_way.append((lane, request))

    def reply(self, *replies: bytes) -> None:
        for reply in replies:
            lane, request = self.under_way.pop(0)
            lane.replied(request, reply)

    def end(self) -> None:
        self.open = False
        while self.under_way:
            lane, request = self.under_way.pop(0)
            lane.lost(request, UNKNOWN)


class FakeRoad:
    """A partition whose leader the test sets."""

    def __init__(self) -> None:
        self.leader: FakeConnection | None = FakeConnection()
        self.waiting: list[Lane] = []
        self.moved_slots: set[int] = set()
        self.rehomed: list[bytes] = []

    def connection(self, lane: Lane) -> Connection | None:
        return self.leader

    def wait(self, lane: Lane) -> None:
        self.waiting.append(lane)

    def belongs(self, request: Request) -> bool:
        return request.slot not in self.moved_slots

    def rehome(self, lane: Lane, request: Request) -> None:
        self.rehomed.append(request.data)

    def resume(self) -> None:
        waiting, self.waiting = self.waiting, []
        for lane in waiting:
            lane.resume()


class Client:
    """Submits to one lane and keeps the replies."""

    def __init__(self) -> None:
        self.road = FakeRoad()
        self.lane = Lane(self, self.road, 0, 2)
        self.requests: list[Request] = []
        self._settled: list[Request] = []
        assert self.road.leader is not None
        self.connection = self.road.leader

    def settled(self, cost: int) -> None:
        self._settled += [r for r in self.requests if r.reply is not None and r not in self._settled]

    @property
    def replies(self) -> list[tuple[bytes, bytes]]:
        """Commands and their replies, in the order in which they came."""
        return [(request.data, request.reply or b"") for request in self._settled]

    def submit(self, *names: bytes) -> list[Request]:
        """`k1` is a write of key k, `?k1` a read of it."""
        requests = [
            Request(self, name, 5, (name.removeprefix(b"?")[:1],), 10.0, not name.startswith(b"?")) for name in names
        ]
        self.requests += requests
        for request in requests:
            self.lane.submit(request)
        return requests


def test_commands_are_sent_without_waiting_for_each_other() -> None:
    """And replies go to whom they belong."""
    client = Client()

    client.submit(b"a1", b"b1", b"?a2")
    assert client.connection.sent == [b"a1", b"b1", b"?a2"]
    client.connection.reply(OK, b"-ERR x\r\n", b"$1\r\n1\r\n")

    assert client.replies == [(b"a1", OK), (b"b1", b"-ERR x\r\n"), (b"?a2", b"$1\r\n1\r\n")]


def test_refused_commands_are_sent_again_in_order() -> None:
    """New ones wait behind them."""
    client = Client()
    client.submit(b"a1", b"a2")

    client.connection.reply(MOVED)
    client.submit(b"a3")
    client.connection.reply(DOWN)
    assert client.connection.sent == [b"a1", b"a2"]
    client.road.leader = FakeConnection()
    client.road.resume()

    assert client.road.leader.sent == [b"a1", b"a2", b"a3"]
    assert client.replies == []
    client.road.leader.reply(OK, OK, OK)
    assert client.replies == [(b"a1", OK), (b"a2", OK), (b"a3", OK)]


def test_a_refused_command_is_not_sent_before_its_successors_fate_is_known() -> None:
    """Nor does it matter how often it is refused."""
    client = Client()
    client.submit(b"a1", b"b1")

    client.connection.reply(DOWN)
    assert client.road.waiting == []
    client.connection.reply(OK)
    client.road.resume()
    client.connection.reply(DOWN)
    client.road.resume()
    client.connection.reply(OK)

    assert client.connection.sent == [b"a1", b"b1", b"a1", b"a1"]
    assert client.replies == [(b"b1", OK), (b"a1", OK)]


def test_a_refused_command_that_a_later_one_on_its_key_overtook_is_not_done() -> None:
    """Its client hears so; commands on other keys are sent again."""
    client = Client()
    client.submit(b"a1", b"b1", b"?a2", b"a3")

    client.connection.reply(DOWN, DOWN, DOWN, OK)
    client.road.resume()

    assert client.replies == [(b"a1", OVERTAKEN), (b"?a2", OVERTAKEN), (b"a3", OK)]
    assert client.connection.sent[4:] == [b"b1"]


def test_a_read_is_not_sent_again_behind_a_write_of_its_slot_that_may_have_been_done() -> None:
    """What the write did to one key another command may have carried to the read's."""
    client = Client()
    read = Request(client, b"GET", 5, (b"{slot}b",), 10.0, False)
    write = Request(client, b"APPEND", 5, (b"{slot}a",), 10.0, True)
    client.requests += [read, write]
    for request in client.requests:
        client.lane.submit(request)

    client.connection.end()

    assert (read.reply, write.reply) == (OVERTAKEN, UNKNOWN)


def test_a_connection_that_ends_leaves_writes_unknown_and_reads_are_sent_again() -> None:
    """A read that such a write may have overtaken is not."""
    client = Client()
    client.submit(b"a1", b"?b1", b"?c1", b"b2", b"?b3")

    client.road.leader = None
    client.connection.end()
    assert client.replies == [(b"a1", UNKNOWN), (b"?b1", OVERTAKEN), (b"b2", UNKNOWN)]
    client.road.leader = FakeConnection()
    client.road.resume()

    assert client.road.leader.sent == [b"?c1", b"?b3"]


def test_without_a_leader_commands_wait() -> None:
    """And are sent in order when there is one."""
    client = Client()
    client.road.leader = None
    client.submit(b"a1", b"?a2")
    assert client.replies == []

    client.road.leader = FakeConnection()
    client.road.resume()

    assert client.road.leader.sent == [b"a1", b"?a2"]


def test_nothing_goes_to_a_new_leader_while_the_old_one_owes_replies() -> None:
    """It may yet do what it was sent."""
    client = Client()
    client.submit(b"a1")
    client.connection.open = False
    client.road.leader = FakeConnection()

    client.submit(b"a2")
    assert client.road.leader.sent == []
    client.connection.reply(OK)

    assert client.road.leader.sent == [b"a2"]


def test_a_command_answered_at_its_deadline_is_not_sent_any_more() -> None:
    """While it waited it was certainly not done; one under way may have been."""
    client = Client()
    (sent,) = client.submit(b"a1")
    assert sent.sent
    client.connection.reply(DOWN)
    assert not sent.sent

    sent.settle(b"-CLUSTERDOWN too late\r\n")
    client.submit(b"a2")
    client.road.resume()

    assert client.connection.sent == [b"a1", b"a2"]
    assert client.replies == [(b"a1", b"-CLUSTERDOWN too late\r\n")]


def test_a_late_reply_is_dropped() -> None:
    """The deadline's answer stands, and the next reply goes to the next command."""
    client = Client()
    first, _ = client.submit(b"a1", b"a2")
    first.settle(UNKNOWN)

    client.connection.reply(OK, b"+SECOND\r\n")

    assert client.replies == [(b"a1", UNKNOWN), (b"a2", b"+SECOND\r\n")]


def test_a_slot_that_moved_takes_its_waiting_commands_along() -> None:
    """To the partition it belongs to now."""
    client = Client()
    client.submit(b"a1")
    client.connection.reply(MOVED)

    client.road.moved_slots.add(5)
    client.road.resume()

    assert client.road.rehomed == [b"a1"]
    assert client.connection.sent == [b"a1"]


def test_a_client_that_has_gone_sends_nothing_more() -> None:
    """What waits is forgotten."""
    client = Client()
    client.submit(b"a1")
    client.connection.reply(DOWN)

    client.lane.drop()
    client.road.resume()

    assert client.connection.sent == [b"a1"]
