"""Commands that the router answers by itself: those of the connection, and what the server says of itself."""

from collections.abc import Callable, Sequence

from kvcoord.view import ClusterView
from kvresp import replies
from kvresp.commands import Command
from kvresp.errors import CommandError
from kvresp.meaning import integer_argument, parse_integer
from kvresp.replies import Reply
from kvresp.session import ANSWERED, Server, Session

NO_CLUSTER = "ERR This instance has cluster support disabled"


def answer_local(
    command: Command, args: Sequence[bytes], session: Session, server: Server, view: Callable[[], ClusterView]
) -> bytes:
    """The raw reply to a command without keys."""
    try:
        reply = _answer(command, args, session, server, view)
    except CommandError as error:
        return replies.error(str(error))
    return replies.encode(reply, session.protocol)


def _answer(
    command: Command, args: Sequence[bytes], session: Session, server: Server, view: Callable[[], ClusterView]
) -> Reply:
    answer = ANSWERED.get(command.name)
    if answer is not None:
        return answer(args, session, server)
    if command.name == "wait":
        return _wait(args, view())
    if command.name == "waitaof":
        return _wait_for_disks(args, view())
    raise CommandError(NO_CLUSTER)


def followers(view: ClusterView) -> int:
    """How many followers have every acknowledged write: those in sync, of the partition that has the fewest."""
    return min((len(state.value.in_sync) - 1 for state in view.partitions.values()), default=0)


def _wait(args: Sequence[bytes], view: ClusterView) -> Reply:
    integer_argument(args[1])
    _timeout(args[2])
    return followers(view)


def _wait_for_disks(args: Sequence[bytes], view: ClusterView) -> Reply:
    for number in args[1:3]:
        integer_argument(number)
    _timeout(args[3])
    return [1, followers(view)]


def _timeout(text: bytes) -> None:
    number = parse_integer(text)
    if number is None:
        raise CommandError("ERR timeout is not an integer or out of range")
    if number < 0:
        raise CommandError("ERR timeout is negative")
