"""What waits in the service's queue: batches of clients that gather, single writes, atomic groups.

A door of single commands makes one of these per command and is told by `settle` what came of it; that may be before the call that took it
in returns. Plain classes with slots: a node makes tens of thousands of them a second.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from kvnode.operations import Code, Outcome, Request
from kvnode.requests import Answer

Read = Callable[[bytes], bytes | None]
Write = tuple[bytes, bytes | None]
"""A key and its new value, or None to delete it."""

LOST = Outcome(
    Code.OUTCOME_UNKNOWN,
    message="leadership ended before the write was known to be committed; it may or may not be applied",
)
"""How work ends that was begun and whose commit this node does not live to see."""


class Work:
    """Something for the log. `size` in bytes counts for the queue's bound; past `deadline` it is not begun."""

    __slots__ = ("deadline", "size")

    def __init__(self, size: int, deadline: float) -> None:
        self.size, self.deadline = size, deadline

    def settle(self, refused: Outcome | None) -> None:
        """It is over, called once. None: committed and applied; else nothing was done, unless the code says unknown."""
        raise NotImplementedError


class Pending(Work):
    """A client's batch, with everyone who waits for what comes of it."""

    __slots__ = ("answers", "outcomes", "request")

    def __init__(self, request: Request, answer: Answer) -> None:
        super().__init__(request.size, request.deadline)
        self.request, self.answers = request, [answer]
        self.outcomes: Sequence[Outcome] = ()

    def settle(self, refused: Outcome | None) -> None:
        """Tell all: the outcomes, the refusal for each operation, or that they are unknown."""
        outcomes: Sequence[Outcome] | None = self.outcomes
        if refused is not None:
            outcomes = None if refused is LOST else [refused] * len(self.request.operations)
        for answer in self.answers:
            answer(outcomes)


class Waiter(Protocol):
    """Who waits for a single write, or several."""

    def settle(self, refused: Outcome | None) -> None:
        """As Work has it."""
        ...


class Puts(Work):
    """Writes without conditions, of any number of callers, in columns and in their order: see `Service.put`."""

    __slots__ = ("keys", "values", "waiters")

    def __init__(self, deadline: float) -> None:
        super().__init__(0, deadline)
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.waiters: list[Waiter] = []

    def settle(self, refused: Outcome | None) -> None:
        for waiter in self.waiters:
            waiter.settle(refused)


class Transaction(Work):
    """An atomic group: `decide` reads, and says what is written and what the result is.

    It is evaluated in log order, when the batch is made, on what is applied overlaid with what is under way; so it may
    read any key of this partition. All that it writes is in one batch of the log: it becomes visible at once or never. It
    must be pure, and fast: the node does nothing else meanwhile. `result` is there when it is settled with None.
    """

    __slots__ = ("decide", "refused", "result")

    def __init__(self, decide: Callable[[Read], tuple[Sequence[Write], Any]], size: int, deadline: float) -> None:
        super().__init__(size, deadline)
        self.decide = decide
        self.result: Any = None
        self.refused: Outcome | None = None
