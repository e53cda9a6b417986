"""SCAN's arguments and what it shows."""

import pytest

from kvresp.errors import CommandError
from kvresp.scan import DEFAULT_COUNT, MAX_COUNT, Scan, parse_scan


def parsed(text: str) -> Scan:
    return parse_scan(text.encode().split())


def test_arguments_in_any_order() -> None:
    """And in any case."""
    assert parsed("scan 0") == Scan(0, DEFAULT_COUNT)
    assert parsed("SCAN 17 count 5 MATCH a* type STRING") == Scan(17, 5, b"a*", b"string")
    assert parsed("SCAN 0 COUNT 999999999").count == MAX_COUNT


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("SCAN x", "ERR invalid cursor"),
        ("SCAN -1", "ERR invalid cursor"),
        ("SCAN 99999999999999999999", "ERR invalid cursor"),
        ("SCAN 0 COUNT", "ERR syntax error"),
        ("SCAN 0 COUNT 0", "ERR syntax error"),
        ("SCAN 0 COUNT x", "ERR value is not an integer or out of range"),
        ("SCAN 0 WHAT x", "ERR syntax error"),
    ],
)
def test_wrong_arguments(text: str, error: str) -> None:
    """Redis's own errors."""
    with pytest.raises(CommandError, match=error):
        parsed(text)


def test_what_is_shown() -> None:
    """By pattern and type; all values are strings."""
    keys = [b"a1", b"b1", b"a2"]
    assert Scan(0, match=b"a*").shown(keys) == [b"a1", b"a2"]
    assert Scan(0).shown(keys) == keys
    assert Scan(0, type=b"hash").shown(keys) == []
