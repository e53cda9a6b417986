"""What the doors that speak the API share: what is wrong with a batch, and outcomes as the API's errors."""

from kvcommon.numbers import MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS
from kvcoord.view import ClusterWatch
from kvnode.operations import Code, Outcome, ReadMode
from kvproto.v1 import kv_pb2

LEADERSHIP_ENDED = "leadership ended; send the unanswered batches again with their pairs"

_ADVICE = {
    Code.NOT_FOUND: "the key does not exist",
    Code.ALREADY_EXISTS: "the key exists",
    Code.OUTCOME_UNKNOWN: "leadership ended before the write was known to be committed; it may or may not be applied",
}


class Errors:
    """Outcomes of one partition as `Error` messages; those that send a client elsewhere say where."""

    def __init__(self, watch: ClusterWatch, partition: int) -> None:
        self._watch, self._partition = watch, partition

    def of(self, outcome: Outcome) -> kv_pb2.Error:
        """The Error that an outcome other than OK is answered with."""
        error = kv_pb2.Error(
            code=outcome.code,  # type: ignore[arg-type]  # the numbers are the same
            message=outcome.message or _ADVICE.get(Code(outcome.code), ""),
            partition=self._partition,
        )
        if outcome.code in (Code.ALREADY_EXISTS, Code.VERSION_MISMATCH):
            error.found_version = outcome.version
        elif outcome.code in (Code.NOT_LEADER, Code.MOVED, Code.UNAVAILABLE):
            view = self._watch.view
            leader = view.leader_of(self._partition)
            error.leader = leader.grpc_address if leader else ""
            error.map_version = view.slot_map.version if view.slot_map else 0
        return error


def wrong_batch(count: int, size: int, client_id: bytes, sequence: int) -> str:
    """What is wrong with a batch of `count` operations and `size` bytes; empty: nothing."""
    if not 1 <= count <= MAX_BATCH_OPERATIONS:
        return f"a batch of {count} operations; 1 to {MAX_BATCH_OPERATIONS} are possible"
    if size > MAX_BATCH_BYTES + (1 << 20):
        return f"a batch of {size} bytes; at most {MAX_BATCH_BYTES} are possible"
    if client_id and (len(client_id) != 16 or not sequence):
        return f"client_id of {len(client_id)} bytes, sequence {sequence}; 16 bytes and 1 or more go"
    return ""


def wrong_freshness(read_mode: int, max_lag_ms: int) -> str:
    """What is wrong with how fresh a read is asked to be; empty: nothing."""
    if read_mode == ReadMode.BOUNDED and not max_lag_ms:
        return "read_mode BOUNDED without max_lag_ms; give at least 1"
    if read_mode > ReadMode.ANY:
        return f"read_mode {read_mode} is unknown; LINEARIZABLE, BOUNDED and ANY are 1 to 3"
    return ""
