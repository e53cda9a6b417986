"""Commands about the connection and the server."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest

from kvresp.commands import COMMANDS, Command, command_of
from kvresp.errors import CommandError
from kvresp.parser import split_line
from kvresp.replies import Error, Reply, Simple, Verbatim
from kvresp.session import AUTH_UNASKED, WRONG_USER, Session, answer


@dataclass
class FakeServer:
    """A door that says fixed things of itself."""

    cluster: bool = True
    role: str = "master"
    commands: Mapping[str, Command] = field(default_factory=lambda: COMMANDS)
    configuration: Mapping[str, str] = field(
        default_factory=lambda: {"save": "", "appendonly": "yes", "maxmemory": "0"}
    )
    all: list[Session] = field(default_factory=list)
    resets: int = 0

    def sessions(self) -> Iterable[Session]:
        return self.all

    def now(self) -> float:
        return 10.0

    def wall(self) -> float:
        return 1234.5

    def info(self) -> Mapping[str, Mapping[str, object]]:
        return {"Server": {"redis_version": "7"}, "Cluster": {"cluster_enabled": 1}}

    def reset_counts(self) -> None:
        self.resets += 1


def say(line: str, session: Session | None = None, server: FakeServer | None = None) -> Reply:
    """The reply to a line; errors too."""
    args = split_line(line.encode())
    assert args
    try:
        return answer(command_of(args), args, session or Session(7), server or FakeServer())
    except CommandError as e:
        return Error(e)


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("PING", Simple("PONG")),
        ("PING hi", b"hi"),
        ("PING a b", Error("ERR wrong number of arguments for 'ping' command")),
        ("ECHO hi", b"hi"),
        ("SELECT 0", Simple("OK")),
        ("SELECT 1", Error("ERR SELECT is not allowed in cluster mode")),
        ("SELECT x", Error("ERR value is not an integer or out of range")),
        ("AUTH pass", Error(AUTH_UNASKED)),
        ("AUTH default any", Simple("OK")),
        ("AUTH bob pass", Error(WRONG_USER)),
        ("CLIENT ID", 7),
        ("CLIENT GETNAME", None),
        ("CLIENT SETNAME 'a b'", Error("ERR Client names cannot contain spaces, newlines or special characters.")),
        ("CLIENT SETINFO lib-what x", Error("ERR Unrecognized option 'lib-what'")),
        ("CLIENT NO-EVICT on", Simple("OK")),
        ("CLIENT NO-TOUCH maybe", Error("ERR syntax error")),
        ("CLIENT REPLY on", Simple("OK")),
        ("CLIENT LIST TYPE what", Error("ERR Unknown client type 'what'")),
        ("CLIENT LIST ID 0", Error("ERR Invalid client ID")),
        ("COMMAND COUNT", len(COMMANDS)),
        ("COMMAND GETKEYS MSET a 1 b 2", [b"a", b"b"]),
        ("COMMAND GETKEYS PING x", Error("ERR The command has no key arguments")),
        ("COMMAND GETKEYS GET", Error("ERR Invalid number of arguments specified for command")),
        ("COMMAND GETKEYS nope x", Error("ERR Invalid command specified")),
        ("COMMAND LIST FILTERBY PATTERN getr*", ["getrange"]),
        ("COMMAND LIST FILTERBY MODULE x", []),
        ("COMMAND INFO nope", [None]),
        ("COMMAND DOCS nope", {}),
        ("CONFIG GET s* append*", {"save": "", "appendonly": "yes"}),
        ("CONFIG SET nope 1", Error("ERR Unknown option or number of arguments for CONFIG SET - 'nope'")),
        ("CONFIG SET save 1", Error("ERR CONFIG SET failed (possibly related to argument 'save') - can't set immutable config")),
        ("INFO cluster", Verbatim("# Cluster\r\ncluster_enabled:1\r\n")),
        ("INFO", Verbatim("# Server\r\nredis_version:7\r\n\r\n# Cluster\r\ncluster_enabled:1\r\n")),
        ("INFO nope", Verbatim("")),
        ("TIME", ["1234", "500000"]),
        ("HELLO 4", Error("NOPROTO unsupported protocol version")),
        ("HELLO x", Error("ERR Protocol version is not an integer or out of range")),
        ("HELLO 3 AUTH bob x", Error(WRONG_USER)),
        ("HELLO 3 WHAT", Error("ERR Syntax error in HELLO option 'WHAT'")),
    ],
)  # fmt: skip
def test_replies(line: str, reply: Reply) -> None:
    """A table of lines and replies."""
    assert say(line) == reply


def test_hello_switches_the_protocol_and_tells_who_is_there() -> None:
    """Not when anything of it is wrong."""
    session = Session(7)
    said = say("HELLO 3 AUTH default x SETNAME me", session)
    assert isinstance(said, dict)
    assert (said[b"proto"], said[b"mode"], said[b"role"], said[b"id"]) == (3, "cluster", "master", 7)
    assert (session.protocol, session.name) == (3, b"me")
    say("HELLO 2 SETNAME 'a b'", session)
    assert session.protocol == 3


def test_select_of_a_plain_server() -> None:
    """A router's clients know no cluster."""
    assert say("SELECT 1", server=FakeServer(cluster=False)) == Error("ERR DB index is out of range")


def test_a_connection_describes_itself() -> None:
    """Name, library, protocol, age."""
    session = Session(7, "1.2.3.4:5", "6.7.8.9:6379", since=4.0, active=8.0, last=b"GET")
    say("CLIENT SETNAME me", session)
    say("CLIENT SETINFO LIB-NAME lib", session)
    say("CLIENT SETINFO lib-ver 1.0", session)
    text = say("CLIENT INFO", session)
    assert isinstance(text, Verbatim)
    for part in (
        "id=7 addr=1.2.3.4:5 laddr=6.7.8.9:6379",
        "name=me age=6 idle=2",
        "cmd=get",
        "lib-name=lib lib-ver=1.0",
    ):
        assert part in text
    server = FakeServer(all=[session, Session(8)])
    assert str(say("CLIENT LIST", server=server)).count("\n") == 2
    assert str(say("CLIENT LIST ID 8", server=server)).startswith("id=8 ")
    assert say("CLIENT LIST TYPE replica", server=server) == ""


def test_reset_makes_a_connection_as_new() -> None:
    """Protocol, name, read-only."""
    session = Session(7, protocol=3, name=b"me", read_only=True, asking=True)
    assert say("RESET", session) == Simple("RESET")
    assert session == Session(7)


def test_quit_ends_the_connection() -> None:
    """After its reply."""
    session = Session(7)
    assert say("QUIT", session) == Simple("OK")
    assert session.ending


def test_commands_describe_themselves() -> None:
    """Arity, flags and keys as clients route by them."""
    info = say("COMMAND INFO mset client|id")
    assert isinstance(info, list)
    mset, client_id = info
    assert mset[:2] == ["mset", -3]
    assert mset[3:6] == [1, -1, 2]
    assert client_id[0] == "client|id"
    documents = say("COMMAND DOCS get client")
    assert isinstance(documents, dict)
    assert documents["get"]["since"] == "1.0.0"
    assert "client|id" in documents["client"]["subcommands"]


def test_counts_are_reset() -> None:
    """CONFIG RESETSTAT."""
    server = FakeServer()
    assert say("CONFIG RESETSTAT", server=server) == Simple("OK")
    assert server.resets == 1


def test_help_lists_the_subcommands() -> None:
    """As lines."""
    text = say("CLIENT HELP")
    assert isinstance(text, list)
    assert "SETNAME" in text
