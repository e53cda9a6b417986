"""Errors as Redis says them: the text behind the minus sign, its first word the kind that clients look at."""

from collections.abc import Sequence

from kvcommon.errors import KVClusterError

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "ERR syntax error"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"
OVERFLOW = "ERR increment or decrement would overflow"
DECREMENT_OVERFLOW = "ERR decrement would overflow"
NO_SUCH_KEY = "ERR no such key"
INVALID_CURSOR = "ERR invalid cursor"
OFFSET_OUT_OF_RANGE = "ERR offset is out of range"
TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
CROSS_SLOT = "CROSSSLOT Keys in request don't hash to the same slot"
NO_SLOT = "CLUSTERDOWN Hash slot not served"
TOO_MANY_CLIENTS = "ERR max number of clients reached"
NO_REPLICAS = "NOREPLICAS Not enough good replicas to write."
OUT_OF_INDEX = "ERR DB index is out of range"
CLUSTER_SELECT = "ERR SELECT is not allowed in cluster mode"
NO_PROTOCOL = "NOPROTO unsupported protocol version"
EMPTY_KEY = "ERR an empty key can't be stored here; keys have 1 to 4096 bytes"
UNKNOWN_OUTCOME = (
    "OUTCOMEUNKNOWN the write was begun, and nobody here knows whether it was committed: it may or may not be applied. "
    "Read the key before you send the command again"
)
"""Of a write that was begun. No client takes this kind for one that may be sent again blindly."""


class CommandError(KVClusterError):
    """A command that can't be done as it is; the text is the reply behind the minus sign."""


class ProtocolError(KVClusterError):
    """Bytes that are no command; the connection ends after the reply, which has this text behind `ERR `."""


def wrong_number(name: str) -> str:
    """The reply to a command with too few or too many arguments; `name` in lower case, `client|kill` for a subcommand."""
    return f"ERR wrong number of arguments for '{name}' command"


def unknown_command(args: Sequence[bytes]) -> str:
    """The reply to a command that isn't there: it says how it began, 128 bytes of it."""
    shown = ""
    for arg in args[1:]:
        if len(shown) >= 128:
            break
        shown += f"'{_text(arg)[: 128 - len(shown)]}' "
    return f"ERR unknown command '{_text(args[0])[:128]}', with args beginning with: {shown}"


def unknown_subcommand(args: Sequence[bytes]) -> str:
    """The reply to a container command whose second word isn't known."""
    return f"ERR unknown subcommand '{_text(args[1])[:128]}'. Try {_text(args[0]).upper()} HELP."


def unknown_outcome(why: str) -> str:
    """The reply to a write of which nobody here can say whether it was kept."""
    return f"OUTCOMEUNKNOWN {why}. Read the key before you send the command again"


def key_too_long(length: int) -> str:
    """The reply to a key that the store doesn't hold."""
    return f"ERR a key of {length} bytes can't be stored here; keys have 1 to 4096 bytes"


def no_expiry(option: str) -> str:
    """The reply to what would give a key a time to live."""
    return f"ERR {option} is not possible: this store keeps keys until they are deleted, it has no expiry"


def moved(slot: int, address: str) -> str:
    """Ask there, from now on; `address` is host:port."""
    return f"MOVED {slot} {address}"


def ask(slot: int, address: str) -> str:
    """Ask there, this time, after ASKING."""
    return f"ASK {slot} {address}"


def _text(data: bytes) -> str:
    """Bytes as the text of an error line; what would end the line becomes a space, as Redis does it."""
    return data.decode("latin-1").replace("\r", " ").replace("\n", " ")
