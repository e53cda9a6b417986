"""COMMAND: the commands describe themselves, to clients that route by it and to people."""

from collections.abc import Iterable, Mapping, Sequence

from kvresp import errors
from kvresp.commands import Command, command_of
from kvresp.errors import CommandError
from kvresp.glob import compile_glob
from kvresp.replies import Reply, Set, Simple

Commands = Mapping[str, Command]
"""Those that the door takes, by name."""


def _describe_command(command: Command) -> Reply:
    return [
        command.name,
        command.arity,
        Set(map(Simple, command.flags)),
        command.first,
        command.last,
        command.step,
        Set(map(Simple, command.categories)),
        Set(),
        Set([_key_specification(command)] if command.first else []),
        [_describe_command(c) for c in command.subcommands],
    ]


def _key_specification(command: Command) -> Reply:
    last = command.last - command.first if command.last > 0 else command.last
    found = {"lastkey": last, "keystep": command.step, "limit": 0}
    return {
        "flags": Set(map(Simple, ("RW", "access", "update") if command.writes else ("RO", "access"))),
        "begin_search": {"type": "index", "spec": {"index": command.first}},
        "find_keys": {"type": "range", "spec": found},
    }


def _document(command: Command) -> Reply:
    document: dict[str, Reply] = {"summary": command.summary, "since": command.since, "group": command.group}
    if command.subcommands:
        document["subcommands"] = {c.name: _document(c) for c in command.subcommands}
    return document


def _named(args: Sequence[bytes], commands: Commands) -> Iterable[tuple[bytes, Command | None]]:
    for name in args[2:]:
        container, _, rest = name.lower().decode("latin-1").partition("|")
        command = commands.get(container)
        if command is not None and rest:
            command = next((c for c in command.subcommands if c.name == f"{container}|{rest}"), None)
        yield name, command


def everything(commands: Commands) -> Reply:
    """COMMAND."""
    return [_describe_command(c) for c in commands.values()]


def info(args: Sequence[bytes], commands: Commands) -> Reply:
    """COMMAND INFO."""
    if len(args) == 2:
        return everything(commands)
    return [None if c is None else _describe_command(c) for _, c in _named(args, commands)]


def documents(args: Sequence[bytes], commands: Commands) -> Reply:
    """COMMAND DOCS."""
    if len(args) == 2:
        return {c.name: _document(c) for c in commands.values()}
    return {c.name: _document(c) for _, c in _named(args, commands) if c is not None}


def names(args: Sequence[bytes], commands: Commands) -> Reply:
    """COMMAND LIST. Raises CommandError."""
    if len(args) == 2:
        return list(commands)
    if len(args) != 5 or args[2].lower() != b"filterby":
        raise CommandError(errors.SYNTAX)
    kind, value = args[3].lower(), args[4]
    if kind == b"pattern":
        matches = compile_glob(value.lower())
        return [name for name in commands if matches(name.encode())]
    if kind == b"aclcat":
        wanted = "@" + value.decode("latin-1").lower()
        return [name for name in commands if wanted in commands[name].categories]
    if kind == b"module":
        return []
    raise CommandError(errors.SYNTAX)


def keys_of(args: Sequence[bytes]) -> Reply:
    """COMMAND GETKEYS. Raises CommandError."""
    try:
        command = command_of(args[2:])
    except CommandError as e:
        if "wrong number" in str(e):
            raise CommandError("ERR Invalid number of arguments specified for command") from e
        raise CommandError("ERR Invalid command specified") from e
    keys = list(command.keys(args[2:]))
    if not keys:
        raise CommandError("ERR The command has no key arguments")
    return keys
