"""The table of commands: what each is called, how many arguments it takes, where its keys are, what it is for.

One row a command, as a reader checks it by eye. Names, arities, flags and key positions are Redis 7's own facts: clients
route by them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kvresp.errors import CommandError, unknown_command, unknown_subcommand, wrong_number


@dataclass(frozen=True, slots=True)
class Command:
    """A command, or a container's subcommand (`client|id`).

    `arity` counts the name: exactly that many arguments, or at least -arity. Keys are at `first`, +`step`, ... up to
    `last` (from the end if negative); `first` 0: it has none.
    """

    name: str
    arity: int
    flags: tuple[str, ...]
    first: int
    last: int
    step: int
    group: str
    since: str
    summary: str
    subcommands: tuple["Command", ...] = ()

    @property
    def writes(self) -> bool:
        """Whether it may change keys."""
        return "write" in self.flags

    @property
    def categories(self) -> tuple[str, ...]:
        """Its ACL categories."""
        found = [name for flag, name in (("readonly", "@read"), ("write", "@write")) if flag in self.flags]
        found += {"string": ["@string"], "generic": ["@keyspace"], "connection": ["@connection"]}.get(self.group, [])
        found.append("@fast" if "fast" in self.flags else "@slow")
        if "admin" in self.flags:
            found += ["@admin", "@dangerous"]
        return tuple(found)

    def fits(self, count: int) -> bool:
        """Whether it takes this many arguments, its name included."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity

    def keys(self, args: Sequence[bytes]) -> Sequence[bytes]:
        """The keys among its arguments, in their order, repetitions too."""
        if not self.first:
            return ()
        last = self.last if self.last > 0 else len(args) + self.last
        return args[self.first : last + 1 : self.step]


_ROWS: Final = """
append          3 write,denyoom,fast         1  1 1 string     2.0.0 Append a value to a key
decr            2 write,denyoom,fast         1  1 1 string     1.0.0 Take one from the number of a key
decrby          3 write,denyoom,fast         1  1 1 string     1.0.0 Take a number from the number of a key
get             2 readonly,fast              1  1 1 string     1.0.0 Get the value of a key
getdel          2 write,fast                 1  1 1 string     6.2.0 Get the value of a key and delete the key
getrange        4 readonly                   1  1 1 string     2.4.0 Get a part of the value of a key
getset          3 write,denyoom,fast         1  1 1 string     1.0.0 Set the value of a key and return the one before
incr            2 write,denyoom,fast         1  1 1 string     1.0.0 Add one to the number of a key
incrby          3 write,denyoom,fast         1  1 1 string     1.0.0 Add a number to the number of a key
mget           -2 readonly,fast              1 -1 1 string     1.0.0 Get the values of several keys
mset           -3 write,denyoom              1 -1 2 string     1.0.1 Set several keys
msetnx         -3 write,denyoom              1 -1 2 string     1.0.1 Set several keys, if none of them exists
psetex          4 write,denyoom              1  1 1 string     2.6.0 Not possible: there is no expiry
set            -3 write,denyoom              1  1 1 string     1.0.0 Set the value of a key
setex           4 write,denyoom              1  1 1 string     2.0.0 Not possible: there is no expiry
setnx           3 write,denyoom,fast         1  1 1 string     1.0.0 Set the value of a key, if it does not exist
setrange        4 write,denyoom              1  1 1 string     2.2.0 Overwrite a part of the value of a key
strlen          2 readonly,fast              1  1 1 string     2.2.0 Get the length of the value of a key
substr          4 readonly                   1  1 1 string     1.0.0 Get a part of the value of a key
del            -2 write                      1 -1 1 generic    1.0.0 Delete keys
exists         -2 readonly,fast              1 -1 1 generic    1.0.0 Count how many of the keys exist
expire         -3 write,fast                 1  1 1 generic    1.0.0 Not possible: there is no expiry
expireat       -3 write,fast                 1  1 1 generic    1.2.0 Not possible: there is no expiry
expiretime      2 readonly,fast              1  1 1 generic    7.0.0 When a key expires: never
persist         2 write,fast                 1  1 1 generic    2.2.0 Take a key's time to live away: it has none
pexpire        -3 write,fast                 1  1 1 generic    2.6.0 Not possible: there is no expiry
pexpireat      -3 write,fast                 1  1 1 generic    2.6.0 Not possible: there is no expiry
pexpiretime     2 readonly,fast              1  1 1 generic    7.0.0 When a key expires: never
pttl            2 readonly,fast              1  1 1 generic    2.6.0 A key's time to live: without end
rename          3 write                      1  2 1 generic    1.0.0 Rename a key
renamenx        3 write,fast                 1  2 1 generic    1.0.0 Rename a key, if the new name does not exist
scan           -2 readonly                   0  0 0 generic    2.8.0 Go through the keys, some at a time
touch          -2 readonly,fast              1 -1 1 generic    3.2.1 Count how many of the keys exist
ttl             2 readonly,fast              1  1 1 generic    1.0.0 A key's time to live: without end
type            2 readonly,fast              1  1 1 generic    1.0.0 The type of the value of a key
unlink         -2 write,fast                 1 -1 1 generic    4.0.0 Delete keys
wait            3 noscript                   0  0 0 connection 3.0.0 How many replicas have this connection's writes
waitaof         4 noscript                   0  0 0 connection 7.2.0 How many replicas have them on disk
asking          1 fast                       0  0 0 connection 3.0.0 Allow the next command on a slot that moves here
auth           -2 noscript,loading,stale,fast,no_auth,allow_busy 0 0 0 connection 1.0.0 Say who you are
client         -2 -                          0  0 0 -          2.4.0 Commands about connections
client|getname  2 noscript,loading,stale     0  0 0 connection 2.6.9 This connection's name
client|help     2 loading,stale              0  0 0 connection 5.0.0 What there is
client|id       2 noscript,loading,stale     0  0 0 connection 5.0.0 This connection's number
client|info     2 noscript,loading,stale     0  0 0 connection 6.2.0 About this connection
client|list    -2 admin,noscript,loading,stale 0 0 0 connection 2.4.0 About all connections
client|no-evict 3 admin,noscript,loading,stale 0 0 0 connection 7.0.0 Nothing is ever evicted here
client|no-touch 3 noscript,loading,stale     0  0 0 connection 7.2.0 Keys have no access times here
client|reply    3 noscript,loading,stale     0  0 0 connection 3.2.0 Replies are always on
client|setinfo  4 noscript,loading,stale     0  0 0 connection 7.2.0 Say which library you are
client|setname  3 noscript,loading,stale     0  0 0 connection 2.6.9 Give this connection a name
echo            2 loading,stale,fast         0  0 0 connection 1.0.0 Get your own words back
hello          -1 noscript,loading,stale,fast,no_auth,allow_busy 0 0 0 connection 6.0.0 Choose the protocol
ping           -1 fast                       0  0 0 connection 1.0.0 Is anybody there
quit           -1 noscript,loading,stale,fast,no_auth,allow_busy 0 0 0 connection 1.0.0 End this connection
readonly        1 loading,stale,fast         0  0 0 connection 3.0.0 Let followers answer reads, up to a bounded lag
readwrite       1 loading,stale,fast         0  0 0 connection 3.0.0 Reads by the leader only, as at first
reset           1 noscript,loading,stale,fast,no_auth,allow_busy 0 0 0 connection 6.2.0 Make this connection as new
select          2 loading,stale,fast         0  0 0 connection 1.0.0 Choose the database: 0
cluster        -2 -                          0  0 0 cluster    3.0.0 Commands about the cluster
cluster|countkeysinslot 3 stale              0  0 0 cluster    3.0.0 How many keys a slot has here
cluster|getkeysinslot 4 stale                0  0 0 cluster    3.0.0 Keys of a slot
cluster|help    2 loading,stale              0  0 0 cluster    5.0.0 What there is
cluster|info    2 stale                      0  0 0 cluster    3.0.0 The cluster's state
cluster|keyslot 3 stale                      0  0 0 cluster    3.0.0 The slot of a key
cluster|myid    2 stale                      0  0 0 cluster    3.0.0 This node's id
cluster|nodes   2 stale                      0  0 0 cluster    3.0.0 The cluster's nodes
cluster|shards  2 stale                      0  0 0 cluster    7.0.0 Slots and nodes, by partition
cluster|slots   2 stale                      0  0 0 cluster    3.0.0 Slots and nodes, by range
command        -1 loading,stale              0  0 0 server     2.8.13 About commands
command|count   2 loading,stale              0  0 0 server     2.8.13 How many commands there are
command|docs   -2 loading,stale              0  0 0 server     7.0.0 What commands are for
command|getkeys -3 loading,stale             0  0 0 server     2.8.13 The keys of a command
command|help    2 loading,stale              0  0 0 server     5.0.0 What there is
command|info   -2 loading,stale              0  0 0 server     2.8.13 Arity, flags and keys of commands
command|list   -2 loading,stale              0  0 0 server     7.0.0 The commands' names
config         -2 -                          0  0 0 server     2.0.0 Commands about the configuration
config|get     -3 admin,noscript,loading,stale 0 0 0 server    2.0.0 Values of the configuration
config|help     2 loading,stale              0  0 0 server     5.0.0 What there is
config|resetstat 2 admin,noscript,loading,stale 0 0 0 server   2.0.0 Count commands from zero
config|set     -4 admin,noscript,loading,stale 0 0 0 server    2.0.0 Not possible: settings are the process's own
dbsize          1 readonly,fast              0  0 0 server     1.0.0 How many keys there are
info           -1 loading,stale              0  0 0 server     1.0.0 About this server
time            1 loading,stale,fast         0  0 0 server     2.6.0 The server's clock
"""


def _command(row: str, subcommands: tuple[Command, ...] = ()) -> Command:
    name, arity, flags, first, last, step, group, since, summary = row.split(None, 8)
    return Command(
        name,
        int(arity),
        () if flags == "-" else tuple(flags.split(",")),
        int(first),
        int(last),
        int(step),
        "connection" if group == "-" else group,
        since,
        summary,
        subcommands,
    )


def _commands(rows: Sequence[str]) -> Iterator[Command]:
    for row in rows:
        name = row.split(None, 1)[0]
        if "|" not in name:
            yield _command(row, tuple(_command(r) for r in rows if r.startswith(f"{name}|")))


COMMANDS: Final = {command.name: command for command in _commands(_ROWS.strip().splitlines())}
"""Every command by its name in lower case; subcommands are within their containers."""

_FOUND: Final = {spelled.encode(): c for name, c in COMMANDS.items() for spelled in (name, name.upper())}
_SUBCOMMANDS: Final = {c.name.encode(): c for container in COMMANDS.values() for c in container.subcommands}


def command_of(args: Sequence[bytes]) -> Command:
    """Which command this is, a subcommand if it has them. Raises CommandError: unknown, or not that many arguments."""
    command = _FOUND.get(args[0]) or _FOUND.get(args[0].lower())
    if command is None:
        raise CommandError(unknown_command(args))
    if command.subcommands and len(args) > 1:
        found = _SUBCOMMANDS.get(b"%b|%b" % (args[0].lower(), args[1].lower()))
        if found is None:
            raise CommandError(unknown_subcommand(args))
        command = found
    if not command.fits(len(args)):
        raise CommandError(wrong_number(command.name))
    return command
