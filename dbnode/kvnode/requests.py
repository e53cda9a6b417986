"""What is wrong with a request by itself, and the answers that say so. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from kvcommon.numbers import MAX_KEY_BYTES, MAX_VALUE_BYTES
from kvnode.operations import Code, Columns, Kind, Operation, Outcome, Request

Answer = Callable[[Sequence[Outcome] | None], None]
"""Called once with one outcome per operation, or None: the writes' outcome is unknown, a repeat of the pair may tell."""

_SOUND = frozenset(map(int, Kind))


def invalid_operation(op: Operation) -> Outcome | None:
    """What is wrong with an operation by itself, whoever gets it."""
    kind, key, value, expected = op
    if 0 < len(key) <= MAX_KEY_BYTES and len(value) <= MAX_VALUE_BYTES and kind in _SOUND and expected is None:
        return None
    if not 0 < len(key) <= MAX_KEY_BYTES:
        text = f"a key of {len(key)} bytes; 1 to {MAX_KEY_BYTES} are possible"
    elif len(value) > MAX_VALUE_BYTES:
        text = f"a value of {len(value)} bytes; at most {MAX_VALUE_BYTES} are possible"
    elif not Kind.GET <= kind <= Kind.DELETE:
        text = f"operation kind {kind} is unknown; GET, PUT, CREATE, UPDATE and DELETE are 1 to 5"
    elif kind == Kind.CREATE and expected is not None:
        text = f"expected_version {expected} with Create: a key that must not exist has no version; leave it out"
    else:
        return None
    return Outcome(Code.INVALID_ARGUMENT, message=text)


def what_is_invalid(operations: Sequence[Operation]) -> list[Outcome | None]:
    """What is wrong with each operation by itself; empty: nothing is."""
    if type(operations) is Columns and _are_sound(operations):
        return []
    invalid = [invalid_operation(op) for op in operations]
    return invalid if any(invalid) else []


def _are_sound(columns: Columns) -> bool:
    lengths = list(map(len, columns.keys))
    return (
        min(lengths) > 0
        and max(lengths) <= MAX_KEY_BYTES
        and max(map(len, columns.values)) <= MAX_VALUE_BYTES
        and columns.kind in _SOUND
    )


def without_invalid(request: Request, invalid: Sequence[Outcome | None], answer: Answer) -> tuple[Request, Answer]:
    """The request without its invalid operations, and an answer that puts their outcomes back in place."""

    def merged(outcomes: Sequence[Outcome] | None) -> None:
        rest = iter(outcomes or ())
        answer(None if outcomes is None else [bad or next(rest) for bad in invalid])

    valid = [op for op, bad in zip(request.operations, invalid, strict=True) if bad is None]
    return replace(request, operations=valid), merged


def too_far_ahead(observed: int) -> Outcome:
    """A version that no clock of the cluster can have given yet (rule 18)."""
    text = f"observed_version {observed} is more than 1 s ahead of this node's clock"
    return Outcome(Code.INVALID_ARGUMENT, message=text)


def other_batch(request: Request, operations: int) -> list[Outcome]:
    """A pair that stood for another batch before."""
    sequence = request.pair[1] if request.pair else 0
    text = f"sequence {sequence} was used for another batch, of {operations} operations; count sequences up"
    return [Outcome(Code.INVALID_ARGUMENT, message=text)] * len(request.operations)
