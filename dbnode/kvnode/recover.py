"""The `kvrecover` command: what each replica of a partition knows, and a person's word when they can't agree (rules 7, 19).

Run it where nodes can be reached, as `kubectl exec <pod> -- kvrecover`: there the environment says which partition is meant.
Without --take it only looks.
"""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress

from pydantic import Field

from kvcommon.errors import ConfigurationError, KVClusterError
from kvcommon.settings import Settings, exit_configuration, load_settings
from kvcoord.contract import Coordination, Lost, PartitionState, Versioned
from kvcoord.open import open_coordination
from kvcoord.recovery import Witness, chosen, newest_state, rebuilt
from kvnode.shell.asking import ask_all
from kvnode.shell.testimony import Question
from kvnode.shell.transport import TcpNetwork


class RecoverSettings(Settings):
    """Shows what the replicas of a partition know of its state; with --take, a person's word makes a new one."""

    partition: int = Field(ge=0, lt=1024, description="the partition")
    cluster_id: str = Field(min_length=1, description="the cluster's UUID")
    coordination: str = Field(description="as the nodes have it")
    take: str = Field(default="", description="pod whose replica alone is to be in sync; what others have is given up")
    confirm: str = Field(default="", description="the same pod again, once what will be lost was read")


def table(witnesses: Sequence[Witness], there: PartitionState | None) -> list[str]:
    """What there is to know, as lines for a person."""
    rows = [("REPLICA", "RUN", "LOG ENDS", "EPOCH", "SERIAL", "GENERATION", "IN SYNC THERE")]
    for w in sorted(witnesses, key=lambda w: w.replica):
        known = w.state
        in_sync = " ".join(r.pod for r in known.in_sync) if known else "-"
        state = [str(x) for x in ((known.epoch, known.serial, known.generation) if known else ("-", "-", "-"))]
        rows.append((str(w.replica), w.run, f"{w.end[0]}:{w.end[1]}", state[0], state[1], state[2], in_sync))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if there is None:
        return [*lines, "coordination has no state of this partition"]
    in_sync = " ".join(r.pod for r in there.in_sync)
    text = (
        f"coordination has epoch {there.epoch}, serial {there.serial}, generation {there.generation}; in sync {in_sync}"
    )
    return [*lines, text]


def advice(witnesses: Sequence[Witness], there: PartitionState | None, take: str) -> list[str]:
    """What happens by itself, or what --take would give up."""
    newest = newest_state(witnesses)
    if not take:
        if there is not None and (newest is None or there.age >= newest.age):
            return ["nothing is lost: the replicas act on what coordination has"]
        verdict = rebuilt(witnesses, missing=there is None)
        return [f"the nodes wait: {verdict}" if isinstance(verdict, str) else "the nodes will put the state back"]
    known = max([s for s in (newest, there) if s is not None], key=lambda s: s.age, default=None)
    others = sorted(str(r) for r in (known.in_sync if known else ()) if r.pod != take)
    return [
        f"With {take} alone in sync, acknowledged writes that only these have are lost for good: {', '.join(others) or '-'}",
        f"Make sure that none of them runs and serves; then repeat this with --confirm {take}",
    ]


async def recover(settings: RecoverSettings, coordination: Coordination) -> list[str]:
    """Look, or carry out the word; lines for a person. Raises KVClusterError."""
    members = await coordination.read_members()
    session = coordination.session  # what is heard now is not to meet data that was begun anew meanwhile (rule 19)
    addresses = [m.replication_address for m in members.values() if m.partition == settings.partition]
    answers = await ask_all(TcpNetwork("", 0), addresses, Question(settings.cluster_id))
    witnesses = [a.testimony for a in answers if a.partition == settings.partition]
    versioned = await coordination.read_partition(settings.partition)
    there = versioned.value if versioned else None
    lines = table(witnesses, there)
    if not settings.take or settings.confirm != settings.take:
        return lines + advice(witnesses, there, settings.take)
    return [*lines, await _choose(settings, coordination, witnesses, versioned, session)]


async def _choose(
    settings: RecoverSettings,
    coordination: Coordination,
    witnesses: Sequence[Witness],
    versioned: Versioned[PartitionState] | None,
    session: int,
) -> str:
    state = chosen(witnesses, settings.take, versioned.value if versioned else None)
    if isinstance(state, str):
        raise KVClusterError(f"{state}; nothing was changed")
    if versioned is None:
        outcome = await coordination.create_partition(settings.partition, state, session=session)
    else:
        outcome = await coordination.compare_and_set_partition(
            settings.partition, versioned.version, state, session=session
        )
    if isinstance(outcome, Lost):
        raise KVClusterError("the state changed meanwhile; nothing was changed. Look again")
    return f"done: {state.in_sync[0]} alone is in sync and will lead; the others follow it, and begin from empty if need be"


async def _run(settings: RecoverSettings) -> list[str]:
    coordination = open_coordination(settings.coordination)
    await coordination.start()
    try:
        return await recover(settings, coordination)
    finally:
        with suppress(KVClusterError):
            await coordination.close()


def main() -> None:
    """Exit code 0 when done, 1 when it could not be, 2 for a bad setting."""
    settings = load_settings(RecoverSettings)
    try:
        sys.stdout.write("\n".join(asyncio.run(_run(settings))) + "\n")
    except ConfigurationError as e:
        exit_configuration(e)
    except KVClusterError as e:
        sys.stderr.write(f"kvrecover: {e}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
