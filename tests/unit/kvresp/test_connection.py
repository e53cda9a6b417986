"""A client's connection: order, back-pressure, bounds, its end."""

import asyncio
from collections.abc import Sequence

from kvresp.connection import HIGH_WATER, LATER, MAX_WAITING_BYTES, Connection, Door, Pending
from tests.support.fake_transport import FakeTransport


class EchoDoor(Door):
    """`now X` is answered at once, `wait X` when the test says so, `last X` once nothing waits."""

    def __init__(self, max_clients: int = 10) -> None:
        super().__init__(lambda: 5.0, max_clients=max_clients)
        self.cells: list[tuple[bytes, Pending]] = []
        self.done: list[bytes] = []

    def execute(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        name, text = args[0], b" ".join(args[1:])
        if name == b"last" and connection.waiting:
            return LATER
        self.done.append(name)
        if name == b"wait":
            cell = Pending(connection, len(text))
            connection.defer(cell)
            self.cells.append((text, cell))
            return None
        if name == b"quit":
            connection.session.ending = True
        return b"+" + text + b"\r\n"

    def fill(self, number: int = 0) -> None:
        """Answer a waiting command."""
        text, cell = self.cells.pop(number)
        cell.fill(b"+" + text + b"\r\n")


def client(door: Door, full_at: int = 1 << 30) -> FakeTransport:
    transport = FakeTransport(full_at)
    transport.connect(Connection(door))
    return transport


def send(door: Door, one: FakeTransport, data: bytes) -> None:
    """In a turn of its own."""
    one.protocol.data_received(data)
    door.turn()


async def turn() -> None:
    await asyncio.sleep(0)


async def test_replies_go_out_in_the_order_of_their_commands() -> None:
    """Whichever is ready first."""
    door = EchoDoor()
    one = client(door)
    send(door, one, b"now 1\nwait 2\nnow 3\nwait 4\nnow 5\n")
    assert one.take() == b"+1\r\n"
    door.fill(1)
    await turn()
    assert one.take() == b""
    door.fill(0)
    await turn()
    assert one.take() == b"+2\r\n+3\r\n+4\r\n+5\r\n"


async def test_a_command_that_must_come_last_waits_and_holds_those_behind_it() -> None:
    """Nothing more is read meanwhile."""
    door = EchoDoor()
    one = client(door)
    send(door, one, b"wait 1\nlast 2\nnow 3\n")
    send(door, one, b"now 4\n")
    assert door.done == [b"wait"]
    assert not one.reading
    door.fill()
    await turn()
    assert one.take() == b"+1\r\n+2\r\n+3\r\n+4\r\n"
    assert one.reading


async def test_a_client_that_reads_nothing_is_not_served_further() -> None:
    """Its commands wait when its replies fill the buffer; memory stays bounded."""
    door = EchoDoor()
    one = client(door)
    text = b"x" * 60_000
    send(door, one, b"now " + text + b"\n")
    for _ in range(9):
        if one.reading:
            send(door, one, b"now " + text + b"\n")
    assert len(one.written) < HIGH_WATER + 2 * len(text)
    assert not one.reading
    began = len(door.done)
    one.take()
    assert len(door.done) == began + 1
    assert one.reading


async def test_one_long_pipeline_is_stopped_in_its_middle() -> None:
    """Also when all of it came in one piece."""
    door = EchoDoor()
    one = client(door)
    send(door, one, b"".join(b"*2\r\n$3\r\nnow\r\n$50000\r\n%b\r\n" % (b"x" * 50_000) for _ in range(40)))
    assert len(door.done) < 20
    got = 0
    while len(door.done) < 40 or one.written:
        got += one.take().count(b"+")
        await turn()
    assert got == 40


async def test_commands_under_way_are_bounded() -> None:
    """By bytes; the rest is begun when replies have gone out."""
    door = EchoDoor()
    one = client(door)
    size = MAX_WAITING_BYTES // 4
    command = b"*2\r\n$4\r\nwait\r\n$%d\r\n%b\r\n" % (size, b"x" * size)
    for _ in range(6):
        send(door, one, command)
    assert len(door.cells) == 4
    assert not one.reading
    for _ in range(4):
        door.fill()
    await turn()
    assert door.cells == []  # the client has to take those replies first
    one.take()
    assert len(door.cells) == 2
    assert one.reading


async def test_a_protocol_error_is_the_last_reply() -> None:
    """After what came before it, also what still waits; then the connection ends."""
    door = EchoDoor()
    one = client(door)
    send(door, one, b"wait 1\nnow 2\n*x\r\nnow 3\n")
    assert not one.closed
    door.fill()
    await turn()
    assert one.take() == b"+1\r\n+2\r\n-ERR Protocol error: invalid multibulk length\r\n"
    assert one.closed


async def test_quit_is_the_last_command() -> None:
    """What stands behind it is not done; what waits is answered."""
    door = EchoDoor()
    one = client(door)
    send(door, one, b"wait 1\nquit 2\nnow 3\n")
    assert not one.closed
    door.fill()
    await turn()
    assert one.take() == b"+1\r\n+2\r\n"
    assert one.closed
    assert door.done == [b"wait", b"quit"]


async def test_too_many_clients_are_refused() -> None:
    """With Redis's error; a place is free again when one leaves."""
    door = EchoDoor(max_clients=1)
    one, two = client(door), client(door)
    assert two.take() == b"-ERR max number of clients reached\r\n"
    assert two.closed
    assert (door.clients, door.connected, door.refused) == (1, 1, 1)
    one.abort()
    three = client(door)
    send(door, three, b"now 1\n")
    assert three.take() == b"+1\r\n"


async def test_a_client_that_leaves_does_not_disturb_what_is_under_way() -> None:
    """Its reply is dropped."""
    door = EchoDoor()
    one = client(door)
    send(door, one, b"wait 1\n")
    one.abort()
    door.fill()
    await turn()
    assert door.clients == 0
    assert one.take() == b""


def short(name: bytes, text: bytes) -> bytes:
    """A command as clients' libraries send it."""
    return b"*2\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(text), text)


class TogetherDoor(EchoDoor):
    """Knows what it was given together; `bad` can't be done."""

    def __init__(self) -> None:
        super().__init__()
        self.together: list[list[bytes]] = []

    def execute_many(self, connections: Sequence[Connection], commands: Sequence[list[bytes]]) -> None:
        self.together.append([text for _, text in commands])
        super().execute_many(connections, commands)

    def execute(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        assert args[0] != b"bad"
        return super().execute(connection, args)


async def test_short_commands_of_one_turn_are_done_together() -> None:
    """Of those with nothing under way; the others' as if they had come alone."""
    door = TogetherDoor()
    clients = [client(door) for _ in range(6)]
    send(door, clients[2], short(b"wait", b"0"))
    for number, one in enumerate(clients[:3]):
        one.protocol.data_received(short(b"now", b"%d" % number))
    clients[3].protocol.data_received(short(b"now", b"3") * 2)
    for piece in (short(b"now", b"4")[:9], short(b"now", b"4")[9:]):
        clients[4].protocol.data_received(piece)
    clients[5].protocol.data_received(b"now 5\n")
    assert all(one.take() == b"" for one in clients)
    await turn()
    assert door.together == [[b"0", b"1", b"4"]]
    assert [one.take() for one in clients] == [b"+0\r\n", b"+1\r\n", b"", b"+3\r\n+3\r\n", b"+4\r\n", b"+5\r\n"]
    door.fill()
    await turn()
    assert clients[2].take() == b"+0\r\n+2\r\n"


async def test_who_sends_and_says_that_this_was_all_is_answered() -> None:
    """In one turn of the loop, alone and among others."""
    door = TogetherDoor()
    for number in (1, 3):
        clients = [client(door) for _ in range(number)]
        for one in clients:
            one.protocol.data_received(short(b"now", b"1"))
            assert one.protocol.eof_received()
        await turn()
        assert [one.take() for one in clients] == [b"+1\r\n"] * number
        assert all(one.closed for one in clients)


async def test_who_leaves_in_the_turn_of_its_command_holds_up_nobody() -> None:
    """Nothing is done for it."""
    door = TogetherDoor()
    clients = [client(door) for _ in range(3)]
    for one in clients:
        one.protocol.data_received(short(b"now", b"1"))
    clients[1].abort()
    await turn()
    assert [one.take() for one in clients] == [b"+1\r\n", b"", b"+1\r\n"]
    assert door.done == [b"now"] * 2


async def test_a_command_that_fails_ends_connections_of_its_turn_only() -> None:
    """Whose commands were done can't be told; clients of other turns go on."""
    door = TogetherDoor()
    before, *clients = [client(door) for _ in range(4)]
    for one in clients:
        one.protocol.data_received(short(b"bad" if one is clients[1] else b"now", b"1"))
    await turn()
    assert all(one.closed for one in clients)
    send(door, before, short(b"now", b"2"))
    assert before.take() == b"+2\r\n"


async def test_a_session_knows_its_addresses_and_last_command() -> None:
    """For CLIENT LIST."""
    door = EchoDoor()
    one = client(door)
    send(door, one, b"now 1\n")
    (session,) = door.sessions()
    assert (session.id, session.address, session.local_address) == (1, "10.0.0.9:5", "10.0.0.1:6379")
    assert (session.last, session.active) == (b"now", 5.0)


async def test_the_port_serves_and_closes() -> None:
    """On a real socket."""
    door = EchoDoor()
    port = await door.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"now 1\r\n")
    assert await reader.readline() == b"+1\r\n"
    await door.close()
    assert await reader.read() == b""
    writer.close()
