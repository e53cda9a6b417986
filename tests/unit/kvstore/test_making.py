"""A batch that is made record by record, or in columns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.batch import MAX_RECORD_BYTES, Record, check_batch, encode_batch, iter_records
from kvstore.errors import CorruptionError, RecordTooLargeError
from kvstore.folded import fold_records
from kvstore.making import BatchMaker
from tests.unit.kvstore.support import DELETE, PUT, SESSION

pairs = st.lists(st.tuples(st.binary(min_size=1, max_size=5), st.binary(max_size=20)), min_size=1, max_size=6)
steps = st.lists(
    st.tuples(st.just("puts"), pairs)
    | st.tuples(st.sampled_from(["put", "delete", "session"]), pairs.map(lambda many: many[:1])),
    min_size=1,
)


@given(steps)
def test_it_is_the_batch_that_its_records_make_and_what_it_changes_is_what_is_found_in_it(
    steps: list[tuple[str, list[tuple[bytes, bytes]]]],
) -> None:
    """Byte by byte."""
    made = BatchMaker(3, 10, 9)
    records: list[Record] = []
    version = 100
    for what, many in steps:
        if what == "puts":
            made.put_all([key for key, _ in many], [value for _, value in many], version)
            records += [Record(PUT, key, value, version + i) for i, (key, value) in enumerate(many)]
        else:
            [(key, value)] = many
            if what == "put":
                made.put(key, value, version)
                records.append(Record(PUT, key, value, version))
            elif what == "delete":
                made.delete(key, version)
                records.append(Record(DELETE, key, b"", version))
            else:
                made.session(key, value, version)
                records.append(Record(SESSION, key, value, version))
        version += len(many)
    data = made.seal()
    assert data == encode_batch(3, 10, 9, records)
    assert made.last == 10 + len(records) - 1
    assert made.folded == fold_records(data, check_batch(data))
    for key, place in zip(made.folded.keys, made.folded.places, strict=True):
        assert not place or key in data[place >> 21 :][: place & ((1 << 21) - 1)]
    assert [r.key for r in iter_records(data) if r.type != SESSION] == made.folded.keys


@pytest.mark.parametrize(("key", "value"), [(bytes(1 << 16), b""), (b"k", bytes(MAX_RECORD_BYTES))])
def test_a_record_that_does_not_fit_is_refused(key: bytes, value: bytes) -> None:
    """In columns, too, before anything is taken."""
    made = BatchMaker(1, 1, 0)
    with pytest.raises(RecordTooLargeError):
        made.put_all([b"a", key], [b"", value], 1)
    with pytest.raises(RecordTooLargeError):
        made.put(key, value, 1)
    assert made.count == 0


@given(st.data())
def test_records_that_do_not_fill_the_batch_are_found_out(data: st.DataObject) -> None:
    """Whichever byte of their headers is wrong, it is told or what is found lies inside the batch."""
    made = BatchMaker(1, 1, 0)
    made.put_all([b"a", b"bb"], [b"xyz", b""], 1)
    whole = bytearray(made.seal())
    header = check_batch(bytes(whole))
    whole[data.draw(st.integers(46, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        folded = fold_records(bytes(whole), header)
    except CorruptionError:
        return
    assert all(place is None or (place >> 21) + (place & ((1 << 21) - 1)) <= len(whole) for place in folded.places)
