"""Patterns as Redis has them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvresp.glob import compile_glob


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        (b"*", b"anything", True),
        (b"h?llo", b"hello", True),
        (b"h?llo", b"hllo", False),
        (b"h*llo", b"hllo", True),
        (b"a*b*c", b"a-b-b-c", True),
        (b"a*b*c", b"a-c-b", False),
        (b"h[ae]llo", b"hallo", True),
        (b"h[^e]llo", b"hello", False),
        (b"h[a-c]llo", b"hbllo", True),
        (b"h[c-a]llo", b"hbllo", True),
        (b"h\\*llo", b"h*llo", True),
        (b"h\\*llo", b"hxllo", False),
        (b"[\\]]", b"]", True),
        (b"[]", b"x", False),
        (b"[^]", b"x", True),
        (b"[abc", b"b", True),
        (b"[a-", b"-", True),
        (b"a\\", b"a\\", True),
        (b"a\nb*", b"a\nb\n", True),
        (b"a.c", b"abc", False),
        (b"", b"", True),
        (b"**x", b"aax", True),
    ],
)
def test_patterns(pattern: bytes, text: bytes, matches: bool) -> None:
    """A table of patterns, texts and whether they match."""
    assert bool(compile_glob(pattern)(text)) is matches


def slow_match(pattern: bytes, text: bytes) -> bool:
    """Stars and question marks by trying everything."""
    if not pattern:
        return not text
    if pattern[:1] == b"*":
        return any(slow_match(pattern[1:], text[i:]) for i in range(len(text) + 1))
    return bool(text) and pattern[:1] in (b"?", text[:1]) and slow_match(pattern[1:], text[1:])


@settings(deadline=None)
@given(st.text("ab*?", max_size=8), st.text("ab", max_size=10))
def test_stars_that_give_nothing_back_match_the_same(pattern: str, text: str) -> None:
    """Against trying every way."""
    assert bool(compile_glob(pattern.encode())(text.encode())) is slow_match(pattern.encode(), text.encode())


def test_a_wicked_pattern_ends() -> None:
    """Many stars on a text that almost matches; tried in every way it would take years."""
    assert not compile_glob(b"a*" * 50 + b"b")(b"a" * 2000)
