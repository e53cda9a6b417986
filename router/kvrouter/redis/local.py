"""Commands that the router answers by itself: those of the connection, and what the server says of itself."""

from collections.abc import Sequence

from kvresp import replies
from kvresp.commands import Command
from kvresp.errors import CommandError
from kvresp.session import ANSWERED, Server, Session

_NO_CLUSTER = replies.error("ERR This instance has cluster support disabled")


def answer_local(command: Command, args: Sequence[bytes], session: Session, server: Server) -> bytes:
    """The raw reply to a command without keys; those for clusters are refused, as by any Redis that is none."""
    answer = ANSWERED.get(command.name)
    if answer is None:
        return _NO_CLUSTER
    try:
        return replies.encode(answer(args, session, server), session.protocol)
    except CommandError as error:
        return replies.error(str(error))
