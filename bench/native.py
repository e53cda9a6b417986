"""Load from a native gRPC client: bench/native_client, built with `go` where that is installed."""

import asyncio
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measure import Sample

SOURCE = Path(__file__).parent / "native_client"
KNOWN_PLACES = ("/usr/local/go/bin/go",)
BUILD_SECONDS = 300.0


def find_go() -> str | None:
    """The Go tool, or None."""
    return shutil.which("go") or next((p for p in KNOWN_PLACES if os.access(p, os.X_OK)), None)


async def build(folder: Path) -> Path | None:
    """The program, built into `folder`; None where there is no Go, or its modules can't be had."""
    go = find_go()
    if go is None:
        return None
    program = folder / "native_client"
    process = await asyncio.create_subprocess_exec(
        go, "build", "-o", str(program), ".", cwd=SOURCE, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), BUILD_SECONDS)
    if process.returncode:
        print(f"no native client: {said.decode().strip()}")
        return None
    return program


async def native_load(
    program: Path, target: str, operation: str, callers: int, addresses: Sequence[str], **shape: Any
) -> Sample:
    """One round by the program; `shape`: seconds, keys, value_bytes, weight."""
    arguments = (target, operation, callers, shape["seconds"], shape["keys"], shape["value_bytes"], *addresses)
    process = await asyncio.create_subprocess_exec(
        str(program), *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, said = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the native client failed: {said.decode().strip()}")
    found = json.loads(out)
    return Sample(found["per_second"] * shape.get("weight", 1), found["p50"], found["p99"], found["p999"])
