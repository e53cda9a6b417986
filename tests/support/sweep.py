"""The complete search for a linearization, of any model: Wing & Gong with Lowe's memoised configurations and just-in-time order.

Going over the answers in time, it looks for a configuration (state, which pending operations have taken effect) that
explains each, depth first; where all operations have returned only the state is left, so the history splits at quiescent
points by itself.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)


class Timed(Protocol):
    """An operation, as far as the sweep knows it. `returned` is None when its outcome is unknown: pending for ever."""

    @property
    def invoked(self) -> float: ...

    @property
    def returned(self) -> float | None: ...


O = TypeVar("O", bound=Timed)  # noqa: E741 - of operations, as S is of states


@dataclass(frozen=True, slots=True)
class Stuck(Generic[S]):
    """The first operation to return without an explanation, the states possible when it was invoked, and who else was open."""

    failing: int
    states: tuple[S, ...]
    open: frozenset[int]


class _Configuration(NamedTuple, Generic[S]):
    """A state, and which of the operations that are still open, or unknown for ever, have taken effect in it."""

    state: S
    done: frozenset[int]
    used: frozenset[int]


class _Answer(NamedTuple):
    """The return of an operation, when it was, and which operations were open then, itself included."""

    operation: int
    returned: float
    open: tuple[int, ...]


class _Configurations(Generic[S]):
    """Configurations without those that have used up more unknown writes than another that is else the same."""

    def __init__(self) -> None:
        self._least: dict[tuple[S, frozenset[int]], list[frozenset[int]]] = {}

    def add(self, configuration: _Configuration[S]) -> bool:
        """Whether it was new."""
        state, done, used = configuration
        least = self._least.setdefault((state, done), [])
        if any(other <= used for other in least):
            return False
        least[:] = [other for other in least if not used <= other] + [used]
        return True

    def states(self) -> tuple[S, ...]:
        """Each that there is, once."""
        return tuple(dict.fromkeys(state for state, _ in self._least))


class Sweep(Generic[S, O]):
    """One search.

    `apply` gives the state after an operation that had this outcome, or None when it can't have had it there; an unknown
    one is applied as if its condition held. `stranded`: whether an open operation can't be explained any more from a
    state on. `after`: operations that take effect after another one, as on one connection. `touches`: what of the state an
    operation reads or writes; an unknown one is then taken only where it may matter to one that has an answer. `idle`:
    whether an operation with this answer changed nothing; without it, one that leaves the state as it is.
    """

    def __init__(
        self,
        operations: Sequence[O],
        initial: S,
        apply: Callable[[S, O], S | None],
        *,
        stranded: Callable[[S, O], bool] | None = None,
        after: Mapping[int, int] | None = None,
        touches: Callable[[O], frozenset[bytes]] | None = None,
        idle: Callable[[O], bool] | None = None,
    ) -> None:
        self._operations, self._initial, self._apply = operations, initial, apply
        self._stranded, self._after, self._touches, self._idle = stranded, after or {}, touches, idle

    def run(self) -> Stuck[S] | None:
        """Go over the answers in the order of their times; those of the same time overlap. None: there is a linearization.

        Depth first, and the configurations with the fewest unknown operations first: in a good history nearly every one
        leads on to the end, however many others there are. From one that an answer was reached with, and none that has used
        less, nothing is tried twice.
        """
        answers = self._answers()
        tried: list[_Configurations[S]] = [_Configurations() for _ in answers]
        ways: list[Iterator[_Configuration[S]]] = [iter([_Configuration(self._initial, frozenset(), frozenset())])]
        furthest = 0
        while ways:
            reached = len(ways) - 1
            configuration = next(ways[-1], None)
            if configuration is None:
                ways.pop()
            elif reached == len(answers):
                return None
            elif tried[reached].add(configuration):
                furthest = max(furthest, reached)
                ways.append(self._explain(configuration, answers[reached]))
        failing = answers[furthest]
        invoked = self._operations[failing.operation].invoked
        first = next(n for n, a in enumerate(answers) if a.returned >= invoked)
        return Stuck(failing.operation, tried[first].states(), frozenset(failing.open))

    def _answers(self) -> "list[_Answer]":
        """All answers by their times, each with the operations that are open then, or unknown for ever."""
        events = [(o.invoked, 0, i) for i, o in enumerate(self._operations)]
        events += [(o.returned, 1, i) for i, o in enumerate(self._operations) if o.returned is not None]
        answers: list[_Answer] = []
        pending: list[int] = []
        for at, returns, i in sorted(events, key=itemgetter(0, 1)):
            if returns:
                answers.append(_Answer(i, at, tuple(pending)))
                pending.remove(i)
            else:
                pending.append(i)
        return answers

    def _explain(self, start: _Configuration[S], answer: "_Answer") -> Iterator[_Configuration[S]]:
        """Configurations in which this operation has taken effect, others only as far as needed before it."""
        seen = _Configurations[S]()
        level = [self._absorb(start, answer.open)]
        seen.add(level[0])
        while level:  # of those that have used the same number of unknown operations
            more: list[_Configuration[S]] = []
            while level:
                configuration = level.pop()
                if answer.operation in configuration.done:
                    yield configuration._replace(done=configuration.done - {answer.operation})
                    continue
                for following in self._steps(configuration, answer.open):
                    absorbed = self._absorb(following, answer.open)
                    if seen.add(absorbed):
                        (more if len(absorbed.used) > len(configuration.used) else level).append(absorbed)
            level = more

    def _absorb(self, configuration: _Configuration[S], pending: Sequence[int]) -> _Configuration[S]:
        """With every open answer that is right in this state and changes nothing: taking it now forbids nothing.

        Not with a write that happens to leave the state as it is: it may be needed later, when it would not.
        """
        state, done, used = configuration
        for i in pending:
            operation = self._operations[i]
            if i in done or operation.returned is None or (self._idle is not None and not self._idle(operation)):
                continue
            if self._apply(state, operation) == state and self._in_turn(i, done, pending):
                done |= {i}
        return _Configuration(state, done, used)

    def _in_turn(self, i: int, done: frozenset[int], pending: Sequence[int]) -> bool:
        """Whether what it comes after has taken effect; of one that is unknown nobody can say."""
        before = self._after.get(i)
        if before is None or before in done or before not in pending:
            return True
        return self._operations[before].returned is None

    def _steps(self, configuration: _Configuration[S], pending: Sequence[int]) -> Iterator[_Configuration[S]]:
        state, done, used = configuration
        relevant = self._relevant(done, pending)
        for i in pending:
            if i in done or i in used or not self._in_turn(i, done, pending):
                continue
            operation = self._operations[i]
            if operation.returned is None and relevant is not None and not relevant & self._touched(i):
                continue
            following = self._apply(state, operation)
            if following is None or self._leaves_behind(following, i, done, pending):
                continue
            if operation.returned is None:
                yield _Configuration(following, done, used | {i})
            else:
                yield _Configuration(following, done | {i}, used)

    def _touched(self, i: int) -> frozenset[bytes]:
        assert self._touches is not None
        return self._touches(self._operations[i])

    def _relevant(self, done: frozenset[int], pending: Sequence[int]) -> frozenset[bytes] | None:
        """What may matter to answers that are yet to be explained, also by way of other unknown operations."""
        if self._touches is None:
            return None
        known = [i for i in pending if i not in done and self._operations[i].returned is not None]
        relevant = frozenset[bytes]().union(*map(self._touched, known))
        unknown = [self._touched(i) for i in pending if self._operations[i].returned is None]
        while True:
            wider = relevant.union(*(touched for touched in unknown if touched & relevant))
            if wider == relevant:
                return relevant
            relevant = wider

    def _leaves_behind(self, state: S, step: int, done: frozenset[int], pending: Sequence[int]) -> bool:
        """Whether an open operation would be stranded."""
        if self._stranded is None:
            return False
        return any(i != step and i not in done and self._stranded(state, self._operations[i]) for i in pending)
