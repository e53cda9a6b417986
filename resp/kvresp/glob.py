r"""Patterns as `SCAN MATCH` and `CONFIG GET` have them: `*`, `?`, `[a-c]`, `[^x]`, `\` before a character that means itself.

Translated for `re`. Each star but the last takes as little as it can and never gives it back: where one match of the
text between two stars will do, the first does. So no pattern takes more than length times length steps.
"""

import re
from collections.abc import Callable


def compile_glob(pattern: bytes) -> Callable[[bytes], object]:
    """A function that says whether (in the sense of `if`) the pattern matches all of a text."""
    segments: list[list[bytes]] = [[]]
    at = 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        if char == b"*":
            segments.append([])
            at += 1
        elif char == b"?":
            segments[-1].append(b".")
            at += 1
        elif char == b"[":
            text, at = _class(pattern, at + 1)
            segments[-1].append(text)
        else:
            if char == b"\\" and at + 1 < len(pattern):
                at += 1
            segments[-1].append(re.escape(pattern[at : at + 1]))
            at += 1
    first, *rest = (b"".join(s) for s in segments)
    middle = b"".join(b"(?>.*?%b)" % s for s in rest[:-1] if s)
    last = b".*%b" % rest[-1] if rest else b""
    return re.compile(first + middle + last, re.DOTALL).fullmatch


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """A class, from behind its bracket: as a regular expression, and where the pattern goes on. The end closes it too."""
    negative = pattern[at : at + 1] == b"^"
    at += negative
    chars: set[int] = set()
    while at < len(pattern) and pattern[at] != ord("]"):
        if pattern[at] == ord("\\") and at + 1 < len(pattern):
            chars.add(pattern[at + 1])
            at += 2
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < len(pattern):
            low, high = sorted((pattern[at], pattern[at + 2]))
            chars.update(range(low, high + 1))
            at += 3
        else:
            chars.add(pattern[at])
            at += 1
    if negative:
        chars = set(range(256)) - chars
    members = b"".join(b"\\x%02x" % c for c in sorted(chars))
    return (b"[%b]" % members if members else b"(?!)"), at + 1
