"""Asks other replicas what they know, each on a connection of its own."""

import asyncio
from collections.abc import Iterable

from kvnode.shell.testimony import Answer, Question
from kvnode.shell.transport import Connection, Network
from kvnode.shell.wire import Spoken

PATIENCE = 2.0  # seconds for an answer, the connection included


class _Listener:
    """Waits for the one answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()

    def accepted(self, connection: Connection) -> None:
        pass

    def received(self, connection: Connection, message: Spoken) -> None:
        if isinstance(message, Answer) and not self.answer.done():
            self.answer.set_result(message)
        connection.close()

    def disconnected(self, connection: Connection) -> None:  # noqa: ARG002 - the signature is Listener's
        if not self.answer.done():
            self.answer.set_result(None)


async def ask(network: Network, address: str, question: Question) -> Answer | None:
    """What the replica at host:port says; None when there is no answer."""
    listener = _Listener()
    made: list[Connection] = []

    def make() -> Connection:
        made.append(Connection(0, listener, dialed=True))
        return made[0]

    try:
        async with asyncio.timeout(PATIENCE):
            await network.dial(address, make)
            made[0].send(question)
            return await listener.answer
    except (OSError, TimeoutError):
        return None
    finally:
        for connection in made:
            connection.abort()


async def ask_all(network: Network, addresses: Iterable[str], question: Question) -> list[Answer]:
    """The answers of those that give one."""
    answers = await asyncio.gather(*(ask(network, address, question) for address in addresses))
    return [answer for answer in answers if answer is not None]
