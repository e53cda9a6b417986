"""Coordination in one SQLite file, shared by real processes that race and are killed."""

import asyncio
import sys
from pathlib import Path

from kvcoord.contract import Versioned
from kvcoord.open import open_coordination
from tests.unit.kvcoord.contract_suite import STATE, Collector, led_by, member

REGISTERS = """
import asyncio, sys
from kvcoord.open import open_coordination
from tests.unit.kvcoord.contract_suite import member

async def main():
    coordination = open_coordination(sys.argv[1], session_timeout=2.0)
    await coordination.start()
    await coordination.register_member(member())
    print("registered", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
INCREMENTS = """
import asyncio, sys
from kvcoord.contract import Won
from kvcoord.open import open_coordination
from tests.unit.kvcoord.contract_suite import led_by

async def main():
    coordination = open_coordination(sys.argv[1])
    await coordination.start()
    won = 0
    while won < 25:
        now = await coordination.read_partition(0)
        won += isinstance(await coordination.compare_and_set_partition(0, now.version, led_by("run", now.value)), Won)
    await coordination.close()

asyncio.run(main())
"""
PATIENCE = 30.0
ROOT = Path(__file__).parents[2]


async def spawn(program: str, url: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, url, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )


async def test_increments_of_many_processes_are_all_counted(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/coordination.db"
    coordination = open_coordination(url)
    await coordination.start()
    await coordination.create_partition(0, STATE)
    processes = [await spawn(INCREMENTS, url) for _ in range(3)]
    for process in processes:
        await process.communicate()
    assert [process.returncode for process in processes] == [0, 0, 0]
    end = await coordination.read_partition(0)
    assert end is not None
    assert (end.version, end.value.epoch) == (75, 75)
    await coordination.close()


async def test_a_killed_process_is_gone_and_its_next_run_is_there(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/coordination.db"
    coordination = open_coordination(url)
    await coordination.start()
    collector = Collector(coordination.watch_members())
    process = await spawn(REGISTERS, url)
    try:
        await collector.until(lambda seen: bool(seen) and seen[-1] == {"c-p0-0": member()}, PATIENCE)
    finally:
        process.kill()
        await process.wait()
    await collector.until(lambda seen: seen[-1] == {}, PATIENCE)
    process = await spawn(REGISTERS, url)
    try:
        await collector.until(lambda seen: seen[-1] == {"c-p0-0": member()}, PATIENCE)
    finally:
        process.kill()
        await process.wait()
    await coordination.close()


async def test_what_was_acknowledged_is_there_for_the_next_process(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/coordination.db"
    coordination = open_coordination(url)
    await coordination.start()
    await coordination.create_partition(0, STATE)
    await coordination.close()
    process = await spawn(INCREMENTS, url)
    await process.communicate()
    again = open_coordination(url)
    await again.start()
    state = STATE
    for _ in range(25):
        state = led_by("run", state)
    assert await again.read_partition(0) == Versioned(state, 25)
    await again.close()
