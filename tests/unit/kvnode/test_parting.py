"""The point where two logs part, against logs written out record by record."""

from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.parting import next_epoch, parting
from kvnode.core.types import START, EpochStart, Position

Log = list[int]  # the epoch of each record, from index 1 on


@st.composite
def logs_of_one_history(draw: st.DrawFn) -> list[Log]:
    """Logs as the protocol makes them: each epoch has one writer, who starts from some log there is."""
    logs: list[Log] = [[]]
    for epoch in range(1, draw(st.integers(1, 7)) + 1):
        log = list(draw(st.sampled_from(logs))) + [epoch] * draw(st.integers(1, 4))
        logs.append(log)
        # Whoever follows has some of it: all before the epoch, and a part of what the epoch wrote.
        owned = draw(st.integers(log.index(epoch), len(log)))
        logs.append(log[:owned])
    return logs


def table(log: Log) -> list[EpochStart]:
    return [EpochStart(e, i + 1) for i, e in enumerate(log) if i == 0 or log[i - 1] != e]


def end(log: Log) -> Position:
    return Position(log[-1], len(log)) if log else START


def shared(ours: Log, theirs: Log) -> int:
    count = 0
    while count < min(len(ours), len(theirs)) and ours[count] == theirs[count]:
        count += 1
    return count


@given(logs_of_one_history(), st.data())
def test_parting_is_the_longest_shared_prefix(logs: list[Log], data: st.DataObject) -> None:
    """Equal (epoch, index) means equal records, so the longest prefix of equal epochs is what two logs share."""
    ours, theirs = data.draw(st.sampled_from(logs)), data.draw(st.sampled_from(logs))
    found = parting(table(ours), end(ours), table(theirs), end(theirs))
    count = shared(ours, theirs)
    assert found == end(ours[:count])


@given(logs_of_one_history(), st.data())
def test_parting_is_the_same_from_both_sides(logs: list[Log], data: st.DataObject) -> None:
    """Leader and follower would find the same point."""
    ours, theirs = data.draw(st.sampled_from(logs)), data.draw(st.sampled_from(logs))
    one = parting(table(ours), end(ours), table(theirs), end(theirs))
    assert one == parting(table(theirs), end(theirs), table(ours), end(ours))


@given(logs_of_one_history(), st.data())
def test_the_next_epoch_is_that_of_the_record_behind(logs: list[Log], data: st.DataObject) -> None:
    log = data.draw(st.sampled_from(logs))
    for index in range(len(log) + 2):
        assert next_epoch(table(log), end(log), index) == (log[index] if index < len(log) else None)
