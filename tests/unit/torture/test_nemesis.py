"""Which faults strike is the seed's, and the command that a failing run prints asks for the same."""

import asyncio
from random import Random
from typing import cast

import pytest

from tests.torture import nemesis
from tests.torture.__main__ import command, parse
from tests.torture.faults import Kind
from tests.torture.nemesis import AT_ONCE, Nemesis
from tests.torture.scene import Scene

SECONDS = 60.0


async def struck(monkeypatch: pytest.MonkeyPatch, *, held_until: float) -> list[tuple[str, float]]:
    """What strikes in a minute of virtual time: each fault's name and first random number; none ends before a time."""
    now, found, sleep = 0.0, list[tuple[str, float]](), asyncio.sleep

    async def passes(seconds: float) -> None:
        nonlocal now
        now += seconds
        for _ in range(3):
            await sleep(0)  # who has waited for this goes on

    def kind(name: str) -> Kind:
        async def deed(_: Scene, rng: Random) -> str:
            found.append((name, rng.random()))
            while now < held_until:
                await sleep(0)
            return name

        return Kind(name, 1.0, deed)

    with monkeypatch.context() as patch:
        patch.setattr(nemesis, "KINDS", tuple(kind(name) for name in "abcdefgh"))
        patch.setattr(asyncio, "sleep", passes)
        await Nemesis(cast("Scene", None), Random("faults of 7"), lambda: now).run(SECONDS)
    return found


async def test_a_fault_that_lasts_longer_changes_none_that_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """While as many as may be are at work, those whose turn comes are left out; all others stay as they were."""
    short = await struck(monkeypatch, held_until=0.0)
    long = await struck(monkeypatch, held_until=SECONDS / 2)
    assert len(short) > len(long) > 2 * AT_ONCE
    assert long == short[:AT_ONCE] + short[AT_ONCE - len(long) :]


@pytest.mark.parametrize(
    "asked",
    [
        "--seed 3 --rounds 20",
        "--seed 3 --rounds 2 --seconds 7.5 --faults 9 --partitions 1 --replicas 5 --kinds kill,cut --durability memory",
        "--seed 3 --sabotage --no-namespaces",
    ],
)
def test_the_printed_command_asks_for_the_same_from_the_seed(asked: str) -> None:
    arguments = parse(asked.split())
    _, _, module, *words = command(arguments, seed=8, rounds=2).split()
    assert module == "tests.torture"
    assert vars(parse(words)) == vars(arguments) | {"seed": 8, "rounds": 2}
