"""The judgement of a torture run can fail it: whatever is lost, in the history or on a disk, is told."""

from dataclasses import replace
from pathlib import Path

from kvstore.batch import RecordType, encode_batch
from kvstore.segment import HEADER_BYTES, RECYCLED_HEADER_BYTES
from kvstore.store import Store
from tests.support.history import History, Kind, Outcome, Result
from tests.support.workload import Report, Timeline
from tests.torture.sabotage import cut_end
from tests.torture.verdict import compare_logs, differences, judge
from tests.unit.kvstore.support import recycled_head

CLUSTER = "11111111-2222-3333-4444-555555555555"


def report(*, final: dict[bytes, int]) -> Report:
    """A client writes a key three times and reads it after each."""
    history = History()
    for at in range(3):
        value, version = f"v{at}".encode(), at + 1
        history.record(
            0, b"k", Kind.PUT, invoked=at, returned=at + 0.2, outcome=Outcome(Result.OK, version), value=value
        )
        history.record(
            1, b"k", Kind.GET, invoked=at + 0.5, returned=at + 0.6, outcome=Outcome(Result.OK, version, value)
        )
    return Report(history, Timeline(), [], final, 0.0, 3.0)


def test_a_history_in_which_nothing_is_lost_passes() -> None:
    """Nothing to say."""
    assert judge(report(final={b"k": 3})) == []


def test_a_lost_write_fails_the_run() -> None:
    """The last acknowledged write is not there in the end, as if its replicas had forgotten it: both checks see it."""
    good = report(final={b"k": 2})
    forgotten = replace(good.history.operations[3], client=2, invoked=3.0, returned=3.1)  # reads what was there before
    bad = replace(good, history=History([*good.history.operations, forgotten]))

    found = judge(bad)

    assert any("is not linearizable" in text for text in found)
    assert any("put b'v2' -> ok version 3, 2.000000 .. 2.200000, is lost, version 2 is there" in text for text in found)


def test_replicas_that_hold_different_values_are_told() -> None:
    """With a key, and both values."""
    same = {b"a": (1, b"x")}

    assert differences({"n0": same, "n1": dict(same)}) == []
    (told,) = differences({"n0": same, "n1": {b"a": (2, b"y")}, "n2": same})
    assert told == "n1 differs from n0 in 1 keys, b'a' for one: (2, b'y') there, (1, b'x') here"


def write(folder: Path, pod: str, *values: bytes) -> Path:
    """A replica's closed directory with one batch per value."""
    with Store.open(folder / pod, cluster_id=CLUSTER, partition=0, pod=pod) as store:
        for index, value in enumerate(values, 1):
            store.append(encode_batch(1, index, index - 1, [(int(RecordType.PUT), b"k", value, index, index)]))
        store.flush()
    return folder / pod


def test_logs_that_differ_are_told(tmp_path: Path) -> None:
    """A record that is another one, and one that is missing."""
    whole = write(tmp_path, "n0", b"a", b"b", b"c")
    assert compare_logs({"n0": whole, "n1": write(tmp_path, "n1", b"a", b"b", b"c")}, CLUSTER, 0) == []

    found = compare_logs({"n0": whole, "n2": write(tmp_path, "n2", b"a", b"x", b"c")}, CLUSTER, 0)
    assert len(found) == 1
    assert "partition 0: records above 0 of n2 differ from n0's: 1 of them, 2 the first" in found[0]

    found = compare_logs({"n0": whole, "n3": write(tmp_path, "n3", b"a", b"b")}, CLUSTER, 0)
    assert "ends of n3 differ" in found[0]


def log_of(folder: Path, records: int) -> Path:
    """A store's only segment, with so many records of a batch each."""
    with Store.open(folder, cluster_id=CLUSTER, partition=0) as store:
        for index in range(1, records + 1):
            store.append(encode_batch(1, index, 0, [(int(RecordType.PUT), b"k", b"v%d" % index, index, 0)]))
        store.flush()
    (segment,) = folder.glob("*.log")
    return segment


def end_of(folder: Path) -> int:
    """Up to which index a start finds the log."""
    with Store.open(folder, cluster_id=CLUSTER, partition=0) as store:
        return store.end.index


def test_sabotage_takes_records_and_not_only_the_zeros_behind_them(tmp_path: Path) -> None:
    """A log grows into zeros that were written ahead, and a killed process leaves them."""
    segment = log_of(tmp_path, 200)
    segment.write_bytes(segment.read_bytes() + bytes(1 << 16))
    cut_end(tmp_path)
    assert 0 < end_of(tmp_path) < 200


def test_sabotage_takes_records_and_not_only_what_a_file_held_before(tmp_path: Path) -> None:
    """A recycled segment has an older one's bytes behind its own."""
    segment = log_of(tmp_path, 200)
    batches = segment.read_bytes()[HEADER_BYTES:]
    size = RECYCLED_HEADER_BYTES + len(batches)
    segment.write_bytes(recycled_head(1, size, size) + batches + b"older" * (1 << 14))
    cut_end(tmp_path)
    assert segment.stat().st_size < size
    assert 0 < end_of(tmp_path) < 200
