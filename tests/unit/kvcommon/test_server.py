import asyncio
import os
import signal

import pytest

from kvcommon.server import run


def test_the_result_of_main_is_returned() -> None:
    async def main(stop: asyncio.Event) -> object:
        return not stop.is_set()

    assert run(main) is True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_stop(number: signal.Signals) -> None:
    async def main(stop: asyncio.Event) -> object:
        os.kill(os.getpid(), number)
        await stop.wait()
        return "stopped"

    assert run(main) == "stopped"


def test_handlers_are_gone_after_the_end() -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def main(stop: asyncio.Event) -> object:
        return None

    run(main)
    assert signal.getsignal(signal.SIGTERM) == before
