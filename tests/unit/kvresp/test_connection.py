"""A client's connection: order, back-pressure, bounds, its end."""

import asyncio

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


async def turn() -> None:
    await asyncio.sleep(0)


async def test_replies_go_out_in_the_order_of_their_commands() -> None:
    """Whichever is ready first."""
    door = EchoDoor()
    one = client(door)
    one.protocol.data_received(b"now 1\nwait 2\nnow 3\nwait 4\nnow 5\n")
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
    one.protocol.data_received(b"wait 1\nlast 2\nnow 3\n")
    one.protocol.data_received(b"now 4\n")
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
    one.protocol.data_received(b"now " + text + b"\n")
    for _ in range(9):
        if one.reading:
            one.protocol.data_received(b"now " + text + b"\n")
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
    one.protocol.data_received(b"".join(b"*2\r\n$3\r\nnow\r\n$50000\r\n%b\r\n" % (b"x" * 50_000) for _ in range(40)))
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
        one.protocol.data_received(command)
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
    one.protocol.data_received(b"wait 1\nnow 2\n*x\r\nnow 3\n")
    assert not one.closed
    door.fill()
    await turn()
    assert one.take() == b"+1\r\n+2\r\n-ERR Protocol error: invalid multibulk length\r\n"
    assert one.closed


async def test_quit_is_the_last_command() -> None:
    """What stands behind it is not done; what waits is answered."""
    door = EchoDoor()
    one = client(door)
    one.protocol.data_received(b"wait 1\nquit 2\nnow 3\n")
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
    three.protocol.data_received(b"now 1\n")
    assert three.take() == b"+1\r\n"


async def test_a_client_that_leaves_does_not_disturb_what_is_under_way() -> None:
    """Its reply is dropped."""
    door = EchoDoor()
    one = client(door)
    one.protocol.data_received(b"wait 1\n")
    one.abort()
    door.fill()
    await turn()
    assert door.clients == 0
    assert one.take() == b""


async def test_a_session_knows_its_addresses_and_last_command() -> None:
    """For CLIENT LIST."""
    door = EchoDoor()
    one = client(door)
    one.protocol.data_received(b"now 1\n")
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
