"""`kvlocal run` as a person starts it: the demonstration, a second run, refusals, and the end."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from kvlocal.probe import ready

MANIFEST = """
apiVersion: kvcluster.dev/v1alpha1
kind: KVCluster
metadata: {name: r}
spec: {partitions: 1, replicas: 2}
"""
START_SECONDS = 120.0


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """One partition on two nodes."""
    path = tmp_path / "cluster.yaml"
    path.write_text(MANIFEST)
    return path


async def start(manifest: Path, *arguments: str) -> asyncio.subprocess.Process:
    """`kvlocal run` with its data beside the manifest."""
    command = [sys.executable, "-m", "kvlocal.main", "run", str(manifest), "--data", str(manifest.parent / "data")]
    # Other clusters on this machine have the well-known ports.
    command += ["--port", "0", "--http-port", "0", "--redis-port", "0", *arguments]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)


async def run(manifest: Path, *arguments: str) -> tuple[int | None, str, str]:
    """Exit code, stdout and stderr."""
    process = await start(manifest, *arguments)
    async with asyncio.timeout(START_SECONDS):
        out, error = await process.communicate()
    return process.returncode, out.decode(), error.decode()


async def read_until(process: asyncio.subprocess.Process, text: str) -> str:
    """All that was said up to the line that has the text."""
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(START_SECONDS):
        while text not in said:
            line = await process.stdout.readline()
            assert line, f"ended without saying {text!r}: {said}"
            said += line.decode()
    return said


async def test_the_demonstration_loses_nothing_and_a_second_run_finds_the_cluster(manifest: Path) -> None:
    """Same id, same ports, the data still there."""
    code, out, error = await run(manifest, "--exit-after-demo")
    assert code == 0, out + error
    assert "leads in epoch 2" in out
    assert "acknowledged writes are there" in out
    known = json.loads((manifest.parent / "data" / "cluster.json").read_text())

    code, out, error = await run(manifest, "--exit-after-demo")
    assert code == 0, out + error
    assert "its data found again" in out
    assert json.loads((manifest.parent / "data" / "cluster.json").read_text()) == known


async def test_another_spec_on_the_same_data_is_refused(manifest: Path) -> None:
    """In one sentence, with exit code 2, whatever runs or not."""
    process = await start(manifest, "--no-demo")
    await read_until(process, "Up until Ctrl-C")
    manifest.write_text(MANIFEST.replace("partitions: 1", "partitions: 2"))

    code, _, error = await run(manifest)
    assert (code, error.count("\n")) == (2, 1)
    assert "running already" in error

    process.send_signal(signal.SIGTERM)
    await process.wait()
    code, _, error = await run(manifest)
    assert (code, error.count("\n")) == (2, 1)
    assert "partitions is 2, was 1" in error


async def test_a_bad_manifest_is_refused(manifest: Path) -> None:
    """In one sentence, with exit code 2, before anything is started."""
    manifest.write_text(MANIFEST.replace("replicas: 2", "replicas: 2, minInSync: 3"))

    code, _, error = await run(manifest)

    assert (code, error.count("\n")) == (2, 1)
    assert "minInSync is 3 with 2 replicas" in error
    assert not (manifest.parent / "data").exists()


async def test_ctrl_c_ends_every_process(manifest: Path) -> None:
    """With exit code 0."""
    process = await start(manifest, "--no-demo")
    await read_until(process, "Up until Ctrl-C")
    children = _descendants(process.pid)
    ports = json.loads((manifest.parent / "data" / "cluster.json").read_text())["ports"]
    assert len(children) == 4  # two nodes, the router, and the fork server that is their parent
    assert await ready(ports["r-router/http"]) == ""

    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        await process.wait()

    assert process.returncode == 0
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def _descendants(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").iterdir()
    children = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    return children + [pid for child in children for pid in _descendants(child)]
