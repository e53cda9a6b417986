"""What a session has observed, its later reads must not be older than."""

from tests.support.history import UNKNOWN, Kind, Operation, Outcome, Result
from tests.support.sessions import StaleRead, went_back

KEY = b"k"


def wrote(version: int, kind: Kind = Kind.PUT) -> Operation:
    value = None if kind is Kind.DELETE else b"v%d" % version
    return Operation(1, KEY, kind, value, None, 0, 1, Outcome(Result.OK, version))


def read(version: int) -> Operation:
    found = Outcome(Result.OK, version, b"v%d" % version) if version else Outcome(Result.NOT_FOUND)
    return Operation(2, KEY, Kind.GET, None, None, 5, 6, found)


def test_a_read_of_what_was_there_at_the_observed_version_is_fine() -> None:
    """Of another key of the partition, too: 7 is not one of this key."""
    history = [wrote(3), wrote(9)]
    assert went_back([StaleRead(read(3), 7), StaleRead(read(9), 7), StaleRead(read(0), 2)], history) == []


def test_a_read_that_lacks_something_below_the_observed_version_went_back() -> None:
    history = [wrote(3), wrote(9)]
    assert "observed version 9" in went_back([StaleRead(read(3), 9)], history)[0]
    assert went_back([StaleRead(read(0), 4)], history)


def test_nothing_is_there_after_a_deletion() -> None:
    """One that was acknowledged, or one of which nobody heard again."""
    assert went_back([StaleRead(read(0), 9)], [wrote(3), wrote(9, Kind.DELETE)]) == []
    untold = Operation(1, KEY, Kind.DELETE, None, None, 0, None, UNKNOWN)
    assert went_back([StaleRead(read(0), 9)], [wrote(3), untold]) == []
    assert went_back([StaleRead(read(0), 12)], [wrote(3), wrote(9, Kind.DELETE), wrote(11)])
