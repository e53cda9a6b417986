"""CRC32C (Castagnoli), by google-crc32c's C code; the one place that knows the library."""

from collections.abc import Callable

import google_crc32c

crc32c: Callable[[bytes], int] = google_crc32c.value

extend_crc32c: Callable[[int, bytes], int] = google_crc32c.extend
"""The checksum of bytes and of these behind them, from that of the former."""
