"""What one client may send, and how much of it is kept."""

from typing import Final

from kvcommon.numbers import MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES

MAX_BULK_BYTES: Final = MAX_VALUE_BYTES
"""Of one argument: `proto-max-bulk-len`. Longer ones are refused when their length is read."""
MAX_ARGUMENTS: Final = 1 << 20
"""Of one command, its name included."""
MAX_INLINE_BYTES: Final = 64 << 10
"""Of an inline command, and of a header line; Redis's own."""
MAX_COMMAND_BYTES: Final = 2 * MAX_BATCH_BYTES
"""Of one command, all in all."""
MAX_WRITTEN_BYTES: Final = MAX_BATCH_BYTES
"""Of keys and values that one command writes (MSET): it is one batch of the log, whole or not at all."""
MAX_REPLY_BYTES: Final = MAX_BATCH_BYTES
"""Of values in one command's reply (MGET)."""

__all__ = [
    "MAX_ARGUMENTS",
    "MAX_BULK_BYTES",
    "MAX_COMMAND_BYTES",
    "MAX_INLINE_BYTES",
    "MAX_KEY_BYTES",
    "MAX_REPLY_BYTES",
    "MAX_VALUE_BYTES",
    "MAX_WRITTEN_BYTES",
]
