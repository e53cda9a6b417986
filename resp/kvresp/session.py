"""What concerns the connection or the server as a whole, not keys: the same for node and router.

A `Session` is one client's state; `answer` does a command of the table's connection and server groups to it, with what
the door says of itself (`Server`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kvresp import errors, introspection
from kvresp.commands import COMMANDS, Command
from kvresp.errors import CommandError
from kvresp.glob import compile_glob
from kvresp.meaning import integer_argument, parse_integer
from kvresp.replies import SIMPLE_OK, Error, Reply, Simple, Verbatim

REDIS_VERSION: Final = "7.2.0"
"""What the door says it is the like of: clients choose commands by it."""
AUTH_UNASKED: Final = (
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
_GLOB: Final = frozenset(b"*?[")
WRONG_USER: Final = "WRONGPASS invalid username-password pair or user is disabled."


@dataclass(slots=True)
class Session:
    """One connection's state. `protocol` is 2 or 3; times are seconds of the server's clock."""

    id: int
    address: str = ""
    local_address: str = ""
    since: float = 0.0
    active: float = 0.0
    protocol: int = 2
    name: bytes = b""
    library: bytes = b""
    library_version: bytes = b""
    read_only: bool = False
    asking: bool = False
    last: bytes = b""
    ending: bool = False

    def reset(self) -> None:
        """As when it was new."""
        self.protocol, self.name, self.read_only, self.asking = 2, b"", False, False


class Server(Protocol):
    """What a door says of itself."""

    cluster: bool
    """Whether clients are to see a Redis Cluster's node."""

    @property
    def role(self) -> str:
        """`master` or `slave`, in Redis's words."""
        ...

    @property
    def commands(self) -> Mapping[str, Command]:
        """The commands that it takes."""
        ...

    @property
    def configuration(self) -> Mapping[str, str]:
        """What CONFIG GET shows."""
        ...

    def sessions(self) -> Iterable[Session]:
        """All connections."""
        ...

    def now(self) -> float:
        """The clock of Session's times."""
        ...

    def wall(self) -> float:
        """Unix time in seconds."""
        ...

    def info(self) -> Mapping[str, Mapping[str, object]]:
        """INFO's sections, in their order: title to fields."""
        ...

    def reset_counts(self) -> None:
        """CONFIG RESETSTAT."""
        ...


def answer(command: Command, args: Sequence[bytes], session: Session, server: Server) -> Reply:
    """Do a command of `ANSWERED`. Raises CommandError."""
    return ANSWERED[command.name](args, session, server)


# --- the connection --------------------------------------------------------------------------------------------------


def _ping(args: Sequence[bytes], _: Session, __: Server) -> Reply:
    if len(args) > 2:
        raise CommandError(errors.wrong_number("ping"))
    return args[1] if len(args) == 2 else Simple("PONG")


def _hello(args: Sequence[bytes], session: Session, server: Server) -> Reply:
    protocol, name = session.protocol, session.name
    if len(args) > 1:
        number = parse_integer(args[1])
        if number is None:
            raise CommandError("ERR Protocol version is not an integer or out of range")
        if number not in (2, 3):
            raise CommandError(errors.NO_PROTOCOL)
        protocol = number
    rest = list(args[2:])
    while rest:
        option = rest.pop(0)
        word = option.upper()
        if word == b"AUTH" and len(rest) >= 2:
            _check_user(rest.pop(0))
            rest.pop(0)
        elif word == b"SETNAME" and rest:
            name = _client_name(rest.pop(0))
        else:
            raise CommandError(f"ERR Syntax error in HELLO option '{option.decode('latin-1')}'")
    session.protocol, session.name = protocol, name
    return {
        b"server": b"redis",
        b"version": REDIS_VERSION,
        b"proto": protocol,
        b"id": session.id,
        b"mode": "cluster" if server.cluster else "standalone",
        b"role": "master" if server.role == "master" else "replica",
        b"modules": [],
    }


def _check_user(user: bytes) -> None:
    """There is one user, `default`, and it has no password: any will do, as in Redis."""
    if user != b"default":
        raise CommandError(WRONG_USER)


def _auth(args: Sequence[bytes], _: Session, __: Server) -> Reply:
    if len(args) > 3:
        raise CommandError(errors.SYNTAX)
    if len(args) == 2:
        raise CommandError(AUTH_UNASKED)
    _check_user(args[1])
    return SIMPLE_OK


def _select(args: Sequence[bytes], _: Session, server: Server) -> Reply:
    if integer_argument(args[1]) != 0:
        raise CommandError(errors.CLUSTER_SELECT if server.cluster else errors.OUT_OF_INDEX)
    return SIMPLE_OK


def _reset(_: Sequence[bytes], session: Session, __: Server) -> Reply:
    session.reset()
    return Simple("RESET")


def _quit(_: Sequence[bytes], session: Session, __: Server) -> Reply:
    session.ending = True
    return SIMPLE_OK


# --- CLIENT ----------------------------------------------------------------------------------------------------------


def _client_name(name: bytes) -> bytes:
    if not all(33 <= c <= 126 for c in name):
        raise CommandError("ERR Client names cannot contain spaces, newlines or special characters.")
    return name


def _client_setname(args: Sequence[bytes], session: Session, _: Server) -> Reply:
    session.name = _client_name(args[2])
    return SIMPLE_OK


def _client_setinfo(args: Sequence[bytes], session: Session, _: Server) -> Reply:
    option, value = args[2].lower(), args[3]
    if option not in (b"lib-name", b"lib-ver"):
        raise CommandError(f"ERR Unrecognized option '{args[2].decode('latin-1')}'")
    if not all(33 <= c <= 126 for c in value):
        raise CommandError(f"ERR {option.decode()} cannot contain spaces, newlines or special characters.")
    if option == b"lib-name":
        session.library = value
    else:
        session.library_version = value
    return SIMPLE_OK


def _on_or_off(args: Sequence[bytes], _: Session, __: Server) -> Reply:
    if args[2].lower() not in (b"on", b"off"):
        raise CommandError(errors.SYNTAX)
    return SIMPLE_OK


def _client_reply(args: Sequence[bytes], _: Session, __: Server) -> Reply:
    if args[2].lower() in (b"off", b"skip"):
        raise CommandError("ERR CLIENT REPLY OFF and SKIP are not possible here; replies are always on")
    if args[2].lower() != b"on":
        raise CommandError(errors.SYNTAX)
    return SIMPLE_OK


def describe(session: Session, now: float) -> str:
    """A connection's line of CLIENT LIST."""
    fields: dict[str, object] = {
        "id": session.id,
        "addr": session.address,
        "laddr": session.local_address,
        "fd": -1,
        "name": session.name.decode("latin-1"),
        "age": int(max(0.0, now - session.since)),
        "idle": int(max(0.0, now - session.active)),
        "flags": "r" if session.read_only else "N",
        "db": 0,
        "cmd": session.last.decode("latin-1").lower() or "NULL",
        "user": "default",
        "resp": session.protocol,
        "lib-name": session.library.decode("latin-1"),
        "lib-ver": session.library_version.decode("latin-1"),
    }
    return " ".join(f"{name}={value}" for name, value in fields.items())


def _client_info(_: Sequence[bytes], session: Session, server: Server) -> Reply:
    return Verbatim(describe(session, server.now()) + "\n")


def _client_list(args: Sequence[bytes], _: Session, server: Server) -> Reply:
    sessions = list(server.sessions())
    if len(args) > 2:
        option = args[2].lower()
        if option == b"type" and len(args) == 4:
            kind = args[3].lower()
            if kind not in (b"normal", b"master", b"replica", b"slave", b"pubsub"):
                raise CommandError(f"ERR Unknown client type '{args[3].decode('latin-1')}'")
            sessions = sessions if kind == b"normal" else []
        elif option == b"id" and len(args) > 3:
            wanted = set(map(_client_id, args[3:]))
            sessions = [s for s in sessions if s.id in wanted]
        else:
            raise CommandError(errors.SYNTAX)
    return Verbatim("".join(describe(s, server.now()) + "\n" for s in sessions))


def _client_id(text: bytes) -> int:
    number = parse_integer(text)
    if number is None or number < 1:
        raise CommandError("ERR Invalid client ID")
    return number


# --- the server ------------------------------------------------------------------------------------------------------


def check_wait(args: Sequence[bytes]) -> None:
    """Of WAIT and WAITAOF: the arguments, the last one a time-out. Raises CommandError."""
    for number in args[1:-1]:
        integer_argument(number)
    timeout = parse_integer(args[-1])
    if timeout is None:
        raise CommandError("ERR timeout is not an integer or out of range")
    if timeout < 0:
        raise CommandError("ERR timeout is negative")


def _config_get(args: Sequence[bytes], _: Session, server: Server) -> Reply:
    found: dict[Reply, Reply] = {}
    for pattern in args[2:]:
        if not set(pattern) & _GLOB:  # Redis replies with a name as it was asked for
            value = server.configuration.get(pattern.lower().decode("latin-1"))
            found.update({} if value is None else {pattern: value})
            continue
        matches = compile_glob(pattern.lower())
        found.update((name, value) for name, value in server.configuration.items() if matches(name.encode()))
    return found


def _config_set(args: Sequence[bytes], _: Session, server: Server) -> Reply:
    name = args[2].decode("latin-1").lower()
    if len(args) % 2 or name not in server.configuration:
        raise CommandError(f"ERR Unknown option or number of arguments for CONFIG SET - '{args[2].decode('latin-1')}'")
    raise CommandError(f"ERR CONFIG SET failed (possibly related to argument '{name}') - can't set immutable config")


def _config_resetstat(_: Sequence[bytes], __: Session, server: Server) -> Reply:
    server.reset_counts()
    return SIMPLE_OK


def _info(args: Sequence[bytes], _: Session, server: Server) -> Reply:
    sections = server.info()
    wanted = {a.lower().decode("latin-1") for a in args[1:]}
    if not wanted or wanted & {"all", "default", "everything"}:
        wanted = {title.lower() for title in sections}
    shown = (
        f"# {title}\r\n" + "".join(f"{name}:{value}\r\n" for name, value in fields.items())
        for title, fields in sections.items()
        if title.lower() in wanted
    )
    return Verbatim("\r\n".join(shown))


def _time(_: Sequence[bytes], __: Session, server: Server) -> Reply:
    seconds, rest = divmod(server.wall(), 1.0)
    return [str(int(seconds)), str(int(rest * 1_000_000))]


def _help(name: str) -> "Answer":
    container = COMMANDS[name]
    lines = [f"{name.upper()} <subcommand> [<arg> ...]. Subcommands are:"]
    for command in container.subcommands:
        lines += [command.name.partition("|")[2].upper(), f"    {command.summary}."]
    text = [Simple(line) for line in lines]
    return lambda _, __, ___: text


def _bare(name: str) -> "Answer":
    """A container without its subcommand."""

    def refuse(_: Sequence[bytes], __: Session, ___: Server) -> Reply:
        return Error(errors.wrong_number(name))

    return refuse


Answer = Callable[[Sequence[bytes], Session, Server], Reply]

ANSWERED: Final[dict[str, Answer]] = {
    "auth": _auth,
    "client": _bare("client"),
    "client|getname": lambda _, session, __: session.name or None,
    "client|help": _help("client"),
    "client|id": lambda _, session, __: session.id,
    "client|info": _client_info,
    "client|list": _client_list,
    "client|no-evict": _on_or_off,
    "client|no-touch": _on_or_off,
    "client|reply": _client_reply,
    "client|setinfo": _client_setinfo,
    "client|setname": _client_setname,
    "cluster|help": _help("cluster"),
    "command": lambda _, __, server: introspection.everything(server.commands),
    "command|count": lambda _, __, server: len(server.commands),
    "command|docs": lambda args, _, server: introspection.documents(args, server.commands),
    "command|getkeys": lambda args, _, __: introspection.keys_of(args),
    "command|help": _help("command"),
    "command|info": lambda args, _, server: introspection.info(args, server.commands),
    "command|list": lambda args, _, server: introspection.names(args, server.commands),
    "config": _bare("config"),
    "config|get": _config_get,
    "config|help": _help("config"),
    "config|resetstat": _config_resetstat,
    "config|set": _config_set,
    "echo": lambda args, _, __: args[1],
    "hello": _hello,
    "info": _info,
    "ping": _ping,
    "quit": _quit,
    "reset": _reset,
    "select": _select,
    "time": _time,
}
"""Commands that need no key and no cluster, by their names."""
