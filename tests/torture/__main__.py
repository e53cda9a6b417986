"""The command line: `python -m tests.torture --seed N`; see `--help`."""

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from kvcommon.logging import configure_logging
from tests.support.zookeeper import ensure_installed
from tests.torture import sandbox
from tests.torture.disks import best_disk, run_folder
from tests.torture.faults import KINDS
from tests.torture.report import Screen, keep
from tests.torture.run import Plans, torture

FAILURES = Path(".kvcluster/torture-failures")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """What a command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Torture a cluster of real processes.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--rounds", type=int, default=20, help="each has its own keys and is judged by itself")
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults in a round")
    parser.add_argument("--faults", type=int, default=0, help="at least so many in a round, if it takes longer")
    parser.add_argument("--partitions", type=int, default=2)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--kinds", default="", help=f"only these faults: {','.join(kind.name for kind in KINDS)}")
    parser.add_argument(
        "--no-namespaces", action="store_true", help="all on 127.0.0.1: no fault of network, disk, boot clock"
    )
    parser.add_argument(
        "--durability", default="fsync", help="memory: a write waits for no sync, and is lost where power fails"
    )
    parser.add_argument(
        "--sabotage", action="store_true", help="lose acknowledged writes on purpose: the run must fail"
    )
    parser.add_argument(
        "--failures", type=Path, default=FAILURES, help="where logs and history of a failing run are kept"
    )
    parser.add_argument("--progress", type=float, default=10.0, help="seconds between two lines of progress")
    parser.add_argument("--verbose", action="store_true", help="tell each fault")
    return parser.parse_args(words)


def command(asked: argparse.Namespace, *, seed: int, rounds: int) -> str:
    """The command line that asks for the same from another seed."""
    words = [f"--seed {seed} --rounds {rounds} --seconds {asked.seconds:g} --faults {asked.faults}"]
    words += [f"--partitions {asked.partitions} --replicas {asked.replicas} --durability {asked.durability}"]
    words += [f"--kinds {asked.kinds}"] * bool(asked.kinds)
    words += ["--sabotage"] * asked.sabotage + ["--no-namespaces"] * asked.no_namespaces
    return " ".join([Path(sys.executable).name, "-m tests.torture", *words])


def main() -> int:
    """Exit code: 0 all held, 1 a violation, or a fault that can't be shown to have happened."""
    arguments = parse(sys.argv[1:])
    configure_logging(
        "torture", environment={"KV_LOG_LEVEL": "error"}
    )  # this process's own clients; the nodes have logs
    screen = Screen(every=arguments.progress, verbose=arguments.verbose)
    obstacle = "not asked for" if arguments.no_namespaces else sandbox.obstacle()
    if not sandbox.inside():
        ensure_installed()  # inside there is no network to get it by
        if not obstacle:
            return sandbox.enter([*sys.argv[1:], f"--seed={arguments.seed}"])
        screen.say(f"without namespaces ({obstacle}): no faults of networks, disks and boot-time clocks in this run")
    disks, why = best_disk(namespaces=sandbox.inside())
    if why:
        screen.say(f"disks are not real in this run, so none hangs or loses power: {why}")
    plans = Plans(
        arguments.seed,
        arguments.rounds,
        arguments.seconds,
        arguments.faults,
        arguments.partitions,
        arguments.replicas,
        tuple(filter(None, arguments.kinds.split(","))),
        namespaces=sandbox.inside(),
        disks=disks,
        durability=arguments.durability,
        sabotage=arguments.sabotage,
    )
    return _run(plans, arguments, screen)


def _run(plans: Plans, arguments: argparse.Namespace, screen: Screen) -> int:
    screen.say(
        f"seed {plans.seed}: {plans.rounds} rounds of {plans.seconds:.0f} s of faults on {plans.partitions} x {plans.replicas} nodes"
    )
    with run_folder() as folder:
        try:
            outcome = asyncio.run(torture(plans, folder, screen))
        except TimeoutError as error:
            kept = arguments.failures / f"seed-{plans.seed}"
            keep(folder, kept, ())
            screen.say(f"the cluster did not come up: {error or 'no partition was born'}; its logs are in {kept}")
            return 1
        screen.summary(outcome.rounds, outcome.breaches)
        if not outcome.breaches and not any(one.breaches or one.nemesis.failures for one in outcome.rounds):
            return 0
        number, seed = len(outcome.rounds), outcome.rounds[-1].seed
        kept = arguments.failures / f"seed-{seed}"
        keep(folder, kept, outcome.rounds)
        screen.say(f"\nlogs, disks, faults and history are in {kept}; the same faults again (times are the machine's):")
        screen.say(f"  {command(arguments, seed=plans.seed, rounds=number)}")
        if number > 1:
            screen.say("the last round alone (how fast each host's clock goes is of the run's first seed):")
            screen.say(f"  {command(arguments, seed=seed, rounds=1)}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
