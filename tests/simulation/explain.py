"""A run for a reader who knows nothing of it: what went wrong, who did what, how to see it again, line by line."""

import re
from collections.abc import Sequence

from tests.simulation.record import RAISED, UNEXPECTED, Failure
from tests.simulation.report import Report
from tests.simulation.timeline import Line, Mark, rows

INVARIANTS = {
    1: "at most one run ever appends in an epoch",
    2: "epochs and serials never decrease",
    3: "equal (epoch, index) means equal bytes, and the same before them",
    4: "what is committed is durable on every member of the in-sync set",
    5: "a leader counts at least the in-sync set of its epoch",
    6: "at most one run holds a valid lease at any time",
    7: "nobody claims while its promise to the leader holds, nor promises while it claims",
    8: "after Go a run serves and appends nothing in that epoch",
    9: "what is committed is never cut",
    10: "a log has no hole",
    11: "applied <= commit <= durable <= end",
    12: "compacted and whole logs fold to the same states",
    13: "a deleted key never comes back without a newer write",
    14: "a (client, sequence) takes effect once",
    15: "each key's history is linearizable, and no acknowledged write is lost",
    16: "nothing is shown that is not committed",
    17: "a follower that calls itself fresh has what was committed then",
    20: "versions are unique and grow in the order of the log",
    21: "every OK had at least minInSync durable copies",
    22: "a replica acknowledges only what it has durably, and keeps it",
    23: "a state that is put back is the newest that a replica in sync acted on, or a later one, of a later generation",
    24: "once faults end, some leader serves and all are in sync again",
    25: "a leader welcomes only who means it",
    26: "only the operator says which pods belong to a partition, and only those come to be in sync",
    27: "a replica whose disk failed leaves, and is rebuilt",
}


def explain(report: Report, *, details: bool = False, last: int | None = None, again: str | None = None) -> str:
    """All of it as text. `last`: only so many lines of the timeline. `again`: what shows the run again."""
    lines = rows(report.lines, details=details)
    if last is not None and len(lines) > last:
        lines = [lines[0], f"... {len(lines) - 1 - last} lines before ...", *lines[-last:]]
    return "\n".join([*headline(report, again), "", "TIMELINE", *lines, "", *verdict(report)])


def headline(report: Report, again: str | None = None) -> list[str]:
    """How it went, where the code raised, whose doing it was, and the command that shows it again: its own, or `again`."""
    found = verdict(report)
    if report.failure is not None and report.failure.frames:
        found += ["", "WHERE IT RAISED", *(f"  {frame}" for frame in report.failure.frames)]
    found += ["", "WHO DID WHAT", *_who(report.lines)]
    found += ["", "SEE IT AGAIN", f"  {again or report.options.command}"]
    found += ["  (--html run.html draws it; --details shows heartbeats, acknowledgements and repeats, too)"]
    return found


def verdict(report: Report) -> list[str]:
    """What is broken, the rule or the code, then who did what against it, and when."""
    failure = report.failure
    sizes = f"{report.operations} operations, {report.served} served, {len(report.faults)} faults"
    if failure is None:
        return [f"GOOD: {sizes}; whole again {report.healed_after:.2f} s after the last fault"]
    return [
        f"BROKEN: {_rule(failure)}",
        f"  {failure.who} at {failure.at:.6f} s: {failure.what}",
        f"  in seed {report.options.seed} ({sizes})",
    ]


def _rule(failure: Failure) -> str:
    if failure.invariant == RAISED:
        return f"the code raised {failure.error or 'an error'}"
    if failure.invariant == UNEXPECTED:
        return "what the scenario expects does not come about"
    return f"{failure.name} ({INVARIANTS[failure.invariant]})"


def _who(lines: Sequence[Line]) -> list[str]:
    """One line for each run, with the faults that name it or, while it runs, its pod; and one for each fault."""
    runs: dict[str, list[str]] = {}
    ended: set[str] = set()
    for line in lines:
        if line.mark is Mark.START and line.index is not None:
            runs.setdefault(line.who, []).append(f"started at {line.at:.2f} s with a log to {line.index}")
        elif line.mark is Mark.ROLE and line.who in runs:
            runs[line.who].append(f"{line.what} from {line.at:.2f} s")
        elif line.mark is Mark.END and line.who in runs:
            runs[line.who].append(f"ended at {line.at:.2f} s with a log to {line.index}")
            ended.add(line.who)
        elif line.mark is Mark.FAULT:
            named = set(re.split(r"[ ,;]+", line.what))
            for who, did in runs.items():
                if who in named or (who not in ended and who.rpartition("-r")[0] in named):
                    did.append(f"[{line.what}, at {line.at:.2f} s]")
    found = [f"  {who:<10} {'; '.join(did)}" for who, did in runs.items()]
    for line in lines:
        if line.mark is Mark.FAULT:
            whose = f"{line.who} " if line.who in runs else ""
            found.append(f"  fault at {line.at:.2f} s: {whose}{line.what}")
    return found
