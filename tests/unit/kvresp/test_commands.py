"""The table of commands."""

import pytest

from kvresp.commands import COMMANDS, command_of
from kvresp.errors import CommandError
from kvresp.session import ANSWERED


@pytest.mark.parametrize(
    ("args", "keys"),
    [
        ([b"GET", b"a"], [b"a"]),
        ([b"MSET", b"a", b"1", b"b", b"2"], [b"a", b"b"]),
        ([b"DEL", b"a", b"b", b"a"], [b"a", b"b", b"a"]),
        ([b"RENAME", b"a", b"b"], [b"a", b"b"]),
        ([b"SET", b"a", b"1", b"NX"], [b"a"]),
        ([b"PING", b"a"], []),
    ],
)
def test_keys_of_commands(args: list[bytes], keys: list[bytes]) -> None:
    """By their positions."""
    assert list(command_of(args).keys(args)) == keys


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ([b"nope"], "ERR unknown command 'nope', with args beginning with: "),
        ([b"nope", b"a\r\nb"], "ERR unknown command 'nope', with args beginning with: 'a  b' "),
        ([b"nope", b"x" * 200, b"y"], f"ERR unknown command 'nope', with args beginning with: '{'x' * 128}' "),
        ([b"client", b"Nope"], "ERR unknown subcommand 'Nope'. Try CLIENT HELP."),
        ([b"client"], "ERR wrong number of arguments for 'client' command"),
        ([b"client", b"id", b"x"], "ERR wrong number of arguments for 'client|id' command"),
        ([b"Get"], "ERR wrong number of arguments for 'get' command"),
    ],
)
def test_what_is_wrong_with_a_command(args: list[bytes], error: str) -> None:
    """In Redis's words."""
    with pytest.raises(CommandError) as raised:
        command_of(args)
    assert str(raised.value) == error


def test_names_in_any_case() -> None:
    """Subcommands too."""
    assert command_of([b"gEt", b"a"]).name == "get"
    assert command_of([b"CLIENT", b"Id"]).name == "client|id"


def test_every_command_without_keys_is_answered() -> None:
    """By the session, or by the door itself: those are named here."""
    doors_own = {"asking", "dbsize", "readonly", "readwrite", "scan", "wait", "waitaof"}
    names = {c.name for container in COMMANDS.values() for c in (container, *container.subcommands) if not c.first}
    missing = {n for n in names - set(ANSWERED) - doors_own if n != "cluster" and not n.startswith("cluster|")}
    assert missing == set()
